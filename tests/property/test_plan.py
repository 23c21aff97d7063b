"""Parts and spans tile every object."""

from __future__ import annotations

import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from fastdl.limit import Limit
from fastdl.plan import (
    LEAST_SPAN,
    MAX_PART_COUNT,
    MAX_SPAN,
    Plan,
    Run,
    make_plan,
    probe_length,
    span_length,
)
from fastdl.retry import Backoff
from fastdl.schedule import Schedule

counts = st.integers(1, 300)
part_sizes = st.integers(1, 2**32)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Draw an object of up to 300 parts, the last one of any length."""
    part_size = draw(part_sizes)
    return Plan((draw(counts) - 1) * part_size + draw(st.integers(1, part_size)), part_size)


@given(plans())
def test_parts_tile_the_object(plan: Plan) -> None:
    """Parts are contiguous, non-empty, of one length but for the last, and cover exactly [0, size)."""
    parts = [plan.part(index) for index in range(plan.count)]
    assert [part.index for part in parts] == list(range(plan.count))
    assert (parts[0].start, parts[-1].stop) == (0, plan.size)
    assert all(before.stop == after.start for before, after in itertools.pairwise(parts))
    assert all(part.nbytes == plan.part_size for part in parts[:-1])
    assert 0 < parts[-1].nbytes <= plan.part_size


@given(plans(), st.data())
def test_a_run_holds_the_bytes_of_its_parts(plan: Plan, data: st.DataObject) -> None:
    """Bounds and length of a run are those of the parts in it."""
    first = data.draw(st.integers(0, plan.count - 1))
    run = Run(first, data.draw(st.integers(first + 1, plan.count)))
    parts = [plan.part(index) for index in range(run.first, run.stop)]
    assert plan.bounds(run) == (parts[0].start, parts[-1].stop)
    assert plan.nbytes(run) == sum(part.nbytes for part in parts)


@given(plans(), st.integers(1, 64))
def test_spans_tile_the_object(plan: Plan, connections: int) -> None:
    """Spans taken one after the other are contiguous, non-empty, bounded and cover every part once."""
    limit = Limit(connections, 0.0)
    schedule = Schedule(plan, [Run(0, plan.count)], [], limit, Backoff(), random.Random(0))
    reached = 0
    while taken := schedule.take(0.0):
        number, run = taken
        assert run.first == reached
        assert 0 < len(run) <= max(1, MAX_SPAN // plan.part_size)
        reached = run.stop
        schedule.complete(number, len(run))
        assert schedule.leases.end(number) is None
    assert reached == plan.count
    assert schedule.finished


@given(st.integers(0, 2**50), st.none() | st.integers(1, 5 * 2**30))
def test_every_plan_is_bounded_and_covers(size: int, part_size: int | None) -> None:
    """Whatever make_plan accepts has few enough parts, and they reach the end."""
    if part_size is not None:
        part_size = max(part_size, -(-size // MAX_PART_COUNT))
    plan = make_plan(size, part_size)
    assert plan.count <= MAX_PART_COUNT
    assert (plan.count - 1) * plan.part_size < size <= plan.count * plan.part_size or size == plan.count == 0


@given(part_sizes)
def test_the_probe_is_whole_parts(part_size: int) -> None:
    """The first request never cuts a part."""
    assert probe_length(part_size) % part_size == 0
    assert probe_length(part_size) >= part_size


@given(plans(), st.integers(0, 2**24), st.integers(1, 1024))
def test_a_span_is_at_least_one_part_and_at_most_its_share(plan: Plan, remaining: int, connections: int) -> None:
    """No request is empty, and none takes so much that the other connections starve, but for what is not worth one."""
    count = span_length(plan, remaining, connections)
    assert count >= 1
    assert count == 1 or count * connections <= remaining or (count - 1) * plan.part_size < LEAST_SPAN
    assert count <= max(1, remaining)


@given(plans(), st.integers(0, 2**24), st.integers(1, 1024), st.integers(1, 2**40))
def test_a_span_is_worth_its_wait(plan: Plan, remaining: int, connections: int, least: int) -> None:
    """The longer answers take to begin, the more each request is for, but for no part more than is worth it."""
    count, plain = span_length(plan, remaining, connections, least), span_length(plan, remaining, connections)
    assert plain <= count <= max(1, MAX_SPAN // plan.part_size)
    assert count <= max(1, remaining)
    assert count == plain or (count - 1) * plan.part_size < least
    assert count * plan.part_size >= min(least, MAX_SPAN - plan.part_size, max(1, remaining) * plan.part_size)
