"""People from a file, CSV or NDJSON, into rows: the good rows go in, the bad ones are reported with line, field and reason.

    report = await take_in(db, chunks, Format.CSV)

Columns (case and order do not matter; others are ignored):

    key                                       the importer's own name for the person; without it the folded name
    name                                      required
    global_recognition, career_legacy, current_relevance, demand, affluence
                                              S, A, B, C or D; empty, "unknown" or "?": not known
    comparables                               names, or name=TIER, separated by ; (NDJSON also: a list of these, or of objects)
    aliases                                   other names, separated by ; (NDJSON also: a list)
    legacy, global_award, allow_virtual, allow_physical
                                              true/false, yes/no, 1/0; empty: false, and true for what is allowed
    net_worth                                 in dollars, cents allowed; empty: not known
    override                                  a curated tier
    override_reason, country, timezone        texts
    excluded                                  deceased, hidden or another reason: the person is left out

Importing a file again changes nothing, not even updated_at; a person that it tells otherwise is updated and classified again
by the next `classify`. Lines count from 1, a CSV's header is the first. Counts of followers, listeners and streams are no
columns here and never become an input.

Bounded: BATCH rows in memory, REPORTED bad rows in the report (the others are counted), texts as the table allows.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Final, NoReturn, TypeVar

import orjson

from server.batching.tiers.names import folded
from server.batching.tiers.rules import RATINGS, TIERS
from server.batching.tiers.store import serving
from server.core.event import Rejected
from server.edge.postgres import Connection, Database
from server.errors import Code, Refused
from server.protocol.intake import Format, Read, Reader, reader

T = TypeVar("T")

BATCH: Final = 500
REPORTED: Final = 1_000
"""Bad rows told one by one; what comes after them is counted."""
TEXT_MOST: Final = 300
NAMES_MOST: Final = 50
"""Aliases, or comparables, of one person."""
NET_WORTH_MOST: Final = 10**15
"""Dollars; more is a slip."""
LINE_MOST: Final = 1 << 16
"""A longer line is handed on in pieces, so that the reader's own bound on a row holds."""
UNKNOWN: Final = frozenset(("", "unknown", "?", "n/a", "none", "null"))
YES: Final = frozenset(("true", "yes", "y", "1", "t"))
NO: Final = frozenset(("false", "no", "n", "0", "f"))
COLUMNS: Final = (
    *("key", "name", "aliases", *RATINGS, "comparables", "legacy", "global_award", "net_worth"),
    *("override", "override_reason", "country", "timezone", "excluded", "allow_physical", "allow_virtual"),
)

_KEEP: Final = (
    *("name", "aliases", *RATINGS, "comparables", "legacy", "global_award", "net_worth_cents"),
    *("override_tier", "override_reason", "country_given", "timezone_given", "excluded"),
)
_NAMES: Final = ", ".join(_KEEP)
_CASTS: Final = dict.fromkeys((*RATINGS, "override_tier"), "::tiers.tier")
_SELECTED: Final = ", ".join(f"r.{name}{_CASTS.get(name, '')}" for name in _KEEP)
_TYPES: Final = {"aliases": "text[]", "comparables": "jsonb", "legacy": "boolean", "global_award": "boolean"}
_RECORD: Final = ", ".join(f"{name} {_TYPES.get(name, 'text')}" for name in _KEEP if name != "net_worth_cents")
PUT: Final = f"""
with given as (
    select r.* from jsonb_to_recordset($1::jsonb)
        as r (key text, {_RECORD}, net_worth_cents bigint, allow_physical boolean, allow_virtual boolean, folds text[])
), put as (
    insert into tiers.celebrities as c (key, {_NAMES}) select r.key, {_SELECTED} from given r order by r.key
    on conflict (key) do update set ({_NAMES}, updated_at) = ({", ".join(f"excluded.{name}" for name in _KEEP)}, clock_timestamp())
    where ({", ".join(f"c.{name}" for name in _KEEP)}) is distinct from ({", ".join(f"excluded.{name}" for name in _KEEP)})
    returning id, key, xmax = 0 as new
), everybody as (
    select p.id, p.key, p.new from put p
    union all select c.id, c.key, false from tiers.celebrities c join given r on r.key = c.key
    where not exists (select from put p where p.key = c.key)
), allowed as (
    insert into tiers.celebrity_settings as s (celebrity_id, allow_physical, allow_virtual)
    select e.id, r.allow_physical, r.allow_virtual from everybody e join given r using (key) order by e.id
    on conflict (celebrity_id) do update
    set allow_physical = excluded.allow_physical, allow_virtual = excluded.allow_virtual, updated_at = clock_timestamp()
    where (s.allow_physical, s.allow_virtual) is distinct from (excluded.allow_physical, excluded.allow_virtual)
    returning celebrity_id
), names as (
    select e.id, f.folded from everybody e join given r using (key), unnest(r.folds) f (folded)
), gone as (
    delete from tiers.aliases a using everybody e
    where a.celebrity_id = e.id and not exists (select from names n where n.id = e.id and n.folded = a.folded)
), known as (
    insert into tiers.aliases (folded, celebrity_id) select distinct folded, id from names on conflict do nothing
)
select count(*) filter (where e.new) as created,
    count(*) filter (where not e.new and (exists (select from put p where p.id = e.id)
        or exists (select from allowed a where a.celebrity_id = e.id))) as updated
from everybody e"""  # noqa: S608  names of ours

