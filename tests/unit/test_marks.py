"""A bit and a record of each part, and what follows from them."""

from __future__ import annotations

import itertools
from unittest.mock import patch

import pytest
from fastcrc import crc64
from hypothesis import given
from hypothesis import strategies as st

from fastdl.digest import Digest
from fastdl.header import bitmap_bytes
from fastdl.marks import Marks
from fastdl.plan import Plan, Run

DIGESTS = [Digest(index + 1, 1000 + index) for index in range(10)]


def marked(*indices: int, count: int = 10) -> Marks:
    """Mark some parts."""
    marks = Marks(Plan(10 * count, 10))
    for index in indices:
        marks.mark(index, DIGESTS[index % 10])
    return marks


@pytest.mark.parametrize(("count", "nbytes"), [(0, 0), (1, 1), (8, 1), (9, 2), (16, 2), (17, 3)])
def test_every_part_has_a_bit_and_a_record(count: int, nbytes: int) -> None:
    """And no more than that."""
    marks = marked(count=count)
    assert bitmap_bytes(marks.plan) == nbytes
    assert (bytes(marks.bitmap), bytes(marks.records)) == (bytes(nbytes), bytes(16 * count))
    assert not marks.any


@pytest.mark.parametrize("index", [0, 7, 8, 9, 999])
def test_a_mark_is_a_bit_and_a_record_at_their_places(index: int) -> None:
    """Least significant bit first; two little-endian numbers."""
    marks = marked(count=1000)
    marks.mark(index, Digest(3, 0x0102))
    at, byte = marks.bit(index)
    assert (at, bytes(byte)) == (index // 8, bytes((1 << index % 8,)))
    assert marks.bitmap.index(byte) == at
    start, record = marks.record(index)
    assert (start, bytes(record)) == (16 * index, b"\3" + bytes(7) + b"\2\1" + bytes(6))
    assert marks.records.index(3) == start
    assert marks.digest(index) == Digest(3, 0x0102)
    assert marks.runs()[0] == [Run(index, index + 1)]
    marks.clear(index)
    assert (bytes(marks.bitmap), bytes(marks.records)) == (bytes(125), bytes(16_000))


def test_neighbours_share_a_byte_and_nothing_else() -> None:
    """Marking and clearing leave the others."""
    marks = marked(*range(10))
    assert bytes(marks.bitmap) == b"\xff\x03"
    marks.clear(2)
    marks.clear(9)
    assert bytes(marks.bitmap) == b"\xfb\x01"
    assert [marks.digest(index) for index in (1, 3, 8)] == [DIGESTS[1], DIGESTS[3], DIGESTS[8]]
    assert marks.runs() == ([Run(0, 2), Run(3, 9)], [Run(2, 3), Run(9, 10)])
    marks.mark(2, DIGESTS[5])
    assert marks.digest(2) == DIGESTS[5]


@pytest.mark.parametrize(
    ("indices", "missing"), [((), [Run(0, 10)]), (tuple(range(10)), []), ((0,), [Run(1, 10)]), ((9,), [Run(0, 9)])]
)
def test_runs_are_complete_at_the_edges(indices: tuple[int, ...], missing: list[Run]) -> None:
    """Nothing marked, everything marked, one end marked."""
    marks = marked(*indices)
    assert marks.runs()[1] == missing
    assert marks.complete is (not missing)
    assert marks.any is bool(indices)


@pytest.mark.parametrize("few", [0, 2**20])
@given(indices=st.sets(st.integers(0, 9)), torn=st.sets(st.integers(0, 9)))
def test_many_parts_are_read_as_few_are(few: int, indices: set[int], torn: set[int]) -> None:
    """With numpy and without: the runs of what is marked and has a record, and of all that is not."""
    marks = marked(*indices)
    for index in torn:
        marks.mark(index, Digest(0, 0))
    with patch("fastdl.marks._FEW", few):
        found, missing = marks.runs()
    assert {index for run in found for index in range(run.first, run.stop)} == indices - torn
    whole = sorted([*found, *missing], key=lambda run: run.first)
    assert whole[0].first == 0
    assert all(before.stop == after.first for before, after in itertools.pairwise(whole))
    assert whole[-1].stop == marks.plan.count


@pytest.mark.parametrize("few", [0, 2**20])
def test_a_bit_or_a_record_alone_marks_nothing(few: int) -> None:
    """A crash may come between the two writes, and a stale record may stand where a mark was taken back."""
    marks = marked(*range(10))
    marks.bitmap[0] &= ~0b1001
    marks.records[16 * 8 : 16 * 9] = bytes(16)
    with patch("fastdl.marks._FEW", few):
        assert marks.runs() == ([Run(1, 3), Run(4, 8), Run(9, 10)], [Run(0, 1), Run(3, 4), Run(8, 9)])


@pytest.mark.parametrize(("count", "how"), [(1, "few"), (2**15, "few"), (2**15 + 1, "many"), (2**17, "many")])
def test_numpy_is_loaded_for_many_parts_only(count: int, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading it takes longer than looking through a few."""
    other = {"few": "_edges_of_many", "many": "_edges_of_few"}[how]
    monkeypatch.setattr(Marks, other, None)
    assert marked(0, count=count).runs() == ([Run(0, 1)], [Run(1, count)] if count > 1 else [])


@pytest.mark.parametrize("size", [100, 91, 99])
def test_the_whole_crc_comes_from_the_records(size: int) -> None:
    """Whatever the length of the last part."""
    data = bytes(range(size))
    marks = Marks(Plan(size, 10))
    for index in range(10):
        marks.mark(index, Digest(1, crc64.xz(data[10 * index : 10 * index + 10])))
    assert marks.crc64 == crc64.xz(data)
