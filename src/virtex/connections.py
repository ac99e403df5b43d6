"""TCP connections of this process that end when the machine at the other end is gone.

A process that dies closes its connections; a machine that loses power or network does not, and
neither gloo nor torch's store notices. The kernel does if it is told to.
"""

import contextlib
import os
import socket
import stat
import sys
from pathlib import Path

PATIENCE = 60
"""Seconds for which a machine may be silent: a shorter loss of the network ends nothing."""
IDLE, INTERVAL = 15, 5
"""Seconds without data before the first question to the other end, and between two."""


def watch() -> None:
    """Let the kernel end this process's TCP connections to machines that do not answer.

    Data that a stopped process does not take count as no answer too.
    """
    if sys.platform != "linux":
        return
    for path in list(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(OSError):  # closed in the meantime, or no TCP connection
            if stat.S_ISSOCK(os.fstat(int(path.name)).st_mode):
                _watch(int(path.name))


def _watch(descriptor: int) -> None:
    with socket.socket(fileno=os.dup(descriptor)) as connection:
        if connection.family in (socket.AF_INET, socket.AF_INET6):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, IDLE)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, INTERVAL)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PATIENCE // INTERVAL)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * PATIENCE)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
