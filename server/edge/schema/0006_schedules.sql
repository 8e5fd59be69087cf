-- Global schedules: one schedule per platform x type x interval, in batches that businesses of many teams share; what its runs
-- brought, isolated by team; the queue of what has to be tried again.
--
-- A LINE is platform x type x interval_hours. Whoever places, moves or removes mappings holds the lock of each line concerned
-- (the row of its batch 0, for no key update), taken after the row of the team and in the order of platform, type, interval. With it the counts
-- of all its batches stand still. Whoever makes a batch holds the advisory lock of the platform as well, taken last.
--
-- Two roles: batchcast_team sees what belongs to the team named in batchcast.team, batchcast_schedules sees everything.
-- The server takes one of them in each of its transactions. Roles belong to the whole server, so they may exist already.

create schema if not exists schedules;

do $$
declare
    role_name text;
begin
    foreach role_name in array array['batchcast_team', 'batchcast_schedules'] loop
        begin
            if to_regrole(role_name) is null then
                execute format('create role %I nologin', role_name);
            end if;
        exception when duplicate_object or unique_violation then
            null;
        end;
        if not pg_has_role(current_user, role_name,
                case when current_setting('server_version_num')::int >= 160000 then 'set' else 'member' end) then
            execute format('grant %I to %I', role_name, current_user);
        end if;
    end loop;
end $$;

create domain schedules.platform as text check (value in ('google', 'facebook', 'tripadvisor', 'booking'));
create domain schedules.type as text check (value in ('reviews', 'overview'));
create domain schedules.hours as int check (value between 1 and 168);
create domain schedules.identifier as text check (length(value) between 1 and 1000);

