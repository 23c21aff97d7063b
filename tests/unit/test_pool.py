"""Worker processes: started, fed, replaced when they die, and gone at the end."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fastdl.errors import DiskError, NetworkError, RangeMismatch, Refused
from fastdl.fetch import Tally
from fastdl.messages import Abort, Fetch, Line, Nudge, Rehash, Report, Request, Trimmed
from fastdl.plan import Plan, Run
from fastdl.pool import Died, Pool
from fastdl.validator import Validator
from tests.servers.scripted import (
    LAST_MODIFIED,
    ranged,
    script,
    serving,
    stall_after,
    stall_before_head,
    status,
    wrong_content_range,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastdl.digest import Digest

DATA = bytes(range(256)) * 1000
PLAN = Plan(len(DATA), 10_000)
RUN = Run(3, 8)
VALIDATOR = Validator('"v1"', LAST_MODIFIED)
SECRET = "s3cr3t"
PATIENCE = 20.0  # seconds; only failing tests take as long

Event = Report | Trimmed | Died | Nudge


@contextmanager
def pool(workers: int = 1, connections: int = 1, own: int = 0, output: str = "") -> Iterator[Pool]:
    """Yield started workers with ``output``, or else an empty file of the object's size, attached as 0."""
    with Pool(Line(proxy=""), workers, connections, own) as started:
        started.start()
        fd = os.open(output, os.O_RDWR) if output else os.memfd_create("output")
        try:
            if not output:
                os.ftruncate(fd, len(DATA))
            started.attach(0, fd)
            yield started
        finally:
            os.close(fd)


def fetch(slot: int, url: str, number: int = 1, run: Run = RUN) -> Fetch:
    """Order a run of parts."""
    return Fetch(slot, number, 0, PLAN, run, Request(url), VALIDATOR)


def digests(run: Run) -> tuple[Digest, ...]:
    """Hash a run of the object itself."""
    start, stop = PLAN.bounds(run)
    return Tally(PLAN, run).feed(memoryview(DATA)[start:stop])[1]


def events(pool: Pool, enough: Callable[[list[Event]], bool]) -> list[Event]:
    """Collect what happens until it is enough; a wait without any event fails."""
    seen: list[Event] = []
    while not enough(seen):
        ready = pool.ready
        new = pool.wait(PATIENCE)
        assert new or pool.ready != ready or len(pool._members) > 1, "nothing happened"
        for event in new:  # as whoever marks parts must: connections wait for it
            if isinstance(event, Report) and event.slot not in pool.hash_slots:
                pool.counters.marked[event.slot] += len(event.digests)
        seen.extend(new)
    return seen


def ended(seen: list[Event]) -> bool:
    """Tell whether an order ended."""
    return any(isinstance(event, Died) or (isinstance(event, Report) and event.finished) for event in seen)


def wait_for_end(pid: int) -> None:
    """Wait until a process that need not be our child is gone."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([fd], [], [], PATIENCE)[0], f"process {pid} is still there"
    finally:
        os.close(fd)


def open_descriptors() -> int:
    """Count this process's descriptors."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_an_order_is_carried_out_into_the_attached_file() -> None:
    """Each part is reported once, in order, with its digest; bytes are in the file and in the counters."""
    with serving(ranged(DATA)) as server, pool() as started:
        fd = started._outputs[0][1]
        started.give(fetch(started.fetch_slots[0], server.url()))
        seen = events(started, ended)
        start, stop = PLAN.bounds(RUN)
        assert os.pread(fd, stop - start, start) == DATA[start:stop]
        assert os.pread(fd, start, 0) == bytes(start)
        reports = [event for event in seen if isinstance(event, Report)]
        assert tuple(digest for report in reports for digest in report.digests) == digests(RUN)
        assert (reports[-1].finished, reports[-1].error) == (True, None)
        assert sum(report.requests for report in reports) == 1
        assert started.counters.received[started.fetch_slots[0]] == stop - start
        assert server.log[0].range == (start, stop)


def test_parts_are_hashed_as_they_stand_in_the_file() -> None:
    """Without any request, by the slot that is kept for it."""
    with pool() as started:
        os.pwrite(started._outputs[0][1], DATA, 0)
        run = Run(0, PLAN.count)
        started.give(Rehash(started.hash_slots[0], 1, 0, PLAN, run))
        reports = [event for event in events(started, ended) if isinstance(event, Report)]
        assert tuple(digest for report in reports for digest in report.digests) == digests(run)


def test_every_slot_works_on_its_own() -> None:
    """All connections of all workers carry out orders at the same time."""
    with serving(ranged(DATA)) as server, pool(2, 5) as started:
        assert len(started.fetch_slots) == 5
        assert len(started.hash_slots) == 2
        for number, slot in enumerate(started.fetch_slots, 1):
            started.give(fetch(slot, server.url(), number, Run(number, number + 1)))
        seen = events(started, lambda seen: sum(isinstance(e, Report) and e.finished for e in seen) == 5)
        done = {(event.number, event.first) for event in seen if isinstance(event, Report) and event.digests}
        assert done == {(number, number) for number in range(1, 6)}


