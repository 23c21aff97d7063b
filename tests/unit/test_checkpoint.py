"""The checkpoint keeps what was marked, and nothing else."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import resource
import stat
import struct
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
import xxhash

from fastdl import checkpoint as module
from fastdl.checkpoint import open_checkpoint
from fastdl.digest import Digest
from fastdl.errors import Busy, DiskError
from fastdl.header import SLOT, Header, Stored, identity_digest
from fastdl.locks import lock
from fastdl.plan import Plan, Run
from fastdl.validator import Validator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

IDENTITY = "https://host/object?key=secret"
VALIDATOR = Validator('"t\xe4g"', "Wed, 01 Jan 2025 00:00:00 GMT", "v1")
STAMP = bytes(range(16))
HEADER = Header(Plan(95, 10), IDENTITY, VALIDATOR, 2**64 - 1, (7, 11), STAMP)
DIGESTS = [Digest(index + 1, 2**64 - 1 - index) for index in range(10)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Name a checkpoint that does not exist."""
    return tmp_path / "out.cp"


def write(path: Path, *marks: int, header: Header = HEADER) -> bytes:
    """Make a checkpoint with marks and return its bytes."""
    with closing(open_checkpoint(path)) as checkpoint:
        checkpoint.begin(header)
        for index in marks:
            checkpoint.mark(index, DIGESTS[index])
    return path.read_bytes()


def forge(slot: bytes, at: int, data: bytes) -> bytes:
    """Change a slot's bytes and make its hash right."""
    body = (slot[:at] + data + slot[at + len(data) :])[: SLOT - 8]
    return body + struct.pack("<Q", xxhash.xxh3_64_intdigest(body))


@contextmanager
def no_file_longer_than(nbytes: int) -> Iterator[None]:
    """Let the kernel refuse to write any file of this process beyond a length."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def open_descriptors() -> int:
    """Count this process's descriptors."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_new_checkpoint_says_nothing(path: Path) -> None:
    """Neither a header nor damage: there was no earlier run."""
    with closing(open_checkpoint(path)) as checkpoint:
        assert (checkpoint.stored, checkpoint.damage, checkpoint.marks.any) == (None, "", False)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("crc64", [None, 0, 2**64 - 1])
def test_the_header_comes_back(path: Path, crc64: int | None) -> None:
    """Everything that two runs must agree on; a CRC of 0 is not an unknown one."""
    write(path, header=Header(HEADER.plan, IDENTITY, VALIDATOR, crc64, (2**64 - 1, 2**63), STAMP))
    with closing(open_checkpoint(path)) as checkpoint:
        digest = hashlib.sha256(IDENTITY.encode()).digest()
        assert checkpoint.stored == Stored(HEADER.plan, digest, VALIDATOR, crc64, (2**64 - 1, 2**63), STAMP, 1)


def test_marks_come_back_with_their_digests(path: Path) -> None:
    """Exactly those marked, with exactly what was recorded."""
    write(path, 0, 3, 4, 9)
    with closing(open_checkpoint(path)) as checkpoint:
        marked, missing = checkpoint.marks.runs()
        assert marked == [Run(0, 1), Run(3, 5), Run(9, 10)]
        assert missing == [Run(1, 3), Run(5, 9)]
        assert [checkpoint.marks.digest(index) for index in (0, 3, 4, 9)] == [DIGESTS[index] for index in (0, 3, 4, 9)]


@pytest.mark.parametrize("crc64", [None, 0, 2**64 - 1])
def test_doubt_is_kept_and_cleared(path: Path, crc64: int | None) -> None:
    """Nothing else of the header changes, and marks and records stay; the newer of two slots tells."""
    write(path, 3, 4, header=Header(HEADER.plan, IDENTITY, VALIDATOR, crc64, (7, 11), STAMP))
    with closing(open_checkpoint(path)) as checkpoint:
        first = checkpoint.stored
        assert first is not None
        checkpoint.doubt(doubted=True)
    before = path.read_bytes()
    with closing(open_checkpoint(path)) as checkpoint:
        assert checkpoint.stored == replace(first, doubted=True, generation=2)
        assert checkpoint.marks.runs()[0] == [Run(3, 5)]
        checkpoint.doubt(doubted=False)
        assert checkpoint.stored == replace(first, generation=3)
    path.write_bytes(before[:SLOT] + path.read_bytes()[SLOT:])
    with closing(open_checkpoint(path)) as checkpoint:
        assert checkpoint.stored == replace(first, generation=3)
        assert checkpoint.marks.digest(4) == DIGESTS[4]


