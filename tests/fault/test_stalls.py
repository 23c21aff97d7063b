"""Row N2 in every position: whoever falls silent is waited for as long as was said, and Ctrl-C needs not wait for him.

Each test knows one place of the conversation in which the other side stops. With ``--retry 0`` the command must end
within the stall timeout and five seconds more, and after SIGINT within two.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from tests.e2e.partial import bits
from tests.e2e.processes import program, running, wait_until
from tests.e2e.s3 import login
from tests.servers import scripted
from tests.servers.roles import serving_roles
from tests.servers.s3 import BUCKET, serving_s3
from tests.servers.scripted import Exchange, Handler, from_request, ranged, routes, serving
from tests.servers.silence import SILENT_RESOLVER, black_hole, dripping, knocking, mute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path
    from typing import TypeAlias

    Position: TypeAlias = Callable[[Path], AbstractContextManager["Stall"]]

PART = 16 * 1024
DATA = random.Random(7).randbytes(40 * PART + 3)
STALL = 0.5  # seconds, of both timeouts
MOST = 1  # second, of --max-time
MARGIN, PROMPT = 5.0, 2.0  # seconds that an end may take after a stall, and after Ctrl-C
LIMITS = ("--retry", "0", "--connect-timeout", str(STALL), "--read-timeout", str(STALL))


@dataclass(frozen=True)
class Stall:
    """A download that will stand still: its arguments, when it does, and how it then ends."""

    arguments: tuple[str, ...]
    reached: Callable[[], object]
    code: int = 5
    lines: int = 1
    kept: bool = False  # whether there is anything to resume
    seconds: float = STALL
    variables: dict[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()


POSITIONS: dict[str, Position] = {}


def position(make: Callable[[Path], Iterator[Stall]]) -> Position:
    """Enter a position under its function's name."""
    POSITIONS[make.__name__.replace("_", " ")] = made = contextmanager(make)
    return made


def answering(name: str, handler: Callable[[threading.Event], Handler], code: int = 5) -> None:
    """Enter a position in which a web server stands still after it set an event."""

    @contextmanager
    def make(_: Path) -> Iterator[Stall]:
        reached = threading.Event()
        with serving(handler(reached)) as server:
            yield Stall((server.url(),), reached.is_set, code, lines=bool(code))

    POSITIONS[name] = make


def falls_silent(reached: threading.Event, *said: bytes) -> Handler:
    """Say these bytes in place of an answer, and nothing more."""

    def handle(exchange: Exchange) -> None:
        for blob in said:
            exchange.send(blob)
        reached.set()
        exchange.hold(None)

    return handle


def drips(reached: threading.Event, head: bytes, drop: bytes = b"x") -> Handler:
    """Say ``head`` and then ``drop`` again and again, for longer than any timeout here."""

    def handle(exchange: Exchange) -> None:
        exchange.send(head)
        reached.set()
        exchange.drip(drop * 2000, threading.Event(), pause=0.05, step=len(drop))

    return handle


def stops_in_body(reached: threading.Event, right: Handler, after: int = 100) -> Handler:
    """Give the first bytes of each right body."""

    def stop(exchange: Exchange) -> None:
        reached.set()
        exchange.hold(None)

    def handle(exchange: Exchange) -> None:
        exchange.break_body(after, lambda: stop(exchange))
        right(exchange)

    return handle


def head(status: str, **fields: object) -> bytes:
    """Write the head of an answer."""
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode()


PARTIAL = head("206 Partial Content", Content_Length=PART, Content_Range=f"bytes 0-{PART - 1}/{len(DATA)}", ETag='"v1"')
WHOLE = head("200 OK", Content_Length=len(DATA))
CHUNKED = head("200 OK", Transfer_Encoding="chunked")
LONG = {"Content_Length": 5000}

