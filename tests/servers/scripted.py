"""Ready-made handlers: right answers over bytes or virtual objects, and scripts that spoil chosen requests.

Tests import everything from here: ``with serving(script({3: reset_after(100)}, otherwise=ranged(data))) as server``.
The faults themselves, re-exported here, are in :mod:`tests.servers.faults`.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import TYPE_CHECKING, Protocol

from tests.servers.exchange import Answer, Exchange, Fields, Handler, Seen
from tests.servers.faults import (
    admitted_longer_body,
    closes_afterwards,
    drip,
    flipped,
    gzip_coded,
    hang_up,
    informational,
    longer_body,
    multipart_byteranges,
    other_fields,
    raw,
    redirect,
    reset,
    reset_after,
    shifted_206,
    short_206,
    spoiling,
    stall_after,
    stall_before_head,
    status,
    truncate_after,
    wrong_content_range,
)
from tests.servers.ranges import clip_range, content_range
from tests.servers.wire import Server, serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = [
    "LAST_MODIFIED",
    "Answer",
    "Exchange",
    "Handler",
    "Pattern",
    "Seen",
    "Server",
    "Source",
    "admitted_longer_body",
    "by_offset",
    "chunked",
    "closes_afterwards",
    "drip",
    "first_of",
    "flipped",
    "from_request",
    "gzip_coded",
    "hang_up",
    "ignores_range",
    "informational",
    "longer_body",
    "multipart_byteranges",
    "no_length",
    "other_fields",
    "ranged",
    "raw",
    "redirect",
    "reset",
    "reset_after",
    "routes",
    "script",
    "serving",
    "shifted_206",
    "short_206",
    "spoiling",
    "stall_after",
    "stall_before_head",
    "status",
    "truncate_after",
    "wrong_content_range",
]

LAST_MODIFIED = "Wed, 01 Jan 2025 00:00:00 GMT"
_CHUNK = 1 << 20  # bytes read from a virtual object at once
_LAST_CHUNK = b"0\r\n\r\n"


class Source(Protocol):
    """An object that need not be in memory."""

    @property
    def size(self) -> int:
        """Its length in bytes."""

    def read(self, start: int, stop: int) -> bytes | memoryview:
        """Return exactly the bytes ``[start, stop)``."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A virtual object of any size: one random block again and again.

    The block's length is prime, so that bytes at the wrong offset differ, whatever round number the offset is off by.
    """

    size: int
    seed: int = 0
    _twice: memoryview = field(init=False, repr=False, compare=False)

    PERIOD = 1_048_573  # bytes; the largest prime below 1 MiB

    def __post_init__(self) -> None:
        """Make the block, twice in a row: every window of one period is then one slice."""
        block = random.Random(self.seed).randbytes(self.PERIOD)
        object.__setattr__(self, "_twice", memoryview(block + block))

    def read(self, start: int, stop: int) -> bytes | memoryview:
        """Return the bytes ``[start, stop)``, without a copy up to one period."""
        first = start % self.PERIOD
        if first + stop - start <= len(self._twice):
            return self._twice[first : first + stop - start]
        blocks = (first + stop - start) // self.PERIOD + 1
        return (bytes(self._twice[: self.PERIOD]) * blocks)[first : first + stop - start]


@dataclass(frozen=True, slots=True)
class _Bytes:
    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, start: int, stop: int) -> memoryview:
        return memoryview(self.data)[start:stop]


def as_source(data: bytes | Source) -> Source:
    """Let bytes be read like a virtual object."""
    return _Bytes(data) if isinstance(data, bytes) else data


def pieces(source: Source, start: int, stop: int) -> Iterator[bytes | memoryview]:
    """Read ``[start, stop)`` in chunks, so that no answer needs more memory than one of them."""
    for at in range(start, stop, _CHUNK):
        yield source.read(at, min(at + _CHUNK, stop))


def ranged(
    data: bytes | Source,
    etag: str | None = '"v1"',
    last_modified: str | None = LAST_MODIFIED,
    extra_headers: Mapping[str, str] | None = None,
) -> Handler:
    """Serve an object rightly: 200, 206, 416, and 412 by If-Match; If-Range by a strong ETag or the exact date."""
    source, extra = as_source(data), dict(extra_headers or {})
    known = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
    known |= {name: value for name, value in (("ETag", etag), ("Last-Modified", last_modified)) if value is not None}

    def handle(exchange: Exchange) -> None:
        headers, asked = exchange.request.headers, exchange.request.range
        fields = known | {"Date": formatdate(usegmt=True)} | extra
        wanted = headers.get("if-match", "*")
        if wanted != "*" and (etag is None or etag not in [item.strip() for item in wanted.split(",")]):
            exchange.reply(412, fields)
            return
        condition = headers.get("if-range")
        strong = etag is not None and not etag.startswith("W/") and condition == etag
        if condition is not None and not strong and (last_modified is None or condition != last_modified):
            asked = None
        if asked is None or exchange.request.method != "GET":
            send(exchange, 200, fields, source, (0, source.size))
        elif (span := clip_range(asked, source.size)) is None:
            exchange.reply(416, fields | {"Content-Range": f"bytes */{source.size}"})
        else:
            send(exchange, 206, fields | {"Content-Range": content_range(*span, source.size)}, source, span)

    return handle


def send(exchange: Exchange, status: int, fields: dict[str, str], source: Source, span: tuple[int, int]) -> None:
    """Reply with the bytes ``[span[0], span[1])`` of a source."""
    exchange.reply(status, fields | {"Content-Length": str(span[1] - span[0])}, pieces(source, *span))


def ignores_range(
    data: bytes | Source, etag: str | None = '"v1"', extra_headers: Mapping[str, str] | None = None
) -> Handler:
    """Answer every request with 200 and the whole object."""
    source = as_source(data)
    fields = ({} if etag is None else {"ETag": etag}) | dict(extra_headers or {})
    return lambda exchange: send(exchange, 200, fields, source, (0, source.size))


def no_length(data: bytes | Source, fields: Fields = ()) -> Handler:
    """Answer in HTTP/1.0 without a length: only the end of the connection ends the body."""
    source = as_source(data)

    def handle(exchange: Exchange) -> None:
        exchange.head(200, fields, version="HTTP/1.0")
        for piece in pieces(source, 0, source.size):
            exchange.body(piece)
        exchange.close()

    return handle


def chunked(data: bytes | Source, last: bytes = _LAST_CHUNK, fields: Fields = ()) -> Handler:
    """Answer with chunked coding; a ``last`` other than the right end of it is sent verbatim, then the end."""
    source = as_source(data)

    def coded() -> Iterator[bytes]:
        for piece in pieces(source, 0, source.size):
            yield b"".join((b"%x\r\n" % len(piece), piece, b"\r\n"))
        yield last

    def handle(exchange: Exchange) -> None:
        exchange.reply(200, dict(fields) | {"Transfer-Encoding": "chunked"}, coded())
        if last != _LAST_CHUNK:
            exchange.close()

    return handle


def script(faults: Mapping[int, Handler], otherwise: Handler) -> Handler:
    """Let the nth request of the server, counted from 1, be answered by ``faults[n]``."""

    def handle(exchange: Exchange) -> None:
        exchange.otherwise = otherwise
        faults.get(exchange.request.number, otherwise)(exchange)

    return handle


def first_of(now: list[Handler]) -> Handler:
    """Answer by what stands first in ``now`` at that moment: a server that changes between two runs."""

    def handle(exchange: Exchange) -> None:
        now[0](exchange)

    return handle


def by_offset(faults: Mapping[int, Handler], otherwise: Handler, times: int = 1) -> Handler:
    """Let the first ``times`` ranged requests that start at byte n be answered by ``faults[n]``."""
    used: Counter[int] = Counter()
    lock = threading.Lock()

    def handle(exchange: Exchange) -> None:
        exchange.otherwise = chosen = otherwise
        if exchange.request.range is not None and (start := exchange.request.range[0]) in faults:
            with lock:
                used[start] += 1
                chosen = faults[start] if used[start] <= times else otherwise
        chosen(exchange)

    return handle


def from_request(number: int, then: Handler, before: Handler) -> Handler:
    """Change the answers for good at the nth request: an object replaced, deleted, spoilt by every answer."""

    def handle(exchange: Exchange) -> None:
        exchange.otherwise = before
        (then if exchange.request.number >= number else before)(exchange)

    return handle


def routes(handlers: Mapping[str, Handler]) -> Handler:
    """Answer by path, without regard to the query; other paths are 404."""

    def handle(exchange: Exchange) -> None:
        path = exchange.request.target.partition("?")[0]
        if path in handlers:
            handlers[path](exchange)
        else:
            exchange.reply(404)

    return handle
