"""Locks: file systems that have none (F14), names that are taken from under their holder (P7)."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.partial import bits, checkpoint_of, leftovers, partial_of
from tests.e2e.processes import run, running, wait_until
from tests.fault.judge import Call, Refuse, judging
from tests.fault.scenes import DATA, PART, Scene, Stage, stage
from tests.servers.scripted import Exchange, ranged, serving, stall_after

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fault.judge import Verdict
    from tests.servers.wire import Server

FLAGS = ("-p", PART, "-x", 4, "-w", 2)


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Have the scenes ready."""
    with stage(tmp_path_factory.mktemp("stage")) as ready:
        yield ready


@pytest.fixture
def gated() -> Iterator[tuple[Server, threading.Event]]:
    """Serve two parts and a bit of each answer, then nothing before the gate opens."""
    gate, right = threading.Event(), ranged(DATA)

    def halting(exchange: Exchange) -> None:
        exchange.otherwise = right
        stall_after(2 * PART + 5, gate)(exchange)

    with serving(halting) as server:
        yield server, gate


def without_locks(call: Call) -> Verdict:
    """Be a file system that has none."""
    return Refuse(errno.ENOLCK) if call.key.call == "flock" and call.key.file else None


def test_f14_a_file_system_without_locks(play: Stage) -> None:
    """A lock of this machine stands in, the user is told, and nothing of it stays."""
    before = stand_ins()
    for scene in ("fresh", "resume", "reuse", "repair"):
        born, _ = play.judged(play.scenes[scene], without_locks)
        assert (born.code, play.output.read_bytes() == DATA) == (0, True), born.stderr
        assert "start no second downloader on another machine" in born.stderr
        assert all(line.startswith("fastdl: ") for line in born.stderr.splitlines())
    assert stand_ins() == before


def test_f14_two_downloaders_without_locks(play: Stage, gated: tuple[Server, threading.Event]) -> None:
    """The second one of the same machine is kept out, and comes in once the first was killed."""
    server, gate = gated
    scene = Scene("any", (server.url(), "-o", "OUT", "-p", PART, "-x", 2, "-w", 1, "--json"))
    play.prepare(scene)
    with judging(play.output, without_locks) as judge, judging(play.output, without_locks) as other:
        first = play.start(scene, judge.address)
        wait_until(lambda: bits(checkpoint_of(play.output)) >= 1)
        second = play.start(scene, other.address)
        assert second.wait() == 10, second.stderr
        first.kill_tree()
        first.wait()
    gate.set()
    born, _ = play.judged(Scene(scene.name, scene.arguments, play.left()), without_locks)
    assert (born.code, play.output.read_bytes() == DATA) == (0, True), born.stderr
    assert born.last["parts_reused"] >= 1


def stand_ins() -> list[str]:
    """List the stand-ins of all downloaders of this user."""
    folder = Path(tempfile.gettempdir()) / f"fastdl-{os.geteuid()}"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


@pytest.mark.parametrize("also_the_partial", [False, True], ids=["checkpoint", "both"])
def test_p7_locks_whose_names_were_taken_away(
    tmp_path: Path, gated: tuple[Server, threading.Event], *, also_the_partial: bool
) -> None:
    """The checkpoint unlinked under its holder: a second downloader is kept out by the partial file's own lock.

    With both names gone it cannot know of the first one, which then publishes nothing.
    """
    server, gate = gated
    output = tmp_path / "out" / "object"
    output.parent.mkdir()
    with running(tmp_path / "logs", server.url(), "-o", output, *FLAGS) as first:
        first.wait_until(lambda: bits(checkpoint_of(output)) >= 1)
        checkpoint_of(output).unlink()
        if also_the_partial:
            partial_of(output).unlink()
            gate.set()
            run(tmp_path / "logs", server.url(), "-o", output, *FLAGS)
            assert first.wait() == 9, first.stderr
        else:
            run(tmp_path / "logs", server.url(), "-o", output, *FLAGS, expect=10)
            gate.set()
            assert first.wait() == 0, first.stderr
    assert output.read_bytes() == DATA
    assert leftovers(output.parent) == ["object"]
