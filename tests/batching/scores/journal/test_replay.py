"""Whatever is not as it was recorded is told: a byte, an order, a weight, a format, a torn end. And the shape of blocks."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from server.batching.scores.journal.blocks import FIRST_LINE, HEAD_BYTES, Block, Extent, Kind, packed, scan
from server.batching.scores.journal.codec import LENGTH, rows
from server.batching.scores.journal.reader import opened
from server.batching.scores.journal.replay import Difference, replayed
from server.edge.postgres import Database
from server.errors import Refused
from tests.batching.scores.journal.recording import WORLD, files, recorded, row, spared, story, verified, write

Rows = list[list[Any]]


@pytest_asyncio.fixture
async def path(db: Database, tmp_path: Path) -> Path:
    """A whole journal, of several blocks of records."""
    async with recorded(db, tmp_path / "journal") as one:
        for name in "abc":
            await story(one, name, ord(name) % 2)
            await write(one)
    return files(tmp_path / "journal")[0]


def rewritten(
    path: Path, change: Callable[[Rows], Rows], header: Callable[[dict[str, Any]], None] | None = None
) -> Path:
    """The same file with other records, all checksums right."""
    into = io.BytesIO()
    into.write(FIRST_LINE)
    with path.open("rb") as file:
        for block in scan(file):
            if isinstance(block, Extent):
                break
            payload = block.read(file)
            if block.kind is Kind.RECORDS:
                payload = b"".join(
                    LENGTH.pack(len(text)) + text for text in map(orjson.dumps, change(list(rows(payload))))
                )
            elif block.kind is Kind.HEADER and header is not None:
                values = orjson.loads(payload)
                header(values)
                payload = orjson.dumps(values)
            if payload:
                into.write(packed(block.kind, payload))
    other = path.with_name("rewritten.journal")
    other.write_bytes(into.getvalue())
    return other


@pytest.mark.parametrize("minutes", [10_000, 1], ids=["one file", "many files"])
async def test_what_a_budget_carries_over_and_clusters_are_replayed_too(
    db: Database, tmp_path: Path, minutes: int
) -> None:
    async with recorded(db, tmp_path / "journal", journal_file_minutes=minutes) as one:
        await spared(one)
        await write(one)
        frames = len(one.clients[7].frames)
    found = files(tmp_path / "journal")
    assert (len(found) > 1) == (minutes == 1)
    assert sum(verified(path).frames for path in found) == frames > 10


async def test_what_a_viewer_was_told_of_clusters_is_known_at_the_head_of_the_next_file(
    db: Database, tmp_path: Path
) -> None:
    async with recorded(db, tmp_path / "journal", journal_file_minutes=1) as one:
        for n in range(12):
            await one.upsert(row(f"s{chr(97 + n)}"))
        client = await one.join(0, {**WORLD, "user": None, "maxEvents": 4, "clusters": True})
        first = client.frames[-1]
        await write(one)
        await one.clock.advance(61)
        await write(one)
        await one.flush()
    assert client.frames == [first] and first["clusters"], "there was nothing else to tell"
    assert [verified(path).frames for path in files(tmp_path / "journal")] == [1, 0]


def difference(path: Path) -> Difference:
    with opened(path) as journal:
        found = replayed(journal, verify=True).difference
    assert found is not None
    return found


def same(found: Rows) -> Rows:
    return found


def test_a_file_that_is_only_written_again_is_the_same(path: Path) -> None:
    assert verified(rewritten(path, same)) == verified(path)


def test_another_weight_is_seen(path: Path) -> None:
    def weigh(header: dict[str, Any]) -> None:
        header["weights"] = [0.25, 0.2, 0.0, 0.15, 0.4]

    found = difference(rewritten(path, same, weigh))
    assert found.recorded is not None and found.replayed is not None
    assert found.seq >= 1


def test_another_spacing_or_window_is_seen(path: Path) -> None:
    def widen(header: dict[str, Any]) -> None:
        header["spacingKm"] = 5000.0

    def narrow(header: dict[str, Any]) -> None:
        header["window"] = [0, 1000]

    assert difference(rewritten(path, same, widen)).replayed is not None
    assert difference(rewritten(path, same, narrow))


def test_another_counter_of_one_patch_is_seen(path: Path) -> None:
    def count(found: Rows) -> Rows:
        for tag, *rest in found:
            if tag == "p":
                for change in rest[2]:
                    if change[2] == "c":
                        change[5] += 1
        return found

    assert difference(rewritten(path, count)).kind.value in ("batch", "immediate")


def test_another_version_moment_or_hash_is_seen(path: Path) -> None:
    def altered(tag: str, change: Callable[[list[Any]], None]) -> Callable[[Rows], Rows]:
        def alter(found: Rows) -> Rows:
            for one in found:
                if one[0] == tag:
                    change(one)
            return found

        return alter

    def later(one: list[Any]) -> None:
        one[2] += 1

    def rehash(row: list[Any]) -> None:
        for one in row[2]:
            if len(one) == 4:
                one[3] ^= 1

    def resize(row: list[Any]) -> None:
        for one in row[2]:
            if len(one) == 4:
                one[2] += 1

    def renumber(row: list[Any]) -> None:
        for one in row[2]:
            if len(one) == 4:
                one[1] += 1

    assert difference(rewritten(path, altered("d", later)))
    assert difference(rewritten(path, altered("h", rehash)))
    sized = difference(rewritten(path, altered("h", resize)))
    assert sized.recorded == (sized.replayed or 0) + 1
    assert difference(rewritten(path, altered("h", renumber)))


def test_another_order_is_seen(path: Path) -> None:
    def swap(found: Rows) -> Rows:
        """The first round stands before the patch that it saw."""
        for place in range(len(found) - 1):
            if found[place][0] == "p" and "d" in [row[0] for row in found[place:]]:
                after = place + [row[0] for row in found[place:]].index("d")
                found.insert(after + 1, found.pop(place))
                break
        return found

    assert difference(rewritten(path, swap))


def test_a_patch_left_out_is_seen(path: Path) -> None:
    assert difference(rewritten(path, lambda found: [row for row in found if row[0] != "p" or row[3][0][2] != "c"]))


def test_slots_not_given_back_are_not_seen_but_harmless(path: Path) -> None:
    """Slots are numbers of the server's own: no frame shows them."""
    assert verified(rewritten(path, lambda found: [row for row in found if row[0] != "f"])).frames > 0


