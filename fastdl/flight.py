"""One fetcher at a time for each object: who comes while somebody fetches waits, and takes what was brought.

The lock is ``locks``'s, so it ends with its holder, SIGKILL included, and a file of this machine's stands in where the
file system has none: then fetchers on other machines are not seen. Waiting is asking again, a few times a second: a
lock that is waited for in the kernel knows no deadline, and a stand-in may change its name meanwhile.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fastdl.errors import Busy, disk_errors
from fastdl.locks import is_named, lock, release

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastdl.shelf import Copy, Shelf

_NAPS = (0.01, 0.2)  # seconds between two looks: at first, and at most; each doubles the one before


class Patience:
    """What is left of ``max_time`` seconds from now on; None is without end."""

    def __init__(self, shown: str, max_time: float | None) -> None:
        self._shown, self._max_time = shown, max_time
        self._due = None if max_time is None else time.monotonic() + max_time
        self._nap = _NAPS[0]

    @property
    def left(self) -> float | None:
        """Seconds; more than none, because nothing can be done in none."""
        return None if self._due is None else max(self._due - time.monotonic(), 0.001)

    def wait(self) -> None:
        """Sleep a little.

        Raises:
            Busy: the time is up.
        """
        if self._due is not None and time.monotonic() + self._nap > self._due:
            raise Busy(f"{self._shown}: another process fetches it, and had not ended within {self._max_time} seconds")
        time.sleep(self._nap)
        self._nap = min(2 * self._nap, _NAPS[1])


@contextmanager
def flight(
    shelf: Shelf, shown: str, patience: Patience, landed: Callable[[bool], Copy | None]
) -> Iterator[Copy | None]:
    """Yield None to the one who is to fetch, the lock held to the end of the block; to all others what came.

    ``landed`` looks for that, and is told whether somebody else was waited for.

    Raises:
        Busy: somebody else fetches, for longer than ``patience`` has.
        DiskError: there can be no lock.
    """
    waited = False
    while True:
        shelf.make(shown)
        fd = try_lock(shelf)
        if fd is not None:
            break
        patience.wait()
        waited = True
        if (copy := landed(waited)) is not None:
            yield copy
            return
    try:
        yield landed(waited)
    finally:
        release(fd)


def try_lock(shelf: Shelf) -> int | None:
    """Lock a shelf and return what to ``release``; None if somebody else holds it, or just removed it.

    Raises:
        DiskError: it cannot be locked.
    """
    with disk_errors(shelf.lock):
        try:
            fd = os.open(shelf.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        except FileNotFoundError:
            return None
    try:
        lock(fd, shelf.lock)
        if is_named(fd, shelf.lock):
            return fd
    except Busy:
        os.close(fd)
        return None
    except BaseException:
        os.close(fd)
        raise
    release(fd)
    return None
