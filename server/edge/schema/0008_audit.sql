-- The audit trail is written inside the transaction of the change that it tells of, so also under the roles of those who may
-- change something. A role may add entries and learn their numbers; it may neither read nor change any. Number and time are the
-- database's own.

create index audit_who on ops.audit (who, id desc);
create index audit_target on ops.audit (target, id desc);
create index audit_action on ops.audit (action, id desc);

grant insert (who, action, target, before, after), select (id) on ops.audit to batchcast_owner, batchcast_worker;
