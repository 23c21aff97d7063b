"""Whatever happens to leases, every part is completed exactly once."""

from __future__ import annotations

import random

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fastdl.errors import DiskError, FastdlError, NetworkError, ServerBusy, Truncated
from fastdl.plan import Plan, Run
from fastdl.retry import Backoff
from fastdl.schedule import DEATHS, Schedule

BACKOFF = Backoff(attempts=4, base=0.5, ceiling=5.0)


class Downloads(RuleBasedStateMachine):
    """A caller that loses workers, connections and parts at random, with a clock of its own."""

    @initialize(
        marks=st.lists(st.booleans(), min_size=1, max_size=40),
        connections=st.integers(1, 5),
        part_size=st.sampled_from([1, 2**20, 2**26, 2**30]),
        seed=st.integers(0, 2**16),
    )
    def begin(self, marks: list[bool], connections: int, part_size: int, seed: int) -> None:
        """Some parts are marked by an earlier run, the others missing."""
        self.plan = Plan(len(marks) * part_size, part_size)
        self.connections = connections
        self.completed = [0] * len(marks)
        self.leases: dict[int, tuple[Run, int, bool]] = {}  # run, first undone part, whether it is hashed
        self.now = 0.0
        runs = [Run(index, index + 1) for index in range(len(marks))]
        missing = [run for run in runs if not marks[run.first]]
        marked = [run for run in runs if marks[run.first]]
        self.schedule = Schedule(self.plan, missing, marked, connections, BACKOFF, random.Random(seed))

    def taken(self, taken: tuple[int, Run] | None, *, rehash: bool) -> bool:
        """Note a new lease, which must be of parts that nobody has or has done."""
        if taken is None:
            return False
        number, run = taken
        assert number not in self.leases
        assert len(run) > 0
        for index in range(run.first, run.stop):
            assert self.completed[index] == 0, f"part {index} was complete"
            assert all(not done <= index < old.stop for old, done, _ in self.leases.values()), f"part {index} is leased"
        self.leases[number] = (run, run.first, rehash)
        return True

    @rule()
    def take(self) -> None:
        """Ask for a run to fetch."""
        self.taken(self.schedule.take(self.now), rehash=False)

    @rule()
    def take_rehash(self) -> None:
        """Ask for a run to hash."""
        self.taken(self.schedule.take_rehash(self.now), rehash=True)

    @rule(seconds=st.floats(0, 100))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    def any_lease(self, data: st.DataObject) -> int:
        """Choose a lease."""
        return data.draw(st.sampled_from(sorted(self.leases)))

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        """Report the next parts of a lease; of hashed ones some turn out damaged."""
        number = self.any_lease(data)
        run, done, rehash = self.leases[number]
        count = data.draw(st.integers(0, run.stop - done))
        damaged = set()
        for index in range(done, done + count):
            if rehash and data.draw(st.booleans()):
                damaged.add(index)
                self.schedule.miss(index)
            else:
                self.completed[index] += 1
        self.schedule.complete(number, count)
        self.leases[number] = (run, done + count, rehash)
        lease = self.schedule.lease(number)
        assert lease is not None
        assert lease.done == done + count
        if done + count == run.stop:
            assert self.end(number) is None

    def end(self, number: int) -> Run | None:
        """End a lease; what is left must be what was not completed."""
        run, done, _ = self.leases.pop(number)
        rest = self.schedule.end(number)
        assert rest == (Run(done, run.stop) if done < run.stop else None)
        assert self.schedule.lease(number) is None
        return rest

    @precondition(lambda self: self.leases)
    @rule(
        data=st.data(),
        kind=st.sampled_from([NetworkError, Truncated]),
    )
    def fail(self, data: st.DataObject, kind: type[NetworkError]) -> None:
        """A connection breaks."""
        self.lost(self.any_lease(data), kind("broken"))

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), wish=st.none() | st.integers(0, 1000))
    def busy(self, data: st.DataObject, wish: int | None) -> None:
        """The server wants to be left alone."""
        number = self.any_lease(data)
        goes_on = self.lost(number, ServerBusy("busy", 503, wish))
        if wish and goes_on:
            assert self.schedule.take(self.now) is None

    def lost(self, number: int, error: FastdlError) -> bool:
        """End a lease with a transient error; what is one too many is raised as it is, and another download begins."""
        rest = self.end(number)
        if rest is None:
            return False
        try:
            self.schedule.fail(rest, error, self.now, self.now)
        except FastdlError as raised:
            assert raised is error  # noqa: PT017 - either outcome is legal
            self.begin([False], 1, 1, 0)
            return False
        return True

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        """A worker dies with one of its orders."""
        number = self.any_lease(data)
        rehash = self.leases[number][2]
        rest = self.end(number)
        if rest is not None:
            try:
                self.schedule.lose(rest, rehash=rehash)
            except FastdlError:
                self.begin([False], 1, 1, 0)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def again(self, data: st.DataObject) -> None:
        """An order was refused for its credentials and is given again."""
        number = self.any_lease(data)
        rehash = self.leases[number][2]
        rest = self.end(number)
        if rest is not None:
            self.schedule.again(rest, rehash=rehash)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def fail_for_good(self, data: st.DataObject) -> None:
        """What is not transient is raised itself, at once."""
        number = self.any_lease(data)
        rest = self.end(number)
        if rest is not None:
            error = DiskError("full")
            with pytest.raises(DiskError) as caught:
                self.schedule.fail(rest, error, self.now, self.now)
            assert caught.value is error
            self.schedule.again(rest)

    @invariant()
    def no_more_fetches_than_connections(self) -> None:
        """The server sees at most as many connections as were allowed."""
        if hasattr(self, "leases"):
            assert sum(not rehash for _, _, rehash in self.leases.values()) <= self.connections

    @invariant()
    def finished_means_complete(self) -> None:
        """It is finished exactly when every part is complete."""
        if hasattr(self, "leases"):
            assert self.schedule.finished == (all(self.completed) and not self.leases)
            assert max(self.completed) <= 1

    def teardown(self) -> None:
        """From every state the end is reached, when nothing fails any more."""
        if not hasattr(self, "leases"):
            return
        for _ in range(4 * len(self.completed) + 10):
            self.now += 1000
            while self.taken(self.schedule.take(self.now), rehash=False) or self.taken(
                self.schedule.take_rehash(self.now), rehash=True
            ):
                pass
            for number, (run, done, _rehash) in list(self.leases.items()):
                for index in range(done, run.stop):
                    self.completed[index] += 1
                self.schedule.complete(number, run.stop - done)
                self.leases[number] = (run, run.stop, False)
                self.end(number)
            if self.schedule.finished:
                break
        assert self.schedule.finished
        assert self.completed == [1] * len(self.completed)


