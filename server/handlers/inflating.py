"""What was compressed by permessage-deflate (RFC 7692) becomes what was meant, frame by frame, and never more than is allowed.

The library agrees on the extension; its own reading of it takes a block that says it is the last of its kind (BFINAL) for the
end of the message: what follows is dropped, and kept in memory, without bound. Here such a block is followed by the next one
(section 7.2.1), at most FINALS times in a message. No window outlives its message: that is what this server always agrees on,
so nothing is kept of a connection that compresses while no compressed message is under way.
"""

from __future__ import annotations

import zlib
from typing import Final

from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.extensions import Extension
from websockets.frames import CONT, CTRL_OPCODES, Frame
from websockets.typing import ExtensionName

from server.batching.scores.frame import SYNC_END

FINALS: Final = 64
"""Blocks that say they are the last, in one message; each costs a new decoder and a copy of what is left. Above: 1009."""


class Inflate(Extension):
    """Of one connection; in the place of the library's once that is agreed upon."""

    name = ExtensionName("permessage-deflate")

    def __init__(self) -> None:
        self._engine: zlib._Decompress | None = None
        """Of the compressed message whose fragments are coming in."""
        self._finals = 0

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        """The frame as if it had not been compressed; a reserved bit that means nothing here stays for `check` to refuse."""
        if frame.opcode in CTRL_OPCODES or not self._begins_or_goes_on(frame):
            return frame
        assert max_size is not None, "messages have a limit"
        data = self._inflated(bytes(frame.data) + (SYNC_END if frame.fin else b""), max_size)
        if frame.fin:
            self._engine = None
        return Frame(frame.opcode, data, frame.fin, False, frame.rsv2, frame.rsv3)

    def encode(self, frame: Frame) -> Frame:
        """Data frames of ours are made in framing.py; only control frames come by, and these are never compressed."""
        return frame

    def _begins_or_goes_on(self, frame: Frame) -> bool:
        """Is it of a compressed message?"""
        if frame.opcode is not CONT:
            self._engine = zlib.decompressobj(wbits=-zlib.MAX_WBITS) if frame.rsv1 else None
            self._finals = 0
        elif self._engine is not None and frame.rsv1:
            raise ProtocolError("only the first fragment says that a message is compressed")
        return self._engine is not None

    def _inflated(self, data: bytes, limit: int) -> bytes:
        made = bytearray()
        while data:
            engine = self._next(limit)
            try:
                made += engine.decompress(data, limit - len(made) + 1)
            except zlib.error as error:
                raise ProtocolError("decompression failed") from error
            if len(made) > limit:
                raise PayloadTooBig(None, limit)
            data = engine.unused_data  # All else was taken, or more than the limit would have been made.
        return bytes(made)

    def _next(self, limit: int) -> zlib._Decompress:
        """The decoder for what comes next: a new one behind a last block."""
        assert self._engine is not None
        if self._engine.eof:
            self._finals += 1
            if self._finals > FINALS:
                raise PayloadTooBig(None, limit)
            self._engine = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
        return self._engine
