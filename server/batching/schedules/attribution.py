"""Items of a dataset to the businesses that asked for them: one page, one transaction; and what is settled at a run's end.

    page fetched --harvest.read--> places, reviews      (no transaction is open meanwhile)
    transaction: hold the run's row, at this very page
                 places -> mappings: by the identifier that was sent AND by the one that the provider returned
                 one copy for each mapping, under its own team; what nobody asked for is counted and dropped
                 what a place is called at the provider is learnt
                 the run's counts, what was found, where the next page begins
                 after the last page: what is missing goes to the queue of retries, what was found leaves it

A page is stored once or not at all: whoever comes second finds the run's row at another page and stops. Reviews are upserts, so a
run that is attributed anew (it ended twice, somebody resurrected it) changes nothing but what is new. A review that has not
changed is not written; one that has counts as edited, unless the copy that is here was fetched later.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import asyncpg

from server.batching.schedules import retries
from server.batching.schedules.harvest import Harvest, Overview, Place, Review
from server.batching.schedules.intents import intent_of
from server.batching.schedules.outcomes import Intent, Ladder, State, fails, why
from server.batching.schedules.plan import Platform
from server.edge.postgres import Connection

LOCATION: Final = re.compile(r"-d(\d+)(?:-|$)")
"""A TripAdvisor address holds the id that is returned for it."""

ROWS_MOST: Final = 20_000
"""Reviews that one statement writes: a place that a thousand teams follow takes several, each well within its time."""

HOLD: Final = """
select * from schedules.provider_run
where id = $1 and page = $2 and processed_at is null
    and state in ('succeeded', 'failed', 'aborted', 'timed_out', 'refused')
for no key update"""
MAPPINGS: Final = """
select business_id, team, identifier, returned, platform::text, type::text from schedules.mapping
where platform = $1::text and type = $2::text and identifier = any ($3::text[])
union
select business_id, team, identifier, returned, platform::text, type::text from schedules.mapping
where platform = $1::text and type = $2::text and returned = any ($4::text[])"""
LEARN: Final = """
with held as (
    select m.ctid, learnt.returned from schedules.mapping m
    join unnest($3::bigint[], $4::text[]) as learnt (business_id, returned) using (business_id)
    where m.platform = $1::text and m.type = $2::text order by m.business_id for no key update of m
)
update schedules.mapping m set returned = held.returned from held where m.ctid = held.ctid"""
# By the key, review by review (`offset 0` keeps the planner from anything else, such as reading a table that it takes for small).
REVIEWS: Final = """
with item as (
    select * from unnest($4::int[], $5::text[], $6::float8[], $7::text[], $8::text[], $9::text[], $10::text[],
        $11::timestamptz[], $12::bytea[]) as i (place, review_id, rating, title, text, author, url, published_at, hash)
), target as (
    select * from unnest($13::int[], $14::bigint[], $15::text[]) as t (place, business_id, team)
), written as (
insert into schedules.review as r (team, business_id, platform, review_id, rating, title, text, author, url, published_at,
    hash, run_id, fetched_at)
select distinct on (t.team, t.business_id, i.review_id) t.team, t.business_id, $1::text, i.review_id, i.rating, i.title, i.text,
    i.author, i.url, i.published_at, i.hash, $2::bigint, $3::timestamptz
from item i join target t using (place)
where not exists (
    select from schedules.review old where old.team = t.team and old.business_id = t.business_id and old.platform = $1::text
        and old.review_id = i.review_id and (old.hash = i.hash or old.fetched_at > $3::timestamptz) offset 0)
order by t.team, t.business_id, i.review_id
on conflict (team, business_id, platform, review_id) do update set rating = excluded.rating, title = excluded.title,
    text = excluded.text, author = excluded.author, url = excluded.url, published_at = excluded.published_at,
    hash = excluded.hash, run_id = excluded.run_id, fetched_at = excluded.fetched_at, edits = r.edits + 1
where r.hash <> excluded.hash and r.fetched_at <= excluded.fetched_at
returning 1
)
select count(*)::int as written from written"""
OVERVIEWS: Final = """
with written as (
insert into schedules.overview (team, business_id, platform, fetched_at, rating, review_count, name, run_id)
select distinct on (t.team, t.business_id) t.team, t.business_id, $1::text, $3::timestamptz, i.rating, i.count, i.name, $2::bigint
from unnest($4::int[], $5::float8[], $6::bigint[], $7::text[]) as i (place, rating, count, name)
join unnest($8::int[], $9::bigint[], $10::text[]) as t (place, business_id, team) using (place)
order by t.team, t.business_id
on conflict (team, business_id, platform, fetched_at) do update set rating = excluded.rating,
    review_count = excluded.review_count, name = excluded.name, run_id = excluded.run_id
returning 1
)
select count(*)::int as written from written"""
ADVANCE: Final = """
update schedules.provider_run set page = page + $2, items = items + $3, attributed = attributed + $4, unasked = unasked + $5,
    found = $6::text[], checked_at = clock_timestamp(), error = $7, missing = $8,
    processed_at = case when $9::boolean then clock_timestamp() end
