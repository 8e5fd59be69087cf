-- View tracking: campaigns with a budget, posts that creators submit to them, how often they were seen, what that earned, payouts.
--
-- Money is integer cents. The ledger is what was granted, only ever appended to; campaign.spent_cents and submission.earned_cents
-- are its sums, changed in the transaction that appends. Whoever changes anything of a campaign or of its submissions holds the lock of the
-- campaign's row. Locks are taken in this order: campaigns by id, clips by id, submissions by id, then everything else.
--
-- Two roles: batchcast_creator sees what belongs to the user named in batchcast.creator, batchcast_tracking sees everything.
-- The server takes one of them in each of its transactions. Roles belong to the whole server, so they may exist already.

create schema if not exists tracking;

do $$
declare
    role_name text;
begin
    foreach role_name in array array['batchcast_creator', 'batchcast_tracking'] loop
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

create domain tracking.platform as text check (value in ('tiktok', 'instagram', 'youtube', 'x'));
create domain tracking.creator as text check (length(value) between 1 and 200);
-- Nobody has been seen so often; a product with the dearest rate still is a bigint.
create domain tracking.views as bigint check (value between 0 and 10000000000000);
create domain tracking.cents as bigint check (value between 0 and 100000000000);

-- activation counts how often it became ACTIVE: what a return to it pays, it pays once for each number. changes counts what its clips
-- have to be told of, refreshed how many of these they have been told of (in slices, after the transaction that made the change).
create table tracking.campaigns (
    id             bigint generated always as identity primary key,
    name           text not null check (length(name) between 1 and 200),
    status         text not null default 'ACTIVE' check (status in ('ACTIVE', 'PAUSED', 'COMPLETED')),
    baseline       text not null default 'submission' check (baseline in ('submission', 'approval', 'zero')),
    rate_cents     int not null check (rate_cents between 1 and 100000),
    budget_cents   tracking.cents not null,
    reserved_cents tracking.cents not null default 0,
    spent_cents    tracking.cents not null default 0,
    activation     int not null default 1,
    submissions    int not null default 0,
    changes        int not null default 0,
    refreshed      int not null default 0,
    created_by     text not null,
    created_at     timestamptz not null default clock_timestamp(),
    activated_at   timestamptz not null default clock_timestamp(),
    completed_at   timestamptz,
    check (spent_cents <= budget_cents - reserved_cents),
    check ((completed_at is not null) = (status = 'COMPLETED'))
) with (fillfactor = 70);
create index campaigns_status on tracking.campaigns (status, id desc);
create index campaigns_stale on tracking.campaigns (id) where refreshed < changes;

-- In which queue a clip stands: those of a queue are all as urgent as the time since their last look says, and are due so long after
-- it, or later. Tens: 0 active, never looked at, new campaign; 1 the same, old campaign; 2 active, new campaign; 3 active, old
-- campaign; 4 ended, never looked at; 5 ended. Ones, for 2, 3 and 5: by how many hours it is due after its last look (cadence.py), rounded down to one of
-- these; some minutes early, since a look and the run that it belongs to do not begin at the same moment. Null: not looked at.
create function tracking.lane(tracked text, state text, young boolean, looked timestamptz, due timestamptz) returns smallint
language sql immutable parallel safe as $$
    select (case
        when state <> 'ok' or tracked = 'none' then null
        when looked is null then case when tracked = 'ended' then 40 when young then 0 else 10 end
        else case when tracked = 'ended' then 50 when young then 20 else 30 end
            + width_bucket(due - looked + interval '10 minutes',
                array[interval '2 hours', '4 hours', '8 hours', '16 hours', '24 hours', '48 hours', '72 hours'])
    end)::smallint
$$;

