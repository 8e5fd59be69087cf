"""One connection as a state machine. Pure: a message and a state in, a state and effects out, Refused when it may not be.

    anonymous --authenticate--> known          (at any time; a token in `register` does the same first)
    watching nothing --register--> watching --viewport-update, filters-update--> watching --unregister--> watching nothing

The shell in websocket.py verifies tokens, carries out effects and knows about sockets; nothing here does. Who may send what
is one table (access.py); what a message looks like is another (server/protocol/incoming.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from server.batching.scores.budget import PLAIN, Budget
from server.batching.scores.question import Question
from server.core.event import Op
from server.core.identity import ANONYMOUS, Identity
from server.errors import Code, Refused
from server.handlers.access import allow, verb_of_message
from server.protocol import incoming as m
from server.protocol.imports import ImportIn
from server.protocol.values import to_iso

HeldList: TypeAlias = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Session:
    """What is known of one connection. `question` is None while it watches nothing."""

    id: str
    who: Identity = ANONYMOUS
    question: Question | None = None
    topics: frozenset[str] = frozenset()
    ending: bool = False
    """The server is going away: nothing new is begun."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Send this message back."""

    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Enter:
    """Answer `registered`, then a snapshot, or the difference to `held`, or to what the former session held.

    `former`: the session's name and the last `seq` that arrived, if the client named one."""

    question: Question
    reasons: bool
    clusters: bool
    held: HeldList | None
    ref: str | None
    former: tuple[str, int | None] | None = None
    budget: Budget = PLAIN


@dataclass(frozen=True, slots=True)
class Ask:
    """The viewer asks something else now; answer with what that changes."""

    question: Question
    ref: str | None


@dataclass(frozen=True, slots=True)
class Reveal:
    """The viewer has become someone else: send what that changes, if anything."""

    question: Question


@dataclass(frozen=True, slots=True)
class Leave:
    """Send no more changes."""

    ref: str | None


@dataclass(frozen=True, slots=True)
class Resync:
    """The difference to what the client says it holds, or everything."""

    held: HeldList | None
    ref: str | None


@dataclass(frozen=True, slots=True)
class Explain:
    """Answer why an event has its place."""

    event_id: str
    ref: str | None


@dataclass(frozen=True, slots=True)
class Produce:
    """Commit an operation, then answer `ack` or the error."""

    op: Op
    ref: str | None


@dataclass(frozen=True, slots=True)
class Create:
    """Queue an import, then answer `import-created`."""

    asked: ImportIn
    ref: str | None


@dataclass(frozen=True, slots=True)
class Tell:
    """Answer `stats`."""

    ref: str | None


@dataclass(frozen=True, slots=True)
class Configure:
    """Change run-time settings, then answer `config`."""

    changes: Mapping[str, object]
    ref: str | None


@dataclass(frozen=True, slots=True)
class Force:
    """Flush, then answer `batch-forced`."""

    ref: str | None


@dataclass(frozen=True, slots=True)
class Follow:
    """Send the messages of a topic from now on (`on` False: no more), then answer."""

    topic: str
    on: bool
    ref: str | None


Effect: TypeAlias = (
    Answer | Enter | Ask | Reveal | Leave | Resync | Explain | Produce | Create | Tell | Configure | Force | Follow
)
Step: TypeAlias = tuple[Session, tuple[Effect, ...]]


def token_of(message: m.Message) -> str | None:
    """The token that must be verified before the message is received."""
    return message.token if isinstance(message, m.Authenticate | m.Register) else None


