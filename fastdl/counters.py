"""Counts that all processes of a pool share: one word of each kind a slot, each written by one process only."""

from __future__ import annotations

import mmap
import time

KINDS = 3
BURST = 0.2  # seconds of an unused allowance that are kept under a limited rate
_PACE = 2  # words of the pace, before those of the slots
_LEAST_PACED, _PACED_WINDOWS = 1024, 20  # bytes of one window under a limit at least, and windows a second


class Counters:
    """The shared words of ``slots`` slots in a mapping.

    ``received``: bytes of body, ever. ``reported``: parts that the slot reported, ever, and ``marked``: how many of
    those reports the caller has dealt with. ``limit`` bounds what all slots receive together. Without a file, -1, the
    words are this process's own.
    """

    def __init__(self, fd: int, slots: int) -> None:
        self._map = mmap.mmap(fd, nbytes(slots))
        self._words = memoryview(self._map).cast("Q")
        self._pace = self._words[:_PACE]
        self.received, self.reported, self.marked = (
            self._words[_PACE + kind * slots : _PACE + (kind + 1) * slots] for kind in range(KINDS)
        )

    def forget(self, slots: range) -> None:
        """Take back what the slots of a dead worker reported and nobody will mark: it is lost."""
        for slot in slots:
            self.reported[slot] = self.marked[slot]

    def reset(self) -> None:
        """Count from zero again; no slot may be doing anything."""
        self._words[:] = memoryview(bytes(self._words.nbytes)).cast("Q")

    def limit(self, bytes_per_second: int, burst: float) -> None:
        """Allow all slots together so many bytes a second from now on; call it again and again.

        What was not used of the allowance is kept for ``burst`` seconds, so that a line that stood still is not
        followed by a flood. Only the caller's process may call this.
        """
        now = time.monotonic_ns()
        used = sum(self.received) * 10**9 // bytes_per_second
        self._pace[0] = bytes_per_second
        self._pace[1] = max(self._pace[1], now - used - int(burst * 1e9))

    def excess(self) -> float:
        """Return for how many seconds nothing may be received, because it came too fast so far; 0 without a limit."""
        rate, origin = self._pace
        if not rate:
            return 0.0
        return max(0.0, sum(self.received) / rate - (time.monotonic_ns() - origin) / 1e9)

    @property
    def limited(self) -> int:
        """Bytes per second allowed, 0 if there is no limit."""
        return self._pace[0]

    def paced(self, nbytes: int) -> int:
        """Return how many of ``nbytes`` one window should be under the limit, so that turns are short."""
        return min(nbytes, max(_LEAST_PACED, self.limited // _PACED_WINDOWS))

    def close(self) -> None:
        """Unmap the words."""
        for view in (self.received, self.reported, self.marked, self._pace, self._words):
            view.release()
        self._map.close()


def nbytes(slots: int) -> int:
    """Return how long the file behind the words must be: whole pages."""
    return -(-(_PACE + KINDS * slots) * 8 // mmap.PAGESIZE) * mmap.PAGESIZE
