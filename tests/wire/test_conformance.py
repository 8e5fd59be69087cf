"""Every row of tests/wire/conformance, on a real server over a raw socket: 0 failures. `-k` picks rows by their names."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.serving import Live, spread
from tests.wire.conformance import closing, control, deflate, fragmentation, framing, limits, opening, utf8
from tests.wire.conformance.covered import END, START, page
from tests.wire.conformance.running import knock, play
from tests.wire.conformance.servers import shared
from tests.wire.conformance.values import Case, Door

pytestmark = pytest.mark.asyncio(loop_scope="module")

PLAIN = [*framing.CASES, *fragmentation.CASES, *control.CASES, *utf8.CASES, *closing.CASES, *limits.CASES]
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "conformance.md"


def named_rows(rows: list[Case] | list[Door]) -> list[str]:
    return [f"{row.section}: {row.name}" for row in rows]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plain(cluster: str, template: str) -> AsyncIterator[Live]:
    """A server that compresses nothing."""
    async with shared(cluster, template) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def compressing(cluster: str, template: str) -> AsyncIterator[Live]:
    """A server that agrees to compress."""
    async with shared(cluster, template, COMPRESSION="true") as made:
        await made.put(*spread(30, description="x" * 200))
        yield made


@pytest.mark.parametrize("case", PLAIN, ids=named_rows(PLAIN))
async def test_an_open_connection(plain: Live, case: Case) -> None:
    await play(plain.ws_port, case)


@pytest.mark.parametrize("door", opening.DOORS, ids=named_rows(opening.DOORS))
async def test_the_opening_handshake(plain: Live, door: Door) -> None:
    await knock(plain.ws_port, door)


@pytest.mark.parametrize("door", deflate.DOORS, ids=named_rows(deflate.DOORS))
async def test_what_compression_is_agreed_upon(compressing: Live, door: Door) -> None:
    await knock(compressing.ws_port, door)


@pytest.mark.parametrize("case", deflate.CASES, ids=named_rows(deflate.CASES))
async def test_compressed_messages(compressing: Live, case: Case) -> None:
    await play(compressing.ws_port, case, deflate.OFFER)


async def test_all_that_holds_without_compression_holds_where_it_was_agreed_upon(compressing: Live) -> None:
    for case in PLAIN:
        if "reserved bits 100" not in case.name:
            async with asyncio.timeout(60):
                await play(compressing.ws_port, case, deflate.OFFER)


async def test_the_page_of_what_is_covered_is_true() -> None:
    told = DOCUMENT.read_text()
    assert told[told.index(START) : told.index(END)] == page()[: page().index(END)]
