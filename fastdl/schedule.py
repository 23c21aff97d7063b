"""Which run of parts next, and what a failure means for it: a state machine without input or output."""

from __future__ import annotations

import heapq
from collections import deque
from typing import TYPE_CHECKING

from fastdl.errors import FastdlError, ServerBusy
from fastdl.leases import Leases
from fastdl.missing import Missing
from fastdl.plan import Plan, Run, span_length
from fastdl.retry import Backoff, is_transient, wished_delay

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable

    from fastdl.arrivals import Arrivals
    from fastdl.limit import Limit

DEATHS = 3  # workers that one and the same run may take with it
_REHASH_SPAN = 64 * 1024 * 1024  # bytes of one hashing order: 4 ms at memory speed, a second on a slow disk


class Schedule:
    """The parts of one object between missing and done; who has which is in ``leases``.

    Their numbers begin above ``newest``. With ``readers`` no part is begun for which there is no room yet, and they
    are fetched in their order.
    """

    def __init__(
        self,
        plan: Plan,
        missing: Iterable[Run],
        marked: Iterable[Run],
        limit: Limit,
        backoff: Backoff,
        rng: random.Random,
        readers: Arrivals | None = None,
        *,
        newest: int = 0,
    ) -> None:
        self._plan = plan
        self._missing = Missing(missing)
        self._readers = readers
        self._doubtful = deque(marked)
        self._backoff = backoff
        self._rng = rng
        self._limit = limit
        self._delayed: list[tuple[float, int, Run]] = []
        self._paused_until = 0.0
        self._busy_answers = 0
        self._refused_at = 0.0
        self._failures: dict[int, int] = {}
        self._deaths: dict[int, int] = {}
        self._left_for: dict[int, Run] = {}  # what is wanted of the tails that leases were asked for, by their numbers
        self.leases = Leases(plan, newest)

    @property
    def finished(self) -> bool:
        """Whether nothing is missing, doubtful or under way."""
        return not (self.waiting or self.leases)

    @property
    def waiting(self) -> bool:
        """Whether anything waits for a slot."""
        return bool(self._missing or self._doubtful or self._delayed)

    @property
    def at_end(self) -> bool:
        """Whether every missing part is being fetched by somebody."""
        return not (self._missing or self._delayed)

    def take(self, now: float, least: int = 1) -> tuple[int, Run] | None:
        """Lease the next run to fetch; None while there is none, or while the server wants to be left alone.

        ``least`` is how many bytes are worth a request.
        """
        while self._delayed and self._delayed[0][0] <= now:
            self._missing.put_back(heapq.heappop(self._delayed)[2])
        windowed = self._readers is not None and self._readers.ring > 0
        run = self._missing.next(ordered=windowed)
        if run is None or not self.room(now):
            return None
        shares = self._limit.shares(self.leases.fetching)
        count = span_length(self._plan, self._missing.parts, shares, least)
        if windowed and self._readers is not None:
            count = min(count, self._readers.step(self._limit.allowed), self._readers.horizon - run.first)
            if count <= 0:
                return None
        run = self._missing.take(run, min(count, len(run)))
        return self.leases.begin(run, now, rehash=False), run

    def room(self, now: float) -> int:
        """Return how many more requests may go out."""
        return max(0, self._limit.allowed - self.leases.fetching) if now >= self._paused_until else 0

    def take_rehash(self, now: float) -> tuple[int, Run] | None:
        """Lease the next run of marked parts to be hashed on the disk."""
        if not self._doubtful:
            return None
        run = self._doubtful.popleft()
        count = max(1, _REHASH_SPAN // self._plan.part_size)
        if count < len(run):
            self._doubtful.appendleft(Run(run.first + count, run.stop))
            run = Run(run.first, run.first + count)
        return self.leases.begin(run, now, rehash=True), run

    def adopt(self, run: Run, now: float) -> int | None:
        """Lease ``run`` to somebody who has it under way already; None unless all of it is missing."""
        return self.leases.begin(run, now, rehash=False) if self._missing.adopt(run) else None

    def forward(self, wanted: Run) -> list[tuple[int, int]]:
        """Let the parts of ``wanted`` come next; return the leases to be asked for their tails, and whence on.

        Those are the ones that would reach wanted parts only after others. If nobody would be free soon, one of them
        leaves all behind the part it is at, and if there are none the one that has most left of what nobody waits for.
        """
        late = self.leases.late(wanted)
        missing = self._missing.forward(wanted)
        if self.leases.fetching < self._limit.allowed or not (late or missing):
            return late
        if late:
            number = late[0][0]
            self._left_for[number] = wanted  # else what it leaves besides would come before that
            return [(number, self.leases.next_stop(number)), *late[1:]]
        spare = self.leases.spare(wanted)
        return [] if spare is None else [spare]

    def complete(self, number: int, count: int) -> None:
        """Note that the next ``count`` parts of a lease are complete."""
        lease = self.leases.complete(number, count)
        if lease.rehash:
            return
        self._busy_answers = 0
        self._failures.pop(lease.done - count, None)

    def miss(self, index: int) -> None:
        """Note that a part thought complete must be fetched again."""
        self._missing.add(index)

    def superfluous(self, rank: Callable[[int], int]) -> list[tuple[int, int]]:
        """Return the leases to be asked for their tails, and whence on, so that no more than allowed go on."""
        return self.leases.superfluous(self._limit.allowed, rank)

    def trim(self, number: int, stop: int) -> None:
        """Note that a lease ends before part ``stop`` now; what is behind it is missing again."""
        tail = self.leases.trim(number, stop)
        if tail is not None:
            self._missing.put_back(tail)
        if (wanted := self._left_for.pop(number, None)) is not None:
            self._missing.forward(wanted)

    def again(self, rest: Run, *, rehash: bool = False) -> None:
        """Put back at once what a lease left undone."""
        if rehash:
            self._doubtful.appendleft(rest)
        else:
            self._missing.put_back(rest)

    def fail(self, rest: Run, error: FastdlError, now: float, taken: float) -> None:
        """Put back what a lease ``taken`` then and failed ``now`` left undone, to be tried after a wait.

        A busy server is everybody's matter: fewer ask, and if it serves nobody or says how long it wants to be left
        alone, all pause. Any other failure is counted against the first undone part until it is complete.

        Raises:
            FastdlError: ``error`` itself, if it is not transient or has happened too often.
        """
        if not is_transient(error):
            raise error
        if isinstance(error, ServerBusy):
            # Refusals of requests that were under way when the last one was counted are the same refusal.
            if taken >= self._refused_at:
                self._busy_answers += not self.leases.fetching
                self._refused_at = now
            failures, allowed = max(1, self._busy_answers), self._limit.allowed
            self._limit.refused(now, self.leases.fetching)
            if self._limit.allowed < allowed and wished_delay(error) is None:
                self._missing.put_back(rest)  # there is one connection less to ask for it
                return
        else:
            failures = self._failures[rest.first] = self._failures.get(rest.first, 0) + 1
        if failures >= self._backoff.attempts:
            raise error
        delay = self._backoff.delay(failures, self._rng)
        if isinstance(error, ServerBusy):
            wish = wished_delay(error)
            if wish is not None or not self.leases.fetching:
                self._paused_until = max(self._paused_until, now + (wish if wish is not None else delay))
        heapq.heappush(self._delayed, (now + delay, rest.first, rest))

    def lose(self, rest: Run, *, rehash: bool) -> None:
        """Put back what a worker that died left undone.

        Raises:
            FastdlError: this run has killed too many workers to be an accident.
        """
        deaths = self._deaths[rest.first] = self._deaths.get(rest.first, 0) + 1
        if deaths >= DEATHS:
            raise FastdlError(f"{deaths} workers in a row died at part {rest.first}; is memory short?")
        self.again(rest, rehash=rehash)
