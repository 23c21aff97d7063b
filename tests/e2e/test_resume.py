"""A second run uses what the first one finished, refetches what is damaged, and never joins bytes of two objects."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import xxhash

import fastdl
from fastdl.checkpoint import open_checkpoint
from fastdl.digest import Hasher
from fastdl.header import STAMP, Header
from fastdl.plan import Plan
from fastdl.sources import resolve
from fastdl.validator import ObjectInfo, Validator
from tests.e2e.partial import bits, checkpoint_of, interrupt, leftovers, marked, partial_of
from tests.e2e.processes import killing_at, run, running
from tests.servers.objects import serving_objects
from tests.servers.scripted import LAST_MODIFIED, Exchange, ranged, serving, stall_after

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.servers.objects import ObjectServer

KIB, MIB = 1 << 10, 1 << 20
PART = 128 * KIB
SIZE = 12 * MIB + 777  # more than the caller's own connection asks for at first, so that workers take part
RATE = 6 * MIB  # bytes per second and connection: time enough to be killed in
FLAGS = ("-x", 4, "-w", 2, "--json")


@dataclass(frozen=True, slots=True)
class Scene:
    """An object on a slow server, and where it is to go."""

    server: ObjectServer
    data: bytes
    folder: Path  # of the output, and of nothing else
    logs: Path

    @property
    def output(self) -> Path:
        """The final name."""
        return self.folder / "object"

    def interrupt(self, *flags: object, checkpoint: Path | None = None, query: str = "") -> tuple[Plan, set[int]]:
        """Kill a download once ten parts are marked."""
        arguments = (self.url(query), "-o", self.output, *FLAGS, *flags)
        return interrupt(self.logs, 10, checkpoint or checkpoint_of(self.output), *arguments)

    def finish(self, *flags: object, query: str = "") -> dict[str, object]:
        """Download at full speed; the file must be exact and alone. Return the JSON result."""
        self.server.rate = None
        result = run(self.logs, self.url(query), "-o", self.output, *FLAGS, *flags).result
        assert self.output.read_bytes() == (self.server.root / "object").read_bytes()
        assert leftovers(self.folder) == ["object"]
        return result

    def url(self, query: str = "") -> str:
        """Make the object's URL."""
        return self.server.url("object") + query


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Serve random bytes slowly."""
    data = random.Random(SIZE).randbytes(SIZE)
    for name in ("store", "out"):
        (tmp_path / name).mkdir()
    (tmp_path / "store" / "object").write_bytes(data)
    with serving_objects(tmp_path / "store", rate=RATE) as server:
        yield Scene(server, data, tmp_path / "out", tmp_path / "logs")


@pytest.mark.parametrize("count", [1, 7, 40])
def test_flipped_bytes_cost_exactly_their_parts(scene: Scene, count: int) -> None:
    """Bytes that changed on the disk between runs are found: their parts, and no others, are fetched again."""
    plan, parts = scene.interrupt("-p", PART)
    rng = random.Random(count)
    damaged = set()
    with partial_of(scene.output).open("r+b") as file:
        for _ in range(count):
            index = rng.choice(sorted(parts))
            at = rng.randrange(plan.part(index).start, plan.part(index).stop)
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            # Away from the original, never back to it: two flips of one byte must not mend it.
            file.write(bytes([(scene.data[at] + 1 + byte % 254) % 256]))
            damaged.add(index)
    result = scene.finish("-p", PART)
    assert result["parts_damaged"] == sorted(damaged)
    assert result["parts_reused"] == len(parts - damaged)
    assert result["bytes_fetched"] == SIZE - sum(plan.part(index).nbytes for index in parts - damaged)
    assert result["started_over"] == ""


def test_nothing_is_fetched_twice_without_damage(scene: Scene) -> None:
    """The plain resume: what is marked is kept, what is missing is fetched, to the byte."""
    plan, parts = scene.interrupt("-p", PART)
    result = scene.finish("-p", PART)
    assert (result["parts_reused"], result["parts_damaged"], result["parts"]) == (len(parts), [], plan.count)
    assert result["bytes_fetched"] == SIZE - sum(plan.part(index).nbytes for index in parts)


def test_trust_takes_the_marks_for_true(scene: Scene) -> None:
    """With --resume trust nothing is hashed, and as little is fetched."""
    plan, parts = scene.interrupt("-p", PART)
    result = scene.finish("-p", PART, "--resume", "trust")
    assert result["parts_reused"] == len(parts)
    assert result["bytes_fetched"] == SIZE - sum(plan.part(index).nbytes for index in parts)


def test_resume_no_starts_over(scene: Scene) -> None:
    """With --resume no the earlier bytes are thrown away, and the result says so."""
    scene.interrupt("-p", PART)
    result = scene.finish("-p", PART, "--resume", "no")
    assert (result["parts_reused"], result["bytes_fetched"]) == (0, SIZE)
    assert "not wanted" in str(result["started_over"])


def test_the_part_size_of_the_first_run_holds_if_none_is_given(scene: Scene) -> None:
    """Leaving -p out the second time resumes the first one's parts, exact to the byte."""
    plan, parts = scene.interrupt("-p", PART)
    result = scene.finish()
    assert result["started_over"] == ""
    assert (result["part_size"], result["parts_reused"]) == (PART, len(parts))
    assert result["bytes_fetched"] == SIZE - sum(plan.part(index).nbytes for index in parts)


