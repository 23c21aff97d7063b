"""The output: ``OUT.part`` while unfinished, ``OUT`` once every byte is judged; allocated first, renamed last."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import sys
from contextlib import suppress
from pathlib import Path

from fastdl.errors import Busy, DiskError, UsageError

# File systems on which allocated blocks are a promise, so that storing through a mapping cannot hit a full disk.
# Copy-on-write, network and stacked ones (btrfs, zfs, nfs, fuse, overlay) get pwrite, which can at least fail politely.
_MAPPABLE = frozenset(("ext2", "ext3", "ext4", "xfs", "f2fs", "tmpfs"))
_NO_FALLOCATE = frozenset((errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL))
_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW


class Output:
    """The unfinished file at ``part_path``: this run's own inode, locked against other downloaders until closed."""

    def __init__(self, path: Path, part_path: Path, fd: int, *, fresh: bool) -> None:
        self.path = path
        self.part_path = part_path
        self.fd = fd
        self.mapped = False
        self._size = 0
        status = os.fstat(fd)
        self.inode = (status.st_dev, status.st_ino)
        # A lock of its own open file: workers that outlive a killed parent for an instant must not hold it.
        self._lock_fd = os.open(part_path, _FLAGS)
        try:
            _lock(self._lock_fd, path)
            if _inode(self._lock_fd) != self.inode:
                raise Busy(f"{path}: another downloader replaced {part_path.name} just now")
        except BaseException:
            os.close(self._lock_fd)
            if fresh:
                self.discard()
            raise

    def allocate(self, size: int) -> None:
        """Reserve ``size`` bytes on the disk and choose between mapping and pwrite.

        Raises:
            DiskError: there is no room; nothing of the object was asked for yet.
        """
        self._size = size
        try:
            reserved = _fallocate(self.fd, size)
            if not reserved:
                room = os.fstatvfs(self.fd)
                if room.f_bavail * room.f_frsize < size - os.fstat(self.fd).st_blocks * 512:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.ftruncate(self.fd, size)
        except OSError as error:
            raise DiskError(f"{self.path}: no room for {size} bytes: {error.strerror}") from None
        self.mapped = reserved and size > 0 and _mappable(self.fd)

    def check(self) -> None:
        """Make sure that the file is still the one that was allocated.

        Raises:
            DiskError: somebody truncated, extended, removed or replaced it.
        """
        size = os.fstat(self.fd).st_size
        if size != self._size:
            raise DiskError(f"{self.part_path}: was {self._size} bytes, is {size}: another process changed it")
        try:
            same = _inode(self.part_path) == self.inode
        except OSError:
            same = False
        if not same:
            raise DiskError(f"{self.part_path}: removed or replaced by another process")

    def grow(self, size: int) -> None:
        """Note that bytes were appended up to ``size``: the object's size was not known before."""
        self._size = size

    def publish(self, *, fsync: bool) -> None:
        """Give the file its final name, replacing what was there in one step; with ``fsync``, durably.

        Raises:
            DiskError: the rename failed; the finished bytes stay in ``OUT.part``.
        """
        self.check()
        try:
            os.fchmod(self.fd, 0o666 & ~_umask())
            if fsync:
                os.fdatasync(self.fd)
            self.part_path.replace(self.path)
            # rename(2) leaves both names when they are links to one inode, as after an interrupted publication.
            if self.part_path.exists() and _inode(self.part_path) == self.inode:
                self.part_path.unlink()
            if fsync:
                _sync_directory(self.path.parent)
        except OSError as error:
            raise DiskError(
                f"{self.path}: cannot be published: {error.strerror}; the bytes are kept in {self.part_path}"
            ) from None

    def discard(self) -> None:
        """Remove the unfinished file if the name still means this run's inode."""
        with suppress(OSError):
            if _inode(self.part_path) == self.inode:
                self.part_path.unlink()

    def close(self) -> None:
        """Release the file and its lock."""
        os.close(self.fd)
        with suppress(OSError):
            fcntl.flock(self._lock_fd, fcntl.LOCK_UN)  # a fork of the caller may hold the descriptor open
        os.close(self._lock_fd)


