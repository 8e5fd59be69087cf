import re
import shutil
from pathlib import Path

import pytest

from scripts import generate
from server.errors import CLOSES, ERRORS
from server.protocol.incoming import MESSAGES
from server.protocol.outgoing import SENT
from server.settings import FIELDS

pytestmark = pytest.mark.pure


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The generated files as they stand, somewhere else."""
    for name in generate.TARGETS:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(generate.ROOT / name, tmp_path / name)
    return tmp_path


def test_everything_generated_is_up_to_date() -> None:
    assert generate.stale() == [], "make generate"


@pytest.mark.parametrize("name", generate.TARGETS)
def test_a_stale_file_is_named_and_brought_up_to_date(name: str, copy: Path) -> None:
    path = copy / name
    text = path.read_text()
    marked = "<!-- /" in text
    path.write_text(text.replace("<!-- /", "one line too many\n<!-- /") if marked else text + "\n")
    assert generate.stale(copy) == [f"{name} is stale"]
    assert generate.write(copy) == [name]
    assert path.read_text() == text
    assert generate.write(copy) == []


def test_a_file_that_is_missing_is_named(copy: Path) -> None:
    (copy / "config.example.env").unlink()
    (copy / "README.md").unlink()
    problems = generate.stale(copy)
    assert [problem.split(":")[0] for problem in problems] == ["config.example.env", "README.md"]


def test_a_part_without_its_markers_is_named(copy: Path) -> None:
    (copy / "docs" / "protocol.md").write_text("# The protocol\n")
    assert generate.stale(copy) == [
        "docs/protocol.md: the markers <!-- generated --> and <!-- /generated --> are missing"
    ]


def test_what_is_written_by_hand_round_a_part_stays(copy: Path) -> None:
    path = copy / "docs" / "protocol.md"
    path.write_text(
        "mine\n" + path.read_text().replace("<!-- /generated -->", "old\n<!-- /generated -->") + "mine too\n"
    )
    generate.write(copy)
    text = path.read_text()
    assert text.startswith("mine\n") and text.endswith("mine too\n")
    assert "\nold\n" not in text


def test_the_program_knows_its_one_option() -> None:
    assert generate.main(["--check"]) == 0
    assert generate.main(["--chekc"]) == 2


def test_the_document_tells_of_every_message_code_and_close() -> None:
    text = (generate.ROOT / "docs" / "protocol.md").read_text()
    for kind in (*MESSAGES, *SENT):
        assert f"\n### `{kind}`\n" in text
    for code, error in ERRORS.items():
        assert f"| `{code}` | {error.status} | {error.meaning} | {'yes' if error.retry else 'no'} |" in text
    for number, close in CLOSES.items():
        assert f"| {number} | {close.meaning} | {close.come_back} |" in text


def test_every_link_inside_the_document_leads_to_a_heading() -> None:
    text = (generate.ROOT / "docs" / "protocol.md").read_text()
    headings = {
        re.sub(r"[^\w -]", "", h).strip().lower().replace(" ", "-") for h in re.findall(r"^#+ (.*)$", text, re.M)
    }
    assert set(re.findall(r"\]\(#([^)]*)\)", text)) <= headings


def test_the_readme_and_the_example_name_every_setting() -> None:
    for name in ("README.md", "config.example.env"):
        text = (generate.ROOT / name).read_text()
        assert all(field.upper() in text for field in FIELDS)
