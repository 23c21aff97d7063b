"""Rows N29, N30 and N31: heads that are malformed, endless or of two minds: each is right or refused, never guessed.

The tables are those of the web platform tests (fetch/h1-parsing, fetch/content-length) and RFC 9112, sections 4 to 6.
"""

from __future__ import annotations

import random
import tracemalloc
from typing import TYPE_CHECKING

import pytest

import fastdl
from tests.e2e.command import names
from tests.servers import scripted
from tests.servers.scripted import Exchange, Handler, ranged, serving

if TYPE_CHECKING:
    from pathlib import Path

DATA = random.Random(30).randbytes(5000)
LENGTH = f"Content-Length: {len(DATA)}"
RANGE = f"Content-Range: bytes 0-{len(DATA) - 1}/{len(DATA)}"


def answer(*lines: str, end: str = "\r\n") -> Handler:
    """Send exactly these lines, an empty one and the object, then end the connection."""
    return scripted.raw(*((line + end).encode("latin-1") for line in (*lines, "")), DATA)


def outcome(folder: Path, handler: Handler) -> str:
    """Download in this process: ``exact`` if the bytes are, ``refused`` if nothing is left and the server is blamed."""
    with serving(handler) as server:
        try:
            fastdl.download(server.url(), folder / "out", retry=0, read_timeout=5)
        except fastdl.ProtocolError:
            assert names(folder) == set()
            return "refused"
    assert (folder / "out").read_bytes() == DATA
    return "exact"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("HTTP/1.1 200 OK", "exact"),
        ("HTTP/1.1 200 ", "exact"),
        ("HTTP/1.1 200", "exact"),
        ("HTTP/1.0 200 OK", "exact"),
        ("HTTP/1.1 200 \xc3\xb6\xe4 odd but legal", "exact"),
        ("HTTP/1.1 99 Odd", "refused"),
        ("HTTP/1.1 1000 Odd", "refused"),
        ("HTTP/1.1 0200 Odd", "refused"),
        ("HTTP/1.1 20 Odd", "refused"),
        ("HTTP/1.1 -200 Odd", "refused"),
        ("HTTP/1.1 +200 Odd", "refused"),
        ("HTTP/1.1 2_0 Odd", "refused"),
        ("HTTP/1.1 20x Odd", "refused"),
        ("HTTP/1.1 \xb2\xb9\xb9 Odd", "refused"),
        ("HTTP/1.1", "refused"),
        ("HTTP/1.1 ", "refused"),
        ("HTTP/2 200 OK", "refused"),
        ("HTTP/0.9 200 OK", "refused"),
        ("HTTPS/1.1 200 OK", "refused"),
        ("ICY 200 OK", "refused"),
        ("200 OK", "refused"),
        (" HTTP/1.1 200 OK", "refused"),
        ("GET /object HTTP/1.1", "refused"),
        ("HTTP/1.1 200 " + "x" * 70_000, "refused"),
        ("HTTP/1.1 200 a\rb", "refused"),
        ("HTTP/1.1 200 a\0b", "refused"),
        ("HTTP/1.1 101 Switching Protocols", "refused"),
        ("HTTP/1.1 600 What", "refused"),
        ("HTTP/1.1 999 What", "refused"),
    ],
)
def test_n30_a_status_line_is_one_or_refused(tmp_path: Path, line: str, expected: str) -> None:
    """A version of HTTP/1, one space, three digits. Source: RFC 9112, 4."""
    assert outcome(tmp_path, answer(line, LENGTH)) == expected


@pytest.mark.parametrize(
    "blob", [b"", b"\r\n\r\n", b"\n", b"\0" * 500, b"\xff" * 500, DATA], ids=lambda blob: repr(blob)[:20]
)
def test_n30_what_is_no_answer_is_no_object(tmp_path: Path, blob: bytes) -> None:
    """HTTP/0.9, zeros, noise: an error and no file."""
    with serving(scripted.raw(blob)) as server, pytest.raises((fastdl.ProtocolError, fastdl.NetworkError)):
        fastdl.download(server.url(), tmp_path / "out", retry=0)
    assert names(tmp_path) == set()


SIZE = len(DATA)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([f"{SIZE}"], "exact"),
        ([f"{SIZE}  "], "exact"),
        ([f"\t{SIZE}"], "exact"),
        ([f"0{SIZE}"], "exact"),
        ([f"{SIZE}", f"{SIZE}"], "exact"),
        ([f"{SIZE}, {SIZE}"], "exact"),
        ([f"{SIZE}, {SIZE}", f"{SIZE}"], "exact"),
        ([f"{SIZE}", f"{SIZE + 1}"], "refused"),
        ([f"{SIZE}, {SIZE + 1}"], "refused"),
        ([f"{SIZE},"], "refused"),
        ([f",{SIZE}"], "refused"),
        ([f"{SIZE}", ""], "refused"),
        ([""], "refused"),
        ([f"+{SIZE}"], "refused"),
        (["-1"], "refused"),
        (["-0"], "refused"),
        ([hex(SIZE)], "refused"),
        ([f"{SIZE}.0"], "refused"),
        (["5e3"], "refused"),
        (["5_000"], "refused"),
        (["5 000"], "refused"),
        (["\xb5\xb2"], "refused"),
        ([f'"{SIZE}"'], "refused"),
        ([f"{SIZE};x"], "refused"),
        ([str(2**63)], "refused"),
        ([str(2**64)], "refused"),
        ([str(2**64 + SIZE)], "refused"),
        (["9" * 5000], "refused"),
    ],
    ids=lambda value: repr(value)[:40],
)
@pytest.mark.parametrize("status", ["200 OK", "206 Partial Content"])
def test_n31_a_length_is_digits_and_one(tmp_path: Path, lines: list[str], expected: str, status: str) -> None:
    """Repeated it must be equal; signs, bases, lists of different ones and what overflows are refused."""
    fields = [f"Content-Length: {line}" for line in lines]
    extra = [RANGE] if status.startswith("206") else []
    head = answer(f"HTTP/1.1 {status}", *extra, *fields)
    if expected == "refused":
        with serving(head) as server, pytest.raises((fastdl.ProtocolError, fastdl.DiskError)):
            fastdl.download(server.url(), tmp_path / "out", retry=0)
        assert names(tmp_path) == set()
    else:
        assert outcome(tmp_path, head) == "exact"


