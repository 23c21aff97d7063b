"""The cache's directory, byte by byte: where copies of one object stand, and which of them are to be believed.

    CACHE/KEY/               one object of one store, named by ``labels``; mode 0700
        lock                 empty; locked by whoever fetches or removes something here, and by nobody who reads
        url                  its URL for people, without secrets; UTF-8
        VERSION.json         the record of a copy; its mtime is when the store was last known to have that version
        VERSION/NAME         the copy, mode 0444; the directory's mtime is when it was last handed out
        VERSION.new/         what is being fetched, or was when its fetcher died: NAME.part and NAME.cp of a download

A record is a JSON object: ``fastdl`` 1, ``name``, ``size``, ``inode``, ``mtime`` (nanoseconds) of the copy, ``crc64``
(hexadecimal), and ``proven``, the digests ``ALGORITHM=HEX`` that this very file was found to have.

A copy is there if and only if its record can be read and VERSION/NAME is a regular file of just that size. With another
inode or mtime it was moved, into an image or onto another disk, or changed: then it counts once its CRC-64 is right.
The record is written before the copy gets its name, and removed before the copy is: so a name never stands for less
than the whole object, and who dies in between leaves nothing that is believed.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastdl.errors import DiskError, disk_errors
from fastdl.names import is_safe_name
from fastdl.redact import printable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


RECORD, NEW = ".json", ".new"
_LOCK, _URL = OWN = ("lock", "url")  # which are of the directory itself
_FORMAT = 1
_MOST = 64 * 1024  # bytes of a record or URL; what is longer is not ours


@dataclass(frozen=True, slots=True)
class Copy:
    """A complete copy of one version."""

    version: str
    path: Path
    size: int  # bytes
    crc64: str  # hexadecimal, of the bytes that were fetched
    moved: bool  # is not the very file that was put there, so its CRC-64 must be compared
    proven: frozenset[str]
    checked: int  # nanoseconds of the clock: when the store had this version
    used: int  # likewise: when it was last handed out


class Shelf:
    """One object's directory in the cache; nothing is made before ``make``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = folder / _LOCK

    def make(self, shown: str) -> None:
        """Make the directory, and note for people whose it is.

        Raises:
            DiskError: it cannot be made.
        """
        with disk_errors(self.folder):
            self.folder.mkdir(0o700, exist_ok=True)
            if not (self.folder / _URL).is_file():
                with suppress(FileNotFoundError):  # somebody removed the directory between two lines
                    _write(self.folder / _URL, shown.encode("utf-8", "replace"))

    @property
    def url(self) -> str:
        """Whose it is, for people."""
        return printable(_read(self.folder / _URL).decode("utf-8", "replace")) or "unknown"

    def copy(self, version: str) -> Copy | None:
        """Return the copy of one version; None unless it is there."""
        record_path = self.folder / (version + RECORD)
        record = _parsed(_read(record_path))
        name, crc64, proven = record.get("name"), record.get("crc64"), record.get("proven")
        if not isinstance(name, str) or not isinstance(crc64, str) or not is_safe_name(name):
            return None
        path = self.folder / version / name
        try:
            status, checked, used = path.lstat(), record_path.lstat().st_mtime_ns, path.parent.lstat().st_mtime_ns
        except OSError:
            return None
        right = record.get("fastdl") == _FORMAT and record.get("size") == status.st_size
        if not right or not stat.S_ISREG(status.st_mode):
            return None
        moved = (record.get("inode"), record.get("mtime")) != (status.st_ino, status.st_mtime_ns)
        known = proven if isinstance(proven, list) and not moved else []
        texts = frozenset(text for text in known if isinstance(text, str))
        return Copy(version, path, status.st_size, crc64, moved, texts, checked, used)

    def copies(self) -> list[Copy]:
        """Return all copies that are there; none if the directory cannot be read."""
        versions = [name.removesuffix(RECORD) for name in self.names() if name.endswith(RECORD)]
        return [copy for copy in map(self.copy, versions) if copy is not None]

    def newest(self) -> Copy | None:
        """Return the copy that the store was last known to have; None if there is none."""
        return max(self.copies(), key=lambda copy: copy.checked, default=None)

    def names(self) -> list[str]:
        """List what is in the directory; nothing if there is none."""
        with suppress(OSError):
            return sorted(os.listdir(self.folder))  # noqa: PTH208 - names, not paths
        return []

    def use(self, copy: Copy, checked: int | None = None) -> bool:
        """Note that ``copy`` is handed out, and when the store had it; False if it was removed meanwhile."""
        try:
            os.utime(copy.path.parent)
            if checked is not None and checked > copy.checked:
                os.utime(self.folder / (copy.version + RECORD), ns=(checked, checked))
        except FileNotFoundError:
            return False
        except OSError:
            pass  # a cache that may only be read is of use too
        return copy.path.exists()

    def put(self, version: str, name: str, checked: int, crc64: str, proven: Iterable[str]) -> Copy:
        """Give what was fetched its place; whoever holds an older copy keeps it.

        Raises:
            DiskError: the file system refuses.
        """
        new, path = self.folder / (version + NEW) / name, self.folder / version / name
        with disk_errors(path):
            new.chmod(0o444)
            if not stat.S_ISDIR(_mode(path.parent)):
                clear(path.parent)
                path.parent.mkdir(0o700)
            if stat.S_ISDIR(_mode(path)):
                clear(path)
            self._record(version, name, new.lstat(), checked, crc64, proven)
            new.replace(path)
        clear(new.parent)
        copy = self.copy(version)
        if copy is None:
            raise DiskError(f"{path}: another process changed or removed it")
        return copy

    def prove(self, copy: Copy, hashed: os.stat_result, proven: Iterable[str]) -> None:
        """Note digests of the copy, as it was before it was ``hashed``, if they can be noted."""
        with suppress(OSError):
            self._record(copy.version, copy.path.name, hashed, copy.checked, copy.crc64, {*copy.proven, *proven})

    def remove(self, name: str) -> None:
        """Remove a version's copy, or what is unfinished of one (``VERSION.new``); the lock must be held.

        Raises:
            DiskError: it cannot be removed.
        """
        with disk_errors(self.folder / name):
            clear(self.folder / (name + RECORD))
            clear(self.folder / name)

    def sweep(self, unfinished: str | None = None) -> None:
        """Remove what is nothing, and what is unfinished but ``unfinished``, or none of that; the lock must be held.

        Raises:
            DiskError: it cannot be removed.
        """
        kept = {*OWN, *(name for copy in self.copies() for name in (copy.version, copy.version + RECORD))}
        for name in self.names():
            if name not in kept and (name != unfinished if unfinished is not None else not name.endswith(NEW)):
                with disk_errors(self.folder / name):
                    clear(self.folder / name)

    def vanish(self) -> None:
        """Remove the directory if nothing is left in it; the lock must be held, and is of nothing afterwards."""
        if set(self.names()) <= set(OWN):
            with suppress(OSError):
                for name in OWN:
                    (self.folder / name).unlink(missing_ok=True)
                self.folder.rmdir()

    def _record(
        self, version: str, name: str, status: os.stat_result, checked: int, crc64: str, proven: Iterable[str]
    ) -> None:
        there = {"size": status.st_size, "inode": status.st_ino, "mtime": status.st_mtime_ns}
        record = {"fastdl": _FORMAT, "name": name, **there, "crc64": crc64, "proven": sorted(proven)}
        _write(self.folder / (version + RECORD), json.dumps(record).encode(), checked)


def clear(path: Path) -> None:
    """Remove whatever has that name, links not followed.

    Raises:
        OSError: it cannot be removed.
    """
    if stat.S_ISDIR(_mode(path)):
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _mode(path: Path) -> int:
    try:
        return path.lstat().st_mode
    except FileNotFoundError:
        return 0


def _read(path: Path) -> bytes:
    """Read a small file; empty if it is none, whatever stands there instead."""
    with suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            status = os.fstat(fd)
            return os.read(fd, _MOST) if stat.S_ISREG(status.st_mode) and status.st_size < _MOST else b""
        finally:
            os.close(fd)
    return b""


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _write(path: Path, content: bytes, mtime: int | None = None) -> None:
    """Write a small file in one step, whatever stands there.

    Raises:
        OSError: the file system refuses.
    """
    fresh = path.with_name(f"{path.name}.{os.urandom(8).hex()}")
    try:
        with fresh.open("xb") as file:
            file.write(content)
        if mtime is not None:
            os.utime(fresh, ns=(mtime, mtime))
        if stat.S_ISDIR(_mode(path)):
            clear(path)
        fresh.replace(path)
    except BaseException:
        with suppress(OSError):
            fresh.unlink()
        raise
