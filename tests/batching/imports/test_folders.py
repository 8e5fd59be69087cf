"""A job of a file goes to a worker that looks into the folder the file is in, whichever host that is on."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from server.batching.imports import claims, figures
from server.batching.imports.batch import MemberImport
from server.batching.imports.files import FOLDER_ID, _write_once, id_of_folder
from server.batching.imports.provider import Provider
from server.batching.imports.provider import Terms as ProviderTerms
from server.batching.imports.queue import Terms
from server.batching.imports.sources import Sources
from server.batching.imports.vault import Vault
from server.edge.bus import Bus
from server.edge.clock import SystemClock
from server.edge.postgres import Connection, Database
from tests.batching.imports.world import claim, job, put, statuses, until, working

CSV = "email\nada@x.y\n"


async def hired(connection: Connection, folder: str | None) -> int:
    return await claims.register(connection, "w", 30.0, 1, "host", 1, "0", folder)


async def test_a_worker_is_given_jobs_of_its_own_folder_and_of_no_folder(db: Database) -> None:
    (here,) = await put(db, source="file", file="a.csv", folder="here", priority=9)
    (there,) = await put(db, source="file", file="b.csv", folder="there", priority=8)
    (provider,) = await put(db, priority=1)
    (old,) = await put(db, source="file", file="c.csv", priority=1)
    async with db.connection() as connection:
        assert [one.id for one in await claim(connection, await hired(connection, None), 1)] == [provider]
        assert [one.id for one in await claim(connection, await hired(connection, "there"), 9)] == [there, old]
        assert [one.id for one in await claim(connection, await hired(connection, "elsewhere"), 9)] == []
        assert [one.id for one in await claim(connection, await hired(connection, "here"), 9)] == [here]


async def test_files_that_no_living_worker_can_read_are_counted(db: Database) -> None:
    await put(db, 2, source="file", file="a.csv", folder="here")
    await put(db, 3)
    async with db.transaction() as connection:
        await hired(connection, "there")
        assert (await figures.read(connection)).stranded == 2
        mine = await hired(connection, "here")
        assert (await figures.read(connection)).stranded == 0
        await claims.leave(connection, mine, 0, 0)
        assert (await figures.read(connection)).stranded == 2


async def test_where_the_file_is_not_the_job_waits_and_is_done_where_it_is(db: Database, tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("here", "there")}
    ids = {name: id_of_folder(path, name * 4) for name, path in folders.items()}
    (folders["here"] / "7.csv").write_text(CSV)
    (number,) = await put(db, source="file", file="7.csv", folder=ids["here"], audience_id=7)
    (other,) = await put(db, audience_id=8, source="file", file="7.csv", folder=ids["there"])
    provider = await Provider.open(ProviderTerms(), SystemClock())

    def at(name: str) -> tuple[MemberImport, Terms]:
        sources = Sources(provider, Vault(db, None), folders[name])
        work = MemberImport(db, Bus(db, node=name), SystemClock(), sources)
        return work, Terms(lease_s=2.0, poll_ms=50, folder=ids[name])

    there, terms = at("there")
    async with working(db, there.step, terms):
        await until(lambda: _failed(db, other), "its own job, whose file is gone, has failed")
    assert (await job(db, number))["lease"] == 0, "never claimed"
    here, terms = at("here")
    async with working(db, here.step, terms):
        await until(lambda: _completed(db), "the other is done")
    assert (await job(db, number))["imported"] == 1
    await provider.close()


async def _failed(db: Database, number: int) -> bool:
    return bool((await job(db, number))["status"] == "failed")


async def _completed(db: Database) -> bool:
    return (await statuses(db)).get("completed") == 1


@pytest.mark.pure
def test_all_who_look_into_a_folder_learn_the_same_id(tmp_path: Path) -> None:
    learned: list[str | None] = []
    start = threading.Barrier(8)

    def look(n: int) -> None:
        start.wait()
        learned.append(id_of_folder(tmp_path / "shared", f"fresh{n}"))

    threads = [threading.Thread(target=look, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(learned)) == 1 and learned[0] is not None
    assert [path.name for path in (tmp_path / "shared").iterdir()] == [FOLDER_ID]
    assert id_of_folder(tmp_path / "other", "another") == "another"


@pytest.mark.pure
def test_who_comes_too_late_with_an_id_changes_nothing(tmp_path: Path) -> None:
    mark = tmp_path / FOLDER_ID
    for text in ("first", "late"):
        _write_once(mark, text)
    assert mark.read_text() == "first"
    assert list(tmp_path.iterdir()) == [mark]


@pytest.mark.pure
def test_a_folder_that_can_not_be_used_has_no_id(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    assert id_of_folder(tmp_path / "taken", "x") is None
