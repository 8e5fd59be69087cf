"""`batchcast what-if`: what another interval, cut, threshold or weighting would cost those connected now."""

from __future__ import annotations

import re
from typing import Annotated, Final

import typer
from rich.table import Table

from server.commands.asking import DEFAULT_URL, AsJson, Token, Url
from server.commands.calling import Json, out, stop
from server.commands.operating import ask, inner, number
from server.commands.printed import table, whole

UNITS_MS: Final = {"ms": 1, "s": 1000, "m": 60_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d)")
TERMS: Final = ("time", "distance", "popularity", "recency", "confidence")
MIB: Final = 1 << 20


def what_if(
    interval: Annotated[str | None, typer.Option("--interval", help="Time between two batches: 30s, 5m, 1h.")] = None,
    max_events: Annotated[
        int | None, typer.Option("--max-events", min=1, max=500, help="As if every viewer asked for so many events.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option("--threshold", min=0, max=1, help="A score that moved by less is not sent.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option("--weights", help="time=.3,popularity=.4,...; what is left out stays.")
    ] = None,
    spacing: Annotated[
        float | None, typer.Option("--spacing", min=0, max=1000, help="Least distance of two events shown (km).")
    ] = None,
    sample: Annotated[int, typer.Option("--sample", min=1, max=2000, help="Viewers to try it on.")] = 200,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Which viewers these are.")] = 0,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """What other settings would cost and change for those connected now, beside the present ones; nothing is sent."""
    named = {
        "intervalMs": None if interval is None else duration_ms("--interval", interval),
        "maxEvents": max_events,
        "threshold": threshold,
        "weights": None if weights is None else weights_of(weights),
        "spacingKm": spacing,
    }
    wish: Json = {name: value for name, value in named.items() if value is not None}
    answer = ask(url, token, "POST", "/what-if", body={**wish, "sample": sample, "seed": seed})
    if as_json:
        out.print_json(data=answer)
        return
    out.print(sides(answer))
    for line in notes(answer):
        out.print(line, soft_wrap=True)


def duration_ms(option: str, text: str) -> int:
    """A time as people write it, in ms."""
    found = DURATION.fullmatch(text.strip())
    if found is None:
        stop(f"{option} is a number with its unit (ms, s, m, h, d), like 30s or 5m, not {text!r}")
    return round(float(found[1]) * UNITS_MS[found[2]])


def weights_of(text: str) -> dict[str, float]:
    """term=share,term=share as an object."""
    found = {}
    for piece in text.split(","):
        name, equals, share = piece.partition("=")
        if name.strip() not in TERMS or not equals:
            stop(f"--weights is TERM=SHARE,... with the terms {', '.join(TERMS)}, not {piece!r}")
        try:
            found[name.strip()] = float(share)
        except ValueError:
            stop(f"--weights {name.strip()} is a number from 0 to 1, not {share!r}")
    return found


def sides(answer: Json) -> Table:
    """The present settings and the asked ones, a row a figure."""
    said = table("", "now", "asked")
    for name, (part, value), words in FIGURES:
        before, after = (inner(inner(answer, side), part).get(value) for side in ("present", "asked"))
        said.add_row(name, words(before), words(after))
    for name, part in (("messages/h a viewer", "messagesPerViewer"), ("bytes/h a viewer", "bytesPerViewer")):
        said.add_row(f"{name}, median; p95", *(_spread(inner(answer, side), part) for side in ("present", "asked")))
    return said


def _spread(side: Json, part: str) -> str:
    values = inner(inner(side, "hour"), part)
    say = size if part == "bytesPerViewer" else plain
    return f"{say(values.get('median'))}; {say(values.get('p95'))}"


def plain(value: object) -> str:
    """A figure."""
    return "-" if value is None else f"{number(value):,.1f}".removesuffix(".0")


def seconds(value: object) -> str:
    """Milliseconds as seconds."""
    return "-" if value is None else f"{number(value) / 1000:,.1f} s"


def size(value: object) -> str:
    """Bytes in the unit that suits them."""
    found = number(value)
    return f"{found / MIB:,.1f} MiB" if found >= MIB else f"{found / 1024:,.1f} KiB"


def spent(value: object) -> str:
    """CPU."""
    return f"{number(value):.3f} s"


def asked(value: object) -> str:
    """A cut; none: each viewer's own."""
    return "as asked for" if value is None else plain(value)


def shares(value: object) -> str:
    """Weights."""
    return " ".join(f"{share}" for share in value.values()) if isinstance(value, dict) else "-"


FIGURES: Final = (
    ("interval", ("settings", "intervalMs"), seconds),
    ("threshold", ("settings", "threshold"), str),
    ("events a view", ("settings", "maxEvents"), asked),
    (f"weights ({', '.join(TERMS)})", ("settings", "weights"), shares),
    ("spacing, km", ("settings", "spacingKm"), plain),
    ("messages/h", ("hour", "messages"), plain),
    ("bytes/h", ("hour", "bytes"), size),
    ("batches/h", ("hour", "flushes"), plain),
    ("between two batches", ("batch", "intervalMs"), seconds),
    ("events a batch", ("batch", "events"), plain),
    ("frames a batch", ("batch", "frames"), plain),
    ("changes a frame", ("batch", "updatesPerFrame"), plain),
    ("CPU a batch", ("batch", "cpuSeconds"), spent),
    ("counters wait, mean", ("stalenessMs", "mean"), seconds),
    ("counters wait, at most", ("stalenessMs", "worst"), seconds),
    ("next batch: frames", ("next", "allFrames"), plain),
    ("next batch: bytes", ("next", "allBytes"), size),
)


def notes(answer: Json) -> list[str]:
    """What changes in what is seen, and what the figures were worked out from."""
    change, grounds = inner(answer, "change"), inner(answer, "estimatedFrom")
    sampled, viewers = whole(answer.get("sampled")), whole(answer.get("viewers"))
    lines = [
        f"{whole(change.get('viewersDiffering'))} of {sampled} views would differ: {whole(change.get('entering'))} events "
        f"enter, {whole(change.get('leaving'))} leave, {number(change.get('topOverlap')):.0%} of the best ten stay",
        f"tried on {sampled} of {viewers} viewers (seed {answer.get('seed')}); "
        f"{whole(grounds.get('waitingTaken'))} of {whole(grounds.get('waiting'))} waiting events taken in",
        _watched(grounds),
    ]
    if any(inner(inner(answer, side), "batch").get("lowerBound") for side in ("present", "asked")):
        lines.append("an interval is longer than that: more may move in it, its batches are a lower bound")
    if number(answer.get("deferred")):
        lines.append(f"{whole(answer.get('deferred'))} viewers were left out: a frame of theirs waits just now")
    return lines


def _watched(grounds: Json) -> str:
    minutes = number(grounds.get("watchedMs")) / 60_000
    if not grounds.get("activityKnown"):
        return (
            f"no activity in the {minutes:,.0f} min watched: an hour's figures hold for a map on which only time moves"
        )
    return f"an hour's figures are estimated from {whole(grounds.get('moved'))} events that moved in {minutes:,.1f} min"
