"""Makes server/sample/people.csv and people.ndjson: some 400 invented people to be booked, the same ones in both files.

    python scripts/make_people.py            writes the files
    python scripts/make_people.py --check    exit 1 when a file is not what this script makes

Nobody in it exists: names are put together from syllables. About as many are in each tier as the product expects, a few
are unclear, without any evidence, curated, or compared with somebody curated; some spell their country oddly or not at all.
"""

import csv
import io
import json
import random
import sys
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "server" / "sample"
PEOPLE = 400
TIERS = "DCBAS"
CURATED = "SSAABBCD"
SHARES = (68, 20, 8, 3, 1)
RATINGS = ("global_recognition", "career_legacy", "current_relevance", "demand", "affluence")
COLUMNS = (
    *("key", "name", "aliases", *RATINGS, "comparables", "legacy", "global_award", "net_worth"),
    *("override", "override_reason", "country", "timezone", "excluded", "allow_physical", "allow_virtual"),
)
FIRST = "Ada Bo Cleo Dax Edda Fenn Gia Hiro Inés Jory Kaia Levi Mira Nox Oona Piet Quin Rhea Sven Tova Uma Vico Wren Xan Yara Zoé"
HEAD = "Ar Bel Cor Dun Ell Fal Gar Hol Is Jar Kal Lor Mor Nim Os Per Quar Ros Sol Tor Ul Ver Wil Yor Zan"
TAIL = (
    "adan bury cello dotti evska fjord garra hurst iento jensen kova lund mira nakis ova pello quist rossi steen tari"
)
PLACES = (
    *("US|America/New_York", "USA|America/Los_Angeles", "U.S.|", "|", "UK|Europe/London", "Germany|Europe/Berlin"),
    *("FR|Europe/Paris", "Japan|Asia/Tokyo", "South Korea|Asia/Seoul", "BR|America/Sao_Paulo", "India|Asia/Kolkata"),
    *(
        "Nigeria|Africa/Lagos",
        "AU|Australia/Sydney",
        "España|",
        "Mexico|America/Mexico_City",
        "Türkiye|Europe/Istanbul",
    ),
)
WORTH = {"D": (5, 6.5), "C": (6, 7), "B": (6.7, 8), "A": (7.5, 9), "S": (8.5, 10.5)}


def names(dice: random.Random) -> list[str]:
    """So many different names."""
    found: dict[str, None] = {}
    while len(found) < PEOPLE:
        surname = dice.choice(HEAD.split()) + dice.choice(TAIL.split())
        found[f"{dice.choice(FIRST.split())} {surname}"] = None
    return list(found)


def rating(dice: random.Random, tier: str, unclear: bool) -> str:
    """Near the tier; where it is unclear mostly unknown."""
    if dice.random() < (0.7 if unclear else 0.08):
        return ""
    step = dice.choices((-1, 0, 1), weights=(1, 6, 1))[0]
    return TIERS[min(4, max(0, TIERS.index(tier) + step))]


def person(dice: random.Random, number: int, name: str, others: list[str]) -> dict[str, object]:
    """One of them."""
    curated = number < len(CURATED)
    tier = CURATED[number] if curated else dice.choices(TIERS, weights=SHARES)[0]
    country, timezone = dice.choice(PLACES).split("|")
    ratings = {of: rating(dice, tier, number % 25 == 0) for of in RATINGS}
    if number % 100 == 50:
        ratings = dict.fromkeys(RATINGS, "")
    worth = round(10 ** dice.uniform(*WORTH[tier]), -3)
    return {
        "key": f"person-{number:04d}",
        "name": name,
        "aliases": [f"The {name.split()[1]}"] if number % 9 == 0 else [],
        **ratings,
        "comparables": [others[number % 8]] if not curated and number % 30 == 7 else [],
        "legacy": dice.random() < 0.03,
        "global_award": dice.random() < 0.03,
        "net_worth": int(worth) if dice.random() < 0.5 else None,
        "override": tier if curated else "",
        "override_reason": "chosen by the editors" if curated else "",
        "country": country,
        "timezone": timezone,
        "excluded": {60: "deceased", 160: "hidden"}.get(number, ""),
        "allow_physical": dice.random() > 0.04,
        "allow_virtual": dice.random() > 0.03,
    }


def people() -> list[dict[str, object]]:
    """All of them."""
    dice = random.Random("invented people")
    found = names(dice)
    return [person(dice, number, name, found[:8]) for number, name in enumerate(found)]


def cell(value: object) -> str:
    """As a CSV has it."""
    if isinstance(value, list):
        return "; ".join(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)


def texts() -> dict[str, str]:
    """Both files."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    every = people()
    writer.writerows([cell(one[column]) for column in COLUMNS] for one in every)
    lines = [
        json.dumps({name: value for name, value in one.items() if value not in ("", None, [])}, ensure_ascii=False)
        for one in every
    ]
    return {"people.csv": table.getvalue(), "people.ndjson": "\n".join(lines) + "\n"}


def main() -> int:
    """Write them, or with --check say which are stale."""
    made = texts()
    if "--check" not in sys.argv:
        for name, text in made.items():
            (FOLDER / name).write_text(text)
        return 0
    stale = [name for name, text in made.items() if not (FOLDER / name).exists() or (FOLDER / name).read_text() != text]
    print(f"stale: {', '.join(stale)}; run python scripts/make_people.py" if stale else "the sample of people is fresh")
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main())
