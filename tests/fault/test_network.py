"""Rows N1 to N40 of the fault catalogue: whatever line and server do, the name appears only with exact bytes."""

from __future__ import annotations

import random
import socket
import threading
import time
from dataclasses import replace
from email.utils import formatdate
from typing import TYPE_CHECKING

import pytest
from fastcrc import crc64

import fastdl
from fastdl.retry import Backoff
from tests.e2e.command import Outcome, left_to_workers, names, run
from tests.e2e.partial import marked
from tests.servers import scripted
from tests.servers.scripted import (
    Answer,
    Exchange,
    Handler,
    Server,
    first_of,
    from_request,
    ranged,
    routes,
    script,
    serving,
    status,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fastdl import DownloadResult

PART = 16 * 1024
DATA = random.Random(1).randbytes(40 * PART + 123)
# A worker sends requests 2 and 3 while the caller's own connection is held: as many as there are connections.
CONNECTIONS = 3
COMMAND = ("-o", "out", "-p", str(PART), "-x", str(CONNECTIONS), "-w", "1", "--retry", "3")


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let retries in this process wait for milliseconds: how long they wait is the unit tests' matter."""
    monkeypatch.setattr("fastdl.api.make_backoff", lambda retry: Backoff(attempts=retry + 1, base=0.01))


def by_a_worker(fault: Handler, right: Handler | None = None) -> Handler:
    """Spoil one answer that is surely a worker's."""
    return script(left_to_workers(PART, CONNECTIONS, {2: fault}), otherwise=right or ranged(DATA))


def get(server: Server, folder: Path, *arguments: str) -> Outcome:
    """Run the command; check that what it leaves agrees with how it ended."""
    outcome = run(server.url(), *COMMAND, *arguments, cwd=folder)
    if outcome.code == 0:
        assert (folder / "out").read_bytes() == DATA
        assert names(folder) == {"out"}
    else:
        assert not (folder / "out").exists()
        assert names(folder) in ({"out.part", "out.cp"}, set())
    return outcome


def fetch(server: Server, folder: Path, **settings: object) -> DownloadResult:
    """Download in this process, with small timeouts; check that only the exact bytes are left."""
    defaults = {"part_size": PART, "connections": CONNECTIONS, "workers": 1, "retry": 3, "read_timeout": 0.5}
    result = fastdl.download(server.url(), folder / "out", **(defaults | settings))  # type: ignore[arg-type]
    assert (folder / "out").read_bytes() == DATA
    assert names(folder) == {"out"}
    return result


def stopped_at(stop: int, right: Handler, then: Handler | None = None) -> Handler:
    """Give the first ``stop`` bytes and answer all that begins behind them by ``then``, or by 403."""

    def handle(exchange: Exchange) -> None:
        exchange.otherwise = right
        start = (exchange.request.range or (0, None))[0]
        (scripted.short_206(stop) if start == 0 else then or status(403))(exchange)

    return handle


def chunked_range(
    *, cut: int | None = None, size_line: bytes | None = None, end: bytes = b"0\r\n\r\n", coding: str = "chunked"
) -> Handler:
    """Answer rightly but in chunked coding: cut off, with another first size or end, or under another name."""

    def spoil(answer: Answer) -> Answer:
        body = answer.content()
        coded = (size_line or b"%x" % len(body)) + b"\r\n" + body + b"\r\n" + end
        return replace(
            answer.without("content-length").plus(("Transfer-Encoding", coding), ("Connection", "close")),
            body=[coded[:cut], b""],
        )

    def handle(exchange: Exchange) -> None:
        scripted.spoiling(spoil)(exchange)
        exchange.close()

    return handle


def dripping_head(exchange: Exchange) -> None:
    """Send a head that never ends, a byte at a time."""
    exchange.send(b"HTTP/1.1 206 Partial Content\r\nX-Slow: ")
    exchange.drip(b"x" * 60_000, threading.Event(), pause=0.05)


def endless_continue(exchange: Exchange) -> None:
    """Send interim answers for as long as anybody listens."""
    while True:
        exchange.head(100)
        exchange.flush()


def keep_total(change: Callable[[int], int]) -> Handler:
    """Change the total of a Content-Range and leave the range as it is."""

    def spoil(answer: Answer) -> Answer:
        value = dict(answer.fields)["Content-Range"]
        span, _, total = value.partition("/")
        return answer.without("content-range").plus(("Content-Range", f"{span}/{change(int(total))}"))

    return scripted.spoiling(spoil)


def promising(size: int) -> Handler:
    """Answer the first mebibyte of an object of ``size`` bytes."""

    def handle(exchange: Exchange) -> None:
        exchange.reply(206, {"Content-Range": f"bytes 0-1048575/{size}", "ETag": '"v1"'}, bytes(1 << 20))

    return handle


STALE = b"HTTP/1.1 206 Partial Content\r\nContent-Length: 4\r\nContent-Range: bytes 0-3/655483\r\n\r\nxxxx"

TRANSIENT: dict[str, Handler] = {
    "N1 reset in the first window": scripted.reset_after(1_000),
    "N1 reset after progress": scripted.reset_after(70_000),
    "N1 reset before the head": scripted.reset,
    "N2 stall mid-body": scripted.stall_after(10_000),
    "N2 stall before the head": scripted.stall_before_head(),
    "N2 drip": scripted.drip(threading.Event(), pause=0.1),
    "N3 early end in the first window": scripted.truncate_after(1_000),
    "N3 early end after progress": scripted.truncate_after(70_000),
    "N3 end before the head": scripted.hang_up,
    "N4 chunked": chunked_range(),
    "N4 chunked without its last chunk": chunked_range(end=b""),
    "N4 chunked, cut off": chunked_range(cut=5_000),
    "N4 chunked, bad size": chunked_range(size_line=b"zz"),
    "N4 chunked, garbage behind": chunked_range(end=b"0\r\n\r\ngarbage"),
    "N5 body longer than promised": scripted.longer_body(b"surplus" * 100),
    "N7 shorter range": scripted.short_206(5_000),
    "N7 range of one byte": scripted.short_206(1),
    "N19 429 with seconds": status(429, {"Retry-After": "1"}),
    "N19 503 with zero": status(503, {"Retry-After": "0"}),
    "N19 503 with a past date": status(503, {"Retry-After": "Wed, 01 Jan 2020 00:00:00 GMT"}),
    "N19 503 with junk": status(503, {"Retry-After": "-5, soon"}),
    "N20 500": status(500),
    "N20 502": status(502, body=b"<html>bad gateway</html>"),
    "N20 504": status(504),
    "N20 408": status(408, {"Connection": "close"}),
    "N27 interim 100": scripted.informational(8, 100),
    "N27 interim 103": scripted.informational(2, 103),
    "N28 kept-alive connection closed": scripted.closes_afterwards,
    "N32 stale answer behind the body": scripted.longer_body(STALE),
}

FATAL: dict[str, tuple[Handler, int]] = {
    "N5 body longer than the range, admitted": (scripted.admitted_longer_body(), 6),
    "N6 no Content-Range": (scripted.wrong_content_range(), 6),
    "N6 other range": (scripted.shifted_206(PART, PART), 6),
    "N6 longer range": (scripted.shifted_206(stop=PART), 6),
    "N6 duplicate": (scripted.wrong_content_range("bytes 0-1/655483", "bytes 0-1/655483"), 6),
    "N6 other unit": (scripted.wrong_content_range("lines 0-1/655483"), 6),
    "N6 first behind last": (scripted.wrong_content_range("bytes 9-1/655483"), 6),
    "N6 last behind the end": (scripted.wrong_content_range("bytes 0-655483/655483"), 6),
    "N6 junk": (scripted.wrong_content_range("bytes 0x0-1/655483"), 6),
    "N8 200 with the same validator": (scripted.ignores_range(DATA, extra_headers={"Last-Modified": "x"}), 6),
    "N8 200 with another validator": (scripted.ignores_range(DATA, etag='"v2"'), 7),
    "N9 larger total": (keep_total(lambda size: size + 1), 7),
    "N10 other ETag": (scripted.other_fields({"ETag": '"v2"'}), 7),
    "N10 no ETag any more": (scripted.other_fields({"ETag": None}), 7),
    "N17 gzip": (scripted.gzip_coded(), 6),
    "N18 multipart/byteranges": (scripted.multipart_byteranges(), 6),
    "N21 401": (status(401), 4),
    "N21 403": (status(403), 4),
    "N23 404": (status(404), 3),
    "N23 410": (status(410), 3),
    "N24 416 of a shorter object": (status(416, {"Content-Range": "bytes */5"}), 7),
    "N24 416 of the same size": (status(416, {"Content-Range": f"bytes */{len(DATA)}"}), 6),
    "N25 204": (status(204), 6),
    "N25 205": (status(205), 6),
    "N25 299": (status(299, body=DATA[:100]), 6),
    "N25 304": (status(304), 6),
    "N25 412": (status(412), 7),
    "N26 redirect to nowhere": (scripted.redirect(""), 6),
    "N26 redirect to a file": (scripted.redirect("file:///etc/passwd"), 6),
    "N29 more fields than anybody needs": (
        scripted.raw(b"HTTP/1.1 206 Partial Content\r\n", *(b"X-%d: x\r\n" % n for n in range(200)), b"\r\n"),
        6,
    ),
    "N29 a line without end": (scripted.raw(b"HTTP/1.1 206 Partial Content\r\nX: " + b"x" * 100_000 + b"\r\n\r\n"), 6),
    "N30 no HTTP at all": (scripted.raw(b"SSH-2.0-OpenSSH_9.2\r\n"), 6),
    "N30 HTTP/0.9": (scripted.raw(DATA[:1000]), 6),
    "N30 status 99": (scripted.raw(b"HTTP/1.1 99 Odd\r\nContent-Length: 0\r\n\r\n"), 6),
    "N30 status 1000": (scripted.raw(b"HTTP/1.1 1000 Odd\r\nContent-Length: 0\r\n\r\n"), 6),
    "N30 status of letters": (scripted.raw(b"HTTP/1.1 abc Odd\r\nContent-Length: 0\r\n\r\n"), 6),
    "N31 negative length": (scripted.other_fields({"Content-Length": "-1"}), 6),
    "N31 signed length": (scripted.other_fields({"Content-Length": "+5"}), 6),
    "N31 hexadecimal length": (scripted.other_fields({"Content-Length": "0x10"}), 6),
    "N31 length of 2^64": (scripted.other_fields({"Content-Length": str(2**64)}), 6),
    "N31 shorter length": (scripted.other_fields({"Content-Length": "5"}), 6),
    "N31 two lengths": (scripted.spoiling(lambda answer: answer.plus(("Content-Length", "5"))), 6),
}


@pytest.mark.parametrize("fault", [pytest.param(TRANSIENT[name], id=name) for name in TRANSIENT])
def test_a_passing_fault_costs_time_and_not_a_byte(tmp_path: Path, fault: Handler) -> None:
    """One worker's answer is spoilt in a way that time heals: the same run ends with the exact bytes."""
    with serving(by_a_worker(fault)) as server:
        result = fetch(server, tmp_path)
        assert len(server.log) > CONNECTIONS
    assert result.integrity == "length"


@pytest.mark.parametrize(("fault", "code"), [pytest.param(*FATAL[name], id=name) for name in FATAL])
def test_a_broken_promise_ends_the_run_and_not_the_download(tmp_path: Path, fault: Handler, code: int) -> None:
    """One worker's answer must not be used: no file, the documented exit code, and the next run completes."""
    with serving(by_a_worker(fault)) as server:
        with pytest.raises(fastdl.FastdlError) as caught:
            fetch(server, tmp_path)
        assert caught.value.exit_code == code, caught.value
        assert names(tmp_path) in ({"out.part", "out.cp"}, set())
        fetch(server, tmp_path)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        pytest.param(scripted.wrong_content_range(), fastdl.ProtocolError, id="N6 no Content-Range"),
        pytest.param(scripted.shifted_206(5, 5), fastdl.ProtocolError, id="N6 other range"),
        pytest.param(scripted.admitted_longer_body(), fastdl.ProtocolError, id="N5 admitted longer body"),
        pytest.param(scripted.gzip_coded(), fastdl.ProtocolError, id="N17 gzip"),
        pytest.param(scripted.multipart_byteranges(), fastdl.ProtocolError, id="N18 multipart"),
        pytest.param(status(204), fastdl.ProtocolError, id="N25 204"),
        pytest.param(status(404), fastdl.NotFound, id="N23 404"),
        pytest.param(status(403), fastdl.AccessDenied, id="N21 403"),
        pytest.param(scripted.raw(b"nonsense\r\n\r\n"), fastdl.ProtocolError, id="N30 nonsense"),
        pytest.param(scripted.other_fields({"Content-Length": "5, 6"}), fastdl.ProtocolError, id="N31 two lengths"),
    ],
)
def test_a_first_answer_that_must_not_be_used_leaves_nothing(
    tmp_path: Path, fault: Handler, error: type[fastdl.FastdlError]
) -> None:
    """Before anything is known there is nothing to resume: a typed error after one request, and an empty folder."""
    with serving(script({1: fault}, otherwise=ranged(DATA))) as server:
        with pytest.raises(error):
            fetch(server, tmp_path)
        assert names(tmp_path) == set()
        assert len(server.log) == 1
        fetch(server, tmp_path)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(scripted.reset, id="N1 reset"),
        pytest.param(scripted.reset_after(100), id="N1 reset mid-body"),
        pytest.param(scripted.hang_up, id="N3 end before the head"),
        pytest.param(scripted.truncate_after(PART + 7), id="N3 early end"),
        pytest.param(scripted.stall_before_head(), id="N2 stall before the head"),
        pytest.param(scripted.short_206(1), id="N7 range of one byte"),
        pytest.param(status(503, {"Retry-After": "0"}), id="N19 503"),
        pytest.param(scripted.ignores_range(DATA), id="N8 200: one ordered stream"),
        pytest.param(status(416), id="N24 416 to the first byte"),
        pytest.param(scripted.other_fields({"Accept-Ranges": "none"}), id="N16 Accept-Ranges: none"),
        pytest.param(scripted.other_fields({"Accept-Ranges": None}), id="N16 no Accept-Ranges"),
        pytest.param(scripted.wrong_content_range("bytes 0-655482/*"), id="N6 total unknown"),
        pytest.param(scripted.other_fields({"Content-Length": f"{len(DATA)}, {len(DATA)}"}), id="N31 equal lengths"),
    ],
)
def test_a_first_answer_that_can_be_used_or_repeated_is(tmp_path: Path, fault: Handler) -> None:
    """The probe survives what any later request survives, and takes a legal answer of any shape."""
    with serving(script({1: fault}, otherwise=ranged(DATA))) as server:
        fetch(server, tmp_path)
        assert {seen.method for seen in server.log} == {"GET"}, "N33: HEAD is never needed"


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(scripted.reset_after(100), id="N1"),
        pytest.param(scripted.stall_after(100), id="N2"),
        pytest.param(scripted.drip(threading.Event(), pause=0.1), id="N2 drip"),
        pytest.param(scripted.truncate_after(100), id="N3"),
        pytest.param(chunked_range(cut=100), id="N4"),
        pytest.param(status(503), id="N20"),
        pytest.param(status(429, {"Retry-After": "0"}), id="N19"),
    ],
)
def test_a_fault_that_stays_is_given_up_and_resumable(tmp_path: Path, fault: Handler) -> None:
    """What never works is an error of the network within bounded time; what was fetched before is used again."""
    now = [stopped_at(10 * PART, ranged(DATA), fault)]
    with serving(first_of(now)) as server:
        with pytest.raises(fastdl.NetworkError):
            fetch(server, tmp_path, retry=1, read_timeout=0.4, connections=1)
        assert names(tmp_path) == {"out.part", "out.cp"}
        now[0] = ranged(DATA)
        result = fetch(server, tmp_path)
    assert result.parts_reused == 10
    assert result.bytes_fetched == len(DATA) - 10 * PART


