"""What the provider tells us of a run's end: checked, kept, answered; believed only after asking the provider itself.

A delivery is no more than the hint that a run of this id may have ended, and the note that we gave the provider along with the
run. A second one of the same run and event is no second row; the order in which they come means nothing. It is answered before it is
on the disk: when PostgreSQL crashes in that moment, the poll finds the run. Without a secret of ours nobody is let in.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson
from pydantic import SecretStr

from server.batching.schedules.outcomes import ERROR_MOST
from server.edge.apify import EVENTS
from server.edge.postgres import Connection
from server.errors import Code, Refused

HEADER: Final = "X-Webhook-Secret"
PATH: Final = "/webhooks/apify"
BODY_MOST: Final = 256 << 10
NAME_MOST: Final = 200
FOREIGN_AFTER_S: Final = 900.0
"""A run that is none of ours by then never will be: the answer to its start has come long ago, or it was looked for."""

KEEP: Final = """
insert into schedules.webhook_delivery (run_id, event, body) values ($1, $2, $3::jsonb)
on conflict (run_id, event) do nothing returning id"""
WAITING: Final = """
select id, run_id, event, body ->> 'note' as note,
    received_at < clock_timestamp() - make_interval(secs => $2) as foreign_by_now
from schedules.webhook_delivery where processed_at is null order by attempts, id limit $1"""
TRIED: Final = """
update schedules.webhook_delivery d set attempts = d.attempts + 1, error = u.error,
    processed_at = case when u.done then clock_timestamp() end
from unnest($1::bigint[], $2::text[], $3::boolean[]) as u (id, error, done) where d.id = u.id"""
TIDY: Final = """
delete from schedules.webhook_delivery where id in (
    select id from schedules.webhook_delivery where processed_at is not null
        and received_at < now() - make_interval(days => $1) order by received_at limit $2)"""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a body says; `note` is ours, as we gave it to the provider."""

    run_id: str
    event: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A delivery that has not been worked on. `foreign_by_now`: long enough ago that its run should be known."""

    id: int
    run_id: str
    event: str
    note: str
    foreign_by_now: bool


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of a delivery; `error` says why nothing came of it, or nothing as yet."""

    id: int
    error: str | None
    done: bool


def verify(secret: SecretStr | None, given: str | None) -> None:
    """Is it the provider? Refused otherwise; the comparison takes as long for every wrong one."""
    if secret is None or not secret.get_secret_value():
        message = "webhooks are refused, as no secret is set for them: set APIFY_WEBHOOK_SECRET"
        raise Refused(Code.FORBIDDEN, message)
    ours = secret.get_secret_value().encode()
    if not hmac.compare_digest(ours, (given or "").encode("utf-8", "replace")):
        message = f"the header {HEADER} does not hold the secret; runs that were started by this server send it"
        raise Refused(Code.UNAUTHORIZED, message)


def parse(body: bytes) -> Delivery | None:
    """What a body says; None for an event that is none of ours (a test, a run that begins)."""
    if len(body) > BODY_MOST:
        raise Refused(Code.TOO_LARGE, f"a webhook has at most {BODY_MOST} bytes, not {len(body)}", limit=BODY_MOST)
    try:
        value: object = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Refused(Code.BAD_JSON, "the webhook's body is not JSON") from None
    said = value if isinstance(value, Mapping) else {}
    event = said.get("eventType")
    if event not in EVENTS:
        return None
    run_id = _run_id(said)
    if run_id is None:
        message = "the webhook names no run: eventData.actorRunId or resource.id is expected"
        raise Refused(Code.BAD_MESSAGE, message, field="eventData")
    note = said.get("note")
    return Delivery(run_id, str(event), _clean(note) if isinstance(note, str) else "")


def _run_id(said: Mapping[str, object]) -> str | None:
    for part, name in (("eventData", "actorRunId"), ("resource", "id")):
        inner = said.get(part)
        value = inner.get(name) if isinstance(inner, Mapping) else None
        if isinstance(value, str) and _clean(value) == value != "":
            return value
    return None


def _clean(text: str) -> str:
    return text.replace("\0", "")[:NAME_MOST]


async def keep(connection: Connection, delivery: Delivery) -> bool:
    """Note it; False when it was known."""
    body = orjson.dumps({"event": delivery.event, "note": delivery.note}).decode()
    return await connection.fetchval(KEEP, delivery.run_id, delivery.event, body) is not None


async def waiting(connection: Connection, limit: int) -> list[Waiting]:
    """Those to work on, the least tried first."""
    rows = await connection.fetch(WAITING, limit, FOREIGN_AFTER_S)
    return [Waiting(r["id"], r["run_id"], r["event"], r["note"] or "", r["foreign_by_now"]) for r in rows]


async def tried(connection: Connection, deliveries: Sequence[Tried]) -> None:
    """These have been worked on, or nothing could be done with them just now."""
    errors = [None if one.error is None else one.error[:ERROR_MOST] for one in deliveries]
    await connection.execute(TRIED, [one.id for one in deliveries], errors, [one.done for one in deliveries])


async def tidy(connection: Connection, days: int, limit: int) -> int:
    """Remove a slice of what was worked on so long ago."""
    answer = await connection.execute(TIDY, days, limit)
    return int(answer.rpartition(" ")[2])
