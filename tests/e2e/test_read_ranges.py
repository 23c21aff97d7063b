"""``read_ranges`` from real servers: the very bytes, by few requests, or an error that says why not."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest

import fastdl
from fastdl import sieve
from tests.e2e.processes import running_any, wait_until
from tests.e2e.s3 import nobodys_machine
from tests.servers import oss as oss_server
from tests.servers import s3 as s3_server
from tests.servers.nginx import serving_nginx
from tests.servers.program import free_port, program, running_program
from tests.servers.scripted import (
    Exchange,
    Handler,
    Pattern,
    Server,
    chunked,
    closes_afterwards,
    drip,
    from_request,
    gzip_coded,
    hang_up,
    ignores_range,
    no_length,
    other_fields,
    ranged,
    redirect,
    reset_after,
    routes,
    script,
    serving,
    shifted_206,
    short_206,
    stall_after,
    stall_before_head,
    status,
    truncate_after,
    wrong_content_range,
)
from tests.servers.several import BOUNDARY, Part, asked_for, several
from tests.servers.tls import certificate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MIB = 1 << 20
SIZE = 3 * MIB + 11
PATTERN = Pattern(SIZE, seed=6)
OTHER = Pattern(SIZE, seed=7)
_RNG = random.Random(8)
SCATTERED = [(_RNG.randrange(SIZE - 500), _RNG.randrange(500)) for _ in range(200)]
FEW = [(100_000 * number, 1000) for number in range(20, -1, -1)]
PROMPT = 10.0  # seconds that a clean stop may take where everything is slow; a read timeout takes 30


def content(ranges: list[tuple[int, int]], source: Pattern = PATTERN) -> list[bytes]:
    """Return what ranges of the object hold."""
    return [bytes(source.read(offset, offset + length)) for offset, length in ranges]


def read(server: Server, ranges: list[tuple[int, int]] = FEW, **settings: Any) -> list[bytes]:
    """Read without joining, and check the bytes."""
    found = fastdl.read_ranges(server.url(), ranges, **{"gap": 0, "retry": 2, **settings})
    assert found == content(ranges)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("fastdl")]
    return found


def asking_for_several(server: Server) -> int:
    """Count the requests for several ranges."""
    return sum("," in seen.headers.get("range", "") for seen in server.log)


@contextmanager
def lighttpd(root: Path) -> Iterator[str]:
    """Serve ``root`` by Debian's lighttpd; yield the beginning of its URLs."""
    with TemporaryDirectory() as folder:
        port, config = free_port(), Path(folder, "lighttpd.conf")
        config.write_text(
            f'server.document-root = "{root}"\nserver.bind = "127.0.0.1"\nserver.port = {port}\n'
            'mimetype.assign = ("" => "application/octet-stream")\n'
        )
        command = [program("lighttpd", "lighttpd"), "-D", "-f", str(config)]
        with running_program(command, port, Path(folder, "output.log")):
            yield f"http://127.0.0.1:{port}/"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a directory with the object in it."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "object").write_bytes(PATTERN.read(0, SIZE))
    return root


RANGES = {
    "scattered": SCATTERED,
    "neighbours": [(5 + 1000 * number, 700) for number in range(1000)],
    "overlapping, doubled, empty, in any order": [
        (9, 100),
        (0, 50),
        (9, 100),
        (5, 0),
        (SIZE, 0),
        (40, 2 * MIB),
        (9, 1),
    ],
    "all of it": [(0, SIZE)],
    "the ends": [(SIZE - 1, 1), (0, 1)],
}


@pytest.mark.parametrize("ranges", RANGES.values(), ids=RANGES)
@pytest.mark.parametrize("gap", [0, 64 * 1024])
def test_nginx(folder: Path, ranges: list[tuple[int, int]], gap: int) -> None:
    """Whatever is asked for comes, in the order asked for; into one buffer as well."""
    with serving_nginx(folder) as server:
        url = server.url("/object")
        assert fastdl.read_ranges(url, ranges, gap=gap) == content(ranges)
        room = bytearray(sum(length for _, length in ranges))
        views = fastdl.read_ranges(url, iter(ranges), gap=gap, into=room)
        assert [bytes(view) for view in views] == content(ranges)
        assert bytes(room) == b"".join(content(ranges))


