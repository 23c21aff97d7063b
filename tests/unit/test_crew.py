"""Who carries an order out: connections of the caller's own until the first worker is up, then workers only."""

from __future__ import annotations

import gc
import os
import random
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fastdl.crew import OWN, Crew, _Duplicate
from fastdl.errors import NetworkError
from fastdl.http import Transport
from fastdl.messages import Abort, Fetch, Line, Nudge, Rehash, Renew, Report, Request, Trim, Trimmed
from fastdl.plan import Plan, Run
from fastdl.pool import Died
from fastdl.slot import Slot
from fastdl.validator import Validator
from tests.servers.scripted import LAST_MODIFIED, ranged, script, serving, stall_after, stall_before_head

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DATA = random.Random(6).randbytes(400_000)
PLAN = Plan(len(DATA), 50_000)
VALIDATOR = Validator('"v1"', LAST_MODIFIED)
PATIENCE = 20.0  # seconds; only failing tests take as long

Event = Report | Trimmed | Died | Nudge


@contextmanager
def crew(workers: int = 1, connections: int = 4) -> Iterator[Crew]:
    """Yield a crew that did not start its workers, for an output of the object's size."""
    fd = os.memfd_create("output")
    transport = Transport(Line(), OWN)
    try:
        os.ftruncate(fd, len(DATA))
        with Crew(Line(), workers, connections, fd, transport) as made:
            yield made
    finally:
        transport.close()
        os.close(fd)


def fetch(slot: int | None, url: str, number: int, run: Run) -> Fetch:
    """Order a run of parts."""
    assert slot is not None
    return Fetch(slot, number, 0, PLAN, run, Request(url), VALIDATOR)


def events(made: Crew, enough: Callable[[list[Event]], bool]) -> list[Event]:
    """Do what the caller does until it is enough: mark what is reported, release slots whose order ended."""
    seen: list[Event] = []
    while not enough(seen):
        before, up = len(seen), made._up
        seen.extend(made.wait(PATIENCE))
        assert len(seen) > before or made._up != up or len(made._pool._members) > 1, "nothing happened"
        for event in seen[before:]:
            if isinstance(event, Report):
                if event.slot not in made.hash_slots:
                    made.counters.marked[event.slot] += len(event.digests)
                if event.finished:
                    made.release(event.slot)
    return seen


def ended(number: int) -> Callable[[list[Event]], bool]:
    """Wait for an order's end."""
    return lambda seen: any(isinstance(event, Report) and event.finished and event.number == number for event in seen)


def last(seen: list[Event]) -> Report:
    """Return the report that came last."""
    return [event for event in seen if isinstance(event, Report)][-1]


def content(made: Crew, run: Run) -> bytes:
    """Read what is in the output where a run's parts belong."""
    start, stop = PLAN.bounds(run)
    return os.pread(made._fd, stop - start, start)


@pytest.mark.parametrize(
    ("workers", "connections", "own"), [(1, 1, 1), (1, 2, 1), (2, 2, 1), (1, 4, 3), (4, 8, 4), (1, 9, 4), (4, 64, 4)]
)
def test_the_caller_has_a_few_connections_of_its_own(workers: int, connections: int, own: int) -> None:
    """Four, but at least one, and a small budget is for the workers."""
    with crew(workers, connections) as made:
        assert [made.idle_slot() for _ in range(own + 1)] == [*range(own), None]
        assert made.idle_slot(rehash=True) is None
        assert len(made._pool.fetch_slots) == connections
        assert len(made.counters.received) == own + connections + min(workers, connections)


def test_without_workers_the_callers_own_connections_do_everything() -> None:
    """A small object is over before any worker is up; here none is even started."""
    with serving(ranged(DATA)) as server, crew(connections=64) as made:
        for number in range(1, 5):
            made.give(fetch(made.idle_slot(), server.url(), number, Run(2 * number - 2, 2 * number)))
        assert made.idle_slot() is None
        seen = events(made, lambda seen: sum(isinstance(e, Report) and e.finished for e in seen) == 4)
        assert not any(isinstance(event, Report) and event.error for event in seen)
        assert made.idle == 4
        assert made.received == len(DATA)
        assert content(made, Run(0, 8)) == DATA
        assert made._pool._members == []


