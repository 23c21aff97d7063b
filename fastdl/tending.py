"""What is in a cache, and what of it has to go: by last use under a bound, by age where it was never finished."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fastdl import arguments
from fastdl.errors import Busy, DiskError, UsageError, disk_errors
from fastdl.flight import try_lock
from fastdl.labels import identity_of, is_key, prefix_of
from fastdl.locks import release
from fastdl.redact import printable
from fastdl.shelf import NEW, OWN, Shelf

if TYPE_CHECKING:
    from collections.abc import Iterable

_BLOCK = 512  # bytes, whatever a file system's own are. Source: stat(2)
_DAY = 86_400  # seconds


@dataclass(frozen=True, slots=True)
class Item:
    """A copy, or what is unfinished of one."""

    shelf: Shelf
    url: str  # for people
    name: str  # in the shelf's directory
    path: Path  # of the copy, or of the directory of what is unfinished
    size: int  # bytes that it takes
    used: int  # nanoseconds of the clock: handed out, or written to
    complete: bool


def directory(given: str | os.PathLike[str] | None) -> Path:
    """Return where the cache is: as given, $FASTDL_CACHE, $XDG_CACHE_HOME/fastdl or ~/.cache/fastdl.

    Raises:
        UsageError: that is no path.
    """
    text = os.environ.get("FASTDL_CACHE", "") if given is None else arguments.path("cache_dir", given)
    try:
        if text:
            path = Path(text).absolute()
        elif given is not None:
            raise ValueError("it is empty")
        else:
            base = Path(os.environ.get("XDG_CACHE_HOME", ""))
            path = (base if base.is_absolute() else Path("~/.cache").expanduser()) / "fastdl"
        if b"\0" in os.fsencode(path):
            raise ValueError("NUL in a name")
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(f"{printable(text)!r} cannot be a cache directory: {error}") from None
    return path


def bound(given: int | str | None) -> int | None:
    """Return how many bytes the cache may take: as given, $FASTDL_CACHE_MAX, or None for no bound.

    Raises:
        UsageError: that is no number of bytes.
    """
    name, value = "max_bytes", given
    if given is None:
        name, value = "FASTDL_CACHE_MAX", os.environ.get("FASTDL_CACHE_MAX") or None
    if value is None:
        return None
    most = arguments.nbytes(name, value)
    if most < 0:
        raise UsageError(f"{name} {most}: must be 0 or more")
    return most


def make_directory(root: Path) -> None:
    """Make the cache's directory, for this user alone.

    Raises:
        DiskError: it cannot be made, or everybody may write to it, and so put other files in the copies' place.
    """
    with disk_errors(root):
        root.parent.mkdir(parents=True, exist_ok=True)
        root.mkdir(0o700, exist_ok=True)
        if root.stat().st_mode & 0o002:
            raise DiskError(f"{root}: everybody may write to it, so it cannot be a cache; chmod o-w")


def shelves(root: Path) -> list[Shelf]:
    """Return what the cache at ``root`` has; nothing if it is not there.

    Raises:
        DiskError: it cannot be read.
    """
    with disk_errors(root):
        names = sorted(os.listdir(root)) if root.exists() else []  # noqa: PTH208 - names, not paths
    return [Shelf(root / name) for name in names if is_key(name) and (root / name).is_dir()]


def items(root: Path) -> list[Item]:
    """Return what is in the cache, the longest unused first; nothing if there is none.

    Raises:
        DiskError: it cannot be read.
    """
    return sorted((item for shelf in shelves(root) for item in _of(shelf)), key=lambda item: item.used)


def make_room(root: Path, most: int, needed: int, own: Shelf, kept: Iterable[str]) -> None:
    """Remove what was longest unused until ``needed`` bytes more fit into ``most``.

    ``own`` is locked by the caller, who needs the names ``kept`` in it. What others fetch right now stays.
    """
    there = [item for item in items(root) if item.shelf.folder != own.folder or item.name not in kept]
    total = needed + sum(item.size for item in there)
    for item in there:
        if total <= most:
            return
        with suppress(DiskError):  # whoever removes it meanwhile makes room as well
            if remove(item, locked=item.shelf.folder == own.folder):
                total -= item.size


def prune(root: Path, most: int | None, days: float) -> list[Item]:
    """Remove what was not finished and has rested for ``days``, then what is beyond ``most`` bytes; return all that.

    Raises:
        DiskError: something cannot be removed.
    """
    gone = []
    there = items(root)
    total = sum(item.size for item in there)
    before = time.time_ns() - int(days * _DAY * 10**9)
    for stale in (True, False):
        for item in list(there):
            old = not item.complete and item.used <= before
            if (old if stale else most is not None and total > most) and remove(item):
                there.remove(item)
                gone.append(item)
                total -= item.size
    for shelf in shelves(root):
        fd = try_lock(shelf)
        if fd is not None:
            try:
                shelf.sweep()
                shelf.vanish()
            finally:
                release(fd)
    return gone


def remove(item: Item, *, locked: bool = False) -> bool:
    """Remove an item, and its shelf if that is empty then; False if it is fetched, or was used, just now.

    Raises:
        DiskError: it cannot be removed.
    """
    fd = None if locked else try_lock(item.shelf)
    if fd is None and not locked:
        return False
    try:
        now = {each.name: each.used for each in _of(item.shelf)}
        if now.get(item.name) != item.used:
            return False
        item.shelf.remove(item.name)
        if not locked:
            item.shelf.vanish()
        return True
    finally:
        if fd is not None:
            release(fd)


def remove_all(root: Path, url: str | None) -> list[Item]:
    """Remove all copies of ``url``, whatever endpoint they came from, and what is unfinished of it; of None everything.

    Raises:
        Busy: something is being fetched; all else is removed.
        DiskError: something cannot be removed.
    """
    gone, busy = [], ""
    for shelf in shelves(root):
        if url is not None and not shelf.folder.name.startswith(prefix_of(identity_of(url))):
            continue
        fd = try_lock(shelf)
        if fd is None:
            busy = shelf.url
            continue
        try:
            gone.extend(_of(shelf))
            for name in shelf.names():
                if name not in OWN:
                    shelf.remove(name)
            shelf.vanish()
        finally:
            release(fd)
    if busy:
        raise Busy(f"{busy}: is being fetched and stays; everything else that was meant is removed")
    return gone


def _of(shelf: Shelf) -> list[Item]:
    url = shelf.url
    there = [Item(shelf, url, copy.version, copy.path, copy.size, copy.used, complete=True) for copy in shelf.copies()]
    for name in shelf.names():
        if name.endswith(NEW):
            size, used = 0, 0
            with suppress(OSError):
                for file in (shelf.folder / name).iterdir():
                    status = file.lstat()
                    size, used = size + status.st_blocks * _BLOCK, max(used, status.st_mtime_ns)
            there.append(Item(shelf, url, name, shelf.folder / name, size, used, complete=False))
    return there
