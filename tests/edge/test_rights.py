"""A PostgreSQL of somebody else's, whose user is no superuser: what it needs at the least, and what is said when it lacks it.

On servers of their own, as roles belong to a whole server; with the oldest PostgreSQL that serves too, where this machine has one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from server.doctor import examine
from server.edge import cluster_files
from server.edge.clock import SystemClock
from server.edge.embedded import EmbeddedPostgres
from server.edge.postgres import Database, migrate
from server.edge.rights import OLDEST, ROLES, Rights
from server.errors import StartRefused
from tests.conftest import FAST, tell
from tests.handlers.asking import until as until_true
from tests.serving import live

OLD_PLACES = [Path(f"/usr/lib/postgresql/{OLDEST}/bin")]
ROLES_MADE = " ".join(f"create role {role} nologin;" for role in ROLES)
ALL = ", ".join(ROLES)


@pytest.fixture(params=["wheel", "oldest"])
def server(request: pytest.FixtureRequest, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A PostgreSQL that knows no role of ours; its DSN as superuser."""
    if request.param == "oldest":
        places = [place for place in OLD_PLACES if (place / "initdb").exists()]
        if not places:
            pytest.skip(f"PostgreSQL {OLDEST} is not installed here")
        monkeypatch.setattr(cluster_files, "_candidates", lambda: iter([(places[0], False)]))
    made = EmbeddedPostgres(data_dir, settings=FAST)
    try:
        yield made.start_now()
    finally:
        made.stop_now()


def as_user(dsn: str, user: str, database: str = "theirs") -> str:
    parts = urlsplit(dsn)
    return urlunsplit(parts._replace(netloc=f"{user}@", path=f"/{database}"))


async def prepare(dsn: str, *statements: str) -> None:
    for sql in statements:
        await tell(dsn, sql)


async def start(dsn: str) -> None:
    """As a server or a worker does."""
    db = await Database.open(dsn, clock=SystemClock())
    try:
        await migrate(db)
    finally:
        await db.close()


async def refusal(dsn: str) -> str:
    with pytest.raises(StartRefused) as refused:
        await start(dsn)
    return str(refused.value)


async def findings(dsn: str, data_dir: Path) -> dict[str, tuple[str, str, str]]:
    async def silent(path: str) -> None:
        return None

    found = await examine({"DATA_DIR": str(data_dir), "DATABASE_URL": dsn}, silent)
    return {one.area: (one.state, one.text, one.next_step) for one in found}


async def heal(admin: str, said: str) -> None:
    """Run what the refusal says, in the database that it is about."""
    _, _, sql = said.partition("administrator run: ")
    assert sql
    await tell(admin, sql)


async def test_the_least_rights_run_a_whole_server_with_an_import(server: str, tmp_path: Path) -> None:
    await prepare(
        server,
        "create role plain login",
        "create database theirs owner plain",
        ROLES_MADE,
        f"grant {ALL} to plain",
    )
    dsn = as_user(server, "plain")
    async with live(tmp_path / "data", dsn, IMPORTS_LANES="2") as place:
        headers = {"Content-Type": "text/csv"}
        answer = await place.ask("POST", "/imports?listName=L", data=b"email\na@b.c\n", headers=headers)
        assert answer.status == 200, answer.body
        path = f"/imports/{answer.json['job']['id']}"

        async def completed() -> bool:
            return bool((await place.ask("GET", path)).json["status"] == "completed")

        await until_true(completed)
        assert (await place.ask("DELETE", "/audiences/1")).status == 200
    found = await findings(dsn, tmp_path)
    assert found["rights"][0] == "ok"
    assert found["PostgreSQL"][0] == ("note" if "version 15" in found["PostgreSQL"][1] else "ok")


async def test_a_user_that_may_make_roles_needs_nothing_more(server: str, tmp_path: Path) -> None:
    await prepare(server, "create role maker login createrole", "create database theirs owner maker")
    dsn = as_user(server, "maker")
    assert "will be made" in (await findings(dsn, tmp_path))["rights"][1]
    await start(dsn)
    await start(dsn)
    assert (await findings(dsn, tmp_path))["rights"][0] == "ok"


async def test_roles_that_it_has_made_by_hand_it_grants_itself(server: str, tmp_path: Path) -> None:
    await prepare(server, "create role maker login createrole", "create database theirs owner maker")
    dsn = as_user(server, "maker")
    await prepare(dsn, ROLES_MADE)
    assert (await findings(dsn, tmp_path))["rights"][0] == "ok"
    await start(dsn)


LACKING: list[tuple[str, tuple[str, ...], str]] = [
    ("no roles, and none may be made", ("create role them login", "create database theirs owner them"), "no role"),
    (
        "roles that somebody else has made",
        ("create role them login", ROLES_MADE, "create database theirs owner them"),
        f"may not act as {ALL}",
    ),
    (
        "one of them granted, one not there",
        (
            "create role them login",
            "create role batchcast_owner nologin",
            "grant batchcast_owner to them",
            "create database theirs owner them",
        ),
        "no role batchcast_worker",
    ),
    (
        "a database of another's",
        (
            "create role them login",
            ROLES_MADE,
            f"grant {ALL} to them",
            "create database theirs",
        ),
        "may not create in the database theirs",
    ),
]


@pytest.mark.parametrize(("statements", "says"), [case[1:] for case in LACKING], ids=[case[0] for case in LACKING])
async def test_what_is_lacking_is_said_by_server_and_doctor_alike_and_what_they_advise_helps(
    server: str, tmp_path: Path, statements: tuple[str, ...], says: str
) -> None:
    await prepare(server, *statements)
    dsn = as_user(server, "them")
    said = await refusal(dsn)
    assert says in said
    state, text, step = (await findings(dsn, tmp_path))["rights"]
    assert (state, f"{text}. {step[0].upper()}{step[1:]}") == ("problem", said)
    await heal(as_user(server, re.match(r".*//([^@]*)@", server)[1]), said)  # type: ignore[index]
    await start(dsn)
    assert (await findings(dsn, tmp_path))["rights"][0] == "ok"


async def test_what_an_earlier_refusal_left_is_nothing(server: str, tmp_path: Path) -> None:
    await prepare(server, "create role them login", "create database theirs owner them")
    dsn = as_user(server, "them")
    await refusal(dsn)
    connection = await asyncpg.connect(dsn)
    assert await connection.fetchval("select to_regnamespace('ops') is null and to_regnamespace('imports') is null")
    await connection.close()


@pytest.mark.pure
def test_too_old_a_server_is_said_without_advice_that_would_not_help() -> None:
    old = Rights("u", "d", OLDEST - 1, may_create=True, may_make_roles=True, missing=(), barred=())
    assert len(old.lacks) == 1 and f"{OLDEST} is the oldest" in old.lacks[0]
    assert old.remedy == ""
