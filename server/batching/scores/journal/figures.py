"""When to tell somebody of the journal: it was wanted, and it does not record."""

from __future__ import annotations

from typing import Final

from server.batching.alerts import Rule, Severity
from server.batching.ledger import Records
from server.batching.scores.journal.journal import NAME


def _stopped(records: Records, now_ms: int) -> str | None:
    last = records.get(NAME, ())[-1:]
    why = last[0].detail.get("stopped") if last else None
    return f"the journal does not record: {why}" if why else None


RULES: Final = (Rule("journal-stopped", Severity.WARNING, _stopped),)
