"""Every size of object and of part, from nothing to beyond 4 GiB, comes out exact, or is refused with a size to use."""

from __future__ import annotations

import os
import random
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.e2e.partial import checkpoint_of, interrupt, leftovers
from tests.e2e.processes import program, run
from tests.servers.nginx import serving_nginx
from tests.servers.objects import serving_objects
from tests.servers.scripted import Pattern, ranged, serving

if TYPE_CHECKING:
    from pathlib import Path

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
FLAGS = ("-x", 4, "-w", 2, "--json")


def download(tmp_path: Path, size: int, *flags: object) -> dict[str, object]:
    """Download a pattern of ``size`` bytes; the file must be exact and alone. Return the JSON result."""
    output = tmp_path / "out" / "object"
    output.parent.mkdir()
    pattern = Pattern(size)
    with serving(ranged(pattern)) as server:
        result = run(tmp_path / "logs", server.url(), "-o", output, *FLAGS, *flags).result
    assert output.read_bytes() == bytes(pattern.read(0, size))
    assert leftovers(output.parent) == ["object"]
    assert (result["size"], result["bytes_fetched"]) == (size, size)
    return result


@pytest.mark.parametrize(
    ("size", "part_size"),
    [(64 * KIB, "1"), (3 * MIB + 1, "1K"), (20 * MIB + 99, "100K"), (12 * MIB + 5, "5G"), (9 * MIB, str(9 * MIB))],
)
def test_part_sizes_from_one_byte_to_five_gibibytes(tmp_path: Path, size: int, part_size: str) -> None:
    """The smallest, the largest, odd ones, and one that is the object itself."""
    result = download(tmp_path, size, "-p", part_size)
    assert isinstance(result["part_size"], int)
    assert result["parts"] == -(-size // result["part_size"])


PART = 100 * KIB


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 7 * PART - 1, 7 * PART, 7 * PART + 1])
def test_objects_around_multiples_of_a_part(tmp_path: Path, size: int) -> None:
    """Nothing, one byte, and one byte beside each border."""
    download(tmp_path, size, "-p", PART)


@pytest.mark.parametrize("delta", [-1, 0, 1])
def test_objects_around_the_first_request(tmp_path: Path, delta: int) -> None:
    """The first request asks for 8 MiB before the size is known."""
    download(tmp_path, 8 * MIB + delta)


@pytest.mark.long
def test_one_byte_parts_resume(tmp_path: Path) -> None:
    """Parts of one byte are marked, hashed and kept one by one like any other."""
    data = random.Random(1).randbytes(128 * KIB)  # two windows: the first is marked while the second is on its way
    output = tmp_path / "out" / "object"
    for folder in ("out", "store"):
        (tmp_path / folder).mkdir()
    (tmp_path / "store" / "object").write_bytes(data)
    with serving_objects(tmp_path / "store", rate=128 * KIB) as server:
        arguments = (server.url("object"), "-o", output, *FLAGS, "-p", 1)
        _, parts = interrupt(tmp_path / "logs", 1000, checkpoint_of(output), *arguments)
        server.rate = None
        result = run(tmp_path / "logs", *arguments).result
    assert output.read_bytes() == data
    assert (result["parts_reused"], result["bytes_fetched"]) == (len(parts), len(data) - len(parts))


@pytest.mark.parametrize("part_size", ["0", str(5 * GIB + 1), "-1", "1.5M", "many"])
def test_a_part_size_out_of_bounds_is_refused(tmp_path: Path, part_size: str) -> None:
    """Exit 2 before anything is asked."""
    output = tmp_path / "out" / "object"
    output.parent.mkdir()
    with serving(ranged(b"bytes")) as server:
        run(tmp_path / "logs", server.url(), "-o", output, f"--part-size={part_size}", expect=2)
        assert server.log == ()
    assert leftovers(output.parent) == []


def test_an_absurd_checkpoint_is_refused_with_the_size_to_use(tmp_path: Path) -> None:
    """A terabyte in parts of a byte: exit 2, the least part size named, nothing left behind; that size then works."""
    output = tmp_path / "out" / "object"
    output.parent.mkdir()
    size = 1 << 40
    with serving(ranged(Pattern(size))) as server:
        command = run(tmp_path / "logs", server.url(), "-o", output, "-p", 1, expect=2)
    assert leftovers(output.parent) == []
    least = size // 2**24
    assert f"--part-size {least}" in command.stderr
    assert len(command.stderr.splitlines()) == 1


def sparse(path: Path, size: int) -> None:
    """Make a file of holes with random bytes at odd places: both ends, around 2 GiB and 4 GiB, in between."""
    rng = random.Random(size)
    with path.open("wb") as file:
        file.truncate(size)
        borders = [at for at in (0, 2 * GIB, 4 * GIB, size) if at <= size]
        for at in [*borders, *(rng.randrange(size) for _ in range(20))]:
            start = min(max(0, at - 5001), size - 10_007)
            file.seek(start)
            file.write(rng.randbytes(10_007))


def assert_equal(one: Path, other: Path) -> None:
    """Compare two large files by cmp, which needs no memory."""
    compared = subprocess.run([program("cmp", "diffutils"), one, other], check=False, capture_output=True, text=True)
    assert compared.returncode == 0, compared.stdout + compared.stderr


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("part_size", [None, "5G", "100K"])
def test_an_object_beyond_four_gibibytes(tmp_path: Path, part_size: str | None) -> None:
    """Offsets that do not fit into 32 bits, in many parts and in a single one."""
    size = 4 * GIB + GIB // 2 + 3
    for folder in ("out", "store"):
        (tmp_path / folder).mkdir()
    sparse(tmp_path / "store" / "object", size)
    output = tmp_path / "out" / "object"
    flags = () if part_size is None else ("-p", part_size)
    with serving_nginx(tmp_path / "store") as server:
        result = run(tmp_path / "logs", server.url("/object"), "-o", output, "--json", *flags).result
    assert result["bytes_fetched"] == size
    assert os.stat(output).st_size == size  # noqa: PTH116 - beside cmp, which reads it
    assert_equal(tmp_path / "store" / "object", output)
    assert leftovers(output.parent) == ["object"]
    output.unlink()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_an_object_beyond_four_gibibytes_resumes(tmp_path: Path) -> None:
    """Killed half-way, the marks beyond 4 GiB mean the right bytes."""
    size = 4 * GIB + GIB // 2 + 3
    for folder in ("out", "store"):
        (tmp_path / folder).mkdir()
    sparse(tmp_path / "store" / "object", size)
    output = tmp_path / "out" / "object"
    with serving_nginx(tmp_path / "store", rate=100 * MIB) as server:
        arguments = (server.url("/object"), "-o", output, "--json")
        plan, parts = interrupt(tmp_path / "logs", 500, checkpoint_of(output), *arguments)
        result = run(tmp_path / "logs", *arguments).result
    assert result["parts_reused"] == len(parts)
    assert result["bytes_fetched"] == size - sum(plan.part(index).nbytes for index in parts)
    assert_equal(tmp_path / "store" / "object", output)
    output.unlink()