def receive(session: Session, message: m.Message, default_limit: int) -> Step:
    """One message; Refused when it may not be sent, or not now. Its token, if any, is verified already."""
    topic = message.topic if isinstance(message, m.Subscribe | m.Unsubscribe) else None
    allow(session.who, verb_of_message(message.type, topic), exposed=False)
    if session.ending and not isinstance(message, m.Ping):
        raise Refused(Code.SHUTTING_DOWN, "the server is going away; connect again in a moment")
    match message:
        case m.Authenticate() | m.Register() | m.ViewportUpdate() | m.FiltersUpdate() | m.Unregister() | m.Resync():
            return _viewing(session, message, default_limit)
        case m.Ping():
            return session, (Answer(answer("pong", message.ref)),)
        case m.Explain():
            _question(session)
            return session, (Explain(message.event_id, message.ref),)
        case m.EventUpsert() | m.EventDelete() | m.PopularityUpdate():
            return session, (Produce(m.op_of(message), message.ref),)
        case m.ImportCreate():
            return session, (Create(message, message.ref),)
        case m.GetStats():
            return session, (Tell(message.ref),)
        case m.UpdateBatchConfig():
            changes = message.model_dump(by_alias=True, exclude={"type", "ref"}, exclude_none=True)
            return session, (Configure(changes, message.ref),)
        case m.ForceBatch():
            return session, (Force(message.ref),)
        case m.Subscribe():
            return _follow(session, message.topic, True, message.ref)
        case m.Unsubscribe():
            return _follow(session, message.topic, False, message.ref)


def _viewing(
    session: Session,
    message: m.Authenticate | m.Register | m.ViewportUpdate | m.FiltersUpdate | m.Unregister | m.Resync,
    default_limit: int,
) -> Step:
    match message:
        case m.Authenticate():
            return session, (Answer(authenticated(session.who, message.ref)), *_revealed(session))
        case m.Register():
            return _register(session, message, default_limit)
        case m.ViewportUpdate():
            return _ask(session, replace(_question(session), viewport=message.viewport), message.ref)
        case m.FiltersUpdate():
            return _ask(session, replace(_question(session), filters=message.filters), message.ref)
        case m.Unregister():
            _question(session)
            return replace(session, question=None), (Leave(message.ref),)
        case m.Resync():
            _question(session)
            return session, (Resync(message.held, message.ref),)


def become(session: Session, who: Identity) -> Session:
    """The connection's token has been verified; a question under way is that user's from now on."""
    question = None if session.question is None else replace(session.question, user=who.user)
    return replace(session, who=who, question=question)


def _revealed(session: Session) -> tuple[Effect, ...]:
    return () if session.question is None else (Reveal(session.question),)


def _register(session: Session, message: m.Register, default_limit: int) -> Step:
    limit = default_limit if message.max_events is None else message.max_events
    question = Question(message.viewport, message.filters, message.location, session.who.user, limit)
    held = None if message.resume is None else message.resume.held
    former = None if message.resume is None else (message.resume.session, message.resume.seq)
    entered = Enter(question, message.reasons, message.clusters, held, message.ref, former, _budget(message))
    return replace(session, question=question), (entered,)


def _budget(message: m.Register) -> Budget:
    least_ms, most_bytes = message.min_interval_ms, message.max_bytes_per_batch
    return Budget.asked(delta=message.fields == "delta", min_interval_ms=least_ms, max_bytes=most_bytes)


def _ask(session: Session, question: Question, ref: str | None) -> Step:
    return replace(session, question=question), (Ask(question, ref),)


def _follow(session: Session, topic: str, on: bool, ref: str | None) -> Step:
    topics = session.topics | {topic} if on else session.topics - {topic}
    if len(topics) > MAX_TOPICS:
        raise Refused(Code.TOO_MANY, f"at most {MAX_TOPICS} topics a connection", field="topic", limit=MAX_TOPICS)
    return replace(session, topics=topics), (Follow(topic, on, ref),)


MAX_TOPICS = 32


def _question(session: Session) -> Question:
    if session.question is None:
        raise Refused(Code.NOT_REGISTERED, "send `register` with a viewport first")
    return session.question


def answer(kind: str, ref: str | None, **fields: object) -> dict[str, object]:
    """An answer with its ref, when one was given."""
    return {"type": kind, **({} if ref is None else {"ref": ref}), **fields}


def authenticated(who: Identity, ref: str | None) -> dict[str, object]:
    """The answer to `authenticate`."""
    expires = None if who.expires_ms is None else to_iso(who.expires_ms)
    return answer("authenticated", ref, sub=who.user, roles=sorted(who.roles), expiresAt=expires)


def error(refusal: Refused, ref: str | None) -> dict[str, object]:
    """An `error` message."""
    fields: dict[str, object] = {"code": refusal.code.value, "message": refusal.message}
    if refusal.field is not None:
        fields["field"] = refusal.field
    if refusal.limit is not None:
        fields["limit"] = refusal.limit
    return answer("error", ref, **fields, retry=refusal.retry)