-- A post, once, whoever submitted it to whatever. What is known of it and when to look again.
-- `tracked`, `newest_campaign_at`, `pressing`, `baseline_wanted` follow from its submissions and their campaigns: tracking.refresh, after
-- each change of these. active: in an ACTIVE campaign; ended: only in COMPLETED ones; none: in neither. `young`: the newest campaign is
-- under seven days old; time alone makes that false, which selection.py writes down before it relies on it.
create table tracking.clips (
    id                  bigint generated always as identity primary key,
    platform            tracking.platform not null,
    post_id             text not null check (length(post_id) between 1 and 200),
    url                 text not null check (length(url) between 1 and 2000),
    tracked             text not null default 'none' check (tracked in ('active', 'ended', 'none')),
    newest_campaign_at  timestamptz,
    young               boolean not null default false,
    pressing            boolean not null default false,
    baseline_wanted     boolean not null default false,
    views               tracking.views,
    best_views          tracking.views,
    best_observation_id bigint,
    checks              int not null default 0,
    first_checked_at    timestamptz,
    last_checked_at     timestamptz,
    next_due_at         timestamptz not null default clock_timestamp(),
    pace                text not null default 'new' check (pace in ('new', 'viral', 'normal', 'slow', 'dormant', 'daily')),
    state               text not null default 'ok' check (state in ('ok', 'unavailable', 'unsupported')),
    not_found           int not null default 0,
    lease               bigint not null default 0,
    lease_until         timestamptz,
    lease_run           bigint,
    event_id            text check (length(event_id) between 1 and 200),
    published_views     tracking.views,
    created_at          timestamptz not null default clock_timestamp(),
    lane                smallint generated always as (tracking.lane(tracked, state, young, last_checked_at, next_due_at)) stored,
    unique (platform, post_id)
) with (fillfactor = 70);
create index clips_urgent on tracking.clips (lane, (coalesce(last_checked_at, created_at)), id, next_due_at) where lane is not null;
create index clips_young on tracking.clips (newest_campaign_at) where young;
create index clips_apart on tracking.clips (state, platform) where state <> 'ok';

-- A post in a campaign, once: one that was rejected may come again, unless it has earned (taken). baseline_views is unset until a count
-- observed at or after baseline_from sets it (or the campaign counts from zero); baseline_at is when that was observed. claimed_cents is the part
-- that payout requests have taken; final_cents what it had earned in all when its campaign completed.
create table tracking.clip_submissions (
    id             bigint generated always as identity primary key,
    campaign_id    bigint not null references tracking.campaigns,
    clip_id        bigint not null references tracking.clips,
    creator        tracking.creator not null,
    status         text not null default 'PENDING' check (status in ('PENDING', 'APPROVED', 'REJECTED')),
    baseline_from  timestamptz,
    baseline_views tracking.views,
    baseline_at    timestamptz,
    earned_cents   tracking.cents not null default 0,
    claimed_cents  tracking.cents not null default 0,
    final_cents    tracking.cents,
    taken          boolean not null default true,
    note           text not null default '' check (length(note) <= 500),
    submitted_at   timestamptz not null default clock_timestamp(),
    judged_at      timestamptz,
    judged_by      text,
    check (claimed_cents <= earned_cents)
) with (fillfactor = 70);
-- No index mentions a sum, so a settlement updates rows in place.
create unique index clip_submissions_post on tracking.clip_submissions (campaign_id, clip_id) where taken;
create index clip_submissions_campaign on tracking.clip_submissions (campaign_id, id);
create index clip_submissions_status on tracking.clip_submissions (status, id);
create index clip_submissions_clip on tracking.clip_submissions (clip_id) where status <> 'REJECTED';
create index clip_submissions_creator on tracking.clip_submissions (creator, id);

-- One observation. counted: the best so far rose or stayed; lower: below the last count; late: older than one that was counted before, does
-- not count; held: a jump that an admin has to judge, then accepted or rejected. (clip, time) is its identity: the same again is nothing.
create table tracking.view_tracking (
    id          bigint generated always as identity,
    clip_id     bigint not null references tracking.clips,
    observed_at timestamptz not null,
    views       tracking.views not null,
    state       text not null check (state in ('counted', 'lower', 'late', 'held', 'accepted', 'rejected')),
    before      tracking.views,
    run_id      bigint,
    judged_at   timestamptz,
    judged_by   text,
    primary key (clip_id, observed_at)
) with (fillfactor = 95);
create index view_tracking_judged on tracking.view_tracking (id) where state in ('held', 'accepted', 'rejected');
create index view_tracking_held on tracking.view_tracking (clip_id, id) where state = 'held';
create index view_tracking_age on tracking.view_tracking using brin (observed_at);

-- Grants. One for a submission and an observation; one without an observation is what a return to ACTIVE paid, once for each.
create table tracking.earnings_ledger (
    id             bigint generated always as identity primary key,
    campaign_id    bigint not null,
    submission_id  bigint not null references tracking.clip_submissions,
    creator        tracking.creator not null,
    observation_id bigint,
    activation     int not null,
    amount_cents   tracking.cents not null check (amount_cents > 0),
    views          tracking.views not null,
    run_id         bigint,
    at             timestamptz not null default clock_timestamp()
);
create unique index earnings_ledger_once on tracking.earnings_ledger (submission_id, observation_id);
create unique index earnings_ledger_gap on tracking.earnings_ledger (submission_id, activation) where observation_id is null;
create index earnings_ledger_campaign on tracking.earnings_ledger (campaign_id, id);
create index earnings_ledger_creator on tracking.earnings_ledger (creator, id);

