"""People from files: what a row means, which rows are refused and with which words, and that importing again changes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from server.batching.tiers.people import BATCH, BadField, BadRow, entry_of, take_in
from server.core.event import Rejected
from server.edge.postgres import Database
from server.errors import Code, Refused
from server.protocol.intake import Format
from tests.batching.tiers.world import ask, chunks, ndjson, row, rows_of

HEAD = b"key,name,global_recognition,demand,legacy,net_worth,comparables,aliases,override,country\n"


def bad(**row: Any) -> BadField:
    with pytest.raises(BadField) as error:
        entry_of({"name": "Ada", **row})
    return error.value


@pytest.mark.pure
def test_a_row_has_its_values_whatever_the_case_and_order_of_its_columns() -> None:
    entry = entry_of(
        {"DEMAND": " s ", "Name": "  Ada   L. ", "legacy": "yes", "net_worth": "$1,234.50", "Allow_Virtual": "0"}
    )
    assert entry.key == "adal"
    got = entry.columns
    assert (got["name"], got["demand"], got["legacy"], got["net_worth_cents"]) == ("Ada L.", "S", True, 123_450)
    assert (got["allow_virtual"], got["allow_physical"], got["global_award"]) == (False, True, False)
    assert got["affluence"] is None


@pytest.mark.pure
def test_comparables_and_aliases_come_as_text_or_as_lists() -> None:
    text = entry_of({"name": "Ada", "comparables": "Bo=a; Cy ;", "aliases": "Countess; A. L."}).columns
    listed = entry_of(
        {"name": "Ada", "comparables": [{"name": "Bo", "tier": "A"}, "Cy"], "aliases": ["Countess", "A. L."]}
    )
    assert (
        text["comparables"]
        == listed.columns["comparables"]
        == [{"name": "Bo", "tier": "A"}, {"name": "Cy", "tier": None}]
    )
    assert text["aliases"] == listed.columns["aliases"] == ["Countess", "A. L."]
    assert text["folds"] == ["ada", "al", "countess"]


@pytest.mark.pure
@pytest.mark.parametrize("word", ["", "unknown", "?", None, "N/A"])
def test_a_rating_may_be_unknown_in_several_words(word: str | None) -> None:
    assert entry_of({"name": "Ada", "demand": word}).columns["demand"] is None


@pytest.mark.pure
def test_what_cannot_be_read_is_named() -> None:
    assert bad(demand="E").field == "demand"
    assert bad(legacy="maybe").field == "legacy"
    assert bad(net_worth="much").field == "net_worth"
    assert bad(net_worth="-1").field == "net_worth"
    assert bad(net_worth="nan").field == "net_worth"
    assert bad(net_worth="1e400").field == "net_worth"
    assert bad(name="").field == "name"
    assert bad(name="x" * 301).field == "name"
    assert bad(key="k" * 201).field == "key"
    assert bad(comparables="=A").field == "comparables"
    assert bad(comparables="Bo=Q").field == "comparables"
    assert bad(aliases=";".join(f"n{i}" for i in range(51))).field == "aliases"
    assert bad(override="Z").field == "override"
    assert bad(override_reason="because").field == "override_reason"
    assert bad(country=["DE"]).field == "country"
    assert bad(name="a\0b").field == "name"


@pytest.mark.pure
def test_a_row_that_is_no_object_is_refused_without_a_field() -> None:
    for value in (7, None, ["name"], Rejected(None, Code.BAD_JSON, "not JSON")):
        with pytest.raises(BadField) as error:
            entry_of(value)
        assert error.value.field == ""


@pytest.mark.pure
def test_counts_of_followers_are_no_input() -> None:
    assert entry_of({"name": "Ada", "followers": "9000000"}) == entry_of({"name": "Ada"})


async def test_good_rows_go_in_and_bad_ones_are_reported_with_their_line(db: Database) -> None:
    body = HEAD + b'a,Ada,S,S,,,,,,DE\n\nb,"Bo\nbo",X,S,,,,,,US\nc,Cy,A,A,yes,,,,,\nd,,A,A,,,,,,\ne,Eve,A,A,?,no,,,,\n'
    for size in (1, 7, 1 << 16):
        report = await take_in(db, chunks(body, size), Format.CSV)
        assert (report.rows, report.rejected, report.created + report.unchanged) == (5, 3, 2)
        assert [(one.line, one.field) for one in report.errors] == [
            (4, "global_recognition"),
            (7, "name"),
            (8, "net_worth"),
        ]
        assert "S, A, B, C, D" in report.errors[0].reason
    assert [r["key"] for r in await rows_of(db, "select key from tiers.celebrities order by 1")] == ["a", "c"]


async def test_a_line_of_ndjson_that_is_no_json_is_reported(db: Database) -> None:
    report = await take_in(db, chunks(b'{"name": "Ada"}\nnonsense\n[1]\n{"name": "Bo"}'), Format.NDJSON)
    assert (report.created, [one.line for one in report.errors]) == (2, [2, 3])


async def test_a_row_that_is_too_long_is_reported_and_the_others_go_in(db: Database) -> None:
    long = b'{"name": "' + b"x" * (2 << 20) + b'"}\n'
    report = await take_in(db, chunks(b'{"name": "Ada"}\n' + long + b'{"name": "Bo"}\n'), Format.NDJSON)
    assert (report.created, report.rejected, report.errors[0].line) == (2, 1, 2)


async def test_importing_again_changes_no_row(db: Database) -> None:
    people = [
        row(n, aliases=[f"Alias {n}"], comparables="Bo=A", net_worth="5", excluded="hidden" if n == 3 else "")
        for n in range(5)
    ]
    first = await take_in(db, chunks(ndjson(people)), Format.NDJSON)
    assert (first.created, first.updated, first.unchanged) == (5, 0, 0)
    everything = """select (select array_agg(c order by id) from tiers.celebrities c)::text || (select array_agg(s) from
        tiers.celebrity_settings s)::text"""
    before = await ask(db, everything), await ask(db, "select array_agg(a order by folded)::text from tiers.aliases a")
    again = await take_in(db, chunks(ndjson(people)), Format.NDJSON)
    assert (again.created, again.updated, again.unchanged) == (0, 0, 5)
    assert before == (
        await ask(db, everything),
        await ask(db, "select array_agg(a order by folded)::text from tiers.aliases a"),
    )


async def test_a_row_that_tells_otherwise_updates_its_person_and_its_names(db: Database) -> None:
    await take_in(db, chunks(ndjson([row(1, aliases="Old"), row(2)])), Format.NDJSON)
    report = await take_in(db, chunks(ndjson([row(1, "A", aliases="New"), row(2, allow_virtual=False)])), Format.NDJSON)
    assert (report.created, report.updated) == (0, 2)
    assert await ask(db, "select demand::text from tiers.celebrities where key = 'p000001'") == "A"
    assert await ask(db, "select count(*) from tiers.celebrity_settings where not allow_virtual") == 1
    folds = await rows_of(db, "select folded from tiers.aliases order by 1")
    assert [r["folded"] for r in folds] == ["new", "person000001", "person000002"]


async def test_of_a_key_that_comes_twice_the_last_row_counts(db: Database) -> None:
    report = await take_in(db, chunks(ndjson([row(1, "D"), row(2), row(1, "S")])), Format.NDJSON)
    assert (report.rows, report.created, report.updated) == (3, 2, 1)
    assert await ask(db, "select demand::text from tiers.celebrities where key = 'p000001'") == "S"


async def test_more_rows_than_a_batch_all_go_in(db: Database) -> None:
    report = await take_in(db, chunks(ndjson(row(n) for n in range(2 * BATCH + 1))), Format.NDJSON)
    assert report.created == 2 * BATCH + 1 == await ask(db, "select count(*) from tiers.celebrity_settings")


async def test_the_report_tells_the_first_bad_rows_and_counts_the_others(db: Database) -> None:
    report = await take_in(db, chunks(b"{}\n" * 1_005), Format.NDJSON)
    assert (report.rejected, len(report.errors)) == (1_005, 1_000)
    assert report.errors[0] == BadRow(1, "name", "a person has a name")


async def test_people_come_as_csv_or_ndjson_only(db: Database) -> None:
    with pytest.raises(Refused, match="CSV or NDJSON"):
        await take_in(db, chunks(b"[]"), Format.JSON)


async def test_an_imported_person_has_no_tier(db: Database) -> None:
    await take_in(db, chunks(ndjson([row(1)])), Format.NDJSON)
    assert await ask(
        db, "select tier is null and not verified and max_monthly_slots is null from tiers.celebrity_settings"
    )
