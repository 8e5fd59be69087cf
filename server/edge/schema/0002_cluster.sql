-- What nodes share: who leads, and the outbox by which they tell each other where to look. All times are this database's.

create schema if not exists ops;

-- One row for each thing that is led. The term is the fencing number: it grows with each change of the holder and never
-- goes back. holder is null after a resignation.
-- The unique key has a purpose of its own: because term is in it, a change of the term waits for everybody who holds the
-- row for key share (a leader's fenced transaction), and a renewal, which changes no key, does not.
create table ops.lease (
    name        text primary key,
    holder      text,
    term        bigint not null check (term >= 0),
    renewed_at  timestamptz not null,
    expires_at  timestamptz not null,
    unique (name, term)
) with (fillfactor = 50);

-- The counter of each node that ever published. The row's lock is what puts a node's transactions in the order of seq.
create table ops.node (
    node          text primary key,
    last_seq      bigint not null check (last_seq > 0),
    published_at  timestamptz not null
) with (fillfactor = 50);

-- Messages, numbered by each node from 1 without gaps; payload is json, not jsonb, because nobody looks into it here.
create table ops.outbox (
    node     text not null,
    seq      bigint not null check (seq > 0),
    topic    text not null,
    payload  json not null,
    at       timestamptz not null default clock_timestamp(),
    primary key (node, seq)
);
