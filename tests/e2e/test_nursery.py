"""The nursery itself: what it bears is the command, and nothing that a run leaves behind escapes it."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.e2e.command import left_to_workers
from tests.e2e.nursery import Nursery, nursery
from tests.servers.scripted import ranged, script, serving, stall_after

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATA = bytes(range(251)) * 400


@pytest.fixture(name="bearer")
def _bearer(tmp_path: Path) -> Iterator[Nursery]:
    with nursery(tmp_path / "nursery") as bearer:
        yield bearer


def test_what_is_born_is_the_command(tmp_path: Path, bearer: Nursery) -> None:
    """Its file, its JSON, its exit codes; and one run knows nothing of the one before."""
    with serving(ranged(DATA)) as server:
        born = bearer.run(server.url(), "-o", tmp_path / "file", "--json", "-p", "4K")
        assert (born.code, born.last["event"], born.stderr) == (0, "done", "")
        assert (tmp_path / "file").read_bytes() == DATA
        born = bearer.run(server.url(), "-o", tmp_path / "file", "-n")
        assert (born.code, born.stderr.count("\n")) == (2, 1)


def test_a_killed_tree_is_gone_when_wait_returns(tmp_path: Path, bearer: Nursery) -> None:
    """SIGKILL to the group, workers included."""
    with serving(script(left_to_workers(4096, 2, {2: stall_after(10)}), otherwise=ranged(DATA))) as server:
        born = bearer.start(server.url(), "-o", tmp_path / "file", "-p", "4K", "-x", "2", "-w", "1")
        server.wait_for(2)
        workers = born.workers()
        assert workers
        born.kill_tree()
        assert born.wait() == -signal.SIGKILL
        assert not born.workers()


def test_workers_of_a_killed_command_are_waited_for(tmp_path: Path, bearer: Nursery) -> None:
    """SIGKILL to the command alone: its workers end by themselves, and wait() returns after that."""
    with serving(script(left_to_workers(4096, 2, {2: stall_after(10)}), otherwise=ranged(DATA))) as server:
        born = bearer.start(server.url(), "-o", tmp_path / "file", "-p", "4K", "-x", "2", "-w", "1")
        server.wait_for(2)
        born.signal(signal.SIGKILL)
        assert born.wait() == -signal.SIGKILL


def test_an_orphan_is_an_error(tmp_path: Path, bearer: Nursery) -> None:
    """A stopped worker cannot end by itself: the run that left it behind fails, and the worker is killed."""
    with serving(script(left_to_workers(4096, 2, {2: stall_after(10)}), otherwise=ranged(DATA))) as server:
        born = bearer.start(server.url(), "-o", tmp_path / "file", "-p", "4K", "-x", "2", "-w", "1")
        server.wait_for(2)
        for worker in born.workers():
            os.kill(worker, signal.SIGSTOP)
        born.signal(signal.SIGKILL)
        with pytest.raises(TimeoutError, match="outlived"):
            born.wait()


def test_a_hang_is_an_error(tmp_path: Path, bearer: Nursery) -> None:
    """A run that does not end in time is killed."""
    with serving(script({1: stall_after(10)}, otherwise=ranged(DATA))) as server:
        born = bearer.start(server.url(), "-o", tmp_path / "file")
        server.wait_for(1)
        with pytest.raises(TimeoutError, match="still running"):
            born.wait(0.2)