where id = $1"""
SLICE: Final = """
select team, business_id, platform::text, fetched_at,
    lead(fetched_at) over (partition by team, business_id, platform order by fetched_at) is not null as superseded,
    extract(epoch from now() - fetched_at)::float8 / 86400 as age_days
from (
    select * from schedules.overview
    where (team, business_id, platform, fetched_at) > ($1::text, $2::bigint, $3::text, $4::timestamptz)
    order by team, business_id, platform, fetched_at limit $5
) slice
order by team, business_id, platform, fetched_at"""
REMOVE: Final = """
delete from schedules.overview o
using unnest($1::text[], $2::bigint[], $3::text[], $4::timestamptz[]) as u (team, business_id, platform, fetched_at)
where o.team = u.team and o.business_id = u.business_id and o.platform = u.platform and o.fetched_at = u.fetched_at"""


@dataclass(frozen=True, slots=True)
class Target:
    """A mapping that a place belongs to."""

    business_id: int
    team: str
    identifier: str
    returned: str | None


@dataclass(frozen=True, slots=True)
class Resolved:
    """Whose places these are: the targets of each; what was found of what was asked; what is learnt, by business."""

    targets: tuple[tuple[Target, ...], ...]
    found: frozenset[str]
    learnt: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class Held:
    """A run whose row this transaction holds."""

    intent: Intent
    state: State
    fetched_at: dt.datetime
    found: frozenset[str]
    error: str | None


@dataclass(frozen=True, slots=True)
class Brought:
    """A page of a run's dataset, from this position on; without a harvest there was no dataset. `last`: none comes after it."""

    run: int
    page: int
    harvest: Harvest | None
    count: int
    last: bool


