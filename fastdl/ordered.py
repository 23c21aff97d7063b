"""Objects that come in one ordered stream, because their server knows no ranges or does not say how long they are."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastcrc import crc64

from fastdl.access import Writer
from fastdl.again import again
from fastdl.connections import patience, stall_watch
from fastdl.contract import content_length
from fastdl.counters import BURST, Counters
from fastdl.errors import ObjectChanged, Truncated
from fastdl.fetch import FIRST_WINDOW, WINDOW, next_window
from fastdl.probe import Probe, ask_whole
from fastdl.redact import redacted_url
from fastdl.validator import difference

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastdl.arrivals import Arrivals
    from fastdl.follower import Follower
    from fastdl.http import Response, Transport
    from fastdl.memory import Memory
    from fastdl.output import Output
    from fastdl.result import Fetched
    from fastdl.retry import Attempts
    from fastdl.sources import Source

_NAP = 0.1  # seconds between looks at the time while readers make no room


def fetch_stream(
    source: Source,
    found: Probe,
    output: Output | Memory,
    transport: Transport,
    attempts: Attempts,
    fetched: Fetched,
    follower: Follower,
    *,
    stall: float,
    limit_rate: int | None,
    sleep: Callable[[float], None],
    tell: Callable[[int, int], None],
    readers: Arrivals | None = None,
) -> int:
    """Fetch the whole body into ``output``, from its first byte again after every failure; return its size in bytes.

    ``stall`` is how many seconds may pass without progress, ``limit_rate`` how many bytes may come in one;
    ``follower`` hears of every byte that is stored. What ``readers`` may have seen is not stored again but compared.

    Raises:
        FastdlError: it cannot be had; nothing of it is resumable.
    """
    response, allowed, seen = found.response, _pace(limit_rate), None if readers is None else _Seen(readers)

    def receive() -> int:
        nonlocal response
        body, response = response, None
        if body is None:
            fetched.requests += 1
            fetched.retries += 1
            with patience(stall):
                body = _ask_again(source, found, transport)
        if seen is None:
            follower.restart()
        return _copy(body, output, fetched, follower, stall, allowed, tell, seen)

    return again(source, attempts, sleep, receive)


@dataclass(slots=True)
class _Seen:
    """What ``readers`` may have read of an earlier attempt."""

    readers: Arrivals
    size: int = 0  # bytes
    crc: int = 0
    waits: int = 0  # for readers to make room

    def room(self, size: int) -> int:
        """Return how many bytes may come after ``size``; none if readers made no room for a while."""
        if size < self.size:
            return self.size - size
        room = self.readers.room(size, _NAP)
        self.waits += not room
        return room

    def take(self, size: int, crc: int) -> None:
        """Take note of the CRC-64 of the first ``size`` bytes.

        Raises:
            ObjectChanged: it is not what the same bytes had before.
        """
        if size == self.size and crc != self.crc:
            raise ObjectChanged(f"the object was replaced while it was read: its first {size} bytes are others now")
        if size > self.size:
            self.size, self.crc = size, crc
            self.readers.advance(size)


def _ask_again(source: Source, found: Probe, transport: Transport) -> Response:
    again = ask_whole(source, transport)
    changed = difference(found.info.validator, again.info.validator)
    if again.response is None or changed or again.info.size != found.info.size:
        again.close()
        raise ObjectChanged(f"{source.shown} was replaced during the download: {changed or 'it has another size'}")
    return again.response


def _pace(limit_rate: int | None) -> Callable[[int, int], int]:
    """Return what tells how many of so many bytes may be received after so many others, once any may."""
    if limit_rate is None:
        return lambda _, nbytes: nbytes
    counters = Counters(-1, 1)
    counters.limit(limit_rate, 0.0)

    def allowed(received: int, nbytes: int) -> int:
        counters.received[0] = received
        counters.limit(limit_rate, BURST)
        time.sleep(counters.excess())
        return counters.paced(nbytes)

    return allowed


def _copy(
    response: Response,
    output: Output | Memory,
    fetched: Fetched,
    follower: Follower,
    stall: float,
    allowed: Callable[[int, int], int],
    tell: Callable[[int, int], None],
    seen: _Seen | None,
) -> int:
    """Write the whole body; a promised length must be met exactly, a chunked body be ended by its last chunk."""
    writer = Writer(output.fd, WINDOW)
    promised = content_length(response.headers)
    if promised is None:
        output.empty()  # an earlier attempt may have left bytes
    size, crc, window = 0, 0, FIRST_WINDOW
    try:
        with stall_watch(lambda: (fetched.bytes_fetched, seen and seen.waits), stall, response.abort):
            while promised is None or size < promised:
                nbytes = min(allowed(fetched.bytes_fetched, window), 2**63 if seen is None else seen.room(size))
                if nbytes == 0:
                    tell(size, 1)
                    continue
                view = writer.window(nbytes)
                began = time.monotonic()
                count = response.readinto(view)
                if count == 0:
                    break
                window = next_window(window, time.monotonic() - began)
                if promised is None:
                    output.check_length(size)
                if seen is None or size >= seen.size:
                    writer.store(size, view[:count], output.ring)
                crc = crc64.xz(view[:count], crc)
                size += count
                if seen is not None:
                    seen.take(size, crc)
                follower.advance(size)
                fetched.bytes_fetched += count
                tell(size, 1)
    finally:
        response.finish()
    _check_end(response, size, promised, seen)
    if promised is None:
        output.settle(size)
    fetched.crc64 = crc
    return size


def _check_end(response: Response, size: int, promised: int | None, seen: _Seen | None) -> None:
    """Make sure that a body may end behind ``size`` bytes.

    Raises:
        Truncated: it was cut.
        ObjectChanged: it is whole, and shorter than what was read of the object before.
    """
    where = redacted_url(response.request.url)
    if promised is not None and size < promised:
        raise Truncated(f"{where}: the body ended {promised - size} bytes early")
    if seen is not None and size < seen.size:
        if response.ended_by_nothing:
            raise Truncated(f"{where}: the body ended before the {seen.size} bytes that it had before")
        raise ObjectChanged(f"{where} was replaced while it was read: it has {size} bytes now, and had {seen.size}")
