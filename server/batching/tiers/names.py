"""When two spellings are one name: folded by compatibility (NFKD), without accents, punctuation, spaces and case. Pure.

"Jay-Z", "JAY Z" and "jayz" are one name, "Ke$ha" and "Kesha" are two (a sign is no punctuation): that is what the alias
table is for. A name of nothing but punctuation stands for itself.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping
from typing import Final, TypeVar
from unicodedata import category, combining, normalize

V = TypeVar("V")

_PLAIN: Final = {ord(c): None for c in string.whitespace + string.punctuation if category(c)[0] in "PZC"}


def folded(text: str) -> str:
    """The spelling by which names are compared."""
    if text.isascii():
        return text.lower().translate(_PLAIN) or text.strip()
    apart = normalize("NFKD", normalize("NFKD", text).casefold())
    return "".join(c for c in apart if not combining(c) and category(c)[0] not in "PZC") or apart.strip()


def directory(entries: Iterable[tuple[str, V]], aliases: Iterable[tuple[str, str]] = ()) -> Mapping[str, V]:
    """What is known by name, folded, under its aliases too (alias, name). Of two entries with one name the first counts.

    A name goes before an alias, and an alias of an alias leads nowhere: the table holds names."""
    found: dict[str, V] = {}
    for name, value in entries:
        found.setdefault(folded(name), value)
    more = {folded(alias): found[folded(name)] for alias, name in aliases if folded(name) in found}
    return more | found
