"""What this machine is short of, as the kernel tells: processors, or a disk that takes no more."""

from __future__ import annotations

import os
from pathlib import Path

_BUSY = 0.8  # of the processors at our disposal
_IDLE = (3, 4)  # columns of /proc/stat: idle, and idle with input or output outstanding
_OURS = 0.1  # of a processor, for each at our disposal up to as many as usually work: less waits for none
_USUAL = 4
_OFTEN = 0.05  # seconds between two looks: the kernel counts in hundredths of a second


class Machine:
    """Looks at the processors that this process may use; on systems without /proc nothing is ever short."""

    def __init__(self) -> None:
        self._names: frozenset[str] = frozenset()
        if hasattr(os, "sched_getaffinity"):
            self._names = frozenset(f"cpu{number}" for number in os.sched_getaffinity(0))
        self._began = os.times()
        self._looked: float | None = None
        self._before = 0, 0
        self._looks = self._busy_looks = self._disk_looks = 0
        self.busy = False

    def look(self, now: float) -> None:
        """Set ``busy`` to whether nearly all processor time since the last look was used, by whomever."""
        if self._looked is not None and now - self._looked < _OFTEN:
            return
        self._looked = now
        idle, total = self._times()
        if total > self._before[1] > 0:
            self.busy = (idle - self._before[0]) / (total - self._before[1]) < 1 - _BUSY
            self._looks += 1
            self._busy_looks += self.busy
            self._disk_looks += _disk_is_late()
        self._before = idle, total

    @property
    def short_of(self) -> str:
        """What was short most of the time: disk, processors, or nothing."""
        if 2 * self._disk_looks > self._looks:
            return "disk"
        return "processors" if 2 * self._busy_looks > self._looks else ""

    @property
    def ours(self) -> bool:
        """Whether this process and its children that ended used enough for busy processors to have held them up.

        On a machine that is busy with other things a download that waits for the network gets what little it needs.
        """
        now = os.times()
        used = sum(now[:4]) - sum(self._began[:4])
        return used >= _OURS * min(_USUAL, max(1, len(self._names))) * (now.elapsed - self._began.elapsed)

    def _times(self) -> tuple[int, int]:
        idle = total = 0
        for name, *columns in _table("/proc/stat"):
            if name in self._names:
                times = [int(column) for column in columns[:8]]
                idle += sum(times[column] for column in _IDLE)
                total += sum(times)
        return idle, total


def _disk_is_late() -> bool:
    """Tell whether so much waits to be written that the kernel slows writers down.

    It does so half-way between the two thresholds. Source: Linux, mm/page-writeback.c, dirty_freerun_ceiling.
    """
    values = {row[0]: int(row[1]) for row in _table("/proc/vmstat") if row[0].startswith("nr_dirty")}
    start, most = values.get("nr_dirty_background_threshold", 0), values.get("nr_dirty_threshold", 0)
    return 0 < (start + most) / 2 <= values.get("nr_dirty", 0)


def _table(path: str) -> list[list[str]]:
    try:
        lines = Path(path).read_text("ascii", "replace").splitlines()
    except OSError:
        return []
    return [line.split() for line in lines if line]
