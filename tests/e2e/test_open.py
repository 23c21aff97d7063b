"""``open``: an object in shared memory, of use while it arrives, in one process and in several."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fastcrc import crc64

import fastdl
from fastdl import memory
from tests.servers.nginx import serving_nginx
from tests.servers.scripted import (
    Handler,
    by_offset,
    chunked,
    flipped,
    from_request,
    hang_up,
    ignores_range,
    no_length,
    ranged,
    reset_after,
    script,
    serving,
    status,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers.exchange import Exchange

KIB = 1024
PART = 64 * KIB
DATA = random.Random(13).randbytes(40 * PART + 24)
PATIENCE = 60.0
ORDERED = {
    "no ranges": ignores_range(DATA),
    "chunked": chunked(DATA),
    "ended by the connection": no_length(DATA),
}


def threads_of_ours() -> list[str]:
    """Name the threads that fetch or watch."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("fastdl")]


@pytest.mark.parametrize("size", [0, 1, PART, PART + 1, len(DATA)])
def test_every_size(size: int) -> None:
    """Arrays, views and the file have exactly the object's bytes; nothing goes on afterwards."""
    with serving(ranged(DATA[:size])) as server, fastdl.open(server.url(), part_size=PART) as remote:
        assert remote.numpy().tobytes() == DATA[:size]
        assert bytes(remote.memoryview()) == remote.read() == DATA[:size]
        assert (remote.size, remote.read(), remote.result().crc64) == (size, b"", crc64.xz(DATA[:size]))
    assert threads_of_ours() == []


@pytest.mark.parametrize("handler", ORDERED.values(), ids=ORDERED)
def test_servers_without_ranges_or_lengths(handler: Handler) -> None:
    """What has come so far can be waited for, and the size is known at the end at the latest."""
    with serving(handler) as server, fastdl.open(server.url()) as remote:
        remote.wait(0, 10)
        assert bytes(remote.view(PART, PART + 10)) == DATA[PART : PART + 10]
        assert remote.read(PART) == DATA[:PART]
        assert remote.size == len(DATA)
        assert remote.numpy().tobytes() == DATA


def test_bytes_at_the_end_come_before_those_in_between(tmp_path: Path) -> None:
    """A connection that is busy with others leaves its run for what is waited for."""
    (tmp_path / "f").write_bytes(DATA)
    with (
        serving_nginx(tmp_path, rate=4 * PART) as server,
        fastdl.open(server.url("/f"), part_size=PART, connections=1, workers=1) as remote,
    ):
        assert bytes(remote.view(len(DATA) - 5, len(DATA))) == DATA[-5:]
        assert remote._loading is not None
        there = remote._loading.arrivals._there
        assert sum(there) < len(there) // 2
        assert there[-1] == 1


def test_an_object_that_is_not_there_yet_can_be_read_at_random() -> None:
    """Whatever is asked for is exact, in any order, while the rest arrives."""
    rng = random.Random(1)
    with serving(ranged(DATA)) as server, fastdl.open(server.url(), part_size=1000, connections=4) as remote:
        expected = io.BytesIO(DATA)
        for _ in range(300):
            at, count = rng.randrange(len(DATA) + 1000), rng.randrange(3000)
            assert remote.seek(at) == expected.seek(at)
            assert remote.read(count) == expected.read(count)
            assert remote.tell() == expected.tell()
        assert remote.seek(-3, os.SEEK_END) == len(DATA) - 3
        assert remote.seek(1, os.SEEK_CUR) == len(DATA) - 2
        assert remote.read(9) == DATA[-2:]


