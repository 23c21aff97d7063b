"""Bodies straight into the caller's buffer, and the connections they come over."""

from __future__ import annotations

import threading
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from fastdl.errors import NetworkError, ProtocolError
from fastdl.messages import Request
from tests.servers.scripted import (
    Handler,
    Pattern,
    chunked,
    closes_afterwards,
    hang_up,
    informational,
    ranged,
    raw,
    reset,
    reset_after,
    script,
    serving,
    stall_after,
    stall_before_head,
    status,
    truncate_after,
)
from tests.unit.asking import DATA, client, fetch, read, spoilt

if TYPE_CHECKING:
    from fastdl.http import Response


def test_a_body_is_received_into_the_very_buffer() -> None:
    """The canary against urllib3's next release: no copy of the body is made on the way."""
    pattern = Pattern(8 << 20)
    buffer = bytearray(pattern.size + 2)
    with serving(ranged(pattern)) as server, client() as transport:
        response = transport.open(Request(server.url()))
        tracemalloc.start()
        try:
            count = response.readinto(memoryview(buffer)[1:-1])
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        response.finish()
    assert count == pattern.size
    assert bytes(buffer[1:-1]) == pattern.read(0, pattern.size)
    assert (buffer[0], buffer[-1]) == (0, 0)
    assert peak < pattern.size // 4


def test_a_window_is_filled_up() -> None:
    """Short counts mean the end of the body, and 0 after it."""
    with serving(ranged(DATA)) as server, client() as transport:
        response = transport.open(Request(server.url()))
        window = bytearray(100_000)
        counts = [response.readinto(memoryview(window)) for _ in range(4)]
        response.finish()
    assert counts == [100_000, 100_000, 56_000, 0]


def test_a_chunked_body_is_received_whole() -> None:
    """The framing is not part of the bytes, and the connection can be used again."""
    with serving(chunked(DATA)) as server, client() as transport:
        assert read(transport.open(Request(server.url()))) == DATA
        assert read(transport.open(Request(server.url()))) == DATA
        assert server.connections == 1


@pytest.mark.parametrize("last", [b"", b"zz\r\n", b"5\r\nab"])
def test_a_chunked_body_without_its_end_is_broken(last: bytes) -> None:
    """The end of the connection is not the end of the body."""
    with serving(chunked(DATA, last)) as server, pytest.raises(NetworkError):
        fetch(server.url())


@pytest.mark.parametrize(
    "chunks",
    [
        *(b"5\r\n01234XX5\r\n56789\r\n0\r\n\r\n", b"5\r\n01234\n\n5\r\n56789\r\n0\r\n\r\n"),
        *(b"+a\r\n0123456789\r\n0\r\n\r\n", b"0xa\r\n0123456789\r\n0\r\n\r\n", b"1_0\r\n0123456789012345\r\n0\r\n\r\n"),
        *(b"5\r\n01234\r\n-5\r\n56789\r\n0\r\n\r\n", b"\xb9\r\n0\r\n0\r\n\r\n", b"1" + b"0" * 16 + b"\r\n0"),
    ],
)
def test_n4_a_chunk_is_digits_then_bytes_then_an_end(chunks: bytes) -> None:
    """http.client looks neither at a chunk's end nor closely at its size: what is read behind would be anything."""
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
    with serving(raw(answer)) as server, client() as transport:
        response = transport.open(Request(server.url()))
        with pytest.raises(NetworkError, match="the connection broke"):
            read(response)
        response.finish()


def test_an_answer_without_body_is_an_end_at_once() -> None:
    """Nothing to receive, and the connection stays usable."""
    with serving(ranged(b"")) as server, client() as transport:
        assert read(transport.open(Request(server.url()))) == b""
        assert read(transport.open(Request(server.url()))) == b""
        assert server.connections == 1


def test_a_body_cut_short_ends_early() -> None:
    """An early FIN is 0 bytes: the caller compares with what was promised."""
    with serving(spoilt(truncate_after(1000))) as server:
        assert fetch(server.url())[1] == DATA[:1000]


def test_a_connection_that_breaks_is_a_network_error() -> None:
    """Known to be transient, so that it is tried again."""
    with serving(spoilt(reset_after(1000))) as server, pytest.raises(NetworkError, match="the connection broke"):
        fetch(server.url())


@pytest.mark.parametrize("fault", [stall_after(1000), stall_before_head()])
def test_silence_is_a_network_error(fault: Handler) -> None:
    """After the read timeout, before and inside a body."""
    with serving(spoilt(fault)) as server, pytest.raises(NetworkError, match=r"no progress|timed out"):
        fetch(server.url(), read_timeout=0.2)


def test_nobody_there_is_a_network_error() -> None:
    """The reason is told, without addresses of objects in memory."""
    with serving(ranged(DATA)) as server:
        url = server.url()
    with pytest.raises(NetworkError, match="refused") as caught:
        fetch(url)
    assert "0x" not in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        *(b"junk\r\n\r\n", b"HTTP/1.1 abc OK\r\n\r\n", b"HTTP/1.1 99 Low\r\n\r\n", b"HTTP/1.1 1000 High\r\n\r\n"),
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 10**5 + b"\r\n\r\n",
    ],
)
def test_what_is_not_http_is_a_protocol_error(answer: bytes) -> None:
    """Junk, impossible statuses and endless heads are not retried and not believed."""
    with serving(raw(answer)) as server, pytest.raises(ProtocolError):
        fetch(server.url())


@pytest.mark.parametrize("code", [100, 102, 103])
def test_interim_answers_are_skipped(code: int) -> None:
    """They carry no meaning here; the final answer counts."""
    with serving(spoilt(informational(3, code))) as server:
        response, body = fetch(server.url())
    assert (response.status, body) == (200, DATA)


