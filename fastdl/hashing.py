"""Parts of a file hashed by worker processes: as fast as the disk reads, or as all processors hash."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from fastdl.errors import DiskError
from fastdl.limit import Limit
from fastdl.messages import Line, Rehash, Report
from fastdl.pool import Died, Pool
from fastdl.retry import Backoff
from fastdl.schedule import Schedule

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fastdl.digest import Digest
    from fastdl.plan import Plan, Run

_FILE = 0  # as orders name it
_PATIENCE = 0.1  # seconds between looks at whether the time is up


def hash_parts(
    path: Path,
    fd: int,
    plan: Plan,
    runs: list[Run],
    workers: int,
    take: Callable[[int, Digest], None],
    tell: Callable[[int], None],
) -> None:
    """Hash the parts of ``runs`` in the open file at ``path``; ``take`` hears of each once, ``tell`` of the bytes done.

    Raises:
        DiskError: the file is shorter than the plan, or cannot be read.
        FastdlError: workers cannot be started.
    """
    schedule = Schedule(plan, [], runs, Limit(workers, 0.0), Backoff(), random.Random())
    done = 0
    with Pool(Line(), workers, workers) as pool:
        pool.start()
        pool.attach(_FILE, fd)
        idle = list(pool.hash_slots)
        while not schedule.finished:
            while idle and (order := schedule.take_rehash(0.0)) is not None:
                pool.give(Rehash(idle.pop(), order[0], _FILE, plan, order[1]))
            for event in pool.wait(_PATIENCE):
                if isinstance(event, Died):
                    idle.extend(order.slot for order in event.orders)
                    _bury(event, schedule, path)
                elif isinstance(event, Report):
                    done += _record(event, schedule, plan, take)
                    if event.finished:
                        idle.append(event.slot)
                        _end(event, schedule, path)
            tell(done)


def _record(report: Report, schedule: Schedule, plan: Plan, take: Callable[[int, Digest], None]) -> int:
    """Pass on what was hashed; return how many bytes it was."""
    for index, digest in enumerate(report.digests, report.first):
        take(index, digest)
    schedule.complete(report.number, len(report.digests))
    return sum(plan.part(index).nbytes for index in range(report.first, report.first + len(report.digests)))


def _end(report: Report, schedule: Schedule, path: Path) -> None:
    rest = schedule.leases.end(report.number)
    if rest is not None:
        raise DiskError(f"{path}: {report.error or 'a worker ended without a word'}")


def _bury(died: Died, schedule: Schedule, path: Path) -> None:
    if died.by_bus_error:
        raise DiskError(f"{path}: another process truncated it, or the disk fails: a page of it cannot be read")
    for order in died.orders:
        rest = schedule.leases.end(order.number)
        if rest is not None:
            schedule.lose(rest, rehash=True)
