"""A sixth system, as small as one can be: it counts the words of texts that wait in a table."""

from tests.fundamentals.toy.batch import loop

__all__ = ["loop"]