def test_tls(folder: Path) -> None:
    """The same through TLS, which hands bodies out in records."""
    with certificate() as own, serving_nginx(folder, tls=own) as server:
        for ranges in RANGES.values():
            assert fastdl.read_ranges(server.url("/object"), ranges, gap=0, cacert=own.ca) == content(ranges)


def test_nginx_answers_few_requests(folder: Path) -> None:
    """Two hundred scattered ranges cost a handful; each answer is of all that its request asked for."""
    with serving_nginx(folder) as server:
        assert fastdl.read_ranges(server.url("/object"), SCATTERED, gap=0) == content(SCATTERED)
        lines = server.access_log
        assert 1 <= len(lines) <= 8
        assert all('" 206 ' in line for line in lines)


@pytest.mark.parametrize("ranges", [SCATTERED, FEW])
def test_lighttpd(folder: Path, ranges: list[tuple[int, int]]) -> None:
    """Another server with views of its own on several ranges."""
    with lighttpd(folder) as url:
        assert fastdl.read_ranges(url + "object", ranges, gap=0) == content(ranges)


def without(index: int) -> Callable[[list[Part]], list[Part]]:
    """Leave a part out."""
    return lambda parts: parts[:index] + parts[index + 1 :]


def coalesced(parts: list[Part]) -> list[Part]:
    """Answer the first two ranges as one."""
    first, last = int(parts[0][0].split()[1].split("-")[0]), int(parts[1][0].split("-")[1].split("/")[0])
    return [(f"bytes {first}-{last}/{SIZE}", bytes(PATTERN.read(first, last + 1))), *parts[2:]]


def moved(parts: list[Part]) -> list[Part]:
    """Let the second part claim another place, of its length."""
    first, last = (int(each) for each in parts[1][0].split()[1].split("/")[0].split("-"))
    return [parts[0], (f"bytes {first + 1}-{last + 1}/{SIZE}", parts[1][1]), *parts[2:]]


def renamed(old: str, new: str) -> Callable[[list[Part]], list[Part]]:
    """Write every part's range differently."""
    return lambda parts: [(head.replace(old, new), data) for head, data in parts]


def first_alone(exchange: Exchange) -> None:
    """Answer the first of several ranges and forget the others."""
    asked = asked_for(exchange)
    if not asked:
        ranged(PATTERN)(exchange)
        return
    start, stop = asked[0]
    fields = {"ETag": '"v1"', "Content-Range": f"bytes {start}-{stop - 1}/{SIZE}"}
    exchange.reply(206, fields, bytes(PATTERN.read(start, stop)))


def refusing_several(code: int) -> Handler:
    """Answer several ranges with a status, a single one rightly."""
    single = ranged(PATTERN)
    return lambda exchange: status(code)(exchange) if asked_for(exchange) else single(exchange)


UNFIT: dict[str, Handler] = {
    "reordered": several(PATTERN, lambda parts: parts[::-1]),
    "coalesced": several(PATTERN, coalesced),
    "the first left out": several(PATTERN, without(0)),
    "one left out": several(PATTERN, without(3)),
    "the last left out": several(PATTERN, without(-1)),
    "one too many": several(PATTERN, lambda parts: [*parts, parts[0]]),
    "another place": several(PATTERN, moved),
    "no size": several(PATTERN, renamed(f"/{SIZE}", "/*")),
    "another unit": several(PATTERN, renamed("bytes", "lines")),
    "a part too short": several(PATTERN, lambda parts: [(head, data[:-1]) for head, data in parts]),
    "a part too long": several(PATTERN, lambda parts: [(head, data + b"x") for head, data in parts]),
    "no boundary named": several(PATTERN, content_type="multipart/byteranges"),
    "another boundary": several(PATTERN, content_type="multipart/byteranges; boundary=x"),
    "another type": several(PATTERN, content_type="application/octet-stream"),
    "status 200": several(PATTERN, status=200),
    "the whole object": ranged(PATTERN),
    "the first range alone": first_alone,
    **{f"status {code}": refusing_several(code) for code in (400, 403, 404, 416, 501)},
}


