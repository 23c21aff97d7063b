"""SIGKILL, to whom and whenever it comes, costs at most the parts in flight and never a byte of the object."""

from __future__ import annotations

import os
import random
import signal
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from fastdl.checkpoint import open_checkpoint
from tests.e2e.partial import bits, checkpoint_of, leftovers, marked, partial_of
from tests.e2e.processes import killing_at, run, running, wait_until
from tests.servers.objects import serving_objects
from tests.servers.scripted import Exchange, Pattern, ranged, serving, stall_after

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers.objects import ObjectServer

KIB, MIB = 1 << 10, 1 << 20
PART = MIB
CONNECTIONS = 4
SIZE = 24 * MIB + 12345
RATE = 2 * MIB  # bytes per second and connection: a part takes 500 ms, so that kills meet parts of every age
FLAGS = ("-p", PART, "-x", CONNECTIONS, "-w", 2, "--json")


def original_in(folder: Path, size: int = SIZE) -> tuple[Path, bytes]:
    """Make an object without a zero byte, so that every byte of the output that was never received shows."""
    folder.mkdir()
    path = folder / "object"
    data = random.Random(size).randbytes(size).replace(b"\0", b"\1")
    path.write_bytes(data)
    return path, data


def kill_and_judge(
    server: ObjectServer, data: bytes, folder: Path, output: Path, sent: int
) -> tuple[set[int], int] | None:
    """Kill a run once the server has sent ``sent`` more bytes; return the marked parts and the bytes lost with it.

    None if the run was faster and finished rightly.
    """
    stop_at = server.sent + sent
    with running(folder, server.url("object"), "-o", output, *FLAGS) as command:
        wait_until(lambda: server.sent >= stop_at or command.ended)
        command.kill_tree()
        command.wait_gone()
        if command.process.returncode == 0:
            assert output.read_bytes() == data
            return None
        assert command.process.returncode == -signal.SIGKILL, command.stderr
    assert not output.exists() or output.read_bytes() == data, "the final name was there before every byte was"
    _, parts = marked(checkpoint_of(output))
    return parts, lost(data, partial_of(output), parts)


