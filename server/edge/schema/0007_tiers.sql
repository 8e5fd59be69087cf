-- Tier batches: bookable people, the tier each was given, what they cost, when and where they can be booked, and the runs
-- that made it. Every time in here is this database's own, a slot's instant is timestamptz, a `local` date is the person's.
--
-- Written by batches of people, a transaction each; read by everybody. Foreign keys stand where a person or a tier is
-- decided, not at the rows that come by the million: these are only written together with what they name, and verified.
--
-- Two roles: batchcast_reader reads what the public may see and books under its own name (batchcast.owner), and
-- batchcast_tiers does the rest. The server takes one of them in each of its transactions.

create schema if not exists tiers;

do $$
declare
    role_name text;
begin
    foreach role_name in array array['batchcast_reader', 'batchcast_tiers'] loop
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

-- In this order, so that reports come S first without being told. No column of it has a default: a person without a tier
-- must be seen to have none.
create type tiers.tier as enum ('S', 'A', 'B', 'C', 'D');
create type tiers.meeting as enum ('physical', 'virtual');

-- A person as the import told of it. `key` is the importer's own name for it: everything drawn for the person is drawn from
-- the key, so the order of imports does not matter. What is null is not known. A review's tier goes
-- before the importer's override, which each import sets anew; `accepted`: flags that a review let pass. country and its source
-- are decided with the tier.
create table tiers.celebrities (
    id                 bigint generated always as identity primary key,
    key                text not null unique check (length(key) between 1 and 200),
    name               text not null check (length(name) between 1 and 300),
    aliases            text[] not null default '{}',
    global_recognition tiers.tier,
    career_legacy      tiers.tier,
    current_relevance  tiers.tier,
    demand             tiers.tier,
    affluence          tiers.tier,
    comparables        jsonb not null default '[]',
    legacy             boolean not null default false,
    global_award       boolean not null default false,
    net_worth_cents    bigint check (net_worth_cents >= 0),
    override_tier      tiers.tier,
    override_reason    text,
    review_tier        tiers.tier,
    review_reason      text,
    accepted           text[] not null default '{}',
    country_given      text not null default '',
    timezone_given     text not null default '',
    country            text check (country ~ '^[A-Z]{2}$'),
    country_source     text check (country_source in ('given', 'alias', 'default', 'unknown')),
    excluded           text check (excluded <> ''),
    imported_at        timestamptz not null default clock_timestamp(),
    updated_at         timestamptz not null default clock_timestamp(),
    check (override_reason is null or override_tier is not null),
    check ((review_tier is null) = (review_reason is null)),
    check ((country is not null) = (coalesce(country_source, 'unknown') <> 'unknown'))
) with (fillfactor = 50); -- Every row is written twice, by its import and when its country is decided: in place, where there is room.

-- Names as they are compared: folded, without punctuation and case. A name may be several people's; then it names nobody.
create table tiers.aliases (
    folded       text not null check (folded <> ''),
    celebrity_id bigint not null references tiers.celebrities (id) on delete cascade,
    primary key (folded, celebrity_id)
);
create index aliases_person on tiers.aliases (celebrity_id);

-- What was decided of a person. Until then there is a row without a tier.
create table tiers.celebrity_settings (
    celebrity_id      bigint primary key references tiers.celebrities (id) on delete cascade,
    tier              tiers.tier,
    max_monthly_slots smallint check (max_monthly_slots > 0),
    timezone          text check (timezone <> ''),
    allow_virtual     boolean not null default true,
    allow_physical    boolean not null default true,
    verified          boolean not null default false,
    source            text,
    reason            text,
    needs_review      boolean not null default false,
    flags             text[] not null default '{}',
    rule_version      int,
    decided_at        timestamptz,
    updated_at        timestamptz not null default clock_timestamp(),
    check (num_nonnulls(tier, max_monthly_slots, timezone, source, reason, rule_version, decided_at) in (0, 7)),
    check (tier is not null or not (verified or needs_review))
) with (fillfactor = 80);
create index settings_tier on tiers.celebrity_settings (tier, celebrity_id);
create index settings_review on tiers.celebrity_settings (celebrity_id) where needs_review;

