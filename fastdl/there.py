"""A file that is there already: opened to be looked at, and with the downloads' locks to be repaired in place."""

from __future__ import annotations

import logging
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from fastdl.checkpoint import open_checkpoint
from fastdl.disk import part_path_of
from fastdl.errors import DiskError, NotFound, UsageError, disk_errors
from fastdl.header import SLOT, begins_ours
from fastdl.locks import is_named, lock, release

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

    from fastdl.checkpoint import Checkpoint

log = logging.getLogger("fastdl")


class FileThere:
    """The file at ``path``, open until the end of the block; ``size`` is what it had at first, in bytes.

    Raises:
        NotFound: nothing is there.
        UsageError: it is no regular file.
        DiskError: it cannot be opened.
    """

    ring = 0  # all of it is there

    def __init__(self, path: Path, *, writable: bool) -> None:
        self.path = self.part_path = path
        try:
            # Without waiting for somebody at the other end, should it be a pipe.
            self.fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise NotFound(f"{path}: no such file") from None
        except IsADirectoryError:
            raise UsageError(f"{path}: is a directory") from None
        except OSError as error:
            raise DiskError(f"{path}: cannot be opened: {error.strerror}") from None
        try:
            with disk_errors(path):
                status = os.fstat(self.fd)
            if not stat.S_ISREG(status.st_mode):
                raise UsageError(f"{path}: is no regular file")
        except BaseException:
            os.close(self.fd)
            raise
        self.size = status.st_size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    def check(self) -> None:
        """Make sure that the file is still the one that was opened.

        Raises:
            DiskError: somebody truncated, extended, removed or replaced it.
        """
        with disk_errors(self.path):
            size, place = os.fstat(self.fd).st_size, self.path.resolve()
        if size != self.size or not is_named(self.fd, place):
            raise DiskError(f"{self.path}: another process changed or replaced it")

    def sync(self) -> None:
        """Let what was written survive power loss.

        Raises:
            DiskError: the disk fails.
        """
        try:
            os.fdatasync(self.fd)
        except OSError as error:
            raise DiskError(f"{self.path}: {error.strerror}") from None


def open_records(path: Path, stack: ExitStack, *, writable: bool, needed: bool) -> Checkpoint:
    """Open the records kept at ``path``, or none if there are none; locked until ``stack`` ends.

    Raises:
        Busy: a download of this file goes on.
        DiskError: they cannot be read, and are ``needed``.
    """
    try:
        with disk_errors(path):
            there = path.exists()
        records = open_checkpoint(path if there else None, writable=writable)
    except DiskError as error:
        if needed:
            raise
        log.warning("%s; the records are not used", error)
        records = open_checkpoint(None)
    stack.callback(records.close)
    return records


def keep_others_out(path: Path, records: Checkpoint, records_path: Path, stack: ExitStack) -> None:
    """Hold every lock that a download of ``path`` would take, until ``stack`` ends.

    Raises:
        Busy: one goes on.
    """
    if records.path is None:
        empty = open_checkpoint(records_path)
        stack.callback(empty.close)
        stack.callback(empty.remove)
    for name in (path, part_path_of(path)):
        # Opened for the lock alone: workers that outlive a killed parent for an instant must not hold it.
        try:
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise DiskError(f"{name}: cannot be locked: {error.strerror}") from None
        stack.callback(release, fd)
        lock(fd, path)


def refuse_ours(path: Path) -> None:
    """Refuse an output that is what another download needs: its checkpoint, or the partial file beside one.

    Raises:
        UsageError: it is.
    """
    names = [path] if path.suffix != ".part" else [path, path.with_suffix(".cp")]
    for name in names:
        with suppress(OSError), name.open("rb") as file:  # what cannot be read is not this user's
            if begins_ours(file.read(SLOT)):
                raise UsageError(f"{path}: an unfinished download needs it; give another name, or finish that first")
