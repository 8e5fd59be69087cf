"""Ranking and the flush, in this process: no database, no sockets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Final, Protocol

from server.batching.scores.question import Question
from tests.bench import crowds
from tests.bench.crowds import Crowd, Views
from tests.bench.ours import Flush, Ours
from tests.bench.rivals import Brute, Naive, RTree, Seen
from tests.bench.suite import Context, Row, Run, measure

CANDIDATES: Final = 700
SAMPLE: Final = 200
"""Viewers whose views are compared with a rival's."""
FAR: Final = 5
"""The same, where each view is the whole world."""


class Rival(Protocol):
    """Something that ranks one viewer at a time."""

    def view(self, views: Views, viewer: int) -> Seen:
        """One viewer's fresh view."""


def ranking_cities(context: Context) -> Iterator[Row]:
    """Ranking, events clustered like cities, beside everything else it could be done with."""
    crowd, views, ours = _cities(context.seed, context.size(1_000_000, 20_000), context.size(10_000, 200))
    yield _ranking("ranking, cities", crowd, views, ours, samples=(5, 60, 400), bar=0.45, goal=0.2)


def ranking_square(context: Context) -> Iterator[Row]:
    """The ranking inside the flush below, beside everything else it could be done with."""
    crowd, views = crowds.square(context.seed, 10_000, context.size(1000, 100), 0.05)
    yield _ranking("ranking, 1 x 1 degree", crowd, views, Ours(crowd), samples=(20, 200, 200))


def _ranking(
    name: str,
    crowd: Crowd,
    views: Views,
    ours: Ours,
    *,
    samples: tuple[int, int, int],
    bar: float | None = None,
    goal: float | None = None,
) -> Row:
    rivals: dict[str, Rival] = {"plain Python": Naive(crowd), "NumPy": Brute(crowd), "STRtree": RTree(crowd)}
    questions = views.questions()
    seen = ours.views(questions)
    counts = dict(zip(rivals, samples, strict=True))
    for rival, count in counts.items():
        same(seen, rivals[rival], views, min(count, SAMPLE, len(views)))
    runs = {rival: _sampled(rivals[rival], views, count) for rival, count in counts.items()}
    times = measure({"ours": lambda: ours.rank(questions), **runs})
    candidates = sum(one.candidates for one in seen) / len(seen)
    return Row(
        name,
        f"{len(views):,} viewers x {len(crowd):,} events, {candidates:.0f} candidates a view, exact",
        times["ours"].seconds,
        "s",
        bar,
        goal,
        machine=True,
        against={rival: times[rival].seconds for rival in rivals},
        note=f"rivals are extrapolated from {', '.join(f'{c} ({n})' for n, c in counts.items())} viewers, whose views "
        "they rank equally; their trees and columns are made beforehand, ours computes base scores in the measured time",
    )


def same(seen: list[Seen], rival: Rival, views: Views, count: int) -> None:
    """Does a rival rank the first few viewers just so?"""
    for viewer in range(count):
        theirs = rival.view(views, viewer)
        assert seen[viewer].equals(theirs), f"viewer {viewer}: ours {seen[viewer]}, {type(rival).__name__} {theirs}"


def _sampled(rival: Rival, views: Views, count: int) -> Run:
    return Run(
        lambda: [rival.view(views, viewer) for viewer in range(min(count, len(views)))],
        share=min(count, len(views)) / len(views),
    )


