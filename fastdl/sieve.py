"""Ranges of an object whose server serves none: one stream is read, what was asked for kept, the rest passed over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastdl.again import again
from fastdl.answers import Pace
from fastdl.connections import patience, stall_watch
from fastdl.contract import check_validator
from fastdl.errors import NetworkError, ObjectChanged, ProtocolError, Truncated, UsageError
from fastdl.fetch import WINDOW
from fastdl.probe import ask_whole
from fastdl.redact import redacted_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from fastdl.http import Response, Transport
    from fastdl.joining import Piece
    from fastdl.opening import Opening
    from fastdl.places import Places
    from fastdl.retry import Attempts
    from fastdl.sources import Source

MOST_PASSED = 256 << 20  # bytes that nobody asked for: beyond it the whole object is what should be fetched


def check_worth(source: Source, pieces: Sequence[Piece]) -> None:
    """Refuse to read a stream of which nearly nothing is wanted.

    Raises:
        ProtocolError: more than MOST_PASSED bytes would be read for nothing.
    """
    last = pieces[-1].stop
    passed = last - sum(piece.size for piece in pieces)
    if passed > MOST_PASSED:
        raise ProtocolError(
            f"{source.shown}: its server serves no ranges; {last} bytes would have to be read for {last - passed}: "
            "download it"
        )


def read_through(
    source: Source,
    transport: Transport,
    found: Opening,
    pieces: Callable[[], Iterable[Piece]],
    places: Places,
    attempts: Attempts,
    sleep: Callable[[float], None],
) -> None:
    """Fill ``places`` from one answer with the whole object, which is left behind the last byte that is wanted.

    ``pieces`` tells them in order, each short enough to be held in memory. After a failure the object is read from its
    first byte again.

    Raises:
        UsageError: it ended before that byte.
        FastdlError: it cannot be had.
    """
    response = None if found.answer is None else found.answer.response

    def receive() -> None:
        nonlocal response
        body, response = response, None
        if body is None:
            with patience(transport.line.read_timeout):
                body = _ask_again(source, transport, found)
        try:
            _sift(body, pieces(), places, transport.line.read_timeout, sleep)
        finally:
            body.finish()

    again(source, attempts, sleep, receive)


def _ask_again(source: Source, transport: Transport, found: Opening) -> Response:
    fresh = ask_whole(source, transport)
    try:
        if fresh.response is None or fresh.info.size != found.info.size:
            raise ObjectChanged(f"{source.shown} was replaced meanwhile: it has another size; run again to restart")
        check_validator(fresh.response.headers, source.shown, found.info.validator)
    except BaseException:
        fresh.close()
        raise
    return fresh.response


def _sift(
    response: Response, pieces: Iterable[Piece], places: Places, stall: float, sleep: Callable[[float], None]
) -> None:
    scratch = memoryview(bytearray(WINDOW))
    pace, at, moved = Pace(), 0, 0

    def receive(view: memoryview) -> None:
        nonlocal at, moved
        while view:
            sleep(0.0)  # raises where there is no more time
            count = pace.read(response, view)
            if not count:
                raise _end(response, at)
            at += count
            moved += 1
            view = view[count:]

    with stall_watch(lambda: moved, stall, response.abort):
        for piece in pieces:
            while at < piece.start:
                receive(scratch[: piece.start - at])
            view = places.of(piece)
            if view is not None:
                receive(view)
                continue
            own = memoryview(bytearray(piece.size))
            receive(own)
            places.fill(piece, own)


def _end(response: Response, at: int) -> NetworkError | UsageError:
    """Return what it means that a body ended behind ``at`` bytes."""
    where = redacted_url(response.request.url)
    if "Content-Length" in response.headers or response.ended_by_nothing:
        return Truncated(f"{where}: the body ended behind {at} bytes")
    return UsageError(f"{where}: it has {at} bytes only; not all of the ranges are inside it")
