"""A checkpoint never claims what was not marked, whatever happens to its file or its writer."""

from __future__ import annotations

import os
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fastdl.checkpoint import Checkpoint, open_checkpoint
from fastdl.digest import Digest
from fastdl.errors import FastdlError
from fastdl.header import SLOT, Header
from fastdl.plan import Plan
from fastdl.validator import Validator

if TYPE_CHECKING:
    from collections.abc import Iterator

PARTS = 64
RECORDS = 3 * SLOT
SIZE = RECORDS + 16 * PARTS
TRUE = [Digest(0x0101010101010101 * (index + 1), 0xFEDCBA9876543210 ^ index) for index in range(PARTS)]
MARKS = frozenset(index for index in range(PARTS) if index % 3 != 1)
numbers = st.integers(1, 2**64 - 1)


def header(parts: int, identity: str = "http://host/object") -> Header:
    """Make the header of an object of so many parts."""
    return Header(Plan(parts * 10 - 5, 10), identity, Validator('"v1"', "Wed", "7"), 5, (1, 2), bytes(16))


def marks_of(checkpoint: Checkpoint) -> dict[int, Digest]:
    """Read what is reported as marked; the missing must be all the others."""
    marked, missing = checkpoint.marks.runs()
    indices = [index for run in marked for index in range(run.first, run.stop)]
    others = [index for run in missing for index in range(run.first, run.stop)]
    assert not set(indices) & set(others)
    return {index: checkpoint.marks.digest(index) for index in indices}


class Crash(BaseException):
    """The writer was killed."""


@contextmanager
def killed(after: int, torn: int) -> Iterator[None]:
    """Kill the writer at its write number ``after``, of which ``torn`` bytes still reach the file."""
    write, cut, left = os.pwrite, os.ftruncate, after

    def count() -> bool:
        nonlocal left
        left -= 1
        return left < 0

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        if count():
            write(fd, data[:torn], offset)
            raise Crash
        return write(fd, data, offset)

    def ftruncate(fd: int, length: int) -> None:
        if count():
            raise Crash
        cut(fd, length)

    os.pwrite, os.ftruncate = pwrite, ftruncate  # type: ignore[assignment]
    try:
        yield
    finally:
        os.pwrite, os.ftruncate = write, cut


