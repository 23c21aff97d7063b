"""Digests of the whole, behind bytes that are final, and never further."""

from __future__ import annotations

import hashlib
import os
import threading
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fastcrc import crc64

from fastdl.errors import DiskError, FastdlError, NetworkError
from fastdl.follower import Follower, Frontier
from fastdl.plan import Plan, Run

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = os.urandom(3 * 2**20 + 11)
SHA256 = ("sha256", None)
KINDS = (SHA256, ("crc64", None), ("sha256", 2**20))
PARTS = [DATA[at : at + 2**20] for at in range(0, len(DATA), 2**20)]
DIGESTS = {
    SHA256: hashlib.sha256(DATA).hexdigest(),
    ("crc64", None): f"{crc64.xz(DATA):016x}",
    ("sha256", 2**20): hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in PARTS)).hexdigest(),
}


@pytest.fixture
def fd() -> Iterator[int]:
    """Make an empty file."""
    number = os.memfd_create("output")
    yield number
    os.close(number)


def followers() -> list[threading.Thread]:
    """List the threads that follow something."""
    return [thread for thread in threading.enumerate() if thread.name == "fastdl-follower"]


def nothing() -> None:
    """Watch nothing."""


@pytest.mark.parametrize("steps", [[], [1], [2**20, 2**20 + 1, 3 * 2**20], [len(DATA)]])
def test_every_digest_in_one_pass(fd: int, steps: list[int]) -> None:
    """However the end of what is final moves on; the file may be longer, by a stamp."""
    os.pwrite(fd, DATA + b"stamp", 0)
    with Follower(fd, KINDS) as follower:
        for stop in steps:
            follower.advance(stop)
        assert follower.finish(len(DATA), nothing) == DIGESTS
    assert not followers()


def test_bytes_that_are_not_final_are_not_read(fd: int) -> None:
    """Each piece is written only after the one before it was hashed, and just before it is said to be final."""
    os.pwrite(fd, b"\xff" * len(DATA), 0)
    with Follower(fd, [SHA256]) as follower:
        for at in range(0, len(DATA), 300_000):
            piece = DATA[at : at + 300_000]
            os.pwrite(fd, piece, at)
            follower.advance(at + len(piece))
            follower.finish(at + len(piece), nothing)
        assert follower.finish(len(DATA), nothing)[SHA256] == DIGESTS[SHA256]


def test_the_empty_object_needs_no_thread(fd: int) -> None:
    """Its digest is that of nothing."""
    with Follower(fd, [SHA256]) as follower:
        assert follower.finish(0, nothing)[SHA256] == hashlib.sha256().hexdigest()
        assert not followers()


def test_without_a_wish_nothing_is_done(fd: int) -> None:
    """No thread, no reading, no waiting."""
    with Follower(fd, []) as follower:
        follower.advance(2**40)
        assert follower.finish(2**40, nothing) == {}
        assert not followers()


def test_a_restart_forgets_everything(fd: int) -> None:
    """A stream that begins again and a repair change bytes that were hashed already; the file may be cut meanwhile."""
    os.pwrite(fd, b"\xff" * len(DATA), 0)
    with Follower(fd, KINDS) as follower:
        for _ in range(20):
            os.pwrite(fd, b"\xff" * len(DATA), 0)
            follower.advance(len(DATA))
            follower.restart()
            os.ftruncate(fd, 0)
        os.pwrite(fd, DATA, 0)
        follower.advance(5)
        assert follower.finish(len(DATA), nothing) == DIGESTS
        follower.restart()
        os.pwrite(fd, b"x", 0)
        changed = b"x" + DATA[1:]
        assert follower.finish(len(DATA), nothing)[SHA256] == hashlib.sha256(changed).hexdigest()


def test_a_truncated_file_is_an_error(fd: int) -> None:
    """And no digest of what is left."""
    os.pwrite(fd, DATA[:-1], 0)
    with Follower(fd, [SHA256]) as follower, pytest.raises(DiskError, match="another process truncated it"):
        follower.finish(len(DATA), nothing)
    assert not followers()


def test_a_file_that_cannot_be_read_is_an_error(tmp_path_factory: pytest.TempPathFactory) -> None:
    """It says at which byte, and why."""
    fd = os.open(tmp_path_factory.mktemp("x") / "file", os.O_WRONLY | os.O_CREAT)
    try:
        with Follower(fd, [SHA256]) as follower, pytest.raises(DiskError, match="at byte 0: Bad file descriptor"):
            follower.finish(1, nothing)
    finally:
        os.close(fd)


def test_a_defect_of_ours_reaches_the_caller(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that dies silently would leave the caller waiting for ever."""
    monkeypatch.setattr(os, "preadv", lambda *_: None)
    with Follower(fd, [SHA256]) as follower, pytest.raises(FastdlError, match="unexpected TypeError while hashing"):
        follower.finish(1, nothing)


def test_the_wait_for_the_last_bytes_can_be_ended(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By whatever ``watch`` raises: the time is up, somebody pressed Ctrl-C; the thread ends too."""
    gate, reading = threading.Event(), threading.Event()

    def stuck(*_: object) -> int:
        reading.set()
        gate.wait(20)
        return 0

    def watch() -> None:
        if reading.is_set():
            gate.set()
            raise NetworkError("not done in time")

    monkeypatch.setattr(os, "preadv", stuck)
    with Follower(fd, [SHA256]) as follower, pytest.raises(NetworkError, match="not done in time"):
        follower.finish(1, watch)
    assert not followers()


def test_no_thread_is_an_error(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as this system allows."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with Follower(fd, [SHA256]) as follower, pytest.raises(FastdlError, match="no thread to compute sha256 in"):
        follower.advance(1)


def test_it_lives_longer_than_the_descriptor_it_was_given(fd: int) -> None:
    """An output that is closed under it does no harm: it has one of its own, and closes that."""
    os.pwrite(fd, DATA, 0)
    before = len(list(Path("/proc/self/fd").iterdir()))
    number = os.dup(fd)
    with Follower(number, [SHA256]) as follower:
        os.close(number)
        assert follower.finish(len(DATA), nothing)[SHA256] == DIGESTS[SHA256]
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_its_memory_is_its_buffer(fd: int) -> None:
    """Whatever the size of the file."""
    os.ftruncate(fd, 256 * 2**20)
    tracemalloc.start()
    try:
        with Follower(fd, KINDS) as follower:
            follower.finish(256 * 2**20, nothing)
            assert tracemalloc.get_traced_memory()[1] < 3 * 2**20
    finally:
        tracemalloc.stop()


def test_the_frontier_is_where_the_first_gap_is() -> None:
    """Parts come in any order; only what is final without a gap is told, the last part in its own length."""
    told: list[int] = []
    frontier = Frontier(Plan(95, 10), told.append)
    for run in (Run(1, 3), Run(9, 10), Run(0, 1), Run(0, 1), Run(4, 9), Run(3, 4)):
        frontier.add(run)
    assert told == [30, 95]


def test_an_interrupt_while_the_thread_starts(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread runs already, and is ended and waited for."""
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        raise KeyboardInterrupt

    os.write(fd, DATA)
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt), Follower(fd, KINDS) as follower:
        follower.advance(10)
    assert not followers()
