"""Counts that all processes of a pool share: one word of each kind a slot, each written by one process only."""

from __future__ import annotations

import mmap

KINDS = 4


class Counters:
    """The shared words of ``slots`` slots in a mapping.

    ``received``: bytes of body, ever. ``partial``: bytes of the part under way. ``reported``: parts that the slot
    reported, ever, and ``marked``: how many of those reports the caller has dealt with.
    """

    def __init__(self, fd: int, slots: int) -> None:
        self._map = mmap.mmap(fd, nbytes(slots))
        self._words = memoryview(self._map).cast("Q")
        self.received, self.partial, self.reported, self.marked = (
            self._words[kind * slots : (kind + 1) * slots] for kind in range(KINDS)
        )

    def unmarked(self) -> int:
        """Return how many parts of all slots are reported and not marked yet."""
        return sum(self.reported) - sum(self.marked)

    def at_stake(self, part_size: int) -> int:
        """Return how many bytes would have to be fetched again if everything were killed now."""
        return self.unmarked() * part_size + sum(self.partial)

    def forget(self, slots: range) -> None:
        """Take back what the slots of a dead worker left at stake: it is lost."""
        for slot in slots:
            self.partial[slot] = 0
            self.reported[slot] = self.marked[slot]

    def close(self) -> None:
        """Unmap the words."""
        for view in (self.received, self.partial, self.reported, self.marked, self._words):
            view.release()
        self._map.close()


def nbytes(slots: int) -> int:
    """Return how long the file behind the words must be: whole pages."""
    return -(-KINDS * 8 * slots // mmap.PAGESIZE) * mmap.PAGESIZE