def lost(data: bytes, partial: Path, parts: set[int]) -> int:
    """Count the bytes that were received and must be fetched again, and wipe them.

    The measure: the object has no zero byte and the output is allocated as zeros, so each byte of an unmarked part
    that is not zero was received by a connection and is lost. Wiped, the next kill counts its own losses only, and the
    next run cannot pass by leaving bytes of this one in place. What the kernel held in socket buffers does not count:
    no process had it, and the rate keeps it small.
    """
    if not partial.exists():
        return 0
    count = 0
    with partial.open("r+b") as file:
        for index in range(-(-len(data) // PART)):
            file.seek(index * PART)
            piece = file.read(min(PART, len(data) - index * PART))  # what stands behind the object is not ours
            if index in parts:
                assert piece == data[index * PART : (index + 1) * PART], f"part {index} was marked before it was there"
            elif piece:
                count += len(piece) - piece.count(0)
                file.seek(index * PART)
                file.write(bytes(len(piece)))
    return count


def survive_kills(tmp_path: Path, kills: int, seed: int) -> None:
    """Kill ``kills`` runs at random bytes, judge after each, and finish."""
    rng = random.Random(seed)
    source, data = original_in(tmp_path / "store")
    output = tmp_path / "out" / "object"
    output.parent.mkdir()
    with serving_objects(source.parent, rate=RATE) as server:
        while kills:
            outcome = kill_and_judge(server, data, tmp_path / "logs", output, rng.randrange(8 * MIB))
            if outcome is None:
                output.unlink()
                continue
            kills -= 1
            assert outcome[1] <= CONNECTIONS * PART
        server.rate = None
        plan, parts = marked(checkpoint_of(output))
        missing = SIZE - sum(plan.part(index).nbytes for index in parts) if plan else SIZE
        result = run(tmp_path / "logs", server.url("object"), "-o", output, *FLAGS).result
    assert output.read_bytes() == data
    assert leftovers(output.parent) == ["object"]
    assert result["bytes_fetched"] == missing
    assert (result["parts_reused"], result["parts_damaged"]) == (len(parts), [])


def test_kills_of_the_whole_tree_cost_only_parts_in_flight(tmp_path: Path) -> None:
    """Six kills at random bytes: no early final name, no orphan, bounded loss, exact bytes in the end."""
    survive_kills(tmp_path, kills=6, seed=20250101)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_two_hundred_kills_cost_only_parts_in_flight(tmp_path: Path) -> None:
    """The same for 200 kills, over many downloads."""
    survive_kills(tmp_path, kills=200, seed=7)


def test_workers_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    """SIGKILL to the parent alone: every worker is gone within a second, and the next run resumes."""
    source, data = original_in(tmp_path / "store")
    output = tmp_path / "object"
    with serving_objects(source.parent, rate=RATE) as server:
        with running(tmp_path / "logs", server.url("object"), "-o", output, *FLAGS) as command:
            command.wait_until(lambda: bits(checkpoint_of(output)) >= 5 and len(command.workers()) == 2)
            os.kill(command.pid, signal.SIGKILL)
            assert command.wait() == -signal.SIGKILL
            command.wait_gone()
        assert not output.exists()
        server.rate = None
        result = run(tmp_path / "logs", server.url("object"), "-o", output, *FLAGS).result
    assert output.read_bytes() == data
    assert result["parts_reused"] >= 5


def test_a_killed_worker_is_replaced_and_nobody_notices(tmp_path: Path) -> None:
    """SIGKILL to one worker mid-way: the download succeeds in the same run, exact."""
    source, data = original_in(tmp_path / "store")
    output = tmp_path / "object"
    with (
        serving_objects(source.parent, rate=4 * RATE) as server,
        running(tmp_path / "logs", server.url("object"), "-o", output, *FLAGS) as command,
    ):
        command.wait_until(lambda: bits(checkpoint_of(output)) >= 5 and len(command.workers()) == 2)
        victim, survivor = command.workers()
        os.kill(victim, signal.SIGKILL)
        command.wait_until(lambda: set(command.workers()) - {victim, survivor})
        assert command.wait() == 0, command.stderr
        result = command.result
    assert output.read_bytes() == data
    assert result["retries"] >= 1
    assert result["bytes_fetched"] <= SIZE + CONNECTIONS * PART


def test_a_part_that_kills_three_workers_ends_the_download(tmp_path: Path) -> None:
    """The same part under three dead workers is an error with what was finished kept, not a hang."""
    output, part, gate = tmp_path / "object", 8 * MIB, threading.Event()
    right = ranged(Pattern(2 * part))

    def holds(exchange: Exchange) -> None:
        # The caller's own connection has part 0 and must not come free for part 1 before the worker took that.
        assert exchange.request.range is not None
        exchange.otherwise = right
        stall_after(MIB, None if exchange.request.range[0] else gate)(exchange)

    with (
        serving(holds) as server,
        running(tmp_path / "logs", server.url(), "-o", output, "-p", part, "-x", 2, "-w", 1) as command,
    ):
        server.wait_for(2)
        gate.set()
        command.wait_until(lambda: bits(checkpoint_of(output)) == 1)
        deaths = 0
        while not command.ended:
            (worker,) = command.workers()
            asked = len(server.log)
            os.kill(worker, signal.SIGKILL)
            deaths += 1
            wait_until(lambda: command.ended or (len(server.log) > asked and command.workers()))  # noqa: B023 - at once
        assert deaths == 3
        assert command.wait() == 1
        assert "3 workers in a row died at part 1" in command.stderr
        command.wait_gone()
    assert marked(checkpoint_of(output))[1] == {0}
    assert not output.exists()


CALLS = [  # (which file, system calls, the how manyth of them)
    (".cp", "ftruncate", 1),
    (".cp", "ftruncate", 2),
    (".cp", "pwrite64", 1),  # the header
    (".cp", "pwrite64", 2),  # the first record
    (".cp", "pwrite64", 3),  # its bit
    (".part", "fallocate", 1),
    (".part", "pwrite64", 1),  # the stamp
    (".part", "ftruncate", 1),  # its removal, before publication
    (".part", "rename,renameat,renameat2", 1),
    (".cp", "unlink,unlinkat", 1),
]


@pytest.mark.parametrize(("suffix", "calls", "when"), CALLS, ids=[f"{c[1].split(',')[0]}{c[0]}-{c[2]}" for c in CALLS])
def test_death_at_a_system_call_is_survived(tmp_path: Path, suffix: str, calls: str, when: int) -> None:
    """Killed on entering any step of the protocol with the disk, the next run ends well."""
    die_and_resume(tmp_path, suffix, calls, when)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("when", range(4, 50))
def test_death_at_every_mark_is_survived(tmp_path: Path, when: int) -> None:
    """Killed at every write of a record or a bit, the next run ends well."""
    die_and_resume(tmp_path, ".cp", "pwrite64", when)


def die_and_resume(tmp_path: Path, suffix: str, calls: str, when: int) -> None:
    """Let the tree die at the call, then run again: exact bytes, marked parts used again, nothing left behind."""
    part = 128 * KIB
    source, data = original_in(tmp_path / "store", 24 * part)
    output = tmp_path / "out" / "object"
    output.parent.mkdir()
    flags = ("-o", output, "-p", part, "-x", 2, "-w", 1, "--json")
    with serving_objects(source.parent) as server:
        prefix = killing_at(output.with_name(output.name + suffix), calls, when)
        with running(tmp_path / "logs", server.url("object"), *flags, prefix=prefix) as command:
            assert command.wait() == -signal.SIGKILL, f"the call never came: {command.stderr}"
            command.kill_tree()
            command.wait_gone()
        assert not output.exists() or output.read_bytes() == data
        _, parts = marked(checkpoint_of(output))
        result = run(tmp_path / "logs", server.url("object"), *flags).result
    assert output.read_bytes() == data
    assert leftovers(output.parent) == ["object"]
    assert (result["parts_reused"], result["parts_damaged"]) == (len(parts), [])
    assert result["bytes_fetched"] == len(data) - part * len(parts)


def test_the_checkpoint_of_a_killed_run_is_not_locked(tmp_path: Path) -> None:
    """Locks die with their holder: right after a kill, workers still dying, the checkpoint can be taken."""
    source, _ = original_in(tmp_path / "store")
    output = tmp_path / "object"
    with (
        serving_objects(source.parent, rate=RATE) as server,
        running(tmp_path / "logs", server.url("object"), "-o", output, *FLAGS) as command,
    ):
        command.wait_until(lambda: bits(checkpoint_of(output)) >= 1 and command.workers())
        os.kill(command.pid, signal.SIGKILL)
        command.wait()
        with closing(open_checkpoint(checkpoint_of(output))) as opened:
            assert opened.marks.any
