"""The checkpoint ``OUT.cp``: which parts of ``OUT.part`` are finished, and what their bytes hash to.

Format, version 1, little-endian throughout::

    0      slot 0     4096 bytes
    4096   slot 1     4096 bytes, equal to slot 0: a damaged slot costs nothing
    8192   bitmap     one bit a part, bit i of byte i // 8 is part i, least significant first; padded to 4096
    then   records    16 bytes a part: xxh3-64 seeded with the part's index, CRC-64/XZ

Slots are described in ``header``; one counts only if the file is exactly as long as its size and part size demand.
Of two valid slots the higher generation counts. A part is *marked* if its bit is set and its record is not all zeros.
A mark is a claim and no proof: on resume the part's bytes are hashed and compared with its record, so a torn, stale or
flipped mark costs that part and never a wrong byte.

Marking is two writes in place, the record before the bit, whatever the number of parts. Both go through pwrite and not
through a mapping: a checkpoint truncated by somebody else must not kill the caller's process.

Marks are not synced, slots are, because hashing finds a lost mark and not a lost slot. After a power loss a new slot
over the marks of an older object could call that one's bytes the new one's, marks under no slot look like somebody
else's file, and a slot torn in both its copies is worth as little as none. An object of one small part is not marked
before it is published: a sync takes as long as fetching it once more.
"""

from __future__ import annotations

import logging
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from fastdl.access import read_whole, write_whole
from fastdl.errors import DiskError, disk_errors
from fastdl.header import (
    MAX_GENERATION,
    SLOT,
    Header,
    Stored,
    decode,
    doubting,
    encode,
    is_foreign,
    layout,
)
from fastdl.locks import is_named, lock, release
from fastdl.marks import Marks
from fastdl.pipe import anonymous_descriptor
from fastdl.plan import DEFAULT_PART_SIZE, NO_PARTS

if TYPE_CHECKING:
    from pathlib import Path

    from fastdl.digest import Digest
    from fastdl.plan import Plan

_BLOCK = 1024 * 1024
_MODE = 0o600
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe would wait for its other end
log = logging.getLogger("fastdl")