def test_a_part_that_is_not_what_was_recorded_is_unmarked(path: Path) -> None:
    """Its mark is gone for good; one that is keeps it."""
    write(path, 3, 4)
    with closing(open_checkpoint(path)) as checkpoint:
        assert [checkpoint.judge(3, DIGESTS[3]), checkpoint.judge(4, DIGESTS[3])] == [True, False]
        assert checkpoint.marks.runs()[0] == [Run(3, 4)]
    with closing(open_checkpoint(path)) as checkpoint:
        assert checkpoint.marks.runs()[0] == [Run(3, 4)]


def test_a_cleared_mark_is_gone_for_good(path: Path) -> None:
    """Bit and record: a stale record can never pass for a true one."""
    write(path, 3, 4)
    with closing(open_checkpoint(path)) as checkpoint:
        checkpoint.clear(3)
        assert [checkpoint.marks.digest(index) for index in (3, 4)] == [Digest(0, 0), DIGESTS[4]]
    with closing(open_checkpoint(path)) as checkpoint:
        assert checkpoint.marks.runs()[0] == [Run(4, 5)]
        assert checkpoint.marks.digest(3) == Digest(0, 0)


def test_to_begin_forgets_every_mark(path: Path) -> None:
    """Marks of another object never survive a new header, which has a higher generation."""
    write(path, *range(10))
    write(path, 1)
    with closing(open_checkpoint(path)) as checkpoint:
        assert checkpoint.marks.runs()[0] == [Run(1, 2)]
        assert checkpoint.marks.digest(0) == Digest(0, 0)
        assert checkpoint.stored is not None
        assert checkpoint.stored.generation == 2


def test_the_file_is_what_its_specification_says(path: Path) -> None:
    """Byte by byte, read with nothing of ours."""
    data = write(path, 0, 9)
    slot = data[:SLOT]
    assert data[SLOT : 2 * SLOT] == slot
    assert len(data) == 3 * SLOT + 16 * 10
    fields = (b"fastdlCP", 1, 1, 1, 95, 10, 7, 11, 2**64 - 1, hashlib.sha256(IDENTITY.encode()).digest())
    assert struct.unpack_from("<8sIIQQQQQQ32s16s", slot) == (*fields, STAMP)
    texts = [text.encode("latin-1") for text in (VALIDATOR.etag, VALIDATOR.last_modified, VALIDATOR.version_id)]
    joined = b"".join(struct.pack("<H", len(text)) + text for text in texts)
    assert slot[112 : SLOT - 8] == joined.ljust(SLOT - 8 - 112, b"\0")
    assert struct.unpack("<Q", slot[-8:])[0] == xxhash.xxh3_64_intdigest(slot[:-8])
    assert data[2 * SLOT : 3 * SLOT] == bytes([1, 2]).ljust(SLOT, b"\0")
    assert struct.unpack_from("<QQ", data, 3 * SLOT + 16 * 9) == (DIGESTS[9].xxh3, DIGESTS[9].crc64)
    assert data[3 * SLOT + 16 : 3 * SLOT + 16 * 9] == bytes(16 * 8)


def test_no_secret_is_in_the_file(path: Path) -> None:
    """Of the source's identity only the digest is stored."""
    assert b"secret" not in write(path, 1)
    assert identity_digest(IDENTITY) != identity_digest(IDENTITY + "x")


@pytest.mark.parametrize("slot", [0, 1])
def test_one_damaged_slot_costs_nothing(path: Path, slot: int) -> None:
    """Either slot alone carries the header."""
    data = bytearray(write(path, 3))
    data[SLOT * slot : SLOT * (slot + 1)] = bytes(SLOT)
    path.write_bytes(data)
    with closing(open_checkpoint(path)) as checkpoint:
        assert (checkpoint.damage, checkpoint.marks.runs()[0]) == ("", [Run(3, 4)])


