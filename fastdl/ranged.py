"""Objects whose server knows ranges: the caller's event loop between schedule, pool and checkpoint."""

from __future__ import annotations

import logging
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Pipe
from typing import TYPE_CHECKING

from fastdl.digest import Digest, crc64_of_parts
from fastdl.errors import AccessDenied, DiskError, FastdlError, NetworkError, Refused
from fastdl.fetch import WINDOW
from fastdl.messages import Fetch, Rehash, Report
from fastdl.plan import Run
from fastdl.pool import CALLER_SLOT, Died, Pool
from fastdl.schedule import Lease, Schedule
from fastdl.slot import Slot
from fastdl.writers import FileWriter

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from fastdl.checkpoint import Checkpoint
    from fastdl.http import Transport
    from fastdl.messages import Line
    from fastdl.output import Output
    from fastdl.plan import Plan
    from fastdl.probe import Probe
    from fastdl.result import Fetched
    from fastdl.retry import Backoff
    from fastdl.sources import Source
    from fastdl.validator import ObjectInfo

TICK = 0.1  # seconds between looks at counters, clocks and the file
STOP_PATIENCE = 1.0  # seconds the caller's own connection gets to end: Ctrl-C must not take two
ABORT_PATIENCE = 5.0  # seconds a stalled connection gets to report after it was broken, before its worker is killed
_OUTPUT = 0  # this pool serves one output
log = logging.getLogger("fastdl")


@dataclass(slots=True)
class _Watch:
    """An order under way, and when its bytes last moved."""

    slot: int
    counted: int
    moved: float
    aborted: float | None = None


