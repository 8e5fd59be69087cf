"""Classification, said as slowly and plainly as possible: letters in a line, counted along with a finger.

The rules: an override, else the upper median of the comparables that are known, else that of the ratings when at least
three are known and none is three steps from another; else one step above the lowest; nothing known: D. Then a legacy is at
least B, a global award at least C.
"""

from __future__ import annotations

from collections.abc import Mapping

LINE = "DCBAS"


def upper_median(letters: list[str]) -> str:
    """Of a line of letters, lowest first, the one in the middle; of two in the middle the higher."""
    line = [letter for step in LINE for letter in letters if letter == step]
    while len(line) > 2:
        line = line[1:-1]
    return line[-1]


def tier(
    override: str | None,
    comparables: list[str],
    ratings: list[str],
    flags: Mapping[str, bool],
) -> tuple[str, bool]:
    """The tier, and whether somebody should look at it."""
    review = False
    if override:
        found = override
    elif comparables:
        found = upper_median(comparables)
    elif not ratings:
        found, review = "D", True
    else:
        apart = any(LINE.index(one) - LINE.index(other) >= 3 for one in ratings for other in ratings)
        if len(ratings) < 3 or apart:
            lowest = next(step for step in LINE if step in ratings)
            found, review = (LINE + "S")[LINE.index(lowest) + 1], True
        else:
            found = upper_median(ratings)
    if flags["legacy"] and found in "DC":
        found = "B"
    if flags["global_award"] and found == "D":
        found = "C"
    return found, review