answering("before the head", falls_silent)
answering("in the status line", lambda reached: falls_silent(reached, b"HTTP/1.1 20"))
answering("in a field", lambda reached: falls_silent(reached, b"HTTP/1.1 206 Partial Content\r\nContent-Le"))
answering("in a head that drips", lambda reached: drips(reached, b"HTTP/1.1 206 Partial Content\r\nX: "))
answering("in a head of dripping fields", lambda reached: drips(reached, b"HTTP/1.1 206 OK\r\n", b"X: y\r\n"))
answering("after interim answers", lambda reached: falls_silent(reached, head("103 Early Hints") * 3))
answering("in interim answers that drip", lambda reached: drips(reached, b"HTTP/1.1 100 Continue\r\nX: ", b"x"))
answering("in the first body", lambda reached: stops_in_body(reached, ranged(DATA)))
answering("at the first byte of the first body", lambda reached: falls_silent(reached, PARTIAL))
answering("in a first body that drips", lambda reached: drips(reached, PARTIAL))
answering("in a whole body", lambda reached: stops_in_body(reached, scripted.ignores_range(DATA)))
answering("in a whole body that drips", lambda reached: drips(reached, WHOLE))
answering("in a body without a length", lambda reached: falls_silent(reached, head("200 OK"), DATA))
answering("in a chunk", lambda reached: falls_silent(reached, CHUNKED, b"ffff\r\n" + DATA[:300]))
answering("in a chunk's size", lambda reached: falls_silent(reached, CHUNKED, b"1\r\nx\r\nf"))
answering("in chunks that drip", lambda reached: drips(reached, CHUNKED, b"1\r\nx\r\n"))
answering("in a chunk's extension that drips", lambda reached: drips(reached, CHUNKED + b"f;"))
answering("before the last chunk", lambda reached: falls_silent(reached, CHUNKED, b"5\r\nwhole\r\n"))
answering("in trailers that drip", lambda reached: drips(reached, CHUNKED + b"5\r\nwhole\r\n0\r\n", b"X: y\r\n"))
answering("in the body of a refusal", lambda reached: falls_silent(reached, head("404 Gone", **LONG), b"So"), 3)
answering("in a refusal that drips", lambda reached: drips(reached, head("503 Busy", **LONG)))
answering("in a redirect's body", lambda reached: falls_silent(reached, head("302 Found", Location="/b", **LONG)))
answering(
    "behind two redirects",
    lambda reached: routes(
        {"/object": scripted.redirect("/b"), "/b": scripted.redirect("/c"), "/c": falls_silent(reached)}
    ),
)


@position
def a_connection_that_nobody_accepts(_: Path) -> Iterator[Stall]:
    """The first packet is answered by nobody; that it was sent is known from the kernel."""
    with black_hole() as port:
        before = knocking(port)
        yield Stall((f"http://127.0.0.1:{port}/object",), lambda: knocking(port) > before)


@position
def a_tls_handshake(_: Path) -> Iterator[Stall]:
    """It is accepted, and its greeting is not returned."""
    with mute() as (port, came):
        yield Stall((f"https://127.0.0.1:{port}/object",), came.is_set)


@position
def a_tls_handshake_that_drips(_: Path) -> Iterator[Stall]:
    """A record of 16 KB, a byte at a time."""
    with mute(dripping(b"\x16\x03\x03\x40\x00\x02")) as (port, came):
        yield Stall((f"https://127.0.0.1:{port}/object",), came.is_set)


@position
def a_proxy_asked_for_a_tunnel(_: Path) -> Iterator[Stall]:
    """CONNECT is not answered."""
    with mute() as (port, came):
        yield Stall(("https://name.invalid/object", "--proxy", f"http://127.0.0.1:{port}"), came.is_set)