-- A creator asks for money of completed campaigns; payout_items says of which submissions. One open at a time.
create table tracking.payout_requests (
    id             bigint generated always as identity primary key,
    creator        tracking.creator not null,
    status         text not null default 'PENDING' check (status in ('PENDING', 'APPROVED', 'COMPLETED', 'REJECTED', 'REVERTED')),
    amount_cents   tracking.cents not null check (amount_cents > 0),
    fee_basis      int check (fee_basis between 0 and 1000),
    fee_cents      tracking.cents,
    net_cents      tracking.cents,
    note           text not null default '' check (length(note) <= 500),
    created_at     timestamptz not null default clock_timestamp(),
    changed_at     timestamptz not null default clock_timestamp(),
    changed_by     text,
    check (num_nonnulls(fee_basis, fee_cents, net_cents) in (0, 3)),
    check (net_cents is null or net_cents + fee_cents = amount_cents),
    check (net_cents is not null or status not in ('APPROVED', 'COMPLETED', 'REVERTED'))
);
create unique index payout_requests_open on tracking.payout_requests (creator) where status in ('PENDING', 'APPROVED');
create index payout_requests_creator on tracking.payout_requests (creator, id);
create index payout_requests_status on tracking.payout_requests (status, id);

create table tracking.payout_items (
    request_id    bigint not null references tracking.payout_requests,
    submission_id bigint not null references tracking.clip_submissions,
    creator       tracking.creator not null,
    amount_cents  tracking.cents not null check (amount_cents > 0),
    primary key (request_id, submission_id)
);
create index payout_items_submission on tracking.payout_items (submission_id);

-- What was paid, with the number that the bank or the payment provider gave.
create table tracking.payouts (
    id             bigint generated always as identity primary key,
    request_id     bigint not null unique references tracking.payout_requests,
    creator        tracking.creator not null,
    amount_cents   tracking.cents not null check (amount_cents > 0),
    fee_cents      tracking.cents not null,
    net_cents      tracking.cents not null,
    transaction_id text not null unique check (length(transaction_id) between 1 and 200),
    paid_at        timestamptz not null default clock_timestamp(),
    paid_by        text not null,
    reverted_at    timestamptz,
    check (net_cents + fee_cents = amount_cents)
);
create index payouts_creator on tracking.payouts (creator, id);

-- What a creator is told, once for each key.
create table tracking.notifications (
    id           bigint generated always as identity primary key,
    creator      tracking.creator not null,
    key          text not null unique check (length(key) between 1 and 400),
    kind         text not null,
    message      text not null check (length(message) <= 1000),
    campaign_id  bigint,
    amount_cents bigint,
    created_at   timestamptz not null default clock_timestamp()
);
create index notifications_creator on tracking.notifications (creator, id);

-- Runs, written by the tracking loop. One is open at a time; its lease is renewed by the heartbeats of those who work on it and runs out
-- when all of them were killed. stopping: no further batch, and why. request_key: of whoever asked for it, so that asking twice is asking once.
create table tracking.tracking_runs (
    id           bigint generated always as identity primary key,
    occasion     text not null default 'interval',
    node         text not null,
    limit_clips  int not null,
    claimed      int not null default 0,
    processed    int not null default 0,
    successful   int not null default 0,
    failed       int not null default 0,
    seconds      float8 not null default 0,
    calls        int not null default 0,
    earned_cents bigint not null default 0,
    stopping     text check (stopping in ('time_limit', 'quota', 'provider_auth', 'stopped')),
    stop_reason  text check (stop_reason in ('done', 'time_limit', 'quota', 'provider_auth', 'stopped', 'lost')),
    error        text check (length(error) <= 1000),
    request_key  text unique check (length(request_key) between 1 and 200),
    lease_until  timestamptz not null default clock_timestamp(),
    started_at   timestamptz not null default clock_timestamp(),
    finished_at  timestamptz,
    check ((finished_at is null) = (stop_reason is null))
);
create unique index tracking_runs_open on tracking.tracking_runs ((true)) where finished_at is null;
create index tracking_runs_finished on tracking.tracking_runs (finished_at);

