"""Why an event has its place in a view, or none: the same rules as the ranking, said step by step. Engine's thread only."""

from __future__ import annotations

from dataclasses import asdict

from server.batching.scores.lookout import Lookout
from server.batching.scores.question import Question, admits, in_viewport, passes
from server.batching.scores.ranking import Ranking, best_first, candidate_rows, raw_of
from server.batching.scores.score import (
    chord2,
    chord2_of_km,
    components,
    km_of_chord2,
    raw_score,
    relative_score,
    unit_vector,
)
from server.core.event import SHOWN, Event, visible_to
from server.errors import Code, Refused


def explain(lookout: Lookout, question: Question, event_id: str, now_ms: int) -> dict[str, object]:
    """The fields of `explanation`; not_found for an unknown id and, the same, for one that the viewer may not see."""
    columns = lookout.columns
    slot = columns.slot_of(event_id)
    if slot is None or not columns.exists(slot) or not visible_to(columns.event(slot), question.user):
        raise Refused(Code.NOT_FOUND, f"no event {event_id!r}", field="eventId")
    event, (start_ms, end_ms) = columns.event(slot), columns.starts(slot)
    view = lookout.view(question, now_ms)
    shown = view.slots.tolist()
    rank = shown.index(slot) + 1 if slot in shown else None
    return {
        "eventId": event_id,
        "inView": rank is not None,
        "rank": rank,
        "access": True,
        "status": event.status in SHOWN,
        "window": lookout.rules.window.holds(start_ms, now_ms),
        "viewport": in_viewport(question.viewport, event.latitude, event.longitude),
        "filters": passes(question.filters, event, start_ms, end_ms),
        **_scored(lookout, question, slot, now_ms),
        "cut": _cut(lookout, view, question),
        "spacingNeighbour": None if rank is not None else _neighbour(lookout, question, slot, view, now_ms),
    }


def _km(event: Event, question: Question) -> float:
    return km_of_chord2(chord2(unit_vector(event.latitude, event.longitude), question.origin()))


def _scored(lookout: Lookout, question: Question, slot: int, now_ms: int) -> dict[str, object]:
    """Components and raw of any event; place and relative score of a candidate."""
    columns, rules = lookout.columns, lookout.rules
    event, (start_ms, _) = columns.event(slot), columns.starts(slot)
    km = _km(event, question)
    terms = components(event, start_ms, km, now_ms)
    raw = raw_score(terms, rules.weights)
    rows = candidate_rows(columns, question, rules.window, now_ms)
    row = int(columns.world.row_of[slot])
    place = relative = None
    if row in rows.tolist():
        raws = raw_of(columns, rows, question, rules.weights, now_ms)
        order = [int(rows[i]) for i in best_first(columns, rows, raws)]
        place = order.index(row) + 1
        raw = float(raws[rows.tolist().index(row)])
        relative = relative_score(len(rows), int((raws > raw).sum()), raw, float(raws.min()), float(raws.max()))
    return {
        "components": asdict(terms),
        "weights": asdict(rules.weights),
        "distanceKm": round(km, 3),
        "raw": raw,
        "relativeScore": relative,
        "place": place,
        "candidates": len(rows),
    }


def _cut(lookout: Lookout, view: Ranking, question: Question) -> dict[str, object] | None:
    """The last one kept of a full view: what an event must beat to come in."""
    if len(view.slots) < question.limit:
        return None
    last = lookout.columns.id_of(int(view.slots[-1]))
    return {"eventId": last, "raw": float(view.raws[-1]), "score": float(view.scores[-1])}


def _neighbour(lookout: Lookout, question: Question, slot: int, view: Ranking, now_ms: int) -> str | None:
    """The better event that stands too near, if one does."""
    columns, rules = lookout.columns, lookout.rules
    event, (start_ms, end_ms) = columns.event(slot), columns.starts(slot)
    if rules.spacing_km <= 0 or not admits(question, event, start_ms, end_ms, rules.window, now_ms):
        return None
    here, least = unit_vector(event.latitude, event.longitude), chord2_of_km(rules.spacing_km)
    raw = raw_score(components(event, start_ms, _km(event, question), now_ms), rules.weights)
    for kept, kept_raw in zip(view.slots.tolist(), view.raws.tolist(), strict=True):
        other = columns.event(kept)
        if kept_raw >= raw and chord2(here, unit_vector(other.latitude, other.longitude)) < least:
            return columns.id_of(kept)
    return None
