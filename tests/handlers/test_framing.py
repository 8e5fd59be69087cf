"""Frames written by hand, read by the library's own client."""

import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.exceptions import PayloadTooBig
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame as Incoming
from websockets.protocol import OPEN
from websockets.uri import parse_uri

from server.batching.scores.frame import SYNC_END, Frame, Shared, deflate, stored
from server.handlers.framing import WORTH_IT, Payload, deflated, plain
from tests.handlers.pipe import random_bytes

pytestmark = pytest.mark.pure


def read(wire: bytes, *, deflates: bool = False) -> list[tuple[int, bool, bytes]]:
    """Opcode, last and payload of every frame as a client reads them; what it does not like raises."""
    client = ClientProtocol(parse_uri("ws://localhost/ws"), state=OPEN, max_size=None)
    if deflates:
        client.extensions = [PerMessageDeflate(True, True, 15, 15)]
    client.receive_data(wire)
    if client.parser_exc is not None:
        raise client.parser_exc
    frames = [one for one in client.events_received() if isinstance(one, Incoming)]
    return [(one.opcode, one.fin, bytes(one.data)) for one in frames]


@pytest.mark.parametrize("size", [0, 1, 124, 125, 126, 127, 1024, 65_534, 65_535, 65_536, 65_537, 3_000_000])
def test_a_frame_of_any_size_is_read_as_it_was_written(size: int) -> None:
    text = b"x" * size
    assert read(plain(text)) == [(1, True, text)]
    for head in (b"", b"own", text):
        assert read(plain(Frame(head, Shared(text)))) == [(1, True, head + text)]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=100)
@given(heads=st.lists(st.binary(max_size=300), min_size=1, max_size=5), tail=st.binary(max_size=3000))
def test_frames_that_share_a_tail_are_each_read_whole_also_compressed(heads: list[bytes], tail: bytes) -> None:
    frames = [Frame(head, Shared(tail)) for head in heads]
    for write in (plain, deflated):
        wire = b"".join(write(one) for one in frames)
        assert read(wire, deflates=True) == [(1, True, one.text) for one in frames]


@pytest.mark.parametrize("size", [0, 1, 100, 65_535, 65_536, 200_000])
def test_a_head_of_any_size_goes_before_a_compressed_tail(size: int) -> None:
    tail = Shared(b'{"id":"event","title":"Concert"}' * 1000)
    frame = Frame(random_bytes(size), tail)
    assert read(deflated(frame), deflates=True) == [(1, True, frame.text)]


def test_the_shared_part_is_compressed_once_and_only_when_somebody_compresses(monkeypatch: pytest.MonkeyPatch) -> None:
    made, real = [], zlib.compressobj
    monkeypatch.setattr(zlib, "compressobj", lambda *how: made.append(how) or real(*how))
    tail = Shared(b"0123456789" * 1000)
    frames = [Frame(b'{"seq":%d' % n, tail) for n in range(50)]
    plainly = [plain(one) for one in frames]
    assert made == []
    smaller = [deflated(one) for one in frames]
    assert len(made) == 1
    assert max(map(len, smaller)) < min(map(len, plainly)) / 10
    assert not any(one.endswith(SYNC_END) for one in [*smaller, deflated(tail.body)])


@pytest.mark.parametrize("payload", [b"x" * (WORTH_IT - 1), Frame(b"x", Shared(b"x" * (WORTH_IT - 2)))])
def test_a_short_message_is_never_compressed(payload: Payload) -> None:
    assert deflated(payload) == plain(payload)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=100)
@given(parts=st.lists(st.binary(max_size=500), max_size=6), kinds=st.lists(st.booleans(), min_size=6, max_size=6))
def test_parts_stand_one_behind_another_whatever_they_are(parts: list[bytes], kinds: list[bool]) -> None:
    whole = b"".join(deflate(part) if kind else stored(part) for part, kind in zip(parts, kinds, strict=False))
    assert whole == b"" or whole.endswith((SYNC_END, *parts))
    assert zlib.decompressobj(-15).decompress(whole) == b"".join(parts)


def test_the_reader_here_does_refuse_what_is_wrong() -> None:
    with pytest.raises(PayloadTooBig):
        client = ClientProtocol(parse_uri("ws://localhost/ws"), state=OPEN, max_size=10)
        client.receive_data(plain(b"x" * 11))
        raise client.parser_exc or AssertionError