class Checkpoint:
    """An open, locked checkpoint file. ``stored`` is what an earlier run left, None if nothing usable.

    Marks live in memory and on the disk; if the disk takes no more, the download goes on and resume will cost more.
    """

    def __init__(self, path: Path | None, fd: int, *, created: bool = False) -> None:
        self.path = path
        self._fd = fd
        self._ours = created  # or holds what only we write
        self.marks = Marks(NO_PARTS)
        self._slot = b""
        self._failed = path is None  # nobody will read it
        self.damage = ""  # why an existing file was not usable
        self.stored = self._load()

    @property
    def doubted(self) -> bool:
        """Whether the object as a whole was found wrong, and nothing cleared it since."""
        return self.stored is not None and self.stored.doubted

    def is_about(self, stamp: bytes) -> bool:
        """Tell whether there is anything to resume from in the file that carries ``stamp``."""
        return self.marks.any and self.stored is not None and self.stored.stamp == stamp

    def begin(self, header: Header) -> None:
        """Start anew for ``header``, forgetting every mark.

        Raises:
            DiskError: there is no room for the checkpoint.
        """
        plan = header.plan
        slot = encode(header, min(self.stored.generation if self.stored else 0, MAX_GENERATION) + 1)
        try:
            self._ours = True
            # Marks go first: a crash in between leaves a header that claims nothing.
            was_empty = os.fstat(self._fd).st_size == 0
            os.ftruncate(self._fd, 0)
            if not was_empty:
                os.fsync(self._fd)
            os.ftruncate(self._fd, layout(plan)[1])
            write_whole(self._fd, slot + slot, 0)
            if not _is_brief(plan):
                os.fsync(self._fd)
        except OSError as error:
            raise DiskError(f"{self.path or 'records in memory'}: {error.strerror}") from None
        self.stored, self._slot = decode(slot), slot
        self.marks = Marks(plan)

    def doubt(self, *, doubted: bool) -> None:
        """Note that the object as a whole was found wrong, or is right: records cannot tell that to a later run.

        All marks made so far are on the disk before it is: a word that clears the object must not come to stand over
        older ones, which agree with bytes that were wrong.

        Raises:
            DiskError: the checkpoint cannot be written.
        """
        slot = doubting(self._slot, doubted=doubted)
        try:
            os.fsync(self._fd)
            for at in (0, SLOT):
                write_whole(self._fd, slot, at)
                os.fsync(self._fd)
        except OSError as error:
            raise DiskError(f"{self.path or 'records in memory'}: {error.strerror}") from None
        self.stored, self._slot = decode(slot), slot

    def mark(self, index: int, digest: Digest) -> None:
        """Record that part ``index`` is in the output with ``digest``: the record first, then the bit."""
        self.marks.mark(index, digest)
        if self._failed or _is_brief(self.marks.plan):
            return
        try:
            self._write(index)
        except OSError as error:
            self._failed = True
            log.warning("%s: %s; the download goes on, but can be resumed only from here", self.path, error.strerror)

    def keep(self) -> None:
        """Let records that stay beside a published file be on the disk, those of a brief object too."""
        if _is_brief(self.marks.plan):
            try:
                os.fsync(self._fd)
                self._write(0)
            except OSError as error:
                log.warning("%s: %s; the records are incomplete", self.path, error.strerror)

    def clear(self, index: int) -> None:
        """Take the mark of part ``index`` back: the bit first, then the record."""
        self.marks.clear(index)
        with suppress(OSError):
            self._write_bit(index)
            self._write_record(index)

    def judge(self, index: int, digest: Digest) -> bool:
        """Tell whether part ``index``, on the disk of ``digest``, is what was recorded; unmark it if not."""
        right = digest == self.marks.digest(index)
        if not right:
            self.clear(index)
        return right

    def remove(self) -> None:
        """Delete the file if its name still means the locked one: the download is done, or worth nothing."""
        with suppress(OSError):
            if self.path is not None and is_named(self._fd, self.path):
                self.path.unlink()

    def withdraw(self) -> None:
        """Delete the file after a run that failed, unless it was there, blank, before it: somebody may have made it."""
        if self._ours:
            self.remove()

    def close(self) -> None:
        """Release file and lock; what was marked stays."""
        release(self._fd)

    def _write(self, index: int) -> None:
        self._write_record(index)
        self._write_bit(index)

    def _write_bit(self, index: int) -> None:
        at, byte = self.marks.bit(index)
        write_whole(self._fd, byte, 2 * SLOT + at)

    def _write_record(self, index: int) -> None:
        at, record = self.marks.record(index)
        write_whole(self._fd, record, layout(self.marks.plan)[0] + at)

    def _holds_anything(self, size: int) -> bool:
        return any(any(os.pread(self._fd, _BLOCK, at)) for at in range(2 * SLOT, size, _BLOCK))

    def _load(self) -> Stored | None:
        status = os.fstat(self._fd)
        size = status.st_size
        if self._ours or self.path is None:
            return None
        raw = [os.pread(self._fd, SLOT, at) for at in (0, SLOT)]
        blank = not any(slot[:1].strip(b"\0") for slot in raw)
        # Ours holds nothing behind its slots before these are on the disk. Of one that was only begun, or lost with the
        # power, no more than its permissions may be left to know it by.
        begun = stat.S_IMODE(status.st_mode) == _MODE and not self._holds_anything(size)
        if is_foreign(raw) or (blank and not begun):
            raise DiskError(
                f"{self.path}: is no checkpoint of fastdl's and is left alone; move it away or name another"
            )
        self._ours = not blank
        if size == 0:
            return None
        slots = [(decode(slot), slot) for slot in raw]
        valid = [(stored, slot) for stored, slot in slots if stored is not None and layout(stored.plan)[1] == size]
        if not valid:
            self.damage = "the checkpoint is damaged"
            return None
        stored, self._slot = max(valid, key=lambda pair: pair[0].generation)
        self.marks = Marks(stored.plan)
        read_whole(self._fd, self.marks.bitmap, 2 * SLOT)
        read_whole(self._fd, self.marks.records, layout(stored.plan)[0])
        return stored


def _is_brief(plan: Plan) -> bool:
    return plan.count == 1 and plan.size <= DEFAULT_PART_SIZE


def open_checkpoint(path: Path | None, *, writable: bool = True) -> Checkpoint:
    """Open or create the checkpoint at ``path`` and lock it; None keeps it in memory, of use to this run only.

    One that is not ``writable`` must be there already, and may be read by others at the same time.

    Raises:
        Busy: another downloader holds it.
        DiskError: it cannot be created, or is no regular file of ours.
    """
    if path is None:
        with disk_errors("no room for records in memory"):
            return Checkpoint(None, anonymous_descriptor())
    while True:
        fd, created = _open(path, writable=writable)
        try:
            with disk_errors(f"{path}: the checkpoint cannot be read"):
                status = os.fstat(fd)
                if not stat.S_ISREG(status.st_mode) or (writable and status.st_uid != os.geteuid()):
                    raise DiskError(f"{path}: is no checkpoint of this user")
                lock(fd, path, shared=not writable)
                if is_named(fd, path):
                    return Checkpoint(path, fd, created=created)
        except BaseException:
            release(fd)
            raise
        release(fd)  # its owner finished and removed it between our open and our lock: take the name again


def _open(path: Path, *, writable: bool) -> tuple[int, bool]:
    """Return a descriptor, and whether the file was made by this call."""
    try:
        if not writable:
            return os.open(path, os.O_RDONLY | _FLAGS), False
        while True:
            with suppress(FileExistsError):
                return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS, _MODE), True
            with suppress(FileNotFoundError):  # its owner removed it in between
                return os.open(path, os.O_RDWR | _FLAGS), False
    except OSError as error:
        raise DiskError(f"{path}: the checkpoint cannot be opened: {error.strerror}") from None