@dataclass(frozen=True, slots=True)
class Settled:
    """A run of which nothing more comes, and how many of its businesses it has brought nothing for."""

    intent: Intent
    state: State
    missing: int


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of some pages: how many were stored, items attributed, items that nobody asked for, reviews or overviews
    written, runs settled."""

    pages: int = 0
    attributed: int = 0
    unasked: int = 0
    written: int = 0
    settled: tuple[Settled, ...] = ()


Position: TypeAlias = tuple[str, int, str, dt.datetime]
"""A row of the overviews, by its key."""


@dataclass(frozen=True, slots=True)
class Passed:
    """What became of a slice of the overviews; `to` is where the next one begins, None at the end."""

    removed: int
    to: Position | None


NOTHING: Final = Resolved((), frozenset(), ())

# Whose is it. Pure.


def resolve(intent: Intent, places: Sequence[Place], mappings: Iterable[Target]) -> Resolved:
    """All mappings of each place, by what was sent for it and by what it is called."""
    targets = list(mappings)
    by_sent: dict[str, list[Target]] = {}
    by_returned: dict[str, list[Target]] = {}
    for target in targets:
        by_sent.setdefault(target.identifier, []).append(target)
        if target.returned is not None:
            by_returned.setdefault(target.returned, []).append(target)
    asked = [_asked(intent, place, places) for place in places]
    of = tuple(
        tuple(dict.fromkeys([*by_sent.get(sent or "", ()), *by_returned.get(place.returned or "", ())]))
        for sent, place in zip(asked, places, strict=True)
    )
    hit = {target.identifier for group in of for target in group} | {sent for sent in asked if sent is not None}
    learnt = {
        target.business_id: place.returned
        for sent, place in zip(asked, places, strict=True)
        for target in by_sent.get(sent or "", ())
        if place.returned is not None and place.returned not in (sent, target.returned)
    }
    return Resolved(of, frozenset(hit & set(intent.identifiers)), tuple(sorted(learnt.items())))


def _asked(intent: Intent, place: Place, places: Sequence[Place]) -> str | None:
    """The identifier that a place was asked for by, as far as can be known without what was learnt before."""
    if place.sent is not None or place.returned is None:
        return place.sent
    if len(intent.identifiers) == 1 and len(places) == 1:
        return intent.identifiers[0]  # One was asked for, and one came: it is that one.
    return next((one for one in intent.identifiers if told_by(intent.platform, one) == place.returned), None)


def told_by(platform: Platform, identifier: str) -> str | None:
    """What the provider will call a place, where its address tells."""
    found = LOCATION.search(identifier) if platform == "tripadvisor" else None
    return found[1] if found else None


# Pages.


async def store(connection: Connection, pages: Sequence[Brought], ladder: Ladder) -> Stored:
    """These pages, of as many runs; those with which somebody else has gone on are left out. Their runs move on, and are settled
    after the last page."""
    held = await hold(connection, [(page.run, page.page) for page in pages])
    here = sorted((page for page in pages if page.run in held), key=lambda page: page.run)
    read = [(held[page.run], page.harvest) for page in here if page.harvest is not None]
    resolved = await _resolved(connection, read)
    learnt = [
        (one.intent.platform, one.intent.type, *map(list, zip(*resolved[one.intent.id].learnt, strict=True)))
        for one, _ in read
        if resolved[one.intent.id].learnt
    ]
    if learnt:
        await connection.executemany(LEARN, learnt)
    written = await _write(connection, [(one, harvest, resolved[one.intent.id]) for one, harvest in read])
    ended = [_advanced(held[page.run], page, resolved.get(page.run, NOTHING)) for page in here]
    await connection.executemany(ADVANCE, [one.row for one in ended])
    await _settle(connection, [one for one in ended if one.last], ladder)
    return Stored(
        len(here),
        sum(one.attributed for one in ended),
        sum(one.unasked for one in ended),
        written,
        tuple(Settled(one.held.intent, one.held.state, len(one.missing)) for one in ended if one.last),
    )


async def hold(connection: Connection, runs: Sequence[tuple[int, int]]) -> dict[int, Held]:
    """Those of these runs, locked, that are at these pages: with the others somebody else has gone on."""
    rows = await connection.fetchmany(HOLD, sorted(runs))
    return {row["id"]: _held(row) for row in rows}


def _held(row: asyncpg.Record) -> Held:
    at = row["finished_at"] or row["started_at"] or row["created_at"]
    return Held(intent_of(row), row["state"], at, frozenset(row["found"]), row["error"])


async def _resolved(connection: Connection, read: Sequence[tuple[Held, Harvest]]) -> dict[int, Resolved]:
    """By run: whose its places are."""
    asked = []
    for one, harvest in read:
        sent = {place.sent for place in harvest.places if place.sent is not None} | set(one.intent.identifiers)
        returned = {place.returned for place in harvest.places if place.returned is not None}
        asked.append((one.intent.platform, one.intent.type, list(sent), list(returned)))
    targets: dict[tuple[str, str], list[Target]] = {}
    for row in await connection.fetchmany(MAPPINGS, asked) if asked else ():
        targets.setdefault((row[4], row[5]), []).append(Target(row[0], row[1], row[2], row[3]))
    return {
        one.intent.id: resolve(one.intent, harvest.places, targets.get((one.intent.platform, one.intent.type), ()))
        for one, harvest in read
    }


@dataclass(frozen=True, slots=True)
class _Advanced:
    """A run after its page."""

    held: Held
    page: Brought
    attributed: int
    found: frozenset[str]

    @property
    def unasked(self) -> int:
        return (self.page.harvest.items if self.page.harvest else 0) - self.attributed

    @property
    def last(self) -> bool:
        return self.page.last

    @property
    def missing(self) -> list[str]:
        return sorted(set(self.held.intent.identifiers) - self.found) if self.last else []

    @property
    def row(self) -> tuple[object, ...]:
        """For ADVANCE."""
        items = self.attributed + self.unasked
        head = (self.held.intent.id, self.page.count, items, self.attributed, self.unasked)
        return (*head, sorted(self.found), self.held.error, len(self.missing), self.last)


def _advanced(held: Held, page: Brought, resolved: Resolved) -> _Advanced:
    of = page.harvest.of if page.harvest else ()
    attributed = sum(1 for place in of if place >= 0 and resolved.targets[place])
    return _Advanced(held, page, attributed, held.found | resolved.found)


async def _write(connection: Connection, read: Sequence[tuple[Held, Harvest, Resolved]]) -> int:
    reviews: list[tuple[object, ...]] = []
    overviews: list[tuple[object, ...]] = []
    for one, harvest, resolved in read:
        copies = [(n, target) for n, group in enumerate(resolved.targets) for target in group]
        head = (one.intent.platform, one.intent.id, one.fetched_at)
        if harvest.reviews:
            columns = _review_columns(harvest.reviews)
            weights = Counter(review.place for review in harvest.reviews)
            slices = sliced(copies, weights, ROWS_MOST)
            reviews += [(*head, *columns, *_target_columns(some)) for some in slices]
        if harvest.overviews and copies:
            overviews.append((*head, *_overview_columns(harvest.overviews), *_target_columns(copies)))
    rows = [
        row
        for sql, values in ((REVIEWS, reviews), (OVERVIEWS, overviews))
        if values
        for row in await connection.fetchmany(sql, values)
    ]
    return sum(row["written"] for row in rows)


def sliced(
    copies: Sequence[tuple[int, Target]], weights: Mapping[int, int], most: int
) -> Iterator[list[tuple[int, Target]]]:
    """The copies in slices of so many rows, or a little more; those of a place without reviews in none."""
    some: list[tuple[int, Target]] = []
    rows = 0
    for place, target in copies:
        weight = weights.get(place, 0)
        if weight:
            some.append((place, target))
            rows += weight
        if rows >= most:
            yield some
            some, rows = [], 0
    if some:
        yield some


def _target_columns(copies: Sequence[tuple[int, Target]]) -> tuple[list[int], list[int], list[str]]:
    return [place for place, _ in copies], [t.business_id for _, t in copies], [t.team for _, t in copies]


def _review_columns(seen: Sequence[Review]) -> tuple[list[object], ...]:
    """One array for each column of REVIEWS."""
    names = ("place", "id", "rating", "title", "text", "author", "url", "published_at", "hash")
    return tuple([getattr(review, name) for review in seen] for name in names)


def _overview_columns(seen: Sequence[Overview]) -> tuple[list[object], ...]:
    names = ("place", "rating", "count", "name")
    return tuple([getattr(overview, name) for overview in seen] for name in names)


async def _settle(connection: Connection, ended: Sequence[_Advanced], ladder: Ladder) -> None:
    """After the last page: what was found leaves the queue of retries, what is missing goes there."""
    await retries.resolve(connection, [(one.held.intent, sorted(one.found)) for one in ended if one.found])
    for one in ended:
        intent, reason = one.held.intent, why(one.held.state, one.held.error)
        if one.missing and fails(intent.kind, one.held.state):
            if intent.kind == "retry":
                await retries.failed_again(connection, intent.id, reason, ladder)
            else:
                await retries.enqueue(connection, intent, one.missing, reason, ladder)


# Clean-up.


async def tidy(connection: Connection, after: Position | None, days: int, limit: int) -> Passed:
    """Go through a slice of the overviews, from a position on, and remove the old ones but the newest of each business."""
    values = ("", 0, "", dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) if after is None else after
    rows = await connection.fetch(SLICE, *values, limit)
    old = [tuple(row)[:4] for row in rows if row["superseded"] and row["age_days"] > days]
    removed = _count(await connection.execute(REMOVE, *map(list, zip(*old, strict=True)))) if old else 0
    last = rows[-1] if len(rows) == limit else None
    return Passed(removed, None if last is None else (last[0], last[1], last[2], last[3]))


def _count(answer: str) -> int:
    return int(answer.rpartition(" ")[2])
