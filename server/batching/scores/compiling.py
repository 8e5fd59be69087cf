"""Compile the hot path with Numba where there is one, and keep on disk what was compiled.

Numba's own cache looks only at the time and size of the file that a function stands in, not at what it calls or which
constants it reads. Ours lies in a folder named after the contents of all files that are compiled, so what is found there
was made from exactly these. Without Numba the functions stay plain Python: right, but slow. With NUMBA_BOUNDSCHECK=1 every
index is checked, and one that is out of bounds raises IndexError where it would read what lies beside an array: so work the
tests' own processes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

try:
    import numba

    NUMBA = True
except ImportError:
    NUMBA = False

P = ParamSpec("P")
R = TypeVar("R")
COMPILED: Final = ("compiling", "shapes", "tree", "candidates", "walk", "kernel", "changes")


@lru_cache(maxsize=1)
def _folder() -> str:
    here = Path(__file__).parent
    stamp = hashlib.sha256(b"".join((here / f"{name}.py").read_bytes() for name in COMPILED)).hexdigest()[:16]
    options = vars(numba.config)
    name = f"kernel-{stamp}-checked" if options["BOUNDSCHECK"] else f"kernel-{stamp}"
    return str(Path(options["CACHE_DIR"] or here / "__pycache__") / name)


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """The function, compiled when it is first called; without the GIL."""
    if not NUMBA:
        return function
    options = vars(numba.config)
    given = options["CACHE_DIR"]
    fast: Callable[P, R] = numba.njit(nogil=True, error_model="numpy")(function)
    try:
        options["CACHE_DIR"] = _folder()
        fast.enable_caching()  # type: ignore[attr-defined]  # a Dispatcher is more than the function it stands for
    except (OSError, RuntimeError):
        pass  # No sources, or no folder to keep it in: compiled at each start.
    finally:
        options["CACHE_DIR"] = given
    return fast
