"""The wrapper around the provider's official client, against the loopback double: how each failure is sorted, and that a
start is asked for once."""

from collections.abc import AsyncIterator

import orjson
import pytest
import pytest_asyncio
from pydantic import SecretStr

from server.edge.apify import (
    Apify,
    AuthFailed,
    Conflict,
    NotFound,
    Options,
    Rejected,
    Retryable,
    Terms,
    Trouble,
    Unknown,
    Webhook,
)
from server.errors import StartRefused
from tests.doubles.apify import Act, Outcome
from tests.doubles.apify import Apify as Double
from tests.doubles.apify.http import TOKEN
from tests.doubles.apify.reviews import ACTORS, World

GOOGLE = ACTORS["google", "reviews"]
ASKED = {"placeIds": ["A", "B"], "maxReviews": 5}


@pytest_asyncio.fixture
async def double() -> AsyncIterator[Double]:
    async with Double(World(reviews=5).actors()) as one:
        yield one


@pytest_asyncio.fixture
async def apify(double: Double) -> AsyncIterator[Apify]:
    one = await Apify.open(Terms(double.url, timeout_ms=2_000, retries=0), SecretStr(TOKEN))
    yield one
    await one.close()


async def trouble(kind: type[Trouble], call: object) -> Trouble:
    with pytest.raises(kind) as caught:
        await call  # type: ignore[misc]
    assert type(caught.value) is kind
    assert TOKEN not in repr(caught.value) + str(caught.value.__dict__)
    return caught.value


async def test_a_run_is_started_watched_and_read_to_its_last_item(double: Double, apify: Apify) -> None:
    assert await apify.ping() == "double"
    run = await apify.start(GOOGLE, ASKED, Options(timeout_s=60, memory_mb=256))
    assert not run.ended
    await double.settle()
    run = await apify.run(run.id)
    assert (run.status, run.ended, run.schedule_id) == ("SUCCEEDED", True, None)
    assert await apify.input_of(run) == ASKED
    first, second = await apify.page(run.dataset_id, 0, 7), await apify.page(run.dataset_id, 7, 7)
    assert (first.count, first.total, second.count, second.total) == (7, 10, 3, 10)
    assert len(orjson.loads(first.body) + orjson.loads(second.body)) == 10
    assert double.runs[0].options == {"memoryMbytes": 256, "timeoutSecs": 60}


async def test_runs_are_listed_since_a_moment_oldest_first(double: Double, apify: Apify) -> None:
    started = [await apify.start(GOOGLE, ASKED, Options()) for _ in range(3)]
    await apify.start(ACTORS["booking", "reviews"], {"startUrls": []}, Options())
    assert [run.id for run in await apify.runs(started[0].started_ms, actor=GOOGLE)] == [run.id for run in started]
    assert len(await apify.runs(started[0].started_ms)) == 4
    assert await apify.runs(started[0].started_ms + 3_600_000) == ()
    assert [r.id for r in await apify.runs(0, actor=GOOGLE, offset=1, limit=1)] == [started[1].id]


async def test_a_run_that_is_aborted_has_ended(double: Double, apify: Apify) -> None:
    double.held = True
    run = await apify.start(GOOGLE, ASKED, Options())
    assert (await apify.abort(run.id)).status == "ABORTED"


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408])
@pytest.mark.parametrize("done", [False, True])
async def test_nobody_knows_of_a_start_that_was_answered_with_a_failure_and_it_is_asked_once(
    double: Double, apify: Apify, status: int, done: bool
) -> None:
    double.script("start", Act(status=status, done=done))
    await trouble(Unknown, apify.start(GOOGLE, ASKED, Options()))
    assert double.asked == ["start"]
    assert len(double.runs) == done


@pytest.mark.parametrize(
    "act", [Act(cut="now"), Act(cut="now", done=True), Act(cut="body"), Act(body="{"), Act(body='{"data": {"id": 7}}')]
)
async def test_nobody_knows_of_a_start_whose_answer_was_cut_or_cannot_be_read(
    double: Double, apify: Apify, act: Act
) -> None:
    await apify.ping()  # The start goes out on a connection that was used before, as it mostly does.
    double.script("start", act)
    await trouble(Unknown, apify.start(GOOGLE, ASKED, Options()))
    assert double.asked == ["me", "start"]


async def test_nobody_knows_of_a_start_that_took_too_long(double: Double) -> None:
    apify = await Apify.open(Terms(double.url, timeout_ms=100), SecretStr(TOKEN))
    double.script("start", Act(delay_s=1))
    await trouble(Unknown, apify.start(GOOGLE, ASKED, Options()))
    assert double.asked == ["start"]
    await apify.close()


async def test_a_start_that_surely_was_not_taken_may_be_asked_again(double: Double, apify: Apify) -> None:
    double.script("start", Act(status=429, retry_after="7"))
    limited = await trouble(Retryable, apify.start(GOOGLE, ASKED, Options()))
    assert isinstance(limited, Retryable)
    assert limited.after_s == 7
    nobody = await Apify.open(Terms("http://127.0.0.1:9", timeout_ms=1_000), SecretStr(TOKEN))
    await trouble(Retryable, nobody.start(GOOGLE, ASKED, Options()))
    await nobody.close()


