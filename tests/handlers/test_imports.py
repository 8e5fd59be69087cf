"""Imports over HTTP: whole servers with lanes of their own, against a membership provider on loopback."""

import csv
import io
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import jsonschema  # type: ignore[import-untyped]  # no stubs are installed
import pytest
import pytest_asyncio

from server.batching.imports.files import FOLDER_ID
from server.batching.imports.importer import YOUNG_S
from server.handlers import http
from tests.doubles.members import FORBIDDEN, GOOD, Act, Members, Script
from tests.handlers.asking import Answer, Serving, Start, error, until

KEY = "a key of the tests that seals what must stay secret"
FAST = {
    "imports_key": KEY,
    "imports_calls_per_s": 10_000.0,
    "imports_calls_burst": 1_000,
    "imports_retry_first_ms": 100,
}
CSV = {"Content-Type": "text/csv"}
DOCS = Path(__file__).parents[2] / "docs" / "imports.md"
SAMPLE = Path(__file__).parents[2] / "server" / "sample" / "members.csv"
ADA = {"role": "viewer", "sub": "ada"}
BOB = {"role": "viewer", "sub": "bob"}

Place = Callable[..., Awaitable[Serving]]


@pytest_asyncio.fixture
async def double() -> AsyncIterator[Members]:
    """A provider that knows 430 members."""
    async with Members(members=430) as members:
        yield members


@pytest_asyncio.fixture
async def place(start: Start, double: Members) -> Place:
    """Starts a server that asks this provider."""

    async def begin(**chosen: Any) -> Serving:
        return await start(imports_provider_url=double.url, **{**FAST, **chosen})

    return begin


async def credential(serving: Serving, value: str = GOOD, account: str = "biz_demo", **who: Any) -> int:
    answer = await serving.ask("POST", "/credentials", **(who or ADA), json={"account": account, "value": value})
    assert answer.status == 200, answer.body
    assert value not in answer.body.decode()
    return int(answer.json["credential"]["id"])


async def create(serving: Serving, who: dict[str, Any] = ADA, **asked: Any) -> dict[str, Any]:
    answer = await serving.ask("POST", "/imports", **who, json={"listName": "L", "account": "biz_demo", **asked})
    assert answer.status == 200, answer.body
    return dict(answer.json["job"])


async def upload(serving: Serving, body: bytes, query: str = "listName=L", **options: Any) -> Answer:
    options = {"headers": CSV, **ADA, **options}
    return await serving.ask("POST", f"/imports?{query}", data=body, **options)


def spooled(serving: Serving) -> set[str]:
    """The files of members that are kept; the folder's own mark is none."""
    return {path.name for path in serving.app.importer.folder.iterdir()} - {FOLDER_ID}


async def ended(serving: Serving, job: int, status: str = "completed") -> dict[str, Any]:
    seen: dict[str, Any] = {}

    async def over() -> bool:
        seen.update((await serving.ask("GET", f"/imports/{job}")).json)
        return seen["status"] in ("completed", "failed", "cancelled")

    await until(over)
    assert seen["status"] == status, seen
    return seen


async def audited(serving: Serving, number: int) -> asyncpg.Record:
    database = serving.app._database
    assert database is not None
    async with database.transaction() as connection:
        row = await connection.fetchrow("select who, action, target, after::text from ops.audit where id = $1", number)
    assert row is not None
    return row


