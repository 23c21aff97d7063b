"""The number of connections settles where more of them bring nothing, and where the server still serves them."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from fastdl.limit import RISE, START, Limit

if TYPE_CHECKING:
    from collections.abc import Callable

STEP = 0.02  # seconds between two looks, as the caller has them
FIRST = 8  # connections that the tests begin with


def begin(most: int, now: float = 0.0) -> Limit:
    """Make a limit that begins with eight."""
    return Limit(most, now, start=FIRST)


@dataclass
class Line:
    """A line with a clock of its own, under a limit; every connection that is allowed fetches and delivers.

    ``goodput`` is the bytes per second of so many connections. A server serves ``places`` at most and refuses others.
    """

    limit: Limit
    goodput: Callable[[int], float]
    places: int = 10**9
    short: bool = False
    now: float = 0.0
    received: float = 0.0
    most: int = 0
    refusals: list[float] = field(default_factory=list)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        until = self.now + seconds
        while self.now < until:
            self.now += STEP
            self.most = max(self.most, self.limit.allowed)
            for serving in range(self.limit.allowed - 1, self.places - 1, -1):
                self.refusals.append(self.now)
                self.limit.refused(self.now, serving)
            allowed = self.limit.allowed
            self.received += STEP * self.goodput(allowed)
            self.limit.observe(self.now, int(self.received), allowed, allowed, allowed, short=self.short)


def capped(each: float, whole: float = float("inf")) -> Callable[[int], float]:
    """Make a line where a connection gets ``each`` bytes per second and all together no more than ``whole``."""
    return lambda connections: min(connections * each, whole)


def numbers(limit: Limit) -> list[int]:
    """List the numbers of connections that were allowed, in order."""
    return [level.connections for level in limit.levels]


@pytest.mark.parametrize("most", [1, 2, 7, 8, 9, 64, 1000])
def test_it_begins_with_few(most: int) -> None:
    """Or with the ceiling if that is lower; one level says so, at the very beginning."""
    limit = Limit(most, 5.0)
    assert limit.allowed == min(START, most)
    assert limit.trying == (most > START)
    assert [(level.seconds, level.connections, level.bytes_per_second) for level in limit.levels] == [
        (0.0, min(START, most), 0)
    ]


@pytest.mark.parametrize(("most", "steps"), [(128, [8, 32, 128]), (64, [8, 32, 64]), (20, [8, 20]), (9, [8, 9])])
def test_it_leaps_as_long_as_each_connection_is_capped(most: int, steps: list[int]) -> None:
    """To the ceiling and not beyond, within a second; from there on nothing is tried any more."""
    line = Line(begin(most), capped(1e6))
    line.run(1.0)
    assert numbers(line.limit) == steps
    line.run(300.0)
    assert numbers(line.limit) == steps
    assert line.limit.rising
    assert line.limit.rate == pytest.approx(most * 1e6, rel=0.01)


def test_levels_tell_what_came_before_each_change() -> None:
    """Seconds since the beginning, the number from then on, and the rate that the one before had brought."""
    line = Line(begin(64, 100.0), capped(1e6), now=100.0)
    line.run(2.0)
    assert [level.seconds for level in line.limit.levels] == sorted(level.seconds for level in line.limit.levels)
    assert all(0 <= level.seconds < 1 for level in line.limit.levels)
    rates = [level.bytes_per_second for level in line.limit.levels]
    assert rates == [0, pytest.approx(8e6, rel=0.01), pytest.approx(32e6, rel=0.01)]


@pytest.mark.parametrize("fits", [1, 8, 16, 32])
def test_it_settles_where_the_line_is_full(fits: int) -> None:
    """The step that brought nothing is taken back, and tried again ever more seldom: a line may get wider."""
    line = Line(begin(64), capped(1e6, fits * 1e6))
    line.run(3.5)
    settled = line.limit.allowed
    assert settled == max(FIRST, fits)
    assert not line.limit.rising
    line.run(600.0)
    assert line.limit.allowed == settled
    assert line.most <= 4 * settled
    tries = [level.seconds for level in line.limit.levels[1:] if level.connections == 2 * settled]
    tries = [seconds for seconds in tries if seconds > 1.5]  # those before belong to the first climb
    waits = [after - before for before, after in itertools.pairwise(tries)]
    assert waits[0] >= 3
    assert sum(level.connections > 2 * settled for level in line.limit.levels) <= 1, "one leap too far is enough"
    assert all(before < after + 1 for before, after in itertools.pairwise(waits))
    assert all(60 <= wait <= 65 for wait in waits[5:])


def test_a_line_that_gets_wider_is_used() -> None:
    """What brought nothing at first is tried again."""
    line = Line(begin(64), capped(1e6, 8e6))
    line.run(10.0)
    assert line.limit.allowed == FIRST
    line.goodput = capped(1e6)
    line.run(10.0)
    assert line.limit.allowed == 64


def test_a_new_level_gets_time_for_slow_starts() -> None:
    """New connections that need half a second to get going are not taken for useless ones."""
    line = Line(begin(64), capped(1e6))
    while line.limit.allowed < 64:
        before = line.limit.allowed
        line.goodput = _slow_start(line, before)
        line.run(1.0)
        assert line.limit.allowed >= before
        assert line.now < 30


@pytest.mark.parametrize(("fits", "settled"), [(40, 32), (45, 32), (56, 64), (64, 64), (200, 128)])
def test_many_connections_are_for_lines_on_which_each_has_its_own_rate(fits: int, settled: int) -> None:
    """Beyond 32 a tenth more does not count: it may be taken from others who use the line."""
    line = Line(begin(128), capped(1e6, fits * 1e6))
    line.run(4.0)
    assert line.limit.allowed == settled


def _slow_start(line: Line, settled: int) -> Callable[[int], float]:
    """Make a line where connections beyond ``settled`` deliver only after half a second."""
    began = line.now
    return lambda connections: 1e6 * (connections if line.now - began > 0.5 else min(connections, settled))


def test_where_processors_are_short_a_rise_must_show_at_once() -> None:
    """The step back comes in a tenth of a second instead of a second, and as few as bring the same are left.

    Whoever is short from the start begins with fewer, and tries more later.
    """
    slow, quick = (Line(begin(64), capped(1e6, 8e6)) for _ in range(2))
    for line in (slow, quick):
        while line.limit.allowed == 8:
            line.run(STEP)
        line.short = line is quick
        while line.limit.allowed > 8:
            line.run(STEP)
    assert (numbers(slow.limit), numbers(quick.limit)) == ([8, 32, 16, 8], [8, 32, 1])
    assert quick.now < 0.3
    assert slow.now > 1
    poor = Line(Limit(64, 0.0, start=8, least=3), capped(1e6, 2e6), short=True)
    poor.run(0.9)
    assert numbers(poor.limit) == [8, 3]
    poor.run(300)
    assert min(numbers(poor.limit)) == 3
    assert max(numbers(poor.limit)) == 8


def test_fewer_are_not_kept_where_they_bring_less() -> None:
    """Processors may be short for another program's sake: then each connection counts, and the climb goes on."""
    line = Line(Limit(64, 0.0, start=8, least=2), capped(1e6, 64e6), short=True)
    line.run(1.0)
    assert numbers(line.limit) == [8, 2, 8, 32, 64]