@pytest.mark.parametrize("handler", UNFIT.values(), ids=UNFIT)
def test_several_ranges_answered_wrongly(handler: Handler) -> None:
    """Not one byte of such an answer counts: every range is asked for alone, and the server not tempted again."""
    with serving(handler) as server:
        read(server)
        assert asking_for_several(server) == 1
        assert len(server.log) >= 1 + len(FEW)


@pytest.mark.parametrize("handler", UNFIT.values(), ids=UNFIT)
def test_several_ranges_answered_wrongly_later(handler: Handler) -> None:
    """The same where the first answer was right: what had come stays, the rest is asked for alone."""
    ranges = [(20_000 * number, 10_000) for number in range(150)]
    with serving(from_request(2, then=handler, before=several(PATTERN))) as server:
        read(server, ranges, connections=1)
        assert asking_for_several(server) == 2
        assert len(server.log) > 20


def test_the_object_has_another_size_in_a_part() -> None:
    """That is no matter of framing: it was replaced."""
    later = several(PATTERN, renamed(f"/{SIZE}", f"/{SIZE + 1}"))
    ranges = [(20_000 * number, 10_000) for number in range(150)]
    with (
        serving(from_request(2, then=later, before=several(PATTERN))) as server,
        pytest.raises(fastdl.ObjectChanged, match="was replaced"),
    ):
        read(server, ranges)


@pytest.mark.parametrize("right", [several, ranged])
@pytest.mark.parametrize("number", [3, 6])
def test_an_object_that_is_replaced_in_the_middle(right: Callable[..., Handler], number: int) -> None:
    """Bytes of two states are never handed out together, however the server answers."""
    ranges = [(20_000 * number, 10_000) for number in range(150)]
    with (
        serving(from_request(number, then=right(OTHER, etag='"v2"'), before=right(PATTERN))) as server,
        pytest.raises(fastdl.ObjectChanged, match="was replaced"),
    ):
        read(server, ranges)


def drips_its_head(exchange: Exchange) -> None:
    """Send a head that never ends, a byte now and then, until nobody takes it any more."""
    exchange.send(b"HTTP/1.1 206 Partial Content\r\nX: ")
    while True:
        exchange.send(b"x")
        time.sleep(0.1)


TRANSIENT: dict[str, Handler] = {
    "503": status(503, {"Retry-After": "0"}),
    "429": status(429, {"Retry-After": "0"}),
    "hang up": hang_up,
    "reset": reset_after(500),
    "truncated": truncate_after(2000),
    "shorter": short_206(100),
    "closes": closes_afterwards,
    "stall": stall_after(1500),
    "stall before the head": stall_before_head(),
    "stall by drops": drip(threading.Event(), 0.1),
    "stall by drops of the head": drips_its_head,
}


@pytest.mark.parametrize("right", [several(PATTERN), ranged(PATTERN)], ids=["several", "singly"])
@pytest.mark.parametrize("number", [1, 2, 4])
@pytest.mark.parametrize("fault", TRANSIENT)
def test_a_failure_that_passes(right: Handler, number: int, fault: str) -> None:
    """Whatever request it meets, that one is made again and nothing is lost."""
    ranges = [(20_000 * number, 10_000) for number in range(150)]
    with serving(script({number: TRANSIENT[fault]}, otherwise=right)) as server:
        read(server, ranges, read_timeout=1.0 if "stall" in fault else 30.0)


