from pathlib import Path

import pytest

from server.core.identity import ANONYMOUS, ROLES, Identity, Role
from server.errors import Code, Refused
from server.handlers.access import (
    TABLE,
    TOPICS,
    VERBS,
    Http,
    Message,
    Page,
    Verb,
    access_markdown,
    allow,
    origin_allowed,
    verb_of_message,
    verb_of_route,
)
from server.handlers.http import ROUTES
from server.protocol.incoming import MESSAGES
from tests.handlers.asking import Start

DOCS = Path(__file__).parents[2] / "docs" / "access.md"
WHO: dict[str, Identity] = {
    role: ANONYMOUS if role == "anonymous" else Identity("ada", frozenset((role,))) for role in ROLES
}
SURFACES = [surface for verb in TABLE for surface in verb.surfaces]


def answer_to(role: str, verb: str, *, exposed: bool = False) -> Code | None:
    try:
        allow(WHO[role], verb, exposed=exposed)
    except Refused as refused:
        return refused.code
    return None


def test_every_surface_has_exactly_one_verb_and_every_verb_one_row() -> None:
    assert len(SURFACES) == len(set(SURFACES))
    assert len(VERBS) == len(TABLE)


def test_every_route_is_in_the_table_and_every_row_is_a_route() -> None:
    declared = {(route.method, route.path) for route in ROUTES}
    table = {(s.method, s.path) for s in SURFACES if isinstance(s, Http)}
    pages = {("GET", s.path) for s in SURFACES if isinstance(s, Page)}

    assert declared == table | pages
    assert len(declared) == len(ROUTES)


def test_every_message_type_has_exactly_one_verb_for_each_topic() -> None:
    plain = [s.type for s in SURFACES if isinstance(s, Message) and s.topic is None]
    topical = {s.type for s in SURFACES if isinstance(s, Message) and s.topic is not None}

    assert len(plain) == len(set(plain))
    assert {*plain} | topical == set(MESSAGES)
    assert not topical & {*plain}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("verb", TABLE, ids=lambda verb: verb.name)
def test_a_role_may_do_what_the_least_role_may_and_hears_why_not(role: Role, verb: Verb) -> None:
    enough = ROLES.index(role) >= ROLES.index(verb.role)
    expected = None if enough else Code.UNAUTHORIZED if role == "anonymous" else Code.FORBIDDEN

    assert answer_to(role, verb.name) == expected


@pytest.mark.parametrize("verb", ["read-stats", "read-metrics"])
def test_figures_need_a_token_once_the_server_listens_beyond_loopback(verb: str) -> None:
    assert answer_to("anonymous", verb, exposed=True) is Code.UNAUTHORIZED
    assert answer_to("viewer", verb, exposed=True) is None
    assert answer_to("anonymous", "read-events", exposed=True) is None


def test_a_token_whose_roles_are_unknown_is_a_viewers() -> None:
    stranger = Identity("ada", frozenset(("root", "Admin", "ADMIN")))
    allow(stranger, "subscribe-job", exposed=True)
    with pytest.raises(Refused, match="needs the role admin"):
        allow(stranger, "force-batch", exposed=False)


@pytest.mark.parametrize("topic", TOPICS)
def test_topics_of_operations_are_for_admins(topic: str) -> None:
    assert VERBS[verb_of_message("subscribe", topic)].role == "admin"
    assert verb_of_message("subscribe", topic) == verb_of_message("unsubscribe", topic)


def test_a_jobs_topic_is_for_whoever_has_a_token_its_owner_is_looked_up_elsewhere() -> None:
    assert VERBS[verb_of_message("subscribe", "job:17")].role == "viewer"


@pytest.mark.parametrize("topic", ["", "job:", "Loops", "loops ", "nothing"])
def test_a_topic_that_there_is_not_is_refused_with_those_there_are(topic: str) -> None:
    with pytest.raises(Refused, match="tracking") as caught:
        verb_of_message("subscribe", topic)
    assert (caught.value.code, caught.value.field) == (Code.BAD_MESSAGE, "topic")


def test_head_is_guarded_like_get() -> None:
    assert verb_of_route("HEAD", "/stats") == verb_of_route("GET", "/stats")


def test_the_document_is_the_table() -> None:
    assert DOCS.read_text() == access_markdown(), "docs/access.md is stale: make generate"


@pytest.mark.parametrize(
    ("origin", "host", "allowed", "may"),
    [
        (None, "maps.example", (), True),
        ("https://maps.example", "maps.example", (), True),
        ("https://MAPS.example", "maps.EXAMPLE:8081", (), True),
        ("http://maps.example:8080", "maps.example:8081", (), True),
        ("http://localhost:3000", "maps.example", (), True),
        ("http://127.0.0.1:8080", "maps.example", (), True),
        ("http://[::1]:8080", "[::1]:8081", (), True),
        ("https://evil.example", "maps.example", (), False),
        ("https://maps.example.evil.example", "maps.example", (), False),
        ("https://evil.example/maps.example", "maps.example", (), False),
        ("https://maps.example@evil.example", "maps.example", (), False),
        ("https://localhost.evil.example", "maps.example", (), False),
        ("null", "maps.example", (), False),
        ("", "maps.example", (), False),
        ("file://", "", (), False),
        ("https://[", "maps.example", (), False),
        ("https://evil.example:x", "maps.example", (), False),
        ("https://evil.example", None, (), False),
        ("https://evil.example", "[", (), False),
        ("https://app.example", "maps.example", ("https://app.example",), True),
        ("https://app.example:443", "maps.example", ("https://app.example/",), True),
        ("http://app.example", "maps.example", ("https://app.example",), False),
        ("https://app.example:8443", "maps.example", ("https://app.example",), False),
        ("null", "maps.example", ("*",), True),
        ("https://evil.example", "maps.example", ("*",), True),
    ],
)
def test_a_page_may_speak_when_it_is_ours_local_or_listed(
    origin: str | None, host: str | None, allowed: tuple[str, ...], may: bool
) -> None:
    assert origin_allowed(origin, host, allowed) is may


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
async def test_every_route_answers_every_role_as_the_table_says(start: Start, host: str) -> None:
    serving = await start(host=host)
    for route in ROUTES:
        path = route.path.replace("{id}", "17").replace("{name}", "nothing")
        path = path.replace("{platform}", "google").replace("{team}", "acme").replace("{business}", "17")
        verb = VERBS[verb_of_route(route.method, route.path)]
        if verb.name == "tell-of-run":  # A secret guards it, not a role: tests/handlers/test_webhooks.py.
            continue
        for role in ROLES:
            answer = await serving.ask(route.method, path, None if role == "anonymous" else role)
            refused = answer_to(role, verb.name, exposed=host == "0.0.0.0")
            expected = {None: None, Code.UNAUTHORIZED: 401, Code.FORBIDDEN: 403}[refused]
            seen = answer.status if answer.status in (401, 403) else None
            assert seen == expected, f"{route.method} {path} as {role}: {answer.status} {answer.body!r}"
            assert answer.status < 500, f"{route.method} {path} as {role}: {answer.body!r}"
