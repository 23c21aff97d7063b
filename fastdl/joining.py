"""Which requests many ranges need: near ones share one, long ones are cut; pure arithmetic on half-open bytes.

Every wanted byte is in exactly one piece, however the ranges overlap, so none is fetched twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

LONGEST = 4 << 20  # bytes of one piece: what a broken connection may cost to fetch again
HEADER = 4000  # characters of one Range header; servers refuse lines of more than 8 KiB
_MOST = 64  # ranges of one header: servers bound their number (Apache at 200, others lower)


@dataclass(frozen=True, slots=True)
class Span:
    """``length`` bytes from ``offset`` on, as the caller asked for them; perhaps none."""

    offset: int
    length: int

    @property
    def stop(self) -> int:
        """The first byte behind it."""
        return self.offset + self.length


@dataclass(frozen=True, slots=True)
class Piece:
    """The bytes ``[start, stop)`` of the object, asked for as one; never empty.

    ``members`` are the indices of the ranges that have bytes in it.
    """

    start: int
    stop: int
    members: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return self.stop - self.start


def join(spans: Sequence[Span], gap: int, longest: int = LONGEST) -> list[Piece]:
    """Return the pieces, in order, that together hold every byte of ``spans``.

    What at most ``gap`` bytes are between is one piece, if that has no more than ``longest`` bytes then. One range may
    make a longer piece, and so may some that overlap; ``divide`` cuts it.
    """
    order = sorted((index for index, span in enumerate(spans) if span.length), key=lambda index: spans[index].offset)
    pieces: list[Piece] = []
    members: list[int] = []
    start = stop = 0
    for index in order:
        span = spans[index]
        far = span.offset > stop + gap or max(stop, span.stop) > start + longest
        # Where two overlap they are never parted here: the bytes of both would be fetched twice.
        if members and span.offset >= stop and far:
            pieces.append(Piece(start, stop, tuple(members)))
            members = []
        if not members:
            start, stop = span.offset, span.stop
        stop = max(stop, span.stop)
        members.append(index)
    if members:
        pieces.append(Piece(start, stop, tuple(members)))
    return pieces


def divide(pieces: Iterable[Piece], spans: Sequence[Span], longest: int) -> Iterator[Piece]:
    """Yield the same bytes in pieces of at most ``longest`` bytes, as late as they are wanted."""
    for piece in pieces:
        yield from _cut(piece.start, piece.stop, piece.members, spans, longest)


def behind(pieces: Sequence[Piece], spans: Sequence[Span], at: int) -> list[Piece]:
    """Return the bytes of ``pieces`` that the object has at ``at`` and behind it."""
    found = []
    for piece in pieces:
        members = tuple(index for index in piece.members if spans[index].stop > at)
        if members and piece.stop > at:
            start = max(piece.start, at, min(spans[index].offset for index in members))
            found.append(Piece(start, piece.stop, members))
    return found


def _cut(start: int, stop: int, members: Sequence[int], spans: Sequence[Span], longest: int) -> Iterator[Piece]:
    """Yield ``[start, stop)`` in pieces of about one size, each with those of ``members``, in order, that it has."""
    count = max(1, -(-(stop - start) // longest))
    if count == 1:
        yield Piece(start, stop, tuple(members))
        return
    here: list[int] = []
    ahead = 0
    for number in range(count):
        low = start + (stop - start) * number // count
        high = start + (stop - start) * (number + 1) // count
        while ahead < len(members) and spans[members[ahead]].offset < high:
            here.append(members[ahead])
            ahead += 1
        here = [index for index in here if spans[index].stop > low]
        if here:  # a gap that two ranges share a piece for may be longer than what is left of it
            first = max(low, min(spans[index].offset for index in here))
            last = min(high, max(spans[index].stop for index in here))
            yield Piece(first, last, tuple(here))


def batches(pieces: Iterable[Piece], share: int, most: int = _MOST) -> Iterator[tuple[Piece, ...]]:
    """Yield consecutive pieces, one or as many as have ``share`` bytes at most and fit into one Range header.

    Pieces without a byte between them stay apart: a server may answer them as one.
    """
    batch: list[Piece] = []
    nbytes = length = 0
    for piece in pieces:
        more = len(f"{piece.start}-{piece.stop - 1},")
        full = nbytes + piece.size > share or length + more > HEADER or len(batch) == most
        if batch and (full or batch[-1].stop == piece.start):
            yield tuple(batch)
            batch, nbytes, length = [], 0, 0
        batch.append(piece)
        nbytes += piece.size
        length += more
    if batch:
        yield tuple(batch)
