"""An incident becomes a test by copying its journal into tests/journals: every file there replays to the byte.

With both engines: what the compiled one recorded the NumPy one sends, too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from server.batching.scores.journal.reader import opened
from tests.batching.scores.journal.recording import verified

ROOT = Path(__file__).parents[4]
INCIDENTS = sorted((ROOT / "tests" / "journals").glob("*.journal"))
PLAIN = """
import sys
sys.modules["numba"] = None
from server.batching.scores import kernel
from server.__main__ import main
assert not kernel.NUMBA
main(["journal", "replay", sys.argv[1], "--verify"])
"""


def test_there_is_one() -> None:
    assert INCIDENTS


@pytest.mark.pure
@pytest.mark.parametrize("path", INCIDENTS, ids=lambda path: path.stem)
def test_an_incident_replays_to_the_byte(path: Path) -> None:
    report = verified(path)
    with opened(path) as journal:
        assert journal.header.slots >= 0
    assert report.frames > 0


@pytest.mark.pure
@pytest.mark.parametrize("path", INCIDENTS, ids=lambda path: path.stem)
def test_an_incident_replays_to_the_byte_without_the_kernel(path: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", PLAIN, str(path)], env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "are the same to the byte" in done.stdout
