"""Why an event has its place in a view, or none: the same rules as the ranking, said step by step."""

from __future__ import annotations

from dataclasses import asdict

from server.batching.scores.columns import Entry
from server.batching.scores.question import Question, in_viewport, passes
from server.batching.scores.ranking import Ranking, best_first, candidate_rows, raw_of
from server.batching.scores.score import chord2, chord2_of_km, components, km_of_chord2, relative_score, unit_vector
from server.batching.scores.views import Look
from server.core.event import SHOWN, visible_to
from server.errors import Code, Refused


def explain(look: Look, question: Question, event_id: str) -> dict[str, object]:
    """The fields of `explanation`; not_found for an unknown id and, the same, for one that the viewer may not see."""
    entry = look.columns.get(event_id)
    if entry is None or not visible_to(entry.event, question.user):
        raise Refused(Code.NOT_FOUND, f"no event {event_id!r}", field="eventId")
    view = look.at(question)
    shown = [e.event.id for e in view.entries]
    rank = shown.index(event_id) + 1 if event_id in shown else None
    event = entry.event
    return {
        "eventId": event_id,
        "inView": rank is not None,
        "rank": rank,
        "access": True,
        "status": event.status in SHOWN,
        "window": look.rules.window.holds(entry.start_ms, look.now_ms),
        "viewport": in_viewport(question.viewport, event.latitude, event.longitude),
        "filters": passes(question.filters, event, entry.start_ms, entry.end_ms),
        **_scored(look, question, entry),
        "cut": _cut(view, question),
        "spacingNeighbour": None if rank is not None else _neighbour(look, question, entry, view),
    }


def _scored(look: Look, question: Question, entry: Entry) -> dict[str, object]:
    """Components and raw of any event; place and relative score of a candidate."""
    km = km_of_chord2(chord2(unit_vector(entry.event.latitude, entry.event.longitude), question.origin()))
    raw = look.raw(entry, question)
    rows = candidate_rows(look.columns, question, look.rules.window, look.now_ms)
    place = relative = None
    if entry.row in rows.tolist():
        raws = raw_of(look.columns, rows, question, look.rules.weights, look.now_ms)
        order = [int(rows[i]) for i in best_first(look.columns, rows, raws)]
        place = order.index(entry.row) + 1
        raw = float(raws[rows.tolist().index(entry.row)])
        relative = relative_score(len(rows), int((raws > raw).sum()), raw, float(raws.min()), float(raws.max()))
    return {
        "components": asdict(components(entry.event, entry.start_ms, km, look.now_ms)),
        "weights": asdict(look.rules.weights),
        "distanceKm": round(km, 3),
        "raw": raw,
        "relativeScore": relative,
        "place": place,
        "candidates": len(rows),
    }


def _cut(view: Ranking, question: Question) -> dict[str, object] | None:
    """The last one kept of a full view: what an event must beat to come in."""
    if len(view.entries) < question.limit:
        return None
    return {"eventId": view.entries[-1].event.id, "raw": view.raws[-1], "score": view.scores[-1]}


def _neighbour(look: Look, question: Question, entry: Entry, view: Ranking) -> str | None:
    """The better event that stands too near, if one does."""
    if look.rules.spacing_km <= 0 or not look.admits(entry, question):
        return None
    here, least = unit_vector(entry.event.latitude, entry.event.longitude), chord2_of_km(look.rules.spacing_km)
    raw = look.raw(entry, question)
    for kept, kept_raw in zip(view.entries, view.raws, strict=True):
        there = unit_vector(kept.event.latitude, kept.event.longitude)
        if kept_raw >= raw and chord2(here, there) < least:
            return kept.event.id
    return None
