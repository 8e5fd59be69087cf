"""One month of one person: its slots, its rotations, its visits, and why it has fewer than it should. Pure.

    plan = month(request, month, planned_at, seed)

What stands is kept: booked slots, past ones and those of other months are given (`kept`, `visits`, `stored`), count, and
are planned around. The same request gives the same plan, and a plan depends on nobody else's.

What the rules leave open and is decided here:
- A month's physical slots are spread over 1 to 3 visits (`visits.py`), as many as its rotations allow; their days are drawn
  from all days of the month.
- Lead times count as instants from `planned_at`, and only they make a first month smaller: counts are not lowered in
  proportion. So a person planned late in a month has its slots close together, or has none and the reason `lead_time`.
- Virtual slots keep the hours of the person's own time zone, wherever it travels.
- Counts are drawn once a month, whatever is kept; what is kept beyond them lowers the rest, virtual first, never below the
  minimum.
- All three packages of a kind must be active when slots of that kind are planned, whichever lengths come up.
- A month whose days can't hold what was drawn has what fits, and a reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Final, Literal, TypeAlias

from server.batching.tiers.chance import numbers, pick, stream, within
from server.batching.tiers.months import DAY_S, days_of
from server.batching.tiers.rotations import Rotation, laid
from server.batching.tiers.rules import CITIES_MOST, LEAD_DAYS, PACKAGES, RULES, City, Kind, PlanError, Span, Tier
from server.batching.tiers.slots import Agenda, Kept, Place, Slot
from server.batching.tiers.visits import Days, Travels, Visit, with_cities

__all__ = ["Kept", "Plan", "Reason", "Request", "Rotation", "Slot", "Visit", "month"]

Reason: TypeAlias = Literal["not_allowed", "pool_exhausted", "lead_time", "no_room"]
REASONS: Final[tuple[Reason, ...]] = ("not_allowed", "pool_exhausted", "lead_time", "no_room")

NEAR_DAYS: Final = 2
"""Slots that begin further from a month are at no time of its own, in whatever zones."""
PHYSICAL_MOST: Final = max(rules.physical[1] for rules in RULES.values())
# Where in its stream of numbers the planning of visits finds what it needs.
_EXTRA, _DAY, _CITY, _SLOT = 1, 1 + PHYSICAL_MOST, 4 + PHYSICAL_MOST, 7 + PHYSICAL_MOST
_TRAVEL: Final = _SLOT + 2 * PHYSICAL_MOST
_BY_DAY: Final = attrgetter("day")
_BY_START: Final = attrgetter("starts")


@dataclass(frozen=True, slots=True)
class Request:
    """A person as planning sees it. `prices` are in the order of PACKAGES, None where a package is not active."""

    key: str
    tier: Tier
    home: str | None
    timezone: str
    max_monthly_slots: int
    prices: tuple[int | None, ...]
    pool: tuple[City, ...]
    allow_physical: bool = True
    allow_virtual: bool = True
    stored: tuple[Rotation, ...] = ()
    visits: tuple[Visit, ...] = ()
    kept: tuple[Kept, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What is new in a month. `rotations` have the cities of other months' visits too; `reasons` say why a kind is short."""

    slots: tuple[Slot, ...]
    rotations: tuple[Rotation, ...]
    visits: tuple[Visit, ...]
    reasons: Mapping[Kind, Reason]


def month(request: Request, month: int, planned_at: int, seed: bytes) -> Plan:
    """What to offer of a person in a month, planned at that instant. PlanError: something is wrong with this person."""
    rotations = laid(seed, request.key, request.tier, request.stored, month)
    draft = _Draft(request, month, planned_at, seed)
    physical, virtual = draft.wanted()
    if physical:
        draft.travel(physical, rotations)
    if virtual:
        draft.call(virtual)
    visits = sorted((*request.visits, *draft.travels.added), key=_BY_DAY)
    return Plan(
        tuple(sorted(draft.agenda.slots, key=_BY_START)),
        tuple(with_cities(one, visits) for one in rotations),
        tuple(draft.travels.added),
        draft.reasons,
    )