async def test_a_list_is_imported_looked_at_exported_and_imported_again(place: Place) -> None:
    serving = await place()
    await credential(serving)
    job = await ended(serving, (await create(serving))["id"])
    assert job["seen"] == 430 == job["imported"] + job["duplicates"] + job["withoutEmail"]
    assert (job["percent"], job["etaMs"], job["error"], job["owner"]) == (100.0, 0, None, "ada")
    assert job["createdAtMs"] <= job["startedAtMs"] <= job["finishedAtMs"]

    lists = (await serving.ask("GET", "/audiences", **ADA)).json["audiences"]
    assert [(one["id"], one["name"]) for one in lists] == [(job["listId"], "L")]
    base = f"/audiences/{job['listId']}"
    emails: list[str] = []
    cursor = ""
    while True:
        page = (await serving.ask("GET", f"{base}/contacts", **ADA, params={"after": cursor, "limit": 97})).json
        emails += [row["email"] for row in page["contacts"]]
        if page["next"] is None:
            break
        cursor = page["next"]
    assert emails == sorted(set(emails)) and len(emails) == job["imported"]
    found = (await serving.ask("GET", f"{base}/contacts?search=MEMBER42@", **ADA)).json["contacts"]
    assert [row["email"] for row in found] == ["member42@example.test"]
    assert found[0]["extra"]["access_level"] == "customer"

    exported = await serving.ask("GET", f"{base}/export?format=csv", **ADA)
    assert exported.headers["Content-Disposition"] == f'attachment; filename="list-{job["listId"]}.csv"'
    rows = list(csv.DictReader(io.StringIO(exported.body.decode())))
    assert [row["email"] for row in rows] == emails
    for name, kind in (("csv", "text/csv"), ("ndjson", "application/x-ndjson")):
        body = (await serving.ask("GET", f"{base}/export?format={name}", **ADA)).body
        answer = await upload(serving, body, f"listName=again-{name}", headers={"Content-Type": kind})
        again = await ended(serving, answer.json["job"]["id"])
        assert (again["imported"], again["rejected"]) == (len(emails), 0)
        copy = await serving.ask("GET", f"/audiences/{again['listId']}/export?format=csv", **ADA)
        columns = ("email", "name", "username", "id", "joined", "status", "phone")
        assert [[row[name] for name in columns] for row in csv.DictReader(io.StringIO(copy.body.decode()))] == [
            [row[name] for name in columns] for row in rows
        ]


async def test_a_key_makes_one_job_however_often_it_is_asked_for(place: Place) -> None:
    serving = await place(imports_lanes=0)
    await credential(serving)
    asked = {"listName": "L", "account": "biz_demo", "key": "spring"}
    first = (await serving.ask("POST", "/imports", **ADA, json=asked)).json
    again = (await serving.ask("POST", "/imports", **ADA, json=asked)).json
    del asked["key"]
    by_header = (await serving.ask("POST", "/imports", **ADA, json=asked, headers={"Idempotency-Key": "spring"})).json
    assert (first["new"], again["new"], by_header["new"]) == (True, False, False)
    assert {one["job"]["id"] for one in (first, again, by_header)} == {first["job"]["id"]}
    assert (again["auditId"], by_header["auditId"]) == (None, None)
    row = await audited(serving, first["auditId"])
    assert (row["who"], row["action"], row["target"]) == ("ada", "import", f"job {first['job']['id']}")
    assert len((await serving.ask("GET", "/audiences", **ADA)).json["audiences"]) == 1

    differs = {**asked, "key": "one"}
    answer = await serving.ask("POST", "/imports", **ADA, json=differs, headers={"Idempotency-Key": "other"})
    assert error(answer) == (422, "bad_message", "key")
    other = await upload(serving, b"email\na@b.c\n", "listName=L&key=spring")
    assert error(other)[:2] == (409, "conflict")
    assert not spooled(serving)
    files = [(await upload(serving, b"email\na@b.c\n", "listName=L&key=file")).json for _ in range(2)]
    assert [one["new"] for one in files] == [True, False]
    assert spooled(serving) == {files[0]["job"]["file"]}


