"""Two ways for received bytes to reach the output: a shared mapping, or pwrite where mapping is not safe."""

from __future__ import annotations

import mmap
import os
from contextlib import suppress
from typing import Protocol

from fastdl.errors import DiskError

_PAGE = mmap.PAGESIZE
_FORGET = 1024 * 1024  # bytes of the mapping that one connection leaves resident behind it
_RESIDENT = 24 * 1024 * 1024  # bytes that all connections of a process may leave resident together


class Writer(Protocol):
    """Where windows are received, hashed and kept; for one thread.

    ``forget_every`` is after how many bytes ``forget`` is due.
    """

    forget_every: int

    def window(self, start: int, nbytes: int) -> memoryview:
        """Return a writable buffer for the bytes ``[start, start + nbytes)`` of the object."""
        ...

    def store(self, start: int, filled: memoryview) -> None:
        """Keep ``filled``, the head of the window at ``start``, if being there is not enough already."""
        ...

    def read(self, start: int, nbytes: int) -> memoryview:
        """Return the bytes ``[start, start + nbytes)`` as they stand on the disk; valid until the next call."""
        ...

    def forget(self, start: int, stop: int) -> None:
        """Let go of the memory behind ``[start, stop)``; the bytes stay."""
        ...


class MapWriter:
    """The whole output as one shared mapping: the kernel copies from the socket straight into the page cache.

    The file must really be allocated: a store into a hole of a full disk is SIGBUS, which Python cannot catch.
    """

    def __init__(self, fd: int, size: int, users: int = 1) -> None:
        self.forget_every = max(_PAGE, min(_FORGET, _RESIDENT // users))
        self._map = mmap.mmap(fd, size)
        self._view = memoryview(self._map)

    def window(self, start: int, nbytes: int) -> memoryview:
        """Return the piece of the mapping itself."""
        return self._view[start : start + nbytes]

    def store(self, start: int, filled: memoryview) -> None:
        """Do nothing: the bytes are in the file already."""

    def read(self, start: int, nbytes: int) -> memoryview:
        """Return the piece of the mapping itself."""
        return self._view[start : start + nbytes]

    def forget(self, start: int, stop: int) -> None:
        """Unmap the pages wholly inside: dirty ones stay in the page cache, this process's resident set shrinks."""
        first = -(-start // _PAGE) * _PAGE
        last = stop // _PAGE * _PAGE
        if first < last:
            self._map.madvise(mmap.MADV_DONTNEED, first, last - first)


class FileWriter:
    """A scratch window and pwrite: for file systems whose reservation is no promise, and for the caller's process.

    The caller's process never maps the output: if somebody truncated the file under the mapping, it would die.
    """

    forget_every = 2**63 - 1  # there is nothing to forget

    def __init__(self, fd: int, window: int) -> None:
        self._fd = fd
        self._scratch = memoryview(bytearray(window))

    def window(self, start: int, nbytes: int) -> memoryview:  # noqa: ARG002 - one buffer serves every offset
        """Return the head of the scratch window; ``nbytes`` must not exceed it."""
        return self._scratch[:nbytes]

    def store(self, start: int, filled: memoryview) -> None:
        """Write all of ``filled`` at ``start``.

        Raises:
            DiskError: the disk did not take it.
        """
        while filled:
            try:
                count = os.pwrite(self._fd, filled, start)
            except OSError as error:
                raise DiskError(f"writing the output at byte {start}: {error.strerror}") from None
            start += count
            filled = filled[count:]

    def read(self, start: int, nbytes: int) -> memoryview:
        """Read into the scratch window; shorter than asked only at the end of a truncated file."""
        try:
            count = os.preadv(self._fd, [self._scratch[:nbytes]], start)
        except OSError as error:
            raise DiskError(f"reading the output at byte {start}: {error.strerror}") from None
        return self._scratch[:count]

    def forget(self, start: int, stop: int) -> None:
        """Do nothing: the scratch window is all the memory there is."""


def make_writer(fd: int, size: int, window: int, *, mapped: bool, users: int) -> Writer:
    """Return the writer of ``users`` threads for an output of ``size`` bytes; pwrite where the mapping is refused."""
    if mapped:
        with suppress(OSError, ValueError):
            return MapWriter(fd, size, users)
    return FileWriter(fd, window)
