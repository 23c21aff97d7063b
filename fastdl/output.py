"""The output: ``OUT.part`` while unfinished, ``OUT`` once every byte is judged; allocated first, renamed last."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from fastdl.access import write_whole
from fastdl.disk import check_room, fallocate, narrowed, part_path_of, rename_new, sync_directory, umask
from fastdl.errors import Busy, DiskError, UsageError, disk_errors
from fastdl.header import STAMP
from fastdl.locks import inode, is_named, lock, release

if TYPE_CHECKING:
    from pathlib import Path

    from fastdl.header import Stored

# What open says of a name that means nothing, a link, a directory, a socket, or a file of somebody else's.
_NOT_OURS = frozenset((errno.ENOENT, errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EACCES, errno.EPERM, errno.ETXTBSY))
_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW


class Output:
    """The unfinished file at ``part_path``: this run's own inode, locked against other downloaders until closed.

    Behind the object's bytes it carries a *stamp*, sixteen random bytes that the checkpoint knows too. They tell whose
    marks are true of this file, whatever its inode number, and that nobody truncated it: pwrite would extend it again
    without a word, over a hole, but never as far as the stamp.
    """

    ring = 0  # all of it is kept

    def __init__(self, path: Path, name: Path, fd: int, stamp: bytes, *, sealed: bool = False) -> None:
        self.path = path
        self.part_path = part_path_of(path)
        self.fd = fd
        self.sealed = sealed  # was cut to the object's size already: what it holds must be hashed
        self.stamp = stamp
        with disk_errors(name):
            self.inode = inode(fd)
        self.published = name == path  # under its final name already: nothing of it may be changed
        self.lost = False  # whether the disk failed to keep some of it, nobody knows which
        self._size: int | None = None
        # A lock of its own open file: workers that outlive a killed parent for an instant must not hold it.
        try:
            self._lock_fd = os.open(name, _FLAGS)
        except OSError as error:
            raise DiskError(f"{name}: cannot be opened: {error.strerror}") from None
        try:
            lock(self._lock_fd, path)
            with disk_errors(name):
                if inode(self._lock_fd) != self.inode:
                    raise Busy(f"{path}: another downloader replaced {self.part_path.name} just now")
        except BaseException:
            release(self._lock_fd)
            raise

    def check_room(self, size: int) -> None:
        """Refuse an object that the file system cannot hold, before anything is planned for it.

        Raises:
            DiskError: there is less room.
        """
        check_room(self.path, size)

    def allocate(self, size: int | None) -> None:
        """Reserve ``size`` bytes on the disk; None if the size is not known.

        Raises:
            DiskError: there is no room; nothing of the object's body was used yet.
        """
        try:
            if size is None:
                return
            self._reserve(size + STAMP)
            write_whole(self.fd, self.stamp, size)  # which also gives a sparse file its length
        except OSError as error:
            raise DiskError(f"{self.path}: no room for {size} bytes: {error.strerror}") from None
        self._size = size
        self.sealed = False

    def check(self) -> None:
        """Make sure that the file is still the one that was allocated.

        Raises:
            DiskError: somebody truncated, extended, removed or replaced it.
        """
        if self._size is not None:
            with disk_errors(self.part_path):
                length, stamp = os.fstat(self.fd).st_size, os.pread(self.fd, STAMP, self._size)
            if length != self._size + STAMP or stamp != self.stamp:
                raise DiskError(f"{self.part_path}: another process truncated or changed it")
        if not is_named(self.fd, self.part_path):
            raise DiskError(f"{self.part_path}: removed or replaced by another process")

    def check_length(self, length: int) -> None:
        """Make sure that a file of unknown final size has ``length`` bytes now.

        Raises:
            DiskError: somebody else changed it.
        """
        with disk_errors(self.part_path):
            now = os.fstat(self.fd).st_size
        if now != length:
            raise DiskError(f"{self.part_path}: another process truncated or changed it")

    def empty(self) -> None:
        """Forget what an earlier attempt at an object of unknown size may have left.

        Raises:
            DiskError: the disk fails.
        """
        with disk_errors(self.part_path):
            os.ftruncate(self.fd, 0)

    def settle(self, size: int) -> None:
        """Note the final size of a file that grew to it.

        Raises:
            DiskError: it has another size.
        """
        self.check_length(size)
        self.allocate(size)

    def publish(self, *, fsync: bool, replace: bool = True) -> None:
        """Give the file its final name, in one step; with ``fsync``, durably.

        What has that name is replaced in the same step, or is an error without ``replace``.

        Its mode is what the umask leaves of 0666, and no wider than that of the file it replaces, whose group it gets.

        Raises:
            UsageError: something has the final name, and is not to be replaced; the finished bytes stay as well.
            DiskError: the rename failed; the finished bytes stay in ``OUT.part``, unless they are ``lost``.
        """
        self.check()
        try:
            os.ftruncate(self.fd, self._size or 0)
            os.fchmod(self.fd, narrowed(self.fd, 0o666 & ~umask(), self.path))
            if fsync:
                self._sync()  # which may take minutes: enough for somebody to change the file
            if os.fstat(self.fd).st_size != (self._size or 0) or not is_named(self.fd, self.part_path):
                raise DiskError(f"{self.part_path}: another process truncated, removed or replaced it")
            if replace:
                self.part_path.replace(self.path)
            else:
                rename_new(self.part_path, self.path)
            if fsync:
                sync_directory(self.path.parent)
        except FileExistsError:
            raise UsageError(
                f"{self.path}: exists since this download began; not replaced, the bytes are kept in {self.part_path}"
            ) from None
        except OSError as error:
            raise DiskError(
                f"{self.path}: cannot be published: {error.strerror}; the bytes are kept in {self.part_path}"
            ) from None

    def sync(self) -> None:
        """Make bytes and names durable, whoever wrote them.

        Raises:
            DiskError: the disk did not take them all.
        """
        try:
            os.fsync(self.fd)
            sync_directory(self.path.parent)
        except OSError as error:
            raise DiskError(f"{self.path}: cannot be made durable: {error.strerror}") from None

    def discard(self) -> None:
        """Remove the unfinished file if the name still means this run's inode."""
        with suppress(OSError):
            if is_named(self.fd, self.part_path):
                self.part_path.unlink()

    def close(self) -> None:
        """Release the file and its lock."""
        os.close(self.fd)
        release(self._lock_fd)

    def _sync(self) -> None:
        """Have the disk take everything, asked once.

        What it refused the kernel may have thrown away and show as if it were there: neither asking again nor hashing
        would tell what the disk holds. Source: Rebello et al., "Can Applications Recover from fsync Failures?", 2020.
        """
        try:
            os.fsync(self.fd)  # not fdatasync: permissions, too, shall survive
        except OSError as error:
            self.lost = True
            raise DiskError(f"{self.part_path}: the disk did not keep it: {error.strerror}; start over") from None

    def _reserve(self, length: int) -> None:
        if fallocate(self.fd, length):
            return
        room = os.fstatvfs(self.fd)
        if room.f_bavail * room.f_frsize < length - os.fstat(self.fd).st_blocks * 512:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def create_output(path: Path) -> Output:
    """Create ``OUT.part`` anew, mode 0600; leftovers of an earlier run that cannot be resumed are replaced.

    Raises:
        Busy: another downloader holds it.
        DiskError: it cannot be created, or something that is not a file of ours is in its place.
    """
    part_path = part_path_of(path)
    try:
        remove_leftover(path)
        fd = os.open(part_path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Busy(f"{path}: another downloader created {part_path.name} just now") from None
    except OSError as error:
        raise DiskError(f"{part_path}: cannot be created: {error.strerror}") from None
    try:
        return Output(path, part_path, fd, os.urandom(STAMP))
    except BaseException:
        if is_named(fd, part_path):
            part_path.unlink(missing_ok=True)
        os.close(fd)
        raise


def reopen_output(path: Path, stored: Stored, *, complete: bool) -> Output | None:
    """Open the file that a checkpoint is about; None unless it is that very one, and ours.

    It is ``OUT.part`` with the checkpoint's stamp behind its bytes. A run that was killed while it published left the
    bytes without stamp, under either name, and so does one that kept its records: then ``complete``, every part being
    marked, must hold, and of ``OUT.part`` the inode agree; the file is hashed whatever the user trusts. One that has
    two names may be published under the other, so it is not opened as ``OUT.part``: that is written to.

    Raises:
        Busy: another downloader holds it.
        DiskError: it cannot be read now; what is finished in it must not be thrown away for that.
    """
    part_path = part_path_of(path)
    for name in (part_path, path):
        try:
            fd = os.open(name, _FLAGS)
        except OSError as error:
            if error.errno in _NOT_OURS:
                continue
            raise DiskError(f"{name}: cannot be opened: {error.strerror}") from None
        try:
            stamp = _stamp_if_ours(fd, stored.plan.size)
            if stamp == stored.stamp and name == part_path:
                return Output(path, name, fd, stamp)
            sealed = stamp == b"" and complete
            if sealed and (name == path or (inode(fd) == stored.inode and os.fstat(fd).st_nlink == 1)):
                output = Output(path, name, fd, stored.stamp, sealed=True)
                if output.published:
                    output.discard()  # the other name of the same file, if a killed run left it that
                return output
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
    return None


def _stamp_if_ours(fd: int, size: int) -> bytes | None:
    """Return what stands behind ``size`` bytes of a regular file of this user's; None if it is no such file."""
    with disk_errors("what an earlier run left cannot be read"):
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            return None
        return os.pread(fd, STAMP, size) if status.st_size in (size, size + STAMP) else None


def remove_leftover(path: Path) -> None:
    """Remove what an earlier run left in ``OUT.part``.

    Raises:
        Busy: another downloader holds it.
        DiskError: it is no regular file.
        OSError: it cannot be opened or removed.
    """
    part_path = part_path_of(path)
    try:
        fd = os.open(part_path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise DiskError(f"{part_path}: exists and is no regular file; remove it first")
        lock(fd, path)
        if is_named(fd, part_path):  # else somebody else put another one there meanwhile
            part_path.unlink()
    finally:
        release(fd)
