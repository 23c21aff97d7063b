"""``stream``: in order, exact, within its memory, and its end told only of what was judged."""

from __future__ import annotations

import hashlib
import io
import os
import random
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Unpack

import pytest
from fastcrc import crc64

import fastdl
from fastdl import memory
from tests.servers.nginx import serving_nginx
from tests.servers.scripted import (
    Handler,
    Pattern,
    by_offset,
    chunked,
    from_request,
    hang_up,
    ignores_range,
    no_length,
    ranged,
    reset_after,
    script,
    serving,
    status,
    truncate_after,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fastdl.prepare import Options
    from tests.servers.exchange import Exchange

KIB = 1024
PART = 64 * KIB
DATA = random.Random(11).randbytes(40 * PART + 17)
ORDERED = {
    "no ranges": ignores_range(DATA),
    "chunked": chunked(DATA),
    "ended by the connection": no_length(DATA),
}


def small(url: str, checksum: str | None = None, **options: Unpack[Options]) -> fastdl.Stream:
    """Open a stream whose object passes through its memory five times."""
    return fastdl.stream(url, window=8 * PART, part_size=PART, checksum=checksum, **options)


def threads_of_ours() -> list[str]:
    """Name the threads that fetch or watch."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("fastdl")]


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 8 * PART, 8 * PART + 1, len(DATA)])
def test_every_size(size: int) -> None:
    """Around the part size and the window the blocks are exactly the object; nothing goes on afterwards."""
    with serving(ranged(DATA[:size])) as server, small(server.url()) as stream:
        assert stream.size == size
        assert b"".join(stream) == DATA[:size]
        assert stream.read(1) == b""
        result = stream.result()
    assert (result.size, result.crc64, result.integrity) == (size, crc64.xz(DATA[:size]), "length")
    assert threads_of_ours() == []


@pytest.mark.parametrize("part_size", [1, 3, 1000, 20_000, PART])
def test_parts_that_share_windows_go_round_the_ring(part_size: int) -> None:
    """Windows of small parts may end anywhere: what crosses the end of the ring goes on at its beginning."""
    size = min(len(DATA), 700 * part_size + 1)
    with (
        serving(ranged(DATA[:size])) as server,
        fastdl.stream(server.url(), window=7 * part_size, part_size=part_size, connections=3, workers=1) as stream,
    ):
        assert b"".join(stream) == DATA[:size]


@pytest.mark.parametrize("handler", ORDERED.values(), ids=ORDERED)
def test_one_ordered_stream(handler: Handler) -> None:
    """Servers without ranges, or without a length, are read over one connection."""
    with serving(handler) as server, small(server.url()) as stream:
        assert b"".join(stream) == DATA
        assert stream.result().parts == 0
        assert len(server.log) == 1


@pytest.mark.parametrize("handler", ORDERED.values(), ids=ORDERED)
def test_a_slow_reader_holds_an_ordered_stream_back_and_is_no_stall(handler: Handler) -> None:
    """No more than the window is received ahead, and who reads nothing for longer than the read timeout may go on."""
    with serving(handler) as server, small(server.url(), read_timeout=0.2) as stream:
        first = stream.read(1)
        arrivals = stream._loading.arrivals
        assert arrivals.room(8 * PART + 1, 1.0) == 0  # a second, in which nobody reads
        assert first + stream.read() == DATA


def test_reading_like_a_file() -> None:
    """Any sizes, into buffers too, lead through the same bytes."""
    sizes = [0, 1, 5, PART, 3 * PART + 1, 10 * PART, 100 * PART]
    with serving(ranged(DATA)) as server, small(server.url()) as stream:
        expected = io.BytesIO(DATA)
        for size in sizes:
            assert stream.read(size) == expected.read(size)
            buffer = bytearray(777)
            count = stream.readinto(buffer)
            assert bytes(buffer[:count]) == expected.read(777)
            assert stream.tell() == expected.tell()
        assert (stream.readable(), stream.seekable(), stream.writable()) == (True, False, False)


def test_memory_stays_within_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever passes, the file behind it is no longer than the window."""
    made: list[memory.Memory] = []
    init = memory.Memory.__init__

    def noting(self: memory.Memory, *args: object, **kwargs: object) -> None:
        init(self, *args, **kwargs)  # type: ignore[arg-type]
        made.append(self)

    monkeypatch.setattr(memory.Memory, "__init__", noting)
    with serving(ranged(DATA)) as server, small(server.url()) as stream:
        for block in stream:
            assert block
            assert os.fstat(made[0].fd).st_size == 8 * PART
        assert stream.result().size == len(DATA)


def test_nobody_runs_further_ahead_than_the_window() -> None:
    """While nobody reads the server is asked for no byte behind the window."""
    with serving(ranged(DATA)) as server, small(server.url()) as stream:
        arrivals = stream._loading.arrivals
        arrivals.until_front(8 * PART - 1)
        asked = [seen.range for seen in server.log]
        assert max(span[1] for span in asked if span is not None and span[1] is not None) == 8 * PART
        assert stream.read() == DATA


@pytest.mark.parametrize(
    "fault",
    [reset_after(1000), truncate_after(1000), status(503), hang_up],
    ids=["reset", "truncated", "503", "hung up"],
)
def test_failures_of_the_line_are_not_seen(fault: Handler) -> None:
    """What fails is asked for again while the reader waits."""
    faults = dict.fromkeys([0, 3 * PART, 4 * PART, 5 * PART, 20 * PART], fault)
    with serving(by_offset(faults, ranged(DATA))) as server, small(server.url()) as stream:
        assert stream.read() == DATA


@pytest.mark.parametrize("after", [100, 5 * PART])
def test_an_ordered_stream_that_breaks_is_compared_with_what_was_read(after: int) -> None:
    """It begins anew at its first byte; readers go on where they were."""
    with (
        serving(script({1: truncate_after(after)}, otherwise=ignores_range(DATA))) as server,
        small(server.url()) as stream,
    ):
        assert stream.read() == DATA
        assert len(server.log) == 2


def test_an_ordered_stream_that_comes_otherwise_the_second_time_is_an_error() -> None:
    """Bytes that were read cannot be taken back: the object was replaced, and the reader is told."""
    other = ignores_range(b"x" + DATA[1:], etag=None)

    def first(exchange: Exchange) -> None:
        exchange.otherwise = ignores_range(DATA, etag=None)
        truncate_after(3 * PART)(exchange)

    with (
        serving(script({1: first}, otherwise=other)) as server,
        small(server.url()) as stream,
        pytest.raises(fastdl.ObjectChanged, match="bytes are others now"),
    ):
        stream.read()


@pytest.mark.parametrize("checksum", ["sha256", "crc64", "md5"])
@pytest.mark.parametrize("handler", [ranged(DATA), ignores_range(DATA)], ids=["ranges", "no ranges"])
def test_a_wrong_digest_is_told_instead_of_the_end(checksum: str, handler: Handler) -> None:
    """Bytes may be read, the end may not."""
    wrong = checksum + "=" + "0" * {"sha256": 64, "crc64": 16, "md5": 32}[checksum]
    with (
        serving(handler) as server,
        small(server.url(), checksum=wrong) as stream,
        pytest.raises(fastdl.IntegrityError),
    ):
        stream.read()


@pytest.mark.parametrize("handler", [ranged(DATA), ignores_range(DATA)], ids=["ranges", "no ranges"])
def test_a_digest_of_the_whole_is_computed_of_what_passes(handler: Handler) -> None:
    """Bytes stay in the ring until they are hashed, however fast the reader is."""
    checksum = f"sha256={hashlib.sha256(DATA).hexdigest()}"
    with serving(handler) as server, small(server.url(), checksum=checksum) as stream:
        assert stream.read() == DATA
        assert stream.result().integrity == "sha256"


def test_result_reads_the_rest() -> None:
    """Who stops before the end asks whether what was read was right."""
    with serving(ranged(DATA)) as server, small(server.url()) as stream:
        assert stream.read(5) == DATA[:5]
        assert stream.result().crc64 == crc64.xz(DATA)


def test_a_tar_archive(tmp_path: Path) -> None:
    """As data loaders read shards."""
    buffer = io.BytesIO()
    samples = {f"{index:05}.bin": DATA[index * 1000 : index * 1000 + 997] for index in range(300)}
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in samples.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    (tmp_path / "shard.tar").write_bytes(buffer.getvalue())
    with serving_nginx(tmp_path) as server, small(server.url("/shard.tar")) as stream:
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            read = {entry.name: file.read() for entry in tar if (file := tar.extractfile(entry)) is not None}
        assert read == samples
        assert stream.result().size == len(buffer.getvalue())


@pytest.mark.parametrize("close", [lambda stream: stream.close(), lambda stream: stream.__exit__(None, None, None)])
def test_an_early_close_ends_everything(close: Callable[[fastdl.Stream], None]) -> None:
    """Nothing is fetched any more, and no thread stays, whatever the server is doing."""
    hold = threading.Event()

    def silent(exchange: Exchange) -> None:
        exchange.break_body(1000, lambda: exchange.hold(hold))
        exchange.otherwise(exchange)

    with serving(by_offset({0: ranged(DATA)}, from_request(2, silent, ranged(DATA)))) as server:
        stream = small(server.url())
        assert stream.read(PART) == DATA[:PART]
        close(stream)
        assert threads_of_ours() == []
        with pytest.raises(ValueError, match="closed"):
            stream.read(1)
        hold.set()


@pytest.mark.parametrize("handler", ORDERED.values(), ids=ORDERED)
def test_an_early_close_of_an_ordered_stream(handler: Handler) -> None:
    """The one connection is broken, in the middle of a body that does not come."""
    hold = threading.Event()

    def silent(exchange: Exchange) -> None:
        exchange.break_body(2 * PART, lambda: exchange.hold(hold))
        handler(exchange)

    with serving(silent) as server:
        stream = small(server.url())
        assert stream.read(PART) == DATA[:PART]
        stream.close()
        assert threads_of_ours() == []
        hold.set()


def test_a_close_while_another_thread_reads() -> None:
    """The reader is told, and does not wait for ever."""
    hold = threading.Event()

    def silent(exchange: Exchange) -> None:
        exchange.hold(hold)

    failures: list[BaseException] = []
    with serving(silent) as server:
        stream = small(server.url())

        def read() -> None:
            try:
                stream.read()
            except BaseException as error:  # noqa: BLE001 - of whatever kind
                failures.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        server.wait_for(1)
        stream.close()
        reader.join(30)
        assert not reader.is_alive()
        hold.set()
    assert isinstance(failures[0], fastdl.Cancelled)


def test_a_stream_nobody_closed_ends_with_its_last_user() -> None:
    """Dropped is as good as closed."""
    with serving(ranged(Pattern(64 << 20))) as server:
        stream = small(server.url())
        stream.read(1)
        del stream
        assert threads_of_ours() == []


def test_a_fork_cannot_read_its_parents_stream() -> None:
    """It would take bytes from a memory that its parent's workers fill; it is told so, and hurts nobody."""
    with serving(ranged(DATA)) as server, small(server.url()) as stream:
        assert stream.read(100) == DATA[:100]
        pid = os.fork()
        if pid == 0:
            code = 1
            with suppress(BaseException):
                try:
                    stream.read(1)
                except fastdl.UsageError:
                    stream.close()
                    code = 0
            os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
        assert stream.read() == DATA[100:]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"window": 1}, "window 1: must be two parts"),
        ({"window": 100, "part_size": 51}, "window 100: must be two parts of 51 bytes or more"),
        ({"part_size": 0}, "part size 0"),
        ({"connections": 0}, "0 connections"),
        ({"checksum": "md5=zz"}, "md5"),
    ],
)
def test_what_cannot_be_meant(settings: dict[str, object], text: str) -> None:
    """Nothing is sent."""
    with pytest.raises(fastdl.UsageError, match=text):
        fastdl.stream("http://127.0.0.1:9/none", **settings)  # type: ignore[arg-type]


