"""Objects that come in one ordered stream, because their server knows no ranges or does not say how long they are."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from fastcrc import crc64

from fastdl.access import Writer
from fastdl.again import again
from fastdl.connections import patience, stall_watch
from fastdl.contract import content_length
from fastdl.counters import BURST, Counters
from fastdl.errors import DiskError, ObjectChanged, Truncated
from fastdl.fetch import FIRST_WINDOW, WINDOW, next_window
from fastdl.probe import Probe, ask_whole
from fastdl.redact import redacted_url
from fastdl.validator import difference

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastdl.follower import Follower
    from fastdl.http import Response, Transport
    from fastdl.output import Output
    from fastdl.result import Fetched
    from fastdl.retry import Attempts
    from fastdl.sources import Source


def fetch_stream(
    source: Source,
    found: Probe,
    output: Output,
    transport: Transport,
    attempts: Attempts,
    fetched: Fetched,
    follower: Follower,
    *,
    stall: float,
    limit_rate: int | None,
    sleep: Callable[[float], None],
    tell: Callable[[int, int], None],
) -> int:
    """Fetch the whole body into ``output``, from its first byte again after every failure; return its size in bytes.

    ``stall`` is how many seconds may pass without progress, ``limit_rate`` how many bytes may come in one;
    ``follower`` hears of every byte that is stored.

    Raises:
        FastdlError: it cannot be had; nothing of it is resumable.
    """
    response, allowed = found.response, _pace(limit_rate)

    def receive() -> int:
        nonlocal response
        body, response = response, None
        if body is None:
            fetched.requests += 1
            fetched.retries += 1
            with patience(stall):
                body = _ask_again(source, found, transport)
        follower.restart()
        return _copy(body, output, fetched, follower, stall, allowed, tell)

    return again(source, attempts, sleep, receive)


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
    output: Output,
    fetched: Fetched,
    follower: Follower,
    stall: float,
    allowed: Callable[[int, int], int],
    tell: Callable[[int, int], None],
) -> int:
    """Write the whole body; a promised length must be met exactly, a chunked body be ended by its last chunk."""
    writer = Writer(output.fd, WINDOW)
    promised = content_length(response.headers)
    if promised is None:
        _empty(output)  # an earlier attempt may have left bytes
    size, crc, window = 0, 0, FIRST_WINDOW
    try:
        with stall_watch(lambda: fetched.bytes_fetched, stall, response.abort):
            while promised is None or size < promised:
                view = writer.window(allowed(fetched.bytes_fetched, window))
                began = time.monotonic()
                count = response.readinto(view)
                if count == 0:
                    break
                window = next_window(window, time.monotonic() - began)
                if promised is None:
                    output.check_length(size)
                writer.store(size, view[:count])
                crc = crc64.xz(view[:count], crc)
                size += count
                follower.advance(size)
                fetched.bytes_fetched += count
                tell(size, 1)
    finally:
        response.finish()
    if promised is not None and size < promised:
        raise Truncated(f"{redacted_url(response.request.url)}: the body ended {promised - size} bytes early")
    if promised is None:
        output.settle(size)
    fetched.crc64 = crc
    return size


def _empty(output: Output) -> None:
    try:
        os.ftruncate(output.fd, 0)
    except OSError as error:
        raise DiskError(f"{output.part_path}: {error.strerror}") from None
