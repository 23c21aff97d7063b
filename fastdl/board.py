"""What has come of an object that several processes of a machine read, written where all of them can see it.

A nameless file of one page and a byte for each part: ``<B B 6x q Q Q Q H`` = how it stands, whether it has begun, the
object's size (-1: unknown), all bytes before which are there, part size, number of parts, length of a text; then the
text, JSON of what went wrong or of the result. Written by the process that fetches alone. A byte of a part is written
after the part, and how it stands last.
"""

from __future__ import annotations

import json
import mmap
import os
import select
import struct
import time
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fastdl import errors
from fastdl.arrivals import Board
from fastdl.errors import Cancelled, DiskError, FastdlError, disk_errors
from fastdl.pipe import Descriptor, anonymous_descriptor
from fastdl.result import LoadResult

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastdl.plan import Plan

_HEAD = struct.Struct("<BB6xqQQQH")
_STATE, _BEGUN, _FRONT_AT = 0, 1, 16
_FRONT = struct.Struct("<Q")
_PAGE = 4096
_GOING_ON, _DONE, _FAILED = range(3)
_LONGEST = 150  # letters of which several fit whatever they are: twelve bytes each
_GLANCE, _LONGEST_GLANCE = 0.0005, 0.02  # seconds between looks at the board: longer and longer


class SharedBoard(Board):
    """The board of the process that fetches; ``held`` is what others read it by.

    Raises:
        DiskError: memory or descriptors are short.
    """

    def __init__(self) -> None:
        with disk_errors("no memory to tell other processes in"):
            self.held = Descriptor(anonymous_descriptor())
            os.ftruncate(self.held.fd, _PAGE)
        self._map = mmap.mmap(self.held.fd, _PAGE)

    def begin(self, size: int | None, plan: Plan) -> memoryview:
        """Write what is about to come; return the bytes of the parts."""
        with disk_errors("no memory to tell other processes in"):
            os.ftruncate(self.held.fd, _PAGE + plan.count)
        self._map = mmap.mmap(self.held.fd, _PAGE + plan.count)
        _HEAD.pack_into(self._map, 0, _GOING_ON, 0, -1 if size is None else size, 0, plan.part_size, plan.count, 0)
        self._map[_BEGUN] = 1
        return memoryview(self._map)[_PAGE:]

    def advance(self, stop: int) -> None:
        """Note that all bytes before ``stop`` are there."""
        _FRONT.pack_into(self._map, _FRONT_AT, stop)

    def end(self, result: LoadResult | None, error: FastdlError | None) -> None:
        """Write how it ended, for whoever looks from now on."""
        if result is None:
            text = json.dumps([type(error).__name__, str(error)[: 2 * _LONGEST]]).encode()
        else:
            text = json.dumps(asdict(result)).encode()
            if len(text) > _PAGE - _HEAD.size:  # there is one page: these are details of what only servers make so long
                told = replace(result, url=result.url[:_LONGEST], etag=result.etag[:_LONGEST], parts_repaired=())
                text = json.dumps(asdict(told)).encode()
        _, begun, size, front, part_size, count, _ = _HEAD.unpack_from(self._map)
        size = size if result is None else result.size
        _HEAD.pack_into(self._map, 0, _GOING_ON, begun, size, front, part_size, count, len(text))
        self._map[_HEAD.size : _HEAD.size + len(text)] = text
        self._map[_STATE] = _FAILED if result is None else _DONE


class Watcher:
    """The same board seen by another process; it answers what ``Arrivals`` answers in the process ``owner``.

    ``owner`` are its number and when it started, in the kernel's ticks. Parts cannot be brought forward from here.
    """

    def __init__(self, board: Descriptor, owner: tuple[int, int]) -> None:
        self._board = board
        self._owner = owner
        self._map = mmap.mmap(board.fd, 0, prot=mmap.PROT_READ)
        self._pidfd = -1

    def __del__(self) -> None:
        if getattr(self, "_pidfd", -1) >= 0:
            os.close(self._pidfd)

    def until_begun(self) -> int | None:
        """Wait until it is known what comes; return its size in bytes, None if the server does not say."""
        self._wait(lambda: bool(self._map[_BEGUN] or self._map[_STATE]))
        size: int = self._head()[2]
        return None if size < 0 else size

    def until_ended(self) -> LoadResult:
        """Wait until all was judged."""
        self._wait(lambda: self._map[_STATE] == _DONE)
        told = json.loads(self._text())
        return LoadResult(**{**told, "parts_repaired": tuple(told["parts_repaired"])})

    def until_there(self, start: int, stop: int) -> bool:
        """Wait for the bytes ``[start, stop)``; False if the object ended before."""
        self.until_begun()
        _, _, _, _, part_size, count, _ = self._head()
        if len(self._map) < _PAGE + count:
            self._map = mmap.mmap(self._board.fd, 0, prot=mmap.PROT_READ)
        first, last = _PAGE + start // part_size, _PAGE + -(-stop // part_size)

        def there() -> bool:
            return start >= stop or self._head()[3] >= stop or (count > 0 and self._map.find(b"\0", first, last) < 0)

        self._wait(lambda: self._map[_STATE] == _DONE or there())
        return there()

    def _wait(self, ready: Callable[[], bool]) -> None:
        glance = _GLANCE
        while True:
            if self._map[_STATE] == _FAILED:
                kind, text = json.loads(self._text())
                raise getattr(errors, kind, FastdlError)(text)
            if ready():
                return
            if self._owner_ended(glance) and self._map[_STATE] == _GOING_ON and not ready():
                raise Cancelled("the process that fetched it ended before it was there")
            glance = min(_LONGEST_GLANCE, 2 * glance)

    def _owner_ended(self, seconds: float) -> bool:
        """Wait a little; tell whether the process that fetches is gone."""
        pid, since = self._owner
        if self._pidfd < 0:
            with suppress(OSError, AttributeError):  # kernels and systems without
                self._pidfd = os.pidfd_open(pid)
            if started(pid) != since:
                return True
            if self._pidfd < 0:
                time.sleep(seconds)
                return False
        return bool(select.select([self._pidfd], [], [], seconds)[0])

    def _head(self) -> tuple[int, ...]:
        return _HEAD.unpack_from(self._map)

    def _text(self) -> str:
        return self._map[_HEAD.size : _HEAD.size + self._head()[-1]].decode()


def started(pid: int) -> int:
    """Return when a process started, in the kernel's ticks; 0 if there is none, or nothing is told of it."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return 0


def open_of(owner: tuple[int, int], fd: int, inode: tuple[int, int]) -> Descriptor:
    """Open the file behind the descriptor ``fd`` of the process ``owner``, which must still be that very file.

    Raises:
        DiskError: the process is gone, has closed it, or belongs to somebody else.
    """
    pid, since = owner
    try:
        ours = Descriptor(os.open(f"/proc/{pid}/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        raise DiskError(f"what process {pid} fetched cannot be opened: {error.strerror}; is it closed?") from None
    status = os.fstat(ours.fd)
    if started(pid) != since or (status.st_dev, status.st_ino) != inode:
        raise DiskError(f"what process {pid} fetched is closed")
    return ours
