"""``read_ranges``: many small byte ranges of one object at once, by as few requests as that takes."""

from __future__ import annotations

import functools
import itertools
import random
import time
from collections import deque
from typing import TYPE_CHECKING, Any, overload

from fastdl import arguments, reuse
from fastdl.answers import Batch
from fastdl.connections import until
from fastdl.errors import DiskError, UsageError
from fastdl.gather import Gathering
from fastdl.joining import LONGEST, Span, batches, behind, divide, join
from fastdl.opening import first_of_state
from fastdl.places import Places
from fastdl.prepare import prepare
from fastdl.retry import Attempts
from fastdl.sieve import check_worth, read_through

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Unpack

    from fastdl.facts import ObjectFacts
    from fastdl.joining import Piece
    from fastdl.opening import Opening
    from fastdl.prepare import Options, Prepared

    Joined = Callable[[bool], Sequence[Piece]]
    Views = Callable[[], deque[memoryview]]

# Bytes that cost less than what reading over them saves: another request, or another part of an answer. Measured.
GAP, GAP_OF_SEVERAL = 128 * 1024, 8 * 1024
MOST_CONNECTIONS = 128
_LEAST = 128 * 1024  # bytes of an answer that is worth one more request
_FEWEST = 4
# Seconds of this interpreter that a request costs: more connections than are waiting meanwhile bring nothing.
_EACH = 0.0005
_BEYOND = 1 << 63  # no store has such an offset


@overload
def read_ranges(
    url: str,
    ranges: Iterable[tuple[int, int]],
    *,
    into: None = None,
    gap: int | str | None = None,
    connections: int = MOST_CONNECTIONS,
    state: ObjectFacts | None = None,
    **options: Unpack[Options],
) -> list[bytes]: ...


@overload
def read_ranges(
    url: str,
    ranges: Iterable[tuple[int, int]],
    *,
    into: Any,
    gap: int | str | None = None,
    connections: int = MOST_CONNECTIONS,
    state: ObjectFacts | None = None,
    **options: Unpack[Options],
) -> list[memoryview]: ...


def read_ranges(
    url: str,
    ranges: Iterable[tuple[int, int]],
    *,
    into: Any = None,
    gap: int | str | None = None,
    connections: int = MOST_CONNECTIONS,
    state: ObjectFacts | None = None,
    **options: Unpack[Options],
) -> list[bytes] | list[memoryview]:
    """Read many byte ranges of one object: parquet footers, the members of a tar file, the headers of safetensors.

    All bytes are of one state of the object: every answer must show the size and the validators of the first. More
    cannot be proven of pieces, because the digests that stores promise are of whole objects. Safe to call from several
    threads, from daemonic and forked processes; its own threads and connections end with the call.

    Args:
        url: as of ``download``.
        ranges: pairs of an offset and a length, both in bytes. They may overlap, repeat, stand in any order and be
            empty; an empty one asks for nothing, wherever it lies.
        into: a writable, contiguous buffer of exactly as many bytes as all ranges together, which is filled with them
            in the order given. On an error it holds garbage.
        gap: ranges with at most so many bytes between them are fetched as one, and the bytes between thrown away. By
            default 128 KiB, or 8 KiB where the server answers several ranges in one request.
        connections: at most so many, 1 to 128; the longer the wait for the first answer, the more are used.
        state: what ``head`` told of the object, or what an earlier call was given: all bytes must be of that state.
        options: how the object is reached, as of ``download``: headers, retry, timeouts, credentials and the like.

    Returns:
        The bytes of each range, in the order given; with ``into`` a view of each range's bytes in it instead.

    Raises:
        UsageError: an argument cannot be meant, or a range ends beyond the object.
        NotFound, AccessDenied, NetworkError, ProtocolError: as of ``download``.
        ObjectChanged: it was replaced meanwhile, or since ``state`` was told.
        DiskError: memory is short.
    """
    try:
        listed = list(ranges)
    except TypeError:
        raise UsageError("ranges: want pairs of an offset and a length") from None
    spans = [_span(f"range {number}", pair) for number, pair in enumerate(listed)]
    gaps = (GAP, GAP_OF_SEVERAL) if gap is None else (arguments.nbytes("gap", gap),) * 2
    if min(gaps) < 0:
        raise UsageError(f"gap {gap}: must be 0 or more")
    connections = arguments.whole("connections", connections)
    if not 1 <= connections <= MOST_CONNECTIONS:
        raise UsageError(f"{connections} connections: must be 1 to {MOST_CONNECTIONS}")
    buffer = None if into is None else _buffer(into, sum(span.length for span in spans))
    way = prepare(url, **options)
    room = functools.partial(_views, spans, buffer)
    wanted = any(span.length for span in spans)

    def joined(several: bool) -> Sequence[Piece]:
        return join(spans, gaps[several])

    views = _read(way, spans, joined, room, connections, state) if wanted else room()
    if buffer is not None:
        return list(views)
    return [bytes(views.popleft()) for _ in range(len(views))]  # each is copied and let go of, one after the other