def test_of_two_valid_slots_the_younger_counts(path: Path) -> None:
    """A generation tells which of two headers was written last."""
    data = write(path)
    young = forge(data[:SLOT], 16, struct.pack("<Q", 5))
    path.write_bytes(data[:SLOT] + young + data[2 * SLOT :])
    with closing(open_checkpoint(path)) as checkpoint:
        assert checkpoint.stored is not None
        assert checkpoint.stored.generation == 5


@pytest.mark.parametrize(
    "foreign",
    [b"a user's own file", b"\xff" * 3 * SLOT, bytes(SLOT) + b"x", bytes(2 * SLOT) + b"x", b"otherCP!" * 4096],
)
def test_a_file_that_never_was_a_checkpoint_is_left_alone(path: Path, foreign: bytes) -> None:
    """A name that the user gave by mistake, or had already, costs nobody a file."""
    path.write_bytes(foreign)
    descriptors = open_descriptors()
    with pytest.raises(DiskError, match="is no checkpoint of fastdl's and is left alone"):
        open_checkpoint(path)
    assert (path.read_bytes(), open_descriptors()) == (foreign, descriptors)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: bytes(len(data)),
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: data[:100],
        lambda data: data[:1],
        lambda data: b"\xff" * SLOT + data[SLOT:-1],
        lambda data: b"fas" + bytes(len(data) - 3),
        lambda data: (bytes(SLOT - 8) + data[SLOT - 8 : SLOT]) * 2 + bytes(len(data) - 2 * SLOT),
        lambda data: forge(data[:SLOT], 8, struct.pack("<I", 2)) * 2 + data[2 * SLOT :],
        lambda data: forge(data[:SLOT], 8, struct.pack(">I", 1)) * 2 + data[2 * SLOT :],
        lambda data: forge(data[:SLOT], 24, struct.pack("<Q", 101)) * 2 + data[2 * SLOT :],
        lambda data: forge(data[:SLOT], 24, struct.pack("<Q", 2**64 - 1)) * 2 + data[2 * SLOT :],
        lambda data: forge(data[:SLOT], 32, struct.pack("<Q", 0)) * 2 + data[2 * SLOT :],
        lambda data: forge(data[:SLOT], 32, struct.pack("<Q", 2**64 - 1)) * 2 + data[2 * SLOT :],
        lambda data: forge(data[:SLOT], 112, b"\xff\xff") * 2 + data[2 * SLOT :],
        lambda data: forge(data[:SLOT], 112, struct.pack("<H", SLOT - 8 - 112)) * 2 + data[2 * SLOT :],
    ],
)
def test_a_damaged_or_forged_file_is_not_used(path: Path, spoil: Callable[[bytes], bytes]) -> None:
    """Zeros, another length, another version, impossible numbers: the reason is told and the next run begins anew."""
    path.write_bytes(spoil(write(path, 3)))
    with closing(open_checkpoint(path)) as checkpoint:
        assert (checkpoint.stored, checkpoint.damage) == (None, "the checkpoint is damaged")
        assert not checkpoint.marks.any
        checkpoint.begin(HEADER)
        assert checkpoint.marks.runs() == ([], [Run(0, 10)])


def test_the_last_generation_is_followed_by_another_one(path: Path) -> None:
    """No number in a forged header makes beginning anew impossible."""
    data = write(path)
    path.write_bytes(forge(data[:SLOT], 16, b"\xff" * 8) * 2 + data[2 * SLOT :])
    write(path, 2)
    with closing(open_checkpoint(path)) as checkpoint:
        assert checkpoint.marks.runs()[0] == [Run(2, 3)]


