"""Any bytes that come over a socket in place of an answer: an error of ours within bounded time, or the very body."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fastdl.contract import check_partial
from fastdl.errors import FastdlError
from fastdl.messages import Request
from tests.servers.scripted import Exchange, serving
from tests.unit.asking import client

if TYPE_CHECKING:
    from fastdl.http import Transport

BODY = b"0123456789"
PATIENCE = 5.0  # seconds; the server hangs up after its last byte, so that nothing has to be waited for
STATUS = st.sampled_from(
    (
        *(b"HTTP/1.1 206 Partial Content", b"HTTP/1.1 206", b"HTTP/1.0 206 x", b"HTTP/1.1 200 OK", b"HTTP/1.1 100 x"),
        *(
            b"HTTP/1.1 103 Early",
            b"HTTP/1.1 101 x",
            b"HTTP/1.1 204 x",
            b"HTTP/1.1 304 x",
            b"HTTP/1.1 302 x",
            b"HTTP/2 206",
        ),
        *(b"HTTP/1.1 -206 x", b"HTTP/1.1 2060 x", b"http/1.1 206 x", b"ICY 206 x", b"", b"HTTP/1.1  206 x"),
    )
)
FIELD = st.sampled_from(
    (
        *(b"Content-Range: bytes 0-9/10", b"Content-Length: 10", b"content-length: 10, 10", b"Content-Length: 9"),
        *(
            b"Content-Length: +10",
            b"Content-Length: 0x0a",
            b"Content-Length: 1_0",
            b"Content-Length: 18446744073709551626",
        ),
        *(
            b"Content-Range: bytes 0-9/*",
            b"Content-Range: bytes 1-9/10",
            b"Content-Encoding: gzip",
            b"Connection: close",
        ),
        *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: identity"),
        *(b"Location: /x", b"Location: http://[", b"Location: //\xff", b" fold", b"X:", b":", b"X: \0", b"X: a\rb"),
        *(b'ETag: "v1"', b"Retry-After: 1", b"Set-Cookie: a=b", b"Content-Type: multipart/byteranges; boundary=x"),
    )
)
CHUNKED = st.sampled_from(
    (
        *(
            b"a\r\n0123456789\r\n0\r\n\r\n",
            b"5\r\n01234\r\n5;x=y\r\n56789\r\n0\r\nX: y\r\n\r\n",
            b"0xa\r\n0123456789\r\n0\r\n\r\n",
        ),
        *(b"+a\r\n0123456789\r\n0\r\n\r\n", b"-a\r\n0123456789\r\n0\r\n\r\n", b"5\r\n01234XX5\r\n56789\r\n0\r\n\r\n"),
        *(
            b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n",
            b"a\r\n0123456789",
            b"a\r\n0123456789\r\n",
            b"\r\n",
            b"ffffffffffffffff1\r\n",
        ),
        *(b"5\n01234\n5\n56789\n0\n\n", b" a \r\n0123456789\r\n0\r\n\r\n", b"5\r\n01234\r\n-5\r\n56789\r\n0\r\n\r\n"),
    )
)
HEAD = st.tuples(STATUS, st.lists(FIELD, max_size=6)).map(lambda head: b"\r\n".join((head[0], *head[1], b"", b"")))
RIGHT = b"HTTP/1.1 206 x\r\nContent-Range: bytes 0-9/10\r\n"
EDITS = st.lists(st.tuples(st.integers(0, 90), st.integers(0, 3), st.binary(max_size=4)), max_size=3)


def edited(raw: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """Replace some bytes by others at some places."""
    for at, count, new in edits:
        raw = raw[:at] + new + raw[at + count :]
    return raw


ANSWERS = (
    st.builds(edited, st.just(RIGHT + b"Content-Length: 10\r\n\r\n" + BODY), EDITS)
    | st.builds(lambda end, edits: edited(RIGHT + b"Transfer-Encoding: chunked\r\n\r\n" + end, edits), CHUNKED, EDITS)
    | st.builds(lambda heads, end: b"".join(heads) + end, st.lists(HEAD, max_size=3), CHUNKED | st.just(BODY))
    | st.binary(max_size=100)
)


def content_of(raw: bytes) -> bytes:
    """Return what follows the head in ``raw``, dechunked if it says so, by rules of our own. Source: RFC 9112."""
    head = b""
    while not re.match(rb"HTTP/1\.\d +(101|[2-9]\d\d)", head):
        head, end, raw = next(iter(re.findall(rb"(?s)\A(.*?\n)(\r?\n)(.*)", raw)), (b"", b"", b""))
        assert end, "what was accepted has no head"
    if not re.search(rb"^transfer-encoding:", head, re.IGNORECASE | re.MULTILINE):
        return raw
    content = b""
    while chunk := re.match(rb"([0-9a-fA-F]+)[ \t]*(;[^\n]*)?\r?\n", raw):
        size = int(chunk[1], 16)
        if size == 0:
            return content
        content, raw = content + raw[chunk.end() :][:size], raw[chunk.end() + size :]
        assert raw.startswith(b"\r\n"), "a chunk without its end was accepted"
        raw = raw[2:]
    raise AssertionError("a chunk without a size was accepted")


def ask(transport: Transport, url: str) -> bytes | None:
    """Return the ten bytes of an answer that keeps every promise, else None."""
    try:
        response = transport.open(Request(url), (("Range", "bytes=0-9"),))
        try:
            check_partial(response.status, response.headers, url, 0, 10, 10)
            view = memoryview(bytearray(11))
            count = response.readinto(view)
        finally:
            response.finish()
    except FastdlError:
        return None
    return bytes(view[:count]) if count == 10 else None


def fuzz(examples: int) -> None:
    """Send so many answers."""
    now = [b""]

    def handle(exchange: Exchange) -> None:
        exchange.send(now[0])
        exchange.close()

    with serving(handle) as server, client(read_timeout=PATIENCE) as transport:

        @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
        @given(ANSWERS)
        @example(RIGHT + b"Content-Length: 10\r\n\r\n" + BODY)
        @example(RIGHT + b"Transfer-Encoding: chunked\r\n\r\n0xa\r\n0123456789\r\n0\r\n\r\n")
        @example(RIGHT + b"Transfer-Encoding: chunked\r\n\r\n5\r\n01234XX5\r\n56789\r\n0\r\n\r\n")
        @example(b"HTTP/1.\x011" + RIGHT[8:] + b"Content-Length: 10\r\n\r\n" + BODY)
        @example(RIGHT + b"Transfer-Encoding: chunked\r\n\r\n-5\r\n0123456789\r\n0\r\n\r\n")
        def attempt(raw: bytes) -> None:
            now[0] = raw
            began = time.monotonic()
            got = ask(transport, server.url())
            assert time.monotonic() - began < 2 * PATIENCE
            assert got is None or got == content_of(raw)[:10]

        attempt()


def test_any_answer_is_an_error_of_ours_or_the_very_body() -> None:
    """A few hundred connections."""
    fuzz(250)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_any_answer_at_length() -> None:
    """The same, twenty thousand times."""
    fuzz(20_000)
