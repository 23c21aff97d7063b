"""With --keep-records the complete checkpoint stays beside the file, and later downloads move only what differs."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import shutil
from typing import TYPE_CHECKING

import pytest
from fastcrc import crc64

import fastdl
from tests.e2e.partial import checkpoint_of, leftovers, marked
from tests.e2e.processes import killing_at, run, running
from tests.servers.scripted import first_of, ignores_range, ranged, script, serving, short_206, status

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers.wire import Server

PART = 64 * 1024
PARTS = 40
SIZE = PARTS * PART - 11
DATA = random.Random(SIZE).randbytes(SIZE)


@pytest.fixture
def server() -> Iterator[Server]:
    """Serve the object."""
    with serving(ranged(DATA)) as server:
        yield server


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Name the file to make, in a folder of its own."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "object"


def keep(server: Server, output: Path) -> fastdl.DownloadResult:
    """Download, or look again."""
    return fastdl.download(server.url(), output, part_size=PART, keep_records=True)


def damage(output: Path, *parts: int) -> None:
    """Change a byte of each of these parts."""
    with output.open("r+b") as file:
        for index in parts:
            file.seek(index * PART + 5)
            file.write(bytes([DATA[index * PART + 5] ^ 1]))


def test_records_stay_and_a_second_download_moves_nothing(server: Server, output: Path) -> None:
    """One request for one byte tells that the object is the same; the file's parts are hashed, and that is all."""
    keep(server, output)
    before = output.stat()
    assert leftovers(output.parent) == ["object", "object.cp"]
    for _ in range(2):
        result = keep(server, output)
        assert (result.bytes_fetched, result.requests, result.parts_reused) == (0, 1, PARTS)
        assert (output.stat().st_ino, output.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
        assert leftovers(output.parent) == ["object", "object.cp"]
    fastdl.download(server.url(), output)
    assert leftovers(output.parent) == ["object"]


def test_only_what_differs_is_fetched(server: Server, output: Path) -> None:
    """Three damaged parts are three parts on the wire; the old file is never mended in place."""
    keep(server, output)
    damage(output, 3, 4, 39)
    os.link(output, output.with_name("reader"))
    result = keep(server, output)
    assert output.read_bytes() == DATA
    assert (result.parts_damaged, result.parts_reused) == ((3, 4, 39), PARTS - 3)
    assert result.bytes_fetched == 3 * PART - 11
    assert output.with_name("reader").read_bytes() != DATA
    assert marked(checkpoint_of(output))[1] == set(range(PARTS))
    assert keep(server, output).bytes_fetched == 0


def test_records_of_what_came_wrong_do_not_stay(output: Path) -> None:
    """A digest that is known later finds the file wrong, once: the next run starts over."""
    now = [ranged(DATA[:-1] + bytes([DATA[-1] ^ 1]))]
    checksum = f"crc64={crc64.xz(DATA):016x}"
    with serving(first_of(now)) as server:
        keep(server, output)
        now[0] = ranged(DATA)
        with pytest.raises(fastdl.IntegrityError):
            fastdl.download(server.url(), output, keep_records=True, checksum=checksum)
        assert not checkpoint_of(output).exists()
        assert fastdl.download(server.url(), output, keep_records=True, checksum=checksum).integrity == "crc64"
    assert output.read_bytes() == DATA


def test_a_copy_of_the_file_is_as_good(server: Server, output: Path) -> None:
    """Copied with its records it has another inode, and is hashed all the same."""
    keep(server, output)
    copy = output.with_name("copy")
    shutil.copyfile(output, copy)
    copy.replace(output)
    assert keep(server, output).bytes_fetched == 0
    assert output.read_bytes() == DATA


def test_a_replaced_object_starts_over(output: Path) -> None:
    """The records are of another object: it is fetched as a whole, and its own records are kept."""
    other = random.Random(1).randbytes(SIZE)
    with serving(ranged(DATA)) as server:
        keep(server, output)
    with serving(ranged(other, etag='"v2"')) as server:
        result = keep(server, output)
    assert "another URL" in result.started_over or "replaced" in result.started_over
    assert output.read_bytes() == other
    assert marked(checkpoint_of(output))[1] == set(range(PARTS))


def test_a_checkpoint_elsewhere_is_kept_there(server: Server, output: Path, tmp_path: Path) -> None:
    """--checkpoint names where the records stay."""
    path = tmp_path / "records"
    arguments = (server.url(), "-o", output, "-p", PART, "--checkpoint", path, "--keep-records", "--json")
    run(tmp_path / "logs", *arguments)
    assert leftovers(output.parent) == ["object"]
    assert marked(path)[1] == set(range(PARTS))
    assert run(tmp_path / "logs", *arguments).result["bytes_fetched"] == 0


def test_killed_while_good_parts_are_copied(server: Server, output: Path, tmp_path: Path) -> None:
    """The old file is still there, and the next run ends with the right one."""
    keep(server, output)
    damage(output, 7)
    before = output.read_bytes()
    arguments = (server.url(), "-o", output, "-p", PART, "--keep-records", "--json")
    prefix = killing_at(output, "copy_file_range", when=2)
    with running(tmp_path / "logs", *arguments, prefix=prefix) as command:
        assert command.wait() < 0, command.stderr
    assert output.read_bytes() == before
    run(tmp_path / "logs", *arguments)
    assert output.read_bytes() == DATA
    assert leftovers(output.parent) == ["object", "object.cp"]


def test_what_came_in_one_piece_has_no_records(output: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A server without ranges gives no parts; the log says that nothing was kept."""
    with serving(ignores_range(DATA)) as server:
        keep(server, output)
    assert leftovers(output.parent) == ["object"]
    assert "no records to keep" in caplog.text


def test_records_of_an_earlier_file_do_not_stay_beside_what_came_in_one_piece(output: Path) -> None:
    """The server serves ranges no more, and another object: old records would call the new file bad."""
    now = [ranged(DATA)]
    with serving(first_of(now)) as server:
        keep(server, output)
        now[0] = ignores_range(DATA[::-1], etag='"new"')
        keep(server, output)
    assert output.read_bytes() == DATA[::-1]
    assert leftovers(output.parent) == ["object"]


def test_no_checkpoint_no_records(server: Server, output: Path) -> None:
    """Asking for both is a mistake."""
    with pytest.raises(fastdl.UsageError, match="records"):
        fastdl.download(server.url(), output, checkpoint=False, keep_records=True)
    assert server.log == ()


def test_a_disk_too_small_for_a_second_file(server: Server, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is lost when the right parts cannot be copied: file and records stay what they were."""
    keep(server, output)
    damage(output, 7)
    before = output.read_bytes(), checkpoint_of(output).read_bytes()

    def full(*_: object) -> bool:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr("fastdl.output.fallocate", full)
        with pytest.raises(fastdl.DiskError, match="no room"):
            keep(server, output)
    assert leftovers(output.parent) == ["object", "object.cp"]
    assert (output.read_bytes(), checkpoint_of(output).read_bytes()) == before
    assert keep(server, output).parts_damaged == (7,)


def test_what_a_killed_run_left_beside_a_finished_file_goes(server: Server, output: Path) -> None:
    """A run without a checkpoint may have been killed there; the next one that finds the file finished tidies up."""
    keep(server, output)
    left = output.with_name("object.part")
    left.write_bytes(b"something unfinished")
    assert keep(server, output).parts_reused == PARTS
    assert leftovers(output.parent) == ["object", "object.cp"]


def test_another_downloaders_partial_file_stays_beside_a_finished_one(server: Server, output: Path) -> None:
    """It is locked, and nobody else's to remove."""
    keep(server, output)
    left = output.with_name("object.part")
    with left.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        keep(server, output)
    assert left.exists()


def test_without_a_checkpoint_a_failed_run_leaves_nothing(server: Server, output: Path) -> None:
    """Nobody could resume from it, whatever stood there before."""
    keep(server, output)
    short = short_206(4 * PART)
    with serving(script({1: short, 2: short, 3: status(404)}, otherwise=ranged(DATA))) as failing:
        with pytest.raises(fastdl.NotFound):
            fastdl.download(failing.url(), output, part_size=PART, checkpoint=False, workers=1, connections=1)
        assert len(failing.log) == 3
    assert leftovers(output.parent) == ["object", "object.cp"]
    assert output.read_bytes() == DATA
