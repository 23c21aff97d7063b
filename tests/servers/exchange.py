"""One request on a raw socket and the means to answer it: exact bytes, holds, closes and resets."""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, NoReturn, TypeAlias

if TYPE_CHECKING:
    import threading

    from tests.servers.ranges import Range

Fields: TypeAlias = Mapping[str, str] | Iterable[tuple[str, str]]
Body: TypeAlias = bytes | Iterable[bytes | memoryview]

_POLL = 0.005  # seconds between two looks at what offers no event: a socket's send queue, two events at once
_BODILESS = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
_PHRASES = {status.value: status.phrase for status in HTTPStatus}


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it arrived."""

    number: int  # from 1, over all connections
    connection: int  # from 1, in order of accept
    method: str
    target: str
    headers: dict[str, str]  # names in lower case, repeated fields joined with ", "
    range: Range | None  # half-open; None without a single valid range
    body: bytes
    raw: bytes  # the head, byte for byte, without its empty line


@dataclass(frozen=True, slots=True)
class Answer:
    """What a handler is about to reply; faults change it on the way, see ``Exchange.spoil``."""

    status: int
    fields: tuple[tuple[str, str], ...]
    body: Body

    def without(self, *names: str) -> Answer:
        """Drop fields by name."""
        dropped = {name.lower() for name in names}
        return replace(self, fields=tuple(field for field in self.fields if field[0].lower() not in dropped))

    def plus(self, *fields: tuple[str, str]) -> Answer:
        """Append fields, duplicates included."""
        return replace(self, fields=self.fields + fields)

    @property
    def framed(self) -> bool:
        """Whether the fields say where the body ends."""
        return any(name.lower() in {"content-length", "transfer-encoding"} for name, _ in self.fields)

    def content(self) -> bytes:
        """Read the whole body into memory."""
        return self.body if isinstance(self.body, bytes) else b"".join(self.body)


class ConnectionOverError(ConnectionError):
    """The handler ended the connection on purpose; unwinds the handler and is no error."""


class Exchange:
    """One request and the means to answer it; belongs to the thread that runs the handler."""

    def __init__(
        self, conn: socket.socket, request: Seen, stopping: threading.Event, count: Callable[[int], None]
    ) -> None:
        """Tie a request to its connection; ``count`` is told each number of body bytes."""
        self.request = request
        self.otherwise: Handler = _no_otherwise  # the right answer, for handlers that spoil one; set by script()
        self.spoil: Callable[[Answer], Answer] | None = None  # applied to the next reply()
        self.persistent = request.headers.get("connection", "").lower() != "close"
        self.answered = False
        self._conn, self._stopping, self._count = conn, stopping, count
        self._body_sent = 0
        self._break: tuple[int, Callable[[], None]] | None = None

    def send(self, data: bytes | memoryview) -> None:
        """Send bytes as they are, uncounted."""
        self.answered = True
        self._conn.sendall(data)

    def head(self, status: int, fields: Fields = (), version: str = "HTTP/1.1") -> None:
        """Send a status line and exactly these fields."""
        pairs = fields.items() if isinstance(fields, Mapping) else fields
        first = f"{version} {status} {_PHRASES.get(status, 'Unknown')}"
        self.send("\r\n".join([first, *(f"{name}: {value}" for name, value in pairs), "", ""]).encode("latin-1"))

    def body(self, data: bytes | memoryview) -> None:
        """Send bytes of the body: counted, and interrupted where ``break_body`` said."""
        view = memoryview(data)
        if self._break is not None and self._body_sent + len(view) >= self._break[0]:
            (after, action), self._break = self._break, None
            cut = after - self._body_sent
            self.body(view[:cut])
            action()
            view = view[cut:]
        self.answered = True
        self._count(len(view))  # before the bytes go: whoever has received them finds them counted
        sent = 0
        try:
            while sent < len(view):
                sent += self._conn.send(view[sent:])
        finally:
            self._body_sent += sent
            if sent < len(view):
                self._count(sent - len(view))

    def break_body(self, after: int, action: Callable[[], None]) -> None:
        """Call ``action`` once ``after`` bytes of body are out; unless it ends the connection the rest follows."""
        self._break = (after, action)

    def reply(self, status: int, fields: Fields = (), body: Body = b"") -> None:
        """Send a whole answer; to HEAD, and with 204 and 304, without its body.

        ``bytes`` get a Content-Length unless the fields frame them already. An iterator does not: unless its fields
        frame it, its end is the end of the connection.
        """
        answer = Answer(status, tuple(fields.items() if isinstance(fields, Mapping) else fields), body)
        if isinstance(body, bytes) and not answer.framed:
            answer = answer.plus(("Content-Length", str(len(body))))
        if self.spoil is not None:
            answer, self.spoil = self.spoil(answer), None
        self.head(answer.status, answer.fields)
        if self.request.method == "HEAD" or answer.status in _BODILESS:
            return
        for chunk in [answer.body] if isinstance(answer.body, bytes) else answer.body:
            self.body(chunk)
        if not answer.framed:
            self.close()

    def hold(self, gate: threading.Event | None) -> None:
        """Wait for ``gate``, or without one until the client hangs up, which ends the connection as a stop does."""
        if gate is None:
            self._conn.recv(1)
            self.close()
        while not gate.wait(_POLL):
            self._check_stopping()

    def drip(self, data: bytes, gate: threading.Event, pause: float = 0.02, step: int = 1) -> None:
        """Send ``step`` bytes of body every ``pause`` seconds, and the rest at once when ``gate`` opens."""
        at = 0
        while at < len(data) and not gate.wait(pause):
            self._check_stopping()
            self.body(data[at : at + step])
            at += step
        self.body(data[at:])

    def flush(self) -> None:
        """Wait until the client's kernel has every byte sent so far, so that a reset cannot take one back."""
        while struct.unpack("i", fcntl.ioctl(self._conn, termios.TIOCOUTQ, bytes(4)))[0]:
            self._check_stopping()
            time.sleep(_POLL)

    def close(self) -> NoReturn:
        """End the connection with a FIN (over TLS without close_notify) and leave the handler."""
        raise ConnectionOverError

    def reset(self) -> NoReturn:
        """End the connection with an RST, after all bytes sent have arrived, and leave the handler."""
        self.flush()
        self._conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def _check_stopping(self) -> None:
        if self._stopping.is_set():
            self.close()


Handler: TypeAlias = Callable[[Exchange], None]


def _no_otherwise(_exchange: Exchange) -> None:
    message = "this handler spoils a right answer: use it inside script(..., otherwise=...)"
    raise RuntimeError(message)