def ranking_growth(context: Context) -> Iterator[Row]:
    """How the cost of ranking grows with what is not in view."""
    viewers = context.size(10_000, 200)
    crowd, views, ours = _cities(context.seed, context.size(1_000_000, 20_000), viewers)
    fewer, closer, small = _cities(context.seed, context.size(100_000, 10_000), viewers)
    asked, asked_small, wide = views.questions(), closer.questions(), views.everywhere().questions()
    same(ours.views(wide[:FAR]), Brute(crowd), views.everywhere(), FAR)
    times = measure(
        {
            "whole": lambda: ours.rank(asked),
            "tenth": lambda: small.rank(asked_small),
            "world": lambda: ours.rank(wide),
        }
    )
    yield Row(
        "growth, events x10",
        f"ranking {viewers:,} viewers: {len(crowd):,} events against {len(fewer):,}, as many in view",
        times["whole"] / times["tenth"],
        "x",
        1.3,
        1.1,
        note=f"{times['whole'].seconds:.3f} s against {times['tenth'].seconds:.3f} s",
    )
    yield Row(
        "growth, world-wide views",
        f"ranking {viewers:,} viewers x {len(crowd):,} events: views of the whole world, no filters, against city views",
        times["world"] / times["whole"],
        "x",
        4,
        1.5,
        note=f"{times['world'].seconds:.3f} s against {times['whole'].seconds:.3f} s; each viewer has a place of its own",
    )


def flush(context: Context) -> Iterator[Row]:
    """The whole flush without SQL and sockets, and how it grows."""
    viewers = context.size(1000, 50)
    base, tenfold, crowded = _flush(context, viewers), _flush(context, viewers), _flush(context, viewers * 10)
    times = measure(
        {"base": _flushing(base, 1000), "pending": _flushing(tenfold, 10_000), "viewers": _flushing(crowded, 1000)}
    )
    for world in (base, tenfold, crowded):
        world.check(SAMPLE)
    yield Row(
        "flush",
        f"{viewers:,} viewers x 10,000 events in 1 x 1 degree, views of 5 %, 1,000 pending: publish, rank, compare, frames",
        times["base"].seconds,
        "s",
        0.08,
        0.04,
        machine=True,
        note=_delivered(base),
    )
    yield Row(
        "growth, viewers x10",
        "the whole flush",
        times["viewers"] / times["base"],
        "x",
        10,
        9,
        note=f"{times['viewers'].seconds:.3f} s; {_delivered(crowded)}",
    )
    yield Row(
        "growth, pending x10",
        "the whole flush",
        times["pending"] / times["base"],
        "x",
        2.5,
        2,
        note=f"{times['pending'].seconds:.3f} s; {_delivered(tenfold)}",
    )


def equal_viewers(context: Context) -> Iterator[Row]:
    """What viewers with equal questions share."""
    crowd, views = crowds.square(context.seed, 10_000, context.size(1000, 50), 0.05)
    questions = views.questions()
    ours = Ours(crowd)
    alike = [questions[0]] * len(questions)

    def distinct(asked: list[Question]) -> Callable[[], object]:
        return lambda: ours.rank(list(dict.fromkeys(asked)))

    times = measure({"equal": distinct(alike), "different": distinct(questions)}, 15)
    yield Row(
        "equal viewers",
        f"ranking {len(views):,} viewers with one question between them against as many different ones, 10,000 events",
        times["equal"] / times["different"],
        "x",
        0.1,
        0.02,
        note=f"{times['equal'].seconds * 1e3:.2f} ms against {times['different'].seconds * 1e3:.2f} ms",
    )


@lru_cache(maxsize=2)
def _cities(seed: int, events: int, viewers: int) -> tuple[Crowd, Views, Ours]:
    crowd, views = crowds.cities(seed, events, viewers, CANDIDATES)
    return crowd, views, Ours(crowd)


def _flush(context: Context, viewers: int) -> Flush:
    crowd, views = crowds.square(context.seed, 10_000, viewers, 0.05)
    return Flush(crowd, views, context.seed)


def _flushing(world: Flush, pending: int) -> Run:
    return Run(world.flush, before=lambda: world.change(pending))


def _delivered(world: Flush) -> str:
    size = world.sink.bytes / max(1, world.sink.frames)
    return f"{world.sink.frames:,} frames in all, {size / 1024:.1f} KiB each, snapshots included"


BENCHES: Final = (ranking_cities, ranking_growth, ranking_square, flush, equal_viewers)
