"""What fastdl does to be fast, as functions: none of these tests measures a speed but the one that was asked for."""

from __future__ import annotations

import random
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

import fastdl
from fastdl.limit import START
from tests.e2e.command import names, run
from tests.servers.objects import serving_objects
from tests.servers.scripted import (
    Answer,
    Exchange,
    Handler,
    Pattern,
    Server,
    drip,
    first_of,
    ignores_range,
    ranged,
    script,
    serving,
    stall_after,
    status,
)

if TYPE_CHECKING:
    from pathlib import Path

KIB, MIB = 1 << 10, 1 << 20
SIZE = 64 * MIB + 77
PATTERN = Pattern(SIZE, seed=8)


def paced(pause: float = 0.02, step: int = 32 * KIB) -> Handler:
    """Answer rightly, ``step`` bytes every ``pause`` seconds."""
    return drip(threading.Event(), pause, step)


@pytest.mark.parametrize("pace", [None, (0.02, 64 * KIB)], ids=["fast others", "slow others"])
def test_one_that_stalls_and_one_that_crawls_hold_nobody_up(tmp_path: Path, pace: tuple[float, int] | None) -> None:
    """Of sixteen connections; both are replaced long before the read timeout of 30 s, and no byte comes twice.

    The server sends hardly more, but for what a fast line has in its buffers when a connection is left.
    """
    good = ranged(PATTERN)
    faults: dict[int, Handler] = {number: paced(*pace) for number in range(1, 1000)} if pace else {}
    faults |= {5: stall_after(100 * KIB), 7: paced(0.1, KIB)}
    with serving(script(faults, otherwise=good)) as server:
        outcome = run(server.url(), "-o", "out", "-x", "16", "--max-time", "20", cwd=tmp_path, timeout=40)
        assert outcome.code == 0, outcome.message
        assert (tmp_path / "out").read_bytes() == PATTERN.read(0, SIZE)
        assert outcome.last["bytes_fetched"] == SIZE
        assert server.sent <= 1.05 * SIZE or pace is None
        assert outcome.last["retries"] <= 10
        assert len(server.log) > 16


class Places:
    """A server that serves ``places`` requests at a time and answers 503 to all others."""

    def __init__(self, places: int, right: Handler) -> None:
        self._places, self._right = places, right
        self._lock = threading.Lock()
        self._serving = 0
        self.refused = 0
        self.most = 0

    def _leave(self) -> None:
        with self._lock:
            self._serving -= 1

    def __call__(self, exchange: Exchange) -> None:
        """Answer; the place is free before the client can know that it has everything."""
        with self._lock:
            room = self._serving < self._places
            self._serving += room
            self.refused += not room
            self.most = max(self.most, self._serving)
        if not room:
            exchange.reply(503)
            return
        left = [self._leave]

        def leave() -> None:
            if left:
                left.pop()()

        def take(answer: Answer) -> Answer:
            body = answer.content()
            exchange.head(answer.status, answer.fields)
            exchange.drip(body[:-1], threading.Event(), 0.02, 32 * KIB)
            leave()
            exchange.body(body[-1:])
            return Answer(answer.status, (), b"")

        def taking(answer: Answer) -> Answer:
            take(answer)
            raise _DoneError

        exchange.spoil = taking
        try:
            self._right(exchange)
        except _DoneError:
            pass
        finally:
            leave()


class _DoneError(Exception):
    """The answer was sent."""


def test_a_server_that_serves_eight_at_a_time_is_asked_by_eight(tmp_path: Path) -> None:
    """Every other request is refused: no error, and the number of connections settles at what is served."""
    pattern = Pattern(32 * MIB + 5, seed=9)
    places = Places(8, ranged(pattern))
    with serving(places) as server:
        outcome = run(server.url(), "-o", "out", "-x", "64", "-p", "256K", cwd=tmp_path, timeout=60)
    assert outcome.code == 0, outcome.message
    assert (tmp_path / "out").read_bytes() == pattern.read(0, pattern.size)
    assert outcome.last["bottleneck"] == "server"
    numbers = [level["connections"] for level in outcome.last["levels"]]
    assert numbers[0] == START
    assert 6 <= numbers[-1] <= 9, numbers
    assert places.most == 8
    assert places.refused <= 64
    assert outcome.last["retries"] >= places.refused > 0


