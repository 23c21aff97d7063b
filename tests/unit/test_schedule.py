"""Which connections end early when there are more than are allowed, and that nothing is lost by it."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from fastdl.arrivals import Arrivals
from fastdl.limit import Limit
from fastdl.plan import LEAST_SPAN, Plan, Run
from fastdl.retry import Backoff
from fastdl.schedule import Schedule

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SPAN = 8  # parts of each lease
RNG = random.Random(0)


def leased(count: int, allowed: int, marked: Sequence[Run] = ()) -> tuple[Schedule, Limit, list[int]]:
    """Make a schedule whose parts are all under way, in ``count`` leases that were once allowed."""
    limit = Limit(count, 0.0, start=count)
    parts = count * SPAN
    plan = Plan((parts + sum(map(len, marked))) * LEAST_SPAN, LEAST_SPAN)
    schedule = Schedule(plan, [Run(0, parts)], marked, limit, Backoff(), random.Random(0))
    numbers = [schedule.adopt(Run(first, first + SPAN), 0.0) for first in range(0, parts, SPAN)]
    limit.allowed = allowed
    return schedule, limit, [number for number in numbers if number is not None]


def ranking(numbers: Sequence[int], ranks: Sequence[int]) -> Callable[[int], int]:
    """Rank leases; who asks for the rank of another one fails."""
    return dict(zip(numbers, ranks, strict=True)).__getitem__


def asked(schedule: Schedule, rank: Callable[[int], int]) -> dict[int, int]:
    """Ask all superfluous leases for their tails; return them and whence on."""
    found = schedule.superfluous(rank)
    for number, _ in found:
        schedule.leases.ask_trim(number)
    assert len(dict(found)) == len(found)
    return dict(found)


@pytest.mark.parametrize("allowed", [4, 5, 64])
def test_nobody_is_superfluous_among_as_many_as_are_allowed(allowed: int) -> None:
    """Nor among fewer."""
    schedule, _, numbers = leased(4, allowed)
    assert schedule.superfluous(ranking(numbers, range(4))) == []


@pytest.mark.parametrize("allowed", [1, 2, 5])
def test_those_of_the_highest_rank_are_superfluous(allowed: int) -> None:
    """Whatever the order of the leases; each is to end after the part that it is at."""
    ranks, done = [3, 0, 5, 1, 4, 2], [0, 1, 2, 3, 4, 6]
    schedule, _, numbers = leased(6, allowed)
    for number, count in zip(numbers, done, strict=True):
        schedule.complete(number, count)
    expected = {
        number: SPAN * index + done[index] + 1 for index, number in enumerate(numbers) if ranks[index] >= allowed
    }
    assert dict(schedule.superfluous(ranking(numbers, ranks))) == expected


def test_nobody_is_asked_twice() -> None:
    """Those that were asked do not go on; if still fewer are allowed, the next in rank are asked."""
    schedule, limit, numbers = leased(6, 4)
    rank = ranking(numbers, range(6))
    assert list(asked(schedule, rank)) == numbers[4:]
    assert asked(schedule, rank) == {}
    limit.allowed = 1
    assert list(asked(schedule, rank)) == numbers[1:4]
    assert asked(schedule, rank) == {}
    assert schedule.leases.trimming == 5


def test_hashing_is_never_superfluous() -> None:
    """It takes no connection: it neither ends early nor counts among those that go on, and has no rank."""
    schedule, limit, numbers = leased(4, 4, marked=[Run(4 * SPAN, 5 * SPAN)])
    rehash = schedule.take_rehash(0.0)
    assert rehash is not None
    rank = ranking(numbers, range(4))
    assert schedule.superfluous(rank) == []
    limit.allowed = 2
    assert [number for number, _ in schedule.superfluous(rank)] == numbers[2:]


def test_who_is_at_the_last_part_ends_by_itself() -> None:
    """It has no tail to leave, and somebody else goes on in its place."""
    schedule, _, numbers = leased(5, 2)
    schedule.complete(numbers[0], SPAN - 1)
    schedule.complete(numbers[4], SPAN - 1)
    schedule.complete(numbers[3], SPAN - 2)
    found = schedule.superfluous(ranking(numbers, range(5)))
    assert found == [(numbers[3], 4 * SPAN - 1)]


def test_who_had_no_tail_to_leave_is_not_asked_again() -> None:
    """It had begun its last part, though the caller does not know yet."""
    schedule, _, numbers = leased(3, 2)
    rank = ranking(numbers, range(3))
    assert list(asked(schedule, rank)) == [numbers[2]]
    schedule.trim(numbers[2], 3 * SPAN)
    assert schedule.superfluous(rank) == []
    assert schedule.leases.trimming == 0


class Fetchers:
    """Connections that fetch a part of each lease at a time, and answer those that ask for a tail in some way."""

    def __init__(self, answer: str) -> None:
        self.answer = answer
        self.schedule, self.limit, numbers = leased(8, 8)
        self.under_way = set(numbers)
        self.fetched: Counter[int] = Counter()

    def left(self, number: int) -> int:
        """Return how many parts a lease still has."""
        lease = self.schedule.leases.get(number)
        assert lease is not None
        return lease.run.stop - lease.done

    def fetch(self, number: int, count: int) -> None:
        """Fetch parts of a lease, and end it with its last one."""
        lease = self.schedule.leases.get(number)
        assert lease is not None
        self.fetched.update(range(lease.done, lease.done + count))
        self.schedule.complete(number, count)
        if not self.left(number):
            self.end(number)

    def end(self, number: int) -> None:
        """End a lease; what it leaves undone is missing again."""
        self.under_way.remove(number)
        rest = self.schedule.leases.end(number)
        if rest is not None:
            self.schedule.again(rest)

    def shed(self) -> None:
        """Ask those that are too many, the oldest last, and let them answer."""
        tails = asked(self.schedule, lambda number: number)
        leases = [lease for number in self.under_way if (lease := self.schedule.leases.get(number)) is not None]
        going_on = [lease for lease in leases if not lease.trimming and lease.trimmable]
        assert sum(lease.run.stop - lease.done > 1 for lease in going_on) <= self.limit.allowed
        for number, stop in tails.items():
            last = stop - 1 + self.left(number)
            if self.answer == "after its end":
                self.fetch(number, 1)
                self.end(number)
            later = {"as asked": 0, "a part later": 1, "after its end": 0, "with no tail to leave": SPAN}[self.answer]
            self.schedule.trim(number, min(stop + later, last))


@pytest.mark.parametrize("answer", ["as asked", "a part later", "with no tail to leave", "after its end"])
def test_all_parts_are_fetched_once_when_connections_end_early(answer: str) -> None:
    """However far those that were asked had come; and no more than are allowed go on."""
    fetchers = Fetchers(answer)
    schedule, limit = fetchers.schedule, fetchers.limit
    for step in range(8 * SPAN):
        limit.allowed = 5 if step < 2 else 2
        fetchers.shed()
        for number in sorted(fetchers.under_way):
            fetchers.fetch(number, 1)
        while (taken := schedule.take(float(step))) is not None:
            fetchers.under_way.add(taken[0])
            assert schedule.leases.fetching <= limit.allowed
    assert schedule.finished
    assert schedule.leases.trimming == 0
    assert fetchers.fetched == Counter(range(8 * SPAN))


def test_what_is_wanted_is_leased_next() -> None:
    """Before what was to come, and without asking anybody who is free soon."""
    schedule = Schedule(Plan(100 * LEAST_SPAN, LEAST_SPAN), [Run(0, 100)], [], Limit(4, 0.0, start=4), Backoff(), RNG)
    assert schedule.forward(Run(90, 92)) == []
    taken = schedule.take(0.0)
    assert taken is not None
    assert taken[1].first == 90


def test_who_would_reach_wanted_parts_late_leaves_them() -> None:
    """And is asked for nothing if it is at them already, or just before."""
    schedule, _, numbers = leased(3, 4)
    schedule.complete(numbers[1], 4)
    assert schedule.forward(Run(6, 8)) == [(numbers[0], 6)]
    assert schedule.forward(Run(SPAN + 5, SPAN + 8)) == []
    schedule.leases.ask_trim(numbers[0])
    assert schedule.forward(Run(6, 8)) == []


@pytest.mark.parametrize("stop", [2, 3], ids=["as asked", "a part later"])
def test_when_nobody_is_free_who_would_reach_wanted_parts_late_fetches_them_next(stop: int) -> None:
    """It leaves all behind the part that it is at, and what is wanted of that comes before the rest."""
    schedule, _, numbers = leased(1, 1)
    schedule.complete(numbers[0], 1)
    assert schedule.forward(Run(6, 8)) == [(numbers[0], 2)]
    schedule.leases.ask_trim(numbers[0])
    schedule.trim(numbers[0], stop)
    schedule.complete(numbers[0], stop - 1)
    assert schedule.leases.end(numbers[0]) is None
    taken = schedule.take(0.0)
    assert taken is not None
    assert taken[1] == Run(6, 8)


def test_when_nobody_is_free_the_longest_run_is_left_for_what_is_wanted() -> None:
    """After the part that its connection is at; runs that are wanted themselves go on."""
    schedule = Schedule(Plan(100 * LEAST_SPAN, LEAST_SPAN), [Run(0, 100)], [], Limit(2, 0.0, start=2), Backoff(), RNG)
    first = schedule.adopt(Run(0, 40), 0.0)
    second = schedule.adopt(Run(40, 90), 0.0)
    assert first is not None
    assert second is not None
    schedule.complete(second, 20)
    assert schedule.forward(Run(95, 96)) == [(first, 1)]
    assert schedule.forward(Run(0, 96)) == []


def test_where_order_matters_no_part_is_begun_for_which_there_is_no_room() -> None:
    """The lowest one comes first, and a connection asks for its share of half the room at most."""
    plan = Plan(100 * LEAST_SPAN, LEAST_SPAN)
    readers = Arrivals(ring=16 * LEAST_SPAN)
    readers.begin(plan.size, plan)
    schedule = Schedule(plan, [Run(0, 100)], [], Limit(4, 0.0, start=4), Backoff(), RNG, readers)
    runs = [taken[1] for _ in range(4) if (taken := schedule.take(0.0)) is not None]
    assert runs == [Run(0, 2), Run(2, 4), Run(4, 6), Run(6, 8)]
    for number in range(1, 5):
        schedule.complete(number, 2)
        schedule.leases.end(number)
    assert [schedule.take(0.0) is not None for _ in range(4)] == [True] * 4
    for number in range(5, 9):
        schedule.complete(number, 2)
        schedule.leases.end(number)
    assert schedule.take(0.0) is None
    readers.read(3 * LEAST_SPAN)
    taken = schedule.take(0.0)
    assert taken is not None
    assert taken[1] == Run(16, 18)
    assert schedule.take(0.0) is not None
    assert schedule.take(0.0) is None
