"""`python -m tests.bench.memory EVENTS SEED`: what that many events take in this process, in columns and encoded.

A process of its own, so that nothing else is counted and nothing freed before hides anything.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys

import orjson

from server.batching.scores.columns import Columns
from tests.bench import crowds, ours
from tests.bench.crowds import NOW_MS, event_id
from tests.bench.processes import rss


def main(count: int, seed: int) -> dict[str, float]:
    """Bytes an event, once a frame has been made of each; and how long its JSON is."""
    crowd, _ = crowds.cities(seed, count, 10, 100)
    ours.columns_of(crowds.square(seed, 5000, 1, 0.1)[0])  # what is made once is made now
    before = resident()
    columns = Columns()
    for start in range(0, count, ours.PAGE):
        columns.load(ours.page_of(crowd, range(start, min(start + ours.PAGE, count)), 600), NOW_MS)
    columns.merge()
    body = sum(
        len(columns.body(slot)) for slot in map(columns.slot_of, map(event_id, range(count))) if slot is not None
    )
    return {"each": (resident() - before) / count, "body": body / count}


def resident() -> int:
    """Bytes, after what is garbage was given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return rss(os.getpid())


if __name__ == "__main__":
    print(orjson.dumps(main(int(sys.argv[1]), int(sys.argv[2]))).decode())
