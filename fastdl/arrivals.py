"""An object on its way into memory, as its readers and the one who fetches it see each other.

Readers wait for bytes, say which they want first and which they are done with; the fetching thread says what came and
how it ended. All of that under one lock, held for arithmetic only.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from fastdl.cancellation import Cancellation
from fastdl.errors import Cancelled, FastdlError
from fastdl.plan import NO_PARTS, Plan, Run

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastdl.result import LoadResult

T = TypeVar("T")


class Board:
    """Where it is written what has come, for readers of this process; a shared one tells others too."""

    def begin(self, size: int | None, plan: Plan) -> bytearray | memoryview:  # noqa: ARG002 - of interest to others
        """Return a zero for each part, which becomes 1 when it is there."""
        return bytearray(plan.count)

    def advance(self, stop: int) -> None:
        """Note that all bytes before ``stop`` are there."""

    def end(self, result: LoadResult | None, error: FastdlError | None) -> None:
        """Note how it ended."""


class Arrivals:
    """What has come of one object, what is wanted next, and the end of it; ``board`` keeps the first for others.

    ``ring`` is how many bytes of memory everything goes through, each byte gone once it was read; 0 keeps all. A ring
    is read in order.
    """

    def __init__(self, ring: int = 0, board: Board | None = None) -> None:
        self.ring = ring
        self.plan = NO_PARTS
        self.cancellation = Cancellation()
        self._board = board or Board()
        self._changed = threading.Condition()
        self._nudge: Callable[[], None] | None = None
        self._begun = False
        self._size: int | None = None
        self._there: bytearray | memoryview = bytearray()
        self._front = 0  # bytes before it are there
        self._read = 0  # bytes before it are no longer needed by the reader
        self._hashed: int | None = None  # nor by whoever computes a digest of the whole; None if nobody does
        self._wanted: list[Run] = []
        self._error: FastdlError | None = None
        self._result: LoadResult | None = None

    # What the fetching thread tells and asks.

    def begin(self, size: int | None, plan: Plan) -> None:
        """Tell what is about to come; ``size`` is None if nobody knows, ``plan`` has no parts if it is one stream."""
        with self._changed:
            self._size, self.plan = size, plan
            self._there = self._board.begin(size, plan)
            self._begun = True
            self._changed.notify_all()

    def arrived(self, run: Run) -> None:
        """Tell that the parts of ``run`` are there."""
        with self._changed:
            for index in range(run.first, run.stop):
                self._there[index] = 1
            self._changed.notify_all()

    def advance(self, stop: int) -> None:
        """Tell that all bytes before ``stop`` are there."""
        with self._changed:
            self._front = stop
            self._board.advance(stop)
            self._changed.notify_all()

    def hashed(self, stop: int) -> None:
        """Tell that a digest of the whole has taken in the bytes before ``stop``, and needs those behind it."""
        with self._changed:
            self._hashed = stop
            self._changed.notify_all()
        self._wake()

    def end(self, result: LoadResult | None, error: FastdlError | None) -> None:
        """Tell how it ended, once."""
        with self._changed:
            self._nudge = None
            self._result, self._error = result, error
            if result is not None:
                self._size = result.size
            self._changed.notify_all()
            self._board.end(result, error)

    def heed(self, nudge: Callable[[], None]) -> None:
        """Let ``nudge`` wake the fetching thread when readers want something, from whatever thread."""
        self._nudge = nudge

    def wanted(self) -> list[Run]:
        """Return what readers have asked for since the last call."""
        with self._changed:
            wanted, self._wanted = self._wanted, []
            return wanted

    @property
    def horizon(self) -> int:
        """How many parts of the object, from its first on, there is room for now."""
        with self._changed:
            stop = self._free()
        return self.plan.count if stop >= self.plan.size else stop // self.plan.part_size

    def step(self, connections: int) -> int:
        """Return the most parts that one of so many ``connections`` should ask for at once.

        With half of the ring under way and the other half being read, nobody waits for the slowest for long.
        """
        return max(1, self.ring // self.plan.part_size // (2 * connections))

    def room(self, received: int, seconds: float) -> int:
        """Return how many bytes behind the first ``received`` there is room for, after ``seconds`` at most if none."""
        with self._changed:
            if not self.ring:
                return 2**63
            self._changed.wait_for(lambda: self.cancellation.wanted or self._free() > received, seconds)
            return max(0, self._free() - received)

    # What readers ask and tell.

    def until_begun(self) -> int | None:
        """Wait until it is known what comes; return its size in bytes, None if the server does not say.

        Raises:
            FastdlError: it cannot be had.
        """
        return self._wait(lambda: (self._size,) if self._begun or self._result else None)[0]

    def until_ended(self) -> LoadResult:
        """Wait until all was judged.

        Raises:
            FastdlError: it cannot be had, or is not what was promised.
        """
        return self._wait(lambda: self._result)

    def until_front(self, start: int) -> int:
        """Wait for the byte at ``start``; return up to where all bytes are there, ``start`` at the end of the object.

        The end is told only when the whole was judged.

        Raises:
            FastdlError: the rest cannot be had, or the whole is not what was promised.
        """
        return self._wait(lambda: self._front if self._front > start else start if self._result else None)

    def until_there(self, start: int, stop: int) -> bool:
        """Bring the bytes ``[start, stop)`` forward and wait for them; False if the object ended before.

        Raises:
            FastdlError: they cannot be had.
        """
        self.until_begun()

        def there() -> bool | None:
            if start >= stop or self._front >= stop or self._holds(start, stop):
                return True
            return None if self._result is None else False

        with self._changed:
            if self.plan.count and there() is None:
                self._wanted.append(self._run(start, stop))
        self._wake()
        return self._wait(there)

    def read(self, stop: int) -> None:
        """Tell that the bytes before ``stop`` are no longer needed."""
        with self._changed:
            before = self._free()
            self._read = stop
            part = self.plan.part_size
            moved = self._free() // part > before // part
            self._changed.notify_all()
        if moved:
            self._wake()

    def cancel(self) -> None:
        """Let the fetching thread end as soon as it can, and readers at once."""
        self.cancellation.cancel()
        with self._changed:
            self._changed.notify_all()
        self._wake()

    def _wait(self, ready: Callable[[], T | None]) -> T:
        with self._changed:
            while True:
                if self._error is not None:
                    raise self._error
                if (found := ready()) is not None:
                    return found
                if self.cancellation.wanted:
                    raise Cancelled("closed while bytes were waited for")
                self._changed.wait()

    def _wake(self) -> None:
        nudge = self._nudge
        if nudge is not None:
            with suppress(OSError):
                nudge()

    def _free(self) -> int:
        read = self._read if self._hashed is None else min(self._read, self._hashed)
        return read + self.ring

    def _run(self, start: int, stop: int) -> Run:
        return Run(start // self.plan.part_size, -(-stop // self.plan.part_size))

    def _holds(self, start: int, stop: int) -> bool:
        run = self._run(start, stop)
        return bool(self.plan.count) and all(self._there[index] for index in range(run.first, run.stop))
