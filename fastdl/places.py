"""Where the bytes of ranges go: one writable view for each, filled piece by piece."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastdl.joining import Piece, Span


class Places:
    """``views[i]``, writable and contiguous, has exactly the bytes of ``spans[i]`` once all pieces were filled.

    Threads may fill different pieces at once: no two of them write the same byte.
    """

    def __init__(self, spans: Sequence[Span], views: Sequence[memoryview]) -> None:
        self._spans = spans
        self._views = views

    def of(self, piece: Piece) -> memoryview | None:
        """Return where all bytes of ``piece`` belong, to receive them there; None if they belong to several ranges."""
        if len(piece.members) > 1:
            return None
        index = piece.members[0]
        offset = self._spans[index].offset
        return self._views[index][piece.start - offset : piece.stop - offset]

    def fill(self, piece: Piece, data: memoryview) -> None:
        """Copy the bytes of ``piece`` to every range that has some of them."""
        for index in piece.members:
            span = self._spans[index]
            start, stop = max(piece.start, span.offset), min(piece.stop, span.stop)
            view = self._views[index][start - span.offset : stop - span.offset]
            view[:] = data[start - piece.start : stop - piece.start]

    def forget(self) -> None:
        """Let go of the views: what failed may be held until a collection, and must not hold the caller's buffer."""
        self._views = ()
