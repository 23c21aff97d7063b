"""What somebody found who tried to break it: each of these once published, lost or withheld a file."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from fastcrc import crc64

import fastdl
from fastdl.checkpoint import Checkpoint
from tests.servers.scripted import Exchange, Pattern, ranged, serving, status

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers.wire import Server

PART = 64 * 1024
SIZE = 20 * PART + 5
DATA = bytes(Pattern(SIZE).read(0, SIZE))


@pytest.fixture
def server() -> Iterator[Server]:
    """Serve the object."""
    with serving(ranged(DATA)) as server:
        yield server


def publish_and_die(url: str, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """End a run between the rename and the removal of its checkpoint."""

    def die(_: Checkpoint) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoint, "remove", die)
        with pytest.raises(KeyboardInterrupt):
            fastdl.download(url, output, part_size=PART)


def test_trusted_parts_prove_no_checksum(tmp_path: Path) -> None:
    """--resume trust believes the marks; a checksum that the user gives is compared with the bytes, and saves them."""
    data = bytes(Pattern(200 * PART).read(0, 200 * PART))
    right, gone, output = ranged(data), status(404), tmp_path / "out"
    healthy = False

    def handle(exchange: Exchange) -> None:
        exchange.otherwise = right
        (right if healthy or exchange.request.number == 1 else gone)(exchange)

    with serving(handle) as server:
        with pytest.raises(fastdl.NotFound):
            fastdl.download(server.url(), output, part_size=PART, connections=1, workers=1)
        with (tmp_path / "out.part").open("r+b") as file:
            file.write(bytes([data[0] ^ 1]))
        healthy = True
        result = fastdl.download(server.url(), output, resume="trust", checksum=f"crc64={crc64.xz(data):016x}")
    assert output.read_bytes() == data
    assert (result.integrity, result.parts_damaged, result.parts_repaired) == ("crc64", (0,), ())
    assert result.bytes_fetched == len(data) - result.parts_reused * PART


@pytest.mark.parametrize("checksum", [None, "md5=" + "0" * 32])
def test_a_file_published_by_a_killed_run_is_never_lost(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, checksum: str | None
) -> None:
    """Killed between the rename and the checkpoint's removal: the next run proves the file, or fails and leaves it."""
    output = tmp_path / "out"
    publish_and_die(server.url(), output, monkeypatch)
    assert (output.read_bytes(), (tmp_path / "out.cp").exists()) == (DATA, True)
    if checksum is None:
        result = fastdl.download(server.url(), output)
        assert (result.parts_reused, result.bytes_fetched) == (result.parts, 0)
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
    else:
        with pytest.raises(fastdl.IntegrityError):
            fastdl.download(server.url(), output, checksum=checksum)
    assert output.read_bytes() == DATA


def test_a_published_file_that_was_changed_is_replaced(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checkpoint proves a part wrong, which alone is fetched; the file keeps its name until a right one has it."""
    output = tmp_path / "out"
    publish_and_die(server.url(), output, monkeypatch)
    with output.open("r+b") as file:
        file.write(bytes([DATA[0] ^ 1]))
    before = output.stat().st_ino
    result = fastdl.download(server.url(), output)
    assert (result.parts_damaged, result.bytes_fetched, result.started_over) == ((0,), PART, "")
    assert output.read_bytes() == DATA
    assert output.stat().st_ino != before


def test_a_published_file_without_one_right_part_is_fetched_anew(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is nothing to keep of it, and the result says so."""
    output = tmp_path / "out"
    publish_and_die(server.url(), output, monkeypatch)
    output.write_bytes(bytes(SIZE))
    result = fastdl.download(server.url(), output)
    assert "changed after it was published" in result.started_over
    assert (output.read_bytes(), result.parts_reused) == (DATA, 0)


def test_a_disk_image_given_as_checkpoint_is_left_alone(tmp_path: Path, server: Server) -> None:
    """Zeros at its beginning do not make a file a torn checkpoint."""
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(32768) + b"CD001")
    with pytest.raises(fastdl.DiskError, match="left alone"):
        fastdl.download(server.url(), tmp_path / "out", checkpoint_path=image)
    assert image.read_bytes() == bytes(32768) + b"CD001"


@pytest.mark.parametrize("redirection", [">/dev/full", "2>&-", ">&-"])
def test_a_lost_standard_stream_stops_no_download(tmp_path: Path, server: Server, redirection: str) -> None:
    """Lines that nobody can read are not worth a file."""
    command = f'"$0" -m fastdl "$1" -o "$2" --json {redirection}'
    output = tmp_path / "out"
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, server.url(), str(output)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert output.read_bytes() == DATA