def test_readers_share_and_write_nothing(path: Path) -> None:
    """Records may lie where nobody can write; while somebody reads them nobody changes them."""
    write(path, 0)
    with closing(open_checkpoint(path)), pytest.raises(Busy):
        open_checkpoint(path, writable=False)
    with closing(open_checkpoint(path, writable=False)) as one, closing(open_checkpoint(path, writable=False)) as two:
        assert one.marks.digest(0) == two.marks.digest(0) == DIGESTS[0]
        assert fcntl.fcntl(one._fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
        with pytest.raises(Busy):
            open_checkpoint(path)


def test_a_second_downloader_is_kept_out(path: Path) -> None:
    """While one holds the checkpoint another is Busy, and leaves its bytes alone; afterwards it is free."""
    with closing(open_checkpoint(path)) as checkpoint:
        checkpoint.begin(HEADER)
        checkpoint.mark(1, DIGESTS[1])
        before = path.read_bytes()
        with pytest.raises(Busy, match="another downloader holds it"):
            open_checkpoint(path)
        assert path.read_bytes() == before
    open_checkpoint(path).close()


def test_a_refused_open_leaves_no_descriptor(path: Path) -> None:
    """Thousands of refusals exhaust nothing."""
    with closing(open_checkpoint(path)):
        before = open_descriptors()
        with pytest.raises(Busy):
            open_checkpoint(path)
        assert open_descriptors() == before


@pytest.mark.parametrize("kind", ["symlink", "dangling", "directory", "fifo", "device"])
def test_only_a_regular_file_is_a_checkpoint(tmp_path: Path, path: Path, kind: str) -> None:
    """A planted link, directory, pipe or device is refused and not followed."""
    target = tmp_path / "target"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind != "device":
        path.symlink_to(target)
    if kind == "symlink":
        target.write_bytes(b"precious")
    with pytest.raises(DiskError):
        open_checkpoint(Path("/dev/null") if kind == "device" else path)
    assert target.exists() == (kind == "symlink")


def test_another_users_file_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a shared directory nobody else's checkpoint is believed."""
    write(path, 1)
    stranger = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: stranger)
    with pytest.raises(DiskError, match="no checkpoint of this user"):
        open_checkpoint(path)


def test_a_missing_directory_is_a_disk_error(tmp_path: Path) -> None:
    """The message names the path and the reason."""
    with pytest.raises(DiskError, match=r"missing/out\.cp: the checkpoint cannot be opened: No such file"):
        open_checkpoint(tmp_path / "missing" / "out.cp")


def test_removing_takes_only_the_own_file(path: Path) -> None:
    """A file that took the name meanwhile stays."""
    with closing(open_checkpoint(path)) as checkpoint:
        path.unlink()
        path.write_bytes(b"another's")
        checkpoint.remove()
    assert path.read_bytes() == b"another's"


def test_a_removed_checkpoint_is_gone(path: Path) -> None:
    """After success nothing is left, and removing twice is no error."""
    with closing(open_checkpoint(path)) as checkpoint:
        checkpoint.begin(HEADER)
        checkpoint.remove()
        checkpoint.remove()
    assert not path.exists()


def test_without_a_path_marks_live_in_memory(tmp_path: Path) -> None:
    """A download without checkpoint works the same and leaves no file."""
    with closing(open_checkpoint(None)) as checkpoint:
        checkpoint.begin(HEADER)
        checkpoint.mark(2, DIGESTS[2])
        assert checkpoint.marks.runs()[0] == [Run(2, 3)]
        checkpoint.remove()
    assert list(tmp_path.iterdir()) == []


def test_no_room_for_a_checkpoint_is_told_at_once(path: Path) -> None:
    """Before the first byte of the object is asked for."""
    with closing(open_checkpoint(path)) as checkpoint, no_file_longer_than(SLOT), pytest.raises(DiskError):
        checkpoint.begin(HEADER)