async def test_a_file_is_imported_and_its_bad_rows_are_reported_by_number(place: Place) -> None:
    serving = await place()
    answer = await upload(serving, SAMPLE.read_bytes(), "listName=Sample&priority=3&maxRetries=2")
    assert answer.status == 200, answer.body
    made = answer.json["job"]
    assert (made["source"], made["priority"], made["maxRetries"], made["account"]) == ("file", 3, 2, None)
    job = await ended(serving, made["id"])
    pages = []
    after = -1
    while after is not None:
        params = {"limit": 2, **({"after": after} if after >= 0 else {})}
        page = (await serving.ask("GET", f"/imports/{job['id']}/rejected", **ADA, params=params)).json
        pages += page["rows"]
        after = page["next"]
    assert job["rejected"] == len(pages) > 0
    assert all(set(row) == {"row", "field", "reason"} for row in pages)
    assert [row["row"] for row in pages] == sorted({row["row"] for row in pages})

    bad = [
        ({"query": "listName=L&priority=high"}, (422, "bad_message", "priority")),
        ({"query": "listName=L&priority=7"}, (403, "forbidden", "priority")),
        ({"query": ""}, (422, "bad_message", "listName")),
        ({"query": "listName=L&listId=1"}, (422, "bad_message", "listName")),
        ({"query": "listId=999"}, (404, "not_found", "listId")),
    ]
    for options, expected in bad:
        assert error(await upload(serving, b"email\na@b.c\n", **options)) == expected
    assert len(spooled(serving)) == 1, "what no job reads is removed"


async def test_a_file_above_the_limit_is_refused_and_nothing_of_it_stays(place: Place) -> None:
    serving = await place(imports_file_bytes=1024, imports_lanes=0)
    answer = await upload(serving, b"email\n" + b"a@b.c\n" * 1000)
    assert error(answer)[:2] == (413, "too_large")
    assert not spooled(serving)
    assert (await serving.ask("GET", "/imports")).json["jobs"] == []


async def test_nobody_sees_or_touches_what_is_anothers_and_an_admin_everything(place: Place) -> None:
    serving = await place(imports_lanes=0)
    number = await credential(serving)
    job = await create(serving)
    paths = [
        ("GET", f"/imports/{job['id']}"),
        ("GET", f"/imports/{job['id']}/rejected"),
        ("PATCH", f"/imports/{job['id']}"),
        ("POST", f"/imports/{job['id']}/cancel"),
        ("POST", f"/imports/{job['id']}/requeue"),
        ("GET", f"/audiences/{job['listId']}/contacts"),
        ("GET", f"/audiences/{job['listId']}/export"),
        ("DELETE", f"/audiences/{job['listId']}"),
        ("POST", f"/credentials/{number}/check"),
        ("POST", f"/credentials/{number}/rotate"),
        ("DELETE", f"/credentials/{number}"),
    ]
    bodies: dict[str, Any] = {"PATCH": {"priority": 1}, "POST": {"value": "another_key"}}
    for method, path in paths:
        body = {"json": bodies[method]} if method in bodies else {}
        assert error(await serving.ask(method, path, **BOB, **body))[:2] == (404, "not_found"), path
    for path in ("/imports", "/audiences", "/credentials"):
        (rows,) = (rows for rows in (await serving.ask("GET", path, **BOB)).json.values() if rows is not None)
        assert rows == []
        (rows,) = (rows for rows in (await serving.ask("GET", path, "admin")).json.values() if rows is not None)
        assert len(rows) == 1
    assert (
        error(await serving.ask("POST", "/imports", **BOB, json={"listId": job["listId"], "account": "biz_demo"}))[0]
        == 404
    )
    changed = await serving.ask("PATCH", f"/imports/{job['id']}", "admin", json={"priority": 9})
    assert changed.json["job"]["priority"] == 9
    assert (await audited(serving, changed.json["auditId"]))["who"] == "a admin"


async def test_a_job_is_hurried_cancelled_and_requeued_and_each_is_audited(place: Place) -> None:
    serving = await place(imports_lanes=0)
    await credential(serving)
    job = (await create(serving, priority=2))["id"]
    steps = [
        ("PATCH", "", {"priority": 4}, "import-set-priority", "pending"),
        ("POST", "/cancel", None, "import-cancel", "cancelled"),
        ("POST", "/requeue", None, "import-requeue", "pending"),
    ]
    for method, path, body, action, status in steps:
        answer = await serving.ask(method, f"/imports/{job}{path}", **ADA, **({"json": body} if body else {}))
        assert answer.json["job"]["status"] == status
        row = await audited(serving, answer.json["auditId"])
        assert (row["who"], row["action"], row["target"]) == ("ada", action, f"job {job}")
    assert answer.json["job"]["priority"] == 4
    assert error(await serving.ask("POST", f"/imports/{job}/requeue", **ADA))[:2] == (409, "conflict")
    assert error(await serving.ask("PATCH", f"/imports/{job}", **ADA, json={"priority": 6}))[:2] == (403, "forbidden")
    for bad in ({}, {"priority": 10}, {"priority": "5"}, {"priority": True}):
        assert error(await serving.ask("PATCH", f"/imports/{job}", **ADA, json=bad)) == (422, "bad_message", "priority")
    gone = await serving.ask(
        "DELETE", f"/audiences/{(await serving.ask('GET', f'/imports/{job}')).json['listId']}", **ADA
    )
    assert (await audited(serving, gone.json["auditId"]))["action"] == "list-delete"
    assert (await serving.ask("GET", f"/imports/{job}", **ADA)).json["status"] == "cancelled"