def test_n2_a_slow_line_that_moves_is_no_stall(tmp_path: Path) -> None:
    """Every window arrives within the timeout, the whole takes longer than it: nothing is repeated."""
    slow = scripted.drip(threading.Event(), pause=0.01, step=2048)  # 640 KiB over three connections: 1 s and more

    def handle(exchange: Exchange) -> None:
        exchange.otherwise = ranged(DATA)
        slow(exchange)

    with serving(handle) as server:
        result = fetch(server, tmp_path, read_timeout=0.5)
        assert result.seconds > 0.5
        assert result.retries == 0


@pytest.mark.parametrize("ranges", [True, False])
def test_n2_bytes_that_come_one_kilobyte_at_a_time_are_progress(tmp_path: Path, *, ranges: bool) -> None:
    """20 KB/s on every connection: what comes in half a second is less than a window of a fast line."""
    data = DATA[: 50 * 1024]
    slow = scripted.drip(threading.Event(), pause=0.05, step=1024)
    right = ranged(data) if ranges else scripted.ignores_range(data)

    def handle(exchange: Exchange) -> None:
        exchange.otherwise = right
        slow(exchange)

    with serving(handle) as server:
        result = fastdl.download(server.url(), tmp_path / "out", part_size=2**14, connections=3, read_timeout=0.7)
    assert (tmp_path / "out").read_bytes() == data
    assert result.retries == 0


