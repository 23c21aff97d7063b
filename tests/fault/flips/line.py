"""A server that flips bits of what it sends, on one kept-alive connection, with as little work as possible."""

from __future__ import annotations

import random
import re
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_RANGE = re.compile(rb"range: bytes=(\d+)-(\d+)", re.IGNORECASE)
ETAG = '"v1"'


def flip(data: bytes | bytearray | memoryview, bit: int) -> None:
    """Flip one bit in place."""
    data[bit >> 3] ^= 1 << (bit & 7)  # type: ignore[index]


class Flipper:
    """Serves ``data``: at ``/whole`` with one flipped bit, at ``/parts`` with one in each part, else rightly."""

    def __init__(self, data: bytes, part: int, seed: int) -> None:
        self._data, self._part = data, part
        self._rng = random.Random(seed)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def run(self) -> None:
        """Answer until the last client is gone."""
        with self._listener:
            while True:
                connection, _ = self._listener.accept()
                with connection:
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    if not self._answer(connection):
                        return

    def _answer(self, connection: socket.socket) -> bool:
        """Answer all requests of one connection; tell whether more connections are to come."""
        pending = b""
        while True:
            while b"\r\n\r\n" not in pending:
                received = connection.recv(4096)
                if not received:
                    return True
                pending += received
            head, _, pending = pending.partition(b"\r\n\r\n")
            asked = _RANGE.search(head)
            if asked is None:
                return False
            start, stop = int(asked[1]), int(asked[2]) + 1
            body = bytearray(self._data[start:stop])
            if b"/whole" in head:
                flip(body, self._rng.randrange(8 * len(body)))
            elif b"/parts" in head:
                for at in range(0, len(body), self._part):
                    flip(body, 8 * at + self._rng.randrange(8 * min(self._part, len(body) - at)))
            answer = (
                f"HTTP/1.1 206 Partial Content\r\nETag: {ETAG}\r\nContent-Length: {len(body)}\r\n"
                f"Content-Range: bytes {start}-{stop - 1}/{len(self._data)}\r\n\r\n"
            )
            connection.sendall(answer.encode() + body)


@contextmanager
def flipping(data: bytes, part: int, seed: int) -> Iterator[str]:
    """Serve until the end of the block, by when no client may be connected; yield the URL before the path."""
    flipper = Flipper(data, part, seed)
    thread = threading.Thread(target=flipper.run, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{flipper.port}"
    finally:
        with socket.create_connection(("127.0.0.1", flipper.port)) as last:
            last.sendall(b"stop\r\n\r\n")
            last.recv(1)
        thread.join()