@pytest.mark.parametrize("right", [several(PATTERN), ranged(PATTERN), ignores_range(PATTERN)])
@pytest.mark.parametrize("ranges", [[(0, 20_000)], [(0, 9000), (9500, 9000)]])
def test_a_slow_line_that_moves_is_no_stall(right: Handler, ranges: list[tuple[int, int]]) -> None:
    """A few kilobytes within the read timeout are enough, however much a request asks for."""
    slow = script(dict.fromkeys(range(1, 10), drip(threading.Event(), 0.4, 2048)), otherwise=right)
    with serving(slow) as server:
        read(server, ranges, read_timeout=2.0, retry=0)


@pytest.mark.parametrize("right", [several(PATTERN), ranged(PATTERN)], ids=["several", "singly"])
def test_a_server_that_stays_busy(right: Handler) -> None:
    """Attempts have an end, in the middle too."""
    with (
        serving(from_request(3, then=status(503, {"Retry-After": "0"}), before=right)) as server,
        pytest.raises(fastdl.NetworkError, match="503"),
    ):
        fastdl.read_ranges(server.url(), SCATTERED * 5, gap=0, retry=1, connections=2)


LIES: dict[str, tuple[Handler, type[fastdl.FastdlError]]] = {
    "wrong range": (wrong_content_range("bytes 1-2/3"), fastdl.FastdlError),
    "shifted": (shifted_206(1, 1), fastdl.ProtocolError),
    "whole": (ignores_range(PATTERN), fastdl.ProtocolError),
    "coded": (gzip_coded(), fastdl.ProtocolError),
    "no validator": (other_fields({"ETag": None}), fastdl.ObjectChanged),
    "404": (status(404), fastdl.NotFound),
    "403": (status(403), fastdl.AccessDenied),
}


def grown(room: bytearray) -> bool:
    """Tell whether a buffer can be made longer, as it cannot while somebody has a view of it."""
    try:
        room.extend(b"more")
    except BufferError:
        return False
    return True


@pytest.mark.parametrize("lie", LIES)
def test_a_single_range_answered_wrongly(lie: str) -> None:
    """The first failure that asking again does not mend ends everything, and no other thread stays."""
    handler, error = LIES[lie]
    with serving(from_request(5, then=handler, before=ranged(PATTERN))) as server:
        room = bytearray(sum(length for _, length in FEW))
        failed = False
        try:
            fastdl.read_ranges(server.url(), FEW, gap=0, into=room)
        except error:
            failed = True
        wait_until(lambda: grown(room))  # nobody holds it any more, at the latest when the last thread has ended
        assert failed
        assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("fastdl")]


def test_one_failure_ends_others_that_stand_still() -> None:
    """Nobody waits for the read timeout of a connection that is not wanted any more."""
    gate = threading.Event()

    def handle(exchange: Exchange) -> None:
        exchange.otherwise = ranged(PATTERN)
        if exchange.request.number < 3:
            exchange.otherwise(exchange)
        elif exchange.request.number < 6:
            stall_after(100, gate)(exchange)
        else:
            status(404)(exchange)

    with serving(handle) as server:
        with pytest.raises(fastdl.NotFound):
            fastdl.read_ranges(server.url(), FEW, gap=0, read_timeout=600.0)
        gate.set()