def test_another_part_size_starts_over(scene: Scene) -> None:
    """Marks of parts of another size mean nothing: started over, saying why."""
    scene.interrupt("-p", PART)
    result = scene.finish("-p", 2 * PART)
    assert (result["parts_reused"], result["part_size"]) == (0, 2 * PART)
    assert f"part size was {PART}, is {2 * PART}" in str(result["started_over"])


@pytest.mark.parametrize("resume", ["verify", "trust"])
def test_a_replaced_object_starts_over(scene: Scene, resume: str) -> None:
    """Other bytes of the same size under another ETag: nothing of the old object gets into the new file."""
    scene.interrupt("-p", PART)
    replacement = scene.server.root / "new"
    replacement.write_bytes(random.Random(1).randbytes(SIZE))
    replacement.replace(scene.server.root / "object")
    result = scene.finish("-p", PART, "--resume", resume)
    assert (result["parts_reused"], result["bytes_fetched"]) == (0, SIZE)
    assert "replaced: ETag was" in str(result["started_over"])


@pytest.mark.parametrize("size", [0, 1, SIZE - 1, SIZE + 1])
def test_an_object_of_another_size_starts_over(scene: Scene, size: int) -> None:
    """Shorter or longer, the object is another one."""
    scene.interrupt("-p", PART)
    (scene.server.root / "object").write_bytes(random.Random(1).randbytes(size))
    result = scene.finish("-p", PART)
    assert result["bytes_fetched"] == size
    assert result["started_over"]


def remove(partial: Path) -> None:
    """Lose the unfinished file."""
    partial.unlink()


def replace_by_zeros(partial: Path) -> None:
    """Put another inode in its place, with none of its bytes."""
    other = partial.with_name("other")
    with other.open("wb") as file:
        file.truncate(partial.stat().st_size)
    other.replace(partial)


def truncate(partial: Path) -> None:
    """Cut its last byte off."""
    os.truncate(partial, partial.stat().st_size - 1)


def empty(partial: Path) -> None:
    """Cut everything off."""
    os.truncate(partial, 0)


def extend(partial: Path) -> None:
    """Append a byte."""
    os.truncate(partial, partial.stat().st_size + 1)


