"""What nobody fetches yet: held against a list of parts in the order in which they should come."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fastdl.missing import Missing
from fastdl.plan import Run


def order(missing: Missing, *, ordered: bool = False) -> list[int]:
    """Take everything out, part by part."""
    parts: list[int] = []
    while (run := missing.next(ordered=ordered)) is not None:
        parts.extend(range(run.first, run.stop))
        missing.take(run, len(run))
    assert missing.parts == 0
    return parts


runs = st.lists(st.integers(1, 5), max_size=8).map(
    lambda lengths: [
        Run(sum(lengths[:at]) + 2 * at, sum(lengths[:at]) + 2 * at + length) for at, length in enumerate(lengths)
    ]
)
spans = st.tuples(st.integers(0, 40), st.integers(1, 20)).map(lambda span: Run(span[0], span[0] + span[1]))


@given(runs, st.lists(spans, max_size=3))
def test_what_is_wanted_comes_first_and_nothing_is_lost(given_runs: list[Run], wanted: list[Run]) -> None:
    """Bringing forward changes the order and nothing else."""
    missing = Missing(given_runs)
    expected = [part for run in given_runs for part in range(run.first, run.stop)]
    for want in wanted:
        inside = [part for part in expected if want.first <= part < want.stop]
        expected = inside + [part for part in expected if part not in inside]
        assert missing.forward(want) == bool(inside)
        assert missing.parts == len(expected)
    assert order(missing) == expected


@given(runs, st.lists(spans, max_size=3))
def test_in_order_the_lowest_part_is_always_next(given_runs: list[Run], wanted: list[Run]) -> None:
    """Whatever was brought forward or put back."""
    missing = Missing(given_runs)
    for want in wanted:
        missing.forward(want)
    parts = order(missing, ordered=True)
    assert parts == sorted(parts)


@given(runs, spans, st.integers(0, 60))
def test_adopting_takes_out_a_run_that_is_wholly_missing(given_runs: list[Run], run: Run, at: int) -> None:
    """Or nothing; what is put back and added is there again."""
    missing = Missing(given_runs)
    parts = [part for each in given_runs for part in range(each.first, each.stop)]
    whole = any(each.first <= run.first and run.stop <= each.stop for each in given_runs)
    assert missing.adopt(run) == whole
    assert missing.parts == len(parts) - (len(run) if whole else 0)
    if whole:
        missing.put_back(run)
    missing.add(100 + at)
    assert sorted(order(missing)) == [*parts, 100 + at]