@pytest.mark.parametrize("limit", [("--read-timeout", "0.5", "--retry", "0"), ("--max-time", "1")])
def test_n2_a_first_head_that_never_ends_is_a_stall(tmp_path: Path, limit: tuple[str, str]) -> None:
    """Bytes that drip into the head of the very first answer do not keep the command alive beyond its limits."""
    with serving(dripping_head) as server:
        outcome = run(server.url(), "-o", "out", *limit, cwd=tmp_path, timeout=6)
    assert outcome.code == 5, outcome.message
    assert names(tmp_path) == set()


def test_n2_a_later_head_that_never_ends_is_a_stall(tmp_path: Path) -> None:
    """Bytes that drip into the head of a worker's answer cost this answer only."""
    with serving(by_a_worker(dripping_head)) as server:
        assert fetch(server, tmp_path).seconds < 10


def test_n2_heads_that_never_end_are_an_error_of_the_network(tmp_path: Path) -> None:
    """When every later head drips, the end is exit code 5 and says so, not a riddle about dying workers."""
    handler = from_request(2, then=dripping_head, before=script(left_to_workers(PART, 2), otherwise=ranged(DATA)))
    with serving(handler) as server:
        outcome = get(server, tmp_path, "--read-timeout", "0.5", "--retry", "1")
    assert outcome.code == 5, outcome.message
    assert "died" not in outcome.message