create table tiers.tier_history (
    id           bigint generated always as identity primary key,
    celebrity_id bigint not null,
    at           timestamptz not null default clock_timestamp(),
    from_tier    tiers.tier,
    to_tier      tiers.tier not null,
    source       text not null,
    reason       text not null,
    rule_version int not null,
    who          text,
    check (from_tier is distinct from to_tier)
);
create index history_person on tiers.tier_history (celebrity_id, id);

-- The six packages of a person; one of a type that is not allowed is there, and not active.
create table tiers.celebrity_pricing (
    celebrity_id bigint not null,
    meeting_type tiers.meeting not null,
    duration     smallint not null check (duration in (15, 30, 60)),
    price_cents  bigint not null check (price_cents > 0),
    active       boolean not null,
    updated_at   timestamptz not null default clock_timestamp(),
    primary key (celebrity_id, meeting_type, duration)
) with (fillfactor = 90);

-- From GeoNames (CC BY 4.0); ids are theirs.
create table tiers.cities (
    id        int primary key,
    name      text not null,
    country   text not null check (country ~ '^[A-Z]{2}$'),
    timezone  text not null,
    latitude  float8 not null check (latitude between -90 and 90),
    longitude float8 not null check (longitude between -180 and 180)
);
create index cities_country on tiers.cities (country);

-- The cities that a person may travel to, made for a tier and a home country: one row, as there are up to 72 of them.
create table tiers.celebrity_location_pool (
    celebrity_id bigint primary key,
    tier         tiers.tier not null,
    home         text not null,
    city_ids     int[] not null
);

-- Where a person is when: half-open periods of whole weeks, drawn for a tier on a grid that begins at the anchor.
create table tiers.rotations (
    celebrity_id bigint not null,
    starts_on    date not null,
    ends_on      date not null,
    tier         tiers.tier not null,
    anchor       date not null,
    city_ids     int[] not null,
    primary key (celebrity_id, starts_on),
    check (ends_on > starts_on and (ends_on - starts_on) % 7 = 0)
);

-- A slot. status:  available --book--> booked --cancel--> cancelled (and a new row available, while there is time)
--                      '----its time has come----> expired
-- cooldown: months that the person stays away from the city after that day.
-- Indexes are few on purpose: rows come by the million, and what
-- is looked for by time alone is found by their order on disk, as they are made month by month.
create table tiers.availability (
    id           bigint generated always as identity primary key,
    celebrity_id bigint not null,
    meeting_type tiers.meeting not null,
    duration     smallint not null check (duration in (15, 30, 60)),
    starts_at    timestamptz not null,
    ends_at      timestamptz not null,
    local_date   date not null,
    city_id      int,
    cooldown     smallint check (cooldown between 3 and 6),
    price_cents  bigint not null check (price_cents > 0),
    status       text not null default 'available' check (status in ('available', 'booked', 'cancelled', 'expired')),
    booked_by    text,
    booking_key  text check (length(booking_key) between 1 and 200),
    booked_at    timestamptz,
    cancelled_at timestamptz,
    check (ends_at - starts_at = duration * interval '1 minute'),
    check (num_nonnulls(city_id, cooldown) = case meeting_type when 'physical' then 2 else 0 end),
    check (num_nonnulls(booked_by, booking_key, booked_at) = case when status in ('booked', 'cancelled') then 3 else 0 end),
    check ((cancelled_at is not null) = (status = 'cancelled'))
) with (fillfactor = 90);
create index availability_person on tiers.availability (celebrity_id, starts_at);
create index availability_when on tiers.availability using brin (starts_at) with (pages_per_range = 32, autosummarize = on);
create unique index availability_booking on tiers.availability (booked_by, booking_key) where booked_by is not null;

