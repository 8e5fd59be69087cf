"""Tells systemd how the service is (sd_notify), where it asks to be told: a unit with Type=notify sets NOTIFY_SOCKET.

Nothing happens elsewhere, and a socket that does not take the word changes nothing: the service is not worse for it.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import Final

READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"


def tell(word: str) -> None:
    """One word to the service manager."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    address = f"\0{path[1:]}" if path.startswith("@") else path
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
        manager.settimeout(1.0)
        manager.sendto(word.encode(), address)
