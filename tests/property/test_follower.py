"""Whatever the order in which parts become final, the digest is that of the object."""

from __future__ import annotations

import hashlib
import os

from hypothesis import given
from hypothesis import strategies as st

from fastdl.follower import Follower, Frontier
from fastdl.plan import Plan, Run

KIND = ("sha256", None)


@given(st.data(), st.binary(min_size=1, max_size=3000), st.integers(1, 400), st.integers(0, 3))
def test_parts_in_any_order(draws: st.DataObject, data: bytes, part_size: int, restarts: int) -> None:
    """Each part is written just before it is final, over garbage; a restart voids all of them."""
    plan = Plan(len(data), part_size)
    fd = os.memfd_create("output")
    try:
        with Follower(fd, [KIND]) as follower:
            for again in range(restarts + 1):
                os.pwrite(fd, bytes([again]) * len(data), 0)
                frontier = Frontier(plan, follower.advance)
                order = draws.draw(st.permutations(range(plan.count)))
                for index in order if again == restarts else order[: plan.count // 2]:
                    part = plan.part(index)
                    os.pwrite(fd, data[part.start : part.stop], part.start)
                    frontier.add(Run(index, index + 1))
                if again < restarts:
                    follower.restart()
            assert follower.finish(len(data), lambda: None)[KIND] == hashlib.sha256(data).hexdigest()
    finally:
        os.close(fd)


@given(st.integers(1, 60), st.data())
def test_the_frontier_is_never_beyond_a_gap(count: int, draws: st.DataObject) -> None:
    """It only moves on, and to where the first part is missing that nobody told of."""
    plan, told, final = Plan(10 * count - 3, 10), [0], set[int]()
    frontier = Frontier(plan, told.append)
    for _ in range(draws.draw(st.integers(1, 30))):
        first = draws.draw(st.integers(0, count - 1))
        run = Run(first, draws.draw(st.integers(first + 1, count)))
        frontier.add(run)
        final |= set(range(run.first, run.stop))
        gap = next((index for index in range(count) if index not in final), count)
        assert told[-1] == min(10 * gap, plan.size)
    assert told == sorted(set(told))