async def test_lists_of_jobs_are_paged_and_filtered(place: Place) -> None:
    serving = await place(imports_lanes=0)
    await credential(serving)
    made = [(await create(serving))["id"] for _ in range(5)]
    await serving.ask("POST", f"/imports/{made[2]}/cancel", **ADA)
    seen: list[int] = []
    before: int | None = 1 << 40
    while before is not None:
        page = (await serving.ask("GET", "/imports", **ADA, params={"before": before, "limit": 2})).json
        seen += [job["id"] for job in page["jobs"]]
        before = page["next"]
    assert seen == made[::-1]
    only = (await serving.ask("GET", "/imports?status=cancelled", **ADA)).json["jobs"]
    assert [job["id"] for job in only] == [made[2]]
    assert error(await serving.ask("GET", "/imports?status=done", **ADA)) == (422, "bad_message", "status")
    assert error(await serving.ask("GET", "/imports/seventeen", **ADA))[:2] == (404, "not_found")
    assert error(await serving.ask("GET", f"/imports/{10**19}", **ADA))[:2] == (404, "not_found")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"listName": "L"}, (422, "bad_message", "account")),
        ({"account": "biz_other", "listName": "L"}, (404, "not_found", "account")),
        ({"account": "biz_demo"}, (422, "bad_message", "listName")),
        ({"account": "biz_demo", "listName": " "}, (422, "bad_message", "listName")),
        ({"account": "biz_demo", "listName": "L\u0000"}, (422, "bad_message", "listName")),
        ({"account": "biz_demo", "listId": 2**63}, (422, "bad_message", "listId")),
        ({"account": "biz_demo", "listId": 77}, (404, "not_found", "listId")),
        ({"account": "biz_demo", "listName": "L", "priority": 10}, (422, "bad_message", "priority")),
        ({"account": "biz_demo", "listName": "L", "priority": 6}, (403, "forbidden", "priority")),
        ({"account": "biz_demo", "listName": "L", "maxRetries": 101}, (422, "bad_message", "maxRetries")),
        ({"account": "biz_demo", "listName": "L", "key": "x" * 201}, (422, "bad_message", "key")),
        ({"account": "biz_demo", "listName": "L", "source": "file", "file": "../x.csv"}, None),
    ],
)
async def test_a_bad_order_names_its_field(place: Place, asked: dict[str, Any], expected: Any) -> None:
    serving = await place(imports_lanes=0)
    await credential(serving)
    answer = await serving.ask("POST", "/imports", **ADA, json=asked)
    if expected is None:
        assert (answer.json["job"]["source"], answer.json["job"]["file"]) == ("provider", None)
    else:
        assert error(answer) == expected


