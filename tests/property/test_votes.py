"""Which answer is believed: properties of the votes, whatever a server answers in whatever order."""

from __future__ import annotations

import itertools
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from fastdl.digest import Digest
from fastdl.plan import Run
from fastdl.votes import Answers, Votes, named, runs_of

ANSWERS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=60)


def digest(value: int) -> Digest:
    """Make one of few digests: equal values agree."""
    return Digest(value, value)


@given(ANSWERS)
def test_a_part_is_settled_by_what_came_twice(answers: list[tuple[int, int]]) -> None:
    """Counted by hand: settled exactly when the newest answer had come before, and not earlier."""
    votes = Votes(lambda _: digest(0))
    heard = {index: [0] for index in range(6)}
    disputed: set[int] = set()
    replaced: dict[int, Digest] = {}
    for index, value in answers:
        settled = value in heard[index]
        assert votes.hear(index, digest(value)) == settled
        if settled:
            replaced |= {index: digest(value)} if value != heard[index][0] else {}
            heard[index] = [0]
        else:
            heard[index].append(value)
            disputed.add(index)
    assert (votes.disputed, votes.replaced) == (disputed, replaced)
    assert votes.undecided == {index for index, values in heard.items() if len(values) > 1}


@given(ANSWERS)
def test_what_is_kept_came_last_and_came_twice(answers: list[tuple[int, int]]) -> None:
    """The bytes on the disk are those of the newest answer: only its own digest may be recorded for them."""
    kept: list[tuple[int, Digest]] = []
    votes = Votes(lambda _: digest(0))
    hearing = Answers(votes, [Run(0, 6)], lambda index, value: kept.append((index, value)))
    counts: Counter[tuple[int, int]] = Counter((index, 0) for index in range(6))
    for index, value in answers:
        before = len(kept)
        hearing.mark(index, digest(value))
        counts[index, value] += 1
        assert kept[before:] in ([], [(index, digest(value))])
        if kept[before:]:
            assert counts[index, value] > 1
    assert hearing.store


@given(st.sets(st.integers(0, 40)))
def test_runs_hold_exactly_the_indices(indices: set[int]) -> None:
    """In order, none empty, no two touching."""
    runs = runs_of(indices)
    assert [index for run in runs for index in range(run.first, run.stop)] == sorted(indices)
    assert all(run.stop < following.first for run, following in itertools.pairwise(runs))


def test_answers_that_are_only_compared_are_not_stored() -> None:
    """Agreement says nothing to anybody, disagreement is counted."""
    votes = Votes(lambda _: digest(0))
    answers = Answers(votes, [Run(0, 2)])
    answers.mark(0, digest(0))
    answers.mark(1, digest(1))
    assert (answers.store, votes.disputed, votes.undecided) == (False, {1}, {1})


def test_a_part_that_is_doubted_from_the_start_takes_one_answer() -> None:
    """Its first digest is what is wanted: the same once more settles it, another one does not."""
    votes = Votes(digest, undecided=[3, 4])
    assert (votes.undecided, votes.disputed) == ({3, 4}, {3, 4})
    assert (votes.hear(3, digest(3)), votes.hear(4, digest(9))) == (True, False)
    assert (votes.undecided, votes.replaced) == ({4}, {})


def test_names_for_people() -> None:
    """Runs are shortened, and a long list ends in a number."""
    assert named([]) == ""
    assert named([101, 7, 100]) == "7, 100-101"
    assert named(range(0, 60, 2)) == ", ".join(map(str, range(0, 40, 2))) + " and 10 more"
