"""Golden transcripts: what one connection says and what it is told, as JSON files beside this one.

A file is {about, who, world?, steps}; a step is {send, effects?, answers}. The same file is played through the pure session
(`play`), which also checks `effects`, what the session tells its shell to do; and can be played through a real socket, where
only `answers` count: for each step all that the connection is sent, in order.

  who      who the connection is from the start: a name in PEOPLE, or null
  world    events that are stored before (over a socket; the pure session knows no events)
  send     a message; or a text, sent as it is
  effects  [name, {field: value, ...}] of each effect, in order; fields that are not named are not looked at
  answers  messages; `"..."` as a key: there may be more fields; @any, @int, @text, @time stand for any such value

In `send` and `world`, "@token:NAME" is a token of that person ("@token:late" one that has expired) and "@now+60" the time in so
many minutes, as epoch ms.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel

from server.core.identity import ANONYMOUS, Identity
from server.errors import Code, Refused
from server.handlers import session as s
from server.protocol import incoming as m

FOLDER = Path(__file__).parent
DEFAULT_LIMIT = 50
EXPIRES_MS = 1_900_000_000_000
PEOPLE = {
    "carla": Identity("carla", frozenset({"viewer"}), EXPIRES_MS),
    "paul": Identity("paul", frozenset({"producer"}), EXPIRES_MS),
    "root": Identity("root", frozenset({"admin"}), EXPIRES_MS),
}


@dataclass(frozen=True)
class Step:
    """One thing said, and what follows."""

    send: Any
    effects: list[Any]
    answers: list[Any]


@dataclass(frozen=True)
class Transcript:
    """One file."""

    name: str
    about: str
    who: str | None
    world: list[Any]
    steps: list[Step]


def load(path: Path) -> Transcript:
    """One transcript; every key must be known."""
    read = orjson.loads(path.read_bytes())
    assert set(read) <= {"about", "who", "world", "steps"}, f"{path.name}: {set(read)}"
    for step in read["steps"]:
        assert {"send", "answers"} <= set(step) <= {"send", "effects", "answers"}, f"{path.name}: {step}"
    steps = [Step(step["send"], step.get("effects", []), step["answers"]) for step in read["steps"]]
    return Transcript(path.stem, read["about"], read["who"], read.get("world", []), steps)


def load_all() -> list[Transcript]:
    """All of them, by name."""
    return [load(path) for path in sorted(FOLDER.glob("*.json"))]


def filled(value: Any, now_ms: int, tokens: Mapping[str, str]) -> Any:
    """With tokens and times in place of what stands for them."""
    if isinstance(value, dict):
        return {key: filled(one, now_ms, tokens) for key, one in value.items()}
    if isinstance(value, list):
        return [filled(one, now_ms, tokens) for one in value]
    if isinstance(value, str) and value.startswith("@token:"):
        return tokens[value.removeprefix("@token:")]
    if isinstance(value, str) and (found := re.fullmatch(r"@now([+-]\d+)", value)):
        return now_ms + int(found[1]) * 60_000
    return value


def differs(expected: Any, actual: Any, place: str = "") -> str | None:
    """Where what came is not what was expected; None when it is."""
    if isinstance(expected, str) and expected in KINDS:
        return None if KINDS[expected](actual) else f"{place} is {actual!r}, not {expected}"
    if isinstance(expected, dict) and isinstance(actual, dict):
        missing = expected.keys() - actual.keys() - {"..."}
        extra = set() if "..." in expected else actual.keys() - expected.keys()
        if missing or extra:
            return f"{place or 'the message'} lacks {sorted(missing)} and has {sorted(extra)} more: {actual!r}"
        found = (differs(one, actual[key], f"{place}.{key}") for key, one in expected.items() if key != "...")
        return next((text for text in found if text), None)
    if isinstance(expected, list) and isinstance(actual, list):
        if len(expected) != len(actual):
            return f"{place} has {len(actual)} members, not {len(expected)}: {actual!r}"
        found = (differs(a, b, f"{place}[{n}]") for n, (a, b) in enumerate(zip(expected, actual, strict=True)))
        return next((text for text in found if text), None)
    return None if expected == actual else f"{place} is {actual!r}, not {expected!r}"


KINDS: dict[str, Callable[[Any], bool]] = {
    "@any": lambda value: True,
    "@int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "@text": lambda value: isinstance(value, str) and value != "",
    "@time": lambda value: (
        isinstance(value, str) and bool(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", value))
    ),
}


# --- through the pure session ---


def play(transcript: Transcript) -> None:
    """Say every step to a session and compare its effects, and the answers that it gives by itself."""
    tokens = {name: name for name in (*PEOPLE, "late", "forged")}
    session = s.Session("s1", ANONYMOUS if transcript.who is None else PEOPLE[transcript.who])
    for number, step in enumerate(transcript.steps):
        session, effects, answers = said(session, filled(step.send, 0, tokens))
        where = f"{transcript.name}, step {number} ({str(step.send)[:100]})"
        others = [plain(effect) for effect in effects if not isinstance(effect, s.Answer)]
        expected = [[name, {**named, "...": True}] for name, named in step.effects]
        problem = differs(expected, others, "effects")
        assert problem is None, f"{where}: {problem}"
        problem = differs(step.answers[: len(answers)] if others else step.answers, answers, "answers")
        assert problem is None, f"{where}: {problem}"


def said(session: s.Session, frame: Any) -> tuple[s.Session, tuple[s.Effect, ...], list[Any]]:
    """What the shell does with a frame, without its sockets: decode, verify, receive, answer."""
    value: object = None
    try:
        value = m.decode(frame) if isinstance(frame, str) else frame
        message = m.parse(value)
        token = s.token_of(message)
        if token is not None:
            session = s.become(session, verify(token))
        session, effects = s.receive(session, message, DEFAULT_LIMIT)
    except Refused as refusal:
        return session, (), [s.error(refusal, m.ref_of(value))]
    return session, effects, [dict(effect.payload) for effect in effects if isinstance(effect, s.Answer)]


def verify(token: str) -> Identity:
    """What the keys say of the tokens of PEOPLE."""
    if token not in PEOPLE:
        raise Refused(Code.UNAUTHORIZED, "this token is not good")
    return PEOPLE[token]


def plain(effect: s.Effect) -> list[Any]:
    """An effect as a transcript writes it, with all of its fields."""
    return [type(effect).__name__, {one.name: as_json(getattr(effect, one.name)) for one in fields(effect)}]


def as_json(value: Any) -> Any:
    """A value inside as the plain JSON that a transcript can hold."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    if is_dataclass(value):
        return {one.name: as_json(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {key: as_json(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [as_json(one) for one in value]
    return value
