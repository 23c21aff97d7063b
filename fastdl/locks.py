"""One downloader at a time: flock on files that may lie on any file system, and whether a name still means a file.

Where a file system has no locks a file of this machine's stands in, named after the other's device and inode. Not a
lock file beside the output: after SIGKILL it would stay, and nobody could tell whether its owner lives.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from fastdl.errors import Busy, DiskError

_NO_LOCKS = frozenset((errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS))
# By the descriptor that could not be locked: what is locked instead, and its name if it is this owner's to remove.
_standing_in: dict[int, tuple[int, Path | None]] = {}
_held: set[int] = set()  # descriptors
log = logging.getLogger("fastdl")


def lock(fd: int, path: Path, *, shared: bool = False) -> None:
    """Lock an open file until ``unlock``, or until its last descriptor closes; ``shared`` with others who only read.

    Raises:
        Busy: another downloader holds it.
        DiskError: the file system refuses.
    """
    how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
    try:
        fcntl.flock(fd, how)
    except BlockingIOError:
        raise Busy(f"{path}: another downloader holds it") from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise DiskError(f"{path}: cannot be locked: {error.strerror}") from None
        _lock_stand_in(fd, path, how)
    _held.add(fd)


def unlock(fd: int) -> None:
    """Give the lock back now: a fork of the caller may hold the descriptor, and with it the lock, open for long."""
    _held.discard(fd)
    stand_in, name = _standing_in.pop(fd, (fd, None))
    with suppress(OSError):
        if name is not None:
            name.unlink()
    with suppress(OSError):
        fcntl.flock(stand_in, fcntl.LOCK_UN)
    if stand_in != fd:
        os.close(stand_in)


def release(fd: int) -> None:
    """Give the lock back, if there is one, and close the file."""
    unlock(fd)
    os.close(fd)


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


def _disown() -> None:
    """Let a fork of the caller hold no lock: as long as it lives it would keep others out, whatever its parent does.

    The numbers stay taken, because whoever forked in the middle of a download will close them.
    """
    fds = {*_held, *(stand_in for stand_in, _ in _standing_in.values())}
    _held.clear()
    _standing_in.clear()
    if fds:
        nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        for fd in fds:
            with suppress(OSError):
                os.dup2(nothing, fd, inheritable=False)
        os.close(nothing)


os.register_at_fork(after_in_child=_disown)


def _lock_stand_in(fd: int, path: Path, how: int) -> None:
    """Lock a file of this machine's in place of one that cannot be locked; say that other machines do not see it."""
    try:
        name = _stand_ins() / "-".join(map(str, inode(fd)))
        while True:
            stand_in = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(stand_in, how)
            except OSError:
                os.close(stand_in)
                raise
            if is_named(stand_in, name):
                break
            os.close(stand_in)  # whoever had it removed it between our open and our lock
    except BlockingIOError:
        raise Busy(f"{path}: another downloader holds it") from None
    except OSError as error:
        raise DiskError(f"{path}: no locks on this file system, nor a place for one here: {error.strerror}") from None
    _standing_in[fd] = stand_in, None if how & fcntl.LOCK_SH else name
    log.warning("%s: no locks on this file system: start no second downloader on another machine", path)


def _stand_ins() -> Path:
    """Return the directory of this user's stand-ins.

    Raises:
        OSError: it cannot be made, or is somebody else's.
    """
    folder = Path(tempfile.gettempdir()) / f"fastdl-{os.geteuid()}"
    with suppress(FileExistsError):
        folder.mkdir(0o700)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise PermissionError(errno.EPERM, f"{folder} is not this user's")
    return folder