class RangedDownload:
    """One object on its way through the pool; ``fetched`` is kept up to date for whoever shows progress."""

    def __init__(
        self,
        source: Source,
        info: ObjectInfo,
        plan: Plan,
        output: Output,
        checkpoint: Checkpoint,
        line: Line,
        *,
        workers: int,
        connections: int,
        trust: bool,
        backoff: Backoff,
        rng: random.Random,
        fetched: Fetched,
        tell: Callable[[int, int], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._info = info
        self._plan = plan
        self._output = output
        self._checkpoint = checkpoint
        self._stall = line.read_timeout
        self._abort_patience = ABORT_PATIENCE + line.connect_timeout  # what is not connected yet cannot be broken
        self._pool = Pool(line, workers, connections)
        self._fetched = fetched
        self._tell = tell
        self._clock = clock
        self._next_tick = clock()
        self._kept = 0  # bytes of an earlier run that are in use
        marked, missing = checkpoint.runs()
        if trust:
            fetched.parts_reused = sum(map(len, marked))
            self._kept = sum(map(plan.nbytes, marked))
            marked = []
        self._schedule = Schedule(plan, missing, marked, connections, backoff, rng)
        self._idle: list[int] = []
        self._idle_hash = list(self._pool.hash_slots)
        self._watches: dict[int, _Watch] = {}
        self._renewed_after = 0  # orders up to this number carry credentials that were replaced since
        self._up = False  # whether any worker ever came up
        self._proven = True  # the newest credentials, or the first ones, were accepted
        self._caller: Slot | None = None
        self._reports, self._reports_in = Pipe(duplex=False)
        self._caller_fd = -1

    def run(self, found: Probe, transport: Transport) -> None:
        """Fetch every missing part, judge every marked one; the body of ``found`` is used as far as it is parts.

        Raises:
            FastdlError: the download cannot be finished now; what the checkpoint marks stays resumable.
        """
        with self._pool, self._reports, self._reports_in:
            try:
                self._adopt(found, transport)
                if self._schedule.waiting:
                    self._pool.start()
                    self._pool.attach(_OUTPUT, self._output.fd, self._plan.size, mapped=self._output.mapped)
                    self._idle.extend(self._pool.fetch_slots)
                while not self._schedule.finished:
                    self._feed()
                    for event in self._pool.wait(TICK, self._reports):
                        self._take(event)
                    self._up = self._up or self._pool.ready
                    self._tick()
            finally:
                self._stop_caller()
                self._count()
        last = self._plan.part(self._plan.count - 1).nbytes
        self._fetched.crc64 = crc64_of_parts(self._checkpoint.crcs(), self._plan.part_size, last)

    def _adopt(self, found: Probe, transport: Transport) -> None:
        """Let a thread of this process read the first answer: no worker is up yet, and a small object needs none."""
        self._caller_fd = os.dup(self._output.fd)
        writer = FileWriter(self._caller_fd, WINDOW)
        self._caller = Slot(
            CALLER_SLOT, self._pool.counters, len(self._pool.fetch_slots), self._send, transport, lambda _: writer
        )
        first, rest = divmod(found.start, self._plan.part_size)
        run = Run(first, max(first + 1, -(-found.stop // self._plan.part_size)))
        whole = not rest and self._plan.bounds(run) == (found.start, found.stop)
        number = self._schedule.adopt(run, self._clock()) if whole else None
        if number is None:
            found.close()  # asked for before the part size was known, or only to hear whether the object is the same
            self._idle.append(CALLER_SLOT)
        else:
            self._caller.give(self._order(CALLER_SLOT, number, run), found.response)

    def _send(self, report: Report) -> None:
        with suppress(OSError):  # the download ended without this thread
            self._reports_in.send(report)

    def _stop_caller(self) -> None:
        # A thread that does not end in time keeps its descriptor: closed, the number could soon mean another file.
        if self._caller is not None and self._caller.stop(STOP_PATIENCE):
            os.close(self._caller_fd)
        self._caller = None

    def _feed(self) -> None:
        now = self._clock()
        while self._idle and (fetch := self._schedule.take(now)):
            order = self._order(self._idle.pop(0), *fetch)
            if order.slot != CALLER_SLOT:
                self._pool.give(order)
            elif self._caller is not None:
                self._caller.give(order)
        while self._idle_hash and (check := self._schedule.take_rehash(now)):
            number, run = check
            slot = self._idle_hash.pop(0)
            self._watches[number] = _Watch(slot, 0, now)
            self._pool.give(Rehash(slot, number, _OUTPUT, self._plan, run))

    def _order(self, slot: int, number: int, run: Run) -> Fetch:
        self._watches[number] = _Watch(slot, self._pool.counters.received[slot], self._clock())
        request = self._source.request(self._info)
        return Fetch(slot, number, _OUTPUT, self._plan, run, request, self._info.validator)

    def _take(self, event: Report | Died) -> None:
        if isinstance(event, Died):
            self._bury(event)
            return
        lease = self._schedule.lease(event.number)
        if lease is not None:
            self._record(event, lease)
        if event.slot not in self._pool.hash_slots:
            self._pool.counters.marked[event.slot] += len(event.digests)

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
                    self._checkpoint.mark(index, digest)
                    self._proven |= event.number > self._renewed_after
            self._schedule.complete(event.number, len(event.digests))
        if event.finished:
            self._end(event.number, event.error, lease.taken)

    def _judge(self, index: int, digest: Digest) -> None:
        """Compare what is on the disk with what was recorded."""
        if digest == self._checkpoint.digest(index):
            self._fetched.parts_reused += 1
            self._kept += self._plan.part(index).nbytes
        else:
            log.debug("part %d: its bytes or its record changed on the disk; it is fetched again", index)
            self._checkpoint.clear(index)
            self._fetched.parts_damaged.append(index)
            self._schedule.miss(index)

    def _end(self, number: int, error: FastdlError | None, taken: float) -> None:
        rehash = self._release(number)
        rest = self._schedule.end(number)
        if rest is None:
            return
        error = error or FastdlError(f"a worker ended part {rest.first} without a word")
        if isinstance(error, Refused):
            error = self._source.explain(error)
        log.debug("part %d: %s", rest.first, error)
        if isinstance(error, AccessDenied) and self._renewed(number):
            self._schedule.again(rest, rehash=rehash)
        else:
            self._schedule.fail(rest, error, self._clock(), taken)
        self._fetched.retries += 1

    def _renewed(self, number: int) -> bool:
        """Renew credentials, once for all orders given before; False if the new ones are refused as well."""
        if number <= self._renewed_after:
            return True
        if not self._proven or not self._source.renew():
            return False
        self._proven = False
        self._renewed_after = max([number, *self._watches])
        return True

    def _bury(self, died: Died) -> None:
        log.debug("a worker died (%d): %s", died.code, died.last_words)
        if died.by_bus_error:
            self._output.check()
            raise DiskError(f"{self._output.part_path}: the disk is full or failing: a page had no block behind it")
        ours = any(self._watches[order.number].aborted is not None for order in died.orders)
        for order in died.orders:
            stalled = self._watches[order.number].aborted is not None
            rehash = self._release(order.number)
            rest = self._schedule.end(order.number)
            if rest is None:
                continue
            self._fetched.retries += 1
            if stalled:
                error = NetworkError(f"{self._source.shown}: no progress within {self._stall} seconds")
                self._schedule.fail(rest, error, self._clock(), self._clock())
            elif ours:  # we killed the worker for the sake of another order
                self._schedule.again(rest, rehash=rehash)
            else:
                self._schedule.lose(rest, rehash=rehash)

    def _release(self, number: int) -> bool:
        """Make the slot of an order idle; tell whether it was one for hashing."""
        slot = self._watches.pop(number).slot
        rehash = slot in self._pool.hash_slots
        if slot != CALLER_SLOT:
            (self._idle_hash if rehash else self._idle).append(slot)
        elif not self._up:  # once a worker was up the caller's process only steers
            self._idle.insert(0, slot)
        return rehash

    def _tick(self) -> None:
        now = self._clock()
        if now < self._next_tick:
            return
        self._next_tick = now + TICK
        self._count()
        self._output.check()
        connections = 0
        for number, watch in self._watches.items():
            if watch.slot in self._pool.hash_slots:
                continue
            connections += 1
            counted = self._pool.counters.received[watch.slot]
            if counted != watch.counted:
                watch.counted, watch.moved = counted, now
            elif watch.aborted is None and now - watch.moved > self._stall:
                watch.aborted = now
            if watch.aborted is not None and now - watch.aborted > self._abort_patience:
                self._kill(watch)
            elif watch.aborted is not None:
                self._abort(watch.slot, number)  # again and again: it may have been between two connections
        self._tell(min(self._kept + self._fetched.bytes_fetched, self._plan.size), connections)

    def _abort(self, slot: int, number: int) -> None:
        if slot != CALLER_SLOT:
            self._pool.abort(slot, number)
        elif self._caller is not None:
            self._caller.abort(number)

    def _kill(self, watch: _Watch) -> None:
        if watch.slot == CALLER_SLOT:
            raise NetworkError(f"{self._source.shown}: a connection cannot be ended")
        self._pool.kill(watch.slot)

    def _count(self) -> None:
        received = self._pool.counters.received
        self._fetched.bytes_fetched = received[CALLER_SLOT] + sum(received[slot] for slot in self._pool.fetch_slots)
