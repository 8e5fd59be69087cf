"""Alerts: rules over records, one telling a window, recovery, the table, and sinks that may fail."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from server.batching.alerts import (
    ATTEMPTS_AT_MOST,
    NOTICES_AT_MOST,
    Alert,
    Alerts,
    Change,
    Notice,
    Rule,
    Severity,
    Sink,
    Standing,
    findings,
    loop_rules,
    plan,
)
from server.batching.ledger import Ledger, Records
from server.batching.loop import Occasion, Turn, TurnRecord
from server.batching.sinks import (
    LogSink,
    MailServer,
    MailSink,
    SinkFailed,
    TopicSink,
    WebhookFormat,
    WebhookSink,
    as_text,
    webhook_body,
)
from server.edge.clock import VirtualClock
from server.edge.postgres import Database
from server.errors import Refused

START_MS = 1_700_000_000_000
WINDOW_MS = 60_000


def record(number: int, error: str | None = None, missed: int = 0) -> TurnRecord:
    return TurnRecord("toy", number, "interval", START_MS + number, 0.1, missed=missed, error=error)


@dataclass
class Notebook:
    """A sink that remembers, or fails when told to."""

    name: str = "notebook"
    told: list[Notice] = field(default_factory=list)
    failing: bool = False

    async def tell(self, notice: Notice) -> None:
        if self.failing:
            raise SinkFailed("the pages are wet: https://joe:hunter2@host/")
        self.told.append(notice)

    @property
    def kinds(self) -> list[str]:
        return [notice.kind for notice in self.told]


class Bench:
    """Alerts with one rule that fires while `message` is set."""

    def __init__(self, db: Database, *sinks: Sink, node: str = "here") -> None:
        self.db = db
        self.clock = VirtualClock(START_MS)
        self.ledger = Ledger(db, self.clock, node=node)
        self.message: str | None = None
        rule = Rule("toy", Severity.WARNING, lambda records, now_ms: self.message, WINDOW_MS)
        self.alerts = Alerts(self.ledger, db, self.clock, rules=[rule], sinks=sinks)

    async def turn(self, message: str | None, *, after_s: float = 1) -> Turn:
        await self.clock.advance(after_s)
        self.message = message
        return await self.alerts.evaluate(Occasion("interval", 1, self.clock.now_ms()))


# The decisions


def test_a_loop_fails_after_three_failed_turns_in_a_row_not_after_two() -> None:
    failing, _ = loop_rules("toy")
    twice = {"toy": [record(1), record(2, "gone"), record(3, "gone")]}
    thrice = {"toy": [record(1, "gone"), record(2, "gone"), record(3, "OSError: gone")]}
    assert failing.test(twice, 0) is None
    assert failing.test(thrice, 0) == "the last 3 turns of the loop toy failed: OSError: gone"


def test_a_loop_that_misses_ticks_three_times_in_a_row_is_late() -> None:
    _, late = loop_rules("toy")
    assert late.test({"toy": [record(1, missed=2), record(2, missed=1)]}, 0) is None
    assert "over 4 ticks" in str(late.test({"toy": [record(n, missed=n) for n in (1, 1, 2)]}, 0))
    assert late.test({}, 0) is None


def test_a_broken_rule_says_so_and_does_not_silence_the_others() -> None:
    def broken(records: Records, now_ms: int) -> str | None:
        raise KeyError("detail")

    rules = [Rule("broken", Severity.ERROR, broken), Rule("sound", Severity.INFO, lambda records, now_ms: "fires")]
    said = findings(rules, {}, 0)
    assert said == {"broken": "the rule broken is broken: KeyError: 'detail'", "sound": "fires"}


@given(st.lists(st.tuples(st.integers(1, 40_000), st.booleans()), max_size=40))
def test_a_rule_tells_one_alert_a_window_and_a_recovery_for_each(steps: list[tuple[int, bool]]) -> None:
    rule = Rule("toy", Severity.ERROR, lambda records, now_ms: None, WINDOW_MS)
    standing: dict[str, Standing] = {}
    told: list[tuple[int, str]] = []
    now_ms, fires = START_MS, False
    for wait_ms, fires in steps:
        now_ms += wait_ms
        for change in plan([rule], {"toy": "fires" if fires else None}, standing, "here", now_ms):
            before = standing.get("toy", Standing(change.alert))
            recovery_told = change.told == "recovered" or (change.told is None and before.recovery_told)
            standing["toy"] = Standing(change.alert, recovery_told)
            told += [(now_ms, change.told)] if change.told else []
        is_open = "toy" in standing and standing["toy"].alert.recovered_at_ms is None
        assert is_open == fires
    kinds = [kind for _, kind in told]
    assert kinds == ["raised", "recovered"] * (len(kinds) // 2) + ["raised"] * (len(kinds) % 2)
    raised = [at_ms for at_ms, kind in told if kind == "raised"]
    assert all(later - earlier >= WINDOW_MS for earlier, later in pairwise(raised))


def test_what_still_stands_when_its_window_is_past_is_told_anew_if_its_recovery_had_been_told() -> None:
    rule = Rule("toy", Severity.ERROR, lambda records, now_ms: None, WINDOW_MS)
    reopened = Alert("here", "toy", Severity.ERROR, "first", START_MS)
    known = {"toy": Standing(reopened, recovery_told=True)}
    assert plan([rule], {"toy": "again"}, known, "here", START_MS + WINDOW_MS - 1) == []
    now_ms = START_MS + WINDOW_MS
    assert plan([rule], {"toy": "again"}, known, "here", now_ms) == [
        Change(replace(reopened, recovered_at_ms=now_ms)),
        Change(Alert("here", "toy", Severity.ERROR, "again", now_ms), "raised"),
    ]


def test_the_alert_of_a_rule_that_is_gone_has_recovered() -> None:
    alert = Alert("here", "old", Severity.INFO, "was", START_MS)
    changes = plan([], {}, {"old": Standing(alert)}, "here", START_MS + 5)
    assert changes == [Change(replace(alert, recovered_at_ms=START_MS + 5), "recovered")]


# The turn and the table


async def test_an_alert_is_told_once_while_it_stands_and_its_recovery_once(db: Database) -> None:
    notebook = Notebook()
    bench = Bench(db, notebook)
    for message in (None, "too hot", "too hot", "hotter", None, None):
        await bench.turn(message)
    assert [(notice.kind, notice.alert.message) for notice in notebook.told] == [
        ("raised", "too hot"),
        ("recovered", "too hot"),
    ]
    (row,) = await bench.alerts.list()
    assert (row.raised_at_ms, row.recovered_at_ms) == (START_MS + 2000, START_MS + 5000)
    assert bench.alerts.open == []


async def test_every_loop_that_turned_is_watched_without_being_asked(db: Database) -> None:
    notebook = Notebook()
    bench = Bench(db, notebook)
    for number in (1, 2, 3):
        bench.ledger.record(record(number, "OSError: gone"))
    await bench.turn(None)
    bench.ledger.record(record(4))
    await bench.turn(None)
    assert [(notice.kind, notice.alert.rule) for notice in notebook.told] == [
        ("raised", "loop toy failing"),
        ("recovered", "loop toy failing"),
    ]


async def test_the_list_pages_from_the_newest_and_can_show_only_what_stands(db: Database) -> None:
    bench = Bench(db)
    for _ in range(3):
        await bench.turn("hot", after_s=61)
        await bench.turn(None)
    await bench.turn("hot", after_s=61)
    first = await bench.alerts.list(limit=3)
    rest = await bench.alerts.list(limit=3, before_id=first[-1].id)
    assert [len(first), len(rest)] == [3, 1]
    assert first[0].raised_at_ms > first[1].raised_at_ms > rest[0].raised_at_ms
    assert [alert.id for alert in await bench.alerts.list(open_only=True)] == [first[0].id]


async def test_the_first_who_acknowledges_is_kept(db: Database) -> None:
    bench = Bench(db)
    await bench.turn("hot")
    (alert,) = await bench.alerts.list()
    assert alert.id is not None
    assert (await bench.alerts.acknowledge(alert.id, "ann")).acknowledged_by == "ann"
    again = await bench.alerts.acknowledge(alert.id, "bob")
    assert (again.acknowledged_by, again.acknowledged_at_ms) == ("ann", START_MS + 1000)
    with pytest.raises(Refused) as refusal:
        await bench.alerts.acknowledge(alert.id + 99, "ann")
    assert refusal.value.code == "not_found"


async def test_an_acknowledgement_outlives_the_recovery(db: Database) -> None:
    bench = Bench(db)
    await bench.turn("hot")
    (alert,) = await bench.alerts.list()
    await bench.alerts.acknowledge(alert.id or 0, "ann")
    await bench.turn(None)
    (alert,) = await bench.alerts.list()
    assert (alert.acknowledged_by, alert.recovered_at_ms) == ("ann", START_MS + 2000)


async def test_after_a_restart_what_stands_is_not_told_again_and_its_recovery_is(db: Database) -> None:
    await Bench(db).turn("hot")
    notebook = Notebook()
    again = Bench(db, notebook)
    await again.turn("hot", after_s=10)
    assert notebook.told == []
    await again.turn(None)
    assert notebook.kinds == ["recovered"]
    assert len(await again.alerts.list()) == 1


async def test_one_node_does_not_recover_the_alert_of_another(db: Database) -> None:
    await Bench(db, node="there").turn("hot")
    here = Bench(db, node="here")
    await here.turn(None)
    (alert,) = await here.alerts.list(open_only=True)
    assert alert.node == "there"


async def test_without_postgres_alerts_are_told_all_the_same(db: Database) -> None:
    notebook = Notebook()
    bench = Bench(db, notebook)
    await db.close()
    turn = await bench.turn("postgres is away")
    assert notebook.kinds == ["raised"]
    assert turn.detail["unwritten"] == 1


async def test_retention_keeps_what_stands_here_and_removes_what_is_over(db: Database) -> None:
    bench = Bench(db)
    await Bench(db, node="lost long ago").turn("hot")
    await bench.turn("hot")
    await bench.turn(None)
    await bench.turn("hot", after_s=100)
    await bench.clock.advance(31 * 86_400)
    turn = await bench.alerts.retire(Occasion("interval", 1, bench.clock.now_ms()))
    assert turn.done == 2
    (left,) = await bench.alerts.list()
    assert (left.node, left.recovered_at_ms) == ("here", None)


# Sinks that fail


async def test_a_failing_sink_fails_no_turn_is_logged_when_it_begins_and_ends_and_gets_everything(
    db: Database,
) -> None:
    wet, dry = Notebook("wet", failing=True), Notebook("dry")
    bench = Bench(db, wet, dry)
    with capture_logs() as logs:
        assert (await bench.turn("hot")).deferred == 1
        assert (await bench.turn(None)).deferred == 2
        wet.failing = False
        assert (await bench.turn(None)).deferred == 0
    assert wet.kinds == dry.kinds == ["raised", "recovered"]
    assert [line["event"] for line in logs] == ["alert sink failed", "alert sink recovered"]
    assert "hunter2" not in str(logs)


async def test_a_notice_that_a_sink_never_takes_is_dropped_after_so_many_attempts(db: Database) -> None:
    wet = Notebook(failing=True)
    bench = Bench(db, wet)
    turns = [await bench.turn("hot") for _ in range(ATTEMPTS_AT_MOST + 1)]
    assert [turn.failed for turn in turns] == [0] * (ATTEMPTS_AT_MOST - 1) + [1, 0]
    assert turns[-1].taken == 0


async def test_the_queue_of_a_sink_is_bounded_and_drops_the_oldest(db: Database) -> None:
    wet = Notebook(failing=True)
    bench = Bench(db, wet)
    many = [
        Rule(f"rule {number}", Severity.INFO, lambda records, now_ms: "hot") for number in range(NOTICES_AT_MOST + 5)
    ]
    bench.alerts.rules = many
    assert (await bench.turn(None)).deferred == NOTICES_AT_MOST
    wet.failing = False
    await bench.turn(None)
    assert wet.told[0].alert.rule == "rule 5"


# Sinks


RAISED = Notice("raised", Alert("here", "loop toy failing", Severity.ERROR, "a <b> & c", START_MS))
RECOVERED = Notice("recovered", replace(RAISED.alert, recovered_at_ms=START_MS + 90_000))


def test_a_notice_is_one_sentence() -> None:
    assert as_text(RAISED) == "ERROR: a <b> & c (rule loop toy failing, node here)"
    assert as_text(RECOVERED) == "Recovered after 90 s: a <b> & c (rule loop toy failing, node here)"


@pytest.mark.parametrize(
    ("format", "expected"),
    [
        ("slack", {"text": "ERROR: a &lt;b&gt; &amp; c (rule loop toy failing, node here)"}),
        (
            "discord",
            {
                "content": "ERROR: a <b> & c (rule loop toy failing, node here)",
                "allowed_mentions": {"parse": []},
            },
        ),
        (
            "json",
            {
                "kind": "raised",
                "node": "here",
                "rule": "loop toy failing",
                "severity": "ERROR",
                "message": "a <b> & c",
                "raisedAt": START_MS,
                "recoveredAt": None,
            },
        ),
    ],
)
async def test_a_webhook_gets_the_json_of_its_format(
    webhook: "WebhookDouble", format: WebhookFormat, expected: Mapping[str, object]
) -> None:
    await WebhookSink(webhook.url, format).tell(RAISED)
    assert webhook.bodies == [expected]


def test_a_long_message_is_cut_to_what_the_webhook_takes() -> None:
    long = Notice("raised", replace(RAISED.alert, message="x" * 5000))
    assert len(str(webhook_body(long, "discord")["content"])) < 2000


@pytest.mark.parametrize("status", [302, 404, 500])
async def test_a_webhook_that_does_not_answer_2xx_has_failed_and_its_url_is_not_told(
    webhook: "WebhookDouble", status: int
) -> None:
    webhook.status = status
    with pytest.raises(SinkFailed, match=f"answered {status}") as failure:
        await WebhookSink(webhook.url).tell(RAISED)
    assert "s3cret" not in str(failure.value)
    assert len(webhook.bodies) == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/s3cret", "nonsense s3cret", "http://[s3cret"])
async def test_a_webhook_that_cannot_be_reached_has_failed_and_its_url_is_not_told(url: str) -> None:
    with pytest.raises(SinkFailed) as failure:
        await WebhookSink(url).tell(RAISED)
    assert "s3cret" not in str(failure.value)
    assert failure.value.__cause__ is None


async def test_a_webhook_that_does_not_answer_in_time_has_failed(webhook: "WebhookDouble") -> None:
    webhook.stalled = asyncio.Event()
    with pytest.raises(SinkFailed, match="TimeoutError"):
        await WebhookSink(webhook.url, timeout_s=0.05).tell(RAISED)
    webhook.stalled.set()


async def test_a_mail_is_handed_in(mail_server: "MailDouble") -> None:
    server = MailServer.parse(f"smtp://joe:hunter2@127.0.0.1:{mail_server.port}")
    await MailSink(server, "batchcast@localhost", "ann@example.org").tell(RECOVERED)
    assert mail_server.logged_in
    (mail,) = mail_server.mails
    assert "Subject: [batchcast] ERROR recovered: loop toy failing" in mail
    assert "To: ann@example.org" in mail
    assert "Recovered after 90 s" in mail


async def test_a_mail_server_that_refuses_has_failed_and_the_password_is_not_told(mail_server: "MailDouble") -> None:
    mail_server.refuses = True
    server = MailServer.parse(f"smtp://joe:hunter2@127.0.0.1:{mail_server.port}")
    with pytest.raises(SinkFailed, match="answered 535") as failure:
        await MailSink(server, "batchcast@localhost", "ann@example.org").tell(RAISED)
    assert "hunter2" not in str(failure.value)


async def test_a_password_is_not_sent_without_tls_beyond_this_machine(mail_server: "MailDouble") -> None:
    server = replace(MailServer.parse(f"smtp://joe:hunter2@127.0.0.1:{mail_server.port}"), host="127.0.0.2")
    with pytest.raises(SinkFailed, match="no TLS"):
        await MailSink(server, "batchcast@localhost", "ann@example.org").tell(RAISED)
    assert not mail_server.logged_in


def test_the_url_of_a_mail_server_is_understood_or_refused_without_being_repeated() -> None:
    assert MailServer.parse("smtps://joe:p%40ss@mail") == MailServer("mail", 465, True, "joe", "p@ss")
    assert MailServer.parse("smtp://mail:25") == MailServer("mail", 25, False, None, None)
    with pytest.raises(ValueError, match="smtp://user") as failure:
        MailServer.parse("http://joe:hunter2@mail")
    assert "hunter2" not in str(failure.value)


async def test_a_topic_gets_a_message_of_type_alert() -> None:
    published: list[tuple[str, Mapping[str, object]]] = []
    await TopicSink(lambda topic, message: published.append((topic, message))).tell(RAISED)
    ((topic, message),) = published
    assert (topic, message["type"], message["kind"], message["severity"]) == ("alerts", "alert", "raised", "ERROR")


async def test_the_log_gets_a_line_at_the_level_of_the_alert() -> None:
    with capture_logs() as logs:
        for notice in (RAISED, RECOVERED, Notice("raised", replace(RAISED.alert, severity=Severity.WARNING))):
            await LogSink().tell(notice)
    assert [(line["event"], line["log_level"]) for line in logs] == [
        ("alert raised", "error"),
        ("alert recovered", "info"),
        ("alert raised", "warning"),
    ]


# Doubles of the outside services, on loopback


class WebhookDouble:
    """A real HTTP server that keeps what is posted to it."""

    def __init__(self) -> None:
        self.bodies: list[object] = []
        self.status = 204
        self.stalled: asyncio.Event | None = None
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        self.bodies.append(json.loads(await request.text()))
        if self.stalled is not None:
            await self.stalled.wait()
        return web.Response(status=self.status, headers={"Location": "/elsewhere"})


@pytest.fixture
async def webhook() -> AsyncIterator[WebhookDouble]:
    double = WebhookDouble()
    app = web.Application()
    app.router.add_post("/s3cret", double.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    double.url = f"http://127.0.0.1:{port}/s3cret"
    yield double
    await runner.cleanup()


class MailDouble:
    """A tiny SMTP server that offers AUTH PLAIN and no TLS."""

    def __init__(self) -> None:
        self.mails: list[str] = []
        self.logged_in = False
        self.refuses = False
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.answer(writer, "220 double")
        while line := (await reader.readline()).decode().strip():
            await self.answer(writer, await self.reply(line, reader, writer))
        writer.close()

    async def reply(self, line: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        verb = line.split(" ")[0].upper()
        if verb == "EHLO":
            return "250-double\r\n250 AUTH PLAIN"
        if verb == "AUTH":
            self.logged_in = not self.refuses
            return "535 not you" if self.refuses else "235 welcome"
        if verb == "DATA":
            await self.answer(writer, "354 go on")
            mail = await reader.readuntil(b"\r\n.\r\n")
            self.mails.append(mail.decode())
        return "221 bye" if verb == "QUIT" else "250 ok"

    async def answer(self, writer: asyncio.StreamWriter, text: str) -> None:
        writer.write(text.encode() + b"\r\n")
        await writer.drain()


@pytest.fixture
async def mail_server() -> AsyncIterator[MailDouble]:
    double = MailDouble()
    server = await asyncio.start_server(double.serve, "0.0.0.0", 0)
    double.port = server.sockets[0].getsockname()[1]
    yield double
    server.close()