async def test_a_key_is_checked_rotated_and_removed_and_never_shown(place: Place, double: Members) -> None:
    serving = await place()
    number = await credential(serving, FORBIDDEN)
    answer = await serving.ask("POST", f"/credentials/{number}/check", **ADA)
    assert answer.json["ok"] is False and "403" in answer.json["message"]
    answers = [answer, await serving.ask("POST", f"/credentials/{number}/rotate", **ADA, json={"value": GOOD})]
    answers.append(await serving.ask("POST", f"/credentials/{number}/check", **ADA))
    assert (answers[-1].json["ok"], answers[-1].json["emails"]) == (True, True)
    answers.append(await serving.ask("GET", "/credentials", **ADA))
    (listed,) = answers[-1].json["credentials"]
    assert listed["account"] == "biz_demo" and listed["rotatedMs"] and "e-mails" in listed["checkResult"]
    assert (
        error(await serving.ask("POST", "/credentials", **ADA, json={"account": "biz_demo", "value": GOOD}))[0] == 409
    )
    bad = await serving.ask("POST", f"/credentials/{number}/rotate", **ADA, json={"value": ["whop_secret_in_a_list"]})
    assert error(bad) == (422, "bad_message", "value")
    short = await serving.ask("POST", f"/credentials/{number}/rotate", **ADA, json={"value": "whop\nx"})
    assert short.status == 422
    answers += [bad, short, await serving.ask("DELETE", f"/credentials/{number}", **ADA)]
    said = "".join(answer.body.decode() for answer in answers)
    for answer in answers:
        if "auditId" in answer.json:
            said += str(dict(await audited(serving, answer.json["auditId"])))
    assert not any(secret in said for secret in (GOOD, FORBIDDEN, "whop_secret_in_a_list"))
    assert (await serving.ask("GET", "/credentials", **ADA)).json["credentials"] == []


async def test_a_key_revoked_in_the_midst_ends_the_job_and_a_new_key_goes_on_from_that_page(
    place: Place, double: Members
) -> None:
    double.script = Script([Act(), Act(), Act(status=401, repeats_key=True)])
    serving = await place()
    number = await credential(serving)
    job = await ended(serving, (await create(serving))["id"], "failed")
    assert (job["pages"], job["seen"], job["retryCount"]) == (2, 200, 0)
    assert f"credential {number} (401)" in job["error"] and GOOD not in job["error"]
    await serving.app.panel.run("imports-watch")
    await serving.app.panel.run("alerts")
    (alert,) = [
        alert
        for alert in (await serving.ask("GET", "/alerts")).json["alerts"]
        if alert["rule"] == "imports-credential-refused"
    ]
    assert f"({number})" in alert["message"] and GOOD not in alert["message"]
    asked, fresh = len(double.asked), "whop_good"
    assert (await serving.ask("POST", f"/credentials/{number}/rotate", **ADA, json={"value": fresh})).status == 200
    assert (await serving.ask("POST", f"/imports/{job['id']}/requeue", **ADA)).status == 200
    done = await ended(serving, job["id"])
    assert (done["pages"], done["seen"], done["error"]) == (5, 430, None)
    again = double.asked[asked:]
    assert [one.status for one in again] == [200, 200, 200], "only the pages that were missing"
    assert again[0].after == double.asked[asked - 1].after is not None


async def test_without_a_sealing_key_credentials_are_refused_with_what_to_do(place: Place) -> None:
    serving = await place(imports_key=None)
    answer = await serving.ask("POST", "/credentials", **ADA, json={"account": "biz_demo", "value": GOOD})
    assert error(answer)[:2] == (503, "unavailable")
    assert "IMPORTS_KEY" in answer.json["error"]["message"]