def test_n8_a_server_that_loses_its_ranges_between_two_runs(tmp_path: Path) -> None:
    """Parts of a run with ranges cannot be continued by a whole body: the second run starts over and says why."""
    now = [stopped_at(10 * PART, ranged(DATA))]
    with serving(first_of(now)) as server:
        with pytest.raises(fastdl.AccessDenied):
            fetch(server, tmp_path)
        assert names(tmp_path) == {"out.part", "out.cp"}
        now[0] = scripted.ignores_range(DATA, extra_headers={"Last-Modified": scripted.LAST_MODIFIED})
        result = fetch(server, tmp_path)
    assert (result.parts_reused, "ranges" in result.started_over) == (0, True)


@pytest.mark.parametrize(
    ("before", "after", "reused"),
    [
        pytest.param({}, {}, True, id="N10 strong ETag"),
        pytest.param({}, {"etag": '"v2"'}, False, id="N10 other ETag"),
        pytest.param({"etag": 'W/"1"'}, {"etag": 'W/"1"'}, True, id="N11 weak ETag and date"),
        pytest.param({"etag": 'W/"1"'}, {"etag": 'W/"2"'}, False, id="N11 other weak ETag"),
        pytest.param(
            {"etag": 'W/"1"', "last_modified": None},
            {"etag": 'W/"1"', "last_modified": None},
            False,
            id="N11 weak ETag alone",
        ),
        pytest.param({"etag": None}, {"etag": None}, True, id="N12 date alone"),
        pytest.param(
            {"etag": None}, {"etag": None, "last_modified": formatdate(1e9, usegmt=True)}, False, id="N12 other date"
        ),
        pytest.param(
            {"etag": None, "last_modified": None}, {"etag": None, "last_modified": None}, False, id="N13 nothing"
        ),
        pytest.param({"etag": "bare"}, {"etag": "bare"}, True, id="N14 unquoted"),
        pytest.param({"etag": "\xe4" * 40}, {"etag": "\xe4" * 40}, True, id="N14 not ASCII"),
        pytest.param({"etag": '"' + "x" * 5000 + '"'}, {"etag": '"' + "x" * 5000 + '"'}, True, id="N14 long"),
    ],
)
def test_parts_are_joined_across_runs_only_on_proof(
    tmp_path: Path, before: dict[str, str | None], after: dict[str, str | None], reused: bool
) -> None:
    """A second run uses the parts of the first one if the validators prove one object, else it says why it does not."""
    old = DATA[::-1] if not reused else DATA

    now = [stopped_at(20 * PART, ranged(old, **before))]  # type: ignore[arg-type]
    with serving(first_of(now)) as server:
        with pytest.raises(fastdl.AccessDenied):
            fetch(server, tmp_path)
        assert names(tmp_path) == {"out.part", "out.cp"}
        _, kept = marked(tmp_path / "out.cp")
        assert kept
        now[0] = ranged(DATA, **after)  # type: ignore[arg-type]
        result = fetch(server, tmp_path)
        assert result.parts_reused == (len(kept) if reused else 0)
        assert bool(result.started_over) == (not reused)