-- A batch. Paused (an administrator's doing), active (false: consolidated away, gets nothing until the others are full) and
-- empty (businesses = 0) are three facts. businesses and input_version are kept by the trigger below, in the transaction that
-- changes the mappings, and by nobody else. Slots are the minutes since 1970 that are offset_minutes more than a multiple
-- of the interval; next_run_at is the first slot that has not been served.
create table schedules.schedule (
    id                     bigint generated always as identity primary key,
    platform               schedules.platform not null,
    type                   schedules.type not null,
    interval_hours         schedules.hours not null,
    batch_index            int not null check (batch_index >= 0),
    offset_minutes         int not null,
    capacity               int not null check (capacity > 0),
    businesses             int not null default 0 check (businesses >= 0),
    active                 boolean not null default true,
    paused                 boolean not null default false,
    next_run_at            timestamptz not null,
    last_run_at            timestamptz,
    input_version          bigint not null default 1,
    provider_schedule_id   text,
    provider_input_version bigint,
    created_at             timestamptz not null default clock_timestamp(),
    unique (platform, type, interval_hours, batch_index),
    check (offset_minutes between 0 and interval_hours * 60 - 1)
) with (fillfactor = 50);
-- What placing looks for: the least loaded with room; those set aside.
create index schedule_room on schedules.schedule (platform, type, interval_hours, businesses, batch_index)
    where active and not paused and businesses < capacity;
create index schedule_aside on schedules.schedule (platform, type, interval_hours, batch_index) where not active;
create index schedule_due on schedules.schedule (next_run_at) where not paused;

create table schedules.team (
    team       text primary key check (length(team) between 1 and 200),
    tier       text not null default 'starter' check (tier in ('starter', 'professional', 'enterprise')),
    created_at timestamptz not null default clock_timestamp(),
    changed_at timestamptz not null default clock_timestamp()
);

-- identifiers: by platform, normalised; what is sent to the provider. The key has the team in it, so that no mapping can
-- name a business of another team.
create table schedules.business (
    id          bigint generated always as identity,
    team        text not null references schedules.team,
    name        text not null default '' check (length(name) <= 300),
    identifiers jsonb not null check (jsonb_typeof(identifiers) = 'object'),
    status      text not null default 'active' check (status in ('active', 'paused')),
    created_at  timestamptz not null default clock_timestamp(),
    primary key (id, team)
);
create index business_team on schedules.business (team, id);

-- Which batch asks for a business. identifier is what is sent, returned what the provider calls it, where that differs. A team
-- follows a place once; two teams that follow the same one have a mapping each.
-- Indexes begin with what tells rows apart: platform and type do not, which the planner learns only with the first statistics.
create table schedules.mapping (
    business_id bigint not null,
    team        text not null,
    platform    schedules.platform not null,
    type        schedules.type not null,
    schedule_id bigint not null references schedules.schedule on delete restrict,
    identifier  schedules.identifier not null,
    returned    schedules.identifier,
    created_at  timestamptz not null default clock_timestamp(),
    primary key (business_id, platform, type),
    unique (identifier, platform, type, team),
    foreign key (business_id, team) references schedules.business (id, team) on delete cascade
) with (fillfactor = 90);
create index mapping_schedule on schedules.mapping (schedule_id);
create index mapping_returned on schedules.mapping (returned, platform, type) where returned is not null;

-- Keeps businesses and input_version: the net of a statement, once a statement. A batch may hold more than its capacity only
-- when that was lowered under it; then it can only lose. Batches are found by their key, however many there are.
create function schedules.count_businesses() returns trigger language plpgsql set enable_seqscan = off as $$
declare
    full_id bigint;
begin
    if tg_op = 'INSERT' then
        with change as (select schedule_id, count(*)::int as n from added group by 1),
        counted as (
            update schedules.schedule s set businesses = s.businesses + c.n, input_version = s.input_version + 1
            from change c where s.id = c.schedule_id returning s.id, s.businesses > s.capacity as over
        )
        select id into full_id from counted where over limit 1;
    elsif tg_op = 'DELETE' then
        with change as (select schedule_id, count(*)::int as n from gone group by 1)
        update schedules.schedule s set businesses = s.businesses - c.n, input_version = s.input_version + 1
        from change c where s.id = c.schedule_id;
    else
        with change as (
            select schedule_id, sum(n)::int as n
            from (select schedule_id, 1 as n from added union all select schedule_id, -1 from gone) both_sides group by 1
        ),
        counted as (
            update schedules.schedule s set businesses = s.businesses + c.n, input_version = s.input_version + 1
            from change c where s.id = c.schedule_id and c.n <> 0 returning s.id, c.n > 0 and s.businesses > s.capacity as over
        )
        select id into full_id from counted where over limit 1;
    end if;
    if full_id is not null then
        raise exception 'the batch % has no room', full_id using errcode = 'check_violation', constraint = 'schedule_capacity';
    end if;
    return null;
end $$;
create trigger added after insert on schedules.mapping
    referencing new table as added for each statement execute function schedules.count_businesses();
create trigger removed after delete on schedules.mapping
    referencing old table as gone for each statement execute function schedules.count_businesses();
create trigger moved after update on schedules.mapping
    referencing old table as gone new table as added for each statement execute function schedules.count_businesses();

-- An interval of a team's own, while it has not expired; without expires_at until it is removed.
create table schedules.custom_interval (
    team           text not null references schedules.team on delete cascade,
    platform       schedules.platform not null,
    type           schedules.type not null,
    interval_hours schedules.hours not null,
    reason         text not null default '' check (length(reason) <= 500),
    set_by         text not null,
    set_at         timestamptz not null default clock_timestamp(),
    expires_at     timestamptz,
    primary key (team, platform, type)
);
create index custom_interval_expiry on schedules.custom_interval (expires_at) where expires_at is not null;

-- Each change of one: what it was made to (null: removed, expired), by whom, why.
create table schedules.custom_interval_history (
    id             bigint generated always as identity primary key,
    team           text not null,
    platform       schedules.platform not null,
    type           schedules.type not null,
    change         text not null check (change in ('set', 'removed', 'expired', 'tier')),
    interval_hours int,
    reason         text not null default '',
    who            text,
    expires_at     timestamptz,
    at             timestamptz not null default clock_timestamp()
);
create index custom_interval_history_team on schedules.custom_interval_history (team, id);

-- One start at the provider: the intent first, whatever became of it afterwards. intent_key makes it one: a slot of a schedule,
-- a trigger, an attempt of a retry. term is the leader's that made it. identifiers: what was asked for, written with the state
-- starting; found: which of these the dataset had, so far. page is the offset in the dataset from which attribution goes on.
create table schedules.provider_run (
    id              bigint generated always as identity primary key,
    intent_key      text not null unique check (length(intent_key) between 1 and 200),
    kind            text not null check (kind in ('scheduled', 'triggered', 'retry')),
    schedule_id     bigint references schedules.schedule on delete set null,
    platform        schedules.platform not null,
    type            schedules.type not null,
    business_id     bigint,
    slot            timestamptz,
    term            bigint,
    state           text not null default 'intended' check (state in ('intended', 'starting', 'unknown', 'running', 'succeeded',
                        'failed', 'aborted', 'timed_out', 'refused', 'skipped')),
    provider_run_id text unique,
    dataset_id      text,
    identifiers     text[] not null default '{}',
    found           text[] not null default '{}',
    asked           int generated always as (cardinality(identifiers)) stored,
    items           bigint not null default 0,
    attributed      bigint not null default 0,
    unasked         bigint not null default 0,
    missing         int not null default 0,
    page            bigint not null default 0,
    attempts        int not null default 0,
    error           text,
    created_at      timestamptz not null default clock_timestamp(),
    started_at      timestamptz,
    checked_at      timestamptz,
    finished_at     timestamptz,
    processed_at    timestamptz
) with (fillfactor = 80);
create index provider_run_open on schedules.provider_run (state, id) where processed_at is null;
create index provider_run_schedule on schedules.provider_run (schedule_id, id desc);
create index provider_run_age on schedules.provider_run (created_at) where processed_at is not null;

-- What the provider told us, as it came; processed from here. A second delivery of the same is no row.
create table schedules.webhook_delivery (
    id           bigint generated always as identity primary key,
    run_id       text not null check (length(run_id) between 1 and 200),
    event        text not null check (length(event) between 1 and 100),
    body         jsonb not null,
    received_at  timestamptz not null default clock_timestamp(),
    processed_at timestamptz,
    attempts     int not null default 0,
    error        text,
    unique (run_id, event)
) with (fillfactor = 80);
create index webhook_delivery_open on schedules.webhook_delivery (id) where processed_at is null;
create index webhook_delivery_age on schedules.webhook_delivery (received_at);

-- A business that a run has failed for. lease is the number of times that it was claimed: who claimed it before changes nothing.
create table schedules.retry (
    id            bigint generated always as identity primary key,
    team          text not null,
    business_id   bigint not null,
    platform      schedules.platform not null,
    type          schedules.type not null,
    state         text not null default 'waiting' check (state in ('waiting', 'running', 'resolved', 'failed')),
    attempts      int not null default 0 check (attempts >= 0),
    next_retry_at timestamptz,
    last_error    text,
    lease         bigint not null default 0,
    lease_until   timestamptz,
    run_id        bigint references schedules.provider_run on delete set null,
    created_at    timestamptz not null default clock_timestamp(),
    settled_at    timestamptz,
    unique (business_id, platform, type),
    foreign key (business_id, platform, type) references schedules.mapping on delete cascade
) with (fillfactor = 80);
create index retry_due on schedules.retry (platform, next_retry_at, id) where state = 'waiting';
create index retry_held on schedules.retry (lease_until) where state = 'running';
create index retry_team on schedules.retry (team, id);
create index retry_settled on schedules.retry (settled_at) where settled_at is not null;

-- What was scraped. No foreign key: whether it outlives its business is a setting.
create table schedules.review (
    team         text not null,
    business_id  bigint not null,
    platform     schedules.platform not null,
    review_id    text not null check (length(review_id) between 1 and 500),
    rating       float8,
    title        text,
    text         text,
    author       text,
    url          text,
    published_at timestamptz,
    edits        int not null default 0,
    hash         bytea not null,
    run_id       bigint,
    first_seen_at timestamptz not null default clock_timestamp(),
    fetched_at   timestamptz not null,
    primary key (team, business_id, platform, review_id)
);
create index review_newest on schedules.review (team, business_id, platform, published_at desc nulls last, review_id);

create table schedules.overview (
    team         text not null,
    business_id  bigint not null,
    platform     schedules.platform not null,
    fetched_at   timestamptz not null,
    rating       float8,
    review_count bigint,
    name         text,
    extra        jsonb,
    run_id       bigint,
    primary key (team, business_id, platform, fetched_at)
);

-- How far a file of businesses has been taken in, by the hash of the file: the next attempt goes on from there.
create table schedules.intake (
    file        text primary key check (length(file) between 1 and 200),
    rows        bigint not null default 0,
    placed      bigint not null default 0,
    known       bigint not null default 0,
    refused     bigint not null default 0,
    started_at  timestamptz not null default clock_timestamp(),
    updated_at  timestamptz not null default clock_timestamp(),
    finished_at timestamptz
);

-- The admin trail of this system.
create view schedules.audit with (security_invoker = true) as
select id, at, who, action, target, before, after from ops.audit where action like 'schedules.%';

-- Who may do what. No row without a policy, no verb without a grant.

do $$
declare
    name text;
begin
    foreach name in array array['schedule', 'team', 'business', 'mapping', 'custom_interval', 'custom_interval_history',
            'provider_run', 'webhook_delivery', 'retry', 'review', 'overview', 'intake'] loop
        execute format('alter table schedules.%I enable row level security', name);
        execute format('create policy service on schedules.%I to batchcast_schedules using (true)', name);
    end loop;
    foreach name in array array['team', 'business', 'mapping', 'custom_interval', 'custom_interval_history', 'retry', 'review',
            'overview'] loop
        execute format('create policy own on schedules.%I to batchcast_team
            using (team = (select current_setting(''batchcast.team'', true)))', name);
    end loop;
end $$;

-- A team sees the batches that it is in, and neither how many others are in them nor anything of the provider's.
create policy used on schedules.schedule for select to batchcast_team
    using (id in (
        select m.schedule_id from schedules.business b join schedules.mapping m on m.business_id = b.id and m.team = b.team));

grant usage on schema schedules, ops to batchcast_team, batchcast_schedules;
grant select, insert, update, delete on all tables in schema schedules to batchcast_schedules;
revoke all on schedules.audit from batchcast_schedules;
grant usage on sequence schedules.business_id_seq to batchcast_schedules;
grant select, insert, delete on schedules.business to batchcast_team;
grant update (name, identifiers, status) on schedules.business to batchcast_team;
grant select on schedules.team, schedules.mapping, schedules.custom_interval, schedules.custom_interval_history,
    schedules.review, schedules.overview to batchcast_team;
grant select (id, platform, type, interval_hours, batch_index, active, paused, next_run_at, last_run_at)
    on schedules.schedule to batchcast_team;
grant select (id, team, business_id, platform, type, state, attempts, next_retry_at, last_error, created_at, settled_at)
    on schedules.retry to batchcast_team;

-- The service's work is noted in the trail and told to the other nodes. The fence of the leader comes before the role is taken.
grant insert (who, action, target, before, after), select (id) on ops.audit to batchcast_schedules;
grant select, insert, update on ops.node to batchcast_schedules;
grant select, insert on ops.outbox to batchcast_schedules;
