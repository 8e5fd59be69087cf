"""`batchcast schedules` against a running server, which starts its runs at the provider's double."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands.conftest import Command
from tests.doubles.apify.http import TOKEN
from tests.handlers.scheduling import URLS
from tests.pages.site import Site, until

ROOT = Path(__file__).resolve().parents[2]
HEADER = "team,name,tier,google,facebook,tripadvisor,booking\n"
SAMPLE = ROOT / "server" / "sample" / "schedules" / "businesses.csv"


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    """The double in a process of its own; its address."""
    command = [sys.executable, "-m", "tests.doubles.apify", "--run-ms", "50", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()


@pytest.fixture(scope="module")
def scheduling(provider: str) -> Iterator[Site]:
    """The server."""
    site = Site(
        settings={
            "APIFY_URL": provider,
            "APIFY_TOKEN": TOKEN,
            "APIFY_WEBHOOK_SECRET": "a secret of the commands' tests",
        }
    )
    site.settings |= {"PUBLIC_URL": site.url, "SCHEDULES_GOOGLE_CAPACITY": "10"}
    try:
        site.start()
        yield site
    finally:
        site.remove()


@pytest.fixture
def batchcast(command: Command, scheduling: Site, monkeypatch: pytest.MonkeyPatch) -> Command:
    """`batchcast` on the machine of that server."""
    monkeypatch.setenv("BATCHCAST_URL", scheduling.url)
    monkeypatch.setenv("DATA_DIR", str(scheduling.data_dir))
    return command


def write(path: Path, *rows: str) -> Path:
    path.write_text(HEADER + "".join(f"{row}\n" for row in rows))
    return path


def places(team: str, count: int, tier: str = "") -> list[str]:
    return [f"{team},Place {n},{tier},ChIJ_{team}_{n:04},,," for n in range(count)]


def test_a_file_is_taken_in_once_and_ends_with_validate(batchcast: Command, tmp_path: Path) -> None:
    file = write(
        tmp_path / "b.csv",
        *places("acme", 12, "enterprise"),
        f"acme,Adler,,,,,{URLS['booking']}",
        "acme,Bad,,,,,nowhere",
    )
    report = tmp_path / "errors.ndjson"
    said = batchcast("schedules", "import", file, "--errors", report)
    assert said.code == 0, said
    assert "13 profiles placed, 0 known before" in said.err and "13 of 14 rows went in, 1 did not" in said.err
    assert '"row":13' in report.read_text() and "booking" in report.read_text()
    assert "coverage" in said.out and "wrong" in said.out.splitlines()[0]
    again = batchcast("schedules", "import", file)
    assert again.code == 0 and "0 profiles placed, 13 known before" in again.err


def test_validate_ends_with_1_and_names_what_is_wrong(batchcast: Command, scheduling: Site, tmp_path: Path) -> None:
    assert batchcast("schedules", "import", write(tmp_path / "v.csv", *places("valid", 2))).code == 0
    assert batchcast("schedules", "validate").code == 0
    _sql(scheduling, "update schedules.business set identifiers = '{}' where team = 'valid'")
    wrong = batchcast("schedules", "validate")
    assert wrong.code == 1 and "not valid:" in wrong.err and "identifiers" in wrong.err
    assert not batchcast("schedules", "validate", "--json").json["ok"]
    refused = batchcast("schedules", "import", write(tmp_path / "w.csv", *places("valid2", 1)))
    assert refused.code == 1, "import ends with the exit code of validate"
    _sql(scheduling, "delete from schedules.business where team = 'valid'")
    assert batchcast("schedules", "validate").code == 0


def _sql(site: Site, statement: str) -> None:
    """Something that only a broken hand could do to the database."""
    import asyncio

    import asyncpg

    from server.edge.postmaster import working_in

    assert working_in(site.data_dir / "postgres")
    lines = (site.data_dir / "postgres" / "postmaster.pid").read_text().splitlines()
    folder, port = lines[4], lines[3]

    async def tell() -> None:
        connection = await asyncpg.connect(host=folder, port=int(port), user="batchcast", database="postgres")
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(tell())


def test_batches_are_listed_paused_triggered_and_seen_to_run(batchcast: Command, tmp_path: Path) -> None:
    assert batchcast("schedules", "import", write(tmp_path / "t.csv", *places("runs", 3, "professional"))).code == 0
    rows = batchcast("schedules", "list", "--platform", "google", "--type", "reviews", "--hours", "12", "--json").json[
        "schedules"
    ]
    schedule = next(row["id"] for row in rows if row["businesses"])
    shown = batchcast("schedules", "list", "--limit", "5")
    assert "booking" in shown.out and "more with --after" in shown.err
    assert "paused" in batchcast("schedules", "pause", schedule).out
    assert "paused" in batchcast("schedules", "list", "--state", "paused").out
    assert "next run" in batchcast("schedules", "resume", schedule).out
    first = batchcast("schedules", "trigger", schedule, "--key", "once")
    assert first.code == 0 and "audit" in first.out
    assert "it was there already" in batchcast("schedules", "trigger", schedule, "--key", "once").out
    run = int(first.out.split()[1].rstrip(","))

    def settled() -> bool:
        found = batchcast("schedules", "runs", "--schedule", schedule, "--json").json["runs"]
        return any(one["id"] == run and one["processedAtMs"] is not None for one in found)

    until(settled, "the run is attributed")
    assert "succeeded" in batchcast("schedules", "runs", "--state", "succeeded").out
    assert batchcast("schedules", "trigger", 10**9).code == 1


def test_teams_get_tiers_and_intervals(batchcast: Command, tmp_path: Path) -> None:
    assert batchcast("schedules", "import", write(tmp_path / "i.csv", *places("globex", 2))).code == 0
    assert batchcast("schedules", "custom-interval", "globex", 48).code == 1
    said = batchcast("schedules", "tier", "globex", "enterprise")
    assert said.code == 0 and "starter -> enterprise, 4 moved" in said.out
    said = batchcast(
        "schedules", "custom-interval", "globex", 48, "--type", "overview", "--reason", "a fair", "--days", "2"
    )
    assert said.code == 0 and "48 h" in said.out and "a fair" in said.out and "2 moved" in said.out
    assert len(batchcast("schedules", "custom-interval", "globex", "--json").json["intervals"]) == 4
    assert "no intervals of its own" in batchcast("schedules", "custom-interval", "globex", "--remove").out
    assert batchcast("schedules", "custom-interval", "globex", 5, "--remove").code == 2
    assert batchcast("schedules", "tier", "globex", "gold").code == 1


def test_a_plan_is_shown_and_done(batchcast: Command, tmp_path: Path) -> None:
    shown = batchcast("schedules", "plan")
    assert shown.code == 0 and "rebalance:" in shown.out and "consolidate:" in shown.out
    assert set(batchcast("schedules", "plan", "--json").json) == {"rebalance", "consolidate"}
    for action in ("rebalance", "consolidate"):
        assert "audit" in batchcast("schedules", action).out
    assert batchcast("schedules", "validate").code == 0


def test_a_business_is_tried_again(batchcast: Command, tmp_path: Path) -> None:
    assert batchcast("schedules", "import", write(tmp_path / "r.csv", *places("again", 1))).code == 0
    rows = batchcast("schedules", "list", "--platform", "google", "--json").json["schedules"]
    assert rows
    assert batchcast("schedules", "retry", 10**9).code == 1
    assert batchcast("schedules", "retries").code == 0
    said = batchcast("schedules", "health")
    assert said.code == 0 and "provider: it answers, it tells us of ends" in said.out and "businesses of" in said.out
    assert batchcast("schedules", "health", "--json").json["provider"]["configured"]


def test_the_sample_of_the_demo_goes_in(batchcast: Command) -> None:
    said = batchcast("schedules", "import", SAMPLE)
    assert said.code == 0, said


def test_what_is_no_file_of_businesses_is_refused(batchcast: Command, tmp_path: Path) -> None:
    odd = tmp_path / "businesses.txt"
    odd.write_text("team\n")
    for file in (odd, tmp_path / "none.csv"):
        assert batchcast("schedules", "import", file).code == 2
