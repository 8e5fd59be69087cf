"""Money is integer cents; this is how a person reads them."""

from __future__ import annotations


def dollars(cents: int) -> str:
    """1851 as $18.51, -5 as -$0.05, 123456700 as $1,234,567.00."""
    whole, rest = divmod(abs(cents), 100)
    return f"{'-' if cents < 0 else ''}${whole:,}.{rest:02d}"
