"""Who may do what: the one table, verb x least role, of every HTTP route, WebSocket message, topic and page. Pure.

    allow(who, "force-batch", exposed=False)       Refused(unauthorized) without a token, Refused(forbidden) without the role
    verb_of_route("POST", "/force-batch")          the verb that guards a route
    verb_of_message("subscribe", "job:17")         the verb that guards a message, or Refused for an unknown topic

A verb has one least role. Each role includes those before it: anonymous, viewer (anyone with a token), producer, admin. Some
verbs are open to all on loopback and need a token once the server listens beyond it (`token_when_exposed`). What a verb
may touch (a producer's own events, one's own job) is the rule of the thing itself, not of this table.

Tests hold every route of the server and every message type against this table, and docs/access.md is made from it.

Origins: a browser tells which page speaks. `origin_allowed` says whether that page may: one from the same host (any port:
the page comes from HTTP_PORT and speaks to WS_PORT), one from loopback, one that ALLOWED_ORIGINS lists.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from server.core.identity import ROLES, Identity, Role
from server.core.loopback import is_loopback
from server.errors import Code, Refused

TOPICS: Final = ("loops", "alerts", "imports", "schedules", "tiers", "tracking")
JOB: Final = "job:"
"""The topic of one import job is `job:` and its id."""


@dataclass(frozen=True, slots=True)
class Http:
    """An HTTP route; HEAD goes with GET."""

    method: str
    path: str

    def __str__(self) -> str:
        return f"`{self.method} {self.path}`"


@dataclass(frozen=True, slots=True)
class Message:
    """A WebSocket message, with the topic where it has one."""

    type: str
    topic: str | None = None

    def __str__(self) -> str:
        return f"message `{self.type}`" + (f" {self.topic}" if self.topic else "")


@dataclass(frozen=True, slots=True)
class Page:
    """A page or one of its files."""

    path: str

    def __str__(self) -> str:
        return f"page `{self.path}`"


Surface: TypeAlias = Http | Message | Page


@dataclass(frozen=True, slots=True)
class Verb:
    """One thing that can be asked for, the least role that may, and everywhere it can be asked."""

    name: str
    role: Role
    surfaces: tuple[Surface, ...]
    token_when_exposed: bool = False
    note: str = ""


def _messages(*types: str) -> tuple[Message, ...]:
    return tuple(Message(name) for name in types)


def _topics(*topics: str) -> tuple[Message, ...]:
    return tuple(Message(kind, topic) for topic in topics for kind in ("subscribe", "unsubscribe"))


_OWN: Final = "one's own, an admin everybody's"
_TEAM: Final = "of the token's team (its claim `team`), an admin of any"
_PROFILE: Final = "/api/{platform}/profile"
_SCHEDULES: Final = (
    Verb("read-self", "anonymous", (Http("GET", "/api/me"),)),
    Verb(
        "read-businesses",
        "viewer",
        (
            Http("GET", f"{_PROFILE}/{{team}}"),
            Http("GET", f"{_PROFILE}/{{team}}/{{business}}/reviews"),
            Http("GET", f"{_PROFILE}/{{team}}/{{business}}/overview"),
        ),
        note=_TEAM,
    ),
    Verb("change-businesses", "viewer", (Http("POST", _PROFILE), Http("DELETE", f"{_PROFILE}/{{id}}")), note=_TEAM),
    Verb(
        "tell-of-run",
        "anonymous",
        (Http("POST", "/webhooks/apify"),),
        note="for whoever sends the secret APIFY_WEBHOOK_SECRET in the header X-Webhook-Secret; while none is set, nobody",
    ),
    Verb(
        "read-schedules",
        "admin",
        (
            Http("GET", "/admin/schedules"),
            Http("GET", "/admin/schedules/lines"),
            Http("GET", "/admin/schedules/validation"),
            Http("GET", "/admin/schedules/{id}/businesses"),
            Http("GET", "/admin/schedules/{id}/runs"),
            Http("GET", "/admin/runs"),
            Http("GET", "/admin/retries"),
            Http("GET", "/admin/health"),
            Http("GET", "/admin/teams"),
            Http("GET", "/admin/teams/{team}/schedules"),
            Http("GET", "/admin/teams/{team}/custom-interval"),
            Http("GET", "/admin/custom-intervals"),
        ),
    ),
    Verb(
        "control-schedules",
        "admin",
        (
            Http("POST", "/admin/schedules/{id}/trigger"),
            Http("PUT", "/admin/schedules/{id}/pause"),
            Http("PUT", "/admin/schedules/{id}/resume"),
            Http("POST", "/admin/schedules/rebalance"),
            Http("POST", "/admin/schedules/consolidate"),
            Http("POST", "/admin/businesses/{id}/retry"),
        ),
    ),
    Verb(
        "change-teams",
        "admin",
        (
            Http("PUT", "/admin/teams/{team}/tier"),
            Http("POST", "/admin/teams/{team}/custom-interval"),
            Http("DELETE", "/admin/teams/{team}/custom-interval"),
            Http("POST", "/admin/businesses"),
        ),
    ),
    Verb("read-audit", "admin", (Http("GET", "/admin/audit"),), note="of all systems"),
)
_TRACKING: Final = (
    Verb(
        "read-campaigns",
        "viewer",
        (Http("GET", "/tracking/campaigns"), Http("GET", "/tracking/campaigns/{id}")),
        note="those that are open and those one is in, without their money; an admin all",
    ),
    Verb(
        "read-submissions",
        "viewer",
        (
            Http("GET", "/tracking/submissions"),
            Http("GET", "/tracking/submissions/{id}"),
            Http("GET", "/tracking/submissions/{id}/views"),
        ),
        note=_OWN,
    ),
    Verb(
        "submit-posts",
        "viewer",
        (Http("POST", "/tracking/submissions"),),
        note="in another's name: admins only",
    ),
    Verb(
        "read-earnings",
        "viewer",
        (
            Http("GET", "/tracking/balance"),
            Http("GET", "/tracking/ledger"),
            Http("GET", "/tracking/notifications"),
            Http("GET", "/tracking/payouts"),
            Http("GET", "/tracking/payouts/{id}"),
        ),
        note=_OWN,
    ),
    Verb(
        "request-payouts",
        "viewer",
        (Http("POST", "/tracking/payouts"),),
        note="in another's name: admins only",
    ),
    Verb(
        "change-campaigns",
        "admin",
        (
            Http("POST", "/tracking/campaigns"),
            Http("PATCH", "/tracking/campaigns/{id}"),
            Http("POST", "/tracking/campaigns/{id}/pause"),
            Http("POST", "/tracking/campaigns/{id}/complete"),
            Http("POST", "/tracking/campaigns/{id}/reactivate"),
        ),
    ),
    Verb(
        "judge-submissions",
        "admin",
        (
            Http("POST", "/tracking/submissions/{id}/approve"),
            Http("POST", "/tracking/submissions/{id}/reject"),
            Http("POST", "/tracking/held/{id}/accept"),
            Http("POST", "/tracking/held/{id}/reject"),
        ),
    ),
    Verb(
        "turn-payouts",
        "admin",
        (
            Http("POST", "/tracking/payouts/{id}/approve"),
            Http("POST", "/tracking/payouts/{id}/complete"),
            Http("POST", "/tracking/payouts/{id}/reject"),
            Http("POST", "/tracking/payouts/{id}/revert"),
        ),
    ),
    Verb(
        "read-tracking",
        "admin",
        (
            Http("GET", "/tracking/held"),
            Http("GET", "/tracking/verification"),
            Http("GET", "/tracking/runs"),
            Http("GET", "/tracking/runs/{id}"),
            Http("GET", "/tracking/failed"),
            Http("GET", "/tracking/health"),
            Http("GET", "/tracking/stats"),
            Http("GET", "/tracking/plan"),
        ),
    ),
    Verb(
        "run-tracking",
        "admin",
        (
            Http("POST", "/tracking/runs"),
            Http("POST", "/tracking/runs/{id}/stop"),
            Http("POST", "/tracking/failed/{id}/retry"),
            Http("PUT", "/tracking/clips/{id}/event"),
        ),
    ),
)
TABLE: Final = (
    Verb("read-health", "anonymous", (Http("GET", "/healthz"), Http("GET", "/readyz"))),
    Verb("read-stats", "anonymous", (Http("GET", "/stats"),), token_when_exposed=True),
    Verb("read-metrics", "anonymous", (Http("GET", "/metrics"),), token_when_exposed=True),
    Verb("read-config", "anonymous", (Http("GET", "/config"),), note="the same as every `registered` carries"),
    Verb("read-openapi", "anonymous", (Http("GET", "/openapi.json"),)),
    Verb(
        "see-pages",
        "anonymous",
        (Page("/"), Page("/jobs"), Page("/schedules"), Page("/tiers"), Page("/tracking"), Page("/site/{name}")),
    ),
    Verb("authenticate", "anonymous", _messages("authenticate")),
    Verb("ping", "anonymous", _messages("ping")),
    Verb(
        "view",
        "anonymous",
        _messages("register", "viewport-update", "filters-update", "unregister", "resync", "explain"),
        note="private events only for their creator and those they are shared with",
    ),
    Verb(
        "read-events",
        "anonymous",
        (Http("GET", "/events"), Http("GET", "/events/{id}"), Http("GET", "/events/export")),
        note="as with `view`; sharedWith only for the creator and admins",
    ),
    Verb(
        "event-upsert",
        "producer",
        (Http("POST", "/events"), Http("PATCH", "/events/{id}"), Message("event-upsert")),
        note="a producer only events that are its own or nobody's, an admin any",
    ),
    Verb(
        "event-delete",
        "producer",
        (Http("DELETE", "/events/{id}"), Message("event-delete")),
        note="a producer only events that are its own or nobody's, an admin any",
    ),
    Verb("popularity-update", "producer", (Http("POST", "/popularity"), Message("popularity-update"))),
    Verb(
        "read-imports",
        "viewer",
        (
            Http("GET", "/imports"),
            Http("GET", "/imports/{id}"),
            Http("GET", "/imports/{id}/rejected"),
            Http("GET", "/audiences"),
            Http("GET", "/audiences/{id}/contacts"),
            Http("GET", "/audiences/{id}/export"),
        ),
        note=_OWN,
    ),
    Verb(
        "import",
        "viewer",
        (
            Http("POST", "/imports"),
            Http("PATCH", "/imports/{id}"),
            Http("POST", "/imports/{id}/cancel"),
            Http("POST", "/imports/{id}/requeue"),
            Http("DELETE", "/audiences/{id}"),
            Message("import-create"),
        ),
        note=f"{_OWN}; a priority above 5 for admins only",
    ),
    Verb(
        "keep-credentials",
        "viewer",
        (
            Http("GET", "/credentials"),
            Http("POST", "/credentials"),
            Http("POST", "/credentials/{id}/check"),
            Http("POST", "/credentials/{id}/rotate"),
            Http("DELETE", "/credentials/{id}"),
        ),
        note=f"{_OWN}; a value is never shown",
    ),
    Verb("read-queue", "admin", (Http("GET", "/imports/status"),)),
    *_SCHEDULES,
    Verb(
        "read-celebrities",
        "anonymous",
        (
            Http("GET", "/celebrities"),
            Http("GET", "/celebrities/{id}"),
            Http("GET", "/celebrities/{id}/pricing"),
            Http("GET", "/celebrities/{id}/availability"),
        ),
        note="people with a tier; slots that can be booked, and one's own bookings",
    ),
    Verb(
        "book",
        "viewer",
        (Http("POST", "/availability/{id}/book"), Http("POST", "/availability/{id}/cancel")),
        note="cancelling: one's own, an admin everybody's",
    ),
    Verb(
        "read-tiers",
        "admin",
        (
            Http("GET", "/tiers/state"),
            Http("GET", "/tiers/report"),
            Http("GET", "/tiers/people"),
            Http("GET", "/tiers/people/{id}"),
            Http("GET", "/tiers/people/{id}/calendar"),
            Http("GET", "/tiers/runs"),
            Http("GET", "/tiers/runs/{id}"),
            Http("GET", "/tiers/runs/{id}/items"),
            Http("GET", "/tiers/verifications"),
        ),
    ),
    Verb(
        "run-tiers",
        "admin",
        (
            Http("POST", "/tiers/people"),
            Http("POST", "/tiers/classify"),
            Http("POST", "/tiers/generate"),
            Http("POST", "/tiers/verify"),
            Http("POST", "/tiers/runs/{id}/stop"),
        ),
        note="a shut gate is passed with a reason only",
    ),
    Verb("decide-tier", "admin", (Http("POST", "/tiers/people/{id}/decision"),)),
    *_TRACKING,
    Verb("get-stats", "admin", _messages("get-stats")),
    Verb(
        "update-batch-config",
        "admin",
        (Http("PATCH", "/config"), Http("DELETE", "/config/{name}"), Message("update-batch-config")),
    ),
    Verb("force-batch", "admin", (Http("POST", "/force-batch"), Message("force-batch"))),
    Verb("what-if", "admin", (Http("POST", "/what-if"),), note="nothing is sent or changed"),
    Verb("read-loops", "admin", (Http("GET", "/loops"), Http("GET", "/loops/{name}"))),
    Verb(
        "control-loops",
        "admin",
        (
            Http("POST", "/loops/{name}/run"),
            Http("POST", "/loops/{name}/pause"),
            Http("POST", "/loops/{name}/resume"),
            Http("PATCH", "/loops/{name}"),
        ),
    ),
    Verb("read-alerts", "admin", (Http("GET", "/alerts"),)),
    Verb("acknowledge-alert", "admin", (Http("POST", "/alerts/{id}/acknowledge"),)),
    Verb("subscribe-operations", "admin", _topics(*TOPICS)),
    Verb("subscribe-job", "viewer", _topics(f"{JOB}ID"), note="the job's owner, and admins"),
)
VERBS: Final = {verb.name: verb for verb in TABLE}


def _by_surface() -> Iterator[tuple[Surface, Verb]]:
    for verb in TABLE:
        for surface in verb.surfaces:
            yield surface, verb


_VERB_OF: Final = dict(_by_surface())


def allow(who: Identity, verb: str, *, exposed: bool) -> None:
    """Nothing when this caller may; else Refused. `exposed`: the server listens beyond loopback."""
    rule = VERBS[verb]
    if who.has(rule.role) and (who.user is not None or not (exposed and rule.token_when_exposed)):
        return
    if who.user is None:
        raise Refused(
            Code.UNAUTHORIZED,
            f"{verb} needs a token ({needed(rule, exposed)}); send it as `Authorization: Bearer TOKEN`, "
            "over WebSocket with `authenticate`",
        )
    raise Refused(Code.FORBIDDEN, f"{verb} needs the role {rule.role}; this token's roles are {_named(who.roles)}")


def needed(rule: Verb, exposed: bool) -> str:
    """What kind of token, in words."""
    if rule.role == "anonymous" and exposed:
        return "any role, as this server listens beyond loopback"
    return f"role {rule.role}" if rule.role != "viewer" else "any role"


def _named(roles: Collection[str]) -> str:
    return ", ".join(sorted(role[:40] for role in roles)[:10]) or "none"


def verb_of_route(method: str, path: str) -> str:
    """The verb that guards a route (its path as in the table)."""
    surface: Surface = Http("GET" if method == "HEAD" else method, path)
    verb = _VERB_OF.get(surface) or _VERB_OF[Page(path)]
    return verb.name


def verb_of_message(kind: str, topic: str | None = None) -> str:
    """The verb that guards a message; Refused for a topic that there is not."""
    if topic is None:
        return _VERB_OF[Message(kind)].name
    if topic.startswith(JOB) and len(topic) > len(JOB):
        topic = f"{JOB}ID"
    verb = _VERB_OF.get(Message(kind, topic))
    if verb is None:
        known = ", ".join((*TOPICS, f"{JOB}ID"))
        raise Refused(Code.BAD_MESSAGE, f"there is no topic {topic[:40]!r}; there are {known}", field="topic")
    return verb.name


# --- origins ---


def origin_allowed(origin: str | None, host: str | None, allowed: Collection[str]) -> bool:
    """May a page of this origin speak to us? No origin: not a browser's page. `host` is the request's Host header."""
    if origin is None or "*" in allowed:
        return True
    page = _split(origin)
    if page is None:
        return False
    if is_loopback(page[1]) or page[1] == _hostname(host):
        return True
    return page in {_split(entry) for entry in allowed}


def _split(origin: str) -> tuple[str, str, int] | None:
    """Scheme, host and port of an origin; None when it is none (`null`, or not a web page's)."""
    try:
        parts = urlsplit(origin.strip().lower())
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    except (ValueError, KeyError):
        return None
    return (parts.scheme, parts.hostname, port) if parts.hostname and not parts.username else None


def _hostname(host: str | None) -> str | None:
    try:
        return urlsplit(f"//{(host or '').lower()}").hostname
    except ValueError:
        return None


# --- docs/access.md ---

_HEAD: Final = """\
# Access: verb x role

Made from the table in `server/handlers/access.py` by `make generate`; a test fails when it is stale.

A caller is anonymous without a token, a viewer with any token, a producer or an admin by the token's `roles`; each role
includes those before it. Over HTTP the token is sent as `Authorization: Bearer TOKEN`, over WebSocket with `authenticate`
or `register`, never in a URL. The claim `team` names the team that a token speaks for. No token where one is needed answers
401 `unauthorized`, a token without the role 403 `forbidden`.
"""
_FOOT: Final = """
(token): open to all while the server listens on loopback only, any token once it listens beyond (HOST).

A request or WebSocket handshake with an `Origin` header (a web page's) may change something only when the page comes from the same
host, from loopback, or from an origin in ALLOWED_ORIGINS (`*`: any).
"""


def access_markdown() -> str:
    """The text of docs/access.md."""
    lines = [_HEAD, f"| verb | {' | '.join(ROLES)} | where | note |", f"|---|{'---|' * len(ROLES)}---|---|"]
    lines += [_row(verb) for verb in TABLE]
    return "\n".join(lines) + "\n" + _FOOT


def _row(verb: Verb) -> str:
    marks = [_mark(verb, role) for role in ROLES]
    where = ", ".join(str(surface) for surface in verb.surfaces)
    return f"| {verb.name} | {' | '.join(marks)} | {where} | {verb.note} |"


def _mark(verb: Verb, role: Role) -> str:
    if ROLES.index(role) < ROLES.index(verb.role):
        return "no"
    return "(token)" if verb.token_when_exposed and role == "anonymous" else "yes"
