"""Where schedules are played: a nursery, and a folder in memory."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tests.e2e.nursery import nursery
from tests.fault.schedules.play import Player
from tests.fault.schedules.rules import Broken
from tests.fault.schedules.shrink import shrink

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator

    from tests.e2e.nursery import Nursery
    from tests.fault.schedules.values import Schedule

_BACKOFF = 0.01  # seconds: how long is waited is the unit tests' matter
_MEMORY = Path("/dev/shm")
_TRIES = 4  # times that a schedule is played before it counts as harmless: threads and processes decide too


class Stage:
    """Plays schedules, one at a time; :func:`stage` makes and ends it."""

    def __init__(self, keeper: Nursery, folder: Path) -> None:
        self._nursery, self._folder = keeper, folder

    def play(self, schedule: Schedule, counts: Counter[str]) -> str:
        """Play it; return what did not hold, empty if all did."""
        rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        counts["schedules"] += 1
        try:
            Player(schedule, self._nursery, self._folder, counts).play()
        except Broken as error:
            return str(error)
        return ""

    def shrink(self, schedule: Schedule, complaint: str, counts: Counter[str]) -> Schedule:
        """Return a smaller one that ends in the same complaint."""

        def fails(candidate: Schedule) -> bool:
            return any(_same(self.play(candidate, counts), complaint) for _ in range(_TRIES))

        return shrink(schedule, fails)


@contextmanager
def stage() -> Iterator[Stage]:
    """Have a stage until the end of the block."""
    with TemporaryDirectory(prefix="fastdl-stage-", dir=_MEMORY if _MEMORY.is_dir() else None) as name:
        folder = Path(name)
        with nursery(folder / "nursery", backoff=_BACKOFF) as keeper:
            yield Stage(keeper, folder / "play")


def _same(one: str, other: str) -> bool:
    return bool(one) and one.split()[:2] == other.split()[:2]
