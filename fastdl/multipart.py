"""The body of an answer to several ranges, ``multipart/byteranges``, read strictly and in bounded memory.

Whatever could be read in two ways is an error: who asked then asks for one range at a time, and nothing is lost but a
request. Source: RFC 9110, 14.6; RFC 2046, 5.1.1.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fastdl.contract import parse_content_range
from fastdl.errors import ProtocolError, Truncated

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastdl.contract import ContentRange

WINDOW = 64 * 1024  # bytes received at a time; larger parts are received where they belong
MAX_HEAD = 2048  # bytes of a boundary and the fields behind it
_TAIL = 256  # bytes behind the last boundary that are read so that the connection can be used again
_TYPE = re.compile(
    r'multipart/byteranges[ \t]*;[ \t]*boundary=(?:"([0-9A-Za-z\'()+_,./:=? -]{1,70})"|([0-9A-Za-z\'+_.-]{1,70}))',
    re.IGNORECASE,
)
_FIELDS = rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\0]*\r\n)+)\r\n"
_CODED = (b"content-encoding", b"content-transfer-encoding", b"transfer-encoding")


def boundary_of(content_type: str) -> bytes | None:
    """Return the boundary that a Content-Type names; None if it is not that of several ranges, or not clearly."""
    match = _TYPE.fullmatch(content_type.strip(" \t"))
    found = "" if match is None else match[1] or match[2]
    return found.encode("ascii") if found and not found.endswith(" ") else None


class Multipart:
    """The parts of a body, one after the other: ``part`` tells which bytes come next, ``readinto`` hands them out.

    ``read`` receives into a view until it is full or the body ends, as ``Response.readinto`` does.
    """

    def __init__(self, boundary: bytes, read: Callable[[memoryview], int]) -> None:
        self._read = read
        self._buffer = bytearray(WINDOW)
        self._view = memoryview(self._buffer)
        self._at = self._end = 0  # what was received and is not used yet: [at, end) of the buffer
        self._over = False  # the body ended
        # The line break before a boundary belongs to it; before the first one it may be there or not.
        self._line = b"\r\n--" + boundary
        line = re.escape(self._line[2:])
        self._first = re.compile(rb"(?:\r\n)?" + line + rb"[ \t]*\r\n" + _FIELDS)
        self._next = re.compile(rb"\r\n" + line + rb"[ \t]*\r\n" + _FIELDS)
        self._last = re.compile(rb"\r\n" + line + rb"--")
        self._pattern = self._first
        self._left = 0  # bytes of the part that is being handed out
        self._peeked: ContentRange | None = None

    def peek(self) -> ContentRange | None:
        """Return what ``part`` will return, without going on."""
        if self._peeked is None:
            self._peeked = self.part()
        return self._peeked

    def part(self) -> ContentRange | None:
        """Return which bytes come next, None behind the last part. What was not read of the part before is an error.

        Raises:
            ProtocolError: no part begins here, or not clearly which.
            Truncated: the body ended.
        """
        if self._peeked is not None:
            peeked, self._peeked = self._peeked, None
            return peeked
        if self._left:
            raise ProtocolError("a part of an answer to several ranges was left")
        while (match := self._pattern.match(self._buffer, self._at, self._end)) is None:
            if self._pattern is self._next and self._last.match(self._buffer, self._at, self._end):
                self._drain()
                return None
            self._check_begun()
            self._receive()
        if match.end() - match.start() > MAX_HEAD:
            raise ProtocolError("an answer to several ranges with too long a head of a part")
        got = _range_of(match[1])
        self._at, self._pattern = match.end(), self._next
        self._left = got.stop - got.start
        return got

    def readinto(self, view: memoryview) -> None:
        """Fill ``view`` with the next bytes of the part.

        Raises:
            ProtocolError: it has not that many any more.
            Truncated: the body ended; ``view`` then holds garbage.
        """
        if len(view) > self._left:
            raise ProtocolError("a part of an answer to several ranges is shorter than asked for")
        self._left -= len(view)
        count = min(len(view), self._end - self._at)
        view[:count] = self._view[self._at : self._at + count]
        self._at += count
        while count < len(view):
            if len(view) - count < WINDOW:
                self._receive()
                got = min(len(view) - count, self._end)
                view[count : count + got] = self._view[:got]
                self._at = got
            else:
                got = self._read(view[count:])
                if not got:
                    raise _cut_short()
            count += got

    def _check_begun(self) -> None:
        """Make sure that what was received may be the beginning of a part's head, so that waiting for more is right.

        Raises:
            ProtocolError: it is not, whatever comes.
        """
        begun = bytes(self._buffer[self._at : self._end])
        line = self._line if self._pattern is self._next or not begun.startswith(b"--") else self._line[2:]
        other = not line.startswith(begun[: len(line)]) or b"\r\n\r\n" in begun
        if other or self._last.match(begun) or len(begun) >= MAX_HEAD:
            raise ProtocolError("an answer to several ranges in which no part begins where it should")

    def _receive(self) -> None:
        """Receive more behind what is not used yet, which moves to the front.

        Raises:
            Truncated: the body ended.
        """
        kept = self._end - self._at
        self._buffer[:kept] = self._buffer[self._at : self._end]
        got = 0 if self._over else self._read(self._view[kept:])
        self._at, self._end = 0, kept + got
        if not got:
            self._over = True
            raise _cut_short()

    def _drain(self) -> None:
        """Read what stands behind the last boundary, if that is little: a body read to its end frees its connection."""
        if not self._over:
            self._read(self._view[:_TAIL])


def _range_of(fields: bytes) -> ContentRange:
    """Return the one range that a part's fields name."""
    found: list[bytes] = []
    for line in fields.split(b"\r\n"):
        name, _, value = line.partition(b":")
        name = name.lower()
        if name == b"content-range":
            found.append(value)
        elif name in _CODED:
            raise ProtocolError("a coded part in an answer to several ranges")
    got = parse_content_range(found[0].decode("latin-1")) if len(found) == 1 else None
    if got is None:
        raise ProtocolError("a part of an answer to several ranges does not say which one it is")
    return got


def _cut_short() -> Truncated:
    return Truncated("an answer to several ranges ended before its last part did")
