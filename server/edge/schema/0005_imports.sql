-- Batch imports: the queue of jobs, its workers and daily statistics, and what jobs make: lists and their contacts.
--
-- Every time in here is this database's own (clock_timestamp), so that no worker's clock matters. Foreign keys are left out
-- on purpose: they would cost a look-up for each contact; a job's page locks its row and thereby its list instead.
--
-- Two roles: batchcast_owner sees what belongs to the user named in batchcast.owner, batchcast_worker sees everything.
-- The server takes one of them in each of its transactions. Roles belong to the whole server, so they may exist already.

create schema if not exists imports;

do $$
declare
    role_name text;
begin
    foreach role_name in array array['batchcast_owner', 'batchcast_worker'] loop
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

-- One list of contacts. Deleted ones are gone for everybody at once; housekeeping removes their contacts in slices.
create table imports.audiences (
    id         bigint generated always as identity primary key,
    owner      text not null check (owner <> ''),
    name       text not null check (length(name) between 1 and 200),
    created_at timestamptz not null default clock_timestamp(),
    deleted_at timestamptz
);
create index audiences_owner on imports.audiences (owner, id);
create index audiences_deleted on imports.audiences (id) where deleted_at is not null;

-- The key is also the order of pages, and keeps a list's rows together however many lists there are.
create table imports.contacts (
    audience_id bigint not null,
    email       text not null check (length(email) between 1 and 320),
    external_id text,
    name        text,
    username    text,
    phone       text,
    status      text,
    joined_ms   bigint,
    extra       jsonb,
    created_at  timestamptz not null default clock_timestamp(),
    primary key (audience_id, email)
);

-- Keys of providers, sealed by the server with a key that is not in here.
create table imports.credentials (
    id           bigint generated always as identity primary key,
    owner        text not null check (owner <> ''),
    account      text not null check (account <> ''),
    provider     text not null check (provider <> ''),
    sealed       bytea not null,
    key_id       text not null,
    created_at   timestamptz not null default clock_timestamp(),
    rotated_at   timestamptz,
    checked_at   timestamptz,
    check_result text,
    unique (owner, account, provider)
);

-- A process that works. Its lease is that of all jobs it holds: one row to renew, that nothing else writes to or locks.
create table imports.batch_processing_workers (
    id                      bigint generated always as identity primary key,
    name                    text not null,
    status                  text not null default 'active' check (status in ('active', 'stopped', 'dead')),
    current_job             bigint,
    started_at              timestamptz not null default clock_timestamp(),
    last_heartbeat          timestamptz not null default clock_timestamp(),
    lease_until             timestamptz not null,
    lanes                   int not null,
    jobs_processed          bigint not null default 0,
    total_members_processed bigint not null default 0,
    host                    text not null,
    pid                     int not null,
    version                 text not null
) with (fillfactor = 50);

-- Rules of columns that updates leave alone stand in domains: a check of the table would be made ready for each statement
-- and asked for each row, also by those that only end a claim.
create domain imports.owner as text check (value <> '');
create domain imports.client_key as text check (length(value) between 1 and 200);
create domain imports.source as text check (value in ('provider', 'file'));
create domain imports.level as smallint check (value between 0 and 9);
create domain imports.retries as int check (value between 0 and 100);

-- A job. status:  scheduled --due--> pending --claimed--> processing --> completed | failed | cancelled
--                     ^------- failed, will be tried again -------'
-- pending rows are in the order in which they are claimed: tier (9 - priority, less one for each step of age), then turn (see
-- imports.place), then id. Rows for later stand in an index of their own, or claims would walk over them.
-- lease is the number of times that the job was claimed: who claimed it before can change nothing. drained: its last page is
-- stored, only its end is missing.
create table imports.batch_processing_queue (
    id              bigint generated always as identity primary key,
    owner           imports.owner not null,
    client_key      imports.client_key,
    audience_id     bigint,
    source          imports.source not null,
    provider        text,
    account         text,
    credential_id   bigint,
    file            text,
    status          text not null default 'pending',
    priority        imports.level not null default 5,
    tier            imports.level not null default 4,
    turn            bigint not null default 0,
    retry_count     int not null default 0,
    max_retries     imports.retries not null default 5,
    next_attempt_at timestamptz,
    worker_id       bigint,
    lease           bigint not null default 0,
    cursor          text,
    drained         boolean not null default false,
    pages           int not null default 0,
    total           bigint,
    seen            bigint not null default 0,
    imported        bigint not null default 0,
    without_email   bigint not null default 0,
    rejected        bigint not null default 0,
    error           text,
    created_at      timestamptz not null default clock_timestamp(),
    waiting_since   timestamptz not null default clock_timestamp(),
    started_at      timestamptz,
    claimed_at      timestamptz,
    progress_at     timestamptz,
    finished_at     timestamptz,
    check (num_nonnulls(worker_id, next_attempt_at, finished_at) <= 1 and status = case
        when worker_id is not null then 'processing' when next_attempt_at is not null then 'scheduled'
        when finished_at is null then 'pending' when status in ('completed', 'failed', 'cancelled') then status else '' end)
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 10000);

create index queue_next on imports.batch_processing_queue (tier, turn, id) where status = 'pending';
create index queue_due on imports.batch_processing_queue (next_attempt_at) where status = 'scheduled';
-- By worker, not by time: a heartbeat must not touch this index, and the rows in it are few.
create index queue_held on imports.batch_processing_queue (worker_id) where status = 'processing';
create index queue_owner on imports.batch_processing_queue (owner, id);
create unique index queue_client_key on imports.batch_processing_queue (owner, client_key) where client_key is not null;

