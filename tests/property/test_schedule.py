"""Whatever happens to leases, every part is completed exactly once."""

from __future__ import annotations

import random

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fastdl.errors import DiskError, FastdlError, NetworkError, ServerBusy, Truncated
from fastdl.limit import Limit
from fastdl.plan import LEAST_SPAN, Plan, Run
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
        self.received = 0
        self.asked: dict[int, int] = {}  # orders that were asked to leave their tail, and whence on
        self.whole: set[int] = set()  # orders that had no tail to leave
        self.limit = Limit(connections, 0.0)
        self.schedule = Schedule(self.plan, missing, marked, self.limit, BACKOFF, random.Random(seed))

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
        """Ask for a run to fetch: none is given beyond what is allowed now, which may be less than was."""
        allowed = self.schedule.leases.fetching < self.limit.allowed
        assert not self.taken(self.schedule.take(self.now), rehash=False) or allowed

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
        lease = self.schedule.leases.get(number)
        assert lease is not None
        assert lease.done == done + count
        if done + count == run.stop:
            assert self.end(number) is None

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def share(self, data: st.DataObject) -> None:
        """Find the run that takes longest and ask it for its tail: half of what it has, and worth a request."""
        rates = {number: data.draw(st.floats(0, 1e9)) for number in self.leases}

        def left(number: int) -> Run:
            run, done, _ = self.leases[number]
            return Run(done, run.stop)

        offers = {
            number: self.plan.nbytes(left(number)) / max(1.0, rates[number])
            for number, (_, _, rehash) in self.leases.items()
            if not rehash
            and number not in {*self.asked, *self.whole}
            and len(left(number)) // 2 * self.plan.part_size >= LEAST_SPAN
        }
        longest = self.schedule.leases.longest(rates)
        if longest is None:
            assert not offers
            return
        number, stop, seconds = longest
        assert seconds == offers[number] == max(offers.values())
        assert stop == left(number).stop - len(left(number)) // 2
        self.schedule.leases.ask_trim(number)
        self.asked[number] = stop

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), ended=st.booleans())
    def trimmed(self, data: st.DataObject, *, ended: bool) -> None:
        """The answer comes: the run ends where it was asked to, or later; maybe after the order's own end."""
        number = data.draw(st.sampled_from(sorted(self.asked)))
        run, done, rehash = self.leases[number]
        stop = data.draw(st.integers(max(done, self.asked[number]), run.stop))
        if ended:  # the slot reports the rest of its run and its end, then comes the answer
            for index in range(done, stop):
                self.completed[index] += 1
            self.schedule.complete(number, stop - done)
            self.leases[number] = (run, stop, rehash)
            rest = self.end(number)
            if rest is not None:
                self.schedule.again(rest)
            self.schedule.trim(number, stop)
            return
        self.schedule.trim(number, stop)
        del self.asked[number]
        if stop == run.stop:
            self.whole.add(number)
        self.leases[number] = (Run(run.first, stop), done, rehash)
        lease = self.schedule.leases.get(number)
        assert lease is not None
        assert lease.run == self.leases[number][0]
        if done == stop:  # all that it kept was reported before; nothing is left undone when it ends
            assert self.end(number) is None

    @rule(data=st.data())
    def observe(self, data: st.DataObject) -> None:
        """Bytes come and are judged: the number of connections may rise."""
        self.now += 0.1
        self.received += data.draw(st.integers(0, 10**9))
        fetching = self.schedule.leases.fetching
        delivering = data.draw(st.integers(0, fetching))
        served = data.draw(st.integers(delivering, fetching))
        self.limit.observe(self.now, self.received, delivering, served, fetching, short=False)

    def end(self, number: int) -> Run | None:
        """End a lease; what is left must be what was not completed."""
        run, done, _ = self.leases.pop(number)
        self.asked.pop(number, None)
        self.whole.discard(number)
        rest = self.schedule.leases.end(number)
        assert rest == (Run(done, run.stop) if done < run.stop else None)
        assert self.schedule.leases.get(number) is None
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
            assert sum(not rehash for _, _, rehash in self.leases.values()) == self.schedule.leases.fetching
            assert self.schedule.leases.fetching <= self.connections
            assert 1 <= self.limit.allowed <= self.connections
            assert self.schedule.leases.trimming == len(self.asked)

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


