"""One downloader at a time: flock on files that may lie on any file system, and whether a name still means a file."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from fastdl.errors import Busy, DiskError

if TYPE_CHECKING:
    from pathlib import Path

_NO_LOCKS = frozenset((errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS))
log = logging.getLogger("fastdl")


def lock(fd: int, path: Path, *, shared: bool = False) -> None:
    """Lock an open file until ``unlock``, or until its last descriptor closes; ``shared`` with others who only read.

    Raises:
        Busy: another downloader holds it.
        DiskError: the file system refuses.
    """
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Busy(f"{path}: another downloader holds it") from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise DiskError(f"{path}: cannot be locked: {error.strerror}") from None
        log.warning("%s: no locks on this file system: start no second downloader", path)


def unlock(fd: int) -> None:
    """Give the lock back now: a fork of the caller may hold the descriptor, and with it the lock, open for long."""
    with suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_UN)


def inode(where: int | Path) -> tuple[int, int]:
    """Return device and inode of an open file, or of a name, links not followed.

    Raises:
        OSError: nothing has that name.
    """
    status = os.fstat(where) if isinstance(where, int) else os.lstat(where)
    return status.st_dev, status.st_ino


def is_named(fd: int, path: Path) -> bool:
    """Tell whether ``path`` still means the open file."""
    try:
        return inode(path) == inode(fd)
    except OSError:
        return False