def test_an_answer_that_is_open_already_is_taken_over() -> None:
    """The first answer's body is the first run's: nothing is asked again."""
    with serving(ranged(DATA)) as server, crew() as made:
        order = fetch(made.idle_slot(), server.url(), 1, Run(0, 3))
        transport = Transport(Line(), 1)
        made.give(order, transport.open(order.request, (("Range", "bytes=0-149999"),)))
        assert last(events(made, ended(1))).error is None
        assert content(made, Run(0, 3)) == DATA[:150_000]
        assert len(server.log) == 1
        transport.close()


def test_once_a_worker_is_up_the_callers_process_only_steers() -> None:
    """What its own connections have they finish; what comes after goes to workers."""
    gate = threading.Event()
    with serving(script({1: stall_after(60_000, gate)}, otherwise=ranged(DATA))) as server, crew(1, 4) as made:
        own = made.idle_slot()
        made.give(fetch(own, server.url(), 1, Run(0, 2)))
        server.wait_for(1)
        made.start()
        events(made, lambda _: made._up)
        idle = [made.idle_slot() for _ in range(5)]
        assert [slot for slot in idle if slot is not None] == made._pool.fetch_slots
        made.give(fetch(idle[0], server.url(), 2, Run(2, 4)))
        assert last(events(made, ended(2))).error is None
        assert made.idle_slot() == idle[0]
        assert made.idle_slot() is None
        gate.set()
        assert last(events(made, ended(1))).error is None
        assert made.idle_slot() is None  # its own does not come back
        assert content(made, Run(0, 4)) == DATA[:200_000]
        assert made.received == 200_000


def test_whoever_comes_first_in_rank_is_given_the_next_order() -> None:
    """Not whoever has been idle the longest: where few are wanted, it is always the same few."""
    with crew(1, 8) as made:
        slots = [made.idle_slot() for _ in range(4)]
        for slot in (2, 0, 3, 1):
            made.release(slot)
        assert [made.idle_slot() for _ in range(4)] == slots == [0, 1, 2, 3]


def test_few_connections_are_one_of_each_worker() -> None:
    """Before a worker is up the caller's own come first, afterwards last; the workers' take turns."""
    with crew(2, 6) as made:
        workers = made._pool.fetch_slots
        own = list(range(4))
        assert sorted([*workers, *own], key=made.rank) == [*own, *workers]
        made.start()
        assert [made.idle_slot() for _ in range(10)] == [*own, *workers]
        for slot in (*reversed(workers[1:]), 2, workers[0]):
            made.release(slot)
        assert made.idle_slot() == 2
        events(made, lambda _: made._up)
        assert sorted([*own, *workers], key=made.rank) == [*workers, *own]
        assert [made._pool._member_of[slot] for slot in workers] == [0, 1, 0, 1, 0, 1]
        assert [made.idle_slot() for _ in range(7)] == [*workers, None]


def test_hashing_is_the_workers() -> None:
    """It has slots of its own, and what is hashed is not received."""
    with crew(2, 4) as made:
        os.pwrite(made._fd, DATA, 0)
        made.start()
        slot = made.idle_slot(rehash=True)
        assert slot in made.hash_slots
        made.give(Rehash(slot, 1, 0, PLAN, Run(0, 8)))
        seen = events(made, ended(1))
        assert sum(len(event.digests) for event in seen if isinstance(event, Report)) == 8
        assert made.received == 0


