"""Members from files: every row is a member or a reported row, wherever a page begins; a body is on disk whole or not at all."""

import csv
import io
import json
import os
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.batching.imports.files import COLUMNS, FileMembers, spool
from server.core.member import BadRow, Member, Page, Unusable
from server.errors import Code, Refused, Unavailable
from server.protocol.intake import Format

pytestmark = pytest.mark.pure

SAMPLE = Path(__file__).parents[3] / "server" / "sample"


def written(folder: Path, content: str | bytes, name: str = "members") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read_all(
    path: Path, fmt: Format, page_rows: int = 500, *, fresh: bool = True, row_bytes: int = 1 << 20
) -> list[Page]:
    """Every page, each read by a source of its own as after a crash."""
    source = FileMembers(path, fmt, page_rows=page_rows, row_bytes=row_bytes)
    pages, cursor = [], None
    while True:
        pages.append(source.read(cursor))
        if not pages[-1].has_next or pages[-1].empty:
            return pages
        cursor = pages[-1].cursor
        if fresh:
            source = FileMembers(path, fmt, page_rows=page_rows, row_bytes=row_bytes)


def members(pages: list[Page]) -> list[Member]:
    return [member for page in pages for member in page.members]


def rejected(pages: list[Page]) -> list[BadRow]:
    return [bad for page in pages for bad in page.rejected]


# --- the samples ---


@pytest.mark.parametrize("page_rows", [1, 7, 500])
def test_both_samples_hold_the_same_members_and_the_same_two_refused_rows(page_rows: int) -> None:
    of_csv = read_all(SAMPLE / "members.csv", Format.CSV, page_rows)
    of_ndjson = read_all(SAMPLE / "members.ndjson", Format.NDJSON, page_rows)
    assert members(of_csv) == members(of_ndjson)
    assert len(members(of_csv)) == 38
    assert rejected(of_csv) == rejected(of_ndjson)
    assert [(bad.row, bad.field) for bad in rejected(of_csv)] == [(37, "email"), (38, "joined")]


def test_a_row_is_read_with_all_its_columns_and_foreign_ones_are_kept() -> None:
    found = {member.username: member for member in members(read_all(SAMPLE / "members.csv", Format.CSV))}
    ada = next(member for member in found.values() if member.name == "Ada Abara")
    assert (ada.external_id, ada.email, ada.joined_ms) == ("mber_1000", "ada@example.com", 1767256200000)
    assert json.loads(ada.extra) == {"city": "Turin"}
    assert any("\n" in json.loads(member.extra).get("note", "") for member in found.values())


# --- how files are written ---


@pytest.mark.parametrize(
    "content",
    [
        "email,name\nada@x.y,Ada\nben@x.y,Ben\n",
        "email,name\r\nada@x.y,Ada\r\nben@x.y,Ben",
        "\ufeffemail,name\nada@x.y,Ada\nben@x.y,Ben\n",
        "\ufeffEMAIL ; Name\n ada@x.y ;Ada\n\n\nben@x.y;Ben\n\n",
        'name\temail\n"Ada"\t"ada@x.y"\nBen\tben@x.y\n',
    ],
)
@pytest.mark.parametrize("page_rows", [1, 2])
def test_bom_line_ends_separators_quotes_and_the_order_of_columns_do_not_matter(
    tmp_path: Path, content: str, page_rows: int
) -> None:
    pages = read_all(written(tmp_path, content), Format.CSV, page_rows)
    assert members(pages) == [Member(None, "ada@x.y", "Ada"), Member(None, "ben@x.y", "Ben")]
    assert rejected(pages) == []


def test_a_quoted_cell_may_hold_separators_quotes_and_line_ends(tmp_path: Path) -> None:
    path = written(tmp_path, 'email,name\nada@x.y,"A, ""the"" Ada\nof\r\nthree lines"\nben@x.y,5" pipe\n')
    assert [member.name for member in members(read_all(path, Format.CSV, 1))] == [
        'A, "the" Ada\nof\r\nthree lines',
        '5" pipe',
    ]


def test_ndjson_takes_texts_numbers_and_nulls(tmp_path: Path) -> None:
    path = written(tmp_path, '{"id": 7, "Email": "ada@x.y", "joined": 1777658400, "name": null, "tags": [1]}\n')
    assert members(read_all(path, Format.NDJSON)) == [
        Member("7", "ada@x.y", joined_ms=1777658400000, extra='{"tags":[1]}')
    ]


def test_a_member_without_an_email_is_a_member(tmp_path: Path) -> None:
    pages = read_all(written(tmp_path, "email,name\n,Ada\nben@x.y,\n"), Format.CSV)
    assert members(pages) == [Member(None, name="Ada"), Member(None, "ben@x.y")]