def test_nothing_is_learnt_while_too_few_deliver() -> None:
    """Neither at the end, when little is left, nor while first answers are still to come."""
    for served, fetching in ((5, 8), (8, 7), (0, 8)):
        limit = begin(64)
        for step in range(1000):
            limit.observe(step * STEP, step * 10**6, served, served, fetching, short=False)
        assert numbers(limit) == [8]


def test_waiting_for_the_next_answer_is_part_of_what_a_level_brings() -> None:
    """Short runs on a line with long waits: few are in the middle of an answer at any time, and more would help."""
    limit = begin(64)
    for step in range(100):
        limit.observe(
            step * STEP, step * limit.allowed * 10**4, limit.allowed // 3, limit.allowed, limit.allowed, short=False
        )
    assert limit.allowed == 64


def test_refusals_that_come_together_are_one_level() -> None:
    """It is told once it is final."""
    line = Line(begin(64), capped(1e6), places=11)
    line.run(0.3)
    assert numbers(line.limit) == [8, 32, 11]
    refused = line.limit.levels[-1]
    assert line.limit.news(refused.seconds + 0.01) == line.limit.levels[1:-1]
    assert line.limit.news(refused.seconds + 0.2) == [refused]
    assert line.limit.news(refused.seconds + 0.3) == []


def test_one_connection_that_stalls_does_not_keep_the_others_from_being_judged() -> None:
    """Three quarters are enough."""
    limit = begin(64)
    for step in range(1000):
        served = limit.allowed - limit.allowed // 4
        limit.observe(step * STEP, step * 10**5, served, served, limit.allowed, short=False)
    assert numbers(limit)[:2] == [8, 32]


