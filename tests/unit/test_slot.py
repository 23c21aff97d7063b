"""One connection: what it is told while it works, and what it may have at stake."""

from __future__ import annotations

import os
import random
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdl.access import Writer
from fastdl.counters import Counters, nbytes
from fastdl.errors import DiskError, FastdlError, NetworkError, ServerBusy
from fastdl.fetch import WINDOW, SpanFetch, Tally
from fastdl.http import Transport
from fastdl.messages import Fetch, Line, Rehash, Report, Request, Trimmed
from fastdl.plan import Plan, Run
from fastdl.slot import Slot
from fastdl.validator import Validator
from tests.servers.scripted import (
    LAST_MODIFIED,
    Exchange,
    ranged,
    script,
    serving,
    stall_after,
    stall_before_head,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastdl.digest import Digest
    from fastdl.http import Response

DATA = random.Random(5).randbytes(400_000)
PLAN = Plan(len(DATA), 50_000)
VALIDATOR = Validator('"v1"', LAST_MODIFIED)
PATIENCE = 20.0  # seconds; only failing tests take as long


def fetch(url: str, run: Run, number: int = 1, plan: Plan = PLAN) -> Fetch:
    """Order a run of parts of slot 0."""
    return Fetch(0, number, 0, plan, run, Request(url), VALIDATOR)


class Rig:
    """A slot with an output and counts of its own; ``reports`` are what it told."""

    def __init__(self, *, marking: bool = True) -> None:
        self.fd = os.memfd_create("output")
        os.ftruncate(self.fd, len(DATA))
        shared = os.memfd_create("counters")
        os.ftruncate(shared, nbytes(1))
        self.counters = Counters(shared, 1)
        os.close(shared)
        self.reports: SimpleQueue[Report] = SimpleQueue()
        self.marking = marking
        self.transport = Transport(Line(), 1)
        self.slot = Slot(0, self.counters, self._send, self.transport, lambda _: self.fd)

    def _send(self, report: Report) -> None:
        if self.marking:
            self.counters.marked[0] += len(report.digests)
        self.reports.put(report)

    def to_the_end(self) -> list[Report]:
        """Collect reports until one ends the order."""
        seen = [self.reports.get(timeout=PATIENCE)]
        while not seen[-1].finished:
            seen.append(self.reports.get(timeout=PATIENCE))
        return seen

    def parts(self, reports: list[Report]) -> list[int]:
        """List the parts that were reported, in order, after a look at their digests and bytes."""
        found = []
        for report in reports:
            for index, digest in enumerate(report.digests, report.first):
                start, stop = PLAN.bounds(Run(index, index + 1))
                assert os.pread(self.fd, stop - start, start) == DATA[start:stop]
                assert (digest,) == Tally(PLAN, Run(index, index + 1)).feed(memoryview(DATA)[start:stop])[1]
                found.append(index)
        return found


@contextmanager
def rig(*, marking: bool = True) -> Iterator[Rig]:
    """Yield a slot; its thread ends with the block."""
    made = Rig(marking=marking)
    try:
        yield made
    finally:
        assert made.slot.stop(PATIENCE)
        made.transport.close()
        made.counters.close()
        os.close(made.fd)


@pytest.mark.parametrize("stalls", [0, 1, 30_000, 50_000, 120_000])
def test_a_renewed_order_goes_on_at_the_byte_it_reached(stalls: int) -> None:
    """Over another connection, without a byte fetched twice; that is a repeated request and no failure."""
    arrived = threading.Event()

    def stalling(exchange: Exchange) -> None:
        def stall() -> None:
            exchange.flush()
            arrived.set()
            exchange.hold(None)

        exchange.break_body(stalls, stall)
        exchange.otherwise(exchange)

    with serving(script({1: stalling}, otherwise=ranged(DATA))) as server, rig() as made:
        made.slot.give(fetch(server.url(), Run(1, 6)))
        assert arrived.wait(PATIENCE)
        made.slot.renew(1)
        server.wait_for(2)
        again = server.log[1]
        seen = made.to_the_end()
        assert again.range == (50_000 + stalls, 300_000)
        assert again.connection != server.log[0].connection
        assert made.parts(seen) == [1, 2, 3, 4, 5]
        assert seen[-1].error is None
        assert sum(report.requests for report in seen) == 2
        assert sum(report.retries for report in seen) == 1
        assert made.counters.received[0] == 250_000


def test_an_answer_that_does_not_begin_can_be_renewed() -> None:
    """The head is waited for on another connection."""
    with serving(script({1: stall_before_head()}, otherwise=ranged(DATA))) as server, rig() as made:
        made.slot.give(fetch(server.url(), Run(0, 2)))
        server.wait_for(1)
        made.slot.renew(1)
        seen = made.to_the_end()
        assert (made.parts(seen), seen[-1].error) == ([0, 1], None)


def test_only_the_order_that_is_meant_is_renewed() -> None:
    """A late word about an order that ended breaks nothing."""
    with serving(script({2: stall_after(60_000)}, otherwise=ranged(DATA))) as server, rig() as made:
        made.slot.renew(1)
        made.slot.give(fetch(server.url(), Run(0, 2)))
        assert made.parts(made.to_the_end()) == [0, 1]
        made.slot.give(fetch(server.url(), Run(2, 4), 2))
        server.wait_until(lambda: server.sent >= 160_000)
        made.slot.renew(1)
        made.slot.abort(1)
        assert len(server.log) == 2
        made.slot.abort(2)
        seen = made.to_the_end()
        assert isinstance(seen[-1].error, NetworkError)
        assert sum(report.retries for report in seen) == 0


def test_an_order_that_is_taken_back_is_not_renewed() -> None:
    """It ends, although it was to go on over another connection before."""
    with serving(stall_before_head()) as server, rig() as made:
        made.slot.give(fetch(server.url(), Run(0, 2)))
        server.wait_for(1)
        made.slot.renew(1)
        server.wait_for(2)
        made.slot.renew(1)
        made.slot.abort(1)
        while made.reports.empty():  # as the caller does
            made.slot.abort(1)
        assert isinstance(made.to_the_end()[-1].error, NetworkError)


def test_no_part_is_begun_while_another_is_unmarked(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kill loses is one part for each connection: bytes of the next come only after the mark of the last."""
    waits: SimpleQueue[None] = SimpleQueue()
    pause = Slot._pause

    def noted(slot: Slot, seconds: float) -> None:
        waits.put(None)
        pause(slot, seconds)

    monkeypatch.setattr(Slot, "_pause", noted)
    with serving(ranged(DATA)) as server, rig(marking=False) as made:
        made.slot.give(fetch(server.url(), Run(0, PLAN.count)))
        for index in range(PLAN.count - 1):
            report = made.reports.get(timeout=PATIENCE)
            assert (report.first, len(report.digests)) == (index, 1)
            while not waits.empty():
                waits.get()
            waits.get(timeout=PATIENCE)
            assert made.counters.received[0] == (index + 1) * PLAN.part_size
            beyond = (index + 1) * PLAN.part_size
            assert os.pread(made.fd, PLAN.part_size, beyond) == bytes(PLAN.part_size)
            made.counters.marked[0] += 1
        assert made.reports.get(timeout=PATIENCE).first == PLAN.count - 1
        made.counters.marked[0] += 1
        assert made.to_the_end()[-1].error is None


def test_an_order_that_waits_for_a_mark_can_be_taken_back() -> None:
    """A caller that stopped marking can still stop."""
    with serving(ranged(DATA)) as server, rig(marking=False) as made:
        made.slot.give(fetch(server.url(), Run(0, 3)))
        assert made.reports.get(timeout=PATIENCE).first == 0
        made.slot.abort(1)
        assert isinstance(made.to_the_end()[-1].error, NetworkError)


@pytest.mark.parametrize(("rate", "window"), [(1024, 1024), (20_000, 1024), (100_000, 5_000), (10**9, 256 * 1024)])
def test_windows_are_small_under_a_limit(rate: int, window: int) -> None:
    """So that many connections take turns, some twenty times a second."""
    with rig() as made:
        made.counters.limit(rate, 0.0)
        assert made.slot.allowed(256 * 1024) == window
        assert made.slot.allowed(100) == 100


def test_who_was_too_fast_waits_in_short_naps(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that an order can be taken back meanwhile; and no longer than it was too fast."""
    with rig() as made:
        naps: list[float] = []
        left = [0.31, 0.05, 0.0]
        made.counters.limit(100_000, 0.0)
        monkeypatch.setattr(made.counters, "excess", lambda: left.pop(0))
        monkeypatch.setattr(made.slot, "_pause", naps.append)
        assert made.slot.allowed(256 * 1024) == 5_000
        assert naps == [0.1, 0.05]
        assert left == []


def test_a_mapping_lives_as_long_as_its_order() -> None:
    """What it keeps resident behind the last byte hashed must not add up over the orders of a large object."""
    with rig() as made:
        os.pwrite(made.fd, DATA, 0)
        made.slot.give(Rehash(0, 1, 0, PLAN, Run(1, 3)))
        seen = made.to_the_end()
        assert (made.parts(seen), seen[-1].error) == ([1, 2], None)
        maps = Path("/proc/self/maps").read_text("utf-8")
        assert f" {os.fstat(made.fd).st_ino} " not in "".join(
            line for line in maps.splitlines() if "memfd:output" in line
        )


def test_a_tail_that_is_trimmed_is_not_fetched() -> None:
    """The order ends before it without an error, and the parts before are all there."""
    gate = threading.Event()
    with serving(script({1: stall_after(60_000, gate)}, otherwise=ranged(DATA))) as server, rig() as made:
        made.slot.give(fetch(server.url(), Run(0, 8)))
        server.wait_until(lambda: server.sent >= 60_000)
        first = made.reports.get(timeout=PATIENCE)
        assert made.slot.trim(1, 4) == Trimmed(0, 1, 4)
        gate.set()
        seen = [first, *made.to_the_end()]
        assert made.parts(seen) == [0, 1, 2, 3]
        assert seen[-1].error is None
        assert os.pread(made.fd, len(DATA), 200_000) == bytes(200_000)
        assert made.slot.trim(1, 2) is None
        assert len(server.log) == 1


def test_a_tail_can_be_trimmed_before_its_order_begins() -> None:
    """The word may overtake the order on its way; nothing of the tail is asked for."""
    with serving(ranged(DATA)) as server, rig() as made:
        assert made.slot.trim(1, 4) == Trimmed(0, 1, 4)
        made.slot.give(fetch(server.url(), Run(0, 8)))
        seen = made.to_the_end()
        assert made.parts(seen) == [0, 1, 2, 3]
        assert seen[-1].error is None
        assert server.log[0].range == PLAN.bounds(Run(0, 4))


def test_an_open_answer_may_be_longer_than_what_is_left_of_its_order() -> None:
    """It was asked for before the tail went to somebody else; it is read as far as it is needed."""
    with serving(ranged(DATA)) as server, rig() as made:
        order = fetch(server.url(), Run(0, 8))
        start, stop = PLAN.bounds(order.run)
        answer = Transport(Line(), 1).open(order.request, (("Range", f"bytes={start}-{stop - 1}"),))
        assert made.slot.trim(1, 4) == Trimmed(0, 1, 4)
        made.slot.give(order, answer)
        seen = made.to_the_end()
        assert (made.parts(seen), seen[-1].error) == ([0, 1, 2, 3], None)
        assert len(server.log) == 1


def test_no_thread_for_one_more_connection_is_a_busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order comes back to be given again, and the others go on."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with serving(ranged(DATA)) as server, rig() as made:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            made.slot.give(fetch(server.url(), Run(0, 2), 7))
        (report,) = made.to_the_end()
        assert (report.number, report.digests, report.finished) == (7, (), True)
        assert isinstance(report.error, ServerBusy)
        assert str(report.error) == "no thread for one more connection: can't start new thread"
        made.slot.give(fetch(server.url(), Run(0, 2), 8))
        assert made.parts(made.to_the_end()) == [0, 1]


@pytest.mark.parametrize(
    ("failure", "kind", "text"),
    [
        (MemoryError(), DiskError, "no memory left to receive into"),
        (KeyError("7"), FastdlError, "unexpected KeyError in a connection: '7'"),
    ],
)
def test_what_nobody_expected_is_told_and_the_slot_lives_on(
    failure: Exception, kind: type[FastdlError], text: str
) -> None:
    """A defect of ours must reach the caller; a thread that vanished would be waited for in vain."""
    with serving(ranged(DATA)) as server, rig() as made:
        descriptor = made.slot._descriptor

        def fail(_: int) -> int:
            raise failure

        made.slot._descriptor = fail
        made.slot.give(fetch(server.url(), Run(0, 2)))
        (report,) = made.to_the_end()
        assert (type(report.error), str(report.error)) == (kind, text)
        made.slot._descriptor = descriptor
        made.slot.give(fetch(server.url(), Run(0, 2), 2))
        assert made.parts(made.to_the_end()) == [0, 1]


def test_a_slot_is_not_stopped_before_its_order_began() -> None:
    """It is told so, and can be waited for again."""
    with serving(ranged(DATA)) as server, rig() as made:
        with made.slot._beginning:
            made.slot.give(fetch(server.url(), Run(0, 2)))
            assert made.slot.stop(0.05) is False
        made.to_the_end()


@dataclass
class Told:
    """A listener that notes what it is told, and does something before each window."""

    reports: list[tuple[int, int]] = field(default_factory=list)

    def watch(self, response: Response | None) -> None:
        """Take note of nothing."""

    def allowed(self, nbytes: int) -> int:
        """Allow everything."""
        self.before_window()
        return nbytes

    def settle(self) -> None:
        """Wait for nothing."""

    def before_window(self) -> None:
        """Do nothing."""

    def renewed(self) -> bool:
        """Tell that no connection was broken on purpose."""
        return False

    def progress(self, nbytes: int) -> None:
        """Take note of nothing."""

    def report(self, first: int, digests: tuple[Digest, ...]) -> None:
        """Note which parts are complete."""
        self.reports.append((first, first + len(digests)))


class Shared:
    """Spans that fetch one object, each in a thread, and trim each other at random moments."""

    def __init__(self, url: str, transport: Transport, plan: Plan, fd: int, seed: int) -> None:
        self.url, self.transport, self.plan, self.fd = url, transport, plan, fd
        self.rng = random.Random(seed)
        self.lock = threading.Lock()
        self.spans: list[SpanFetch] = []
        self.runs: list[list[int]] = []  # first part and end of each span, as trimmed
        self.told: list[Told] = []
        self.stored: list[list[tuple[int, int]]] = []
        self.threads: list[threading.Thread] = []
        self.failures: list[BaseException] = []

    def begin(self, run: Run) -> None:
        """Let another thread fetch a run; the lock must be held."""
        number = len(self.spans)
        shared, stored = self, []

        class Noting(Writer):
            def store(self, start: int, filled: memoryview, ring: int = 0) -> None:
                stored.append((start, start + len(filled)))
                super().store(start, filled, ring)

        class Meddling(Told):
            def before_window(self) -> None:
                shared.meddle()

        told = Meddling()
        order = fetch(self.url, run, number, self.plan)
        span = SpanFetch(order, self.transport, Noting(self.fd, WINDOW), told)
        self.spans.append(span)
        self.runs.append([run.first, run.stop])
        self.told.append(told)
        self.stored.append(stored)
        thread = threading.Thread(target=self._run, args=(span,))
        self.threads.append(thread)
        thread.start()

    def meddle(self) -> None:
        """Trim some span or none; whoever gets the tail begins at once."""
        with self.lock:
            if len(self.spans) >= 12 or self.rng.random() < 0.6:
                return
            number = self.rng.randrange(len(self.spans))
            first, stop = self.runs[number]
            really = self.spans[number].trim(self.rng.randint(first, stop))
            assert first < really <= stop
            if really < stop:
                self.runs[number][1] = really
                self.begin(Run(really, stop))

    def _run(self, span: SpanFetch) -> None:
        try:
            span.run()
        except BaseException as failure:  # noqa: BLE001 - the test tells
            self.failures.append(failure)

    def finish(self) -> None:
        """Wait for all threads, also for those that begin meanwhile."""
        done = 0
        while done < len(self.threads):
            self.threads[done].join(PATIENCE)
            assert not self.threads[done].is_alive()
            done += 1
        assert not self.failures


def test_two_writers_never_share_a_part() -> None:
    """Trimmed at whatever moments, spans end at a part's boundary behind all they began; every part has one writer."""
    transport = Transport(Line(), 16)

    with serving(ranged(DATA)) as server:

        @settings(max_examples=40)
        @given(seed=st.integers(0, 2**32), part_size=st.sampled_from([700, 5_000, 16_384, 20_001, 99_999, 400_000]))
        def check(seed: int, part_size: int) -> None:
            plan = Plan(len(DATA), part_size)
            fd = os.memfd_create("output")
            try:
                os.ftruncate(fd, len(DATA))
                shared = Shared(server.url(), transport, plan, fd, seed)
                with shared.lock:
                    shared.begin(Run(0, plan.count))
                shared.finish()
                assert sorted(part for run in shared.runs for part in range(*run)) == list(range(plan.count))
                for (first, stop), told, stored in zip(shared.runs, shared.told, shared.stored, strict=True):
                    assert [part for each in told.reports for part in range(*each)] == list(range(first, stop))
                    reached = first * part_size
                    for begin, end in stored:
                        assert begin == reached
                        reached = end
                    assert reached == min(stop * part_size, len(DATA))
                assert os.pread(fd, len(DATA), 0) == DATA
            finally:
                os.close(fd)

        check()
        transport.close()


@pytest.mark.parametrize("runs", [True, False])
def test_an_interrupt_while_the_thread_starts(monkeypatch: pytest.MonkeyPatch, *, runs: bool) -> None:
    """Whether it runs already or will in a moment: stop() finds it and breaks its connection, or it does nothing."""
    start, later = threading.Thread.start, SimpleQueue[threading.Thread]()

    def interrupted(thread: threading.Thread) -> None:
        if threading.current_thread() is not threading.main_thread():  # the server's, which may be asked already
            start(thread)
            return
        if runs:
            start(thread)
        later.put(thread)
        raise KeyboardInterrupt

    with rig() as slotted, serving(script({1: stall_before_head()}, otherwise=ranged(DATA))) as server:
        monkeypatch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            slotted.slot.give(fetch(server.url(), Run(0, 8)))
        monkeypatch.undo()
        if runs:
            server.wait_for(1)
        assert slotted.slot.stop(PATIENCE)
        thread = later.get()
        if not runs:
            start(thread)
        thread.join(PATIENCE)
        assert not thread.is_alive()
        assert len(server.log) == int(runs)