def test_a_full_disk_costs_resumability_and_not_the_download(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Marks that the disk refuses stay in memory; one warning says so."""
    with closing(open_checkpoint(path)) as checkpoint:
        checkpoint.begin(HEADER)
        checkpoint.mark(0, DIGESTS[0])
        with caplog.at_level(logging.WARNING, "fastdl"), no_file_longer_than(SLOT):
            checkpoint.mark(1, DIGESTS[1])
            checkpoint.mark(2, DIGESTS[2])
        assert checkpoint.marks.runs()[0] == [Run(0, 3)]
    assert len(caplog.records) == 1
    assert "the download goes on" in caplog.text
    with closing(open_checkpoint(path)) as checkpoint:
        assert checkpoint.marks.runs()[0] == [Run(0, 1)]


@pytest.mark.parametrize(("nbytes", "brief"), [(8 * 2**20, True), (8 * 2**20 + 1, False)])
def test_one_small_part_is_recorded_only_to_be_kept(path: Path, nbytes: int, *, brief: bool) -> None:
    """Its mark would need a sync that takes longer than the part: it is written when the records are to stay."""
    header = replace(HEADER, plan=Plan(nbytes, nbytes))
    synced: list[int] = []
    with patch.object(os, "fsync", synced.append), closing(open_checkpoint(path)) as checkpoint:
        checkpoint.begin(header)
        assert bool(synced) != brief
        checkpoint.mark(0, DIGESTS[0])
        assert checkpoint.marks.complete
        assert any(path.read_bytes()[2 * SLOT :]) != brief
        checkpoint.keep()
        assert synced
    with closing(open_checkpoint(path)) as checkpoint:
        assert (checkpoint.marks.complete, checkpoint.marks.digest(0)) == (True, DIGESTS[0])


def test_records_that_cannot_be_kept_are_warned_of(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The file they are of is published already."""
    with closing(open_checkpoint(path)) as checkpoint:
        checkpoint.begin(replace(HEADER, plan=Plan(10, 10)))
        checkpoint.mark(0, DIGESTS[0])
        with caplog.at_level(logging.WARNING, "fastdl"), no_file_longer_than(SLOT):
            checkpoint.keep()
    assert caplog.messages == [f"{path}: File too large; the records are incomplete"]


def test_marks_are_about_the_file_with_the_stamp_only(path: Path) -> None:
    """And a checkpoint without a mark is about none: there is nothing to resume from."""
    with closing(open_checkpoint(path)) as checkpoint:
        assert not checkpoint.is_about(STAMP)
        checkpoint.begin(HEADER)
        assert not checkpoint.is_about(STAMP)
        checkpoint.mark(9, DIGESTS[9])
        assert checkpoint.is_about(STAMP)
        assert not checkpoint.is_about(bytes(16))
    with closing(open_checkpoint(path)) as checkpoint:
        assert checkpoint.is_about(STAMP)


def test_complete_means_every_part(path: Path) -> None:
    """Not one less, and not a new checkpoint, which knows of no part at all."""
    with closing(open_checkpoint(path)) as checkpoint:
        seen = [checkpoint.marks.complete]
        checkpoint.begin(HEADER)
        for index in range(10):
            seen.append(checkpoint.marks.complete)
            checkpoint.mark(index, DIGESTS[index])
        seen.append(checkpoint.marks.complete)
        checkpoint.clear(4)
        seen.append(checkpoint.marks.complete)
    assert seen == [False] * 11 + [True, False]


def test_a_new_object_is_not_doubted(path: Path) -> None:
    """Doubt is what an earlier run left, or this one noted."""
    with closing(open_checkpoint(path)) as checkpoint:
        seen = [checkpoint.doubted]
        checkpoint.begin(HEADER)
        seen.append(checkpoint.doubted)
        checkpoint.doubt(doubted=True)
        seen.append(checkpoint.doubted)
    assert seen == [False, False, True]


def test_doubt_stands_in_both_slots(path: Path) -> None:
    """Each may be the one that is damaged."""
    write(path, 1)
    with closing(open_checkpoint(path)) as checkpoint:
        checkpoint.doubt(doubted=True)
        assert checkpoint.doubted
    data = path.read_bytes()
    assert data[:SLOT] == data[SLOT : 2 * SLOT]
    path.write_bytes(bytes(SLOT) + data[SLOT:])
    with closing(open_checkpoint(path)) as checkpoint:
        assert checkpoint.doubted


@contextmanager
def writes_and_syncs() -> Iterator[list[int | str]]:
    """Note where this process writes, and when it syncs."""
    seen: list[int | str] = []
    pwrite, fsync = os.pwrite, os.fsync

    def noted(fd: int, piece: bytes, to: int) -> int:
        seen.append(to)
        return pwrite(fd, piece, to)

    def synced(fd: int) -> None:
        seen.append("sync")
        fsync(fd)

    with patch.object(os, "pwrite", noted), patch.object(os, "fsync", synced):
        yield seen


def test_doubt_comes_over_marks_that_are_on_the_disk(path: Path) -> None:
    """And one slot is there before the other is touched."""
    write(path, 1)
    with closing(open_checkpoint(path)) as checkpoint, writes_and_syncs() as seen:
        checkpoint.doubt(doubted=False)
    assert seen == ["sync", 0, "sync", SLOT, "sync"]


def test_kept_records_of_one_part_come_behind_a_head_that_is_on_the_disk(path: Path) -> None:
    """Marks under no head would look like somebody else's file."""
    with closing(open_checkpoint(path)) as checkpoint:
        checkpoint.begin(replace(HEADER, plan=Plan(10, 10)))
        checkpoint.mark(0, DIGESTS[0])
        with writes_and_syncs() as seen:
            checkpoint.keep()
    assert seen == ["sync", 3 * SLOT, 2 * SLOT]


def test_to_begin_takes_every_byte_away_first(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Marks of what was there must not stand under the new head for an instant."""
    write(path, *range(10))
    with closing(open_checkpoint(path)) as checkpoint:
        seen: list[bytes] = []
        really = os.fsync

        def noted(fd: int) -> None:
            seen.append(path.read_bytes())
            really(fd)

        monkeypatch.setattr(os, "fsync", noted)
        checkpoint.begin(replace(HEADER, plan=Plan(40_000, 10)))
    assert [len(content) for content in seen] == [0, 3 * SLOT + 16 * 4000]
    assert not any(seen[1][2 * SLOT :])


def test_doubt_that_cannot_be_written_is_an_error(path: Path) -> None:
    """Who goes on to repair without it would leave a file that the next run takes for good."""
    with closing(open_checkpoint(path)) as checkpoint:
        checkpoint.begin(HEADER)
        with no_file_longer_than(0), pytest.raises(DiskError) as caught:
            checkpoint.doubt(doubted=True)
        assert str(caught.value) == f"{path}: File too large"
        assert not checkpoint.doubted


@pytest.mark.parametrize("index", [0, 7, 8, 9, 39_999])
def test_marking_and_clearing_touch_the_parts_own_bytes_only(path: Path, index: int) -> None:
    """The record before the bit, the bit back before the record; what was before comes back to the byte."""
    header = replace(HEADER, plan=Plan(400_000, 10))
    at = struct.pack("<QQ", 3, 4)
    with closing(open_checkpoint(path)) as checkpoint:
        checkpoint.begin(header)
        before = path.read_bytes()
        assert len(before) == 4 * SLOT + 16 * 40_000
        writes: list[tuple[int, int]] = []
        really = os.pwrite

        def noted(fd: int, piece: bytes, to: int) -> int:
            writes.append((to, len(piece)))
            return really(fd, piece, to)

        with patch.object(os, "pwrite", noted):
            checkpoint.mark(index, Digest(3, 4))
            marked = path.read_bytes()
            checkpoint.clear(index)
        after = path.read_bytes()
    bit, record = 2 * SLOT + index // 8, 4 * SLOT + 16 * index
    assert writes == [(record, 16), (bit, 1), (bit, 1), (record, 16)]
    expected = bytearray(before)
    expected[bit] = 1 << index % 8
    expected[record : record + 16] = at
    assert (marked, after) == (bytes(expected), before)


@pytest.mark.parametrize("count", [1, 8, 9, 40_000])
def test_a_record_without_its_bit_marks_nothing(path: Path, count: int) -> None:
    """Killed between the two writes of a mark, there is nothing to resume from; other parts' marks still count."""
    with closing(open_checkpoint(path)) as checkpoint:
        checkpoint.begin(replace(HEADER, plan=Plan(count * 10, 10)))
        for index in (0, count - 1):
            checkpoint.mark(index, Digest(2**64 - 1, 2**64 - 1))
    data = path.read_bytes()
    bits = 2 * SLOT + -(-count // 8)
    path.write_bytes(data[: 2 * SLOT] + bytes(bits - 2 * SLOT) + data[bits:])
    with closing(open_checkpoint(path)) as checkpoint:
        assert not checkpoint.marks.any
        assert not checkpoint.is_about(STAMP)
        assert checkpoint.marks.runs() == ([], [Run(0, count)])
    if count > 8:
        path.write_bytes(data[: 2 * SLOT] + b"\1" + bytes(bits - 2 * SLOT - 1) + data[bits:])
        with closing(open_checkpoint(path)) as checkpoint:
            assert checkpoint.marks.runs() == ([Run(0, 1)], [Run(1, count)])


def test_clearing_leaves_the_neighbours(path: Path) -> None:
    """Eight marks share a byte."""
    data = write(path, *range(10))
    with closing(open_checkpoint(path)) as checkpoint:
        checkpoint.clear(9)
        checkpoint.clear(2)
        assert checkpoint.marks.runs() == ([Run(0, 2), Run(3, 9)], [Run(2, 3), Run(9, 10)])
    expected = bytearray(data)
    expected[2 * SLOT : 2 * SLOT + 2] = bytes((0b11111011, 0b1))
    for index in (2, 9):
        expected[3 * SLOT + 16 * index : 3 * SLOT + 16 * index + 16] = bytes(16)
    assert path.read_bytes() == bytes(expected)


def test_a_mark_that_cannot_be_cleared_on_the_disk_is_cleared_here(path: Path) -> None:
    """The next run hashes the part and finds out; this one knows."""
    write(path, 3, 4)
    with closing(open_checkpoint(path)) as checkpoint, no_file_longer_than(0):
        checkpoint.clear(3)
        assert checkpoint.marks.runs()[0] == [Run(4, 5)]


@pytest.mark.parametrize("most", [1, 7, 16, 100])
def test_records_are_read_whole_however_little_a_read_gives(
    path: Path, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel may give less than was asked for."""
    write(path, *range(10))
    read = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, views, at: read(fd, [views[0][:most]], at))
    with closing(open_checkpoint(path)) as checkpoint:
        assert [checkpoint.marks.digest(index) for index in range(10)] == DIGESTS
        assert checkpoint.marks.complete


def test_a_file_that_is_truncated_while_it_is_read_marks_what_was_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records that are gone are zeros, and zeros mark nothing."""
    write(path, *range(10))
    read = os.preadv

    def cut(fd: int, views: list[memoryview], at: int) -> int:
        os.truncate(path, 3 * SLOT + 16 * 4)
        return read(fd, views, at)

    monkeypatch.setattr(os, "preadv", cut)
    with closing(open_checkpoint(path)) as checkpoint:
        assert checkpoint.marks.runs() == ([Run(0, 4)], [Run(4, 10)])


@pytest.mark.parametrize("writable", [False, True])
def test_a_name_that_its_owner_removed_before_it_was_locked_is_taken_again(
    path: Path, monkeypatch: pytest.MonkeyPatch, *, writable: bool
) -> None:
    """Else two downloaders would each lock a file of their own."""
    write(path, 1)
    another = path.with_name("another")
    write(another, 2)
    removed: list[int] = []

    def late(fd: int, name: Path, *, shared: bool) -> None:
        lock(fd, name, shared=shared)
        if not removed:
            removed.append(os.fstat(fd).st_ino)
            another.rename(path)

    monkeypatch.setattr(module, "lock", late)
    descriptors = open_descriptors()
    with closing(open_checkpoint(path, writable=writable)) as checkpoint:
        assert checkpoint.marks.runs()[0] == [Run(2, 3)]
        assert open_descriptors() == descriptors + 1
        assert os.fstat(checkpoint._fd).st_ino != removed[0]


@pytest.mark.parametrize("size", [0, 1, 8192, 20000])
def test_a_blank_file_of_other_permissions_is_somebody_elses(path: Path, size: int) -> None:
    """An empty file or one of zeros says nothing: only the permissions that ours are made with tell whose it is."""
    path.touch(0o644)
    path.write_bytes(bytes(size))
    with pytest.raises(DiskError, match="is no checkpoint of fastdl's and is left alone"):
        open_checkpoint(path)
    assert path.read_bytes() == bytes(size)


@pytest.mark.parametrize("size", [0, 8192])
def test_a_run_that_failed_removes_no_blank_file_that_was_there(path: Path, size: int) -> None:
    """As mktemp makes it, it may be begun; before that it stays."""
    path.touch(0o600)
    path.write_bytes(bytes(size))
    with closing(open_checkpoint(path)) as checkpoint:
        checkpoint.withdraw()
        assert path.exists()
        checkpoint.begin(HEADER)
        checkpoint.withdraw()
        assert not path.exists()


def test_a_pipe_is_refused_and_not_waited_for(path: Path) -> None:
    """By readers too: nobody may ever come to its other end."""
    os.mkfifo(path)
    with pytest.raises(DiskError, match="is no checkpoint of this user"):
        open_checkpoint(path, writable=False)


@pytest.mark.parametrize("at", [8192, 2**20 - 1, 2**20, 3 * 2**20 - 1])
def test_zeros_with_anything_behind_them_are_somebody_elses(path: Path, at: int) -> None:
    """A file that merely begins with zeros is looked through to its end."""
    data = bytearray(3 * 2**20)
    path.touch(0o600)  # as one that lost its head with the power
    path.write_bytes(data)
    with closing(open_checkpoint(path)) as checkpoint:
        assert checkpoint.damage == "the checkpoint is damaged"
    data[at] = 1
    path.write_bytes(data)
    with pytest.raises(DiskError, match="is no checkpoint of fastdl's") as caught:
        open_checkpoint(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_another_users_records_may_be_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records that were kept may be anybody's: a file is only held against them."""
    write(path, 1)
    stranger = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: stranger)
    with closing(open_checkpoint(path, writable=False)) as checkpoint:
        assert checkpoint.marks.runs()[0] == [Run(1, 2)]


def test_a_reader_creates_nothing(path: Path) -> None:
    """A missing file stays missing."""
    with pytest.raises(DiskError, match=r"out\.cp: the checkpoint cannot be opened: No such file"):
        open_checkpoint(path, writable=False)
    assert not path.exists()


@pytest.mark.parametrize("writable", [False, True])
@pytest.mark.parametrize("kind", ["symlink", "directory", "device"])
def test_what_is_refused_leaves_no_descriptor(tmp_path: Path, path: Path, kind: str, *, writable: bool) -> None:
    """Not even where it could be opened."""
    if kind == "directory":
        path.mkdir()
    elif kind == "symlink":
        write(tmp_path / "target", 1)
        path.symlink_to("target")
    before = open_descriptors()
    with pytest.raises(DiskError):
        open_checkpoint(Path("/dev/null") if kind == "device" else path, writable=writable)
    assert open_descriptors() == before


def test_no_room_is_told_with_the_path_and_the_reason(path: Path) -> None:
    """One line that says what to do something about."""
    with closing(open_checkpoint(path)) as checkpoint, no_file_longer_than(SLOT), pytest.raises(DiskError) as caught:
        checkpoint.begin(HEADER)
    assert str(caught.value) == f"{path}: File too large"


def test_a_disk_that_refused_once_is_not_asked_again(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The download goes on at its speed; the warning names file and reason."""
    with closing(open_checkpoint(path)) as checkpoint:
        checkpoint.begin(HEADER)
        with no_file_longer_than(SLOT):
            checkpoint.mark(0, DIGESTS[0])
        checkpoint.mark(1, DIGESTS[1])
    assert caplog.messages == [f"{path}: File too large; the download goes on, but can be resumed only from here"]
    with closing(open_checkpoint(path)) as checkpoint:
        assert not checkpoint.marks.any


def test_the_lock_ends_with_close_though_a_fork_holds_the_descriptor(path: Path) -> None:
    """A fork of the caller may live long."""
    checkpoint = open_checkpoint(path)
    kept = os.dup(checkpoint._fd)
    descriptors = open_descriptors()
    checkpoint.close()
    assert open_descriptors() == descriptors - 1
    open_checkpoint(path).close()
    os.close(kept)


@pytest.mark.parametrize("writable", [False, True])
def test_the_checkpoint_is_not_inherited_by_programs(path: Path, *, writable: bool) -> None:
    """Its lock would be theirs too."""
    write(path, 1)
    with closing(open_checkpoint(path, writable=writable)) as checkpoint:
        assert not os.get_inheritable(checkpoint._fd)