async def test_the_state_of_all_imports_adds_up(place: Place, double: Members) -> None:
    double.script = Script([Act(status=429, retry_after="0")])
    serving = await place(imports_lanes=2)
    number = await credential(serving)
    done = await ended(serving, (await create(serving))["id"])
    await credential(serving, FORBIDDEN, "biz_other")
    failed = await ended(serving, (await create(serving, account="biz_other"))["id"], "failed")
    assert "403" in failed["error"]
    await serving.app.panel.run("imports-watch")
    state = (await serving.ask("GET", "/imports/status")).json
    assert {name: count for name, count in state["queue"].items() if count} == {"completed": 1, "failed": 1}
    (worker,) = state["workers"]
    assert (worker["status"], worker["lanes"], worker["pid"]) == ("active", 2, os.getpid())
    assert 0 <= worker["heartbeatAgeMs"] < 60_000
    for sums in (state["today"], state["week"]):
        assert (sums["totalJobs"], sums["completedJobs"], sums["failedJobs"]) == (2, 1, 1)
        assert sums["totalMembersProcessed"] == done["seen"]
    mine = next(row for row in state["credentials"] if row["credentialId"] == number)
    assert (mine["pages"], mine["limited"], mine["calls"]) == (5, 1, 6)
    assert mine["secondsPerPage"] > 0 and mine["tokens"] > 0
    assert (state["workersSuggested"], state["lanesHere"]) == (0, 2)
    assert error(await serving.ask("GET", "/imports/status", **ADA))[:2] == (403, "forbidden")

    text = (await serving.ask("GET", "/metrics")).body.decode()
    numbers = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("batchcast_imports_"))
    assert numbers[f'batchcast_imports_provider_limited_total{{credential="{number}"}}'] == "1.0"
    assert numbers[f'batchcast_imports_provider_pages_total{{credential="{number}"}}'] == "5.0"
    assert sum(name.startswith("batchcast_imports_provider_calls_total") for name in numbers) == 2
    assert GOOD not in text
    assert numbers["batchcast_imports_workers"] == "1.0"
    last = serving.app.ledger.recent("imports-watch")[-1].detail
    assert (last["failed_lately"], last["refused_lately"], last["ended_lately"]) == (1, 1, 2)
    await serving.app.panel.run("alerts")
    alerts = {alert["rule"] for alert in (await serving.ask("GET", "/alerts")).json["alerts"]}
    assert "imports-credential-refused" in alerts and "imports-failing" not in alerts


STRAY, YOUNG = "19a0000000-0123456789abc.csv", "19a0000001-0123456789abc.csv"
HALF, FOREIGN = "19a0000002-0123456789abc.ndjson.part", "holiday.csv"


async def tidied(serving: Serving, *young: str) -> set[str]:
    """What is left after the files have grown old, except those, and one turn of tidying."""
    folder = serving.app.importer.folder
    long_ago = time.time() - YOUNG_S - 60
    for path in folder.iterdir():
        if path.name not in young:
            os.utime(path, (long_ago, long_ago))
    await serving.app.panel.run("imports-tidy")
    return spooled(serving)


async def test_a_file_stays_until_its_job_is_done_or_gone(place: Place) -> None:
    serving = await place()
    failed = (await upload(serving, "email\na@b.c\n".encode("utf-16"))).json["job"]
    done = (await upload(serving, b"email\na@b.c\n")).json["job"]
    assert "UTF-8" in (await ended(serving, failed["id"], "failed"))["error"]
    await ended(serving, done["id"])
    assert spooled(serving) == {failed["file"], done["file"]}
    assert await tidied(serving) == {failed["file"]}, "who failed may be requeued"


async def test_what_a_crash_left_in_the_folder_is_swept_after_a_while_and_nothing_else(place: Place) -> None:
    serving = await place()
    for name in (STRAY, YOUNG, HALF, FOREIGN):
        (serving.app.importer.folder / name).write_bytes(b"email\n")
    assert await tidied(serving, YOUNG) == {YOUNG, FOREIGN}, "only files of our making"
    assert (serving.app.importer.folder / FOLDER_ID).exists()
    assert await tidied(serving) == {FOREIGN}


async def test_a_file_goes_with_its_list_and_a_cancelled_jobs_file_with_the_job(place: Place) -> None:
    serving = await place(imports_lanes=0)
    first, second = [(await upload(serving, b"email\na@b.c\n")).json["job"] for _ in range(2)]
    assert await tidied(serving) == {first["file"], second["file"]}
    assert (await serving.ask("POST", f"/imports/{second['id']}/cancel", **ADA)).status == 200
    assert await tidied(serving) == {first["file"], second["file"]}, "who was cancelled may be requeued"
    assert (await serving.ask("DELETE", f"/audiences/{first['listId']}", **ADA)).status == 200
    assert await tidied(serving) == {second["file"]}
    database = serving.app._database
    assert database is not None
    async with database.connection() as connection:
        await connection.execute("update imports.batch_processing_queue set finished_at = 'epoch'")
    await serving.app.panel.run("imports-retire")
    assert await tidied(serving) == set()