@pytest.mark.parametrize("place", ["read_answer", "Renewal.judge"])
def test_a_defect_of_ours_is_no_hang(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a thread dies of reaches the caller."""

    def broken(*_: object) -> None:
        raise KeyError("nobody expects this")

    monkeypatch.setattr(f"fastdl.gather.{place}", broken)
    with serving(from_request(3, then=status(404), before=ranged(PATTERN))) as server:
        with pytest.raises(fastdl.FastdlError, match="unexpected KeyError"):
            fastdl.read_ranges(server.url(), FEW, gap=0)
        assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("fastdl")]


def test_a_server_that_serves_few_at_once(folder: Path) -> None:
    """Refused connections are given up, half of them at a time, and the others get everything."""
    with serving_nginx(folder, limit_conn=2, rate=100_000) as server:
        assert fastdl.read_ranges(server.url("/object"), [(0, MIB)], connections=16, retry=50) == content([(0, MIB)])
        assert any('" 503 ' in line for line in server.access_log)


def test_time_is_up_in_the_middle() -> None:
    """``max_time`` is for the whole call."""
    with (
        serving(from_request(3, then=stall_after(10), before=ranged(PATTERN))) as server,
        pytest.raises(fastdl.NetworkError, match="within"),
    ):
        fastdl.read_ranges(server.url(), FEW, gap=0, max_time=1.0)


def test_ranges_of_a_state_that_was_told() -> None:
    """What ``head`` told holds for later calls, and another object, also a shorter one, is told."""
    now = [ranged(PATTERN)]

    def handle(exchange: Exchange) -> None:
        now[0](exchange)

    with serving(handle) as server:
        facts = fastdl.head(server.url())
        assert fastdl.read_ranges(server.url(), [(5, 9)], state=facts) == [bytes(PATTERN.read(5, 14))]
        with pytest.raises(fastdl.UsageError, match="asks for"):
            fastdl.read_ranges(server.url(), [(PATTERN.size, 1)], state=facts)
        for other in (ranged(PATTERN, '"v2"'), ranged(b"short"), ranged(bytes(PATTERN.read(0, PATTERN.size - 1)))):
            now[0] = other
            with pytest.raises(fastdl.ObjectChanged, match="was replaced"):
                fastdl.read_ranges(server.url(), [(5, 9)], state=facts)


def test_a_client_keeps_the_connections() -> None:
    """Later calls ask over the connection of the first; one that its server has given up is no failure."""
    with serving(script({4: hang_up}, otherwise=ranged(PATTERN))) as server, fastdl.Client() as client:
        for _ in range(4):
            assert client.read_ranges(server.url(), [(5, 9)]) == [bytes(PATTERN.read(5, 14))]
        assert [seen.connection for seen in server.log] == [1, 1, 1, 1, 2]


def test_redirects_are_followed_once() -> None:
    """Every later request goes where the first one was led to."""
    with serving(several(PATTERN)) as target, serving(redirect(target.url("/there"))) as server:
        read(server, SCATTERED * 3)
        assert len(server.log) == 1


def test_a_redirect_whose_target_expires() -> None:
    """The user's own URL is asked where the object is by now."""
    old = from_request(3, then=status(403), before=ranged(PATTERN))
    with serving(routes({"/old": old, "/new": ranged(PATTERN)})) as target:
        now = script({1: redirect(target.url("/old")), 2: redirect(target.url("/old"))}, redirect(target.url("/new")))
        with serving(now) as server:
            read(server)
            assert target.log[-1].target == "/new"


WITHOUT = {
    "ignored": ignores_range(PATTERN),
    "chunked": chunked(PATTERN),
    "no length": no_length(PATTERN),
}


@pytest.mark.parametrize("handler", WITHOUT.values(), ids=WITHOUT)
@pytest.mark.parametrize("ranges", [SCATTERED, FEW, [(0, SIZE)], [(7, 100), (50, 100), (7, 0)]])
def test_a_server_without_ranges(handler: Handler, ranges: list[tuple[int, int]]) -> None:
    """One stream is read, once more than was tried with several ranges."""
    with serving(handler) as server:
        read(server, ranges)
        assert len(server.log) <= 2


def test_a_stream_is_left_behind_the_last_byte() -> None:
    """Of a whole object of a gigabyte little more than what is wanted is moved."""
    big = Pattern(1 << 30)
    with serving(ignores_range(big)) as server:
        assert fastdl.read_ranges(server.url(), [(MIB, 10), (5, 5)]) == content([(MIB, 10), (5, 5)], big)
    assert server.sent < 64 * MIB


def test_a_stream_that_breaks_is_read_again() -> None:
    """From its first byte, and only if it is the same object."""
    whole = ignores_range(PATTERN)
    with serving(script({1: truncate_after(MIB), 2: truncate_after(2 * MIB)}, otherwise=whole)) as server:
        read(server)
    replaced = from_request(3, then=ignores_range(OTHER, etag='"v2"'), before=whole)
    broken = script({2: truncate_after(MIB)}, otherwise=replaced)
    with serving(broken) as server, pytest.raises(fastdl.ObjectChanged):
        read(server)


def test_a_stream_of_which_nearly_nothing_is_wanted() -> None:
    """A header at the end of a large object is no reason to read all of it."""
    big = Pattern(sieve.MOST_PASSED + 2 * MIB)
    with serving(ignores_range(big)) as server, pytest.raises(fastdl.ProtocolError, match="no ranges"):
        fastdl.read_ranges(server.url(), [(big.size - 10, 10)])
    assert server.sent < 64 * MIB


@pytest.mark.parametrize("ranges", [[(0, 10), (SIZE - 5, 6)], [(SIZE, 1)], [(1 << 62, 5), (0, 1)], [(0, 1 << 62)]])
@pytest.mark.parametrize("right", [several(PATTERN), ranged(PATTERN), ignores_range(PATTERN)])
def test_a_range_beyond_the_end(right: Handler, ranges: list[tuple[int, int]]) -> None:
    """The error names the range and the object's size, before memory is taken."""
    with serving(right) as server, pytest.raises(fastdl.UsageError, match=rf"has {SIZE} bytes; range \d asks for"):
        fastdl.read_ranges(server.url(), ranges)


@pytest.mark.parametrize("ranges", [[(0, 10), (SIZE - 5, 6)], [(SIZE, 1)]])
def test_a_range_beyond_the_end_of_a_stream_without_a_length(ranges: list[tuple[int, int]]) -> None:
    """Where it ends shows when it does: then that is the object's size, unless the line may have cut it."""
    with serving(chunked(PATTERN)) as server, pytest.raises(fastdl.UsageError, match=f"has {SIZE} bytes only"):
        fastdl.read_ranges(server.url(), ranges)
    with serving(no_length(PATTERN)) as server, pytest.raises(fastdl.NetworkError, match=f"behind {SIZE} bytes"):
        fastdl.read_ranges(server.url(), ranges, retry=0)


def test_an_empty_object() -> None:
    """It has no range but empty ones."""
    with serving(ranged(b"")) as server:
        with pytest.raises(fastdl.UsageError, match="has 0 bytes; range 0"):
            fastdl.read_ranges(server.url(), [(0, 1)])
        assert fastdl.read_ranges(server.url(), [(0, 0), (7, 0)]) == [b"", b""]
        assert fastdl.read_ranges(server.url(), []) == []


def test_connections_are_no_more_than_asked_for() -> None:
    """And each is used again and again."""
    with serving(ranged(PATTERN)) as server:
        read(server, SCATTERED, connections=3)
        assert max(seen.connection for seen in server.log) <= 4  # one more: several ranges answered with the whole


CALLERS = {
    "a daemonic child": """
import multiprocessing

def child():
    assert multiprocessing.current_process().daemon
    check()

process = multiprocessing.get_context("fork").Process(target=child, daemon=True)
process.start()
process.join()
raise SystemExit(process.exitcode)
""",
    "a fork after a call": """
import os
check()
pid = os.fork()
check()
if pid == 0:
    os._exit(0)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
""",
    "four threads at once": """
import threading
done = []
threads = [threading.Thread(target=lambda: done.append(check())) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(done) == 4
""",
    "nothing is left": """
import os, threading
def state():
    return threading.active_count(), sorted(os.listdir("/proc/self/fd"))
check()
before = state()
check()
assert state() == before
""",
}


@pytest.mark.parametrize("right", [several(PATTERN), ranged(PATTERN)], ids=["several", "singly"])
@pytest.mark.parametrize("caller", CALLERS)
def test_callers(tmp_path: Path, caller: str, right: Handler) -> None:
    """It works from wherever it is called, and leaves no thread and no descriptor there."""
    with serving(right) as server:
        script = f"""
import fastdl
from tests.servers.scripted import Pattern
RANGES = {SCATTERED!r}
EXPECTED = [bytes(Pattern({SIZE}, seed=6).read(start, start + length)) for start, length in RANGES]

def check():
    assert fastdl.read_ranges({server.url()!r}, RANGES, gap=0, connections=8) == EXPECTED
"""
        with running_any(tmp_path, [sys.executable, "-c", script + CALLERS[caller]]) as process:
            assert process.wait() == 0, process.stderr
            assert process.stderr == ""


@pytest.mark.parametrize("right", [several(PATTERN), ranged(PATTERN)], ids=["several", "singly"])
@pytest.mark.parametrize("number", [1, 2, 4])
@pytest.mark.parametrize("fault", [stall_after(5), stall_before_head()], ids=["body", "head"])
def test_ctrl_c(tmp_path: Path, right: Handler, number: int, fault: Handler) -> None:
    """KeyboardInterrupt reaches the caller at once, whatever is waited for, and no thread stays."""
    ranges = [(20_000 * number, 10_000) for number in range(150)]
    with serving(from_request(number, then=fault, before=right)) as server:
        script = f"""
import threading
import fastdl
try:
    fastdl.read_ranges({server.url()!r}, {ranges!r}, gap=0)
except KeyboardInterrupt:
    for thread in threading.enumerate()[1:]:  # one that was just being started has yet to hear of it
        thread.join()
    print("interrupted", threading.active_count())
"""
        with running_any(tmp_path, [sys.executable, "-c", script]) as caller:
            server.wait_for(number)
            began = time.monotonic()
            os.killpg(caller.pid, signal.SIGINT)
            assert caller.wait() == 0, caller.stderr
            assert time.monotonic() - began < PROMPT
            assert caller.stdout.split() == ["interrupted", "1"]
            assert caller.stderr == ""


def test_oss() -> None:
    """Every request is signed, none asks for several ranges."""
    import alibabacloud_oss_v2 as oss  # noqa: PLC0415 - 250 ms

    data = bytes(PATTERN.read(0, SIZE))
    with oss_server.serving_oss({"key": data}) as server:
        settings = {"region": "cn-hangzhou", "endpoint_url": server.url(""), "gap": 0}
        provider = oss.credentials.StaticCredentialsProvider(oss_server.KEY.id, oss_server.KEY.secret)
        found = fastdl.read_ranges("oss://bucket/key", FEW, credentials=provider, **settings)  # type: ignore[call-overload]
        assert found == content(FEW)
        assert asking_for_several(server) == 0
        with pytest.raises(fastdl.UsageError, match=f"has {SIZE} bytes; range 1"):
            fastdl.read_ranges("oss://bucket/key", [(0, 1), (SIZE, 1)], credentials=provider, **settings)  # type: ignore[call-overload]


def test_s3_and_a_refusal_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that expire meanwhile are renewed once, and what was refused is asked for again."""
    nobodys_machine(tmp_path, monkeypatch)
    data = bytes(PATTERN.read(0, SIZE))
    refused = lambda exchange: s3_server.refuse(exchange, s3_server.RefusalError(403, "ExpiredToken"))  # noqa: E731
    with s3_server.serving_s3({"key": data}, faults={5: refused}) as server:
        url, settings = f"s3://{s3_server.BUCKET}/key", {"region": s3_server.REGION, "endpoint_url": server.url("")}
        found = fastdl.read_ranges(url, FEW, credentials=s3_server.KEY, gap=0, **settings)  # type: ignore[call-overload]
        assert found == content(FEW)
        assert asking_for_several(server) == 0
        assert len(server.log) == len(FEW) + 1


def test_the_boundary_may_stand_in_the_bytes() -> None:
    """Lengths decide where a part ends, and not what looks like the end of one."""
    data = f"\r\n--{BOUNDARY}--\r\n".encode() * 5000
    ranges = [(1000 * number, 500) for number in range(50)]
    with serving(several(data)) as server:
        assert fastdl.read_ranges(server.url(), ranges, gap=0) == [data[start : start + n] for start, n in ranges]
        assert len(server.log) <= 2