async def test_an_account_without_room_is_asked_again_later(double: Double, apify: Apify) -> None:
    double.held, double.platform.concurrent = True, 1
    await apify.start(GOOGLE, ASKED, Options())
    full = await trouble(Retryable, apify.start(GOOGLE, ASKED, Options()))
    assert isinstance(full, Retryable)
    assert full.after_s is not None
    assert len(double.runs) == 1


async def test_refusals_are_told_apart(double: Double, apify: Apify) -> None:
    await trouble(NotFound, apify.start("nobody/nothing", ASKED, Options()))
    await trouble(NotFound, apify.run("nothing"))
    double.script("start", Act(status=400, kind="invalid-input"), Act(status=403), Act(status=302))
    await trouble(Rejected, apify.start(GOOGLE, ASKED, Options()))
    await trouble(AuthFailed, apify.start(GOOGLE, ASKED, Options()))
    assert "redirects" in (await trouble(Rejected, apify.start(GOOGLE, ASKED, Options()))).message
    stranger = await Apify.open(Terms(double.url), SecretStr("apify_api_bad"))
    await trouble(AuthFailed, stranger.ping())
    await stranger.close()


async def test_a_dataset_that_has_expired_is_not_found(double: Double, apify: Apify) -> None:
    double.platform.outcomes.append(Outcome(expired=True))
    run = await apify.start(GOOGLE, ASKED, Options())
    await double.settle()
    await trouble(NotFound, apify.page(run.dataset_id, 0, 10))


@pytest.mark.parametrize("act", [Act(status=500), Act(cut="now"), Act(cut="body"), Act(body="no json")])
async def test_reading_is_tried_again_by_the_client_and_then_by_the_caller(double: Double, act: Act) -> None:
    apify = await Apify.open(Terms(double.url, retries=1), SecretStr(TOKEN))
    run = await apify.start(GOOGLE, ASKED, Options())
    if act.body is None:
        double.script("run", act)
        assert (await apify.run(run.id)).id == run.id
        assert double.asked.count("run") == 2
    double.always["run"] = act
    await trouble(Retryable, apify.run(run.id))
    await apify.close()


async def test_a_secret_that_the_provider_repeats_is_in_no_message(double: Double, apify: Apify) -> None:
    double.script("start", Act(status=400, repeats_token=True))
    assert "[token]" in (await trouble(Rejected, apify.start(GOOGLE, ASKED, Options()))).message


async def test_a_webhook_is_made_once_for_a_key_and_brings_the_note_back(double: Double, apify: Apify) -> None:
    hook = Webhook("http://127.0.0.1:9/", "X-Secret", SecretStr("s3cret"), "key-1", 'a "note"')
    await apify.start(GOOGLE, ASKED, Options(webhook=hook))
    await apify.start(GOOGLE, ASKED, Options(webhook=hook))
    assert [len(run.webhooks) for run in double.runs] == [1, 0]
    made = double.runs[0].webhooks[0]
    assert orjson.loads(made["headersTemplate"]) == {"X-Secret": "s3cret"}
    assert made["eventTypes"][-1] == "ACTOR.RUN.TIMED_OUT"
    assert "s3cret" not in repr(hook)


async def test_schedules_are_made_found_changed_and_removed(double: Double, apify: Apify) -> None:
    actor = await apify.actor_id(GOOGLE)
    made = await apify.create_schedule("one", "5 */6 * * *", actor, ASKED, enabled=True, options=Options(timeout_s=9))
    assert [(plan.id, plan.name, plan.cron) for plan in await apify.schedules()] == [(made.id, "one", "5 */6 * * *")]
    await trouble(Conflict, apify.create_schedule("one", "5 * * * *", actor, {}, enabled=True, options=Options()))
    changed = await apify.update_schedule(made.id, "7 * * * *", actor, {"x": 1}, enabled=False, options=Options())
    assert (changed.cron, changed.enabled, changed.input, changed.actor_id) == ("7 * * * *", False, '{"x":1}', actor)
    [run] = double.fire(made.id)
    assert (await apify.run(run.id)).schedule_id == made.id
    await apify.delete_schedule(made.id)
    await apify.delete_schedule(made.id)
    assert await apify.schedules() == ()


async def test_an_answer_above_the_bound_is_refused(
    double: Double, apify: Apify, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await apify.start(GOOGLE, ASKED, Options())
    await double.settle()
    monkeypatch.setattr("server.edge.apify_http.BODY_MOST", 100)
    await trouble(Rejected, apify.page(run.dataset_id, 0, 10))


@pytest.mark.pure
@pytest.mark.parametrize("url", ["http://example.com", "https://user:pass@example.com", "ftp://x", "example.com", ""])
def test_a_token_is_sent_by_https_only_or_to_loopback(url: str) -> None:
    with pytest.raises(StartRefused):
        Terms(url)