_WORDS: Final = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that is no person: where it begins in the file, which field, and why."""

    line: int
    field: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What became of a file. `errors` are the first of the rejected rows."""

    rows: int = 0
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    rejected: int = 0
    errors: tuple[BadRow, ...] = ()
    audit_id: int | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One good row, as the statement takes it."""

    key: str
    columns: Mapping[str, object]


class BadField(ValueError):
    """A field that cannot be read."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(reason)
        self.field = name
        self.reason = reason


@dataclass(slots=True)
class _Tally:
    rows: int = 0
    created: int = 0
    updated: int = 0
    rejected: int = 0
    good: int = 0
    errors: list[BadRow] = field(default_factory=list)

    def reject(self, bad: BadRow) -> None:
        self.rejected += 1
        if len(self.errors) < REPORTED:
            self.errors.append(bad)

    @property
    def report(self) -> ImportReport:
        same = self.good - self.created - self.updated
        return ImportReport(self.rows, self.created, self.updated, same, self.rejected, tuple(self.errors))


async def take_in(db: Database, chunks: AsyncIterable[bytes], fmt: Format) -> ImportReport:
    """Import a file; every BATCH of its rows is a transaction."""
    if fmt is Format.JSON:
        raise Refused(Code.BAD_MESSAGE, "people come as CSV or NDJSON (one object a line)", field="format")
    tally = _Tally()
    waiting: dict[str, Entry] = {}
    async for line, row in _rows(chunks, reader(fmt)):
        tally.rows += 1
        try:
            entry = entry_of(row)
        except BadField as bad:
            tally.reject(BadRow(line, bad.field or None, bad.reason))
            continue
        if entry.key in waiting or len(waiting) == BATCH:
            await _store(db, waiting, tally)
        waiting[entry.key] = entry
    await _store(db, waiting, tally)
    return tally.report


async def _rows(chunks: AsyncIterable[bytes], to_rows: Reader) -> AsyncIterator[tuple[int, Read]]:
    """Rows with the line that each begins on: a line is fed at a time, and a row is there when its last line was."""
    line = begun = 1
    quotes = 0
    async for piece in _lines(chunks):
        rows = to_rows.feed(piece)
        quotes += piece.count(b'"')
        for row in rows:
            yield begun, row
        if piece.endswith(b"\n"):
            line += 1
            if rows or quotes % 2 == 0:  # Else a cell goes on.
                begun, quotes = line, 0
    for row in to_rows.close():
        yield begun, row