-- Rows of a source that could not become members, for the report; the first ones of each job.
create table imports.rejected_rows (
    job_id bigint not null,
    row    bigint not null,
    field  text,
    reason text not null,
    primary key (job_id, row)
);

-- Owners take turns. tier.turn is the turn that is being claimed in a tier; place.turn is the last one that an owner has taken
-- there. A new job gets the owner's next turn, not one that has passed: so one who brings many jobs waits behind the first
-- ones of everybody else. Both lag by a second at most, which gives nobody more than that second's advantage.
create table imports.tier (
    tier smallint primary key check (tier between 0 and 9),
    turn bigint not null default 1
) with (fillfactor = 50);
insert into imports.tier (tier) select generate_series(0, 9);

create table imports.place (
    tier  smallint not null,
    owner text not null,
    turn  bigint not null,
    primary key (tier, owner)
) with (fillfactor = 70);

-- The first of `wanted` turns in a row for an owner.
create function imports.take_turns(for_tier smallint, for_owner text, wanted bigint) returns bigint
language sql as $$
    insert into imports.place as p (tier, owner, turn)
    select for_tier, for_owner, t.turn - 1 + wanted from imports.tier t where t.tier = for_tier
    on conflict (tier, owner) do update set turn = greatest(p.turn + wanted, excluded.turn)
    returning turn - wanted + 1
$$;

-- A worker's share of a day, written by the statement that ends its jobs; nobody else waits for that row.
create table imports.stats_shard (
    date      date not null,
    worker_id bigint not null,
    completed bigint not null default 0,
    failed    bigint not null default 0,
    members   bigint not null default 0,
    seconds   float8 not null default 0,
    primary key (date, worker_id)
) with (fillfactor = 50);

create view imports.batch_processing_stats with (security_invoker = true) as
select date,
    sum(completed + failed)::bigint as total_jobs,
    sum(completed)::bigint as completed_jobs,
    sum(failed)::bigint as failed_jobs,
    sum(members)::bigint as total_members_processed,
    round((sum(seconds) / greatest(sum(completed + failed), 1))::numeric, 3)::float8 as avg_processing_seconds
from imports.stats_shard group by date;

-- Who may do what. No row without a policy, no verb without a grant.

alter table imports.audiences enable row level security;
alter table imports.contacts enable row level security;
alter table imports.credentials enable row level security;
alter table imports.rejected_rows enable row level security;
alter table imports.batch_processing_workers enable row level security;
alter table imports.batch_processing_queue enable row level security;
alter table imports.tier enable row level security;
alter table imports.place enable row level security;
alter table imports.stats_shard enable row level security;

create policy service on imports.audiences to batchcast_worker using (true);
create policy service on imports.contacts to batchcast_worker using (true);
create policy service on imports.credentials to batchcast_worker using (true);
create policy service on imports.batch_processing_workers to batchcast_worker using (true);
create policy service on imports.batch_processing_queue to batchcast_worker using (true);
create policy service on imports.rejected_rows to batchcast_worker using (true);
create policy service on imports.tier to batchcast_worker using (true);
create policy service on imports.place to batchcast_worker using (true);
create policy service on imports.stats_shard to batchcast_worker using (true);

create policy own on imports.audiences to batchcast_owner
    using (owner = (select current_setting('batchcast.owner', true)));
create policy own on imports.contacts to batchcast_owner
    using (audience_id in (select a.id from imports.audiences a where a.deleted_at is null));
create policy own on imports.credentials to batchcast_owner
    using (owner = (select current_setting('batchcast.owner', true)));
create policy own on imports.batch_processing_queue to batchcast_owner
    using (owner = (select current_setting('batchcast.owner', true)));
create policy own on imports.place to batchcast_owner
    using (owner = (select current_setting('batchcast.owner', true)));
create policy own on imports.rejected_rows for select to batchcast_owner
    using (job_id in (select q.id from imports.batch_processing_queue q));
create policy everyone on imports.tier for select to batchcast_owner using (true);

grant usage on schema imports to batchcast_owner, batchcast_worker;
grant select, insert, update, delete on all tables in schema imports to batchcast_worker;
revoke insert, update, delete on imports.batch_processing_stats from batchcast_worker;
grant select, insert, update on imports.audiences, imports.place to batchcast_owner;
grant select on imports.contacts, imports.tier, imports.batch_processing_queue, imports.rejected_rows to batchcast_owner;
grant select (id, owner, account, provider, key_id, created_at, rotated_at, checked_at, check_result)
    on imports.credentials to batchcast_owner;
-- What an owner may set of a job; leases, workers, positions and counts are the workers' business.
grant insert (owner, client_key, audience_id, source, provider, account, credential_id, file, priority, tier, turn, max_retries)
    on imports.batch_processing_queue to batchcast_owner;
grant update (status, priority, tier, turn, retry_count, next_attempt_at, waiting_since, worker_id, error, finished_at)
    on imports.batch_processing_queue to batchcast_owner;

-- Both tell the other nodes what changed.
grant usage on schema ops to batchcast_owner, batchcast_worker;
grant select, insert, update on ops.node to batchcast_owner, batchcast_worker;
grant select, insert on ops.outbox to batchcast_owner, batchcast_worker;