def test_the_callers_own_slots_come_first_and_are_nobody_elses() -> None:
    """No worker has them, and the shared counts have room for them and for every slot of the workers."""
    with serving(ranged(DATA)) as server, pool(2, 5, own=3) as started:
        theirs = {*started.fetch_slots, *started.hash_slots}
        assert theirs == set(range(3, 3 + 5 + 2))
        assert len(started.counters.received) == 3 + 5 + 2
        for number, slot in enumerate(started.fetch_slots, 1):
            started.give(fetch(slot, server.url(), number, Run(number, number + 1)))
        events(started, lambda seen: sum(isinstance(e, Report) and e.finished for e in seen) == 5)
        assert list(started.counters.received) == [PLAN.part_size * (slot in started.fetch_slots) for slot in range(10)]


def test_first_orders_go_to_different_workers() -> None:
    """Neighbouring slots alternate, so that few orders keep all processes busy."""
    with Pool(Line(), 3, 8) as idle:
        assert {idle._member_of[slot] for slot in idle.fetch_slots[:3]} == {0, 1, 2}
        assert len(set(idle.fetch_slots)) == 8


@pytest.mark.parametrize("case", ["refused", "wrong range"])
def test_a_failure_arrives_as_the_error_it_is(case: str) -> None:
    """With its class and attributes, after which the slot takes the next order."""
    fault = status(404, {"X-Oss-EC": "1"}) if case == "refused" else wrong_content_range(f"bytes 0-9/{len(DATA)}")
    with serving(script({1: fault}, otherwise=ranged(DATA))) as server, pool() as started:
        slot = started.fetch_slots[0]
        started.give(fetch(slot, server.url()))
        last = events(started, ended)[-1]
        assert isinstance(last, Report)
        if case == "refused":
            assert isinstance(last.error, Refused)
            assert (last.error.status, last.error.headers["x-oss-ec"]) == (404, "1")
        else:
            assert isinstance(last.error, RangeMismatch)
        started.give(fetch(slot, server.url(), 2))
        again = events(started, ended)[-1]
        assert isinstance(again, Report)
        assert (again.number, again.error) == (2, None)


def test_an_aborted_order_ends_with_a_report() -> None:
    """A body that stands still is broken at once, and the slot takes the next order."""
    with serving(script({1: stall_after(25_000)}, otherwise=ranged(DATA))) as server, pool() as started:
        slot = started.fetch_slots[0]
        started.give(fetch(slot, server.url()))
        server.wait_until(lambda: server.sent >= 25_000)
        started.tell(Abort(slot, 1))
        last = events(started, ended)[-1]
        assert isinstance(last, Report)
        assert isinstance(last.error, NetworkError)
        started.give(fetch(slot, server.url(), 2))
        again = events(started, ended)[-1]
        assert isinstance(again, Report)
        assert again.error is None


def test_a_worker_can_be_killed_by_its_slot() -> None:
    """What no abort ends, the end of its process does; the orders come back."""
    with serving(stall_before_head()) as server, pool() as started:
        started.give(fetch(started.fetch_slots[0], server.url()))
        server.wait_for(1)
        started.kill(started.fetch_slots[0])
        died = events(started, ended)[-1]
        assert isinstance(died, Died)
        assert [order.number for order in died.orders] == [1]


def test_a_worker_that_is_killed_gives_its_orders_back_and_is_replaced() -> None:
    """All its orders and how it ended are told; the new one knows the outputs and works in the same slots."""
    with serving(script({1: stall_before_head()}, otherwise=ranged(DATA))) as server, pool(1, 2) as started:
        first, _ = started.fetch_slots
        lost = fetch(first, server.url(), 1, Run(0, 2))
        started.give(lost)
        server.wait_for(1)
        events(started, lambda _: started.ready)
        process = started._members[0].process
        os.kill(process.pid, signal.SIGKILL)
        died = events(started, ended)[-1]
        assert isinstance(died, Died)
        assert (died.orders, died.code, died.by_bus_error) == ((lost,), -signal.SIGKILL, False)
        assert process.returncode == -signal.SIGKILL
        started.give(fetch(first, server.url(), 3, Run(0, 2)))
        seen = events(started, ended)
        assert all(isinstance(event, Report) and event.number == 3 and event.error is None for event in seen)
        assert os.pread(started._outputs[0][1], 20_000, 0) == DATA[:20_000]


def test_a_worker_that_dies_before_its_first_word_is_replaced() -> None:
    """Whoever takes its place finds the same slots and outputs."""
    with serving(ranged(DATA)) as server, pool(1, 2) as started:
        os.kill(started._members[0].process.pid, signal.SIGKILL)
        died = events(started, ended)[-1]
        assert isinstance(died, Died)
        assert (died.orders, died.code) == ((), -signal.SIGKILL)
        started.give(fetch(started.fetch_slots[0], server.url(), 1, Run(0, 2)))
        assert all(isinstance(event, Report) and event.error is None for event in events(started, ended))
        assert os.pread(started._outputs[0][1], 20_000, 0) == DATA[:20_000]


