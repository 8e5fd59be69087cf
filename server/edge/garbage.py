"""When Python looks for garbage in a process that runs for long.

What is there after the start stays, and is never looked at again. The young are looked at seldom: batches make many small
objects that are gone when the batch is.
"""

import gc
from typing import Final

YOUNG: Final = 50_000
"""Objects made before the young are looked at."""
MIDDLE: Final = 20
"""Such looks before the middle-aged are."""
OLD: Final = 10
NEVER: Final = 1_000_000


def settle(*, itself: bool = True) -> None:
    """The process has started. Not by `itself`: all that there is is looked at only by gc.collect(), when the caller has the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD if itself else NEVER)