class Lives(RuleBasedStateMachine):
    """A checkpoint through any number of runs, some of them killed in the middle of a write."""

    def __init__(self) -> None:
        """Start without a file."""
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name, "out.cp")
        self.checkpoint = open_checkpoint(self.path)
        self.parts = 0  # 0: nothing usable is in the file
        self.marks: dict[int, Digest] = {}

    @rule(parts=st.integers(2, 40))
    def begin(self, parts: int) -> None:
        """Start a download."""
        self.checkpoint.begin(header(parts))
        self.parts, self.marks = parts, {}

    @precondition(lambda self: len(self.marks) < self.parts)
    @rule(data=st.data(), xxh3=numbers, crc64=numbers)
    def mark(self, data: st.DataObject, xxh3: int, crc64: int) -> None:
        """Finish a missing part."""
        index = data.draw(st.sampled_from([index for index in range(self.parts) if index not in self.marks]))
        self.checkpoint.mark(index, Digest(xxh3, crc64))
        self.marks[index] = Digest(xxh3, crc64)

    @precondition(lambda self: self.marks)
    @rule(data=st.data())
    def clear(self, data: st.DataObject) -> None:
        """Find a part damaged."""
        index = data.draw(st.sampled_from(sorted(self.marks)))
        self.checkpoint.clear(index)
        del self.marks[index]

    @rule()
    def reopen(self) -> None:
        """End this run and begin another one."""
        self.checkpoint.close()
        self.checkpoint = open_checkpoint(self.path)
        assert (self.checkpoint.stored is not None) == (self.parts > 0)

    @precondition(lambda self: len(self.marks) < self.parts)
    @rule(data=st.data(), xxh3=numbers, crc64=numbers, after=st.integers(0, 1), torn=st.integers(0, 15))
    def crash_in_mark(self, data: st.DataObject, xxh3: int, crc64: int, after: int, torn: int) -> None:
        """Be killed before the record, inside it, or between record and bit: the part is missing."""
        index = data.draw(st.sampled_from([index for index in range(self.parts) if index not in self.marks]))
        with pytest.raises(Crash), killed(after, torn if after == 0 else 0):
            self.checkpoint.mark(index, Digest(xxh3, crc64))
        self.reopen()

    @precondition(lambda self: self.marks)
    @rule(data=st.data(), after=st.integers(0, 1), torn=st.integers(0, 15))
    def crash_in_clear(self, data: st.DataObject, after: int, torn: int) -> None:
        """Be killed before the bit: the part is still marked; after it: it is missing, whatever its record is."""
        index = data.draw(st.sampled_from(sorted(self.marks)))
        with pytest.raises(Crash), killed(after, torn if after == 1 else 0):
            self.checkpoint.clear(index)
        if after == 1:
            del self.marks[index]
        self.reopen()

    @rule(parts=st.integers(2, 40), after=st.integers(0, 2), torn=st.integers(0, 2 * SLOT))
    def crash_in_begin(self, parts: int, after: int, torn: int) -> None:
        """Be killed while starting anew: the old marks are all there, or none is."""
        with pytest.raises(Crash), killed(after, torn):
            self.checkpoint.begin(header(parts))
        if after > 0:
            self.parts, self.marks = parts if after == 2 and torn >= SLOT else 0, {}
        self.reopen()

    @invariant()
    def what_is_reported_is_what_was_marked(self) -> None:
        """In this run and as the next one would see it: no part more, no part less, each with its own digest."""
        if self.parts:
            assert marks_of(self.checkpoint) == self.marks
            self.checkpoint.close()
            self.checkpoint = open_checkpoint(self.path)
            assert marks_of(self.checkpoint) == self.marks

    def teardown(self) -> None:
        """Remove the file."""
        self.checkpoint.close()
        self.folder.cleanup()


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Make the bytes of a checkpoint of 64 parts, two thirds of them marked."""
    path = tmp_path_factory.mktemp("pristine") / "out.cp"
    with closing(open_checkpoint(path)) as checkpoint:
        checkpoint.begin(header(PARTS))
        for index in MARKS:
            checkpoint.mark(index, TRUE[index])
    data = path.read_bytes()
    assert len(data) == SIZE
    return data


def read(path: Path) -> dict[int, Digest] | None:
    """Open a damaged checkpoint as the next run does; None if it says nothing or is refused with an error of ours."""
    try:
        checkpoint = open_checkpoint(path)
    except FastdlError:
        return None
    with closing(checkpoint):
        return None if checkpoint.stored is None else marks_of(checkpoint)


def good(marks: dict[int, Digest]) -> set[int]:
    """Choose the parts that hashing would find right; no other than the marked ones may be among them."""
    right = {index for index, digest in marks.items() if digest == TRUE[index]}
    assert right <= MARKS, "a missing part has a matching record"
    return right


def test_no_flipped_byte_costs_more_than_its_own_parts(pristine: bytes, tmp_path: Path) -> None:
    """Every byte in turn: a slot costs nothing, a record its part, a byte of bits its eight."""
    path = tmp_path / "out.cp"
    path.write_bytes(pristine)
    fd = os.open(path, os.O_RDWR)
    for at, byte in enumerate(pristine):
        os.pwrite(fd, bytes([byte ^ 1 << at % 8]), at)
        marks = read(path)
        os.pwrite(fd, bytes([byte]), at)
        assert marks is not None, f"byte {at}"
        lost = MARKS - good(marks)
        first = 8 * (at - 2 * SLOT) if at < RECORDS else (at - RECORDS) // 16
        allowed = range(first, first + 8) if 2 * SLOT <= at < RECORDS else range(first, first + 1)
        assert lost <= (set(allowed) if at >= 2 * SLOT else set()), f"byte {at}"
    os.close(fd)


@pytest.mark.parametrize("mask", [0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xFF])
def test_no_flipped_bit_of_the_bitmap_makes_a_missing_part_good(pristine: bytes, tmp_path: Path, mask: int) -> None:
    """A bit without a record is no mark, a bit that is gone is a part to fetch."""
    path = tmp_path / "out.cp"
    for at in range(2 * SLOT, 2 * SLOT + PARTS // 8):
        path.write_bytes(pristine[:at] + bytes([pristine[at] ^ mask]) + pristine[at + 1 :])
        marks = read(path)
        assert marks is not None
        assert len(MARKS - good(marks)) <= mask.bit_count()


def test_a_truncated_file_says_nothing(pristine: bytes, tmp_path: Path) -> None:
    """At every length: a file that is not exactly as long as it should be is not believed."""
    path = tmp_path / "out.cp"
    path.write_bytes(pristine)
    for length in range(SIZE - 1, -1, -1):
        os.truncate(path, length)
        assert read(path) is None, f"{length} bytes"


@pytest.mark.parametrize("extra", [1, 15, 16, 17, SLOT, 2**20])
@pytest.mark.parametrize("fill", [b"\0", b"\xff"])
def test_an_extended_file_says_nothing(pristine: bytes, tmp_path: Path, extra: int, fill: bytes) -> None:
    """Whatever was appended."""
    path = tmp_path / "out.cp"
    path.write_bytes(pristine + fill * extra)
    assert read(path) is None


@given(data=st.data())
def test_no_damage_makes_a_missing_part_good(pristine: bytes, data: st.DataObject) -> None:
    """Any bytes anywhere: opening is an error of ours at worst, and no missing part has a matching record."""
    spoilt = bytearray(pristine)
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.sampled_from([0, 16, 24, 32, SLOT, 2 * SLOT, RECORDS]) | st.integers(0, SIZE - 1))
        junk = data.draw(st.binary(min_size=1, max_size=64))
        spoilt[at : at + len(junk)] = junk[: SIZE - at]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "out.cp")
        path.write_bytes(spoilt)
        marks = read(path)
    if marks is not None:
        good(marks)


@given(st.binary(max_size=9000))
def test_no_file_crashes_the_reader(junk: bytes) -> None:
    """Whatever is found under the name, it says nothing."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "out.cp")
        path.write_bytes(junk)
        assert read(path) is None
