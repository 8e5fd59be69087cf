-- Several servers over one database: who is there, and the flushes that all of them take part in. Times are this database's.

-- One row a server, which it renews every few seconds; one that was not renewed is a server that is no more.
create table feed.node (
    node             text primary key,
    seen_at          timestamptz not null default clock_timestamp(),
    leads            boolean not null,
    registered_users int not null,
    users_updated    bigint not null,
    moved            bigint not null,  -- events whose waiting counters moved, since it started
    lag_ms           int not null,
    next_batch_ms    bigint            -- when the leader's next flush is due; null: it plans none
) with (fillfactor = 50);

-- One row for ever: the number of the last flush that was begun, and how many have been asked for.
create table feed.round (
    one     boolean primary key default true check (one),
    number  bigint not null,
    asked   bigint not null
) with (fillfactor = 50);
insert into feed.round (number, asked) values (0, 0);

-- The newest flushes: what the leader published, which requests that served, and each server's walk over its viewers.
create table feed.flush (
    number  bigint primary key,
    asked   bigint not null,
    node    text not null,
    events  bigint not null,
    failed  bigint not null,
    at      timestamptz not null default clock_timestamp()
);

create table feed.walk (
    number    bigint not null references feed.flush (number) on delete cascade,
    node      text not null,
    frames    bigint not null,
    deferred  bigint not null,
    seconds   float8 not null,
    primary key (number, node)
);