@pytest.mark.parametrize("who", ["own", "worker"])
def test_tails_are_left_connections_renewed_and_orders_taken_back(who: str) -> None:
    """Whoever carries the order out, the same words have the same effect."""
    faults = {1: stall_after(60_000), 2: stall_after(60_000)}
    with serving(script(faults, otherwise=ranged(DATA))) as server, crew(1, 4) as made:
        if who == "worker":
            made.start()
            events(made, lambda _: made._up)
        slot = made.idle_slot()
        assert slot is not None
        assert (slot in made._pool.fetch_slots) == (who == "worker")
        made.give(fetch(slot, server.url(), 1, Run(0, 8)))
        events(made, bool)  # part 0 is there
        made.tell(Trim(slot, 1, 4))
        assert events(made, bool) == [Trimmed(slot, 1, 4)]
        made.tell(Renew(slot, 1))
        events(made, bool)  # part 1 is there
        server.wait_for(2)
        made.tell(Abort(slot, 1))
        assert isinstance(last(events(made, ended(1))).error, NetworkError)
        assert server.log[1].range is not None
        assert server.log[1].range[1] == 200_000
        made.give(fetch(made.idle_slot(), server.url(), 2, Run(7, 8)))
        assert last(events(made, ended(2))).error is None


def test_a_word_about_an_order_that_is_over_is_nothing() -> None:
    """It may be late."""
    with serving(ranged(DATA)) as server, crew() as made:
        slot = made.idle_slot()
        made.give(fetch(slot, server.url(), 1, Run(0, 1)))
        events(made, ended(1))
        assert slot is not None
        for word in (Trim(slot, 1, 1), Renew(slot, 1), Abort(slot, 1)):
            made.tell(word)
        assert set(made.wait(0)) <= {Trimmed(slot, 1, 1)}  # it may end while the word comes
        made.give(fetch(made.idle_slot(), server.url(), 2, Run(1, 3)))
        assert last(events(made, ended(2))).error is None
        assert len(server.log) == 2


def test_a_worker_can_be_killed_and_the_callers_own_cannot() -> None:
    """What does not end on our own side ends the download instead."""
    with serving(stall_before_head()) as server, crew() as made:
        own = made.idle_slot()
        assert own is not None
        with pytest.raises(NetworkError):
            made.kill(own)
        made.start()
        events(made, lambda _: made._up)
        slot = made.idle_slot()
        made.give(fetch(slot, server.url(), 1, Run(0, 1)))
        server.wait_for(1)
        assert slot is not None
        made.kill(slot)
        seen = events(made, lambda seen: any(isinstance(event, Died) for event in seen))
        assert [order.number for event in seen if isinstance(event, Died) for order in event.orders] == [1]


def test_closing_leaves_nothing_behind() -> None:
    """No thread, no process, no descriptor, whatever own connections and workers were doing."""
    with serving(stall_before_head()) as server:
        before = open_descriptors(), threading.active_count()
        with crew(2, 4) as made:
            made.give(fetch(made.idle_slot(), server.url(), 1, Run(0, 1)))
            made.start()
            events(made, lambda _: made._up)
            made.give(fetch(made.idle_slot(), server.url(), 2, Run(1, 2)))
            server.wait_for(2)
            processes = [member.process for member in made._pool._members]
        assert all(process.returncode is not None for process in processes)
        server.wait_until(lambda: server.open_connections == 0)
        after = open_descriptors(), threading.active_count() - 2  # the server has a thread for each connection
        assert after <= before


def test_a_thread_that_does_not_end_in_time_keeps_its_file_and_nobody_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed under its hands, the descriptor could mean another file; left open for good, they would run short."""
    before = open_descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(Slot, "stop", lambda *_: False)
        with crew() as made:
            assert made.idle
    os.fstat(made._own_output.fd)
    del made
    gc.collect()
    assert open_descriptors() <= before  # what an earlier test left to its threads may be gone by now


def test_a_duplicate_that_never_came_to_be_is_gone_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C may strike before its first line, and descriptors may be short."""
    said: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)
    _Duplicate.__new__(_Duplicate)
    with pytest.raises(OSError, match="Bad file descriptor"):
        _Duplicate(-1)
    assert said == []


def open_descriptors() -> int:
    """Count this process's descriptors."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