def test_what_is_not_there() -> None:
    """The first look tells, and every one after it."""
    with serving(status(404)) as server, fastdl.stream(server.url()) as stream:
        for _ in range(2):
            with pytest.raises(fastdl.NotFound):
                stream.read()
        with pytest.raises(fastdl.NotFound):
            assert stream.size


@pytest.mark.parametrize("kind", ["chunked", "ended by the connection"])
def test_an_ordered_stream_that_is_shorter_the_second_time_is_an_error(kind: str) -> None:
    """What was read of it is not what the object is now, though the second body came whole."""
    shorter: Handler = chunked(DATA[: 2 * PART]) if kind == "chunked" else no_length(DATA[: 2 * PART])
    whole = ORDERED[kind]

    def first(exchange: Exchange) -> None:
        exchange.otherwise = whole
        reset_after(20 * PART)(exchange)

    with (
        serving(script({1: first}, otherwise=shorter)) as server,
        small(server.url(), retry=1) as stream,
        pytest.raises((fastdl.ObjectChanged, fastdl.NetworkError)),
    ):
        stream.read()


def test_several_threads_close_while_one_reads() -> None:
    """Each descriptor is closed once, and no read meets the file that has its number next."""
    acts = (fastdl.Stream.close, fastdl.Stream.close, fastdl.Stream.read)
    with serving(ranged(DATA)) as server, ThreadPoolExecutor(len(acts)) as threads:
        for _ in range(20):
            stream = small(server.url())
            stream.read(1)
            for future in [threads.submit(act, stream) for act in acts]:
                error = future.exception(60)
                assert error is None or isinstance(error, ValueError | fastdl.Cancelled)
