"""What checking all that a system stores comes to: one `Check` for each rule, together a `Report`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """One check: how many rows fail it, and the first of them in words."""

    name: str
    meaning: str
    failed: int
    examples: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Does it hold?"""
        return self.failed == 0


@dataclass(frozen=True, slots=True)
class Report:
    """All checks, in their order."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Do all hold?"""
        return all(check.ok for check in self.checks)