def test_a_document_of_json_is_refused_with_what_to_send_instead(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="NDJSON"):
        FileMembers(tmp_path / "x", Format.JSON)


# --- rows that are none ---


def test_every_bad_row_is_reported_by_number_field_and_reason_and_the_good_ones_go_in(tmp_path: Path) -> None:
    lines = [
        "email,name,joined",
        "ada@x.y,Ada,2026-05-01",
        "ada at x.y,Ada,",
        "ben@x.y,Ben,soon",
        "a,b,c,d",
        f"cy@x.y,{'C' * 501},",
        "dee@x.y,Dee,",
    ]
    pages = read_all(written(tmp_path, "\n".join(lines)), Format.CSV, 2)
    assert [member.name for member in members(pages)] == ["Ada", "Dee"]
    assert [(bad.row, bad.field) for bad in rejected(pages)] == [(1, "email"), (2, "joined"), (3, None), (4, "name")]
    assert all(bad.reason for bad in rejected(pages))


def test_a_line_that_is_no_object_is_a_bad_row(tmp_path: Path) -> None:
    path = written(tmp_path, '{"email": "ada@x.y"}\n[1]\n{"email"\n"x"\n{"city": "Oslo"}\n{"name": true}\n')
    pages = read_all(path, Format.NDJSON)
    assert len(members(pages)) == 1
    assert [(bad.row, bad.field) for bad in rejected(pages)] == [
        (1, None),
        (2, None),
        (3, None),
        (4, None),
        (5, "name"),
    ]


def test_a_page_of_bad_rows_only_does_not_look_like_the_end(tmp_path: Path) -> None:
    content = "email\n" + "ada@x.y\n" + "nonsense\n" * 5 + "ben@x.y\n"
    pages = read_all(written(tmp_path, content), Format.CSV, 2)
    assert [member.email for member in members(pages)] == ["ada@x.y", "ben@x.y"]
    assert len(rejected(pages)) == 5


def test_a_row_in_another_encoding_is_reported_and_the_others_go_in(tmp_path: Path) -> None:
    path = written(tmp_path, "email,name\nada@x.y,Ada\nbjorn@x.y,Björn\n".encode("latin-1"))
    pages = read_all(path, Format.CSV)
    assert [member.name for member in members(pages)] == ["Ada"]
    assert "UTF-8" in rejected(pages)[0].reason


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-32-be"])
def test_a_file_in_utf_16_or_32_is_refused_as_a_whole(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(Unusable, match="UTF-8"):
        read_all(written(tmp_path, "email,name\nada@x.y,Ada\n".encode(encoding)), Format.CSV)


@pytest.mark.parametrize("fmt", [Format.CSV, Format.NDJSON])
def test_a_row_above_the_limit_is_reported_and_its_neighbours_go_in(tmp_path: Path, fmt: Format) -> None:
    names = ["Ada", "B" * 3000, "Cy"]
    rows = [json.dumps({"name": name}) for name in names] if fmt is Format.NDJSON else ["name", *names]
    pages = read_all(written(tmp_path, "\n".join(rows)), fmt, 1, row_bytes=1024)
    assert [member.name for member in members(pages)] == ["Ada", "Cy"]
    assert [bad.row for bad in rejected(pages)] == [1]


@pytest.mark.parametrize(
    ("fmt", "content"),
    [
        (Format.CSV, "ada@x.y\nben@x.y\n"),
        (Format.CSV, "latitude,longitude\n1,2\n"),
        (Format.NDJSON, '{"latitude": 1}\n{"longitude": 2}\n'),
    ],
)
def test_a_file_without_any_of_the_columns_is_refused_as_a_whole(tmp_path: Path, fmt: Format, content: str) -> None:
    with pytest.raises(Unusable, match=", ".join(COLUMNS)):
        read_all(written(tmp_path, content), fmt)


def test_a_header_named_twice_is_refused_as_a_whole(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="twice"):
        read_all(written(tmp_path, "email,email\nada@x.y,ben@x.y\n"), Format.CSV)


@pytest.mark.parametrize("content", ["", "email,name\n", "email,name"])
def test_a_file_without_rows_is_one_empty_page(tmp_path: Path, content: str) -> None:
    pages = read_all(written(tmp_path, content), Format.CSV)
    assert [(page.empty, page.has_next, page.total) for page in pages] == [(True, False, 0)]


# --- where a page begins ---


CELL = st.text(st.sampled_from('ab,;"\n\r\t é😀'), max_size=6)


@settings(max_examples=75, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(CELL, CELL), max_size=8), st.integers(1, 4), st.booleans(), st.sampled_from(["\n", "\r\n"]))
def test_pages_of_any_size_read_anew_hold_the_rows_that_one_reader_sees(
    tmp_path: Path, cells: list[tuple[str, str]], page_rows: int, bom: bool, ends: str
) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator=ends)
    writer.writerows([("name", "x y"), *[(f"n{n}", "".join(pair)) for n, pair in enumerate(cells)]])
    path = written(tmp_path, ("\ufeff" if bom else "") + text.getvalue())
    pages = read_all(path, Format.CSV, page_rows)
    assert [member.name for member in members(pages)] == [f"n{n}" for n in range(len(cells))]
    notes = [json.loads(member.extra).get("x y", "") for member in members(pages)]
    assert notes == ["".join(pair) if "".join(pair).strip() else "" for pair in cells]
    assert pages[-1].total == len(cells)


