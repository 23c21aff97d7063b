"""Files hashed by workers: every part once, whatever dies, and a file that shrinks is an error."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fastdl.digest import Digest, Hasher
from fastdl.errors import DiskError, FastdlError
from fastdl.hashing import hash_parts
from fastdl.plan import Plan, Run

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = random.Random(3).randbytes(1_000_003)
PLAN = Plan(len(DATA), 10_000)


def right(index: int) -> Digest:
    """Hash a part here."""
    hasher = Hasher(index)
    hasher.update(memoryview(DATA)[PLAN.part(index).start : PLAN.part(index).stop])
    return hasher.digest()


def hashed(
    path: Path, plan: Plan, runs: list[Run], tell: Callable[[int], None] = lambda _: None
) -> list[tuple[int, Digest]]:
    """Hash by two workers."""
    found: list[tuple[int, Digest]] = []
    fd = os.open(path, os.O_RDONLY)
    try:
        hash_parts(path, fd, plan, runs, 2, lambda index, digest: found.append((index, digest)), tell)
    finally:
        os.close(fd)
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Make the file."""
    (tmp_path / "file").write_bytes(DATA)
    return tmp_path / "file"


def test_every_part_once(path: Path) -> None:
    """All parts of the runs asked for, and no others, with their digests; the last word is the number of bytes."""
    done: list[int] = []
    runs = [Run(0, 3), Run(50, 101)]
    found = hashed(path, PLAN, runs, done.append)
    assert dict(found) == {index: right(index) for run in runs for index in range(run.first, run.stop)}
    assert len(found) == len(dict(found))
    assert done[-1] == sum(map(PLAN.nbytes, runs))


def test_a_file_that_is_too_short(path: Path) -> None:
    """A plan beyond its end cannot be hashed."""
    with pytest.raises(DiskError, match=str(path)):
        hashed(path, Plan(len(DATA) + 100_000, 10_000), [Run(0, 111)])


def test_a_worker_that_dies_is_replaced(path: Path) -> None:
    """What it was at is hashed by another; one part is never heard of twice."""
    killed: list[int] = []

    def kill(_: int) -> None:
        if not killed:
            killed.extend(workers())
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    found = hashed(path, PLAN, [Run(0, 101)], kill)
    assert len(killed) == 2
    assert sorted(found, key=lambda pair: pair[0]) == [(index, right(index)) for index in range(101)]


def test_what_kills_every_worker_is_an_error(path: Path) -> None:
    """Not tried for ever."""

    def kill(_: int) -> None:
        for pid in workers():
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(FastdlError, match="worker"):
        hashed(path, PLAN, [Run(0, 101)] * 1000, kill)


def workers() -> list[int]:
    """List the workers among this process's children, which may be servers of other tests too."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(pid) for pid in children if b"fastdl.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]