@pytest.mark.parametrize("spoil", [remove, replace_by_zeros, truncate, empty, extend])
def test_another_partial_file_starts_over(scene: Scene, spoil: Callable[[Path], None]) -> None:
    """Marks are about one file of one size; anything else in its place is not believed, not even by trust."""
    scene.interrupt("-p", PART)
    spoil(partial_of(scene.output))
    result = scene.finish("-p", PART, "--resume", "trust")
    assert (result["parts_reused"], result["bytes_fetched"]) == (0, SIZE)
    assert "partial file is missing, or is not the one" in str(result["started_over"])


@pytest.mark.parametrize("resume", ["verify", "trust"])
def test_a_copy_in_place_of_the_partial_file(scene: Scene, resume: str) -> None:
    """Moved to another disk and back, the unfinished file has another inode; the outcome is exact all the same."""
    scene.interrupt("-p", PART)
    copy = scene.output.with_name("copy")
    shutil.copyfile(partial_of(scene.output), copy)
    copy.replace(partial_of(scene.output))
    scene.finish("-p", PART, "--resume", resume)


def test_zeroed_in_place_means_every_part_is_damaged(scene: Scene) -> None:
    """The same inode, its bytes gone: each marked part is found out and fetched again."""
    _, parts = scene.interrupt("-p", PART)
    with partial_of(scene.output).open("r+b") as file:
        file.write(bytes(SIZE))
    result = scene.finish("-p", PART)
    assert (result["parts_damaged"], result["bytes_fetched"]) == (sorted(parts), SIZE)


def test_without_a_checkpoint_nothing_is_kept(scene: Scene) -> None:
    """With --no-checkpoint no checkpoint is made, and a later run starts from nothing."""
    scene.server.rate = 100 * KIB
    with running(scene.logs, scene.url(), "-o", scene.output, *FLAGS, "--no-checkpoint") as command:
        begun = scene.server.sent
        command.wait_until(lambda: scene.server.sent > begun and partial_of(scene.output).exists())
        assert not checkpoint_of(scene.output).exists()
        command.kill_tree()
    result = scene.finish("--no-checkpoint")
    assert (result["parts_reused"], result["bytes_fetched"]) == (0, SIZE)


@pytest.mark.parametrize("resume", ["verify", "trust"])
def test_marks_of_a_run_before_one_without_a_checkpoint_are_not_believed(scene: Scene, resume: str) -> None:
    """A run with --no-checkpoint replaces OUT.part, whose new inode may have the old number: old marks mean nothing."""
    scene.interrupt("-p", PART)
    scene.server.rate = 100 * KIB
    first = partial_of(scene.output).stat()
    with running(scene.logs, scene.url(), "-o", scene.output, *FLAGS, "-p", PART, "--no-checkpoint") as command:
        command.wait_until(lambda: is_new(partial_of(scene.output), first))
        command.kill_tree()
    scene.finish("-p", PART, "--resume", resume)


def is_new(path: Path, before: os.stat_result) -> bool:
    """Tell whether a file was made anew, allocated in full, since ``before``; its number may be the old one."""
    try:
        now = path.stat()
    except FileNotFoundError:
        return False
    return now.st_size == before.st_size and (now.st_ino != before.st_ino or now.st_ctime_ns != before.st_ctime_ns)


def test_a_checkpoint_at_another_path(scene: Scene) -> None:
    """With --checkpoint PATH the marks live there, and are found there again."""
    path = scene.folder / "elsewhere.state"
    plan, parts = scene.interrupt("-p", PART, "--checkpoint", path, checkpoint=path)
    assert leftovers(scene.folder) == ["elsewhere.state", "object.part"]
    result = scene.finish("-p", PART, "--checkpoint", path)
    assert result["parts_reused"] == len(parts)
    assert result["bytes_fetched"] == SIZE - sum(plan.part(index).nbytes for index in parts)


