-- Whether an event is `priority: high`, beside its counters: counting then reads and writes this narrow table alone.
-- A copy of feed.event.priority, written by the same transactions.
alter table feed.counters add column high boolean not null default false;
update feed.counters c set high = true from feed.event e where e.id = c.event_id and e.priority = 'high';
