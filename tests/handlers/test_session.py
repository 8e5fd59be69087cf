"""One connection as a pure state machine: what the transcripts (tests/transcripts) do not say already."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.batching.scores.question import Question
from server.core.identity import ANONYMOUS, Identity
from server.errors import Code, Refused
from server.handlers import session as s
from server.handlers.access import VERBS, verb_of_message
from server.protocol import incoming as m
from server.protocol.examples import RECEIVED_EXAMPLES
from server.protocol.outgoing import SENT
from tests.transcripts.play import PEOPLE, said

pytestmark = pytest.mark.pure
BERLIN = {"west": 13.0, "south": 52.0, "east": 14.0, "north": 53.0}
ROOT = PEOPLE["root"]


def register(**more: Any) -> dict[str, Any]:
    return {"type": "register", "viewport": BERLIN, **more}


def receive(session: s.Session, message: dict[str, Any], default_limit: int = 50) -> s.Step:
    return s.receive(session, m.parse(message), default_limit)


def refusal(session: s.Session, message: dict[str, Any]) -> tuple[Code, str | None]:
    with pytest.raises(Refused) as caught:
        receive(session, message)
    return caught.value.code, caught.value.field


def watching(who: Identity = ANONYMOUS) -> s.Session:
    return receive(s.Session("s1", who), register())[0]


# --- registering ---


def test_a_viewer_who_names_no_limit_gets_the_default_and_another_gets_its_own() -> None:
    for message, limit in ((register(), 7), (register(maxEvents=500), 500), (register(maxEvents=1), 1)):
        session, effects = receive(s.Session("s1"), message, default_limit=7)
        assert session.question is not None and session.question.limit == limit
        assert isinstance(effects[0], s.Enter) and effects[0].question is session.question


def test_a_second_registration_replaces_the_first_altogether() -> None:
    first, _ = receive(
        s.Session("s1"), register(maxEvents=3, filters=[{"text": "x"}], location={"latitude": 1, "longitude": 1})
    )
    second, _ = receive(first, register())
    assert second.question == watching().question


def test_a_pan_keeps_the_filters_and_a_filter_keeps_the_viewport() -> None:
    session, _ = receive(
        s.Session("s1"), register(maxEvents=3, filters=[{"text": "x"}], location={"latitude": 1, "longitude": 1})
    )
    panned, effects = receive(session, {"type": "viewport-update", "viewport": {**BERLIN, "north": 60}})
    assert session.question is not None and panned.question is not None
    assert panned.question == replace(session.question, viewport=panned.question.viewport)
    assert panned.question.viewport.north == 60
    assert effects == (s.Ask(panned.question, None),)
    filtered, _ = receive(panned, {"type": "filters-update", "filters": []})
    assert filtered.question == replace(panned.question, filters=())


def test_after_leaving_nothing_is_watched() -> None:
    session, effects = receive(watching(), {"type": "unregister", "ref": "r"})
    assert (session.question, effects) == (None, (s.Leave("r"),))
    for kind in ("unregister", "resync", "viewport-update", "filters-update", "explain"):
        assert refusal(session, dict(RECEIVED_EXAMPLES[kind]))[0] is Code.NOT_REGISTERED


def test_refusals_change_nothing() -> None:
    session = watching()
    after, effects, answers = said(session, register(maxEvents=0))
    assert (after, effects) == (session, ())
    assert answers[0]["code"] == "bad_message"


# --- who it is ---


def test_a_question_under_way_becomes_the_new_users() -> None:
    session = s.become(watching(), ROOT)
    assert session.question is not None
    assert (session.who, session.question.user) == (ROOT, "root")
    assert s.become(s.Session("s1"), ROOT).question is None
    _, effects = receive(session, {"type": "authenticate", "token": "t", "ref": "r"})
    assert effects == (s.Answer(s.authenticated(ROOT, "r")), s.Reveal(session.question))


def test_only_authenticate_and_register_carry_a_token_to_be_verified_first() -> None:
    for kind, example in RECEIVED_EXAMPLES.items():
        expected = example.get("token") if kind in ("authenticate", "register") else None
        assert s.token_of(m.parse(example)) == expected


def test_who_one_is_is_told_with_the_end_of_the_token() -> None:
    assert s.authenticated(Identity("ada", frozenset({"viewer", "admin"}), 0), "r") == {
        "type": "authenticated",
        "ref": "r",
        "sub": "ada",
        "roles": ["admin", "viewer"],
        "expiresAt": "1970-01-01T00:00:00.000Z",
    }
    assert s.authenticated(Identity("ada"), None) == {
        "type": "authenticated",
        "sub": "ada",
        "roles": [],
        "expiresAt": None,
    }


@pytest.mark.parametrize("who", [None, *PEOPLE])
@pytest.mark.parametrize("kind", m.MESSAGES)
def test_every_message_is_for_those_whom_the_access_table_names(kind: str, who: str | None) -> None:
    identity = ANONYMOUS if who is None else PEOPLE[who]
    session = watching(identity)
    topic = RECEIVED_EXAMPLES[kind].get("topic")
    may = identity.has(VERBS[verb_of_message(kind, topic)].role)
    if may:
        assert receive(session, dict(RECEIVED_EXAMPLES[kind]))[1]
    else:
        assert refusal(session, dict(RECEIVED_EXAMPLES[kind]))[0] is (
            Code.UNAUTHORIZED if who is None else Code.FORBIDDEN
        )


def test_the_role_is_looked_at_before_anything_else() -> None:
    assert refusal(s.Session("s1"), {"type": "event-upsert", "event": {"id": ""}})[0] is Code.UNAUTHORIZED
    assert refusal(replace(s.Session("s1"), ending=True), {"type": "force-batch"})[0] is Code.UNAUTHORIZED


# --- the end ---


@pytest.mark.parametrize("kind", [kind for kind in m.MESSAGES if kind != "ping"])
def test_while_the_server_goes_away_nothing_is_begun(kind: str) -> None:
    session = replace(watching(ROOT), ending=True)
    with pytest.raises(Refused) as caught:
        receive(session, dict(RECEIVED_EXAMPLES[kind]))
    assert (caught.value.code, caught.value.retry) == (Code.SHUTTING_DOWN, True)


def test_even_then_a_ping_is_answered() -> None:
    session = replace(s.Session("s1"), ending=True)
    assert receive(session, {"type": "ping", "ref": "r"}) == (session, (s.Answer({"type": "pong", "ref": "r"}),))


# --- topics ---


def test_topics_are_a_set_and_bounded() -> None:
    session = s.Session("s1", ROOT)
    for number in range(s.MAX_TOPICS):
        for _ in range(2):
            session, effects = receive(session, {"type": "subscribe", "topic": f"job:{number}"})
            assert effects == (s.Follow(f"job:{number}", True, None),)
    assert refusal(session, {"type": "subscribe", "topic": "loops"}) == (Code.TOO_MANY, "topic")
    session, _ = receive(session, {"type": "subscribe", "topic": "job:0"})
    session, effects = receive(session, {"type": "unsubscribe", "topic": "job:0"})
    assert effects == (s.Follow("job:0", False, None),)
    session, _ = receive(session, {"type": "subscribe", "topic": "loops"})
    assert len(session.topics) == s.MAX_TOPICS and "job:0" not in session.topics


# --- what is answered ---


def test_an_error_says_all_that_is_known_and_no_more() -> None:
    assert s.error(Refused("too_many", "slow down", limit=20), "r") == {
        "type": "error",
        "ref": "r",
        "code": "too_many",
        "message": "slow down",
        "limit": 20,
        "retry": True,
    }
    assert s.error(Refused("bad_filter", "no", field="filters.0"), None) == {
        "type": "error",
        "code": "bad_filter",
        "message": "no",
        "field": "filters.0",
        "retry": False,
    }


@pytest.mark.parametrize("code", Code)
@pytest.mark.parametrize("field", [None, "x"])
@pytest.mark.parametrize("limit", [None, 5, 0.5])
def test_every_error_fits_the_published_schema(code: Code, field: str | None, limit: float | None) -> None:
    message = s.error(Refused(code, "no", field=field, limit=limit), "r")
    assert SENT["error"].model_validate(message).model_dump(mode="json", by_alias=True, exclude_unset=True) == message


def test_configuration_is_handed_on_under_its_names_on_the_wire_without_what_is_null() -> None:
    message = {
        "type": "update-batch-config",
        "batchIntervalMs": 5,
        "maxBatchSize": None,
        "enableBatching": False,
        "ref": "r",
    }
    _, effects = receive(s.Session("s1", ROOT), message)
    assert effects == (s.Configure({"batchIntervalMs": 5, "enableBatching": False}, "r"),)


# --- any conversation ---

SAID = st.sampled_from(list(RECEIVED_EXAMPLES.values())) | st.sampled_from(
    [register(), register(maxEvents=0), {"type": "nothing"}, "{", {"type": "authenticate", "token": "late"}]
    + [{"type": "authenticate", "token": name} for name in PEOPLE]
    + [register(token=name) for name in PEOPLE]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(SAID, max_size=25))
def test_whatever_is_said_the_state_is_what_the_effects_told(conversation: list[Any]) -> None:
    session = s.Session("s1")
    question: Question | None = None
    for frame in conversation:
        before = session
        session, effects, answers = said(session, frame)
        assert session.id == "s1"
        if not effects:
            assert [answer["type"] for answer in answers] == ["error"]
            assert (session.topics, session.question is None) == (before.topics, before.question is None)
        for effect in effects:
            if isinstance(effect, s.Enter | s.Ask | s.Reveal):
                question = effect.question
            elif isinstance(effect, s.Leave):
                question = None
            elif isinstance(effect, s.Resync | s.Explain):
                assert question is not None
        assert (session.question is None) is (question is None)
        if session.question is not None and effects:
            assert session.question == question and session.question.user == session.who.user