def test_a_frame_where_nothing_was_due_is_seen_and_so_is_nothing_where_a_frame_was(path: Path) -> None:
    def silent(found: Rows) -> Rows:
        for tag, *rest in found:
            if tag == "h":
                rest[1][:] = [[one[0]] for one in rest[1]]
        return found

    found = difference(rewritten(path, silent))
    assert found.recorded is None and found.replayed is not None


# --- files that are damaged, torn, foreign ---


def test_every_cut_leaves_a_file_of_which_the_beginning_verifies_or_that_says_why_not(path: Path) -> None:
    whole = path.read_bytes()
    frames, torn = verified(path).frames, path.with_name("torn.journal")
    seen = set()
    for size in range(0, len(whole), 37):
        torn.write_bytes(whole[:size])
        try:
            report = verified(torn)
        except Refused as refused:
            assert any(why in refused.message for why in ("cut off", "no header")), refused.message
            continue
        assert report.frames <= frames
        seen.add(report.frames)
    assert len(seen) > 2


def test_every_flipped_byte_is_found(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    other = path.with_name("flipped.journal")
    for at in range(0, len(whole), 53):
        whole[at] ^= 0x20
        other.write_bytes(whole)
        with pytest.raises(Refused):
            verified(other)
        whole[at] ^= 0x20


def test_a_file_behind_which_power_left_zeros_is_read_up_to_them(path: Path) -> None:
    other = path.with_name("zeros.journal")
    other.write_bytes(path.read_bytes() + bytes(5000))
    with opened(other) as journal:
        assert journal.extent.torn == 5000
    assert verified(other).frames == verified(path).frames


def test_a_file_without_its_whole_checkpoint_says_so(path: Path) -> None:
    found = io.BytesIO()
    found.write(FIRST_LINE)
    with path.open("rb") as file:
        for block in scan(file):
            if isinstance(block, Block) and block.kind is Kind.HEADER:
                values = orjson.loads(block.read(file))
                found.write(packed(Kind.HEADER, orjson.dumps({**values, "slots": 7})))
    other = path.with_name("begun.journal")
    other.write_bytes(found.getvalue())
    with pytest.raises(Refused, match="before its checkpoint was written"):
        verified(other)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cut off while it began"),
        (b"batchcast jou", "cut off while it began"),
        (b"hello, world\n", "is not a journal"),
        (b"batchcast journal 99\nxyz", "format 99, this program reads format 1"),
        (FIRST_LINE, "has no header"),
        (FIRST_LINE + packed(Kind.HEADER, b"{}"), "damaged"),
        (FIRST_LINE + packed(Kind.RECORDS, b"{}"), "has no header"),
        (FIRST_LINE + b"x" * 100, "damaged"),
    ],
)
def test_what_is_no_journal_of_ours_is_refused_in_words(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "strange.journal"
    path.write_bytes(content)
    with pytest.raises(Refused, match=words), opened(path):
        pass
    with pytest.raises(Refused, match="can't be read"), opened(tmp_path / "nowhere"):
        pass


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(list(Kind)), st.binary(min_size=1, max_size=300)), max_size=6), st.data())
def test_blocks_are_read_as_they_were_written_up_to_any_cut(
    blocks: list[tuple[Kind, bytes]], data: st.DataObject
) -> None:
    parts = [packed(kind, payload) for kind, payload in blocks]
    whole = FIRST_LINE + b"".join(parts)
    size = data.draw(st.integers(len(FIRST_LINE), len(whole)))
    file = io.BytesIO(whole[:size])
    *found, extent = list(scan(file))
    assert isinstance(extent, Extent)
    assert extent.whole + extent.torn == size
    read = [(block.kind, block.read(file)) for block in found if isinstance(block, Block)]
    assert read == blocks[: len(read)]
    assert extent.whole == len(FIRST_LINE) + sum(map(len, parts[: len(read)]))
    assert extent.torn < (len(parts[len(read)]) if len(read) < len(parts) else 1) or extent.torn == 0
    assert len(packed(Kind.HEADER, b"x")) > HEAD_BYTES