def test_arrays_have_type_and_shape_and_cannot_be_written() -> None:
    """They are the memory itself, not a copy, and outlive the object."""
    with serving(ranged(DATA)) as server:
        with fastdl.open(server.url()) as remote:
            array = remote.numpy("<u2", (4, -1))
        assert array.tobytes() == DATA
        assert array.shape == (4, len(DATA) // 8)
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 1


@pytest.mark.parametrize(("dtype", "shape"), [("<u4", (3, 5)), ("S7", None), ("nonsense", None)])
def test_arrays_that_do_not_fit(dtype: str, shape: tuple[int, ...] | None) -> None:
    """One line says what there is and what was asked."""
    with (
        serving(ranged(DATA)) as server,
        fastdl.open(server.url()) as remote,
        pytest.raises(fastdl.UsageError, match=f"{len(DATA)} bytes are no array of {dtype}"),
    ):
        remote.numpy(dtype, shape)


def test_a_path_for_who_wants_one() -> None:
    """It can be mapped by name."""
    with serving(ranged(DATA)) as server, fastdl.open(server.url()) as remote:
        mapped = np.memmap(remote.path(), mode="r")
        assert mapped.tobytes() == DATA
        del mapped


def test_a_file_in_a_directory_instead_of_memory(tmp_path: Path) -> None:
    """It has no name, and is gone at the end."""
    with serving(ranged(DATA)) as server, fastdl.open(server.url(), directory=tmp_path) as remote:
        assert remote.numpy().tobytes() == DATA
        assert list(tmp_path.iterdir()) == []
        assert os.fstat(remote._open()[0].fd).st_dev == tmp_path.stat().st_dev


def test_too_large_for_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused before anything is fetched, and told how to do it."""
    monkeypatch.setattr(memory, "_available", lambda: len(DATA) - 1)
    with (
        serving(ranged(DATA)) as server,
        fastdl.open(server.url(), part_size=PART) as remote,
        pytest.raises(fastdl.DiskError, match="are available; name a directory"),
    ):
        remote.wait()


def test_parts_that_come_wrong_are_replaced_before_the_end_is_told() -> None:
    """A flipped bit is found by the promised digest and mended in the memory that readers see."""
    digest = f"sha256={hashlib.sha256(DATA).hexdigest()}"
    wrong = by_offset({3 * PART: flipped(100)}, ranged(DATA))
    with (
        serving(wrong) as server,
        fastdl.open(server.url(), part_size=PART, connections=4, checksum=digest) as remote,
    ):
        assert remote.numpy().tobytes() == DATA
        assert remote.result().integrity == "sha256"


@pytest.mark.parametrize(
    ("handler", "error"),
    [
        (status(404), fastdl.NotFound),
        (status(403), fastdl.AccessDenied),
        (from_request(1, hang_up, ranged(DATA)), fastdl.NetworkError),
        (script({1: ranged(DATA)}, otherwise=ranged(DATA[:-1], etag='"v2"')), fastdl.ObjectChanged),
    ],
    ids=["404", "403", "hung up", "replaced"],
)
def test_failures_reach_every_reader(handler: Handler, error: type[Exception]) -> None:
    """As the error that a download would raise, each time."""
    with serving(handler) as server, fastdl.open(server.url(), retry=0, part_size=9 * 2**20) as remote:
        for call in (remote.result, remote.numpy, remote.read):
            if error is not fastdl.ObjectChanged:
                with pytest.raises(error):
                    call()
        if error is fastdl.ObjectChanged:  # one part: the first answer was all of it
            assert remote.numpy().tobytes() == DATA


@pytest.mark.parametrize(("start", "stop"), [(-1, 5), (5, 4), (0, len(DATA) + 1), (len(DATA) + 1, None)])
def test_bytes_that_are_none(start: int, stop: int | None) -> None:
    """They are named, with the size."""
    with (
        serving(ranged(DATA)) as server,
        fastdl.open(server.url()) as remote,
        pytest.raises(fastdl.UsageError, match=f"the object has {len(DATA)}"),
    ):
        remote.wait(start, stop)


def test_after_the_end() -> None:
    """A closed object says so; closing again is nothing."""
    with serving(ranged(DATA)) as server:
        remote = fastdl.open(server.url())
        remote.close()
        remote.close()
        for call in (remote.read, remote.numpy, remote.wait, lambda: remote.seek(0), lambda: pickle.dumps(remote)):
            with pytest.raises(ValueError, match="closed"):
                call()


def _look(remote: fastdl.Remote, queue: Any) -> None:
    """Read in another process what this one opened."""
    try:
        queue.put(bytes(remote.view(len(DATA) - 7, len(DATA))))
        queue.put(hashlib.sha256(remote.memoryview()).hexdigest())
        queue.put(remote.result().crc64)
        remote.close()
    except BaseException as error:  # noqa: BLE001 - of whatever kind
        queue.put(error)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize(
    "handler", [ranged(DATA), ignores_range(DATA), chunked(DATA)], ids=["ranges", "200", "chunked"]
)
def test_another_process_reads_the_same_memory(method: str, handler: Handler) -> None:
    """While it arrives; the server is asked by nobody else."""
    go, context = threading.Event(), multiprocessing.get_context(method)

    def held(exchange: Exchange) -> None:
        exchange.break_body(24 * PART, lambda: exchange.hold(go))  # behind the first chunk
        handler(exchange)

    queue = context.Queue()
    with (
        serving(script({1: held}, otherwise=handler)) as server,
        fastdl.open(server.url(), part_size=PART) as remote,
    ):
        remote.wait(0, 10)
        child = context.Process(target=_look, args=(remote, queue))  # type: ignore[attr-defined]
        child.start()
        go.set()
        assert queue.get(timeout=PATIENCE) == DATA[-7:]
        assert queue.get(timeout=PATIENCE) == hashlib.sha256(DATA).hexdigest()
        assert queue.get(timeout=PATIENCE) == crc64.xz(DATA)
        child.join(PATIENCE)
        assert remote.read() == DATA
        # Ours, and no more; on a busy machine some are given up before the server has read them.
        assert len(server.log) <= remote.result().requests
    queue.close()
    queue.join_thread()


def test_another_process_hears_of_a_failure() -> None:
    """As the very error, and does not wait for ever."""
    go = threading.Event()

    def cut(exchange: Exchange) -> None:
        def end() -> None:
            exchange.hold(go)
            exchange.close()

        exchange.break_body(PART, end)
        ranged(DATA)(exchange)

    context = multiprocessing.get_context("spawn")  # a fork would hold the server's sockets
    queue = context.Queue()
    with (
        serving(script({1: cut}, otherwise=hang_up)) as server,
        fastdl.open(server.url(), part_size=PART, retry=0, connections=1) as remote,
    ):
        assert remote.size == len(DATA)
        child = context.Process(target=_look, args=(remote, queue))
        child.start()
        go.set()
        assert isinstance(queue.get(timeout=PATIENCE), fastdl.NetworkError)
        child.join(PATIENCE)
    queue.close()
    queue.join_thread()


def test_what_was_closed_cannot_be_opened_by_reference() -> None:
    """Its descriptor's number may mean another file by now: then nothing is opened."""
    with serving(ranged(DATA)) as server:
        remote = fastdl.open(server.url())
        remote.wait()
        reference = pickle.dumps(remote)
        fd, board = (each.fd for each in remote._open())
        remote.close()
        with pytest.raises(fastdl.DiskError, match="closed"):
            pickle.loads(reference)
        for number in (fd, board):
            other = os.open(__file__, os.O_RDONLY)
            os.dup2(other, number)
            if other != number:
                os.close(other)
        with pytest.raises(fastdl.DiskError, match="is closed"):
            pickle.loads(reference)
        os.close(fd)
        os.close(board)


def test_a_reader_whose_owner_was_killed_does_not_wait_for_ever(tmp_path: Path) -> None:
    """It is told that the process that fetched is gone."""
    hold = threading.Event()

    def silent(exchange: Exchange) -> None:
        exchange.break_body(PART, lambda: exchange.hold(hold))
        exchange.otherwise(exchange)

    owner = (
        "import fastdl, pickle, sys, time\n"
        "remote = fastdl.open(sys.argv[1], part_size=65536, connections=1, workers=1)\n"
        "remote.wait(0, 10)\n"
        "sys.stdout.buffer.write(pickle.dumps(remote).hex().encode() + b'\\n'); sys.stdout.flush()\n"
        "time.sleep(600)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(fastdl.__file__).parents[1])}
    with serving(from_request(1, silent, ranged(DATA))) as server:
        process = subprocess.Popen(
            [sys.executable, "-c", owner, server.url()], stdout=subprocess.PIPE, env=environment, cwd=tmp_path
        )
        with process:
            assert process.stdout is not None
            remote = pickle.loads(bytes.fromhex(process.stdout.readline().decode()))
            assert bytes(remote.view(0, 10)) == DATA[:10]
            process.send_signal(signal.SIGKILL)
            with pytest.raises(fastdl.Cancelled, match="ended before it was there"):
                remote.wait()
            remote.close()
        hold.set()


@pytest.mark.parametrize("act", [lambda remote: remote.close(), lambda remote: remote.read(5), lambda _: None])
def test_a_fork_does_not_end_its_parents_fetching(act: Callable[[fastdl.Remote], object]) -> None:
    """Whatever the child does with its copy."""
    with serving(ranged(DATA)) as server, fastdl.open(server.url(), part_size=PART) as remote:
        pid = os.fork()
        if pid == 0:
            with suppress(BaseException):
                act(remote)
                os._exit(0)
            os._exit(1)
        assert os.waitpid(pid, 0)[1] == 0
        assert remote.numpy().tobytes() == DATA


@pytest.mark.parametrize("handler", [chunked(DATA[:PART]), no_length(DATA[:PART])], ids=["chunked", "cut"])
def test_views_survive_an_ordered_stream_that_is_shorter_the_second_time(handler: Handler) -> None:
    """The memory is never cut under them; the end is an error."""

    def first(exchange: Exchange) -> None:
        exchange.otherwise = chunked(DATA)
        reset_after(20 * PART)(exchange)

    with (
        serving(script({1: first}, otherwise=handler)) as server,
        fastdl.open(server.url(), retry=1) as remote,
        suppress(fastdl.FastdlError),
    ):
        view = remote.view(0, PART // 2)
        with pytest.raises((fastdl.ObjectChanged, fastdl.NetworkError)):
            remote.wait()
        assert view == DATA[: PART // 2]


def test_a_head_as_long_as_servers_may_make_it() -> None:
    """What does not fit on the board is left out there, and hangs nobody."""
    etag = f'"{"e" * 5000}"'
    with serving(ranged(DATA, etag=etag)) as server, fastdl.open(server.url()) as remote:
        assert remote.result().etag == etag
        copy = pickle.loads(pickle.dumps(remote))
        assert copy.result().etag == etag[:150]
        assert copy.result().crc64 == crc64.xz(DATA)
        copy.close()


def _read_all(remote: fastdl.Remote) -> None:
    for at in range(0, len(DATA) - 64, 64):
        remote.seek(at)
        assert remote.read(64) in DATA, "bytes of another file"


def _close(remote: fastdl.Remote) -> None:
    remote.close()
    with open(__file__, "rb", buffering=0):  # noqa: PTH123 - which takes a number that is free
        pass


def test_threads_that_close_while_others_read() -> None:
    """No read meets the file that has the descriptor's number next, and nothing is closed twice."""
    acts = (_read_all, _close, _close, _read_all)
    with serving(ranged(DATA)) as server, ThreadPoolExecutor(len(acts)) as threads:
        for _ in range(20):
            remote = fastdl.open(server.url(), part_size=PART)
            remote.wait()
            for future in [threads.submit(act, remote) for act in acts]:
                error = future.exception(PATIENCE)
                assert error is None or isinstance(error, ValueError | fastdl.Cancelled)