@pytest.mark.parametrize("places", [1, 3, 8, 11, 40, 63])
def test_a_busy_server_is_asked_by_as_many_as_it_serves(places: int) -> None:
    """After the first refusals the number is what was served; more are tried an eighth at a time, ever more seldom."""
    line = Line(begin(64), capped(1e6), places)
    line.run(2.0)
    assert line.limit.allowed in (places, places + max(1, places // 8))
    line.run(600.0)
    assert line.limit.refused_beyond == places
    late = [moment for moment in line.refusals if moment > 60]
    assert len(late) <= 12 * max(1, places // 8)
    assert line.most <= 64
    line.run(STEP)
    assert line.limit.allowed == places


def test_after_a_refusal_more_are_tried_step_by_step_and_kept_while_they_are_served() -> None:
    """A server that recovers is used again, up to the ceiling, without doubling."""
    line = Line(begin(64), capped(1e6), places=16)
    line.run(5.0)
    line.places = 10**9
    line.run(300.0)
    assert line.limit.allowed == 64
    climb = numbers(line.limit)
    climb = climb[-climb[::-1].index(16) - 1 :]
    assert all(0 < after - before <= max(1, before // 8) for before, after in itertools.pairwise(climb))


@dataclass
class Counting:
    """A server that counts requests: ``burst`` of them, and then no more than ``rate`` a second; others it refuses.

    Each that is served delivers ``each`` bytes per second; what is left is shared as the schedule does it.
    """

    rate: float
    burst: float
    each: float
    now: float = 0.0
    refusals: int = 0

    def run(self, limit: Limit, size: float) -> None:
        """Fetch ``size`` bytes; the clock then tells how long that took."""
        tokens, received, left, paused = self.burst, 0.0, size, 0.0
        waiting: list[tuple[float, float]] = []  # when a request arrives, and for how many bytes
        serving: list[float] = []  # bytes still to come of each answer
        while left > 0 or waiting or serving:
            self.now += STEP
            tokens = min(self.burst, tokens + self.rate * STEP)
            while left > 0 and self.now >= paused and len(waiting) + len(serving) < limit.allowed:
                run = min(left, max(1e6, min(64e6, left / limit.shares(len(waiting) + len(serving)))))
                waiting.append((self.now + STEP, run))
                left -= run
            due = [run for arrives, run in waiting if arrives <= self.now]
            waiting = [request for request in waiting if request[0] > self.now]
            for number, run in enumerate(due, 1):
                if tokens >= 1:
                    tokens -= 1
                    serving.append(run)
                    continue
                left += run
                self.refusals += 1
                limit.refused(self.now, under_way := len(serving) + len(waiting) + len(due) - number)
                paused = paused if under_way else self.now + 0.5
            received += sum(min(run, self.each * STEP) for run in serving)
            serving = [run - self.each * STEP for run in serving if run > self.each * STEP]
            if left > 0:
                fetching = len(waiting) + len(serving)
                limit.observe(self.now, int(received), len(serving), fetching, fetching, short=False)


@pytest.mark.parametrize(
    ("rate", "burst", "each", "refusals", "seconds"),
    [
        (5, 20, 10e6, 50, 23),  # each connection in turn: 79 refusals in 20 s
        (10, 50, 10e6, 145, 14),  # 174 in 13; a leap to 128 connections costs most of them
        (10, 100, 5e6, 130, 16),  # 158 in 14
        (50, 100, 5e6, 100, 14),  # 126 in 13
        (5, 64, 2e6, 170, 43),  # 212 in 39
    ],
)
def test_a_server_that_counts_requests_after_a_burst_is_not_refused_by_each_connection(
    rate: float, burst: float, each: float, refusals: int, seconds: float
) -> None:
    """What it let begin in the burst it does not let go on: not every one of those needs to hear that."""
    server = Counting(rate, burst, each)
    server.run(begin(128), 4e9)
    assert server.refusals <= refusals
    assert server.now <= seconds


def test_a_server_that_refuses_everything_is_asked_by_one() -> None:
    """Never by nobody: somebody must find out when it recovers."""
    limit = begin(64)
    for serving in (7, 3, 0, 0, 0):
        limit.refused(1.0, serving)
        assert limit.allowed == max(1, serving)
    assert limit.refused_beyond == 1


def test_a_refusal_while_more_are_under_way_than_allowed_does_not_raise_the_number() -> None:
    """Requests that were under way before the step back may be refused late."""
    limit = begin(64)
    limit.refused(0.1, 3)
    limit.refused(0.1, 6)
    assert limit.allowed == 3


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_the_number_stays_within_its_bounds(seed: int) -> None:
    """At least one, at most the ceiling, whatever comes and is refused; every change is a level."""
    rng = random.Random(seed)
    most = rng.choice([1, 2, 8, 9, 64, 1000])
    limit, now, received = begin(most), 0.0, 0
    changes = [limit.allowed]
    for _ in range(3000):
        now += rng.uniform(0, 0.3)
        received += rng.randrange(10**7)
        fetching = rng.randint(0, limit.allowed)
        if rng.random() < 0.02:
            limit.refused(now, rng.randint(0, most))
        else:
            served = rng.choice([fetching, limit.allowed])
            limit.observe(now, received, fetching, served, limit.allowed, short=rng.random() < 0.5)
        assert 1 <= limit.allowed <= most
        assert 1 <= limit.shares(fetching) <= most
        if limit.allowed != changes[-1]:
            changes.append(limit.allowed)
    assert numbers(limit)[0] == changes[0]
    assert numbers(limit)[-1] == changes[-1]
    assert all(level.seconds >= 0 and level.bytes_per_second >= 0 for level in limit.levels)


def test_a_rise_is_worth_it_only_if_it_is_one() -> None:
    """What lies within the noise of a line is not kept."""
    for rise, kept in ((RISE - 0.05, False), (RISE + 0.05, True)):
        line = Line(begin(16), lambda connections, rise=rise: 1e6 * (rise if connections > 8 else 1))  # type: ignore[misc]
        line.run(2.5)
        assert (line.limit.allowed == 16) == kept
