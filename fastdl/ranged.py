"""Objects whose server knows ranges: the caller's event loop between schedule, crew and checkpoint."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from fastdl.crew import OUTPUT, Crew
from fastdl.errors import DiskError, FastdlError, NetworkError, ServerBusy
from fastdl.limit import Limit
from fastdl.messages import Fetch, Nudge, Rehash, Report, Trimmed
from fastdl.plan import Run
from fastdl.pool import Died
from fastdl.renewal import Renewal
from fastdl.schedule import Schedule
from fastdl.steering import TICK, Steering

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from fastdl.arrivals import Arrivals
    from fastdl.checkpoint import Checkpoint
    from fastdl.digest import Digest
    from fastdl.http import Transport
    from fastdl.leases import Lease
    from fastdl.memory import Memory
    from fastdl.messages import Line
    from fastdl.output import Output
    from fastdl.plan import Plan
    from fastdl.probe import Probe
    from fastdl.result import Fetched
    from fastdl.retry import Backoff
    from fastdl.sources import Source
    from fastdl.there import FileThere
    from fastdl.validator import ObjectInfo
    from fastdl.votes import Answers

_RATE_EACH = 64 * 1024  # bytes per second under a limited rate that are worth one more connection
log = logging.getLogger("fastdl")


class RangedDownload:
    """One object on its way; ``fetched`` is kept up to date for whoever shows progress.

    Parts missing in ``checkpoint`` are fetched and marked there, marked ones are hashed. With ``answers`` the parts it
    names are fetched instead, and it hears of them. ``final`` hears of the runs that nobody will change any more;
    ``readers`` say what they want next.
    """

    def __init__(
        self,
        source: Source,
        info: ObjectInfo,
        plan: Plan,
        output: Output | FileThere | Memory,
        checkpoint: Checkpoint,
        line: Line,
        transport: Transport,
        *,
        workers: int,
        connections: int,
        limit_rate: int | None,
        trust: bool,
        backoff: Backoff,
        rng: random.Random,
        fetched: Fetched,
        tell: Callable[[int, int], None],
        final: Callable[[Run], None],
        answers: Answers | None = None,
        readers: Arrivals | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._info = info
        self._plan = plan
        self._output = output
        self._checkpoint = checkpoint
        self._stall = line.read_timeout
        self._crew = Crew(line, workers, connections, output.fd, transport)
        self._fetched = fetched
        self._fetched_before = fetched.bytes_fetched
        self._tell = tell
        self._clock = clock
        self._next_look = self._next_tick = clock()
        self._kept = 0  # bytes of an earlier run that are in use
        self._final = final
        self._mark = checkpoint.mark if answers is None else answers.mark
        self._store = answers is None or answers.store
        marked, missing = checkpoint.marks.runs() if answers is None else ([], answers.runs)
        if trust:
            fetched.parts_reused = sum(map(len, marked))
            self._kept = sum(map(plan.nbytes, marked))
            for run in marked:
                final(run)
            marked = []
        if limit_rate is not None:  # waiting for its turn no connection may look as if it stood still
            connections = max(1, min(connections, limit_rate // _RATE_EACH))
        self._limit = Limit(connections, clock(), least=workers)
        self._readers = readers
        self._schedule = Schedule(plan, missing, marked, self._limit, backoff, rng, readers, newest=self._crew.newest)
        self._steering = Steering(self._crew, self._schedule, self._limit, line, limit_rate)
        self._slots: dict[int, int] = {}  # of orders
        self._renewal = Renewal(source)

    def run(self, found: Probe | None = None) -> None:
        """Fetch every missing part, judge every marked one; the body of ``found`` is used as far as it is parts.

        Raises:
            FastdlError: the download cannot be finished now; what the checkpoint marks stays resumable.
        """
        with self._crew:
            try:
                if found is not None:
                    self._adopt(found)
                if self._schedule.waiting:
                    self._crew.start()
                if self._readers is not None:
                    self._readers.heed(self._crew.nudge)
                self._feed()
                while not self._schedule.finished:
                    for event in self._crew.wait(self._steering.patience):
                        self._take(event)
                    self._feed()
                    self._look()
            finally:
                self._count()
        self._steering.conclude(self._fetched)

    def _adopt(self, found: Probe) -> None:
        """Let a connection of our own read the first answer: no worker is up yet, and a small object needs none."""
        first, rest = divmod(found.start, self._plan.part_size)
        run = Run(first, max(first + 1, -(-found.stop // self._plan.part_size)))
        whole = not rest and self._plan.bounds(run) == (found.start, found.stop)
        number = self._schedule.adopt(run, self._clock()) if whole else None
        if number is None:
            found.close()  # asked for before the part size was known, or only to hear whether the object is the same
        elif (slot := self._crew.idle_slot()) is not None:
            self._crew.give(self._order(slot, number, run), found.response)

    def _feed(self) -> None:
        now = self._clock()
        if self._readers is not None:
            for run in self._readers.wanted():
                self._steering.forward(run)
        while self._crew.idle and (fetch := self._schedule.take(now, self._steering.worth)):
            self._give(*fetch)
        self._steering.share(now)
        while (slot := self._crew.idle_slot(rehash=True)) is not None:
            check = self._schedule.take_rehash(now)
            if check is None:
                self._crew.release(slot)
                break
            self._slots[check[0]] = slot
            self._crew.give(Rehash(slot, check[0], OUTPUT, self._plan, check[1]))

    def _give(self, number: int, run: Run) -> None:
        slot = self._crew.idle_slot()
        assert slot is not None  # noqa: S101 - asked for above
        self._crew.give(self._order(slot, number, run))

    def _order(self, slot: int, number: int, run: Run) -> Fetch:
        self._slots[number] = slot
        self._steering.begin(slot, number, self._clock())
        request = self._source.request(self._info)
        validator, ring = self._info.validator, self._output.ring
        return Fetch(slot, number, OUTPUT, self._plan, run, request, validator, self._store, ring)

    def _take(self, event: Report | Trimmed | Died | Nudge) -> None:
        if isinstance(event, Nudge):  # what is wanted is looked at each time round
            return
        if isinstance(event, Died):
            self._bury(event)
        elif isinstance(event, Trimmed):
            self._schedule.trim(event.number, event.stop)
        else:
            lease = self._schedule.leases.get(event.number)
            if lease is not None:
                self._record(event, lease)
            if event.slot not in self._crew.hash_slots:
                self._crew.counters.marked[event.slot] += len(event.digests)

    def _record(self, event: Report, lease: Lease) -> None:
        self._fetched.requests += event.requests
        self._fetched.retries += event.retries
        if event.digests:
            if event.first != lease.done:
                raise FastdlError(f"a worker reported part {event.first}, due was {lease.done}")
            for index, digest in enumerate(event.digests, event.first):
                if lease.rehash:
                    self._judge(index, digest)
                else:
                    self._mark(index, digest)
                    self._final(Run(index, index + 1))
                    self._renewal.accepted(event.number)
            self._schedule.complete(event.number, len(event.digests))
        if event.finished:
            self._end(event.number, event.error, lease)

    def _judge(self, index: int, digest: Digest) -> None:
        """Compare what is on the disk with what was recorded."""
        if self._checkpoint.judge(index, digest):
            self._fetched.parts_reused += 1
            self._kept += self._plan.part(index).nbytes
            self._final(Run(index, index + 1))
        else:
            log.debug("part %d: its bytes or its record changed on the disk; it is fetched again", index)
            self._fetched.parts_damaged.append(index)
            self._schedule.miss(index)

    def _end(self, number: int, error: FastdlError | None, lease: Lease) -> None:
        self._release(number)
        rest = self._schedule.leases.end(number)
        if rest is None:
            return
        if error is None and lease.trimming:  # it left its tail, and the word of that is still on its way
            self._schedule.again(rest)
            return
        error = error or FastdlError(f"a worker ended part {rest.first} without a word")
        error, again = self._renewal.judge(number, error, max([number, *self._slots]))
        log.debug("part %d: %s", rest.first, error)
        if isinstance(error, ServerBusy):
            self._steering.refused(self._clock())
        if again:
            self._schedule.again(rest, rehash=lease.rehash)
        else:
            self._schedule.fail(rest, error, self._clock(), lease.taken)
        self._fetched.retries += 1

    def _bury(self, died: Died) -> None:
        log.debug("a worker died (%d): %s", died.code, died.last_words)
        if died.by_bus_error:
            self._output.check()
            raise DiskError(f"{self._output.part_path}: the disk fails: a page of it cannot be read")
        stalled = self._steering.stalled
        ours = any(order.number in stalled for order in died.orders)
        for order in died.orders:
            lease = self._schedule.leases.get(order.number)
            self._release(order.number)
            rest = self._schedule.leases.end(order.number)
            if rest is None or lease is None:
                continue
            self._fetched.retries += 1
            if order.number in stalled:
                error = NetworkError(f"{self._source.shown}: no progress within {self._stall} seconds")
                self._schedule.fail(rest, error, self._clock(), self._clock())
            elif ours:  # we killed the worker for the sake of another order
                self._schedule.again(rest, rehash=lease.rehash)
            else:
                self._schedule.lose(rest, rehash=lease.rehash)

    def _release(self, number: int) -> None:
        slot = self._slots.pop(number)
        self._crew.release(slot)
        if slot not in self._crew.hash_slots:
            self._steering.end(number)

    def _look(self) -> None:
        now = self._clock()
        if now < self._next_look:
            return
        self._steering.look(now)
        self._next_look = now + self._steering.patience
        if now < self._next_tick:
            return
        self._next_tick = now + TICK
        self._count()
        self._output.check()
        self._steering.tick(now)
        self._tell(min(self._kept + self._fetched.bytes_fetched, self._plan.size), self._steering.connections)

    def _count(self) -> None:
        self._fetched.bytes_fetched = self._fetched_before + self._crew.received