class Seats:
    """A server that counts connections, idle ones too: 503 and an end to each beyond ``places``."""

    def __init__(self, places: int, pattern: Pattern) -> None:
        self._places, self._pattern = places, pattern
        self._lock = threading.Lock()
        self._admitted: set[int] = set()
        self.server: Server | None = None
        self.refused = 0

    def __call__(self, exchange: Exchange) -> None:
        """Answer, a little slowly, over a connection that stays."""
        assert self.server is not None
        number = exchange.request.connection
        with self._lock:
            if number not in self._admitted and self.server.open_connections > self._places:
                self.refused += 1
                exchange.persistent = False
            else:
                self._admitted.add(number)
        if number not in self._admitted:
            exchange.reply(503)
            return

        def slowly(answer: Answer) -> Answer:
            exchange.head(answer.status, answer.fields)
            exchange.drip(answer.content(), threading.Event(), 0.02, 64 * KIB)
            raise _DoneError

        exchange.spoil = slowly
        with suppress(_DoneError):
            ranged(self._pattern)(exchange)


@pytest.mark.parametrize("places", [1, 2, 5])
def test_a_server_that_counts_connections_gets_its_idle_ones_back(tmp_path: Path, places: int) -> None:
    """Those kept in one process are closed when another process is refused one; the first one is the caller's own."""
    pattern = Pattern(8 * MIB + 5, seed=14)
    seats = Seats(places, pattern)
    with serving(seats) as server:
        seats.server = server
        outcome = run(server.url(), "-o", "out", "-w", "4", cwd=tmp_path, timeout=60)
    assert outcome.code == 0, outcome.message
    assert (tmp_path / "out").read_bytes() == pattern.read(0, pattern.size)
    assert outcome.last["connections"] <= places
    assert outcome.last["bottleneck"] == "server"
    assert 0 < seats.refused <= 64


@pytest.mark.parametrize("workers", [1, 4])
def test_the_rate_is_what_it_was_limited_to(tmp_path: Path, workers: int) -> None:
    """All connections of all processes together, within 5 %, from the first byte to the last."""
    size, rate = 12_000_000, 4_000_000
    pattern = Pattern(size, seed=10)
    with serving(ranged(pattern)) as server:
        flags = ("-o", "out", "-w", str(workers), "-p", "128K", "--limit-rate", str(rate))
        outcome = run(server.url(), *flags, cwd=tmp_path)
    assert outcome.code == 0, outcome.message
    assert (tmp_path / "out").read_bytes() == pattern.read(0, size)
    assert outcome.last["seconds"] == pytest.approx(size / rate, rel=0.05)
    assert (outcome.last["bottleneck"], outcome.last["retries"]) == ("limit rate", 0)


def test_the_rate_of_one_ordered_stream_is_limited_too(tmp_path: Path) -> None:
    """Where the server knows no ranges."""
    size, rate = 6_000_000, 2_000_000
    pattern = Pattern(size, seed=11)
    with serving(ignores_range(pattern)) as server:
        outcome = run(server.url(), "-o", "out", "--limit-rate", str(rate), cwd=tmp_path)
    assert (tmp_path / "out").read_bytes() == pattern.read(0, size)
    assert outcome.last["seconds"] == pytest.approx(size / rate, rel=0.05)


def test_only_what_is_received_counts_against_the_limit(tmp_path: Path) -> None:
    """Parts of an earlier run are hashed as fast as the disk is: no server is asked for them."""
    size, rate = 32 * MIB, 8 * MIB
    pattern = Pattern(size, seed=12)

    def refusing(exchange: Exchange) -> None:
        asked = exchange.request.range
        (status(403) if asked is None or asked[0] else ranged(pattern))(exchange)

    now: list[Handler] = [refusing]
    settings = {"part_size": MIB, "connections": 1, "workers": 1}
    with serving(first_of(now)) as server:
        with pytest.raises(fastdl.AccessDenied):
            fastdl.download(server.url(), tmp_path / "out", **settings)  # type: ignore[arg-type]
        now[0] = ranged(pattern)
        result = fastdl.download(server.url(), tmp_path / "out", limit_rate=rate, **settings)  # type: ignore[arg-type]
    assert (tmp_path / "out").read_bytes() == pattern.read(0, size)
    assert result.parts_reused == 8  # what the first answer brought
    assert result.seconds == pytest.approx(result.bytes_fetched / rate, rel=0.1, abs=0.2)