def test_a_bus_error_is_recognised() -> None:
    """A file truncated under a worker that hashes it kills the worker by SIGBUS: the disk's matter, not the worker's.

    Reports nobody reads yet hold the worker up in the middle: they are more than its pipe takes.
    """
    large = Plan(1 << 28, 1 << 12)
    with pool() as started:
        fd = started._outputs[0][1]
        os.ftruncate(fd, large.size)
        order = Rehash(started.hash_slots[0], 1, 0, large, Run(0, large.count))
        started.give(order)
        first = events(started, lambda seen: any(isinstance(event, Report) for event in seen))
        assert not ended(first)
        os.ftruncate(fd, 0)
        died = events(started, ended)[-1]
        assert isinstance(died, Died)
        assert (died.by_bus_error, died.orders) == (True, (order,))


def test_a_file_that_is_too_short_to_hash_is_the_disks_matter() -> None:
    """Truncated before the worker looks, it is an error code, and the worker lives."""
    with pool() as started:
        os.ftruncate(started._outputs[0][1], 5)
        started.give(Rehash(started.hash_slots[0], 1, 0, PLAN, Run(0, 1)))
        last = events(started, ended)[-1]
        assert isinstance(last, Report)
        assert isinstance(last.error, DiskError)
        assert "truncated" in str(last.error)


def test_a_full_disk_is_no_network_error() -> None:
    """Where the kernel cannot store what was received, the disk is to blame: it is not tried again and again."""
    with serving(ranged(DATA)) as server, pool(output="/dev/full") as started:
        started.give(fetch(started.fetch_slots[0], server.url()))
        last = events(started, ended)[-1]
        assert isinstance(last, Report)
        assert isinstance(last.error, DiskError)
        assert "No space left" in str(last.error)


def test_workers_inherit_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in their environment nor in their arguments, where every user of the machine could look."""
    for name in ("OSS_ACCESS_KEY_SECRET", "AWS_SECRET_ACCESS_KEY", "HTTPS_PROXY", "MY_TOKEN"):
        monkeypatch.setenv(name, f"http://user:{SECRET}@host")
    with serving(ranged(DATA)) as server, Pool(Line(proxy=f"http://user:{SECRET}@host"), 1, 1) as started:
        started.start()
        started.give(fetch(started.fetch_slots[0], server.url(f"/object?Signature={SECRET}")))
        events(started, lambda _: started.ready)
        folder = Path(f"/proc/{started._members[0].process.pid}")
        assert SECRET.encode() not in folder.joinpath("environ").read_bytes()
        assert SECRET.encode() not in folder.joinpath("cmdline").read_bytes()
        assert b"fastdl.worker" in folder.joinpath("cmdline").read_bytes()


def test_a_worker_ends_with_its_pipe() -> None:
    """By itself, with status 0: no orphan survives its parent."""
    with pool() as started:
        events(started, lambda _: started.ready)
        member = started._members[0]
        member.pipe.close()
        assert member.process.wait(PATIENCE) == 0
        started._members.clear()
        member.errors.close()


def test_a_worker_ignores_the_terminals_interrupt() -> None:
    """Ctrl-C reaches the whole process group; what it means is the caller's to decide."""
    with serving(ranged(DATA)) as server, pool() as started:
        os.kill(started._members[0].process.pid, signal.SIGINT)
        events(started, lambda _: started.ready)
        os.kill(started._members[0].process.pid, signal.SIGINT)
        started.give(fetch(started.fetch_slots[0], server.url()))
        last = events(started, ended)[-1]
        assert isinstance(last, Report)
        assert last.error is None


def test_a_killed_parent_takes_its_workers_with_it() -> None:
    """SIGKILL gives it no chance to say so."""
    program = (
        "import sys\nfrom fastdl.messages import Line\nfrom fastdl.pool import Pool\n"
        "pool = Pool(Line(), 2, 2)\npool.start()\n"
        "print(*(member.process.pid for member in pool._members), flush=True)\nsys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment()) as parent:
        assert parent.stdout is not None
        workers = [int(word) for word in parent.stdout.readline().split()]
        parent.kill()
    assert len(workers) == 2
    for worker in workers:
        wait_for_end(worker)


def test_closing_leaves_no_process_and_no_descriptor() -> None:
    """Whatever the workers were doing; closing twice is no error."""
    with serving(stall_before_head()) as server:
        before = open_descriptors()
        with pool(2, 2) as started:
            started.give(fetch(started.fetch_slots[0], server.url()))
            server.wait_for(1)
            processes = [member.process for member in started._members]
        started.close()
        assert all(process.returncode is not None for process in processes)
        server.wait_until(lambda: server.open_connections == 0)
        assert open_descriptors() == before


def test_a_pool_that_never_started_closes() -> None:
    """A small object needs no worker."""
    with Pool(Line(), 4, 8) as idle:
        assert not idle.ready
        assert sum(idle.counters.received) == 0


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}