-- Who works on the run that is open.
create table tracking.run_workers (
    run_id      bigint not null references tracking.tracking_runs on delete cascade,
    worker      text not null check (length(worker) between 1 and 300),
    lease_until timestamptz not null,
    primary key (run_id, worker)
);

-- What could not be read: one open row for a clip.
create table tracking.failed_scrapes (
    id              bigint generated always as identity primary key,
    clip_id         bigint not null references tracking.clips,
    run_id          bigint,
    reason          text not null,
    error           text not null,
    retryable       boolean not null,
    attempts        int not null default 1,
    next_attempt_at timestamptz,
    first_at        timestamptz not null default clock_timestamp(),
    last_at         timestamptz not null default clock_timestamp(),
    resolved_at     timestamptz
);
create unique index failed_scrapes_open on tracking.failed_scrapes (clip_id) where resolved_at is null;
create index failed_scrapes_newest on tracking.failed_scrapes (id desc) where resolved_at is null;
create index failed_scrapes_resolved on tracking.failed_scrapes (resolved_at) where resolved_at is not null;

create table tracking.scrape_cache (
    platform   tracking.platform not null,
    post_id    text not null,
    views      tracking.views not null,
    actor      text not null,
    scraped_at timestamptz not null,
    primary key (platform, post_id)
) with (fillfactor = 70);
create index scrape_cache_age on tracking.scrape_cache (scraped_at);

-- Calls of a provider in a UTC month (its first day): reserved before sending, counted when sent.
create table tracking.provider_usage (
    provider text not null,
    month    date not null check (extract(day from month) = 1),
    reserved bigint not null default 0 check (reserved >= 0),
    calls    bigint not null default 0 check (calls >= 0),
    primary key (provider, month)
) with (fillfactor = 50);

-- A call that may be sent, or is under way: its place in the quota of the month and among the calls of its platform. The row goes when the call
-- has ended; that of a process that was killed runs out.
create table tracking.call_reservations (
    id         bigint generated always as identity primary key,
    provider   text not null,
    month      date not null,
    platform   tracking.platform not null,
    run_id     bigint not null,
    expires_at timestamptz not null,
    sent_at    timestamptz
);

-- How well an actor has done of late: what succeeded and failed, halved every few hours.
create table tracking.actor_standing (
    platform  tracking.platform not null,
    actor     text not null,
    succeeded float8 not null default 0,
    failed    float8 not null default 0,
    at        timestamptz not null default clock_timestamp(),
    primary key (platform, actor)
) with (fillfactor = 50);

create table tracking.actor_usage (
    platform    tracking.platform not null,
    actor       text not null,
    month       date not null,
    calls       bigint not null default 0,
    posts       bigint not null default 0,
    succeeded   bigint not null default 0,
    failed      bigint not null default 0,
    cost_micros bigint not null default 0,
    seconds     float8 not null default 0,
    primary key (platform, actor, month)
) with (fillfactor = 50);

-- What follows for clips from their submissions and the campaigns of these. One that is needed anew is due at once; one whose campaign has nearly spent its budget
-- two hours after its last look; one that earns nothing any more a day after it (a minute early, as in cadence.py). Two statements on purpose: the second sees what was
-- committed while the first waited for a row.
create function tracking.refresh(clip_ids bigint[]) returns void language sql volatile as $$
    select 1 from tracking.clips c where c.id = any(clip_ids) order by c.id for no key update;
    with truth as (
        select c.id,
            case when bool_or(p.status = 'ACTIVE') then 'active' when bool_or(p.status = 'COMPLETED') then 'ended' else 'none' end as tracked,
            max(p.created_at) filter (where p.status = 'ACTIVE') as newest,
            coalesce(bool_or(p.status = 'ACTIVE' and p.spent_cents * 5 >= (p.budget_cents - p.reserved_cents) * 4), false) as pressing,
            coalesce(bool_or(p.status = 'ACTIVE' and s.baseline_views is null and s.baseline_from is not null), false) as wanted
        from tracking.clips c
        left join tracking.clip_submissions s on s.clip_id = c.id and s.status <> 'REJECTED'
        left join tracking.campaigns p on p.id = s.campaign_id
        where c.id = any(clip_ids)
        group by c.id
    )
    update tracking.clips c
    set tracked = t.tracked, newest_campaign_at = t.newest, pressing = t.pressing, baseline_wanted = t.wanted,
        young = coalesce(t.newest > clock_timestamp() - interval '7 days', false),
        pace = case when t.tracked = 'ended' then 'daily' else c.pace end,
        next_due_at = case
            when t.tracked = 'active' and c.tracked <> 'active' or t.wanted and not c.baseline_wanted
                then least(c.next_due_at, clock_timestamp())
            when t.pressing and not c.pressing then least(c.next_due_at, c.last_checked_at + interval '119 minutes')
            when t.tracked = 'ended' and c.tracked = 'active' then greatest(c.next_due_at, c.last_checked_at + interval '1439 minutes')
            else c.next_due_at end
    from truth t where c.id = t.id
        and (c.tracked, c.newest_campaign_at, c.pressing, c.baseline_wanted) is distinct from (t.tracked, t.newest, t.pressing, t.wanted)