class _Draft:
    """The month of a person while it is being planned."""

    __slots__ = ("_end", "_first", "_month", "_planned_at", "_request", "_seed", "agenda", "reasons", "travels")

    def __init__(self, request: Request, month: int, planned_at: int, seed: bytes) -> None:
        self._request, self._month, self._planned_at, self._seed = request, month, planned_at, seed
        self._first, self._end = days_of(month)
        near = (self._first - NEAR_DAYS) * DAY_S, (self._end + NEAR_DAYS) * DAY_S
        self.agenda = Agenda(slot for slot in request.kept if near[0] < slot.starts < near[1])
        self.travels = Travels(seed, request.key, request.visits)
        self.reasons: dict[Kind, Reason] = {}

    def wanted(self) -> Span:
        """Physical and virtual slots to add to those that stay. Too many in all: fewer virtual ones, then fewer physical."""
        rules, draws = RULES[self._request.tier], numbers(self._seed, self._request.key, "counts", self._month)
        standing = self._standing("physical"), self._standing("virtual")
        least_p, physical = self._drawn("physical", rules.physical, draws[0], standing[0])
        least_v, virtual = self._drawn("virtual", rules.virtual, draws[1], standing[1])
        over = physical + virtual - self._request.max_monthly_slots
        if over > 0:
            fewer = min(over, virtual - least_v)
            virtual -= fewer
            physical -= min(over - fewer, physical - least_p)
        return physical - standing[0], virtual - standing[1]

    def _drawn(self, kind: Kind, span: Span, draw: int, standing: int) -> Span:
        """The fewest slots of a kind that may be left, and how many are drawn."""
        allowed = self._request.allow_physical if kind == "physical" else self._request.allow_virtual
        if not allowed:
            self.reasons[kind] = "not_allowed"
            return standing, standing
        return max(standing, span[0]), max(standing, within(draw, span))

    def _standing(self, kind: Kind) -> int:
        return sum(slot.kind == kind and self._first <= slot.day < self._end for slot in self._request.kept)

    def travel(self, wanted: int, rotations: Sequence[Rotation]) -> None:
        """Physical slots, on the days of visits to cities that are free."""
        request, (earliest, first) = self._request, self._opening("physical")
        prices = _prices(request, "physical")
        days = Days(self._month, (first, self._end), rotations, request.visits)
        draws = stream(self._seed, request.key, "travel", self._month, _TRAVEL)
        shares = _shares(wanted, days.most, draws)
        left, attempt, exhausted = wanted, 0, False
        while left and (found := days.take(draws[_DAY + attempt % CITIES_MOST])) is not None:
            day, rotation = found
            city = self.travels.free(request.pool, request.home, day, draws[_CITY + attempt % CITIES_MOST])
            if city is None:
                exhausted = True
            elif placed := self._meet(city, day, left - sum(shares[attempt + 1 :]), prices, earliest, draws):
                self.travels.add(city.id, day)
                days.use(rotation)
                left -= placed
            attempt += 1
        left = self._lengthen(left, prices, earliest, draws) if left else 0
        self._reckon("physical", left, earliest, "pool_exhausted" if exhausted else "no_room")

    def _lengthen(self, left: int, prices: Mapping[int, int], earliest: int, draws: Sequence[int]) -> int:
        """Slots that no further visit can take, on the days of the visits there are."""
        cities = {city.id: city for city in self._request.pool}
        for visit in (*self._request.visits, *self.travels.added):
            if self._first <= visit.day < self._end and visit.city in cities:
                left -= self._meet(cities[visit.city], visit.day, left, prices, earliest, draws)
        return left

    def _meet(
        self, city: City, day: int, wanted: int, prices: Mapping[int, int], earliest: int, draws: Sequence[int]
    ) -> int:
        """As many slots as the day takes, up to those that are wanted."""
        place = Place("physical", city.timezone, prices, earliest, city.id)
        for placed in range(wanted):
            at = _SLOT + 2 * len(self.agenda.slots)
            if not self.agenda.offer(place, day, draws[at], draws[at + 1]):
                return placed
        return wanted

    def call(self, wanted: int) -> None:
        """Virtual slots, on any days of the month."""
        request, (earliest, first) = self._request, self._opening("virtual")
        place = Place("virtual", request.timezone, _prices(request, "virtual"), earliest)
        draws = stream(self._seed, request.key, "virtual", self._month, 3 * wanted)
        left, many = wanted, max(0, self._end - first)
        for at in range(0, 3 * wanted, 3):
            drawn = pick(draws[at], 0, many - 1)
            for step in range(many):
                if self.agenda.offer(place, first + (drawn + step) % many, draws[at + 1], draws[at + 2]):
                    left -= 1
                    break
        self._reckon("virtual", left, earliest, "no_room")

    def _opening(self, kind: Kind) -> Span:
        """The first instant that a slot may begin at, and the first day of the month that may have one."""
        earliest = self._planned_at + LEAD_DAYS[kind] * DAY_S
        return earliest, max(self._first, earliest // DAY_S)

    def _reckon(self, kind: Kind, left: int, earliest: int, reason: Reason) -> None:
        """Say why slots are left over."""
        if left:
            late = reason == "no_room" and earliest // DAY_S >= self._first
            self.reasons[kind] = "lead_time" if late else reason


def _shares(wanted: int, visits_most: int, draws: Sequence[int]) -> list[int]:
    """How many slots each visit gets: how many visits is drawn, and who gets what is more than one each."""
    shares = [1] * pick(draws[0], 1, max(1, min(wanted, CITIES_MOST, visits_most)))
    for extra in range(wanted - len(shares)):
        shares[pick(draws[_EXTRA + extra], 0, len(shares) - 1)] += 1
    return shares


def _prices(request: Request, kind: Kind) -> dict[int, int]:
    """Prices by minutes; a slot is never offered without one."""
    found = {}
    for (of, minutes), cents in zip(PACKAGES, request.prices, strict=True):
        if of == kind:
            if cents is None:
                raise PlanError(f"{request.key} has no active package {kind} {minutes}; classify this person again")
            found[minutes] = cents
    return found
