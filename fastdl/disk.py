"""What an output asks of its directory and file system: a name, room, blocks, permissions, names that last."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
from contextlib import suppress
from pathlib import Path

from fastdl.errors import DiskError, FastdlError, UsageError, disk_errors
from fastdl.redact import printable

_NOT_THE_NAMES = frozenset((errno.EIO, errno.ENOMEM, errno.ESTALE))  # faults, whatever name was given
_NO_FALLOCATE = frozenset((errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL))
_NO_RENAMEAT2 = frozenset((errno.ENOSYS, errno.EINVAL))
_AT_FDCWD, _RENAME_NOREPLACE = -100, 1


def part_path_of(path: Path) -> Path:
    """Return where the unfinished bytes of ``path`` live: in the same directory, so that rename can publish them."""
    return path.with_name(path.name + ".part")


def no_output(path: str | os.PathLike[str], error: Exception) -> FastdlError:
    """Return why ``path`` cannot be an output as an error: of whoever gave that name, or of the disk."""
    if getattr(error, "errno", None) in _NOT_THE_NAMES:
        return DiskError(f"{printable(str(path))}: {error}")
    return UsageError(f"{printable(str(path))!r} cannot be an output: {error}")


def check_path(path: Path) -> None:
    """Refuse an output that cannot be one, before anything is asked of the network.

    Raises:
        UsageError: a directory, device, socket or pipe is there.
        DiskError: its directory is missing or not writable.
    """
    try:
        with suppress(FileNotFoundError):
            part_path_of(path).lstat()  # its name is longer
        mode = path.lstat().st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG
    except (OSError, ValueError) as error:
        raise no_output(path, error) from None
    if not stat.S_ISREG(mode):
        raise UsageError(f"{path}: exists and is no regular file")
    with disk_errors(path.parent):
        if not path.parent.is_dir():
            raise DiskError(f"{path.parent}: no such directory")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise DiskError(f"{path.parent}: not writable")
    _check_owner(path)


def _check_owner(path: Path) -> None:
    """Refuse a file that only its owner may replace, as in /tmp: the rename at the end would fail."""
    with disk_errors(path), suppress(FileNotFoundError):
        folder, file, user = path.parent.stat(), path.lstat(), os.geteuid()
        if folder.st_mode & stat.S_ISVTX and user not in (0, folder.st_uid, file.st_uid):
            raise DiskError(f"{path}: belongs to somebody else, who alone may replace it in such a directory")


def narrowed(fd: int, mode: int, replaced: Path) -> int:
    """Give an open file the group of the one that it is to replace; return what of ``mode`` it may have then.

    Where the group cannot be given, its bits would be another group's: then they are no more than everybody's.

    Raises:
        OSError: the disk fails.
    """
    try:
        old = replaced.lstat()
    except FileNotFoundError:
        return mode
    mode &= old.st_mode
    if old.st_gid == os.fstat(fd).st_gid:
        return mode
    try:
        os.fchown(fd, -1, old.st_gid)
    except PermissionError:
        everybody = mode & stat.S_IRWXO
        return mode & ~stat.S_IRWXG | mode & everybody << 3
    return mode


def check_room(path: Path, size: int) -> None:
    """Refuse an object that the file system cannot hold, before anything is planned for it.

    Raises:
        DiskError: there is less room.
    """
    with disk_errors(path.parent):
        room = os.statvfs(path.parent)
    free = room.f_bavail * room.f_frsize
    if size > free:
        raise DiskError(f"{path}: no room for {size} bytes: {free} are free")


def fallocate(fd: int, size: int) -> bool:
    """Reserve blocks by the system call itself; False where the file system cannot.

    Not ``os.posix_fallocate``: where the call is missing glibc writes one byte into each 4 KiB, 2.7e8 times for 1 TiB.
    """
    if size == 0 or not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    call = libc.fallocate
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    while call(fd, 0, 0, size) != 0:
        code = ctypes.get_errno()
        if code in _NO_FALLOCATE:
            return False
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))
    return True


def rename_new(source: Path, target: Path) -> None:
    """Rename a file if nothing is called ``target``, in one step.

    Where the kernel or the file system cannot, the file is linked and then loses its old name. A kill in between
    leaves both names, so whoever opens ``source`` later must not write into a file of two names.

    Raises:
        FileExistsError: something is.
        OSError: it cannot be renamed, or not without the danger of replacing something.
    """
    if not _renamed(source, target):
        os.link(source, target, follow_symlinks=False)
        source.unlink()


def _renamed(source: Path, target: Path) -> bool:
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform.startswith("linux") else None
    if call is None:
        return False
    call.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    if call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NO_RENAMEAT2:
        return False
    raise OSError(code, os.strerror(code))


def umask() -> int:
    """Return the process's umask; os.umask could only tell by changing it under other threads' feet."""
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text("ascii", "replace").splitlines()
        return int(next(line for line in lines if line.startswith("Umask:")).split()[1], 8)
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def sync_directory(directory: Path) -> None:
    """Make the names in ``directory`` durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
