"""What two processes of ours share: a pipe of messages with file descriptors beside them, and files without a name."""

from __future__ import annotations

import os
import select
import socket
import tempfile
import threading
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


def anonymous_descriptor() -> int:
    """Return the descriptor of an empty file that has no name and ends with its last user."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("fastdl")
    with tempfile.TemporaryFile(buffering=0) as file:
        return os.dup(file.fileno())


def anonymous_file() -> IO[bytes]:
    """Return such a file opened, unbuffered."""
    return open(anonymous_descriptor(), "w+b", buffering=0)


class Descriptor:
    """An open file for several threads: it is closed when the last of them lets go of this."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)


class Pipe:
    """One end of a socketpair; ``send`` may be called from any thread, ``recv`` from one."""

    def __init__(self, end: socket.socket) -> None:
        self.connection = Connection(end.detach())
        self._lock = threading.Lock()

    def send(self, message: Any, descriptor: int | None = None) -> None:
        """Send a message, and a duplicate of ``descriptor`` behind it.

        Raises:
            OSError: the other end is gone.
        """
        with self._lock:
            self.connection.send(message)
            if descriptor is not None:
                with self._end() as end:
                    socket.send_fds(end, [b"\0"], [descriptor])

    def recv(self) -> Any:
        """Return the next message.

        Raises:
            EOFError, OSError: the other end is gone.
        """
        return self.connection.recv()

    def recv_descriptor(self) -> int:
        """Return the descriptor behind the message just received; the caller closes it."""
        with self._end() as end:
            _, descriptors, _, _ = socket.recv_fds(end, 1, 1)
        if not descriptors:
            raise EOFError
        return descriptors[0]

    @contextmanager
    def _end(self) -> Iterator[socket.socket]:
        """Lend the end as a socket, without a descriptor more: they may be short."""
        end = socket.socket(fileno=self.connection.fileno())
        try:
            yield end
        finally:
            end.detach()

    @property
    def writable(self) -> bool:
        """Whether a small message can be sent without waiting for the other end to read."""
        poll = select.poll()
        poll.register(self.connection.fileno(), select.POLLOUT)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Close this end; the other one sees the end of the stream."""
        self.connection.close()
