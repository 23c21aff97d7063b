"""Sizes, parts and spans."""

from __future__ import annotations

import pytest

from fastdl.errors import UsageError
from fastdl.plan import (
    DEFAULT_PART_SIZE,
    GIB,
    KIB,
    MAX_PART_COUNT,
    MAX_PART_SIZE,
    MAX_SPAN,
    MIB,
    Part,
    Plan,
    Run,
    check_part_size,
    make_plan,
    make_stream_plan,
    parse_size,
    probe_length,
    span_length,
)


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("1048576", MIB),
        ("1", 1),
        ("1B", 1),
        ("512k", 512 * KIB),
        ("512KB", 512 * KIB),
        ("16M", 16 * MIB),
        ("16MiB", 16 * MIB),
        (" 16 mb ", 16 * MIB),
        ("5G", 5 * GIB),
        ("1T", 1024 * GIB),
    ],
)
def test_a_size_is_bytes_or_powers_of_1024(text: str, nbytes: int) -> None:
    """Every spelling that people's fingers know means the same power of 1024."""
    assert parse_size(text) == nbytes


@pytest.mark.parametrize("text", ["", "M", "1.5M", "-1", "+1", "1e6", "0x10", "16Mi B", "1 2", "16\u212a", "9" * 21])
def test_what_is_no_size_is_refused(text: str) -> None:
    """Nothing is guessed: a fraction, a sign, a look-alike unit or an absurd length is a usage error."""
    with pytest.raises(UsageError, match="is no size"):
        parse_size(text)


@pytest.mark.parametrize("part_size", [0, -1, MAX_PART_SIZE + 1])
def test_a_part_size_out_of_bounds_is_refused(part_size: int) -> None:
    """Part sizes are 1 B to 5 GiB, before anything is touched."""
    with pytest.raises(UsageError, match="outside 1 B to 5 GiB"):
        check_part_size(part_size)


@pytest.mark.parametrize("part_size", [1, MAX_PART_SIZE])
def test_the_bounds_of_the_part_size_are_allowed(part_size: int) -> None:
    """Both ends of the interval are inside it."""
    assert check_part_size(part_size) == part_size


@pytest.mark.parametrize(
    ("size", "count", "last"),
    [
        (0, 0, None),
        (1, 1, Part(0, 0, 1)),
        (9, 1, Part(0, 0, 9)),
        (10, 1, Part(0, 0, 10)),
        (11, 2, Part(1, 10, 11)),
        (29, 3, Part(2, 20, 29)),
        (30, 3, Part(2, 20, 30)),
        (2**32 + 1, 429_496_730, Part(429_496_729, 4_294_967_290, 2**32 + 1)),
    ],
)
def test_the_last_part_ends_where_the_object_does(size: int, count: int, last: Part | None) -> None:
    """Sizes around multiples of the part size give neither an empty nor an overlong part."""
    plan = Plan(size, 10)
    assert plan.count == count
    assert last is None or plan.part(count - 1) == last


@pytest.mark.parametrize("size", [4 * GIB, 100 * GIB, 1024 * GIB])
def test_an_ordinary_object_gets_the_default_part_size(size: int) -> None:
    """From where many connections have enough to share, up to a tebibyte, the default stands."""
    assert make_plan(size, None).part_size == DEFAULT_PART_SIZE


@pytest.mark.parametrize(
    ("size", "part_size"),
    [(0, MIB), (1, MIB), (GIB - 1, MIB), (GIB, 2 * MIB), (2 * GIB, 4 * MIB), (4 * GIB - 1, 4 * MIB)],
)
def test_the_chosen_part_size_shrinks_with_the_object(size: int, part_size: int) -> None:
    """So that many connections have something to share and end together, but never below a mebibyte."""
    assert make_plan(size, None).part_size == part_size
    assert DEFAULT_PART_SIZE % part_size == 0  # what the probe asked for before is whole parts


def test_the_chosen_part_size_grows_with_the_object() -> None:
    """Beyond a tebibyte the parts grow and not their number, so that the checkpoint stays small."""
    plan = make_plan(1024 * GIB + 1, None)
    assert plan.part_size == 2 * DEFAULT_PART_SIZE


@pytest.mark.parametrize("size", [600 * 1024 * GIB, MAX_PART_SIZE * MAX_PART_COUNT])
def test_left_out_the_part_size_fits_every_object_that_can_be_cut(size: int) -> None:
    """Where some allowed part size serves, choosing none finds one."""
    plan = make_plan(size, None)
    assert plan.count <= MAX_PART_COUNT


def test_too_many_parts_are_refused_with_the_size_to_use() -> None:
    """A part size that would make the checkpoint absurd is an error that names the least one that would not."""
    size = MAX_PART_COUNT * 3 + 1
    with pytest.raises(UsageError, match="use --part-size 4 or more"):
        make_plan(size, 3)
    assert make_plan(size, 4).count <= MAX_PART_COUNT


@pytest.mark.parametrize("part_size", [None, 1, MAX_PART_SIZE])
@pytest.mark.parametrize("size", [MAX_PART_SIZE * MAX_PART_COUNT + 1, 2**63 - 1])
def test_no_impossible_part_size_is_named(size: int, part_size: int | None) -> None:
    """An object that no allowed part size can cut is refused for what it is."""
    with pytest.raises(UsageError, match=f"an object of {size} bytes: no more than"):
        make_plan(size, part_size)
    assert make_stream_plan(size, part_size).size == size


@pytest.mark.parametrize(
    ("part_size", "nbytes"),
    [
        (None, DEFAULT_PART_SIZE),
        (1, DEFAULT_PART_SIZE),
        (3 * MIB, 6 * MIB),
        (8 * MIB, 8 * MIB),
        (9 * MIB, 9 * MIB),
    ],
)
def test_the_first_request_asks_for_whole_parts(part_size: int | None, nbytes: int) -> None:
    """What the probe receives can be used: it is a whole number of parts, at least one."""
    assert probe_length(part_size) == nbytes


def test_a_span_is_a_share_of_what_remains() -> None:
    """Spans shrink towards the end, so that all connections finish together."""
    plan = Plan(1000 * KIB, KIB)
    assert [span_length(plan, remaining, 5) for remaining in (1000, 500, 100, 50, 10, 1)] == [200, 100, 20, 16, 10, 1]


@pytest.mark.parametrize(("part_size", "parts"), [(8 * MIB, 8), (MAX_SPAN, 1), (GIB, 1)])
def test_a_span_has_a_ceiling(part_size: int, parts: int) -> None:
    """However much remains, one request is for 64 MiB at most, or for one part."""
    assert span_length(Plan(10**6 * part_size, part_size), 10**6, 1) == parts


def test_the_bytes_of_a_run_stop_at_the_objects_end() -> None:
    """A run's bounds are those of its first and last part."""
    plan = Plan(25, 10)
    assert (plan.bounds(Run(1, 3)), plan.nbytes(Run(1, 3)), len(Run(1, 3))) == ((10, 25), 15, 2)