-- Of one person no two slots that are available or booked overlap, whoever writes them. An exclusion constraint would say the
-- same and cost four times all the rest of an insert, as a GiST index reads whole pages to find its way. Whoever adds slots locks
-- their people first and looks afterwards, so the later of two that overlap always sees the other. No slot is longer than an hour.
create function tiers.keep_apart() returns trigger language plpgsql security definer
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off as $$
declare
    clash record;
begin
    -- Lateral, for this is planned once and remembered, perhaps while the tables are empty: each row looks up its own, by index.
    if tg_level = 'STATEMENT' then
        perform from (select distinct celebrity_id as id from fresh order by 1) f cross join lateral (
            select from tiers.celebrity_settings s where s.celebrity_id = f.id for no key update) s;
        select f.celebrity_id, f.starts_at into clash from fresh f cross join lateral (
            select from tiers.availability a where a.celebrity_id = f.celebrity_id and a.starts_at > f.starts_at - interval '1 hour'
                and a.starts_at < f.ends_at and a.ends_at > f.starts_at and a.status in ('available', 'booked') and a.id <> f.id
            offset 0) a
        where f.status in ('available', 'booked') limit 1;
    else
        perform from tiers.celebrity_settings s where s.celebrity_id = new.celebrity_id for no key update;
        select a.celebrity_id, a.starts_at into clash from tiers.availability a where a.celebrity_id = new.celebrity_id
            and a.starts_at > new.starts_at - interval '1 hour' and a.starts_at < new.ends_at and a.ends_at > new.starts_at
            and a.status in ('available', 'booked') and a.id <> new.id limit 1;
    end if;
    if found then
        raise exclusion_violation using schema = 'tiers', table = 'availability', constraint = 'availability_apart',
            message = format('celebrity %s has two slots at once at %s', clash.celebrity_id, clash.starts_at);
    end if;
    return null;
end $$;
create trigger availability_apart after insert on tiers.availability referencing new table as fresh
    for each statement execute function tiers.keep_apart();
create trigger availability_stays_apart after update on tiers.availability for each row
    when (new.status in ('available', 'booked') and (old.status not in ('available', 'booked')
        or (new.celebrity_id, new.starts_at, new.ends_at) is distinct from (old.celebrity_id, old.starts_at, old.ends_at)))
    execute function tiers.keep_apart();

-- Until when a person stays away from a city, of the last visit. Planning reads the visits from the slots themselves.
create table tiers.city_cooldown (
    celebrity_id bigint not null,
    city_id      int not null,
    last_visit   date not null,
    months       smallint not null check (months between 3 and 6),
    until        date not null,
    primary key (celebrity_id, city_id),
    check (until = (last_visit + make_interval(months => months))::date)
);

-- A run of `classify` or `generate`. position is how far it is, by id; its counts change in the transactions that do the work.
-- planned_at: what planning takes for now, so that a run which goes on another day plans the same.
create table tiers.runs (
    id          bigint generated always as identity primary key,
    kind        text not null check (kind in ('classify', 'generate')),
    scope       text not null,
    tier        tiers.tier,
    month       date check (month = date_trunc('month', month)),
    celebrity_id bigint,
    replace     boolean not null default false,
    override    boolean not null default false,
    planned_at  timestamptz not null,
    status      text not null default 'running' check (status in ('running', 'done', 'stopped')),
    position    bigint not null default 0,
    total       bigint not null default 0,
    done        bigint not null default 0,
    unchanged   bigint not null default 0,
    failed      bigint not null default 0,
    skipped     bigint not null default 0,
    slots       bigint not null default 0,
    started_by  text,
    started_at  timestamptz not null default clock_timestamp(),
    progress_at timestamptz not null default clock_timestamp(),
    finished_at timestamptz,
    check ((kind = 'generate') = (month is not null)),
    check ((status = 'running') = (finished_at is null))
) with (fillfactor = 50);
create index runs_kind on tiers.runs (kind, tier, month, id);

