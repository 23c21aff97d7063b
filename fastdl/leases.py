"""Who has which run of parts, and which of them are to leave their tails to others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastdl.plan import LEAST_SPAN, Plan, Run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(slots=True)
class Lease:
    """A run given to a slot; parts before ``done`` are complete."""

    run: Run
    done: int
    rehash: bool
    taken: float  # when, by the caller's clock
    trimming: bool = False  # asked to leave its tail to somebody else, without an answer yet
    trimmable: bool = True  # until it had none to leave

    @property
    def left(self) -> int:
        """How many of its parts are not complete."""
        return self.run.stop - self.done

    @property
    def may_trim(self) -> bool:
        """Whether it can be asked to leave its tail."""
        return self.trimmable and not self.trimming and not self.rehash


class Leases:
    """Those under way, by the numbers of their orders, the first of which is ``newest`` + 1.

    ``fetching`` of them fetch, the others hash; ``trimming`` were asked to leave their tails and did not answer yet.
    """

    def __init__(self, plan: Plan, newest: int) -> None:
        self._plan = plan
        self._leases: dict[int, Lease] = {}
        self._number = newest
        self.fetching = 0
        self.trimming = 0

    def __bool__(self) -> bool:
        return bool(self._leases)

    def get(self, number: int) -> Lease | None:
        """Return a lease, None once it ended."""
        return self._leases.get(number)

    def begin(self, run: Run, now: float, *, rehash: bool) -> int:
        """Lease ``run``; return the number."""
        self._number += 1
        self.fetching += not rehash
        self._leases[self._number] = Lease(run, run.first, rehash, now)
        return self._number

    def complete(self, number: int, count: int) -> Lease:
        """Note that the next ``count`` parts of a lease are complete; return it."""
        lease = self._leases[number]
        lease.done += count
        return lease

    def end(self, number: int) -> Run | None:
        """End a lease; return what it left undone."""
        lease = self._leases.pop(number)
        self.fetching -= not lease.rehash
        self.trimming -= lease.trimming
        return Run(lease.done, lease.run.stop) if lease.left else None

    def ask_trim(self, number: int) -> None:
        """Note that a lease was asked to leave its tail."""
        self._leases[number].trimming = True
        self.trimming += 1

    def trim(self, number: int, stop: int) -> Run | None:
        """Note that a lease ends before part ``stop`` now; return what is behind it, if anything is."""
        lease = self._leases.get(number)
        if lease is None:  # ended meanwhile, with its tail undone
            return None
        self.trimming -= 1
        lease.trimming = False
        lease.trimmable = stop < lease.run.stop
        if not lease.trimmable:
            return None
        tail = Run(stop, lease.run.stop)
        lease.run = Run(lease.run.first, stop)
        return tail

    def longest(self, rates: Mapping[int, float]) -> tuple[int, int, float] | None:
        """Return the lease whose run will take the longest, whence on somebody else could take it over, and how long.

        ``rates`` are the bytes per second of the orders that may be asked. The tail offered is half of what is left;
        None if no lease has one to offer.
        """
        best: tuple[float, int, int] | None = None
        for number, lease in self._leases.items():
            tail = lease.left // 2
            if number not in rates or not lease.may_trim or tail * self._plan.part_size < LEAST_SPAN:
                continue
            seconds = self._plan.nbytes(Run(lease.done, lease.run.stop)) / max(1.0, rates[number])
            best = max(best or (0.0, 0, 0), (seconds, number, lease.run.stop - tail))
        return None if best is None else (best[1], best[2], best[0])

    def superfluous(self, allowed: int, rank: Callable[[int], int]) -> list[tuple[int, int]]:
        """Return the leases to be asked for their tails, and whence on, so that no more than ``allowed`` go on.

        Those of the highest ``rank`` go first; whoever is at the last part of its run ends by itself.
        """
        if self.fetching <= allowed:
            return []
        going_on = [number for number, lease in self._leases.items() if lease.may_trim and lease.left > 1]
        going_on.sort(key=rank)
        return [(number, self._leases[number].done + 1) for number in going_on[allowed:]]

    def next_stop(self, number: int) -> int:
        """Return where the part ends that a lease is at."""
        return self._leases[number].done + 1

    def late(self, wanted: Run) -> list[tuple[int, int]]:
        """Return the leases that would reach parts of ``wanted`` only after others, and where those begin."""
        return [
            (number, wanted.first)
            for number, lease in self._leases.items()
            if lease.may_trim and lease.done + 1 < wanted.first < lease.run.stop
        ]

    def spare(self, wanted: Run) -> tuple[int, int] | None:
        """Return the lease with most left that is not at parts of ``wanted``, and the end of the part it is at."""
        left = {
            number: lease.left
            for number, lease in self._leases.items()
            if lease.may_trim and lease.left > 1 and not wanted.first <= lease.done < wanted.stop
        }
        longest = max(left, key=left.__getitem__, default=None)
        return None if longest is None else (longest, self.next_stop(longest))