def test_a_presigned_url_with_another_signature_resumes(scene: Scene) -> None:
    """A signature is not part of what the object is."""
    signed = "?versionId=7&X-Amz-Date=20250101T000000Z&X-Amz-Expires=60&X-Amz-Signature={}&X-Amz-Credential=AK{}"
    _, parts = scene.interrupt("-p", PART, query=signed.format("aa" * 32, 1))
    result = scene.finish("-p", PART, query=signed.format("bb" * 32, 2))
    assert (result["parts_reused"], result["started_over"]) == (len(parts), "")


def test_another_url_starts_over(scene: Scene) -> None:
    """Another object on the same server, to the same output, is not a resume."""
    scene.interrupt("-p", PART, query="?versionId=7")
    result = scene.finish("-p", PART, query="?versionId=8")
    assert (result["parts_reused"], result["started_over"]) == (0, "the checkpoint is of another URL")


def test_death_between_publication_and_the_removal_of_the_checkpoint(scene: Scene) -> None:
    """The file is there, the checkpoint still is: the next run finds it complete, fetches nothing and cleans up."""
    scene.server.rate = None
    prefix = killing_at(checkpoint_of(scene.output), "unlink,unlinkat")
    with running(scene.logs, scene.url(), "-o", scene.output, *FLAGS, "-p", PART, prefix=prefix) as command:
        assert command.wait() == -signal.SIGKILL, command.stderr
    assert leftovers(scene.folder) == ["object", "object.cp"]
    assert scene.output.read_bytes() == scene.data
    result = scene.finish("-p", PART)
    assert (result["bytes_fetched"], result["parts_reused"]) == (0, result["parts"])


def test_a_file_changed_after_such_a_death_is_never_mended_in_place(scene: Scene) -> None:
    """OUT was published and then edited: the run that finds the old checkpoint ends with an exact file all the same."""
    scene.server.rate = None
    prefix = killing_at(checkpoint_of(scene.output), "unlink,unlinkat")
    with running(scene.logs, scene.url(), "-o", scene.output, *FLAGS, "-p", PART, prefix=prefix) as command:
        assert command.wait() == -signal.SIGKILL, command.stderr
    with scene.output.open("r+b") as file:
        file.write(b"edited")
    scene.finish("-p", PART)


SECOND = [(), ("--no-checkpoint",), ("--resume", "no"), ("--checkpoint", "other.cp")]


