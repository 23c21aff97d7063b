"""What later answers must not cost: state after a refusal (N5 to N31), everybody's patience (N19), old words (N34)."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

import fastdl
from tests.e2e.command import left_to_workers, names
from tests.fault.test_network import CONNECTIONS, DATA, FATAL, PART, fetch, keep_total, stopped_at
from tests.servers import scripted
from tests.servers.scripted import Exchange, Handler, Pattern, first_of, ranged, script, serving

if TYPE_CHECKING:
    from pathlib import Path

ONE_OF_EACH_ROW = (
    *("N5 body longer than the range, admitted", "N6 no Content-Range", "N8 200 with the same validator"),
    *("N8 200 with another validator", "N9 larger total", "N10 other ETag", "N17 gzip", "N18 multipart/byteranges"),
    *("N21 403", "N23 404", "N23 410", "N24 416 of a shorter object", "N24 416 of the same size", "N25 204", "N25 412"),
    *("N26 redirect to a file", "N29 a line without end", "N30 no HTTP at all", "N31 two lengths"),
)


@pytest.mark.parametrize(("fault", "code"), [pytest.param(*FATAL[name], id=name) for name in ONE_OF_EACH_ROW])
def test_what_was_fetched_before_a_refusal_is_used_by_the_next_run(tmp_path: Path, fault: Handler, code: int) -> None:
    """Ten parts are there when the server does what it must not: its exit code, and the next run fetches the rest."""
    now = [stopped_at(10 * PART, ranged(DATA), fault)]
    with serving(first_of(now)) as server:
        with pytest.raises(fastdl.FastdlError) as caught:
            fetch(server, tmp_path, connections=1)
        assert caught.value.exit_code == code
        assert names(tmp_path) == {"out.part", "out.cp"}
        now[0] = ranged(DATA)
        result = fetch(server, tmp_path)
    assert result.parts_reused == 10
    assert result.bytes_fetched == len(DATA) - 10 * PART


def test_n13_without_validators_one_run_is_one_object(tmp_path: Path) -> None:
    """Several connections may share it as long as the total stays; another total is another object."""
    bare = ranged(DATA, etag=None, last_modified=None)
    with serving(script(left_to_workers(PART, CONNECTIONS), otherwise=bare)) as server:
        fetch(server, tmp_path)
    (tmp_path / "out").unlink()
    changed = keep_total(lambda size: size + 1)
    with serving(script(left_to_workers(PART, CONNECTIONS, {2: changed}), otherwise=bare)) as server:
        with pytest.raises(fastdl.ObjectChanged, match="bytes"):
            fetch(server, tmp_path)
        fetch(server, tmp_path)


@pytest.mark.parametrize("code", [429, 503])
def test_n19_who_asks_to_be_left_alone_is_by_everybody(tmp_path: Path, code: int) -> None:
    """After one connection's refusal with ``Retry-After: 1`` no other one asks within that second either."""
    times: dict[int, float] = {}
    refused = threading.Event()

    def refuse(exchange: Exchange) -> None:
        exchange.reply(code, {"Retry-After": "1"})
        times[0] = time.monotonic()
        refused.set()

    def after(exchange: Exchange) -> None:
        exchange.hold(refused)
        ranged(DATA)(exchange)

    faults = left_to_workers(PART, CONNECTIONS, {2: refuse, 3: after})
    answered = script(faults, otherwise=ranged(DATA))

    def handle(exchange: Exchange) -> None:
        times[exchange.request.number] = time.monotonic()
        answered(exchange)

    with serving(handle) as server:
        fetch(server, tmp_path, read_timeout=10)
    later = [at - times[0] for number, at in times.items() if number > CONNECTIONS]
    assert later
    assert min(later) > 0.9


@pytest.mark.parametrize("end", ["FIN", "RST"])
def test_n28_a_connection_that_ends_while_idle_costs_nothing(tmp_path: Path, end: str) -> None:
    """Whichever way a kept connection ends between two answers, the next request goes over another, unnoticed."""

    def ending(exchange: Exchange) -> None:
        exchange.otherwise = ranged(DATA)
        scripted.short_206(PART)(exchange)
        if end == "RST":
            exchange.reset()
        exchange.close()

    with serving(ending) as server:
        result = fetch(server, tmp_path, retry=0, read_timeout=10, connections=1)
        assert server.connections > 10
    assert result.retries == 0


def test_n34_what_a_given_up_connection_says_late_is_not_written(tmp_path: Path) -> None:
    """One stands still and is replaced; the wrong bytes that it has to say afterwards for this place land nowhere."""
    gate, place = threading.Event(), [-1]

    def late(exchange: Exchange) -> None:
        def garbage() -> None:
            exchange.hold(gate)
            exchange.body(bytes(PART))

        place[0] = (exchange.request.range or (0, None))[0]
        exchange.break_body(5000, garbage)
        ranged(DATA)(exchange)

    answer = script(left_to_workers(PART, CONNECTIONS, {2: late}), otherwise=ranged(DATA))

    def handle(exchange: Exchange) -> None:
        start = (exchange.request.range or (0, None))[0]
        if exchange.request.number > CONNECTIONS and place[0] <= start <= place[0] + 5000:
            gate.set()  # somebody else has this place now, or the bytes behind it
        answer(exchange)

    with serving(handle) as server:
        fetch(server, tmp_path)
        assert gate.is_set()


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 41 * PART + 1])
def test_n39_every_range_that_is_asked_for_is_one(tmp_path: Path, size: int) -> None:
    """First not behind last, last not behind the end: checked by whoever receives them."""
    right = ranged(Pattern(size))
    with serving(script(left_to_workers(PART, 3) if size > 40 * PART else {}, otherwise=right)) as server:
        fastdl.download(server.url(), tmp_path / "out", part_size=PART, connections=3, workers=1)
        for seen in server.log:
            assert seen.range is not None, seen.raw
            first, stop = seen.range
            assert stop is not None
            assert 0 <= first < stop
            assert stop <= size or (seen.number == 1 and first == 0)  # the first request does not know the size
