"""The sample of invented people, and a file of bad rows: each of these names the field that is wrong in a column of its own."""

import csv
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import orjson
import pytest

from server.batching.tiers.classify import classify
from server.batching.tiers.countries import country
from server.batching.tiers.names import directory
from server.batching.tiers.people import BadField, Entry, entry_of
from server.batching.tiers.rules import RATINGS, TIERS, Comparable, Person, Tier

pytestmark = pytest.mark.pure

ROOT = Path(__file__).parents[3]
SAMPLE = ROOT / "server" / "sample"


def of_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def entries() -> list[Entry]:
    return [entry_of(orjson.loads(line)) for line in (SAMPLE / "people.ndjson").read_bytes().splitlines()]


def person(entry: Entry) -> Person:
    found: Mapping[str, object] = entry.columns
    return Person(
        entry.key,
        str(found["name"]),
        tuple(found[name] for name in RATINGS),  # type: ignore[arg-type]
        tuple(Comparable(one["name"], one["tier"]) for one in found["comparables"]),  # type: ignore[attr-defined]
        bool(found["legacy"]),
        bool(found["global_award"]),
        override=found["override_tier"],  # type: ignore[arg-type]
    )


def test_both_files_hold_the_same_people() -> None:
    assert [entry_of(row) for row in of_csv(SAMPLE / "people.csv")] == entries()
    assert len({entry.key for entry in entries()}) == len(entries()) == 400


def test_the_files_are_what_the_script_makes() -> None:
    told = subprocess.run(
        [sys.executable, "scripts/make_people.py", "--check"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (told.returncode, told.stdout.strip()) == (0, "the sample of people is fresh")


def test_every_tier_every_source_and_odd_countries_are_in_it() -> None:
    group = [person(entry) for entry in entries()]
    curated: list[tuple[str, Tier]] = [(one.name, one.override) for one in group if one.override]
    decided = [classify(one, directory(curated)) for one in group]
    tiers = Counter(one.tier for one in decided)
    assert [tiers[tier] > 0 for tier in TIERS] == [True] * 5 and tiers["D"] > tiers["C"] > tiers["B"]
    sources = {one.source for one in decided}
    assert sources == {"override", "comparables", "ratings", "unclear", "no_evidence", "guard"}
    assert {country(str(entry.columns["country_given"])).source for entry in entries()} == {"given", "alias", "default"}
    assert {entry.columns["excluded"] for entry in entries()} == {None, "deceased", "hidden"}


@pytest.mark.parametrize("row", of_csv(Path(__file__).parent / "bad_people.csv"), ids=lambda row: row["key"])
def test_a_bad_row_names_the_field_that_is_wrong(row: dict[str, str]) -> None:
    if not row["wrong"]:
        assert entry_of(row).key == row["key"]
        return
    with pytest.raises(BadField) as bad:
        entry_of(row)
    assert bad.value.field == row["wrong"]
