"""The output's bytes: written whole wherever the kernel stops, read back without growing."""

from __future__ import annotations

import os
import random
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fastdl.access import FileReader, MapReader, Writer, make_reader, scratch
from fastdl.errors import DiskError

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1024 * 1024
DATA = random.Random(7).randbytes(8 * MIB)


@contextmanager
def memory(data: bytes = b"") -> Iterator[int]:
    """Yield a file in memory."""
    fd = os.memfd_create("output")
    try:
        os.pwrite(fd, data, 0)
        yield fd
    finally:
        os.close(fd)


@pytest.mark.parametrize("most", [1, 7, 999, 5000])
def test_a_window_is_written_whole_however_little_a_write_takes(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may take less than it was given."""
    really = os.pwrite
    with memory(bytes(6000)) as fd:
        monkeypatch.setattr(os, "pwrite", lambda fd, data, at: really(fd, data[:most], at))
        writer = Writer(fd, 4096)
        window = writer.window(1000)
        assert (len(window), window.readonly) == (1000, False)
        window[:] = DATA[:1000]
        writer.store(500, window)
        assert os.pread(fd, 6000, 0) == bytes(500) + DATA[:1000] + bytes(4500)


def test_a_disk_that_takes_nothing_is_an_error_with_the_place() -> None:
    """And with the reason, so that it can be done something about."""
    with Path("/dev/full").open("wb", buffering=0) as full:
        writer = Writer(full.fileno(), 4096)
        with pytest.raises(DiskError) as caught:
            writer.store(7, writer.window(10))
    assert str(caught.value) == "writing the output at byte 7: No space left on device"


def test_both_readers_give_the_same_bytes() -> None:
    """From any byte on, at the end too."""
    with memory(DATA) as fd:
        readers = (MapReader(fd, len(DATA)), FileReader(fd, MIB))
        for start, nbytes in ((0, 1), (0, MIB), (4095, 3), (5 * MIB + 1, 1000), (MIB, MIB), (len(DATA) - 5, 5)):
            assert [bytes(reader.read(start, nbytes)) for reader in readers] == [DATA[start : start + nbytes]] * 2
            for reader in readers:
                reader.forget(start + nbytes)
        assert bytes(readers[1].read(len(DATA) - 5, 10)) == DATA[-5:]
        assert bytes(readers[1].read(len(DATA), 10)) == b""


def test_what_cannot_be_read_is_an_error_with_the_place(tmp_path: Path) -> None:
    """A disk that fails is no end of the file."""
    with (tmp_path / "written").open("wb") as file:
        reader = FileReader(file.fileno(), 10)
        with pytest.raises(DiskError) as caught:
            reader.read(3, 5)
    assert str(caught.value) == "reading the output at byte 3: Bad file descriptor"


def test_a_file_is_mapped_where_that_can_be_done() -> None:
    """What cannot be is read: an empty file, a pipe."""
    with memory(DATA[:5]) as fd:
        assert isinstance(make_reader(fd, 5, 10), MapReader)
    with memory() as fd:
        assert isinstance(make_reader(fd, 0, 10), FileReader)
    ends = os.pipe()
    try:
        assert isinstance(make_reader(ends[0], 5, 10), FileReader)
    finally:
        for end in ends:
            os.close(end)


@pytest.mark.parametrize("start", [0, 3 * MIB + 5])
def test_a_mapping_keeps_little_of_what_it_read(start: int) -> None:
    """A worker's memory must not grow with the object."""
    with memory(DATA) as fd:
        reader = MapReader(fd, len(DATA))
        most = 0
        for at in range(start, len(DATA), 65_536):
            assert reader.read(at, 65_536) == DATA[at : at + 65_536]
            reader.forget(min(at + 65_536, len(DATA)))
            most = max(most, resident(fd))
        assert most <= 2 * MIB
        del reader


def resident(fd: int) -> int:
    """Return how many bytes of a file's mapping are in memory."""
    number = f" {os.fstat(fd).st_ino} "
    lines = iter(Path("/proc/self/smaps").read_text("utf-8").splitlines())
    for line in lines:
        if "memfd:output" in line and number in line:
            return next(1024 * int(field.split()[1]) for field in lines if field.startswith("Rss:"))
    return 0


def test_scratch_memory_is_the_systems_again_at_once() -> None:
    """Whichever thread had it: an allocator would keep it for that thread's next one."""
    nbytes = 1 << 24

    def private() -> int:
        lines = Path("/proc/self/smaps_rollup").read_text("ascii").splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) << 10

    before = private()
    view = scratch(nbytes)
    view[:] = bytes(nbytes)
    assert private() >= before + nbytes
    part = view[5:]
    del view
    assert len(part) == nbytes - 5
    del part
    assert private() < before + nbytes // 2


def test_no_memory_is_an_error_of_the_disks_kind() -> None:
    """With the system's own word for it."""
    with pytest.raises(DiskError, match="no memory left to receive into: Cannot allocate memory"):
        scratch(1 << 62)
