"""Many schedules in processes beside each other: most of what one takes is waiting."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.fault.schedules.generate import make
from tests.fault.schedules.stage import stage

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fault.schedules.values import Schedule

_CHUNK = 100  # schedules that one process plays, at most, before it tells of them


@dataclass(frozen=True, slots=True)
class Failure:
    """A schedule under which something did not hold, and a smaller one if that was looked for."""

    seed: int
    complaint: str
    schedule: Schedule
    shrunk: Schedule | None = None


@dataclass(slots=True)
class Outcome:
    """What came of many schedules."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    seeds: int = 0

    def add(self, other: Outcome) -> None:
        """Take in what another process found."""
        self.counts.update(other.counts)
        self.failures += other.failures
        self.seeds += other.seeds

    @property
    def summary(self) -> str:
        """Everything in one line."""
        groups = {
            "kills": [count for name, count in self.counts.items() if name.startswith("blow kill")],
            "signals": [self.counts[f"blow {name}"] for name in ("int", "int2", "term", "term2", "hup")],
            "faults": [count for name, count in self.counts.items() if name.startswith("fault ")],
            "damage": [count for name, count in self.counts.items() if name.startswith("damage ")],
        }
        told = {"runs": self.counts["runs"], **{name: sum(found) for name, found in groups.items()}}
        text = ", ".join(f"{count:,} {name}" for name, count in told.items())
        return f"{self.seeds:,} schedules: {text}; {self.counts['excused runs']:,} excused; {len(self.failures)} failed"


def campaign(
    seeds: range, jobs: int, *, small: bool, seconds: float | None = None, tell: Callable[[Outcome], None] | None = None
) -> Outcome:
    """Play ``seeds`` in ``jobs`` processes, for ``seconds`` at most; ``small``: failing schedules are shrunk.

    ``tell`` hears of each bit that is done.
    """
    total, size = Outcome(), max(1, min(_CHUNK, len(seeds) // jobs))
    chunks = (seeds[at : at + size] for at in range(0, len(seeds), size))
    deadline = None if seconds is None else time.monotonic() + seconds
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        under_way: set[Future[Outcome]] = set()
        while True:
            while len(under_way) < jobs and (deadline is None or time.monotonic() < deadline):
                chunk = next(chunks, None)
                if chunk is None:
                    break
                under_way.add(pool.submit(play, chunk, small=small))
            if not under_way:
                return total
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            for each in done:
                total.add(each.result())
                if tell is not None:
                    tell(each.result())


def play(seeds: range, *, small: bool) -> Outcome:
    """Play the schedules of ``seeds`` one after the other."""
    outcome = Outcome()
    with stage() as place:
        for seed in seeds:
            schedule = make(seed)
            complaint = place.play(schedule, outcome.counts)
            outcome.seeds += 1
            if complaint:
                shrunk = place.shrink(schedule, complaint, Counter()) if small else None
                outcome.failures.append(Failure(seed, complaint, schedule, shrunk))
    return outcome