def _span(name: str, pair: Any) -> Span:
    """Return what a pair of an offset and a length means.

    Raises:
        UsageError: it is no such pair.
    """
    try:
        offset, length = pair
    except (TypeError, ValueError):
        raise UsageError(f"{name}: want an offset and a length, got {type(pair).__name__}") from None
    span = Span(arguments.whole(name, offset), arguments.whole(name, length))
    if span.offset < 0 or span.length < 0 or span.stop >= _BEYOND:
        raise UsageError(f"{name}: {span.length} bytes from {span.offset} on are in no object")
    return span


def _buffer(into: Any, nbytes: int) -> memoryview:
    """Return the caller's buffer as bytes.

    Raises:
        UsageError: it cannot be written to as one run of exactly ``nbytes`` bytes.
    """
    try:
        view = memoryview(into)
        contiguous = view.c_contiguous
    except TypeError:
        raise UsageError("into: want a buffer, as a bytearray or an array is") from None
    if view.readonly or not contiguous:
        raise UsageError("into: must be writable and contiguous")
    if view.nbytes != nbytes:
        raise UsageError(f"into: has {view.nbytes} bytes, the ranges have {nbytes}")
    return view.cast("B") if nbytes else memoryview(bytearray())


def _views(spans: Sequence[Span], buffer: memoryview | None) -> deque[memoryview]:
    """Return room for each range: in the caller's ``buffer``, or of its own.

    Raises:
        DiskError: there is none.
    """
    try:
        if buffer is None:
            return deque(memoryview(bytearray(span.length)) for span in spans)
    except (MemoryError, OverflowError):
        raise DiskError("no memory for the bytes of all ranges") from None
    stops = itertools.accumulate(span.length for span in spans)
    return deque(buffer[stop - span.length : stop] for span, stop in zip(spans, stops, strict=True))


def _read(
    way: Prepared, spans: Sequence[Span], joined: Joined, views: Views, most: int, state: ObjectFacts | None
) -> deque[memoryview]:
    """Read everything; return where the bytes of each range are."""
    due = way.due()
    sleep, rng, slept = way.sleeper(), random.Random(), 0.0

    def nap(seconds: float) -> None:
        nonlocal slept
        slept += seconds
        sleep(seconds)

    transport = reuse.take_transport(way.line, most)
    fit = False
    try:
        began = time.monotonic()
        with until(due):
            first = first_of_state(state, way, transport, joined, spans, rng, nap)
        wait = time.monotonic() - began - slept  # a server that was busy is not one that is far away
        try:
            if not first.ranged:
                check_worth(way.source, first.pieces)
            room = views()
        except BaseException:
            first.close()
            raise
        places = Places(spans, room)
        if not first.ranged:
            short = functools.partial(divide, first.pieces, spans, LONGEST)
            with until(due):
                read_through(way.source, transport, first, short, places, Attempts(way.backoff, rng), sleep)
            fit = True
            return room
        connections = min(most, _FEWEST + int(wait / _EACH))
        rest = _rest(first, spans, connections)
        todo = [Batch(deque(group), Attempts(way.backoff, rng)) for group in (first.head, *rest)]
        todo[0].answer = first.answer
        Gathering(way, transport, first.info, places, rng).run(todo, connections, due)
        fit = True
        return room
    finally:
        if fit:
            reuse.give_transport(transport, most)
        else:
            transport.close()


def _rest(first: Opening, spans: Sequence[Span], connections: int) -> Iterator[tuple[Piece, ...]]:
    """Yield what is asked for behind the first answer, in as many requests as ``connections`` have work with."""
    rest = behind(first.pieces, spans, first.head[-1].stop)
    share = min(LONGEST, max(_LEAST, sum(piece.size for piece in rest) // connections))
    divided = divide(rest, spans, share)
    return batches(divided, share) if first.several else ((piece,) for piece in divided)