def test_n12_another_date_within_a_run_is_another_object(tmp_path: Path) -> None:
    """Without an ETag the date speaks, with one it does not: machines behind one name disagree about dates."""
    other = scripted.other_fields({"Last-Modified": formatdate(1e9, usegmt=True)})
    dated = script({1: scripted.short_206(PART), 2: other}, otherwise=ranged(DATA, etag=None))
    with serving(dated) as server, pytest.raises(fastdl.ObjectChanged, match="Last-Modified"):
        fetch(server, tmp_path)
    with serving(script({1: scripted.short_206(PART), 2: other}, otherwise=ranged(DATA))) as server:
        fetch(server, tmp_path)


@pytest.mark.parametrize("value", ["86400", formatdate(4e9, usegmt=True), "9" * 40])
def test_n19_a_server_that_wants_a_day_does_not_outlast_max_time(tmp_path: Path, value: str) -> None:
    """The wish is obeyed only within the user's own limit."""
    with serving(status(503, {"Retry-After": value})) as server:
        began = time.monotonic()
        with pytest.raises(fastdl.NetworkError):
            fetch(server, tmp_path, max_time=0.5)
        assert time.monotonic() - began < 5
        assert len(server.log) == 1


@pytest.mark.parametrize("wish", [{}, {"Retry-After": "0"}], ids=["no wish", "Retry-After: 0"])
def test_n20_one_refusal_of_all_connections_is_one(tmp_path: Path, wish: dict[str, str]) -> None:
    """Seven busy answers to requests that were under way together are one failure in a row, of three allowed ones."""
    gate = threading.Event()

    def busy(exchange: Exchange) -> None:
        if exchange.request.number == 8:
            gate.set()
        exchange.hold(gate)
        exchange.reply(503, wish)

    faults: dict[int, Handler] = dict.fromkeys(range(2, 9), busy)
    with serving(script(left_to_workers(PART, 8, faults), otherwise=ranged(DATA))) as server:
        outcome = get(server, tmp_path, "-x", "8", "--retry", "3")
    assert outcome.code == 0, outcome.message
    assert outcome.last["retries"] >= 7


