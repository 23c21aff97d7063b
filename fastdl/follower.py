"""Digests of the whole that do not combine from parts, computed beside the download.

A thread of the caller's process reads the output again, out of the page cache, right behind the bytes that are final,
and feeds every digest that is wanted in one pass; hashing releases the GIL. So the digests are there a moment after
the last byte is.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Self

from fastdl.access import scratch
from fastdl.errors import DiskError, FastdlError, disk_errors
from fastdl.hashers import make_hasher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from fastdl.plan import Plan, Run

_BUFFER = 1024 * 1024  # bytes read at a time: all the memory that it takes
_GLANCE = 0.1  # seconds between looks at the time while the last bytes are hashed
_PATIENCE = 1.0  # seconds that the thread gets to end: Ctrl-C must not take two


class Follower:
    """Hashes the file behind ``fd`` from its first byte on, never further than it was told is final.

    ``kinds`` are algorithms, each with the part size of a composite or None; without any it does nothing. Of a ``ring``
    of so many bytes ``hashed`` is told how far it has come: until then nothing behind may be overwritten.
    """

    def __init__(
        self,
        fd: int,
        kinds: Iterable[tuple[str, int | None]],
        ring: int = 0,
        hashed: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._kinds = tuple(kinds)
        self._ring = ring
        self._tell = hashed
        if self._kinds:
            hashed(0)
        self._hashers = [make_hasher(*kind) for kind in self._kinds]
        with disk_errors("no descriptor to hash the output by"):
            self._fd = os.dup(fd)
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        # All that follows only with the condition's lock.
        self._final = 0  # bytes that nobody will change any more
        self._hashed = 0  # of them
        self._again = False  # what was hashed is void: the thread shall begin anew
        self._stopped = False
        self._error: FastdlError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(_PATIENCE)
        # A thread that hangs in a dying disk keeps what it uses: closed, a descriptor could soon mean another file.
        if self._thread is None or not self._thread.is_alive():
            os.close(self._fd)

    def advance(self, stop: int) -> None:
        """Take note that all bytes before ``stop`` are final."""
        with self._changed:
            if stop <= self._final or not self._kinds:
                return
            self._final = stop
            self._changed.notify_all()
        if self._thread is None:
            # Known before it runs: a signal may end start() when it runs already.
            self._thread = threading.Thread(target=self._run, name="fastdl-follower", daemon=True)
            try:
                self._thread.start()
            except RuntimeError as error:
                self._thread = None
                raise DiskError(f"no thread to compute {self._kinds[0][0]} in: {error}") from None

    def restart(self) -> None:
        """Forget everything; from now on bytes may change until they are told to be final again."""
        with self._changed:
            self._final, self._again = 0, True
            self._changed.notify_all()

    def finish(self, size: int, watch: Callable[[], None]) -> Mapping[tuple[str, int | None], str]:
        """Wait until all ``size`` bytes, which are final now, are hashed; return the digests in hex by kind.

        ``watch`` is called several times a second and may raise to end the wait.

        Raises:
            DiskError: the file cannot be read, or is shorter.
        """
        self.advance(size)
        while not self._wait(size):
            watch()
        return {kind: hasher.hexdigest() for kind, hasher in zip(self._kinds, self._hashers, strict=True)}

    def _wait(self, size: int) -> bool:
        """Wait a little; tell whether all bytes are hashed."""
        with self._changed:
            if not self._kinds or self._is_done(size):
                return True
            self._changed.wait(_GLANCE)
            return self._is_done(size)

    def _is_done(self, size: int) -> bool:
        if self._error is not None:
            raise self._error
        return self._hashed == size and not (self._again and self._thread)

    def _run(self) -> None:
        try:
            buffer = scratch(_BUFFER)
            while (span := self._next()) is not None:
                self._hash(buffer, *span)
        except FastdlError as failure:
            self._fail(failure)
        except Exception as failure:  # noqa: BLE001 - a defect of ours must reach the caller, not vanish here
            self._fail(FastdlError(f"unexpected {type(failure).__name__} while hashing: {failure}"))

    def _next(self) -> tuple[int, int] | None:
        """Wait for bytes that are final; return where to go on and how many there are, None at the end of it all."""
        with self._changed:
            while True:
                if self._again:
                    self._hashers = [make_hasher(*kind) for kind in self._kinds]
                    self._hashed, self._again = 0, False
                if self._stopped:
                    return None
                if self._hashed < self._final:
                    return self._hashed, self._final - self._hashed
                self._changed.wait()

    def _hash(self, buffer: memoryview, start: int, nbytes: int) -> None:
        try:
            at = start % self._ring if self._ring else start
            count = os.preadv(self._fd, [buffer[: min(nbytes, self._ring - at) if self._ring else nbytes]], at)
        except OSError as error:
            raise DiskError(f"reading the output at byte {start}: {error.strerror}") from None
        for hasher in self._hashers:
            hasher.update(buffer[:count])
        with self._changed:
            if self._again:  # the file may have been truncated to be filled anew
                return
            if count == 0:
                raise DiskError(f"the output ends before byte {start + nbytes}: another process truncated it")
            self._hashed += count
            if self._hashed == self._final:
                self._changed.notify_all()
        self._tell(start + count)

    def _fail(self, error: FastdlError) -> None:
        with self._changed:
            self._error = error
            self._changed.notify_all()


class Frontier:
    """Tells ``advance`` how far the parts are final without a gap, in bytes."""

    def __init__(self, plan: Plan, advance: Callable[[int], None]) -> None:
        self._plan = plan
        self._advance = advance
        self._final = bytearray(plan.count)
        self._stop = 0

    def add(self, run: Run) -> None:
        """Take note that the parts of ``run`` are final."""
        self._final[run.first : run.stop] = b"\1" * len(run)
        stop = self._final.find(0, self._stop)
        stop = self._plan.count if stop < 0 else stop
        if stop > self._stop:
            self._stop = stop
            self._advance(min(stop * self._plan.part_size, self._plan.size))
