"""Rules: the sample and what the demo does with it."""

import importlib.util
from collections import Counter
from pathlib import Path

from server.commands.running import MOVED_A_BEAT, PEAKS, beat, sample, sample_now
from server.core.event import Upsert
from server.protocol.event import popularity_op
from server.protocol.intake import Format, Intake

ROOT = Path(__file__).resolve().parents[2]
NOW = 1_800_000_123_456
HOUR_MS = 3_600_000


def events() -> list[Upsert]:
    intake = Intake(Format.NDJSON, sample_now(sample(), NOW))
    ops = intake.feed(sample()) + intake.close()
    assert all(isinstance(op, Upsert) for op in ops), ops
    return [op for op in ops if isinstance(op, Upsert)]


def test_the_sample_is_what_its_script_makes() -> None:
    spec = importlib.util.spec_from_file_location("make_sample", ROOT / "scripts" / "make_sample.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.text().encode() == sample(), "run python scripts/make_sample.py"
    assert len(sample()) < 250 * 1024


def test_the_sample_is_valid_all_over_the_world_and_current() -> None:
    ops = events()
    assert len({op.id for op in ops}) == len(ops) == 600
    starts = [int(str(op.fields["start_ms"])) - NOW for op in ops]
    assert -6 * HOUR_MS < min(starts) < 0 < max(starts) < 30 * 24 * HOUR_MS
    assert all(int(str(op.fields["created_ms"])) <= NOW for op in ops)
    corners = Counter((float(str(op.fields["latitude"])) > 0, float(str(op.fields["longitude"])) > 0) for op in ops)
    assert min(corners.values()) > 20
    assert all((start + NOW) % 900_000 == 0 for start in starts)


def test_a_beat_moves_some_events_and_in_time_all_of_them_up_and_down() -> None:
    ids = [op.id for op in events()]
    seen: dict[str, set[int]] = {name: set() for name in ids}
    for number in range(1, 400):
        rows = beat(ids, number)
        assert len(rows) == MOVED_A_BEAT
        for row in rows:
            op = popularity_op(row)
            assert all(count is not None and 0 <= count <= peak for count, peak in zip(op.counts, PEAKS, strict=True))
            seen[op.id].add(op.counts[0] or 0)
    assert all(len(counts) > 1 for counts in seen.values())
