"""What other processes cost, read from /proc: CPU of a process and all below it (PostgreSQL's backends too), and memory."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Cpu:
    """CPU seconds so far: of the process itself, and of all below it (of the dead ones too, once they were waited for)."""

    own: float
    below: float

    def __sub__(self, before: Cpu) -> Cpu:
        return Cpu(self.own - before.own, self.below - before.below)

    @property
    def all(self) -> float:
        """Both."""
        return self.own + self.below


def cpu(pid: int, serving: str = "") -> Cpu:
    """What a process has used; a tick of the kernel is the finest it says. With `serving` only those below count that are
    alive and whose command line has it: of PostgreSQL, its connections without what it does in the background."""
    stats = _all_stats()
    children: dict[int, list[int]] = defaultdict(list)
    for one, fields in stats.items():
        children[int(fields[1])].append(one)
    own = stats[pid]
    below, waiting = 0 if serving else _reaped(own), list(children[pid])
    while waiting:
        child = waiting.pop()
        waiting += children[child]
        if not serving:
            below += _used(stats[child]) + _reaped(stats[child])
        elif serving in _command(child):
            below += _used(stats[child])
    return Cpu(_used(own) * TICK_S, below * TICK_S)


def rss(pid: int) -> int:
    """Resident bytes of one process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _used(fields: list[str]) -> int:
    return int(fields[11]) + int(fields[12])


def _reaped(fields: list[str]) -> int:
    return int(fields[13]) + int(fields[14])


def _all_stats() -> dict[int, list[str]]:
    """By pid: the fields of /proc/PID/stat from the state on (a name may hold spaces and brackets)."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                found[int(folder.name)] = (folder / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found