@pytest.mark.parametrize("flags", SECOND, ids=["same", "no-checkpoint", "resume-no", "other-checkpoint"])
def test_a_second_downloader_of_the_same_output_is_told_so(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """Exit 10, nothing touched; the first one goes on and ends exact."""
    if "other.cp" in flags:
        flags = ("--checkpoint", str(tmp_path / "out" / "other.cp"))
    output, logs, gate = tmp_path / "out" / "object", tmp_path / "logs", threading.Event()
    output.parent.mkdir()
    data = random.Random(2).randbytes(SIZE)
    right = ranged(data)

    def half_way(exchange: Exchange) -> None:
        exchange.otherwise = right
        stall_after(3 * PART, gate)(exchange)

    with serving(half_way) as server:
        arguments = (server.url(), "-o", output, *FLAGS, "-p", PART)
        with running(logs, *arguments) as first:
            first.wait_until(lambda: bits(checkpoint_of(output)) >= 6)  # of the caller's connection and a worker's
            inode = partial_of(output).stat().st_ino
            second = run(logs, *arguments, *flags, expect=10)
            assert second.result["event"] == "error"
            assert "another downloader" in str(second.result["message"])
            assert not first.ended
            assert partial_of(output).stat().st_ino == inode
            assert leftovers(output.parent) == ["object.cp", "object.part"]
            gate.set()
            assert first.wait() == 0, first.stderr
            result = first.result
    assert output.read_bytes() == data
    assert leftovers(output.parent) == ["object"]
    assert (result["bytes_fetched"], result["retries"]) == (SIZE, 0)


def test_two_started_together_end_with_one_exact_file(scene: Scene) -> None:
    """Of two commands started at once, each ends with 0 or 10, at least one with 0, and the file is exact."""
    for _ in range(2):
        scene.server.rate = 8 * MIB
        arguments = (scene.url(), "-o", scene.output, *FLAGS, "-p", PART)
        with running(scene.logs, *arguments) as one, running(scene.logs, *arguments) as other:
            codes = {one.wait(), other.wait()}
        assert codes <= {0, 10}, one.stderr + other.stderr
        assert 0 in codes
        assert scene.output.read_bytes() == scene.data
        assert leftovers(scene.folder) == ["object"]
        scene.output.unlink()


SMALL_PART, SMALL_PARTS = 64, 64
SMALL = SMALL_PART * SMALL_PARTS - 5
HALF = frozenset(range(0, SMALL_PARTS, 2))  # every second part is marked: each flip of a bit is a lie


class Tampering:
    """A half-finished download of a tiny object, restored before every attempt with its checkpoint spoilt.

    ``OUT.part`` is the same file each time, a second link keeps it alive.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self.data = random.Random(SMALL).randbytes(SMALL)
        self.output = folder / "object"
        self._url = url
        self._stamp = bytes(range(1, STAMP + 1))
        self._keep = folder.with_name("keep")
        self._keep.write_bytes(bytes(SMALL))
        status = self._keep.stat()
        info = ObjectInfo(SMALL, Validator('"v1"', LAST_MODIFIED))
        inode = (status.st_dev, status.st_ino)
        header = Header(self.plan, resolve(url, ()).identity, info.validator, info.crc64, inode, self._stamp)
        with closing(open_checkpoint(folder.with_name("good.cp"))) as opened:
            opened.begin(header)
            for index in sorted(HALF):
                hasher = Hasher(index)
                hasher.update(memoryview(self.piece(index)))
                opened.mark(index, hasher.digest())
        self.good = folder.with_name("good.cp").read_bytes()

    @property
    def plan(self) -> Plan:
        """The tiny parts."""
        return Plan(SMALL, SMALL_PART)

    def piece(self, index: int) -> bytes:
        """Return the bytes of a part."""
        return self.data[self.plan.part(index).start : self.plan.part(index).stop]

    def attempt(self, checkpoint: bytes, resume: str) -> fastdl.DownloadResult | None:
        """Resume with this checkpoint: the file is exact, or there is none and one of our errors says why."""
        for path in (self.output, partial_of(self.output)):
            path.unlink(missing_ok=True)
        self._keep.write_bytes(
            b"".join(self.piece(i) if i in HALF else b"\xee" * SMALL_PART for i in range(SMALL_PARTS))
        )
        os.truncate(self._keep, SMALL)
        with self._keep.open("ab") as file:
            file.write(self._stamp)
        self._keep.chmod(0o600)
        partial_of(self.output).hardlink_to(self._keep)
        checkpoint_of(self.output).touch(0o600)  # as every one that a run makes
        checkpoint_of(self.output).write_bytes(checkpoint)
        try:
            result = fastdl.download(
                self._url, self.output, part_size=SMALL_PART, workers=1, connections=1, resume=resume, retry=0
            )
        except fastdl.FastdlError:
            assert not self.output.exists()
            return None
        assert self.output.read_bytes() == self.data
        assert leftovers(self.output.parent) == ["object"]
        return result

    def loaded(self, checkpoint: bytes) -> object:
        """Return all that a download learns from a checkpoint file."""
        path = self.output.with_name("probe.cp")
        path.write_bytes(checkpoint)
        try:
            with closing(open_checkpoint(path)) as opened:
                stored = opened.stored
                if stored is None:
                    return opened.damage
                digests = [
                    opened.marks.digest(i) for run_ in opened.marks.runs()[0] for i in range(run_.first, run_.stop)
                ]
                return stored, opened.marks.runs(), digests
        finally:
            path.unlink()


@pytest.fixture
def tampering(tmp_path: Path) -> Iterator[Tampering]:
    """Serve the tiny object and stand half-way."""
    (tmp_path / "out").mkdir()
    data = random.Random(SMALL).randbytes(SMALL)
    with serving(ranged(data)) as server:
        yield Tampering(server.url(), tmp_path / "out")


def flipped(data: bytes, at: int, mask: int = 0xFF) -> bytes:
    """Flip bits of one byte."""
    return data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :]


BITMAP, RECORDS = 8192, 12288
REGIONS = [(0, 160), (160, 4088), (4088, 4096), (4096, 8192), (BITMAP, BITMAP + 8), (BITMAP + 8, RECORDS)]


def test_the_untouched_checkpoint_resumes(tampering: Tampering) -> None:
    """The state that the tests below spoil is a good one: half is kept, half is fetched."""
    result = tampering.attempt(tampering.good, "verify")
    assert result is not None
    assert (result.parts_reused, result.parts_damaged) == (len(HALF), ())
    assert result.bytes_fetched == SMALL - len(HALF) * SMALL_PART


@pytest.mark.parametrize("resume", ["verify", "trust"])
def test_a_flipped_byte_of_the_checkpoint_never_makes_a_wrong_file(tampering: Tampering, resume: str) -> None:
    """Sampled bytes of each region, and all of the bitmap: exact bytes or one of our errors, whatever flipped."""
    rng = random.Random(64)
    sample = [rng.randrange(start, stop) for start, stop in REGIONS]
    sample += [*range(BITMAP, BITMAP + 8, 3), *rng.sample(range(RECORDS, len(tampering.good)), 4)]
    for at in sample:
        tampering.attempt(flipped(tampering.good, at, rng.choice([0xFF, 1 << rng.randrange(8)])), resume)


def test_a_flipped_record_costs_its_part_only(tampering: Tampering) -> None:
    """A record that does not fit its bytes is damage of that part."""
    result = tampering.attempt(flipped(tampering.good, RECORDS + 16 * 4 + 3), "verify")
    assert result is not None
    assert (result.parts_damaged, result.parts_reused) == ((4,), len(HALF) - 1)


def test_a_byte_of_one_header_slot_costs_nothing(tampering: Tampering) -> None:
    """Either slot is enough."""
    for at in (8, 4090, 4096 + 20, 8191):
        result = tampering.attempt(flipped(tampering.good, at), "verify")
        assert result is not None
        assert (result.parts_reused, result.started_over) == (len(HALF), "")


def test_both_slots_damaged_starts_over(tampering: Tampering) -> None:
    """Without a header the marks mean nothing."""
    result = tampering.attempt(flipped(flipped(tampering.good, 100), 4096 + 200), "verify")
    assert result is not None
    assert (result.parts_reused, result.started_over) == (0, "the checkpoint is damaged")


def test_every_mark_claimed_falsely(tampering: Tampering) -> None:
    """All bits set, the records of half of them empty, stale or of another part: only true parts are kept."""
    lies = tampering.good[:BITMAP] + b"\xff" * 8 + tampering.good[BITMAP + 8 :]
    for resume in ("verify", "trust"):
        result = tampering.attempt(lies, resume)
        assert result is not None
        assert result.parts_reused == len(HALF)
    shifted = lies[:RECORDS] + bytes(16) + lies[RECORDS:-16]
    result = tampering.attempt(shifted, "verify")
    assert result is not None
    assert result.parts_reused == 0


@pytest.mark.parametrize("resume", ["verify", "trust"])
@pytest.mark.parametrize("length", [0, 1, 4095, 4096, 8191, 8192, 8200, 12288, 13311, 13313, 20000])
def test_a_checkpoint_of_another_length_starts_over(tampering: Tampering, length: int, resume: str) -> None:
    """Truncated or extended, the checkpoint is not believed at all."""
    result = tampering.attempt(tampering.good[:length].ljust(length, b"\0"), resume)
    assert result is not None
    assert result.parts_reused == 0


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("resume", ["verify", "trust"])
def test_every_byte_of_the_checkpoint(tampering: Tampering, resume: str) -> None:
    """Every single byte flipped: what a download learns is the same or less; wherever it differs, one is made.

    A download depends on the checkpoint through what is loaded alone, so that bytes which change nothing there need a
    download only here and there.
    """
    good = tampering.loaded(tampering.good)
    changed = 0
    for at in range(len(tampering.good)):
        spoilt = flipped(tampering.good, at)
        differs = tampering.loaded(spoilt) != good
        changed += differs
        if differs or at % 64 == 0:
            tampering.attempt(spoilt, resume)
    assert changed >= 8 + 16 * len(HALF)  # the bitmap and the records of marked parts


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_every_length_of_the_checkpoint(tampering: Tampering) -> None:
    """Truncated at each length: nothing is loaded; a download at every 64th."""
    for length in range(len(tampering.good)):
        assert isinstance(tampering.loaded(tampering.good[:length]), str)
        if length % 64 == 0:
            result = tampering.attempt(tampering.good[:length], "verify")
            assert result is not None
            assert result.parts_reused == 0


def test_zeros_and_absurd_sizes_start_over(tampering: Tampering) -> None:
    """A file lost to zeros, a header that claims 2^63 bytes or parts of nothing: started over, no memory eaten."""
    headers = []
    for at, value in ((24, 2**63), (24, 2**64 - 1), (32, 0), (32, 2**64 - 1)):  # size, part size
        header = bytearray(tampering.good[:4096])
        header[at : at + 8] = value.to_bytes(8, "little")
        header[-8:] = xxhash.xxh3_64_intdigest(bytes(header[:-8])).to_bytes(8, "little")
        headers.append(bytes(header) * 2 + tampering.good[BITMAP:])
    for checkpoint in (bytes(len(tampering.good)), *headers):
        result = tampering.attempt(checkpoint, "verify")
        assert result is not None
        assert (result.parts_reused, result.started_over) == (0, "the checkpoint is damaged")


def test_a_file_that_is_no_checkpoint_is_left_alone(tmp_path: Path) -> None:
    """Somebody else's file at the checkpoint's name, by --checkpoint or by chance: exit 9, not a byte of it changed."""
    output, other = tmp_path / "object", tmp_path / "object.cp"
    for content in (random.Random(9).randbytes(13312), b"{}\n"):
        other.write_bytes(content)
        with serving(ranged(b"bytes")) as server:
            command = run(tmp_path / "logs", server.url(), "-o", output, expect=9)
        assert "no checkpoint" in command.stderr
        assert other.read_bytes() == content
        assert not output.exists()


def test_threads_share_nothing_while_resuming(tampering: Tampering, tmp_path: Path) -> None:
    """While one download of this process resumes, another one of another output does not disturb it."""
    other = tmp_path / "other"
    results: list[object] = []
    with serving(ranged(tampering.data)) as server:
        thread = threading.Thread(target=lambda: results.append(fastdl.download(server.url(), other)))
        thread.start()
        result = tampering.attempt(tampering.good, "verify")
        thread.join()
    assert result is not None
    assert other.read_bytes() == tampering.data
    assert len(results) == 1


def test_the_checkpoint_records_what_the_result_counts(scene: Scene) -> None:
    """Killed twice, each run adds to the marks of the one before."""
    _, first = scene.interrupt("-p", PART)
    checkpoint = checkpoint_of(scene.output)
    with running(scene.logs, scene.url(), "-o", scene.output, *FLAGS, "-p", PART) as command:
        command.wait_until(lambda: bits(checkpoint) >= len(first) + 10)
        command.kill_tree()
    _, second = marked(checkpoint)
    assert first < second
    assert scene.finish("-p", PART)["parts_reused"] == len(second)
