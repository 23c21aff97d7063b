"""A worker's resident memory is bounded, whatever the size of the object and of its parts."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.e2e.partial import checkpoint_of, interrupt
from tests.e2e.processes import Running, running
from tests.e2e.test_sizes import sparse
from tests.servers.nginx import serving_nginx

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
BOUND = 64 * MIB  # private and shared pages of a worker together
_EVERY = 0.003  # seconds between two samples of all workers


def resident(pid: int) -> int:
    """Return the private and shared resident bytes of a process; 0 once it is gone. Source: proc_pid_smaps(5)."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()
    except OSError:
        return 0
    fields = dict(line.split(":", 1) for line in lines if ":" in line.split(" ")[0])
    return sum(
        int(value.split()[0]) * KIB for name, value in fields.items() if name.startswith(("Private_", "Shared_"))
    )


def peaks(command: Running) -> tuple[dict[int, int], int]:
    """Sample every worker until the command ends; return each one's peak, and how many samples were taken."""
    most: dict[int, int] = {}
    samples = 0
    while not command.ended:
        for pid in command.workers():
            if now := resident(pid):
                most[pid] = max(most.get(pid, 0), now)
                samples += 1
        time.sleep(_EVERY)
    return most, samples


def assert_bounded(tmp_path: Path, size: int, *flags: object, workers: int = 2) -> None:
    """Download a sparse object and watch its workers."""
    (tmp_path / "store").mkdir()
    sparse(tmp_path / "store" / "object", size)
    output = tmp_path / "object"
    with (
        serving_nginx(tmp_path / "store") as server,
        running(tmp_path / "logs", server.url("/object"), "-o", output, "-w", workers, *flags) as command,
    ):
        most, samples = peaks(command)
        assert command.wait() == 0, command.stderr
    assert output.stat().st_size == size
    output.unlink()
    assert len(most) == workers
    assert samples >= 20 * workers, "too few samples to mean anything"
    assert max(most.values()) <= BOUND, {pid: f"{peak / MIB:.1f} MiB" for pid, peak in most.items()}


def test_a_gibibyte_in_bounded_memory(tmp_path: Path) -> None:
    """1 GiB over two workers with the usual eight connections: no worker ever holds 64 MiB."""
    assert_bounded(tmp_path, GIB)


@pytest.mark.parametrize("part_size", ["128M", "64K"])
def test_parts_of_any_size_in_bounded_memory(tmp_path: Path, part_size: str) -> None:
    """Neither parts larger than the bound nor very many small ones matter."""
    assert_bounded(tmp_path, GIB // 2, "-p", part_size)


def test_many_connections_in_bounded_memory(tmp_path: Path) -> None:
    """Thirty-two connections in one worker: the bound is the worker's, not the connection's."""
    assert_bounded(tmp_path, GIB // 2, "-x", "32", workers=1)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_four_gibibytes_in_bounded_memory(tmp_path: Path) -> None:
    """Four times the object, the same bound."""
    assert_bounded(tmp_path, 4 * GIB)


def test_hashing_an_earlier_run_in_bounded_memory(tmp_path: Path) -> None:
    """Parts that are hashed on the disk pass through as little memory as those that are fetched."""
    (tmp_path / "store").mkdir()
    sparse(tmp_path / "store" / "object", GIB // 2)
    output = tmp_path / "object"
    with serving_nginx(tmp_path / "store", rate=64 * MIB) as server:
        arguments = (server.url("/object"), "-o", output, "-w", 2, "-p", "1M")
        _, parts = interrupt(tmp_path / "logs", 300, checkpoint_of(output), *arguments)
        with running(tmp_path / "logs", *arguments) as command:
            most, samples = peaks(command)
            assert command.wait() == 0, command.stderr
    output.unlink()
    assert len(parts) >= 300
    assert samples >= 40, "too few samples to mean anything"
    assert max(most.values()) <= BOUND, {pid: f"{peak / MIB:.1f} MiB" for pid, peak in most.items()}