@position
def a_tunnel_whose_head_drips(_: Path) -> Iterator[Stall]:
    """CONNECT is answered with fields without end."""
    with mute(dripping(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n")) as (port, came):
        yield Stall(("https://name.invalid/object", "--proxy", f"http://127.0.0.1:{port}"), came.is_set)


@position
def a_handshake_in_a_tunnel(_: Path) -> Iterator[Stall]:
    """CONNECT succeeds, and nobody is at its other end."""
    with mute(lambda conn: conn.sendall(b"HTTP/1.1 200 OK\r\n\r\n")) as (port, came):
        yield Stall(("https://name.invalid/object", "--proxy", f"http://127.0.0.1:{port}"), came.is_set)


@position
def a_resolver(folder: Path) -> Iterator[Stall]:
    """In a network of its own, whose resolver hears every question and answers none."""
    (folder / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:30 attempts:5\n")
    (folder / "resolver.py").write_text(SILENT_RESOLVER)
    script = f'mount --bind {folder}/resolv.conf /etc/resolv.conf && exec "$@"'
    asked = folder / "asked"
    alone = (program("unshare", "util-linux"), "-rmn", "sh", "-c", script, "sh")
    prefix = (*alone, sys.executable, str(folder / "resolver.py"), str(asked))
    yield Stall(("http://name.example/object",), asked.exists, prefix=prefix)


@contextmanager
def later(spoil: Callable[[threading.Event], Handler]) -> Iterator[Stall]:
    """Serve ten parts, and by all connections nothing more: parts are marked, and kept."""
    reached = threading.Event()
    opening = scripted.script({1: scripted.short_206(10 * PART)}, otherwise=ranged(DATA))
    with serving(from_request(2, then=spoil(reached), before=opening)) as server:
        url = server.url()
        yield Stall(
            (url, "-p", str(PART), "-x", "3", "-w", "1"), lambda: reached.is_set() and server.log[2:], kept=True
        )


@position
def the_bodies_of_all_later_answers(_: Path) -> Iterator[Stall]:
    """Each stops in its first part."""
    with later(lambda reached: stops_in_body(reached, ranged(DATA))) as stall:
        yield stall


@position
def the_heads_of_all_later_answers(_: Path) -> Iterator[Stall]:
    """Each drips."""
    with later(lambda reached: drips(reached, b"HTTP/1.1 206 Partial Content\r\nX: ")) as stall:
        yield stall


@position
def the_refusals_of_all_later_answers(_: Path) -> Iterator[Stall]:
    """Each says 503, and not what it meant."""
    with later(lambda reached: falls_silent(reached, head("503 Busy", **LONG))) as stall:
        yield stall


@position
def a_checksum_file(_: Path) -> Iterator[Stall]:
    """It is asked for before the object."""
    reached = threading.Event()
    with serving(routes({"/object": ranged(DATA), "/SHA256SUMS": falls_silent(reached)})) as server:
        yield Stall((server.url(), "--checksum-file", server.url("/SHA256SUMS")), reached.is_set)


@position
def the_body_of_a_checksum_file(_: Path) -> Iterator[Stall]:
    """It drips."""
    reached = threading.Event()
    with serving(routes({"/object": ranged(DATA), "/SHA256SUMS": drips(reached, WHOLE)})) as server:
        yield Stall((server.url(), "--checksum-file", server.url("/SHA256SUMS")), reached.is_set)


@position
def a_question_for_checksums(_: Path) -> Iterator[Stall]:
    """S3's HEAD is not answered, three times: that is said, nothing is compared, and the download ends well."""
    reached = threading.Event()
    with serving_s3({"key": DATA}, dict.fromkeys((2, 3, 4), falls_silent(reached))) as server:
        url = (f"s3://{BUCKET}/key", "--endpoint-url", server.url(""), "-p", str(PART))
        yield Stall(url, reached.is_set, code=0, seconds=3 * STALL + 0.6, variables=login())


@position
def a_service_that_gives_credentials(_: Path) -> Iterator[Stall]:
    """It has a timeout of its own, of three seconds."""
    reached = threading.Event()
    with serving_roles(dict.fromkeys(range(1, 9), falls_silent(reached))) as roles:
        variables = {"ALIBABA_CLOUD_CREDENTIALS_URI": roles.url("/credentials")}
        url = ("oss://bucket/key", "--endpoint-url", "http://127.0.0.1:9", "--region", "cn-hangzhou")
        yield Stall(url, reached.is_set, variables=variables, seconds=3.0)


# Whose like is in the short suite already: the same wait of ours, met by other bytes.
LONG_RUN = frozenset(
    (
        *("in a field", "in a head of dripping fields", "after interim answers", "at the first byte of the first body"),
        *("in a chunk's size", "in chunks that drip", "in a chunk's extension that drips", "before the last chunk"),
        *("in trailers that drip", "in a refusal that drips", "behind two redirects", "a tunnel whose head drips"),
    )
)


@pytest.fixture(params=[pytest.param(name, marks=[pytest.mark.long] if name in LONG_RUN else []) for name in POSITIONS])
def stall(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stall]:
    """Make one of the positions."""
    with ExitStack() as stack:
        yield stack.enter_context(POSITIONS[request.param](tmp_path))


def test_n2_silence_has_an_end(tmp_path: Path, stall: Stall) -> None:
    """Exit code 5 and one line, or what the answer says without its rest; what is marked stays."""
    (tmp_path / "out").mkdir()
    arguments = (*stall.arguments, *LIMITS, "-q", "-o", tmp_path / "out" / "object")
    began = time.monotonic()
    with running(tmp_path / "logs", *arguments, prefix=stall.prefix, environment=stall.variables) as command:
        code = command.wait(stall.seconds + 2 * MARGIN)
        assert time.monotonic() - began < stall.seconds + MARGIN
        command.wait_gone()
    assert code == stall.code, command.stderr
    assert "Traceback" not in command.stderr
    assert len(command.stderr.splitlines()) == stall.lines
    left = {path.suffix for path in (tmp_path / "out").iterdir()}
    assert left == ({""} if code == 0 else {".part", ".cp"} if stall.kept else set())


def test_n2_a_time_for_everything_ends_any_silence(tmp_path: Path, stall: Stall) -> None:
    """With timeouts of a minute, and with retries, ``--max-time`` alone ends the wait, wherever it is."""
    (tmp_path / "out").mkdir()
    limits = ("--connect-timeout", "60", "--read-timeout", "60", "--max-time", str(MOST))
    arguments = (*stall.arguments, *limits, "-q", "-o", tmp_path / "out" / "object")
    began = time.monotonic()
    with running(tmp_path / "logs", *arguments, prefix=stall.prefix, environment=stall.variables) as command:
        code = command.wait(MOST + 3 * MARGIN)
        assert time.monotonic() - began < MOST + 2 * MARGIN
        command.wait_gone()
    assert code in {5, stall.code}, command.stderr
    assert "Traceback" not in command.stderr
    assert len(command.stderr.splitlines()) <= 2


def test_n2_ctrl_c_does_not_wait_for_the_silent(tmp_path: Path, stall: Stall) -> None:
    """Exit code 130 within two seconds, wherever the other side stands still, and with timeouts of half a minute."""
    (tmp_path / "out").mkdir()
    output = tmp_path / "out" / "object"
    arguments = (*stall.arguments, "-o", output)
    with running(tmp_path / "logs", *arguments, prefix=stall.prefix, environment=stall.variables) as command:
        command.wait_until(stall.reached)
        if stall.kept:
            wait_until(lambda: bits(output.with_name("object.cp")))
        began = time.monotonic()
        os.killpg(command.pid, signal.SIGINT)
        assert command.wait() == 130, command.stderr
        assert time.monotonic() - began < PROMPT
        command.wait_gone()
    assert command.stderr.endswith("fastdl: stopped by SIGINT; run again to resume\n")
    assert {path.suffix for path in output.parent.iterdir()} == ({".part", ".cp"} if stall.kept else set())