@pytest.mark.parametrize("fmt", [Format.CSV, Format.NDJSON])
async def test_a_page_may_be_asked_for_again_and_is_the_same(fmt: Format) -> None:
    path = SAMPLE / f"members.{fmt}"
    source = FileMembers(path, fmt, page_rows=10)
    first = await source.page(None)
    second = await source.page(first.cursor)
    assert await source.page(first.cursor) == second
    assert await FileMembers(path, fmt, page_rows=10).page(first.cursor) == second
    assert first.members != second.members


def test_the_total_is_an_estimate_that_ends_exact(tmp_path: Path) -> None:
    path = written(tmp_path, "email\n" + "".join(f"m{n:03}@x.y\n" for n in range(300)))
    totals = [page.total or 0 for page in read_all(path, Format.CSV, 100)]
    assert totals[-1] == 300
    assert all(290 <= total <= 310 for total in totals)


def test_a_file_that_has_changed_is_not_gone_on_with(tmp_path: Path) -> None:
    path = written(tmp_path, "email\nada@x.y\nben@x.y\n")
    cursor = FileMembers(path, Format.CSV, page_rows=1).read(None).cursor
    written(tmp_path, "email\nada@x.y\nben@x.y\ncy@x.y\n")
    with pytest.raises(Unusable, match="changed"):
        FileMembers(path, Format.CSV).read(cursor)


@pytest.mark.parametrize("cursor", ["", "x", "1@2", "1@2/3/4", "-1@0/8", "0@-1/8", "0@9/8"])
def test_a_cursor_of_another_source_is_refused(tmp_path: Path, cursor: str) -> None:
    with pytest.raises(Unusable):
        FileMembers(written(tmp_path, "email\na@"), Format.CSV).read(cursor)


def test_a_file_that_is_gone_or_is_none_ends_the_job(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="not there"):
        FileMembers(tmp_path / "gone.csv", Format.CSV).read(None)
    with pytest.raises(Unusable, match="cannot be read"):
        FileMembers(tmp_path, Format.CSV).read(None)


# --- spooling ---


async def body(*chunks: bytes, then: Exception | None = None) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
    if then is not None:
        raise then


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """As on a disk that fills up: no file of this process grows beyond that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_body_is_on_disk_under_its_name_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "imports" / "7.csv"
    assert await spool(body(b"email\n", b"", b"ada@x.y\n"), path, 100) == 14
    assert path.read_bytes() == b"email\nada@x.y\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


async def test_a_body_above_the_limit_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        await spool(body(b"x" * 60, b"x" * 60), tmp_path / "7.csv", 100)
    assert (refused.value.code, refused.value.limit) == (Code.TOO_LARGE, 100)
    assert os.listdir(tmp_path) == []


async def test_a_body_that_ends_too_early_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConnectionResetError):
        await spool(body(b"email\n", then=ConnectionResetError()), tmp_path / "7.csv", 100)
    assert os.listdir(tmp_path) == []


async def test_a_full_disk_is_told_clearly_and_leaves_nothing(tmp_path: Path) -> None:
    with room_for(4096), pytest.raises(Unavailable, match="no room"):
        await spool(body(b"x" * 3000, b"x" * 3000), tmp_path / "7.csv", 1 << 20)
    assert os.listdir(tmp_path) == []


async def test_a_folder_that_cannot_be_written_to_is_told_clearly(tmp_path: Path) -> None:
    written(tmp_path, "", "imports")
    with pytest.raises(Unavailable, match="IMPORTS_FOLDER"):
        await spool(body(b"x"), tmp_path / "imports" / "7.csv", 100)