def test_a_flood_of_interim_answers_ends() -> None:
    """A server that never comes to the point has broken the protocol."""
    with serving(spoilt(informational(1000))) as server, pytest.raises(ProtocolError):
        fetch(server.url())


def test_a_body_read_to_its_end_gives_its_connection_back() -> None:
    """One handshake serves many requests."""
    with serving(ranged(DATA)) as server, client() as transport:
        for _ in range(3):
            read(transport.open(Request(server.url())))
        assert server.connections == 1


def test_a_body_not_read_to_its_end_closes_its_connection() -> None:
    """What is left of it never becomes the head of the next answer."""
    with serving(ranged(DATA)) as server, client() as transport:
        response = transport.open(Request(server.url()))
        response.readinto(memoryview(bytearray(10)))
        response.finish()
        server.wait_until(lambda: server.open_connections == 0)
        assert read(transport.open(Request(server.url()))) == DATA


def test_surplus_bytes_never_become_the_next_answer() -> None:
    """A server that sends more than it promised is not asked again on that connection."""
    surplus = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    with serving(spoilt(surplus)) as server, client() as transport:
        assert read(transport.open(Request(server.url()))) == b"ok"
        assert read(transport.open(Request(server.url()))) == DATA


@pytest.mark.parametrize("fault", [hang_up, reset])
def test_a_connection_closed_while_idle_is_replaced_unnoticed(fault: Handler) -> None:
    """The race between a server's idle timeout and our next request is nobody's failure."""
    with serving(script({2: fault}, otherwise=ranged(DATA))) as server, client() as transport:
        read(transport.open(Request(server.url())))
        assert read(transport.open(Request(server.url()))) == DATA
        assert [seen.connection for seen in server.log] == [1, 1, 2]


def test_a_connection_that_was_closed_long_ago_is_replaced() -> None:
    """Closed before our next request, it is not even tried."""
    with serving(spoilt(closes_afterwards)) as server, client() as transport:
        read(transport.open(Request(server.url())))
        server.wait_until(lambda: server.open_connections == 0)
        assert read(transport.open(Request(server.url()))) == DATA


def test_closing_ends_idle_connections_at_once_and_busy_ones_when_they_are_done() -> None:
    """Whoever still holds an old answer does not keep its connection; the next request opens another one."""
    with serving(ranged(DATA)) as server, client() as transport:
        first = transport.open(Request(server.url()))
        assert read(first) == DATA
        busy = transport.open(Request(server.url()))
        transport.close()
        assert server.open_connections == 1
        assert read(busy) == DATA
        server.wait_until(lambda: server.open_connections == 0)
        assert read(transport.open(Request(server.url()))) == DATA
        transport.close()
        server.wait_until(lambda: server.open_connections == 0)
        assert first.status == 200


def test_a_request_is_not_lost_to_a_close_at_the_same_moment() -> None:
    """Threads open and another one closes, again and again."""
    over = threading.Event()
    with serving(ranged(b"x")) as server, client() as transport:

        def close() -> None:
            while not over.is_set():
                transport.close()

        closing = threading.Thread(target=close)
        closing.start()
        try:
            answers = [read(transport.open(Request(server.url()))) for _ in range(200)]
        finally:
            over.set()
            closing.join()
    assert answers == [b"x"] * 200


@pytest.mark.parametrize("fault", [hang_up, reset])
def test_a_connection_is_replaced_only_once(fault: Handler) -> None:
    """A server that always hangs up is a network error after two requests."""
    with serving(fault) as server:
        with pytest.raises(NetworkError):
            fetch(server.url())
        assert len(server.log) == 2


def test_another_thread_can_wake_a_blocked_reader() -> None:
    """A stalled connection is broken from outside, long before its timeout."""
    outcome: list[object] = []

    def receive(response: Response) -> None:
        try:
            outcome.append(read(response))
        except NetworkError as error:
            outcome.append(error)

    with serving(spoilt(stall_after(1000))) as server, client(read_timeout=60.0) as transport:
        response = transport.open(Request(server.url()))
        thread = threading.Thread(target=receive, args=(response,))
        thread.start()
        server.wait_until(lambda: server.sent >= 1000)
        response.abort()
        response.abort()
        thread.join(10)
        assert not thread.is_alive()
    assert outcome == [DATA[:1000]] or isinstance(outcome[0], NetworkError)


def test_a_refusal_keeps_status_headers_and_the_head_of_the_body() -> None:
    """All that a source needs to explain it, bounded."""
    with serving(status(404, {"X-Oss-EC": "1"}, b"<Error/>")) as server, client() as transport:
        refused = transport.open(Request(server.url("/x?token=s3cr3t"))).refused()
    assert (refused.status, refused.headers["x-oss-ec"], refused.excerpt) == (404, "1", b"<Error/>")
    assert "s3cr3t" not in str(refused)


@pytest.mark.parametrize("fault", [reset_after(10), truncate_after(10)])
def test_an_excerpt_is_at_most_what_was_received(fault: Handler) -> None:
    """An error body that breaks is no error of its own, and is not made up for with zeros."""
    with serving(spoilt(fault)) as server, client() as transport:
        excerpt = transport.open(Request(server.url())).excerpt(100)
    assert DATA[:10].startswith(excerpt)


def test_an_excerpt_is_bounded() -> None:
    """Of an endless error body only the head is read."""
    with serving(ranged(Pattern(2**40))) as server, client() as transport:
        assert len(transport.open(Request(server.url())).excerpt(1000)) == 1000
