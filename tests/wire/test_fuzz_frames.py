"""Frames by chance against the reference of RFC 6455, on a real server: the same pongs, the same messages, the same end."""

import itertools
import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.handlers.pipe import BINARY, CLOSE, CONT, PING, PONG, TEXT, frame
from tests.serving import Live
from tests.wire.conformance.deflate import OFFER
from tests.wire.conformance.reference import Said, is_utf8, read
from tests.wire.conformance.running import compare, listen
from tests.wire.conformance.servers import shared
from tests.wire.conformance.values import OPEN, deflated, ping
from tests.wire.raw import Raw, say_ping

pytestmark = pytest.mark.asyncio(loop_scope="module")
PROBE = "does it go on?"
EXAMPLES = 6 * int(os.environ.get("FUZZ", "25"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(cluster: str, template: str) -> AsyncIterator[Live]:
    async with shared(cluster, template, COMPRESSION="true") as made:
        yield made


texts = st.one_of(
    st.integers(0, 99).map(lambda n: ping(f"r{n}")),
    st.sampled_from(["größer €🍜", "{}", "[1]", ""]).map(str.encode),
    st.sampled_from([b"\xc3\x28", b"\xed\xa0\x80", b"x\xe2\x82", b"\xf4\x90\x80\x80"]),
)
small = st.binary(max_size=6) | st.sampled_from([b"x" * 125, b"x" * 126])


@st.composite
def message(draw: st.DrawFn) -> list[Said]:
    """A message in fragments, with control frames between."""
    opcode = draw(st.sampled_from((TEXT, TEXT, TEXT, BINARY)))
    whole = draw(texts)
    edges = [0, *sorted(draw(st.lists(st.integers(0, len(whole)), max_size=4))), len(whole)]
    parts = [whole[a:b] for a, b in itertools.pairwise(edges)]
    said = []
    for number, part in enumerate(parts):
        if number and draw(st.booleans()):
            said.append(Said(draw(st.sampled_from((PING, PONG))), draw(st.binary(max_size=5))))
        said.append(Said(CONT if number else opcode, part, fin=number == len(parts) - 1))
    return said


odd = st.builds(
    Said,
    st.integers(0, 15),
    small,
    st.booleans(),
    st.sampled_from((0, 0, 0, 0, 0x20, 0x10, 0x70)),
    st.sampled_from((True, True, True, False)),
).map(lambda one: [one])
closes = st.builds(
    lambda code, reason: [Said(CLOSE, code.to_bytes(2, "big") + reason)],
    st.sampled_from((1000, 1001, 3000, 4999)) | st.integers(0, 6000),
    st.sampled_from((b"", b"bye", b"\xff", "größer".encode())),
) | st.just([Said(CLOSE, b"")])
controls = st.builds(
    lambda opcode, payload: [Said(opcode, payload)], st.sampled_from((PING, PONG)), st.binary(max_size=5)
)
streams = st.lists(st.one_of(message(), message(), message(), controls, odd, closes), max_size=6).map(
    lambda groups: [one for group in groups for one in group]
)
cuts = st.lists(st.integers(0, 400), max_size=6)
FINISH = Said(CONT, b"")
"""Ends a message that is under way, so that the probe behind it is a message of its own."""


def bytes_of(said: Said, compressed: bool) -> bytes:
    """The frame; compressed when it is a whole text message, else as it is."""
    if compressed and said.opcode == TEXT and said.fin and not said.rsv and said.masked:
        return frame(TEXT, deflated(said.payload), rsv=0x40)
    return frame(said.opcode, said.payload, fin=said.fin, rsv=said.rsv, mask=b"abcd" if said.masked else None)


@settings(max_examples=EXAMPLES)
@given(frames=streams, places=cuts, compressed=st.booleans())
@example(frames=[Said(TEXT, b"{", fin=False), Said(CLOSE, b"\x03\xe8")], places=[], compressed=False)
async def test_whatever_frames_are_sent_they_lead_to_what_the_rfc_says(
    place: Live, frames: list[Said], places: list[int], compressed: bool
) -> None:
    wanted = read(frames)
    if OPEN - 1 in wanted.ends:
        frames = [*frames, FINISH]
        wanted = read(frames)
    stream = b"".join(bytes_of(one, compressed) for one in frames)
    raw = await Raw.open(place.ws_port, OFFER if compressed else b"")
    try:
        edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
        for start, end in itertools.pairwise(edges):
            await raw.piecemeal(stream[start:end], max(1, end - start))
        if wanted.ends == {OPEN}:
            raw.say(say_ping(PROBE))
        heard, end = await listen(raw)
        assert end in wanted.ends, f"ended with {end}, not {set(wanted.ends)}; heard {heard}"
        compare(heard, wanted.heard, whole=end == OPEN)
    finally:
        raw.leave()


@settings(max_examples=EXAMPLES)
@given(noise=st.binary(max_size=300), behind=st.booleans())
async def test_noise_ends_a_connection_or_is_understood_and_harms_nobody(
    place: Live, noise: bytes, behind: bool
) -> None:
    raw = await Raw.open(place.ws_port) if behind else await Raw.dial(place.ws_port)
    raw.say(noise)
    raw.writer.write_eof()
    await raw.reader.read(-1)
    raw.leave()
    other = await Raw.open(place.ws_port)
    other.say(say_ping(PROBE))
    assert await listen(other) == ([], OPEN)
    other.leave()


@given(st.binary(max_size=8) | st.text(max_size=4).map(str.encode))
async def test_the_reference_knows_utf8_as_python_does(data: bytes) -> None:
    try:
        data.decode()
        good = True
    except UnicodeDecodeError:
        good = False
    assert is_utf8(data, True) == good
