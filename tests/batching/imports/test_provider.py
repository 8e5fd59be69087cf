"""The connector against a real provider on loopback: what it asks, what it makes of the answers, and what it never says."""

import asyncio
import datetime as dt
import email.utils
import json
import ssl
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from structlog.testing import capture_logs

from server.batching.imports import provider as module
from server.batching.imports.provider import (
    BACKOFF_S,
    BODY_MOST,
    PATIENCE_S,
    RETRY_AFTER_MOST_S,
    CredentialId,
    Gate,
    Provider,
    ProviderMembers,
    Terms,
    backoff_s,
    member_of,
    page_of,
    retry_after_s,
)
from server.core.member import AuthFailed, Member, Page, Retryable, Unusable
from server.core.quota import Bucket
from server.edge.clock import VirtualClock
from server.errors import StartRefused, Unavailable
from tests.doubles.members import FORBIDDEN, GOOD, NO_SCOPE, Act, Members, Script

ONE, TWO = CredentialId(1), CredentialId(2)
SECRET = SecretStr(GOOD)


class Hurried(VirtualClock):
    """Virtual time in which a sleep is over at once; `slept` tells how long each was."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        if seconds > 0:
            self.slept.append(seconds)
            self._now_ns += round(seconds * 1e9)
        await asyncio.sleep(0)


@asynccontextmanager
async def connected(double: Members, clock: VirtualClock | None = None, **terms: Any) -> AsyncIterator[Provider]:
    provider = await Provider.open(Terms(url=double.url, **terms), clock or Hurried())
    try:
        yield provider
    finally:
        await provider.close()


@asynccontextmanager
async def asking(
    double: Members, key: str = GOOD, account: str = "biz_demo", clock: VirtualClock | None = None, **terms: Any
) -> AsyncIterator[ProviderMembers]:
    async with double, connected(double, clock, **terms) as provider:
        yield provider.source(ONE, account, SecretStr(key))


async def walk(source: ProviderMembers) -> list[Page]:
    pages, cursor = [], None
    while True:
        pages.append(await source.page(cursor))
        cursor = pages[-1].cursor
        if not pages[-1].has_next:
            return pages


def ids(*pages: Page) -> list[str | None]:
    return [member.external_id for page in pages for member in page.members]


# --- what it asks and what comes back ---


async def test_paging_brings_every_member_once_with_the_page_size_asked_for() -> None:
    double = Members(members=95)
    async with asking(double, page_size=20) as source:
        pages = await walk(source)
    assert ids(*pages) == [row["id"] for row in double.truth()]
    assert {asked.first for asked in double.asked} == {20}
    assert [len(page.members) for page in pages] == [20, 20, 20, 20, 15]


async def test_a_provider_that_caps_pages_is_trusted_in_what_it_sends() -> None:
    double = Members(members=95, cap=30)
    async with asking(double, page_size=100) as source:
        pages = await walk(source)
    assert [len(page.members) for page in pages] == [30, 30, 30, 5]


async def test_members_come_trimmed_but_neither_folded_nor_made_unique() -> None:
    double = Members(members=400)
    async with asking(double) as source:
        members = [member for page in await walk(source) for member in page.members]
    raw = [(row["user"] or {}).get("email") for row in double.truth()]
    assert [member.email for member in members] == [email and email.strip() for email in raw]
    assert any(member.email is None for member in members)
    assert any(member.email and member.email != member.email.lower() for member in members)


async def test_who_joins_meanwhile_makes_pages_repeat_members_and_they_are_handed_on() -> None:
    double = Members(Script([Act(), Act(arrivals=5)]), members=40)
    async with asking(double, page_size=10) as source:
        seen = ids(*await walk(source))
    assert len(seen) == 45
    assert set(seen) == {row["id"] for row in double.truth()[5:]}


async def test_a_total_is_passed_on_where_the_provider_says_one() -> None:
    async with asking(Members(members=40, total=True)) as source:
        assert (await source.page(None)).total == 40
    async with asking(Members(members=40)) as source:
        assert (await source.page(None)).total is None


async def test_what_the_provider_says_of_the_next_page_is_passed_on_even_when_it_lies() -> None:
    acts = [Act(says_next=False), Act(no_cursor=True), Act(same_cursor=True), Act(empty=True)]
    async with asking(Members(Script(acts), members=40), page_size=10) as source:
        start = (await source.page(None)).cursor
        pages = [await source.page(start) for _ in acts[1:]]
    assert pages[0].cursor is None
    assert pages[1].cursor == start
    assert pages[2].empty


async def test_the_environments_proxies_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with asking(Members(members=5)) as source:
        assert len((await source.page(None)).members) == 5


# --- refusals ---


@pytest.mark.parametrize(("key", "says"), [("whop_unknown", "401"), (FORBIDDEN, "member:email:read")])
async def test_a_refused_key_ends_at_once_and_says_what_to_do(key: str, says: str) -> None:
    double = Members(members=5)
    async with asking(double, key=key) as source:
        with pytest.raises(AuthFailed, match=says):
            await source.page(None)
    assert len(double.asked) == 1


async def test_an_unknown_account_ends_at_once_and_is_no_question_of_the_key() -> None:
    double = Members(members=5)
    async with asking(double, account="acme") as source:
        with pytest.raises(Unusable, match="acme") as refused:
            await source.page(None)
    assert not isinstance(refused.value, AuthFailed)
    assert len(double.asked) == 1


async def test_any_other_refusal_ends_and_repeats_what_the_provider_says() -> None:
    async with asking(Members(Script([Act(status=422)]), members=5)) as source:
        with pytest.raises(Unusable, match=r"422.*as told by the script"):
            await source.page(None)


async def test_a_redirect_is_not_followed_with_the_key() -> None:
    async with Members(members=5) as elsewhere:
        act = Act(redirect=elsewhere.url + "/api/v1/members?company_id=biz_demo")
        async with asking(Members(Script(always=act), members=5)) as source:
            with pytest.raises(Unusable, match="redirects"):
                await source.page(None)
        assert elsewhere.asked == []


async def test_an_answer_beyond_the_limit_is_not_read_to_its_end() -> None:
    double = Members(Script([Act(swell=BODY_MOST)]), members=5)
    async with asking(double) as source:
        with pytest.raises(Unusable, match="IMPORTS_PAGE_SIZE"):
            await source.page(None)


# --- what passes by itself ---


TROUBLES = {
    "500": Act(status=500),
    "503": Act(status=503, retry_after="1"),
    "429": Act(status=429, retry_after="2"),
    "429 without a time": Act(status=429),
    "cut before": Act(cut="before"),
    "cut in the body": Act(cut="body"),
    "half a JSON": Act(body='{"data": [{"id": '),
    "a proxy's page": Act(body="<html>Bad gateway</html>"),
    "no list": Act(body='{"data": {}}'),
    "an array": Act(body="[]"),
}


@pytest.mark.parametrize("name", TROUBLES)
async def test_what_passes_by_itself_is_asked_again_and_the_page_comes(name: str) -> None:
    double = Members(Script([TROUBLES[name]] * 2), members=5)
    clock = Hurried()
    async with asking(double, clock=clock) as source:
        assert len((await source.page(None)).members) == 5
    assert clock.slept


@pytest.mark.parametrize("name", TROUBLES)
async def test_what_does_not_pass_is_retryable_after_a_bounded_number_of_attempts(name: str) -> None:
    double = Members(Script(always=TROUBLES[name]), members=5)
    async with asking(double, attempts=3) as source:
        with pytest.raises(Retryable):
            await source.page(None)
    # On a connection that closes without a word, aiohttp asks once more by itself.
    assert len(double.asked) == (6 if name == "cut before" else 3)


async def test_a_slow_answer_is_given_up_on() -> None:
    double = Members(Script(always=Act(delay_s=30)), members=5)
    async with asking(double, attempts=2, timeout_ms=50) as source:
        with pytest.raises(Retryable, match="within 50 ms"):
            await source.page(None)


async def test_nobody_listening_is_retryable() -> None:
    double = Members(members=5)
    async with asking(double, attempts=2) as source:
        await double.close()
        with pytest.raises(Retryable, match="connection"):
            await source.page(None)


async def test_the_waits_between_attempts_double_and_are_jittered() -> None:
    clock = Hurried()
    async with asking(Members(Script(always=Act(status=500)), members=5), clock=clock, attempts=4) as source:
        with pytest.raises(Retryable):
            await source.page(None)
    first, second, third = clock.slept
    assert backoff_s(1, 0) <= first <= backoff_s(1, 1)
    assert backoff_s(2, 0) <= second <= backoff_s(2, 1)
    assert backoff_s(3, 0) <= third <= backoff_s(3, 1) == 4 * backoff_s(1, 1)


def in_seconds(clock: VirtualClock, seconds: int) -> str:
    moment = dt.datetime.fromtimestamp(clock.now_ms() / 1000 + seconds, dt.UTC)
    return email.utils.format_datetime(moment, usegmt=True)


@pytest.mark.parametrize("write", [lambda clock, s: str(s), in_seconds], ids=["seconds", "date"])
async def test_a_short_retry_after_is_waited_out(write: Callable[[VirtualClock, int], str]) -> None:
    clock = Hurried()
    double = Members(Script([Act(status=429, retry_after=write(clock, 4))]), members=5)
    async with asking(double, clock=clock) as source:
        assert len((await source.page(None)).members) == 5
    assert sum(clock.slept) >= 4
    assert len(double.asked) == 2


async def test_a_long_retry_after_goes_back_to_the_queue_at_once_for_all_who_use_the_credential() -> None:
    clock = Hurried()
    double = Members(Script([Act(status=429, retry_after="120")]), members=5)
    async with double, connected(double, clock) as provider:
        lanes = [provider.source(ONE, "biz_demo", SECRET) for _ in range(2)]
        with pytest.raises(Retryable) as first:
            await lanes[0].page(None)
        with pytest.raises(Retryable) as second:
            await lanes[1].page(None)
        assert first.value.after_s == 120
        assert second.value.after_s is not None
        assert 110 < second.value.after_s <= 121
        assert len(double.asked) == 1
        assert clock.slept == []
        assert len((await provider.source(TWO, "biz_demo", SECRET).page(None)).members) == 5
        await clock.sleep(121)
        assert len((await lanes[1].page(None)).members) == 5


# --- the pace ---


async def test_all_lanes_of_a_credential_share_one_bucket_first_come_first_served() -> None:
    clock = VirtualClock()
    double = Members(members=5)
    async with double, connected(double, clock, calls_per_s=2, calls_burst=3) as provider:
        done: list[int] = []

        async def lane(number: int) -> None:
            await provider.source(ONE, "biz_demo", SECRET).page(None)
            done.append(number)

        async with asyncio.TaskGroup() as group:
            for number in range(6):
                group.create_task(lane(number))
            await clock.until(lambda: len(done) == 3)
            for expected in (4, 5, 6):
                await clock.advance(0.4)
                assert len(double.asked) == expected - 1
                await clock.advance(0.11)
                await clock.until(lambda expected=expected: len(done) == expected)
    assert sorted(done[:3]) == [0, 1, 2]
    assert done[3:] == [3, 4, 5]


class Late(VirtualClock):
    """A clock of a busy machine: who sleeps wakes a little too late."""

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds * 1.2)


async def test_who_comes_while_others_wait_does_not_snatch_their_token() -> None:
    clock, order = Late(), []
    gate = Gate(Bucket(rate=1, burst=1, tokens=0, at=clock.monotonic()))

    async def lane(number: int) -> None:
        await gate.enter(clock)
        order.append(number)

    async with asyncio.TaskGroup() as group:
        group.create_task(lane(1))
        await clock.advance(1.1)  # the token is there, but lane 1 has not woken yet
        group.create_task(lane(2))
        await clock.advance(3)
    assert order == [1, 2]


async def test_another_credential_has_a_bucket_of_its_own() -> None:
    clock = Hurried()
    double = Members(members=5)
    async with double, connected(double, clock, calls_per_s=1, calls_burst=1) as provider:
        await provider.source(ONE, "biz_demo", SECRET).page(None)
        await provider.source(TWO, "biz_demo", SECRET).page(None)
        assert clock.slept == []
        await provider.source(ONE, "biz_demo", SECRET).page(None)
        assert sum(clock.slept) == pytest.approx(1)


async def test_between_two_calls_of_a_job_lies_the_delay_that_was_set() -> None:
    clock = Hurried()
    async with asking(Members(members=30), clock=clock, page_size=10, page_delay_ms=250) as source:
        await walk(source)
    assert clock.slept == [0.25, 0.25]


async def test_usage_tells_calls_pages_refusals_and_tokens_for_each_credential() -> None:
    clock = Hurried()
    double = Members(Script([Act(), Act(status=429, retry_after="1"), Act(status=500)]), members=5)
    async with double, connected(double, clock, calls_per_s=0.001, calls_burst=10) as provider:
        source = provider.source(ONE, "biz_demo", SECRET)
        await source.page(None)
        await source.page(None)
        await provider.source(TWO, "biz_demo", SECRET).page(None)
        one, two = provider.usage()
    assert (one.credential, one.calls, one.pages, one.limited, one.failed) == (ONE, 4, 2, 1, 2)
    assert one.tokens == pytest.approx(6, abs=0.1)
    assert (two.credential, two.calls, two.limited, two.shut_s) == (TWO, 1, 0, 0)


async def test_no_more_credentials_are_remembered_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GATES_MOST", 2)
    double = Members(members=5)
    async with double, connected(double) as provider:
        for number in (1, 2, 1, 3):
            await provider.source(CredentialId(number), "biz_demo", SECRET).page(None)
        assert [usage.credential for usage in provider.usage()] == [1, 3]


async def test_trouble_is_logged_when_it_starts_and_when_it_ends() -> None:
    with capture_logs() as lines:
        async with asking(Members(Script([Act(status=500)] * 3), members=5)) as source:
            await source.page(None)
            await source.page(None)
    assert [line["event"] for line in lines] == ["provider failed", "provider answered"]


# --- checking a key ---


@pytest.mark.parametrize(
    ("key", "account", "ok", "emails"),
    [
        (GOOD, "biz_demo", True, True),
        (NO_SCOPE, "biz_demo", True, False),
        (GOOD, "biz_0", True, None),
        (FORBIDDEN, "biz_demo", False, None),
        ("whop_unknown", "biz_demo", False, None),
        (GOOD, "acme", False, None),
    ],
)
async def test_a_check_says_whether_the_key_works_and_shows_emails(
    key: str, account: str, ok: bool, emails: bool | None
) -> None:
    double = Members(members=50)
    async with double, connected(double) as provider:
        check = await provider.check(ONE, account, SecretStr(key))
    assert (check.ok, check.emails) == (ok, emails)
    assert check.message


async def test_a_check_that_cannot_be_made_says_when_to_come_back() -> None:
    double = Members(Script([Act(status=429, retry_after="77")]))
    async with double, connected(double) as provider:
        with pytest.raises(Unavailable) as away:
            await provider.check(ONE, "biz_demo", SECRET)
    assert away.value.retry_after_s == 77


# --- the key stays where it belongs ---


SPILLS = [
    Act(status=401, repeats_key=True),
    Act(status=403, repeats_key=True),
    Act(status=404, repeats_key=True),
    Act(status=422, repeats_key=True),
    Act(status=429, repeats_key=True),
    Act(status=500, repeats_key=True),
    Act(cut="before"),
    Act(cut="body"),
    Act(delay_s=30),
    Act(body='{"data": 1}'),
    Act(redirect="http://127.0.0.1:9/"),
]


@pytest.mark.parametrize("act", SPILLS, ids=str)
async def test_the_key_is_in_no_error_no_log_line_and_no_repr(act: Act) -> None:
    with capture_logs() as lines:
        double = Members(Script(always=act))
        async with double, connected(double, attempts=2, timeout_ms=100) as provider:
            source = provider.source(ONE, "biz_demo", SECRET)
            with pytest.raises((Unusable, Retryable)) as caught:
                await source.page(None)
            told = [repr(provider), repr(source), repr(provider.usage()), repr(source.__dict__)]
    told += [str(caught.value), repr(caught.value), repr(caught.value.__dict__), str(lines)]
    told += traceback.format_exception(caught.value)
    assert {asked.key for asked in double.asked} <= {GOOD}
    assert not [text for text in told if GOOD in text]


@pytest.mark.pure
@pytest.mark.parametrize(
    "url", ["http://example.com", "https://user:pw@example.com", "ftp://127.0.0.1", "example.com", "https://", ""]
)
def test_keys_are_not_sent_in_the_clear_nor_to_an_address_that_is_none(url: str) -> None:
    with pytest.raises(StartRefused, match="IMPORTS_PROVIDER_URL") as refused:
        Terms(url=url)
    assert "pw" not in str(refused.value)


@pytest.mark.pure
@pytest.mark.parametrize(
    "url", ["https://api.whop.com", "http://127.0.0.1:8099", "http://localhost:1", "http://[::1]:1"]
)
def test_https_anywhere_and_http_on_loopback_are_right(url: str) -> None:
    assert Terms(url=url).url == url


def self_signed(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + dt.timedelta(days=1))
    pem = folder / "pair.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pem.write_bytes(private + made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


async def test_a_certificate_that_nobody_vouches_for_gets_no_key(tmp_path: Path) -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.headers["Authorization"])
        return web.json_response({"data": []})

    app = web.Application()
    app.router.add_get("/api/v1/members", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self_signed(tmp_path)).start()
    provider = await Provider.open(Terms(url=f"https://localhost:{runner.addresses[0][1]}", attempts=1), Hurried())
    try:
        with pytest.raises(Retryable, match="Certificate"):
            await provider.source(ONE, "biz_demo", SECRET).page(None)
    finally:
        await provider.close()
        await runner.cleanup()
    assert asked == []


# --- what an answer means ---


def answered(*rows: object, **info: object) -> Page:
    return page_of(json.dumps({"data": rows, "page_info": info}).encode())


@pytest.mark.pure
def test_a_member_is_read_with_all_that_is_known_and_the_rest_is_kept() -> None:
    row = {
        "id": "mber_1",
        "joined_at": "2026-05-01T18:00:00.250Z",
        "status": "joined",
        "phone": "+1555",
        "usd_total_spent": 5.5,
        "most_recent_action": None,
        "user": {"id": "user_1", "email": " Ada@Example.com ", "name": "Ada", "username": "ada"},
    }
    member = member_of(row)
    assert json.loads(member.extra) == {"usd_total_spent": 5.5, "user": {"id": "user_1"}}
    assert member == Member(
        "mber_1", "Ada@Example.com", "Ada", "ada", 1777658400250, "joined", "+1555", extra=member.extra
    )


@pytest.mark.pure
def test_missing_and_odd_fields_count_as_absent() -> None:
    assert answered({}, {"user": None}, {"user": {}}).members == (Member(None),) * 3
    odd = {"id": 7, "user": {"email": "no address", "name": {"first": "Ada"}}, "joined_at": "soon", "phone": [1]}
    assert answered(odd).members[0] == Member("7")


@pytest.mark.pure
def test_half_an_emoji_costs_one_letter_not_the_page() -> None:
    body = b'{"data": [{"id": "a", "user": {"name": "Ada \\ud83d", "email": "ada@x.y"}}, {"id": "b"}]}'
    assert page_of(body).members == (Member("a", "ada@x.y", "Ada ?"), Member("b"))


@pytest.mark.pure
def test_a_member_with_a_rest_too_deep_to_be_kept_is_kept_without_it() -> None:
    body = b'{"data": [{"id": "a", "deep": %s1%s}]}' % (b"[" * 500, b"]" * 500)
    assert page_of(body).members == (Member("a", extra='{"dropped":"too deep"}'),)


@pytest.mark.pure
def test_what_is_no_member_at_all_is_reported_by_its_place() -> None:
    page = answered({"id": "a"}, None, "b", {"id": "c"})
    assert ids(page) == ["a", "c"]
    assert [bad.row for bad in page.rejected] == [1, 2]


@pytest.mark.pure
@pytest.mark.parametrize(
    ("info", "cursor", "has_next"),
    [
        ({"end_cursor": "x", "has_next_page": True}, "x", True),
        ({"end_cursor": "x", "has_next_page": False}, "x", False),
        ({"end_cursor": "x"}, "x", True),
        ({"end_cursor": None, "has_next_page": True}, None, True),
        ({"end_cursor": 17}, "17", True),
        ({"end_cursor": "", "has_next_page": "yes"}, None, False),
        ({}, None, False),
    ],
)
def test_the_cursor_decides_where_nothing_is_said_of_a_next_page(
    info: dict[str, object], cursor: str | None, has_next: bool
) -> None:
    page = answered({"id": "a"}, **info)
    assert (page.cursor, page.has_next) == (cursor, has_next)


@pytest.mark.pure
@pytest.mark.parametrize("cursor", ["x" * 5000, "a\0b"])
def test_a_cursor_that_no_row_can_hold_ends_the_job(cursor: str) -> None:
    with pytest.raises(Unusable, match="cursor"):
        answered({"id": "a"}, end_cursor=cursor)


VALUE = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=6) | st.lists(st.none(), max_size=1)
ROW = st.dictionaries(st.sampled_from(["id", "user", "email", "joined_at", "status", "phone", "x"]), VALUE, max_size=4)
INFO = st.dictionaries(st.sampled_from(["end_cursor", "has_next_page", "total_count"]), VALUE, max_size=3)


@pytest.mark.pure
@given(st.fixed_dictionaries({"data": st.lists(ROW | VALUE, max_size=4) | VALUE}, optional={"page_info": INFO | VALUE}))
def test_any_json_is_a_page_or_refused_and_a_page_can_be_stored(value: dict[str, Any]) -> None:
    try:
        page = page_of(json.dumps(value).encode())
    except (Retryable, Unusable):
        return
    assert len(page.members) + len(page.rejected) == len(value["data"])
    for member in page.members:
        assert isinstance(json.loads(member.extra), dict)
        assert "\0" not in repr(member).replace("\\x00", "\0")


@pytest.mark.pure
@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("0", 0),
        (" 12 ", 12),
        ("1.5", 1.5),
        ("-3", None),
        ("soon", None),
        ("", None),
        ("9" * 40, RETRY_AFTER_MOST_S),
        ("Tue, 14 Nov 2023 22:13:50 GMT", 30),
        ("Tue, 14 Nov 2023 22:13:50 -0000", 30),
        ("Mon, 13 Nov 2023 00:00:00 GMT", 0),
        ("Tue, 99 Nov 2023 22:13:50 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_bounded(text: str | None, seconds: float | None) -> None:
    assert retry_after_s(text, 1_700_000_000_000) == seconds


@pytest.mark.pure
def test_a_wait_is_drawn_from_between_half_of_a_doubling_span_and_all_of_it() -> None:
    assert [backoff_s(attempt, 0) for attempt in (1, 2, 3)] == [BACKOFF_S / 2, BACKOFF_S, BACKOFF_S * 2]
    assert [backoff_s(attempt, 1) for attempt in (1, 2, 3)] == [BACKOFF_S, BACKOFF_S * 2, BACKOFF_S * 4]


@pytest.mark.pure
def test_all_waits_inside_of_a_page_end_before_a_lease_would() -> None:
    assert sum(backoff_s(attempt, 1) for attempt in range(1, Terms().attempts)) < PATIENCE_S