async def _lines(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The same bytes, cut behind each line feed; of what is longer than LINE_MOST, pieces."""
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for text in lines:
            yield text + b"\n"
        if len(rest) > LINE_MOST:
            yield rest
            rest = b""
    yield rest


async def _store(db: Database, waiting: dict[str, Entry], tally: _Tally) -> None:
    if not waiting:
        return
    async with serving(db) as connection:
        created, updated = await put(connection, list(waiting.values()))
    tally.good += len(waiting)
    tally.created += created
    tally.updated += updated
    waiting.clear()


async def put(connection: Connection, entries: Sequence[Entry]) -> tuple[int, int]:
    """Write people, no key twice: how many are new, and how many have changed."""
    body = orjson.dumps([{"key": entry.key, **entry.columns} for entry in entries]).decode()
    row = await connection.fetchrow(PUT, body)
    assert row is not None
    return row["created"], row["updated"]


# Reading a row. Pure.


def entry_of(row: Read) -> Entry:
    """The person in a row; BadField says which of its fields is none."""
    if isinstance(row, Rejected):
        raise BadField("", row.reason)
    if not isinstance(row, dict):
        raise BadField("", "a row is a JSON object")
    given = {str(name).strip().lower(): value for name, value in row.items()}
    name = _text(given, "name")
    if not name:
        raise BadField("name", "a person has a name")
    key = _text(given, "key") or folded(name)
    if not 1 <= len(key) <= 200 or "\0" in key:
        raise BadField("key", "a key has 1 to 200 characters")
    return Entry(key, _columns(given, name))


def _columns(given: Mapping[str, object], name: str) -> dict[str, object]:
    override = _tier(given, "override")
    reason = _text(given, "override_reason")
    if reason and override is None:
        raise BadField("override_reason", "there is no override that it could be the reason of")
    aliases = _names(given, "aliases")
    return {
        "name": name,
        "aliases": aliases,
        **{rating: _tier(given, rating) for rating in RATINGS},
        "comparables": _comparables(given),
        "legacy": _truth(given, "legacy", False),
        "global_award": _truth(given, "global_award", False),
        "net_worth_cents": _cents(given, "net_worth"),
        "override_tier": override,
        "override_reason": reason or None,
        "country_given": _text(given, "country"),
        "timezone_given": _text(given, "timezone"),
        "excluded": _text(given, "excluded") or None,
        "allow_physical": _truth(given, "allow_physical", True),
        "allow_virtual": _truth(given, "allow_virtual", True),
        "folds": sorted({fold for one in (name, *aliases) if (fold := folded(one))}),
    }


def _text(given: Mapping[str, object], name: str) -> str:
    value = given.get(name)
    if value is None:
        return ""
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise BadField(name, f"{name} is a text")
    text = _WORDS.sub(" ", str(value)).strip()
    if len(text) > TEXT_MOST or "\0" in text:
        raise BadField(name, f"{name} has at most {TEXT_MOST} characters, none of them NUL")
    return text


def _tier(given: Mapping[str, object], name: str) -> str | None:
    text = _text(given, name)
    if text.lower() in UNKNOWN:
        return None
    if text.upper() not in TIERS:
        raise BadField(name, f"{name} is {', '.join(TIERS)} or empty, not {text[:40]!r}")
    return text.upper()


def _truth(given: Mapping[str, object], name: str, otherwise: bool) -> bool:
    value = given.get(name)
    if isinstance(value, bool):
        return value
    text = _text(given, name).lower()
    if text in UNKNOWN:
        return otherwise
    if text not in YES and text not in NO:
        raise BadField(name, f"{name} is true or false, not {text[:40]!r}")
    return text in YES


def _cents(given: Mapping[str, object], name: str) -> int | None:
    text = _text(given, name).replace(",", "").replace("_", "").removeprefix("$")
    if text.lower() in UNKNOWN:
        return None
    try:
        dollars = Decimal(text)
    except InvalidOperation:
        _no_amount(name, text)
    if not dollars.is_finite() or not 0 <= dollars <= NET_WORTH_MOST:
        _no_amount(name, text)
    return int(dollars * 100)


def _no_amount(name: str, text: str) -> NoReturn:
    raise BadField(name, f"{name} is an amount in dollars from 0 to {NET_WORTH_MOST}, not {text[:40]!r}")


def _list(given: Mapping[str, object], name: str, one: Callable[[object], T]) -> list[T]:
    value = given.get(name)
    items: Sequence[object] = value if isinstance(value, list) else _text(given, name).split(";")
    made = [one(item) for item in items if not (isinstance(item, str) and not item.strip()) and item is not None]
    if len(made) > NAMES_MOST:
        raise BadField(name, f"{name} names {len(made)}; at most {NAMES_MOST}")
    return made


def _names(given: Mapping[str, object], name: str) -> list[str]:
    return _list(given, name, lambda item: _text({name: item}, name))


def _comparables(given: Mapping[str, object]) -> list[dict[str, str | None]]:
    return _list(given, "comparables", _comparable)


def _comparable(item: object) -> dict[str, str | None]:
    if isinstance(item, dict):
        name, tier = _text(item, "name"), _tier(item, "tier")
    else:
        name, _, text = _text({"comparables": item}, "comparables").partition("=")
        tier = _tier({"comparables": text}, "comparables")
    if not name.strip():
        raise BadField("comparables", "a comparable is a name, or name=TIER")
    return {"name": name.strip(), "tier": tier}
