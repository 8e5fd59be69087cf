"""The program as a process: what it says when it can't, or shouldn't quite, start as asked."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def serve(folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """`serve` with settings under which it ends at once."""
    given = {**os.environ, "DATA_DIR": str(folder), "PYTHONPATH": str(ROOT), "HOST": "0.0.0.0", **environ}
    command = [sys.executable, "-m", "server", "serve"]
    return subprocess.run(command, env=given, cwd=folder, capture_output=True, text=True, timeout=60)


def test_a_variable_nearly_like_one_of_ours_is_warned_of_at_the_start(tmp_path: Path) -> None:
    done = serve(tmp_path, HTTPPORT="9000")
    assert "HTTPPORT is not a setting; did you mean HTTP_PORT?" in done.stderr
    assert "HTTPPORT" not in serve(tmp_path).stderr


def test_beyond_loopback_without_a_key_the_start_is_refused_with_what_to_set(tmp_path: Path) -> None:
    done = serve(tmp_path)
    assert done.returncode == 2
    assert "Set JWT_SECRET" in done.stderr


def test_a_variable_with_one_of_our_prefixes_that_is_none_of_ours_stops_the_start(tmp_path: Path) -> None:
    done = serve(tmp_path, BATCH_INTERVL_MS="5")
    assert done.returncode == 2
    assert "BATCH_INTERVL_MS is not a setting; the nearest is BATCH_INTERVAL_MS" in " ".join(done.stderr.split())