def test_waiting_for_ones_turn_is_no_stall(tmp_path: Path) -> None:
    """However many connections share a small allowance, none is given up for it."""
    data = random.Random(13).randbytes(192 * KIB)
    with serving(ranged(data)) as server:
        flags = ("-o", "out", "-p", "1K", "--limit-rate", "64K", "--read-timeout", "1")
        outcome = run(server.url(), *flags, cwd=tmp_path)
    assert outcome.code == 0, outcome.message
    assert (tmp_path / "out").read_bytes() == data
    assert outcome.last["retries"] == 0
    assert outcome.last["seconds"] == pytest.approx(3, rel=0.05)


@pytest.mark.parametrize("rate", ["0", "-1", "1", "1023", "fast", "", "1.5M", "10X"])
def test_a_limit_that_is_none_is_refused(tmp_path: Path, rate: str) -> None:
    """Before anything is asked of anybody: exit code 2, and nothing is left."""
    with serving(ranged(b"x" * 5000)) as server:
        outcome = run(server.url(), "-o", "out", "--limit-rate", rate, cwd=tmp_path)
        assert outcome.code == 2, outcome.message
        assert server.log == ()
    assert names(tmp_path) == set()


@pytest.mark.parametrize("rate", [0, -1, 1023])
def test_the_function_refuses_it_as_well(tmp_path: Path, rate: int) -> None:
    """As every other setting out of bounds."""
    with pytest.raises(fastdl.UsageError, match="limit rate"):
        fastdl.download("http://127.0.0.1:1/x", tmp_path / "out", limit_rate=rate)


def test_more_connections_are_used_where_each_is_capped(tmp_path: Path) -> None:
    """The number leaps while that brings more; result and JSON tell of every level, and what was the limit."""
    store = tmp_path / "store"
    store.mkdir()
    data = random.Random(14).randbytes(48 * MIB)
    (store / "object").write_bytes(data)
    folder = tmp_path / "out"
    folder.mkdir()
    with serving_objects(store, rate=512 * KIB) as server:
        outcome = run(server.url("object"), "-o", "out", "-x", "64", "-p", "128K", cwd=folder, timeout=60)
    assert outcome.code == 0, outcome.message
    assert (folder / "out").read_bytes() == data
    levels = outcome.last["levels"]
    assert {tuple(sorted(level)) for level in levels} == {("bytes_per_second", "connections", "seconds")}
    assert (levels[0]["seconds"], levels[0]["connections"]) == (0.0, START)
    numbers = [level["connections"] for level in levels]
    assert [number for number in numbers if number > START][:2] == [4 * START, 64]
    assert START < outcome.last["connections"] <= 64
    assert outcome.last["bottleneck"] in ("connections", "processors", "line", "disk")


def test_the_ceiling_is_never_passed(tmp_path: Path) -> None:
    """However much more connections would bring."""
    store = tmp_path / "store"
    store.mkdir()
    (store / "object").write_bytes(PATTERN.read(0, 4 * MIB))
    seen = 0
    with serving_objects(store, rate=512 * KIB) as server:

        def look(_: fastdl.ProgressEvent) -> None:
            nonlocal seen
            with server.lock:
                seen = max(seen, len(server._open))

        result = fastdl.download(
            server.url("object"), tmp_path / "out", connections=3, workers=1, part_size=64 * KIB, progress=look
        )
    assert (tmp_path / "out").read_bytes() == PATTERN.read(0, 4 * MIB)
    assert [level.connections for level in result.levels] == [3]
    assert 1 <= result.connections <= 3
