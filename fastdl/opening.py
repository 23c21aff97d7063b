"""The first answer to many ranges: it tells what the object is and what its server can, and carries the first bytes."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

from fastdl.again import again
from fastdl.answers import Answer, Pace, open_parts, unfit
from fastdl.connections import patience, stall_watch
from fastdl.contract import ranges_header
from fastdl.errors import FastdlError, ObjectChanged, ProtocolError, UsageError
from fastdl.joining import batches, divide
from fastdl.probe import Probe, probe
from fastdl.redact import without_secrets
from fastdl.retry import Attempts
from fastdl.validator import Validator, difference

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from fastdl.facts import ObjectFacts
    from fastdl.http import Transport
    from fastdl.joining import Piece, Span
    from fastdl.prepare import Prepared
    from fastdl.validator import ObjectInfo

SHARE = 256 * 1024  # bytes of the first answer: the others wait for its head, not for its body


@dataclass(frozen=True, slots=True)
class Opening:
    """The first answer, still to be read, and what it carries: ``head``, the first of ``pieces``, if ``ranged`` is set.

    Otherwise it carries the whole object.
    """

    pieces: Sequence[Piece]
    head: tuple[Piece, ...]
    info: ObjectInfo
    answer: Answer | None  # None of an empty object
    ranged: bool
    several: bool  # whether several ranges can be asked for in one request, as far as is known

    def close(self) -> None:
        """End the answer, if nobody read it."""
        if self.answer is not None:
            self.answer.response.finish()


def first_of_state(
    state: ObjectFacts | None,
    way: Prepared,
    transport: Transport,
    joined: Callable[[bool], Sequence[Piece]],
    spans: Sequence[Span],
    rng: random.Random,
    sleep: Callable[[float], None],
) -> Opening:
    """Ask as ``first_answer`` does, for an object that must be the one that ``state`` tells of, if that is not None.

    Raises:
        ObjectChanged: it is another one.
    """
    try:
        found = first_answer(way, transport, joined, spans, rng, sleep)
    except UsageError as error:
        if state is None or state.size is None or any(span.stop > state.size for span in spans):
            raise
        raise ObjectChanged(f"the object was replaced: {error}") from None
    if state is not None:
        before = Validator(state.etag, state.last_modified, state.version_id)
        changed = difference(before, Validator(*map(without_secrets, astuple(found.info.validator))))
        if not changed and state.size != found.info.size:
            changed = f"size was {state.size}, is {found.info.size}"
        if changed:
            found.close()
            raise ObjectChanged(f"{way.source.shown}: the object was replaced: {changed}")
    return found


def first_answer(
    way: Prepared,
    transport: Transport,
    joined: Callable[[bool], Sequence[Piece]],
    spans: Sequence[Span],
    rng: random.Random,
    sleep: Callable[[float], None],
) -> Opening:
    """Ask for the first pieces, several of them at once where that may be answered.

    ``joined`` tells all pieces that ``spans`` need: with True for requests of several, with False for one each.

    Raises:
        UsageError: the object ends before one of ``spans`` does.
        FastdlError: the object cannot be had.
    """
    found, several = None, way.source.several
    pieces = joined(several)
    # Cut no further than that: before the size is known a range may have any length.
    head = next(batches(divide(pieces, spans, SHARE), SHARE))
    if several and len(head) > 1:
        attempts = Attempts(way.backoff.of_probe, rng)
        found = again(way.source, attempts, sleep, lambda: _ask_several(way, transport, pieces, head))
        several = found is not None
    if found is None:
        pieces = joined(several)
        found = _ask_one(way, transport, pieces, spans, rng, sleep, several=several)
    try:
        check_inside(way, spans, found.info.size)
    except BaseException:
        found.close()
        raise
    return found


def check_inside(way: Prepared, spans: Sequence[Span], size: int | None) -> None:
    """Make sure that an object of ``size`` bytes, if that is known, has all ranges.

    Raises:
        UsageError: one ends beyond it.
    """
    for number, span in enumerate(spans):
        if size is not None and span.length and span.stop > size:
            raise UsageError(
                f"{way.source.shown} has {size} bytes; range {number} asks for {span.length} from {span.offset} on"
            )


def _ask_several(
    way: Prepared, transport: Transport, pieces: Sequence[Piece], head: tuple[Piece, ...]
) -> Opening | None:
    """Ask for several ranges in one request; None if that is not answered as it must be."""
    source, patient = way.source, transport.line.read_timeout
    try:
        with patience(patient):
            header = ranges_header((piece.start, piece.stop) for piece in head)
            response = transport.open(source.request(None), (header,))
        try:
            response.hurry()
            pace = Pace()
            parts = open_parts(response, pace)
            with stall_watch(lambda: None, patient, response.abort):
                got = parts.peek()
            if got is None or got.size is None:
                raise ProtocolError(f"{source.shown}: an answer to several ranges that does not tell the object's size")
        except BaseException:
            response.finish()
            raise
    except FastdlError as failure:
        if unfit(failure):
            return None
        raise
    source.pin(response.request)
    return Opening(
        pieces,
        head,
        source.describe(response.headers, got.size),
        Answer(response, pace, parts),
        ranged=True,
        several=True,
    )


def _ask_one(
    way: Prepared,
    transport: Transport,
    pieces: Sequence[Piece],
    spans: Sequence[Span],
    rng: random.Random,
    sleep: Callable[[float], None],
    *,
    several: bool,
) -> Opening:
    piece = next(divide(pieces, spans, SHARE))

    def ask(start: int, stop: int) -> Probe:
        return probe(way.source, transport, start, stop, Attempts(way.backoff.of_probe, rng), sleep)

    try:
        found = ask(piece.start, piece.stop)
    except ObjectChanged:  # it has no such bytes
        found = ask(0, 1)
        found.close()
        check_inside(way, spans, found.info.size)
        raise
    answer = None if found.response is None else Answer(found.response, Pace())
    return Opening(pieces, (piece,), found.info, answer, found.ranged, several)
