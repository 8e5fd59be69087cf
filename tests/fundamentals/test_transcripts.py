"""Golden transcripts through the pure session; each of its answers also fits the published schema."""

import json
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # no stubs are installed
import pytest

from server.core.identity import ANONYMOUS
from server.handlers.session import Session
from server.protocol.incoming import MESSAGES
from server.protocol.outgoing import SENT
from server.protocol.schema import protocol_schema
from tests.transcripts.play import FOLDER, PEOPLE, Transcript, differs, filled, load_all, play, said

pytestmark = pytest.mark.pure
TRANSCRIPTS = load_all()
VALIDATOR = jsonschema.Draft202012Validator({"$ref": "#/$defs/ServerMessage", "$defs": protocol_schema()["$defs"]})


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda one: one.name)
def test_the_session_does_what_the_transcript_says(transcript: Transcript) -> None:
    play(transcript)


def test_every_message_a_client_may_send_is_in_a_transcript_as_one_that_is_answered_well() -> None:
    well = {
        step.send["type"]
        for transcript in TRANSCRIPTS
        for step in transcript.steps
        if isinstance(step.send, dict) and step.answers[0]["type"] != "error"
    }
    assert well == set(MESSAGES)


def test_every_answer_of_a_transcript_is_a_message_of_the_protocol_with_known_fields() -> None:
    for transcript in TRANSCRIPTS:
        for step in transcript.steps:
            for answer in step.answers:
                known = {str(field.alias) for field in SENT[answer["type"]].model_fields.values()}
                assert set(answer) - {"..."} <= known, f"{transcript.name}: {answer}"


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda one: one.name)
def test_what_the_session_answers_fits_the_published_schema(transcript: Transcript) -> None:
    session = Session("s1", ANONYMOUS if transcript.who is None else PEOPLE[transcript.who])
    tokens = {name: name for name in (*PEOPLE, "late", "forged")}
    for step in transcript.steps:
        session, _, answers = said(session, filled(step.send, 0, tokens))
        for answer in answers:
            VALIDATOR.validate(json.loads(json.dumps(answer)))


def test_every_step_is_answered() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == {transcript.name for transcript in TRANSCRIPTS}
    for transcript in TRANSCRIPTS:
        assert transcript.about and transcript.steps
        assert all(step.answers for step in transcript.steps)


# --- the comparison itself ---


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        (1, 1),
        ("@any", None),
        ("@int", 5),
        ("@text", "x"),
        ("@time", "2026-05-01T18:00:00.000Z"),
        ({"a": 1, "...": True}, {"a": 1, "b": 2}),
        ([{"a": "@int"}], [{"a": 1}]),
    ],
)
def test_what_is_as_expected_does_not_differ(expected: Any, actual: Any) -> None:
    assert differs(expected, actual) is None


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        (1, 2),
        (1, "1"),
        ("@int", True),
        ("@int", "5"),
        ("@text", ""),
        ("@time", "2026-05-01T18:00:00Z"),
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"a": 1, "b": 2}, {"a": 1}),
        ({"a": 1, "...": True}, {"b": 1}),
        ([1], [1, 2]),
        ([1], 1),
        ({"a": [{"b": 1}]}, {"a": [{"b": 2}]}),
    ],
)
def test_what_is_not_differs(expected: Any, actual: Any) -> None:
    assert differs(expected, actual) is not None


def test_tokens_and_times_are_filled_in_everywhere() -> None:
    value = {"token": "@token:root", "list": ["@now+60", "@now-1", "@nowhere", 5]}
    assert filled(value, 1000, {"root": "T"}) == {"token": "T", "list": [3_601_000, -59_000, "@nowhere", 5]}
