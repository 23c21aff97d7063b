"""Who moves, stands still or crawls is told from counts alone."""

from __future__ import annotations

import pytest

from fastdl.watch import Watches

TICK = 0.1
SLOTS = 20


class Counts:
    """Watches over slots that receive at rates of their own, and their clock; order ``n`` is on slot ``n``."""

    def __init__(self, *rates: float) -> None:
        self.watches = Watches()
        self.received = [0.0] * SLOTS
        self.rates = list(rates) + [0.0] * (SLOTS - len(rates))
        self.now = 100.0
        for slot in range(len(rates)):
            self.begin(slot)

    def begin(self, slot: int, number: int | None = None) -> None:
        """Give an order to a slot."""
        self.watches.begin(slot, slot if number is None else number, int(self.received[slot]), self.now)

    def run(self, seconds: float, *, at_end: bool = False) -> list[int]:
        """Let time pass; return which orders were renewed."""
        renewed: list[int] = []
        for _ in range(round(seconds / TICK)):
            self.now += TICK
            self.received = [count + TICK * rate for count, rate in zip(self.received, self.rates, strict=True)]
            self.watches.look(self.now, [int(count) for count in self.received])
            renewed.extend(watched.number for watched in self.watches.crawling(self.now, at_end=at_end))
        return renewed


def test_rates_follow_what_comes() -> None:
    """Smoothed, but right within a second, whatever the slot had received for earlier orders."""
    counts = Counts(1e6, 5e6)
    counts.run(2)
    counts.watches.end(1)
    counts.begin(1, 7)
    counts.rates[0], counts.rates[1] = 3e6, 4e6
    counts.run(2)
    assert counts.watches.orders[0].rate == pytest.approx(3e6, rel=0.01)
    assert counts.watches.orders[7].rate == pytest.approx(4e6, rel=0.01)


def test_who_delivers_is_who_has_received_anything() -> None:
    """Of this order: what the slot received before does not count."""
    counts = Counts(1e6, 0, 1e6)
    assert counts.watches.delivering == 0
    counts.run(1)
    assert counts.watches.delivering == 2
    counts.watches.end(0)
    counts.rates[0] = 0
    counts.begin(0, 8)
    counts.run(1)
    assert counts.watches.delivering == 1
    assert counts.watches.served == 2, "the one that waits for its next answer had one before"
    counts.watches.end(8)
    counts.begin(0, 9)
    assert counts.watches.served == 1, "its last one brought nothing"


def test_how_long_answers_usually_take_to_begin() -> None:
    """The median of the waits for first bytes; nothing as long as none came."""
    counts = Counts(0, 0, 0)
    counts.run(0.5)
    assert counts.watches.first_byte == 0
    counts.rates[:2] = [1e6, 1e6]
    counts.run(0.1)
    counts.rates[2] = 1e6
    counts.run(5)
    assert counts.watches.first_byte == pytest.approx(0.6)


def test_the_usual_rate_is_the_median_of_the_others() -> None:
    """It is not known from one connection, and the one that is judged has no say in it."""
    counts = Counts(1e6)
    counts.run(2)
    assert counts.watches.usual() == 0
    for slot, rate in ((1, 3e6), (2, 50e6)):
        counts.rates[slot] = rate
        counts.begin(slot)
    counts.run(3)
    assert counts.watches.usual() == pytest.approx(3e6, rel=0.01)
    assert counts.watches.usual(counts.watches.orders[2]) == pytest.approx(2e6, rel=0.01)


def test_connections_that_ended_are_remembered_when_few_are_left() -> None:
    """The last one of all is compared with those before; one that received nothing tells nothing."""
    counts = Counts(4e6, 4e6, 0, 1e6)
    counts.run(2)
    for number in (0, 1, 2):
        counts.watches.end(number)
    assert counts.watches.usual(counts.watches.orders[3]) == pytest.approx(4e6, rel=0.1)
    assert list(counts.watches.orders) == [3]
    assert counts.run(1, at_end=True) == [3]


def test_who_crawls_is_renewed() -> None:
    """Far slower than the others, after a second of grace; the others are left alone."""
    counts = Counts(1e6, 1e6, 1e6, 1e4)
    assert counts.run(0.9) == []
    assert counts.run(1) == [3]


def test_a_slow_connection_is_not_a_crawling_one() -> None:
    """A fifth of the usual rate is borne, but not when it holds up the end."""
    counts = Counts(1e6, 1e6, 1e6, 2e5)
    assert counts.run(30) == []
    assert counts.run(0.2, at_end=True) == [3]
    assert Counts(1e6, 1e6, 1e6, 5e5).run(30, at_end=True) == []


def test_a_line_that_is_slow_for_all_makes_nobody_crawl() -> None:
    """There is nothing to be won by another connection."""
    assert Counts(1e3, 1e3, 1e3, 1e3).run(30, at_end=True) == []
    assert Counts(0, 0, 0, 0).run(30, at_end=True) == []
    assert Counts(1e3).run(30, at_end=True) == []


def test_a_renewed_connection_gets_time_and_is_renewed_three_times_at_most() -> None:
    """A server that is slow with one range is not asked for it for ever; each time it gets longer."""
    counts = Counts(1e6, 1e6, 1e6, 1e4)
    moments = [counts.now - 100.0 for _ in range(600) if counts.run(TICK)]
    assert len(moments) == 3
    assert moments[0] < 2
    assert moments[1] - moments[0] >= 2
    assert moments[2] - moments[1] >= 4
    assert counts.watches.orders[3].renewals == 3


def test_a_connection_that_got_going_is_left_alone() -> None:
    """After it was renewed it is as fast as the others."""
    counts = Counts(1e6, 1e6, 1e6, 1e4)
    assert counts.run(1.5) == [3]
    counts.rates[3] = 1e6
    assert counts.run(30, at_end=True) == []


def test_an_answer_that_is_late_has_its_time() -> None:
    """Who still waits for the first byte is renewed only when it waits much longer than is usual."""
    counts = Counts(0, 0, 0, 0)
    counts.run(2)
    counts.rates[:3] = [1e6] * 3
    assert counts.run(5) == []  # after 7 seconds; 2 are usual
    assert counts.run(2) == [3]


def test_a_stall_is_told_by_the_last_byte() -> None:
    """Not by the first or the average; once told, an order is told again and again."""
    counts = Counts(1e6, 1e6)
    counts.run(10)
    counts.rates[1] = 0
    counts.run(0.9)
    assert list(counts.watches.stalled(counts.now, 1.0)) == []
    counts.run(0.3)
    since = counts.now
    assert [watched.number for watched in counts.watches.stalled(counts.now, 1.0)] == [1]
    counts.run(3)
    (again,) = counts.watches.stalled(counts.now, 1.0)
    assert again.aborted == since
    counts.watches.end(1)
    assert list(counts.watches.stalled(counts.now, 1.0)) == []


def test_bytes_that_trickle_are_no_stall() -> None:
    """One byte in time is enough."""
    counts = Counts(2)
    for _ in range(30):
        counts.run(1)
        assert list(counts.watches.stalled(counts.now, 1.0)) == []


def test_an_order_that_never_got_a_byte_stalls_too() -> None:
    """Counted from when it was given."""
    counts = Counts(0)
    counts.run(1.2)
    assert [watched.number for watched in counts.watches.stalled(counts.now, 1.0)] == [0]