@pytest.mark.parametrize("first", [True, False])
def test_n31_a_length_beside_chunks_is_not_the_length(tmp_path: Path, *, first: bool) -> None:
    """Chunks are what counts. Source: RFC 9112, 6.3; a sender of both is an error to proxies, and here harmless."""
    framing = ["Content-Length: 3", "Transfer-Encoding: chunked"]
    lines = ["HTTP/1.1 200 OK", *(framing if first else framing[::-1]), "", ""]
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(DATA), DATA)
    assert outcome(tmp_path, scripted.raw("\r\n".join(lines).encode() + body)) == "exact"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("X: \x01\x02", "exact"),
        ("X: \xff", "exact"),
        ("X:", "exact"),
        ("X:y", "exact"),
        ("X: a\r\n b", "exact"),
        ("X: a\r\n\tb", "exact"),
        ("X" * 60_000 + ": y", "exact"),
        ("X: a\rb", "refused"),
        ("X: a\0b", "refused"),
        ("X\0: a", "refused"),
        ("X : a", "refused"),
        (": a", "refused"),
        ("X", "refused"),
        ("X(: a", "refused"),
        ("X\xff: a", "refused"),
        ("\x0bX: a", "refused"),
        ("X: " + "y" * 66_000, "refused"),
        ("\r\n".join(f"X-{number}: y" for number in range(64)), "exact"),
        ("\r\n".join(f"X-{number}: y" for number in range(200)), "refused"),
        ("\r\n".join(f"X-{number}: {'y' * 1000}" for number in range(70)), "refused"),
        ("X: a" + "\r\n b" * 20_000, "refused"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_n29_a_field_is_one_or_the_head_is_refused(tmp_path: Path, line: str, expected: str) -> None:
    """Caps on size and number; no NUL, no bare CR, nothing that is no field. Folds are read as the spaces they are."""
    assert outcome(tmp_path, answer("HTTP/1.1 200 OK", line, LENGTH)) == expected


@pytest.mark.parametrize("fold", ["\r\n ", "\r\n\t "])
def test_n29_a_folded_length_is_no_other_length(tmp_path: Path, fold: str) -> None:
    """The digits behind a fold belong to the value: two numbers are none."""
    assert outcome(tmp_path, answer("HTTP/1.1 200 OK", f"Content-Length:{fold}{SIZE}")) == "exact"
    (tmp_path / "out").unlink()
    assert outcome(tmp_path, answer("HTTP/1.1 200 OK", f"Content-Length: 50{fold}00")) == "refused"


def test_n29_lines_may_end_without_a_carriage_return(tmp_path: Path) -> None:
    """Source: RFC 9112, 2.2."""
    assert outcome(tmp_path, answer("HTTP/1.1 200 OK", "X: y", LENGTH, end="\n")) == "exact"


@pytest.mark.parametrize("line", [b"X: y\r\n", b"X: " + b"y" * 4000 + b"\r\n", b" y\r\n"])
def test_n29_a_million_lines_cost_neither_time_nor_memory(tmp_path: Path, line: bytes) -> None:
    """The first too many end it: a server that would send for ever is left with the connection."""

    def endless(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nX: y\r\n")
        for _ in range(1_000_000):
            exchange.send(line)

    tracemalloc.start()
    try:
        with serving(endless) as server, pytest.raises(fastdl.ProtocolError):
            fastdl.download(server.url(), tmp_path / "out", retry=0)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert names(tmp_path) == set()


def test_n27_interim_answers_are_passed_over_up_to_a_number(tmp_path: Path) -> None:
    """Thirty-one of them are patience, thirty-two are none: whatever fields they carry, none is the object's."""
    interim = scripted.raw
    lie = b'HTTP/1.1 103 Early Hints\r\nContent-Length: 3\r\nContent-Range: bytes 5-9/10\r\nETag: "x"\r\n\r\n'
    right = f"HTTP/1.1 200 OK\r\n{LENGTH}\r\n\r\n".encode() + DATA
    assert outcome(tmp_path, interim(lie * 31 + right)) == "exact"
    (tmp_path / "out").unlink()
    assert outcome(tmp_path, interim(lie * 32 + right)) == "refused"


def test_n33_whatever_head_says_is_not_asked(tmp_path: Path) -> None:
    """A server that forbids HEAD, or lies to it, is not asked by it: the first GET is the truth."""

    def handle(exchange: Exchange) -> None:
        if exchange.request.method == "HEAD":
            exchange.reply(200, {"Content-Length": "1", "ETag": '"lie"'})
        else:
            ranged(DATA)(exchange)

    assert outcome(tmp_path, handle) == "exact"
    with serving(handle) as server:
        facts = fastdl.head(server.url())
        assert facts.size == SIZE
        assert {seen.method for seen in server.log} == {"GET"}