@pytest.mark.parametrize("code", [403, 410])
def test_n21_n26_a_redirect_whose_target_expired_is_asked_for_again(tmp_path: Path, code: int) -> None:
    """A 403 or 410 from where a redirect led sends the next request back to the user's own URL, once."""
    dead = threading.Event()

    def origin(exchange: Exchange) -> None:
        exchange.reply(302, {"Location": "/second" if dead.is_set() else "/first"})

    def first(exchange: Exchange) -> None:
        if dead.is_set():
            exchange.reply(code)
            return
        dead.set()
        exchange.otherwise = ranged(DATA)
        scripted.short_206(PART)(exchange)

    with serving(routes({"/object": origin, "/first": first, "/second": ranged(DATA)})) as server:
        result = fetch(server, tmp_path)
        assert result.retries >= 1
        assert {seen.target for seen in server.log} == {"/object", "/first", "/second"}


def test_n21_a_redirect_that_leads_to_refusals_for_good_is_denied(tmp_path: Path) -> None:
    """Going back to the user's own URL is done once, not for ever."""
    served = threading.Event()

    def target(exchange: Exchange) -> None:
        if served.is_set():
            exchange.reply(403)
            return
        served.set()
        exchange.otherwise = ranged(DATA)
        scripted.short_206(PART)(exchange)

    with serving(routes({"/object": scripted.redirect("/target"), "/target": target})) as server:
        with pytest.raises(fastdl.AccessDenied):
            fetch(server, tmp_path)
        assert len(server.log) < 20
    assert names(tmp_path) == {"out.part", "out.cp"}


@pytest.mark.parametrize(
    "location",
    ["", "file:///etc/passwd", "ftp://127.0.0.1/x", "http://", "http://[", "http://127.0.0.1:99999/", "http://a b/"],
)
def test_n26_a_redirect_to_no_web_address_is_refused(tmp_path: Path, location: str) -> None:
    """A Location that is empty, of another scheme or unreadable is the server's fault, and told as that."""
    with serving(scripted.redirect(location)) as server, pytest.raises(fastdl.ProtocolError):
        fetch(server, tmp_path)
    assert names(tmp_path) == set()


def test_n26_a_redirect_loop_ends(tmp_path: Path) -> None:
    """Eleven redirects are one too many."""
    with serving(scripted.redirect("/object")) as server:
        with pytest.raises(fastdl.ProtocolError, match="more than 10 redirects"):
            fetch(server, tmp_path)
        assert len(server.log) == 11


def test_n27_interim_answers_without_end_are_an_error(tmp_path: Path) -> None:
    """A flood of 100 Continue does not hold the command."""
    with serving(endless_continue) as server:
        outcome = run(server.url(), "-o", "out", "--retry", "0", "--read-timeout", "0.5", cwd=tmp_path, timeout=6)
    assert outcome.code in (5, 6), outcome.message