-- What became of a person in a run; of `classify` only those that failed or were skipped. short: which kind of meeting has fewer
-- slots than its minimum, and why. `replaced`: another run made the
-- person's month anew. A month of a person is made once: two processes that both try to are stopped here, whatever else fails.
create table tiers.run_items (
    run_id       bigint not null,
    celebrity_id bigint not null,
    month        date,
    status       text not null check (status in ('done', 'failed', 'skipped', 'replaced')),
    reason       text,
    short        jsonb,
    physical     smallint not null default 0,
    virtual      smallint not null default 0,
    at           timestamptz not null default clock_timestamp(),
    primary key (run_id, celebrity_id),
    check (status in ('done', 'replaced') or reason is not null)
) with (fillfactor = 90);
create index items_told on tiers.run_items (run_id) where reason is not null;
create unique index items_month on tiers.run_items (celebrity_id, month) where status = 'done';

-- Verifications of one tier and month, or of the foundation (no tier, no month). A later change makes one `stale`.
create table tiers.verifications (
    id         bigint generated always as identity primary key,
    tier       tiers.tier,
    month      date check (month = date_trunc('month', month)),
    passed     boolean not null,
    people     bigint not null,
    violations bigint not null,
    rules      jsonb not null,
    examples   jsonb not null,
    seconds    float8 not null,
    who        text,
    at         timestamptz not null default clock_timestamp(),
    stale      boolean not null default false,
    check (passed = (violations = 0)),
    check ((tier is null) = (month is null))
);
create index verifications_of on tiers.verifications (tier, month, id);

-- Who may do what. No row without a policy, no verb without a grant.

do $$
declare
    name text;
begin
    foreach name in array array['celebrities', 'aliases', 'celebrity_settings', 'tier_history', 'celebrity_pricing', 'cities',
        'celebrity_location_pool', 'rotations', 'availability', 'city_cooldown', 'runs', 'run_items', 'verifications'] loop
        execute format('alter table tiers.%I enable row level security', name);
        execute format('create policy service on tiers.%I to batchcast_tiers using (true)', name);
    end loop;
end $$;

create policy public on tiers.celebrities for select to batchcast_reader using (excluded is null);
create policy public on tiers.celebrity_settings for select to batchcast_reader using (tier is not null);
create policy public on tiers.celebrity_pricing for select to batchcast_reader using (active);
create policy public on tiers.cities for select to batchcast_reader using (true);
create policy public on tiers.availability for select to batchcast_reader
    using (status = 'available' or booked_by = (select current_setting('batchcast.owner', true)));
-- The narrow path: what is available becomes one's own, what is one's own is cancelled, and nothing else changes.
create policy book on tiers.availability for update to batchcast_reader
    using (status = 'available' or booked_by = (select current_setting('batchcast.owner', true)))
    with check (status in ('booked', 'cancelled') and booked_by = (select current_setting('batchcast.owner', true)));

grant usage on schema tiers to batchcast_reader, batchcast_tiers;
grant select, insert, update, delete on all tables in schema tiers to batchcast_tiers;
grant select (id, key, name, aliases, country, excluded) on tiers.celebrities to batchcast_reader;
grant select (celebrity_id, tier, max_monthly_slots, timezone, allow_virtual, allow_physical, verified)
    on tiers.celebrity_settings to batchcast_reader;
grant select on tiers.celebrity_pricing, tiers.cities, tiers.availability to batchcast_reader;
grant update (status, booked_by, booking_key, booked_at, cancelled_at) on tiers.availability to batchcast_reader;

-- Both tell the other nodes what changed, and leave a trail.
grant usage on schema ops to batchcast_reader, batchcast_tiers;
grant select, insert, update on ops.node to batchcast_reader, batchcast_tiers;
grant select, insert on ops.outbox to batchcast_reader, batchcast_tiers;
grant insert, select (id) on ops.audit to batchcast_tiers;