def part_path_of(path: Path) -> Path:
    """Return where the unfinished bytes of ``path`` live: in the same directory, so that rename can publish them."""
    return path.with_name(path.name + ".part")


def check_path(path: Path) -> None:
    """Refuse an output that cannot be one, before anything is asked of the network.

    Raises:
        UsageError: a directory, device, socket or pipe is there.
        DiskError: its directory is missing or not writable.
    """
    try:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise UsageError(f"{path}: exists and is no regular file")
        if not path.parent.is_dir():
            raise DiskError(f"{path.parent}: no such directory")
    except (OSError, ValueError) as error:
        raise UsageError(f"{str(path)!r} cannot be an output: {error}") from None
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise DiskError(f"{path.parent}: not writable")


def create_output(path: Path) -> Output:
    """Create ``OUT.part`` anew, mode 0600; leftovers of an earlier run that cannot be resumed are replaced.

    Raises:
        Busy: another downloader holds it.
        DiskError: it cannot be created, or something that is not a file of ours is in its place.
    """
    part_path = part_path_of(path)
    try:
        _remove_leftover(part_path, path)
        fd = os.open(part_path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Busy(f"{path}: another downloader created {part_path.name} just now") from None
    except OSError as error:
        raise DiskError(f"{part_path}: cannot be created: {error.strerror}") from None
    return _own(path, part_path, fd, fresh=True)


def reopen_output(path: Path, inode: tuple[int, int], size: int) -> Output | None:
    """Open the unfinished file of an earlier run; None unless it is that very inode, ours, of ``size`` bytes.

    A run that was killed between publishing and removing its checkpoint left the inode under the final name: it gets
    its old name as a second one and is judged and published again.

    Raises:
        Busy: another downloader holds it.
    """
    part_path = part_path_of(path)
    if not part_path.exists():
        with suppress(OSError):
            if _inode(path) == inode:
                os.link(path, part_path, follow_symlinks=False)
    try:
        fd = os.open(part_path, _FLAGS)
    except OSError:
        return None
    status = os.fstat(fd)
    if (
        (status.st_dev, status.st_ino) != inode
        or not stat.S_ISREG(status.st_mode)
        or status.st_uid != os.geteuid()
        or status.st_size != size
    ):
        os.close(fd)
        return None
    return _own(path, part_path, fd, fresh=False)


def _own(path: Path, part_path: Path, fd: int, *, fresh: bool) -> Output:
    try:
        return Output(path, part_path, fd, fresh=fresh)
    except BaseException:
        os.close(fd)
        raise


def _remove_leftover(part_path: Path, path: Path) -> None:
    try:
        fd = os.open(part_path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise DiskError(f"{part_path}: exists and is no regular file; remove it first")
        _lock(fd, path)
        part_path.unlink()
    finally:
        os.close(fd)


def _lock(fd: int, path: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Busy(f"{path}: another downloader is writing it") from None
    except OSError as error:
        # Some network file systems have no locks; two downloaders there are the user's to avoid.
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            raise


def _inode(where: int | Path) -> tuple[int, int]:
    status = os.fstat(where) if isinstance(where, int) else os.lstat(where)
    return status.st_dev, status.st_ino


def _fallocate(fd: int, size: int) -> bool:
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


def _mappable(fd: int) -> bool:
    """Tell whether the file system under ``fd`` is one where stores through a mapping are safe."""
    device = os.fstat(fd).st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = Path("/proc/self/mountinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return False
    kinds = {line.partition(" - ")[2].split(" ")[0] for line in lines if line.split(" ")[2] == name}
    return bool(kinds) and kinds <= _MAPPABLE


def _umask() -> int:
    """Return the process's umask; os.umask could only tell by changing it under other threads' feet."""
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text("ascii", "replace").splitlines()
        return int(next(line for line in lines if line.startswith("Umask:")).split()[1], 8)
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