$$;

-- The admin trail of this system.
create view tracking.audit with (security_invoker = true) as
select id, at, who, action, target, before, after from ops.audit where action like 'tracking.%';

-- Who may do what. No row without a policy, no verb without a grant. The ledger is only appended to.

do $$
declare
    name text;
begin
    foreach name in array array['campaigns', 'clips', 'clip_submissions', 'view_tracking', 'earnings_ledger', 'payout_requests',
            'payout_items', 'payouts', 'notifications', 'tracking_runs', 'run_workers', 'failed_scrapes', 'scrape_cache', 'provider_usage',
            'call_reservations', 'actor_standing', 'actor_usage'] loop
        execute format('alter table tracking.%I enable row level security', name);
        execute format('create policy service on tracking.%I to batchcast_tracking using (true)', name);
    end loop;
    foreach name in array array['clip_submissions', 'earnings_ledger', 'payout_requests', 'payout_items', 'payouts',
            'notifications'] loop
        execute format('create policy own on tracking.%I for select to batchcast_creator
            using (creator = (select current_setting(''batchcast.creator'', true)))', name);
    end loop;
end $$;

-- A creator sees the campaigns that take submissions and those that it is in, without their money; of clips, its own.
create policy open_or_own on tracking.campaigns for select to batchcast_creator
    using (status = 'ACTIVE' or id in (select s.campaign_id from tracking.clip_submissions s));
create policy own on tracking.clips for select to batchcast_creator
    using (id in (select s.clip_id from tracking.clip_submissions s));
create policy own on tracking.view_tracking for select to batchcast_creator
    using (clip_id in (select s.clip_id from tracking.clip_submissions s));

grant usage on schema tracking, ops to batchcast_creator, batchcast_tracking;
grant select, insert, update, delete on all tables in schema tracking to batchcast_tracking;
revoke all on tracking.audit from batchcast_tracking;
revoke update, delete on tracking.earnings_ledger from batchcast_tracking;
revoke delete on tracking.campaigns, tracking.clip_submissions, tracking.payout_requests, tracking.payout_items, tracking.payouts
    from batchcast_tracking;
grant select (id, name, status, baseline, rate_cents, created_at, completed_at) on tracking.campaigns to batchcast_creator;
grant select (id, platform, post_id, url, tracked, views, best_views, checks, first_checked_at, last_checked_at, state, created_at)
    on tracking.clips to batchcast_creator;
grant select (id, campaign_id, clip_id, creator, status, baseline_from, baseline_views, baseline_at, earned_cents, claimed_cents, final_cents,
    note, submitted_at, judged_at) on tracking.clip_submissions to batchcast_creator;
grant select (id, clip_id, observed_at, views, state) on tracking.view_tracking to batchcast_creator;
grant select (id, campaign_id, submission_id, creator, amount_cents, views, at) on tracking.earnings_ledger to batchcast_creator;
grant select (id, creator, status, amount_cents, fee_basis, fee_cents, net_cents, note, created_at, changed_at)
    on tracking.payout_requests to batchcast_creator;
grant select on tracking.payout_items to batchcast_creator;
grant select (id, request_id, creator, amount_cents, fee_cents, net_cents, transaction_id, paid_at, reverted_at) on tracking.payouts
    to batchcast_creator;
grant select on tracking.notifications to batchcast_creator;
revoke execute on function tracking.refresh(bigint[]) from public;
grant execute on function tracking.refresh(bigint[]) to batchcast_tracking;

-- The service's work is noted in the trail and told to the other nodes.
grant insert (who, action, target, before, after), select (id) on ops.audit to batchcast_tracking;
grant select, insert, update on ops.node to batchcast_tracking;
grant select, insert on ops.outbox to batchcast_tracking;
