"""Words that processes share, and the pace that they keep together."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from fastdl.counters import Counters, nbytes

if TYPE_CHECKING:
    from collections.abc import Iterator

SLOTS = 5
RATE = 1_000_000  # bytes per second


@contextmanager
def shared(slots: int = SLOTS, users: int = 1) -> Iterator[list[Counters]]:
    """Yield ``users`` mappings of the same words, as caller and workers have them."""
    fd = os.memfd_create("counters")
    try:
        os.ftruncate(fd, nbytes(slots))
        counters = [Counters(fd, slots) for _ in range(users)]
        yield counters
        for each in counters:
            each.close()
    finally:
        os.close(fd)


class Clock:
    """The time as a test tells it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic_ns", lambda: int(self.now * 1e9))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace the time."""
    return Clock(monkeypatch)


@pytest.mark.parametrize("slots", [1, 2, 169, 170, 171, 2000])
def test_every_word_is_a_word_of_its_own(slots: int) -> None:
    """However many slots there are: all words of all kinds, and the pace, are written without touching another."""
    with shared(slots, users=2) as (ours, theirs):
        for kind, words in enumerate((ours.received, ours.reported, ours.marked)):
            assert len(words) == slots
            for slot in range(slots):
                words[slot] = 10**12 * kind + slot + 1
        ours.limit(1, 0.0)
        for kind, words in enumerate((theirs.received, theirs.reported, theirs.marked)):
            assert list(words) == [10**12 * kind + slot + 1 for slot in range(slots)]
        assert theirs.limited == 1


def test_what_a_dead_worker_reported_is_forgotten() -> None:
    """Only its own slots are, and what it received stays counted."""
    with shared() as (counters,):
        for slot in range(SLOTS):
            counters.received[slot] = counters.reported[slot] = 7
            counters.marked[slot] = 5
        counters.forget(range(1, 3))
        assert list(counters.reported) == [7, 5, 5, 7, 7]
        assert list(counters.marked) == [5] * 5
        assert list(counters.received) == [7] * 5


def test_without_a_limit_there_is_no_pace(clock: Clock) -> None:
    """Whatever comes, however fast."""
    with shared() as (counters,):
        counters.received[0] = 10**15
        clock.now += 1e-9
        assert (counters.excess(), counters.limited) == (0.0, 0)


def test_all_slots_share_one_pace(clock: Clock) -> None:
    """Each process sees the same wait, whoever received; it ends when the time has come."""
    with shared(users=2) as (ours, theirs):
        ours.limit(RATE, 0.0)
        assert theirs.excess() == 0
        for slot in range(4):
            theirs.received[slot] = RATE // 2
        assert ours.excess() == theirs.excess() == pytest.approx(2.0)
        clock.now += 1.5
        assert theirs.excess() == pytest.approx(0.5)
        clock.now += 0.5001
        assert theirs.excess() == 0


def receive(counters: Counters, clock: Clock, nbytes: int, window: int = 50_000) -> float:
    """Receive ``nbytes`` as slots do, the caller renewing the limit ten times a second; return the seconds it took."""
    began, next_tick = clock.now, clock.now
    while nbytes > 0:
        while excess := counters.excess():
            clock.now += min(excess, 0.01)
            if clock.now >= next_tick:
                counters.limit(counters.limited, 0.2)
                next_tick = clock.now + 0.1
        counters.received[nbytes // window % SLOTS] += window
        nbytes -= window
    return clock.now - began


def test_the_pace_is_kept_exactly(clock: Clock) -> None:
    """Ten seconds' bytes take ten seconds."""
    with shared() as (counters,):
        counters.limit(RATE, 0.0)
        assert receive(counters, clock, 10 * RATE) == pytest.approx(10, rel=0.02)


def test_what_was_not_used_is_kept_for_a_moment_only(clock: Clock) -> None:
    """A line that stood still for a minute is followed by a fifth of a second's bytes at once, not by a minute's."""
    with shared() as (counters,):
        counters.limit(RATE, 0.0)
        receive(counters, clock, 2 * RATE)
        clock.now += 60
        counters.limit(RATE, 0.2)
        assert counters.excess() == 0
        counters.received[1] += RATE // 5
        assert counters.excess() <= 0.001
        assert receive(counters, clock, 2 * RATE) == pytest.approx(2, rel=0.05)


def test_a_short_pause_costs_nothing(clock: Clock) -> None:
    """What a tenth of a second left unused is made up for."""
    with shared() as (counters,):
        counters.limit(RATE, 0.0)
        receive(counters, clock, RATE)
        clock.now += 0.1
        counters.limit(RATE, 0.2)
        assert receive(counters, clock, RATE) == pytest.approx(0.9, abs=0.06)


def test_the_real_clock_is_kept_as_well() -> None:
    """Three tenths of a second's bytes do not take less."""
    with shared() as (counters,):
        counters.limit(RATE, 0.0)
        began = time.monotonic()
        for _ in range(30):
            while excess := counters.excess():
                time.sleep(excess)
            counters.received[0] += RATE // 100
        assert time.monotonic() - began >= 0.29
        assert counters.excess() <= 0.01
