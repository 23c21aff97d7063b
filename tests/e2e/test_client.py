"""``Client``: the same bytes as without one, workers that stay, and calls that end when they are taken back."""

from __future__ import annotations

import asyncio
import os
import pickle
import random
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

import fastdl
from tests.e2e.processes import PATIENCE, running_any
from tests.servers.scripted import (
    Handler,
    Pattern,
    by_offset,
    from_request,
    ignores_range,
    ranged,
    reset_after,
    routes,
    serving,
    status,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.servers.exchange import Exchange

KIB, MIB = 1024, 1 << 20
PATTERN = Pattern(20 * MIB + 11, seed=5)
SIZE = PATTERN.size
DATA = random.Random(14).randbytes(300 * KIB)


def workers_of(client: fastdl.Client) -> set[int]:
    """Return the processes that rest in a client."""
    return {member.process.pid for pools in client._reuse._pools.values() for pool in pools for member in pool._members}


def assert_exact(path: Path) -> None:
    """Check the whole pattern."""
    assert path.read_bytes() == PATTERN.read(0, SIZE)


def test_workers_are_started_once(tmp_path: Path) -> None:
    """Whatever they fetch next, in however many parts, through faults too; they end with the client."""
    faulty = by_offset({4 * MIB: reset_after(100), 9 * MIB: status(503)}, ranged(PATTERN), times=3)
    with serving(faulty) as server, fastdl.Client(workers=2, connections=6) as client:
        client.download(server.url(), tmp_path / "first", part_size=MIB)
        workers = workers_of(client)
        assert len(workers) == 2
        for number, part_size in enumerate([None, MIB, 64 * KIB, 3 * MIB]):
            result = client.download(server.url(), tmp_path / f"{number}", part_size=part_size)
            assert (result.size, result.bytes_fetched >= SIZE) == (SIZE, True)
            assert_exact(tmp_path / f"{number}")
            assert workers_of(client) == workers
        with client.stream(server.url()) as stream:
            assert stream.read() == PATTERN.read(0, SIZE)
            assert workers_of(client) == workers
        with client.open(server.url()) as remote:
            assert remote.read() == PATTERN.read(0, SIZE)
            assert workers_of(client) == workers
    for pid in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_small_objects_come_over_one_connection(tmp_path: Path) -> None:
    """It stays open from call to call, as no worker is needed."""
    with serving(ranged(DATA)) as server, fastdl.Client() as client:
        for number in range(5):
            client.download(server.url(), tmp_path / f"{number}")
            assert (tmp_path / f"{number}").read_bytes() == DATA
        assert client.head(server.url()).size == len(DATA)
        assert {seen.connection for seen in server.log[:5]} == {1}
        assert workers_of(client) == set()


def test_a_worker_that_was_killed_meanwhile_is_replaced(tmp_path: Path) -> None:
    """The next download finds it dead and goes on with another."""
    with serving(ranged(PATTERN)) as server, fastdl.Client(workers=2, connections=6) as client:
        client.download(server.url(), tmp_path / "a")
        workers = workers_of(client)
        os.kill(min(workers), signal.SIGKILL)
        client.download(server.url(), tmp_path / "b")
        assert_exact(tmp_path / "b")
        assert max(workers) in workers_of(client)
        assert min(workers) not in workers_of(client)


def test_a_failed_download_takes_its_workers_with_it(tmp_path: Path) -> None:
    """What is still under way in them cannot be used; the next one starts others."""
    broken = routes({"/bad": from_request(2, status(403), ranged(PATTERN)), "/good": ranged(PATTERN)})
    with serving(broken) as server, fastdl.Client(workers=2, connections=6) as client:
        with pytest.raises(fastdl.AccessDenied):
            client.download(server.url("/bad"), tmp_path / "a")
        client.download(server.url("/good"), tmp_path / "b")
        assert_exact(tmp_path / "b")


def test_several_threads(tmp_path: Path) -> None:
    """Each has workers of its own while it needs them."""
    with (
        serving(ranged(PATTERN)) as server,
        fastdl.Client(workers=2, connections=4) as client,
        ThreadPoolExecutor(3) as threads,
    ):
        list(threads.map(lambda number: client.download(server.url(), tmp_path / f"{number}"), range(9)))
        assert 2 <= len(workers_of(client)) <= 6
    for number in range(9):
        assert_exact(tmp_path / f"{number}")


def test_a_fork_begins_anew_and_its_parent_goes_on(tmp_path: Path) -> None:
    """Both are exact, and the parent keeps its workers."""
    with serving(ranged(PATTERN)) as server, fastdl.Client(workers=2, connections=4) as client:
        client.download(server.url(), tmp_path / "before")
        workers = workers_of(client)
        pid = os.fork()
        if pid == 0:
            code = 1
            with suppress(BaseException):
                client.download(server.url(), tmp_path / "child")
                if not workers_of(client) & workers:
                    client.close()
                    code = 0
            os._exit(code)
        client.download(server.url(), tmp_path / "parent")
        assert os.waitpid(pid, 0)[1] == 0
        assert workers_of(client) == workers
    assert_exact(tmp_path / "child")
    assert_exact(tmp_path / "parent")


def test_pickled_it_is_its_settings(tmp_path: Path) -> None:
    """A spawned data loader's worker makes its own of it."""
    with serving(ranged(DATA)) as server, fastdl.Client(headers={"X-Mine": "1"}, part_size=16 * KIB) as client:
        copy = pickle.loads(pickle.dumps(client))
        result = copy.download(server.url(), tmp_path / "a")
        assert result.part_size == 16 * KIB
        assert server.log[0].headers["x-mine"] == "1"
        copy.close()


def stuck(body: int) -> tuple[Handler, threading.Event]:
    """Return a server that gives so many bytes of each body and then nothing."""
    hold = threading.Event()

    def handle(exchange: Exchange) -> None:
        if body:
            exchange.break_body(body, lambda: exchange.hold(hold))
            ranged(PATTERN)(exchange)
        else:
            exchange.hold(hold)

    return handle, hold


@pytest.mark.parametrize("body", [0, MIB // 2], ids=["head", "body"])
@pytest.mark.parametrize("kind", ["download", "stream", "read_ranges", "open"])
def test_what_is_taken_back_ends(tmp_path: Path, kind: str, body: int) -> None:
    """Whatever it waits for; the client is of use afterwards, and a download resumes."""
    handler, hold = stuck(body)
    calls: dict[str, Callable[[], object]] = {
        "download": lambda: client.download(url, tmp_path / "a"),
        "stream": lambda: client.stream(url).read(),
        "read_ranges": lambda: client.read_ranges(url, [(0, 2 * MIB)]),
        "open": lambda: client.open(url).numpy(),
    }
    with serving(handler) as server, serving(ranged(PATTERN)) as good, fastdl.Client() as client:
        url = server.url()
        with ThreadPoolExecutor(1) as thread:
            future = thread.submit(calls[kind])
            server.wait_for(1)
            client.cancel()
            assert isinstance(future.exception(PATIENCE), fastdl.Cancelled)
        client.download(good.url(), tmp_path / "b")
        assert_exact(tmp_path / "b")
        hold.set()


def test_an_ordered_stream_is_taken_back(tmp_path: Path) -> None:
    """Its one connection is broken."""
    hold = threading.Event()

    def handle(exchange: Exchange) -> None:
        exchange.break_body(MIB, lambda: exchange.hold(hold))
        ignores_range(PATTERN)(exchange)

    with serving(handle) as server, fastdl.Client() as client, ThreadPoolExecutor(1) as thread:
        future = thread.submit(client.download, server.url(), tmp_path / "a")
        server.wait_for(1)
        client.cancel()
        assert isinstance(future.exception(PATIENCE), fastdl.Cancelled)
        hold.set()
    assert list(tmp_path.iterdir()) == []


def test_taken_back_from_its_own_progress(tmp_path: Path) -> None:
    """Who cancels inside a call does not wait for it."""
    with serving(ranged(PATTERN)) as server, fastdl.Client(limit_rate=MIB) as client:
        with pytest.raises(fastdl.Cancelled):
            client.download(server.url(), tmp_path / "a", progress=lambda _: client.cancel(), part_size=64 * KIB)
        client.download(server.url(), tmp_path / "a", limit_rate=None, part_size=64 * KIB)
    assert_exact(tmp_path / "a")


def test_after_the_end() -> None:
    """A closed client says so, and closing again is nothing."""
    client = fastdl.Client()
    client.close()
    client.close()
    with pytest.raises(fastdl.UsageError, match="the client is closed"):
        client.head("http://127.0.0.1:9/none")


def test_a_setting_that_is_none() -> None:
    """It is told at once, by its name."""
    with pytest.raises(fastdl.UsageError, match="pathh: no setting of a client"):
        fastdl.Client(pathh=1)  # type: ignore[call-arg]


def test_an_interpreter_that_ends_leaves_no_worker(tmp_path: Path) -> None:
    """Though nobody closed client or stream, and something goes on."""
    script = """
import sys, threading
import fastdl
client = fastdl.Client(workers=2, connections=4)
client.download(sys.argv[1], sys.argv[2])
stream = client.stream(sys.argv[1])
stream.read(10)
print("ready", flush=True)
"""
    with serving(ranged(PATTERN)) as server:
        command = [sys.executable, "-c", script, server.url(), str(tmp_path / "a")]
        with running_any(tmp_path / "logs", command) as caller:
            assert caller.wait(PATIENCE) == 0, caller.stderr
            assert (caller.stdout, caller.stderr) == ("ready\n", "")
            caller.wait_gone()
    assert_exact(tmp_path / "a")


def test_asyncio(tmp_path: Path) -> None:
    """Several at once, a stream, and ranges; nothing blocks the loop."""

    async def program(url: str) -> int:
        beats = 0

        async def beat() -> None:
            nonlocal beats
            while True:
                await asyncio.sleep(0)
                beats += 1

        heart = asyncio.create_task(beat())
        results = await asyncio.gather(*(client.adownload(url, tmp_path / f"{number}") for number in range(3)))
        assert [result.size for result in results] == [SIZE] * 3
        assert (await client.ahead(url)).size == SIZE
        assert await client.aread_ranges(url, [(5, 3)]) == [bytes(PATTERN.read(5, 8))]
        blocks = [block async for block in client.astream(url)]
        assert b"".join(blocks) == PATTERN.read(0, SIZE)
        heart.cancel()
        return beats

    with serving(ranged(PATTERN)) as server, fastdl.Client(workers=1, connections=2) as client:
        assert asyncio.run(program(server.url())) > 10
    for number in range(3):
        assert_exact(tmp_path / f"{number}")


def test_a_task_that_is_cancelled_takes_its_call_back_and_no_other(tmp_path: Path) -> None:
    """The thread that waits for the server is free again before the task ends."""
    handler, hold = stuck(0)

    async def program(stuck_url: str, url: str) -> None:
        task = asyncio.create_task(client.adownload(stuck_url, tmp_path / "a"))
        await asyncio.to_thread(silent.wait_for, 1)
        other = asyncio.create_task(client.adownload(url, tmp_path / "b"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(client._calls) <= 1
        await other

    with serving(handler) as silent, serving(ranged(PATTERN)) as good, fastdl.Client() as client:
        asyncio.run(program(silent.url(), good.url()))
        hold.set()
    assert_exact(tmp_path / "b")


def test_a_task_that_reads_a_stream_is_cancelled(tmp_path: Path) -> None:
    """Though no call of the client's goes on while it waits for a block."""
    handler, hold = stuck(MIB // 2)

    async def program(url: str) -> None:
        async def read() -> None:
            async for _ in client.astream(url):
                pass

        task = asyncio.create_task(read())
        await asyncio.to_thread(server.wait_for, 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, PATIENCE)

    with serving(handler) as server, fastdl.Client() as client:
        asyncio.run(program(server.url()))
        hold.set()
    assert list(tmp_path.iterdir()) == []


def test_a_call_that_has_not_begun_is_never_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for a thread; cancelled meanwhile it is nobody's, and no other call is taken back for it."""
    monkeypatch.setattr("fastdl.client._THREADS", 1)
    handler, hold = stuck(0)

    async def program(url: str) -> None:
        first = asyncio.create_task(client.ahead(url))
        await asyncio.to_thread(server.wait_for, 1)
        second = asyncio.create_task(client.ahead(url))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(second, PATIENCE)
        assert not first.done()
        assert len(server.log) == 1
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(first, PATIENCE)

    with serving(handler) as server, fastdl.Client() as client:
        asyncio.run(program(server.url()))
        assert len(server.log) == 1
        hold.set()