def test_n28_every_connection_that_is_closed_while_idle_is_replaced(tmp_path: Path) -> None:
    """A server that closes after each answer without a word costs connections and no failed attempt."""

    def closing(exchange: Exchange) -> None:
        ranged(DATA)(exchange)
        exchange.close()

    handler = script({1: scripted.short_206(PART)}, otherwise=closing)
    with serving(handler) as server:
        result = fetch(server, tmp_path, retry=0, read_timeout=10)
        assert result.retries == 0


@pytest.mark.parametrize("right", [ranged(DATA), scripted.ignores_range(DATA)], ids=["range", "whole"])
@pytest.mark.parametrize("coding", ["gzip, chunked", "chunked, chunked", "xyz", "chunked,", "chunked ", "CHUNKED"])
def test_n4_a_transfer_coding_is_understood_or_refused(tmp_path: Path, coding: str, right: Handler) -> None:
    """Chunk sizes and coded bytes must never be taken for the object's own. Source: RFC 9112, 6.1 and 6.3."""
    with serving(script(dict.fromkeys(range(1, 20), chunked_range(coding=coding)), otherwise=right)) as server:
        if coding.strip(" ,").lower() == "chunked":
            try:
                fetch(server, tmp_path)
            except fastdl.ProtocolError:
                assert "," in coding
        else:
            with pytest.raises(fastdl.ProtocolError):
                fetch(server, tmp_path)
            assert names(tmp_path) == set()


