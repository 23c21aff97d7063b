"""``stream``: an object read in order while many connections fetch it, through memory of a stated size."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Unpack

from fastdl import arguments
from fastdl.arrivals import Arrivals
from fastdl.errors import UsageError
from fastdl.job import chosen_part_size
from fastdl.loading import Loading, make_job
from fastdl.memory import Memory
from fastdl.plan import KIB, MIB

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from fastdl.prepare import Settings
    from fastdl.result import LoadResult

WINDOW = 128 * MIB  # bytes that may be on their way or wait for the reader
_SHARE = 128  # parts of a window at least, so that as many connections have something to fetch
_LEAST_PART, _MOST_PART = 64 * KIB, MIB
_LARGE = 64 * MIB  # bytes: to be read at once
BLOCK = MIB  # bytes that one step of an iteration gives at most


def stream(url: str, *, window: int | str = WINDOW, **settings: Unpack[Settings]) -> Stream:
    """Read one object in order, as fast as many connections bring it; nothing is written to a disk.

        for block in fastdl.stream(url): ...
        with fastdl.stream(url) as file, tarfile.open(fileobj=file, mode="r|*") as tar: ...

    Fetching begins at once, in a thread and worker processes of its own, and never runs further ahead of the reader
    than the window. Safe in daemonic and forked processes; a stream belongs to the process that opened it.

    Args:
        url: as of ``download``.
        window: bytes of memory that the object passes through, 128 MiB by default, or a size like ``"256M"``. On lines
            that need many connections a smaller one is slower.
        **settings: as of ``download``; ``part_size`` is at most half of the window.

    Returns:
        A readable binary file that cannot seek.

    Raises:
        UsageError: a setting cannot be meant.
        AccessDenied: credentials are wanted and there are none.
    """
    window = arguments.nbytes("window", window)
    part_size = chosen_part_size(settings.get("part_size"))
    if part_size is None:
        part_size = min(_MOST_PART, max(_LEAST_PART, 1 << (max(1, window // _SHARE).bit_length() - 1)))
    settings["part_size"] = part_size
    job = make_job(url, **settings)
    if window < 2 * part_size:
        raise UsageError(f"window {window}: must be two parts of {part_size} bytes or more")
    ring = window // part_size * part_size
    return Stream(Loading(job, Memory(job.source.shown, ring=ring), Arrivals(ring)))


class Stream(io.BufferedIOBase):
    """An object as a file that is read once, from its first byte to its last; ``stream`` opens one.

    The end of the file is told only when the whole was judged: whoever reads to the end has read what the store
    promised, or gets an error. Who stops before, as tarfile does at the end of an archive, asks ``result``. Iterating
    gives blocks of bytes, not lines. One thread reads; any may close.
    """

    def __init__(self, loading: Loading) -> None:
        self._loading = loading
        self._at = 0

    @property
    def size(self) -> int | None:
        """Bytes of the object; None if the server does not say and not all has come. Waits for the first answer.

        Raises:
            FastdlError: it cannot be had.
        """
        return self._open().arrivals.until_begun()

    def result(self) -> LoadResult:
        """Read what is left and forget it; return what was fetched and what was proven of it.

        Raises:
            FastdlError: the rest cannot be had, or the whole is not what was promised.
        """
        arrivals = self._open().arrivals
        while (front := arrivals.until_front(self._at)) > self._at:
            self._move(front)
        return arrivals.until_ended()

    def read(self, size: int | None = -1, /) -> bytes:
        """Return ``size`` bytes, fewer only at the end; without a size all that is left.

        Raises:
            FastdlError: they cannot be had; at the end also if the whole is not what was promised.
        """
        if size is None or size < 0:
            return b"".join(iter(self.read1, b""))
        if size > _LARGE:  # no more memory than there are bytes
            left, pieces = size, []
            while left and (piece := self.read1(left)):
                pieces.append(piece)
                left -= len(piece)
            return b"".join(pieces)
        buffer = bytearray(size)
        return bytes(memoryview(buffer)[: self.readinto(buffer)])

    def read1(self, size: int | None = -1, /) -> bytes:
        """Return up to ``size`` bytes, or a block, of what is there, waiting for the first; none at the end.

        Raises:
            FastdlError: as of ``read``.
        """
        buffer = bytearray(BLOCK if size is None or size < 0 else min(size, BLOCK))
        return bytes(memoryview(buffer)[: self.readinto1(buffer)])

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill ``buffer``; return how many bytes it holds now, fewer than its length only at the end.

        Raises:
            FastdlError: as of ``read``.
        """
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view) and (count := self.readinto1(view[done:])):
            done += count
        return done

    def readinto1(self, buffer: WriteableBuffer, /) -> int:
        """Fill as much of ``buffer`` as is there, waiting for the first byte; return how many bytes, 0 at the end.

        Raises:
            FastdlError: as of ``read``.
        """
        view = memoryview(buffer).cast("B")
        count = min(len(view), self._open().arrivals.until_front(self._at) - self._at) if view else 0
        self._take(view[:count])
        return count

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def tell(self) -> int:
        """Return how many bytes were read."""
        return self._at

    def __next__(self) -> bytes:  # blocks, as of any iterable of bytes
        if block := self.read1():
            return block
        raise StopIteration

    def cancel(self) -> None:
        """End the download from whatever thread; whoever reads gets ``Cancelled``."""
        self._open().arrivals.cancel()

    def close(self) -> None:
        """End the download if it still goes on."""
        super().close()  # first: nobody begins anything any more
        loading = getattr(self, "_loading", None)  # there is none if opening failed
        if loading is not None:
            loading.close()

    def _open(self) -> Loading:
        if self.closed:
            raise ValueError("I/O operation on a closed stream")
        if not self._loading.ours:
            raise UsageError("a stream belongs to the process that opened it: open one after the fork")
        return self._loading

    def _take(self, view: memoryview) -> None:
        self._loading.memory.read_into(view, self._at)
        self._move(self._at + len(view))

    def _move(self, at: int) -> None:
        self._at = at
        self._loading.arrivals.read(at)
