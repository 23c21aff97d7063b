"""Memory that an object is fetched into: all of it, or a ring that it passes through. Stands where ``output`` stands.

It is an anonymous file, so that workers write into it by its descriptor as they write into any output, and so that
other processes of the machine can map it. Nothing of it outlives its last user.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from fastdl.access import pieces
from fastdl.disk import check_room
from fastdl.errors import DiskError, disk_errors
from fastdl.header import STAMP
from fastdl.pipe import Descriptor, anonymous_descriptor

_MEMINFO = Path("/proc/meminfo")


class Memory:
    """Room for one object called ``shown``; open until ``close``.

    ``ring`` is how many bytes it has in all if the object is to pass through it, byte ``start`` at ``start % ring``; 0
    if all of it is kept. With a ``directory`` it is a nameless file there instead, for what memory cannot hold.

    Raises:
        DiskError: there is no descriptor left, or no file can be made in the directory.
    """

    sealed = False
    stamp = bytes(STAMP)

    def __init__(self, shown: str, *, ring: int = 0, directory: Path | None = None) -> None:
        self.part_path = f"{shown}: the memory it is fetched into"
        self.ring = ring
        self._directory = directory
        self._size: int | None = None
        with disk_errors(directory or "no memory for the object"):
            if directory is None:
                fd = anonymous_descriptor()
            else:
                with tempfile.TemporaryFile(buffering=0, dir=directory) as file:
                    fd = os.dup(file.fileno())
        self.held: Descriptor | None = Descriptor(fd)
        status = os.fstat(fd)
        self.inode = status.st_dev, status.st_ino

    @property
    def fd(self) -> int:
        """What it is written by.

        Raises:
            ValueError: it was closed.
        """
        return self._open().fd

    def check_room(self, size: int) -> None:
        """Refuse an object that cannot be kept.

        Raises:
            DiskError: there is less memory, or less room in the directory.
        """
        if self.ring:
            return
        if self._directory is not None:
            check_room(self._directory / "object", size)
        elif size > (available := _available()):
            raise DiskError(f"no room for {size} bytes in memory: {available} are available; name a directory")

    def allocate(self, size: int | None) -> None:
        """Let the memory have its length; None if the object's is not known. Pages are taken when they are filled.

        Raises:
            DiskError: it cannot be so long.
        """
        if size is None:
            return
        self.check_room(size)
        with disk_errors(f"no room for {size} bytes"):
            os.ftruncate(self.fd, min(size, self.ring) if self.ring else size)
        self._size = size

    def check(self) -> None:
        """Do nothing: no other process is told of it while bytes are coming."""

    def check_length(self, length: int) -> None:
        """Do nothing, likewise."""

    def empty(self) -> None:
        """Do nothing: what readers have seen is never taken back, but compared with what comes again."""

    def settle(self, size: int) -> None:
        """Note the size of an object whose server did not tell it."""
        self.allocate(size)

    def read_into(self, view: memoryview, start: int) -> None:
        """Fill ``view`` with the bytes from ``start`` on, all of which are there.

        Raises:
            DiskError: they cannot be read.
        """
        held = self._open()  # until all is read, whoever closes it meanwhile
        for piece, at in pieces(view, start, self.ring):
            with disk_errors(self.part_path):
                done = 0
                while done < len(piece):
                    count = os.preadv(held.fd, [piece[done:]], at + done)
                    if count == 0:
                        raise DiskError(f"{self.part_path} is shorter than it was")
                    done += count

    def close(self) -> None:
        """Let go of it; mappings of it stay valid."""
        self.held = None

    def _open(self) -> Descriptor:
        held = self.held
        if held is None:
            raise ValueError("I/O operation on closed memory")
        return held


def _available() -> int:
    """Return how many bytes of memory can be had without pushing others out; more than any if it is not told."""
    with suppress(OSError, ValueError, IndexError):
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 2**63
