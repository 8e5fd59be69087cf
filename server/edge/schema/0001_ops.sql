-- What every loop leaves behind, and what was raised about it. Times are the server's own, handed in by the caller.

create schema if not exists ops;

-- One row a turn; of loops that turn many times a second one row a minute (detail.turns says how many).
create table ops.batch_runs (
    id          bigint generated always as identity primary key,
    node        text not null,
    loop        text not null,
    number      bigint not null,
    trigger     text not null,
    started_at  timestamptz not null,
    seconds     float8 not null,
    taken       bigint not null,
    done        bigint not null,
    failed      bigint not null,
    deferred    bigint not null,
    missed      int not null,
    more        boolean not null,
    error       text,
    detail      jsonb not null default '{}',
    check (taken = done + failed + deferred)
);

-- History pages by this order; number settles turns of one millisecond.
create index batch_runs_loop on ops.batch_runs (loop, started_at desc, number desc);

-- Each node judges its own turns, so an alert belongs to one; (node, rule, raised_at) makes writing it again harmless.
create table ops.alert (
    id              bigint generated always as identity primary key,
    node            text not null,
    rule            text not null,
    severity        text not null check (severity in ('INFO', 'WARNING', 'ERROR', 'CRITICAL')),
    message         text not null,
    raised_at       timestamptz not null,
    recovered_at    timestamptz,
    acknowledged_at timestamptz,
    acknowledged_by text,
    unique (node, rule, raised_at),
    check ((acknowledged_at is null) = (acknowledged_by is null))
);

create index alert_open on ops.alert (node, rule) where recovered_at is null;
