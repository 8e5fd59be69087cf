-- The live feed: events, their counters, remembered updates, run-time settings and the audit trail.

create schema if not exists feed;
create schema if not exists ops;

-- One sequence for every published change of every event: a number is never used twice for an id.
create sequence feed.version maxvalue 9007199254740991;

create table feed.event (
    id          text primary key check (length(id) between 1 and 128),
    title       text not null,
    emoji       text,
    description text,
    categories  text[] not null,
    latitude    double precision not null check (latitude between -90 and 90),
    longitude   double precision not null check (longitude between -180 and 180),
    start_ms    bigint not null,
    end_ms      bigint,
    timezone    text,
    status      text not null check (status in ('PENDING', 'VERIFIED', 'REJECTED', 'EXPIRED')),
    confidence  double precision check (confidence between 0 and 1),
    private     boolean not null,
    creator_id  text,
    shared_with text[] not null,
    recurrence  text,
    priority    text not null check (priority in ('normal', 'high')),
    created_ms  bigint not null,
    updated_ms  bigint not null,
    properties  text,
    last_end_ms bigint  -- when its last occurrence ends; null: it goes on
);
create index event_ends on feed.event (status, last_end_ms) where last_end_ms is not null;
create index event_place on feed.event using gist (point(longitude, latitude));

-- Counters are narrow and have no second index, which keeps their updates HOT. Pending: stored differs from published.
create table feed.counters (
    event_id  text primary key references feed.event (id) on delete cascade,
    scan      bigint not null check (scan >= 0),
    save      bigint not null check (save >= 0),
    rsvp      bigint not null check (rsvp >= 0),
    pub_scan  bigint not null,
    pub_save  bigint not null,
    pub_rsvp  bigint not null,
    version   bigint not null
) with (fillfactor = 70);

-- Updates already taken, so that a producer may repeat one. In hourly partitions, dropped whole when old.
create table feed.applied (
    sub       text not null,
    update_id text not null,
    event_id  text not null,
    version   bigint not null,
    at        timestamptz not null,
    primary key (sub, update_id, at)
) partition by range (at);
create table feed.applied_rest partition of feed.applied default;

create table ops.setting (
    name   text primary key,
    value  jsonb not null,
    set_by text,
    set_at timestamptz not null default clock_timestamp()
);

create table ops.audit (
    id      bigint generated always as identity primary key,
    at      timestamptz not null default clock_timestamp(),
    who     text,
    action  text not null,
    target  text,
    before  jsonb,
    after   jsonb
);
create index audit_at on ops.audit (at desc);
