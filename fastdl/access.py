"""Two ways to the output's bytes: received windows are written with pwrite, finished parts are read through a mapping.

Storing received bytes through the mapping too costs more: the kernel must clear each page that it is about to fill,
and takes a fault for each. pwrite of a whole window fills pages it never cleared, many in one piece, and a disk that is
full or a file that was truncated is an error code and not a SIGBUS. Reading is where mapping wins: no copy at all.
"""

from __future__ import annotations

import mmap
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from fastdl.errors import DiskError

if TYPE_CHECKING:
    from collections.abc import Iterator

_PAGE = mmap.PAGESIZE
_FORGET = 1024 * 1024  # bytes of the mapping that stay resident behind a reader


def write_whole(fd: int, data: bytes | bytearray | memoryview, start: int) -> None:
    """Write all of ``data`` at byte ``start``: the kernel may take less of it at a time.

    Raises:
        OSError: it takes no more.
    """
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, start)
        start += count
        view = view[count:]


def read_whole(fd: int, buffer: bytearray, start: int) -> None:
    """Fill ``buffer`` from byte ``start`` on, as far as the file goes: the kernel may give less of it at a time.

    Raises:
        OSError: it cannot be read.
    """
    view = memoryview(buffer)
    while view and (count := os.preadv(fd, [view], start)):
        start += count
        view = view[count:]


def pieces(view: memoryview, start: int, ring: int) -> Iterator[tuple[memoryview, int]]:
    """Cut what lies from byte ``start`` on where a ring of so many bytes ends; yield the pieces with their places."""
    while view:
        at = start % ring if ring else start
        piece = view[: ring - at] if ring else view
        yield piece, at
        start += len(piece)
        view = view[len(piece) :]


def scratch(nbytes: int) -> memoryview:
    """Return writable memory in pages of its own, which the system has back when nobody refers to them any more.

    What malloc gives stays with the arena of some thread: after a thousand downloads a caller of three threads held
    52 MB so, and 28 MB with this.

    Raises:
        DiskError: there is none left.
    """
    try:
        return memoryview(mmap.mmap(-1, nbytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    except OSError as error:
        raise DiskError(f"no memory left to receive into: {error.strerror}") from None


class Writer:
    """Receives one window at a time into memory of its own, and writes it; for one thread."""

    def __init__(self, fd: int, window: int) -> None:
        self._fd = fd
        self._scratch = scratch(window)

    def window(self, nbytes: int) -> memoryview:
        """Return a writable buffer of ``nbytes``, at most the size of the scratch window."""
        return self._scratch[:nbytes]

    def store(self, start: int, filled: memoryview, ring: int = 0) -> None:
        """Write all of ``filled`` at byte ``start`` of the output, or of a ``ring`` of so many bytes.

        Raises:
            DiskError: the disk did not take it.
        """
        try:
            for piece, at in pieces(filled, start, ring):
                write_whole(self._fd, piece, at)
        except OSError as error:
            raise DiskError(f"writing the output at byte {start}: {error.strerror}") from None


class MapReader:
    """The whole output as one shared mapping, for one thread."""

    def __init__(self, fd: int, size: int) -> None:
        self._map = mmap.mmap(fd, size, prot=mmap.PROT_READ)
        self._view = memoryview(self._map)
        self._kept = 0

    def read(self, start: int, nbytes: int) -> memoryview:
        """Return the bytes ``[start, start + nbytes)`` as they stand on the disk: a piece of the mapping itself."""
        if not self._kept <= start <= self._kept + _FORGET:
            self._kept = start // _PAGE * _PAGE
        return self._view[start : start + nbytes]

    def forget(self, stop: int) -> None:
        """Let go of whole pages before ``stop``, some at a time: the resident set stays small."""
        last = stop // _PAGE * _PAGE
        if last - self._kept >= _FORGET:
            self._map.madvise(mmap.MADV_DONTNEED, self._kept, last - self._kept)
            self._kept = last


class FileReader:
    """Reads into a scratch window, where the file system refuses a mapping."""

    def __init__(self, fd: int, window: int) -> None:
        self._fd = fd
        self._scratch = scratch(window)

    def read(self, start: int, nbytes: int) -> memoryview:
        """Return the bytes ``[start, start + nbytes)``, valid until the next call; fewer only at the file's end.

        Raises:
            DiskError: they cannot be read.
        """
        try:
            count = os.preadv(self._fd, [self._scratch[:nbytes]], start)
        except OSError as error:
            raise DiskError(f"reading the output at byte {start}: {error.strerror}") from None
        return self._scratch[:count]

    def forget(self, stop: int) -> None:
        """Do nothing: the scratch window is all the memory there is."""


def make_reader(fd: int, size: int, window: int) -> MapReader | FileReader:
    """Return a reader of ``size`` bytes, ``window`` at a time at most."""
    with suppress(OSError, ValueError):
        return MapReader(fd, size)
    return FileReader(fd, window)
