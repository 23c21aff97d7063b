"""A connection's bytes as http.client reads them: a large piece of a body comes by one system call.

``socket.makefile`` asks the kernel once for whatever has arrived, and before that, because the socket has a timeout,
whether anything has. For a window of 256 KiB that is a dozen calls and as many turns for the interpreter's lock.
"""

from __future__ import annotations

import io
import socket
import ssl
import struct
from typing import Any

_LARGE = io.DEFAULT_BUFFER_SIZE  # a reader that wants more than its buffer holds reads past it


class Wire(io.RawIOBase):
    """Reads ``sock``, of which ``raw`` is the file that ``makefile`` made: the socket stays open as long as that."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw = raw
        self._sock = sock
        self._secure = isinstance(sock, ssl.SSLSocket)

    def readable(self) -> bool:
        """Return True: the one thing that it is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Receive into ``buffer``: all of it if it is large, less if the stream ends or pauses; 0 means that it ended.

        Raises:
            TimeoutError: nothing came for the socket's timeout.
        """
        if len(buffer) <= _LARGE:
            return self._some(buffer)
        if self._secure:
            return self._records(memoryview(buffer))
        if self._sock.gettimeout() is not None:
            self._let_the_kernel_wait()
        return self._some(buffer, socket.MSG_WAITALL)

    def close(self) -> None:
        """Let go of the socket."""
        super().close()
        self._raw.close()

    def _some(self, buffer: Any, flags: int = 0) -> int:
        try:
            return self._sock.recv_into(buffer, 0, flags)
        except BlockingIOError:
            raise TimeoutError("timed out") from None

    def _records(self, view: memoryview) -> int:
        """Receive TLS records, of at most 16 KiB each, until ``view`` is full."""
        count, read = 0, self._sock.read  # type: ignore[attr-defined] # an SSLSocket's
        while count < len(view):
            got: int = read(len(view) - count, view[count:])
            if not got:
                break
            count += got
        return count

    def _let_the_kernel_wait(self) -> None:
        """Have the timeout kept by the kernel: to Python the socket is blocking, as MSG_WAITALL wants it."""
        seconds, microseconds = divmod(max(1, round(1e6 * (self._sock.gettimeout() or 0.0))), 1_000_000)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", seconds, microseconds))
        self._sock.settimeout(None)