async def test_a_job_shows_its_lists_name_and_what_its_file_was_called(place: Place) -> None:
    serving = await place(imports_lanes=0)
    asked = {"listName": "Spring", "fileName": "C:\\lists\\../Mitglieder \x07März.csv "}
    answer = await serving.ask("POST", "/imports", **ADA, params=asked, headers=CSV, data=b"email\na@b.c\n")
    job = answer.json["job"]
    assert (job["listName"], job["fileName"]) == ("Spring", "Mitglieder März.csv")
    assert job["file"] in spooled(serving) and "März" not in job["file"]
    assert (await serving.ask("GET", f"/imports/{job['id']}", **ADA)).json == job
    bare = (await upload(serving, b"email\na@b.c\n", "listId=1&fileName=..")).json["job"]
    assert (bare["listName"], bare["fileName"]) == ("Spring", None)
    long = await upload(serving, b"email\na@b.c\n", f"listId=1&fileName={'x' * 1001}")
    assert error(long) == (422, "bad_message", "fileName")
    await credential(serving)
    assert (await create(serving))["fileName"] is None


async def test_a_new_sealing_key_takes_the_credentials_over(place: Place) -> None:
    number = await credential(await place())
    other = {"imports_key": "another key of the tests, of thirty-two bytes or more"}
    rotating = await place(**other, imports_key_previous=KEY)
    await rotating.app.panel.run("imports-tidy")
    assert (await (await place(**other)).ask("POST", f"/credentials/{number}/check", **ADA)).json["ok"] is True
    answer = (await (await place()).ask("POST", f"/credentials/{number}/check", **ADA)).json
    assert answer["ok"] is False and "IMPORTS_KEY" in answer["message"]


async def test_the_queries_of_the_documentation_run_as_written(place: Place) -> None:
    serving = await place()
    await credential(serving)
    await ended(serving, (await create(serving))["id"])
    text = DOCS.read_text().partition("```sql\n")[2].partition("```")[0]
    queries = [query for query in text.split(";") if query.strip()]
    assert len(queries) == 7
    database = serving.app._database
    assert database is not None
    async with database.transaction() as connection:
        await connection.execute("set local search_path to imports")
        found = [await connection.fetch(query) for query in queries]
    assert found[0][0]["count"] == 0
    assert [len(rows) for rows in found[1:4]] == [1, 1, 1]
    assert {row["action"] for row in found[6]} == {"import", "credential-add"}


async def test_answers_fit_their_schemas(place: Place) -> None:
    serving = await place()
    number = await credential(serving)
    job = await ended(serving, (await create(serving))["id"])
    document: Any = http.openapi_document()
    asked: list[tuple[str, str, str, Any]] = [
        ("GET", "/imports", "/imports", None),
        ("POST", "/imports", "/imports", {"listName": "M", "account": "biz_demo"}),
        ("GET", "/imports/status", "/imports/status", None),
        ("GET", "/imports/{id}", f"/imports/{job['id']}", None),
        ("GET", "/imports/{id}/rejected", f"/imports/{job['id']}/rejected", None),
        ("GET", "/audiences", "/audiences", None),
        ("GET", "/audiences/{id}/contacts", f"/audiences/{job['listId']}/contacts?limit=5", None),
        ("GET", "/credentials", "/credentials", None),
        ("POST", "/credentials/{id}/check", f"/credentials/{number}/check", None),
        ("POST", "/credentials/{id}/rotate", f"/credentials/{number}/rotate", {"value": GOOD}),
        ("DELETE", "/credentials/{id}", f"/credentials/{number}", None),
        ("DELETE", "/audiences/{id}", f"/audiences/{job['listId']}", None),
    ]
    for method, path, url, body in asked:
        answer = await serving.ask(
            method, url, **ADA if "status" not in url else {}, **({"json": body} if body else {})
        )
        assert answer.status == 200, answer.body
        schema = document["paths"][path][method.lower()]["responses"]["200"]["content"]["application/json"]["schema"]
        jsonschema.Draft202012Validator({**schema, "components": document["components"]}).validate(answer.json)
