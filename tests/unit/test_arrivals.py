"""Readers and fetcher of one object: what they learn from each other, and that nobody waits for ever."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from fastdl.arrivals import Arrivals
from fastdl.errors import Cancelled, NetworkError
from fastdl.plan import NO_PARTS, Plan, Run
from fastdl.result import LoadResult

if TYPE_CHECKING:
    from collections.abc import Callable

PLAN = Plan(1000, 100)
RESULT = LoadResult("http://h/", 1000, "", 0, "length", 100, 10, (), 1000, 1, 0, 0.1, 1, "")
PATIENCE = 30.0


def begun(ring: int = 0) -> Arrivals:
    """Return the arrivals of ten parts."""
    arrivals = Arrivals(ring)
    arrivals.begin(PLAN.size, PLAN)
    return arrivals


def in_thread(call: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Call something that waits; what it returned or raised is in the list once the thread ended."""
    came: list[object] = []

    def run() -> None:
        try:
            came.append(call())
        except Exception as error:  # noqa: BLE001 - whatever it is
            came.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, came


def test_a_reader_hears_of_the_part_it_waits_for() -> None:
    """And of no other; it is wanted meanwhile."""
    arrivals = begun()
    nudged = threading.Event()
    arrivals.heed(nudged.set)
    thread, came = in_thread(lambda: arrivals.until_there(250, 410))
    assert nudged.wait(PATIENCE)
    assert arrivals.wanted() == [Run(2, 5)]
    assert arrivals.wanted() == []
    arrivals.arrived(Run(2, 4))
    arrivals.arrived(Run(9, 10))
    assert not came
    arrivals.arrived(Run(4, 5))
    thread.join(PATIENCE)
    assert came == [True]


def test_what_is_there_is_not_wanted() -> None:
    """Nobody is told to bring forward what has come."""
    arrivals = begun()
    arrivals.arrived(Run(0, 3))
    arrivals.until_there(0, 300)
    arrivals.advance(500)
    arrivals.until_there(300, 500)
    assert arrivals.wanted() == []


def test_the_ring_gives_room_for_what_was_read_and_hashed() -> None:
    """Both must be done with a byte before it is overwritten."""
    arrivals = begun(ring=300)
    assert arrivals.horizon == 3
    arrivals.read(250)
    assert arrivals.horizon == 5
    arrivals.hashed(0)
    assert arrivals.horizon == 3
    arrivals.hashed(199)
    assert arrivals.horizon == 4
    arrivals.hashed(700)
    assert arrivals.horizon == 5
    arrivals.read(701)
    assert arrivals.horizon == 10  # the last part needs no more than it has
    assert arrivals.room(999, 0) == 1
    assert arrivals.room(1000, 0) == 0


@pytest.mark.parametrize(("connections", "step"), [(1, 32), (8, 4), (32, 1), (1000, 1)])
def test_a_share_of_half_the_ring(connections: int, step: int) -> None:
    """At least one part."""
    arrivals = Arrivals(64 * 100)
    arrivals.begin(10**6, Plan(10**6, 100))
    assert arrivals.step(connections) == step


def test_a_reader_that_moves_wakes_the_fetcher_when_a_part_is_free() -> None:
    """And not for less."""
    arrivals = begun(ring=300)
    nudges: list[int] = []
    arrivals.heed(lambda: nudges.append(1))
    arrivals.read(99)
    assert nudges == []
    arrivals.read(100)
    assert nudges == [1]


def test_the_end_is_told_only_when_it_was_judged() -> None:
    """All bytes being there is not enough."""
    arrivals = begun()
    arrivals.advance(1000)
    assert arrivals.until_front(0) == 1000
    thread, came = in_thread(lambda: arrivals.until_front(1000))
    assert not came
    arrivals.end(RESULT, None)
    thread.join(PATIENCE)
    assert came == [1000]
    assert arrivals.until_ended() is RESULT


@pytest.mark.parametrize("call", ["until_begun", "until_ended", "until_front", "until_there"])
def test_a_failure_reaches_whoever_waits_and_whoever_asks_later(call: str) -> None:
    """Each of them gets the error itself."""
    arrivals = Arrivals()
    arguments = {"until_front": (0,), "until_there": (0, 1)}.get(call, ())
    thread, came = in_thread(lambda: getattr(arrivals, call)(*arguments))
    error = NetworkError("gone")
    arrivals.end(None, error)
    thread.join(PATIENCE)
    assert came == [error]
    with pytest.raises(NetworkError, match="gone"):
        getattr(arrivals, call)(*arguments)


def test_cancelling_wakes_readers() -> None:
    """Whoever waits is told; a nudge to a pipe that is closed hurts nobody."""
    arrivals = begun()

    def closed() -> None:
        raise OSError("closed")

    arrivals.heed(closed)
    thread, came = in_thread(lambda: arrivals.until_front(0))
    arrivals.cancel()
    thread.join(PATIENCE)
    assert isinstance(came[0], Cancelled)
    assert arrivals.cancellation.wanted


def test_a_stream_without_parts_is_waited_for_by_its_front() -> None:
    """Its size is known at its end."""
    arrivals = Arrivals()
    arrivals.begin(None, NO_PARTS)
    assert arrivals.until_begun() is None
    thread, came = in_thread(lambda: arrivals.until_there(0, 50))
    arrivals.advance(49)
    assert not came
    arrivals.advance(50)
    thread.join(PATIENCE)
    assert came == [True]
    arrivals.end(RESULT, None)
    assert arrivals.until_begun() == 1000
