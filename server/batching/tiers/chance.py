"""Chance that can be repeated: keyed hashes of (seed, person, purpose, period). Pure.

The same seed gives the same numbers in any process, order or batch; two purposes or periods have nothing to do with each
other. So nothing depends on who was planned before whom, and a run that was killed goes on as if it had not been.
"""

from __future__ import annotations

from hashlib import blake2b
from struct import Struct
from typing import Final

from server.batching.tiers.rules import Span

A_DIGEST: Final = 16
"""32-bit numbers in one digest."""
_NUMBERS: Final = Struct(f"<{A_DIGEST}I").unpack
_SCALE: Final = 2.0**-32


def seed_of(text: str) -> bytes:
    """The key of all draws, from a setting of any length."""
    return blake2b(text.encode(), digest_size=32).digest()


def numbers(seed: bytes, person: str, purpose: str, period: int | str = "") -> tuple[int, ...]:
    """`A_DIGEST` numbers of 32 bits each."""
    return _NUMBERS(blake2b(f"{purpose}\0{period}\0{person}".encode(), key=seed).digest())


def pick(number: int, least: int, most: int) -> int:
    """One of least..most, each as likely as the others (but for 1 in 2**32 / how many there are)."""
    return least + (number * (most - least + 1) >> 32)


def within(number: int, span: Span) -> int:
    """`pick` from a span."""
    return span[0] + (number * (span[1] - span[0] + 1) >> 32)


def fraction(number: int) -> float:
    """0 <= x < 1."""
    return number * _SCALE


def stream(seed: bytes, person: str, purpose: str, period: int | str, many: int) -> tuple[int, ...]:
    """At least so many numbers, from as many digests as that takes."""
    found = numbers(seed, person, purpose, period)
    for block in range(1, -(-many // A_DIGEST)):
        found += numbers(seed, person, purpose, f"{period}+{block}")
    return found