def test_n35_a_name_with_a_dead_address_works(tmp_path: Path) -> None:
    """Nobody listens on localhost's IPv6 address: the other one is tried."""
    with serving(ranged(DATA)) as server:
        fastdl.download(f"http://localhost:{server.port}/object", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == DATA


def test_n35_no_such_name_and_nobody_there(tmp_path: Path) -> None:
    """Neither is retried for minutes, and the text tells them apart."""
    unheard = run("http://no-such-name.invalid/object", "-o", "out", "--retry", "0", cwd=tmp_path)
    assert (unheard.code, "cannot be resolved" in unheard.message) == (5, True)
    with socket.socket() as nobody:  # bound, not listening: refused
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/object"
        refused = run(url, "-o", "out", "--retry", "0", cwd=tmp_path)
    assert (refused.code, "refused" in refused.message) == (5, True)
    assert names(tmp_path) == set()


def test_n36_two_machines_with_two_versions_never_mix(tmp_path: Path) -> None:
    """Each answer is compared with the first one's validator, whichever machine gave it."""
    other = ranged(DATA[::-1], etag='"other"')

    def either(exchange: Exchange) -> None:
        (ranged(DATA) if exchange.request.number % 2 else other)(exchange)

    handler = script({1: scripted.short_206(PART)}, otherwise=either)
    with serving(handler) as server, pytest.raises(fastdl.ObjectChanged):
        fetch(server, tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("port_name", ["any", "with 407 in it"])
def test_n37_a_dead_proxy_is_an_error_of_the_network(tmp_path: Path, port_name: str) -> None:
    """Nobody listens where the proxy should be: exit code 5, whatever digits its port is made of."""
    with socket.socket() as nobody:
        nobody.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for port in [0] if port_name == "any" else range(40700, 40800):
            try:
                nobody.bind(("127.0.0.1", port))
            except OSError:
                continue
            break
        proxy = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        for url in ("http://name.invalid/object", "https://name.invalid/object"):
            outcome = run(url, "-o", "out", "--retry", "0", "--proxy", proxy, cwd=tmp_path)
            assert outcome.code == 5, outcome.message
            assert "proxy" in outcome.message


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(("code", "expected"), [(407, 4), (502, 5), (503, 5)])
def test_n37_a_proxy_that_refuses(tmp_path: Path, scheme: str, code: int, expected: int) -> None:
    """A proxy that wants other credentials is told apart from one that fails, with and without a tunnel."""
    with serving(status(code)) as server:
        url = f"{scheme}://name.invalid/object"
        outcome = run(url, "-o", "out", "--retry", "0", "--proxy", server.url(""), cwd=tmp_path)
        assert server.log[0].method == ("GET" if scheme == "http" else "CONNECT")
    assert outcome.code == expected, outcome.message
    assert code != 407 or "proxy" in outcome.message
    assert names(tmp_path) == set()


def test_n40_wrong_bytes_under_right_headers_are_caught_by_the_stores_digest(tmp_path: Path) -> None:
    """One answer with a flipped byte: its part is found by asking again, and replaced."""
    right = ranged(DATA, extra_headers={"x-oss-hash-crc64ecma": str(crc64.xz(DATA))})
    with serving(by_a_worker(scripted.flipped(5), right)) as server:
        outcome = get(server, tmp_path)
    assert (outcome.code, outcome.last["integrity"]) == (0, "crc64")
    assert len(outcome.last["parts_repaired"]) == 1
    assert names(tmp_path) == {"out"}


def test_n40_what_always_comes_wrong_is_not_published(tmp_path: Path) -> None:
    """Nothing that would fail again in the same way is kept."""
    right = ranged(DATA, extra_headers={"x-oss-hash-crc64ecma": str(crc64.xz(DATA) ^ 1)})
    with serving(right) as server:
        outcome = get(server, tmp_path)
    assert outcome.code == 8, outcome.message
    assert names(tmp_path) == set()


@pytest.mark.parametrize("text", ["\x1b[31m", "\x07\x08", "\x9b31m"])
def test_foreign_text_cannot_drive_the_terminal(tmp_path: Path, text: str) -> None:
    """Whatever a server writes into its fields, no control character of it is printed."""
    old, new = ranged(DATA, etag=f'"old{text}"'), ranged(DATA, etag=f'"new{text}"')
    now = [stopped_at(10 * PART, old, then=new)]
    with serving(first_of(now)) as server:
        outcomes = [get(server, tmp_path, "-v", "-x", "1", "-w", "1")]
        now[0] = new
        outcomes.append(get(server, tmp_path, "-v"))
        odd = scripted.other_fields({"Content-Range": f"bytes {text}"})
        now[0] = script(dict.fromkeys(range(1, 100), odd), otherwise=new)
        outcomes.append(run(server.url(), "-o", "new", "-v", cwd=tmp_path))
        now[0] = scripted.redirect(f"ftp://x/{text}")
        outcomes.append(run(server.url(), "-o", "new", "-v", cwd=tmp_path))
    assert [outcome.code for outcome in outcomes] == [7, 0, 6, 6]
    for outcome in outcomes:
        assert all(char.isprintable() or char == "\n" for char in outcome.stderr + outcome.stdout)


def test_a_failed_run_leaves_an_older_file_alone(tmp_path: Path) -> None:
    """What stood under the final name stays until there is something better, byte for byte."""
    (tmp_path / "out").write_bytes(b"older")
    with serving(script({1: scripted.short_206(PART)}, otherwise=status(403))) as server:
        outcome = run(server.url(), "-o", "out", "-p", str(PART), cwd=tmp_path)
    assert outcome.code == 4
    assert (tmp_path / "out").read_bytes() == b"older"
    with serving(ranged(DATA)) as server:
        assert run(server.url(), "-o", "out", "-p", str(PART), cwd=tmp_path).code == 0
    assert (tmp_path / "out").read_bytes() == DATA


@pytest.mark.parametrize("flags", [(), ("-p", "1"), ("-p", "5G")])
@pytest.mark.parametrize("size", [2**60, 2**63 - 1])
def test_s6_a_promise_of_2_to_the_60_bytes_is_refused_before_any_of_them(
    tmp_path: Path, size: int, flags: tuple[str, ...]
) -> None:
    """No disk has that much room: told as that, at once, and nothing is left."""
    with serving(promising(size)) as server:
        outcome = run(server.url(), "-o", "out", "--retry", "0", *flags, cwd=tmp_path)
    assert outcome.code == 9, outcome.message
    assert f"no room for {size} bytes" in outcome.message
    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    "line",
    ["X Bad: 1", "no colon here", "Server: a\rb", "Content-Length : 300000", ": nameless", "X\0: nul"],
)
@pytest.mark.parametrize("rest", ["Transfer-Encoding: chunked", "Content-Length: 300000"])
def test_n29_nothing_hides_behind_a_line_that_is_no_field(tmp_path: Path, line: str, rest: str) -> None:
    """http.client sees no field behind a malformed one: such a head is refused, whatever it may have hidden."""
    head = f'HTTP/1.1 200 OK\r\nETag: "v1"\r\n{line}\r\n{rest}\r\n\r\n'
    with serving(scripted.raw(head.encode("latin-1") + b"x" * 1000)) as server:
        outcome = run(server.url(), "-o", "out", "--retry", "0", cwd=tmp_path)
    assert outcome.code == 6, outcome.message
    assert not (tmp_path / "out").exists()
