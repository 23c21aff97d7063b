"""Answers to requests for one range or for several, judged and received into their places."""

from __future__ import annotations

import functools
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fastdl.contract import (
    ContentRange,
    check_partial,
    check_satisfiable,
    check_uncoded,
    check_validator,
    ranges_header,
)
from fastdl.errors import FastdlError, NetworkError, ObjectChanged, ProtocolError, RangeMismatch, Refused, Truncated
from fastdl.fetch import FIRST_WINDOW, next_window
from fastdl.multipart import Multipart, boundary_of
from fastdl.redact import printable, redacted_url
from fastdl.retry import RETRYABLE_STATUS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastdl.http import Response
    from fastdl.joining import Piece
    from fastdl.places import Places
    from fastdl.retry import Attempts
    from fastdl.validator import ObjectInfo

_OK, _PARTIAL = 200, 206


@dataclass(slots=True)
class Batch:
    """What one request asks for, and what of it is still to come: of the first piece all but ``done`` bytes."""

    pieces: deque[Piece]
    attempts: Attempts
    answer: Answer | None = None  # to it, if that was asked for already
    done: int = 0
    view: memoryview | None = field(default=None, repr=False)  # where the first piece is being received
    moved: int = 0  # bytes received since somebody set it to 0
    not_before: float = 0.0  # monotonic seconds

    @property
    def header(self) -> tuple[str, str]:
        """The Range header that asks for what is still to come."""
        first = self.pieces[0]
        return ranges_header([(first.start + self.done, first.stop)] + [(p.start, p.stop) for p in _rest(self.pieces)])

    def singly(self, attempts: Callable[[], Attempts]) -> Iterator[Batch]:
        """Yield batches of one piece each instead."""
        yield Batch(deque((self.pieces[0],)), self.attempts, None, self.done, self.view)
        for piece in _rest(self.pieces):
            yield Batch(deque((piece,)), attempts())


class Pace:
    """How much a connection receives at a time, little on a slow line; ``moved`` is called when that has come."""

    def __init__(self) -> None:
        self._window = FIRST_WINDOW
        self.moved: Callable[[], None] = _nobody

    def read(self, response: Response, view: memoryview) -> int:
        """Receive into the beginning of ``view``; return how many bytes, 0 at the end of the body."""
        began = time.monotonic()
        count = response.readinto(view[: self._window])
        self._window = next_window(self._window, time.monotonic() - began)
        if count:
            self.moved()
        return count


def _nobody() -> None:
    """Hear nothing."""


@dataclass(slots=True)
class Answer:
    """An answer whose body is still to be read; ``parts`` if that holds several ranges and was looked into already."""

    response: Response
    pace: Pace
    parts: Multipart | None = None


def open_parts(response: Response, pace: Pace) -> Multipart:
    """Return the body of an answer to several ranges.

    Raises:
        ProtocolError: the answer is none, which is no reason to give up: one range at a time may be answered.
        Refused: likewise.
    """
    url, headers = response.request.url, response.headers
    if response.status not in (_OK, _PARTIAL):
        raise response.refused()
    boundary = boundary_of(headers.get("Content-Type", "")) if response.status == _PARTIAL else None
    if boundary is None or "Content-Range" in headers:
        kind = printable(headers.get("Content-Type", "no Content-Type"), 80)
        raise ProtocolError(f"{redacted_url(url)} answered status {response.status} with {kind} to several ranges")
    check_uncoded(headers, url)
    return Multipart(boundary, functools.partial(pace.read, response))


def unfit(failure: Exception) -> bool:
    """Tell whether a request for several ranges failed in a way that one for a single range need not."""
    return isinstance(failure, ProtocolError) or (
        isinstance(failure, Refused) and failure.status not in RETRYABLE_STATUS
    )


def read_answer(answer: Answer, batch: Batch, info: ObjectInfo, places: Places) -> None:
    """Receive what an answer to ``batch`` carries, and take it off the batch.

    Raises:
        NetworkError: the line failed; what had come is not asked for again.
        ProtocolError, ObjectChanged, Refused: the answer must not be used.
    """
    response = answer.response
    response.hurry()
    url, headers = response.request.url, response.headers
    if response.status not in (_OK, _PARTIAL):
        check_satisfiable(response.status, headers, url, info.size or 0)
        raise response.refused()
    check_validator(headers, url, info.validator)
    if len(batch.pieces) > 1:
        _read_parts(answer.parts or open_parts(response, answer.pace), url, batch, info, places)
        return
    piece = batch.pieces[0]
    got = check_partial(response.status, headers, url, piece.start + batch.done, piece.stop, info.size)
    _receive(answer, got.stop, batch, places)


def _read_parts(parts: Multipart, url: str, batch: Batch, info: ObjectInfo, places: Places) -> None:
    """Take every piece of ``batch`` from the part that must be it, in the order asked for.

    A part counts once a boundary follows it: one that is shorter than it says would end with bytes of that. Of an
    answer that is wrong anywhere none does.
    """
    count = len(batch.pieces)
    right = -1  # how many count, once the next boundary is found
    try:
        for piece in batch.pieces:
            got = parts.part()
            right += 1
            if got is not None and got.size not in (info.size, None):
                raise ObjectChanged(
                    f"{redacted_url(url)} was replaced: it had {info.size} bytes, has {got.size}; run again to restart"
                )
            if got != ContentRange(piece.start, piece.stop, info.size):
                raise RangeMismatch(f"{redacted_url(url)} answered several ranges with others, or in another order")
            view = places.of(piece)
            own = memoryview(bytearray(piece.size)) if view is None else view
            parts.readinto(own)
            if view is None:
                places.fill(piece, own)
            batch.moved += piece.size
        if parts.part() is not None:
            raise RangeMismatch(f"{redacted_url(url)} answered several ranges with more than that")
    except NetworkError:
        count = max(right, 0)
        raise
    except FastdlError:
        count = 0
        raise
    finally:
        for _ in range(count):
            batch.pieces.popleft()


def _receive(answer: Answer, stop: int, batch: Batch, places: Places) -> None:
    """Receive the one piece of ``batch`` up to the object's byte ``stop``."""
    piece, view = batch.pieces[0], _view_of(batch, places)
    end = stop - piece.start
    while batch.done < end:
        count = answer.pace.read(answer.response, view[batch.done : end])
        if not count:
            raise Truncated(f"{redacted_url(answer.response.request.url)}: the body ended before byte {stop}")
        batch.done += count
        batch.moved += count
    if batch.done == piece.size:
        _complete(batch, places)


def _view_of(batch: Batch, places: Places) -> memoryview:
    if batch.view is None:
        piece = batch.pieces[0]
        batch.view = places.of(piece)
        if batch.view is None:
            batch.view = memoryview(bytearray(piece.size))
    return batch.view


def _complete(batch: Batch, places: Places) -> None:
    piece = batch.pieces[0]
    if len(piece.members) > 1 and batch.view is not None:
        places.fill(piece, batch.view)
    batch.pieces.popleft()
    batch.view, batch.done = None, 0


def _rest(pieces: deque[Piece]) -> Iterator[Piece]:
    each = iter(pieces)
    next(each)
    return each