def make(parts: int = 8, connections: int = 4, limit: Limit | None = None) -> Schedule:
    """Make a schedule of parts that are all missing, each worth a request."""
    limit = limit or Limit(connections, 0.0, start=connections)
    return Schedule(Plan(parts * LEAST_SPAN, LEAST_SPAN), [Run(0, parts)], [], limit, BACKOFF, random.Random(0))


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
                    schedule.leases.end(taken[0]) or taken[1], ServerBusy("x") if busy else NetworkError("x"), now, now
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
            rest = schedule.leases.end(number)
            if rest is not None:
                schedule.fail(rest, NetworkError("x"), now, now)


def test_a_run_that_kills_workers_is_given_up() -> None:
    """Three workers in a row are no accident."""
    schedule = make(1)
    for _ in range(DEATHS - 1):
        taken = schedule.take(0.0)
        assert taken is not None
        schedule.lose(schedule.leases.end(taken[0]) or taken[1], rehash=False)
    taken = schedule.take(0.0)
    assert taken is not None
    rest = schedule.leases.end(taken[0])
    assert rest is not None
    with pytest.raises(FastdlError, match=f"{DEATHS} workers in a row died at part 0"):
        schedule.lose(rest, rehash=False)


def test_a_busy_server_is_asked_by_fewer_until_it_recovers() -> None:
    """Each busy answer costs a connection; they come back one by one, once those that are left are served."""
    limit = Limit(4, 0.0)
    schedule = make(1000, 4, limit)
    first = [schedule.take(0.0) for _ in range(5)]
    assert first[4] is None
    for taken in first[:2]:
        assert taken is not None
        schedule.fail(schedule.leases.end(taken[0]) or taken[1], ServerBusy("x"), 0.0, 0.0)
    assert schedule.take(1000.0) is None  # two of two allowed are under way
    for taken in first[2:4]:
        assert taken is not None
        schedule.complete(taken[0], len(taken[1]))
        schedule.leases.end(taken[0])
    now = 1000.0
    for allowed in (2, 3, 4):
        while schedule.take(now):
            pass
        assert schedule.leases.fetching == limit.allowed == allowed
        for _ in range(4):
            now += 1.5
            limit.observe(now, int(now * 1e6), allowed, allowed, allowed, short=False)
    assert limit.allowed == 4


def test_a_run_under_way_elsewhere_is_cut_out_of_the_missing() -> None:
    """What the first answer brings is not asked for again."""
    schedule = Schedule(Plan(10, 1), [Run(0, 3), Run(4, 10)], [], Limit(1, 0.0), BACKOFF, random.Random(0))
    number = schedule.adopt(Run(5, 7), 0.0)
    assert number is not None
    schedule.complete(number, 2)
    assert schedule.leases.end(number) is None
    seen: list[int] = []
    while taken := schedule.take(0.0):
        seen.extend(range(taken[1].first, taken[1].stop))
        schedule.complete(taken[0], len(taken[1]))
        schedule.leases.end(taken[0])
    assert sorted(seen) == [0, 1, 2, 4, 7, 8, 9]
    assert schedule.finished


def test_one_burst_of_refusals_counts_once() -> None:
    """Refusals of requests that were under way together are one refusal, however many connections there are."""
    schedule = make(1000, 64)
    burst = [schedule.take(1.0) for _ in range(64)]
    for taken in burst:
        assert taken is not None
        schedule.fail(schedule.leases.end(taken[0]) or taken[1], ServerBusy("x", retry_after=0.0), 2.0, 1.0)
    assert schedule.waiting


def test_a_tail_is_free_also_if_all_the_rest_was_reported_before_the_word_of_it() -> None:
    """The order then ends with nothing undone, which is no failure, and the tail is fetched by somebody else."""
    schedule = make(64, 1)
    taken = schedule.take(0.0)
    assert taken is not None
    number, run = taken
    longest = schedule.leases.longest({number: 0.0})
    assert longest is not None
    stop = longest[1]
    schedule.leases.ask_trim(number)
    schedule.complete(number, stop - run.first)
    schedule.trim(number, stop)
    assert schedule.leases.end(number) is None
    assert schedule.leases.trimming == 0
    again = schedule.take(0.0)
    assert again is not None
    assert again[1].first == stop
