"""The fixtures of tests/serving.py."""

from tests.serving import own_process, place, start

__all__ = ["own_process", "place", "start"]