TestDownloads = Downloads.TestCase


def make(parts: int = 8, connections: int = 4) -> Schedule:
    """Make a schedule of parts that are all missing."""
    return Schedule(Plan(parts, 1), [Run(0, parts)], [], connections, BACKOFF, random.Random(0))


@pytest.mark.parametrize("busy", [False, True])
def test_failures_in_a_row_are_bounded(*, busy: bool) -> None:
    """A line that never works, and a server that is always busy, end the download; neither hangs it."""
    schedule, now, failures = make(), 0.0, 0

    def fail_for_ever() -> None:
        nonlocal now, failures
        while failures < 1000:
            now += 1000
            while taken := schedule.take(now):
                failures += 1
                schedule.fail(
                    schedule.end(taken[0]) or taken[1], ServerBusy("x") if busy else NetworkError("x"), now, now
                )

    with pytest.raises(NetworkError):
        fail_for_ever()
    assert BACKOFF.attempts <= failures <= 8 * BACKOFF.attempts


def test_progress_forgives_failures() -> None:
    """Parts that fail now and then, but come, never end a download."""
    schedule, now = make(1000, 1), 0.0
    while not schedule.finished:
        for attempt in range(BACKOFF.attempts):
            now += 1000
            taken = schedule.take(now)
            assert taken is not None
            number, run = taken
            if attempt == BACKOFF.attempts - 1:
                schedule.complete(number, len(run))
            rest = schedule.end(number)
            if rest is not None:
                schedule.fail(rest, NetworkError("x"), now, now)


def test_a_run_that_kills_workers_is_given_up() -> None:
    """Three workers in a row are no accident."""
    schedule = make(1)
    for _ in range(DEATHS - 1):
        taken = schedule.take(0.0)
        assert taken is not None
        schedule.lose(schedule.end(taken[0]) or taken[1], rehash=False)
    taken = schedule.take(0.0)
    assert taken is not None
    rest = schedule.end(taken[0])
    assert rest is not None
    with pytest.raises(FastdlError, match=f"{DEATHS} workers in a row died at part 0"):
        schedule.lose(rest, rehash=False)


def test_a_busy_server_is_asked_by_fewer_until_it_recovers() -> None:
    """Each busy answer costs a connection, each finished span gives one back."""
    schedule = make(1000, 4)
    first = [schedule.take(0.0) for _ in range(5)]
    assert first[4] is None
    for taken in first[:2]:
        assert taken is not None
        schedule.fail(schedule.end(taken[0]) or taken[1], ServerBusy("x"), 0.0, 0.0)
    assert schedule.take(1000.0) is None  # two of two allowed are under way
    for taken in first[2:4]:
        assert taken is not None
        schedule.complete(taken[0], len(taken[1]))
        schedule.end(taken[0])
    assert [schedule.take(1000.0) is not None for _ in range(5)] == [True] * 4 + [False]


def test_a_run_under_way_elsewhere_is_cut_out_of_the_missing() -> None:
    """What the first answer brings is not asked for again."""
    schedule = Schedule(Plan(10, 1), [Run(0, 3), Run(4, 10)], [], 1, BACKOFF, random.Random(0))
    number = schedule.adopt(Run(5, 7), 0.0)
    assert number is not None
    schedule.complete(number, 2)
    assert schedule.end(number) is None
    seen: list[int] = []
    while taken := schedule.take(0.0):
        seen.extend(range(taken[1].first, taken[1].stop))
        schedule.complete(taken[0], len(taken[1]))
        schedule.end(taken[0])
    assert sorted(seen) == [0, 1, 2, 4, 7, 8, 9]
    assert schedule.finished


def test_one_burst_of_refusals_counts_once() -> None:
    """Refusals of requests that were under way together are one refusal, however many connections there are."""
    schedule = make(1000, 64)
    burst = [schedule.take(1.0) for _ in range(64)]
    for taken in burst:
        assert taken is not None
        schedule.fail(schedule.end(taken[0]) or taken[1], ServerBusy("x", retry_after=0.0), 2.0, 1.0)
    assert schedule.waiting
