"""A binary file that can seek, over an object whose bytes may still be on their way."""

from __future__ import annotations

import io
import os
from abc import abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_View = memoryview  # a subclass's method has its name

_LARGE = 1 << 26  # bytes: to be read at once, it is worth waiting for the size of the object


class Seeking(io.BufferedIOBase):
    """The position of such a file, and reading from it on; where bytes are, and when, the subclass knows."""

    _at = 0  # the position

    @property
    @abstractmethod
    def size(self) -> int:
        """Bytes of the object."""

    @abstractmethod
    def _reach(self, start: int, stop: int) -> int:
        """Wait for the bytes ``[start, stop)``; return where they end, which is before ``stop`` if the object does."""

    @abstractmethod
    def _read(self, view: _View, start: int) -> None:
        """Fill ``view`` with the bytes from ``start`` on, all of which are there."""

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill ``buffer`` from the position on, waiting for those bytes; return how many, fewer only at the end.

        Raises:
            FastdlError: they cannot be had.
        """
        view = memoryview(buffer).cast("B")
        start = self._at
        count = max(0, self._reach(start, start + len(view)) - start)
        if count:
            self._read(view[:count], start)
            self._at = start + count
        return count

    def read(self, size: int | None = -1, /) -> bytes:
        """Return ``size`` bytes from the position on, fewer only at the end; without a size all that is left.

        Raises:
            FastdlError: they cannot be had.
        """
        if size is None or size < 0 or size > _LARGE:  # no more memory than there are bytes
            left = max(0, self.size - self._at)
            size = left if size is None or size < 0 else min(size, left)
        buffer = bytearray(size)
        return bytes(memoryview(buffer)[: self.readinto(buffer)])

    read1 = read

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move the position; return it.

        Raises:
            ValueError: it would be before the first byte, or ``whence`` is none.
        """
        if whence not in (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END):
            raise ValueError(f"whence {whence}: must be 0, 1 or 2")
        self._check_open()
        base = 0 if whence == os.SEEK_SET else self._at if whence == os.SEEK_CUR else self.size
        if base + offset < 0:
            raise ValueError(f"seek to {base + offset}: before the first byte")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def seekable(self) -> bool:
        """Tell that it can seek."""
        return True

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on a closed object")
