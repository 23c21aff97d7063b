"""Bodies straight into the caller's buffer, and the connections they come over."""

from __future__ import annotations

import gc
import gzip
import socket
import threading
import time
import tracemalloc
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import urllib3

from fastdl.errors import NetworkError, ProtocolError
from fastdl.messages import Request
from tests.servers.scripted import (
    Exchange,
    Handler,
    Pattern,
    chunked,
    closes_afterwards,
    hang_up,
    informational,
    no_length,
    ranged,
    raw,
    reset,
    reset_after,
    routes,
    script,
    serving,
    stall_after,
    stall_before_head,
    status,
    truncate_after,
)
from tests.servers.tls import certificate
from tests.unit.asking import DATA, client, fetch, read, spoilt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastdl.http import Response, Transport


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


def test_an_end_of_our_own_making_ends_no_body() -> None:
    """Of a body without a length the end of the connection is the end: not if it was this side that broke it."""

    def unfinished(exchange: Exchange) -> None:
        exchange.head(200, version="HTTP/1.0")
        exchange.send(DATA[:1000])
        exchange.hold(None)

    with serving(unfinished) as server, client(read_timeout=60.0) as transport:
        response = transport.open(Request(server.url()))
        assert response.readinto(memoryview(bytearray(1000))) == 1000
        response.abort()
        with pytest.raises(NetworkError, match="no progress"):
            response.readinto(memoryview(bytearray(1000)))


def test_a_redirect_whose_body_stands_still_is_not_followed() -> None:
    """Each of eleven could cost the whole timeout."""

    def stalling(exchange: Exchange) -> None:
        exchange.head(302, {"Location": "/object", "Content-Length": "9"})
        exchange.hold(None)

    with serving(stalling) as server, client(read_timeout=0.2) as transport:
        with pytest.raises(NetworkError, match="no progress"):
            transport.open(Request(server.url()))
        assert len(server.log) == 1


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
    assert excerpt in (b"", DATA[:10])


def test_an_excerpt_is_bounded() -> None:
    """Of an endless error body only the head is read."""
    with serving(ranged(Pattern(2**40))) as server, client() as transport:
        assert len(transport.open(Request(server.url())).excerpt(1000)) == 1000


def test_a_pool_that_is_closed_under_a_request_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """By close(), in the moment between finding the pool and using it."""
    with serving(ranged(DATA)) as server, client() as transport:
        find, found = transport._manager.connection_from_host, []

        def close_first(*arguments: Any) -> Any:
            found.append(find(*arguments))
            if len(found) == 1:
                transport.close()
                found[0].close()
            return found[-1]

        monkeypatch.setattr(transport._manager, "connection_from_host", close_first)
        assert read(transport.open(Request(server.url()))) == DATA
        assert len(found) == 2
        assert len(server.log) == 1


def test_a_failure_of_urllib3s_without_a_cause_is_no_idle_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told, and not asked again."""
    with client() as transport:
        pool = transport._manager.connection_from_host("127.0.0.1", 1, "http", None)
        asked = []

        def fail(*_: object, **__: object) -> None:
            asked.append(1)
            raise urllib3.exceptions.ProtocolError("said so")

        monkeypatch.setattr(pool, "urlopen", fail)
        monkeypatch.setattr(transport._manager, "connection_from_host", lambda *_: pool)
        with pytest.raises(NetworkError, match="said so"):
            transport.open(Request("http://127.0.0.1:1/"))
        assert asked == [1]


def test_an_excerpt_takes_up_to_64_kib() -> None:
    """All of an error's body that says anything, and no more."""
    with serving(ranged(DATA)) as server, client() as transport:
        assert transport.open(Request(server.url())).excerpt() == DATA[:65_536]
        server.wait_until(lambda: server.open_connections == 0)


def test_an_excerpt_of_a_short_body_gives_the_connection_back() -> None:
    """Refusals are asked again: each would cost a handshake."""
    with serving(status(503, {}, b"busy")) as server, client() as transport:
        for _ in range(3):
            assert transport.open(Request(server.url())).excerpt() == b"busy"
        assert server.connections == 1


def test_a_redirects_body_is_read_so_that_its_connection_goes_on() -> None:
    """One connection for the redirect and its target, however often."""

    def moved(exchange: Exchange) -> None:
        exchange.reply(302, {"Location": "/b", "Content-Length": "5"}, [b"moved"])

    with serving(routes({"/object": moved, "/b": ranged(DATA)})) as server, client() as transport:
        for _ in range(3):
            assert read(transport.open(Request(server.url()))) == DATA
        assert server.connections == 1


def test_what_a_broken_connection_says_in_its_body_names_no_secret() -> None:
    """Errors inside a body are told with the URL as it may be shown."""
    with serving(spoilt(reset_after(1000))) as server, client() as transport:
        response = transport.open(Request(server.url("/x?token=s3cr3t")))
        with pytest.raises(NetworkError) as caught:
            read(response)
    assert server.url("/x") in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


def test_a_body_is_sent_with_its_request() -> None:
    """A restoration is asked for with a POST."""
    with serving(status(202)) as server, client() as transport:
        response = transport.open(Request(server.url(), method="POST", body=b"<Days>1</Days>", follow=False))
        response.finish()
        assert (response.status, server.log[0].method) == (202, "POST")
        assert server.log[0].headers["content-length"] == "14"


def test_requests_without_a_body_promise_none() -> None:
    """A GET with a length is refused by some servers."""
    with serving(ranged(DATA)) as server:
        fetch(server.url())
        assert "content-length" not in server.log[0].headers
        assert "transfer-encoding" not in server.log[0].headers


def test_a_refusals_headers_have_lower_case_names_and_its_text_the_status() -> None:
    """Sources look them up by such names."""
    with serving(status(404, {"X-Oss-EC": "1", "ETag": '"x"'}, b"gone")) as server, client() as transport:
        response = transport.open(Request(server.url()))
        refused = response.refused()
        assert str(refused) == f"{server.url()} answered status 404"
        assert {"x-oss-ec", "etag"} <= set(refused.headers)
        assert all(name == name.lower() for name in refused.headers)


def test_a_connect_that_takes_too_long_is_given_up_by_its_own_timeout() -> None:
    """A host that swallows packets must not hold a connection for the read timeout."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(3)]
        try:
            for each in waiting:  # the kernel accepts no more than the backlog
                each.settimeout(0)
                each.connect_ex(("127.0.0.1", port))
            began = time.monotonic()
            with pytest.raises(NetworkError):
                fetch(f"http://127.0.0.1:{port}/", connect_timeout=0.2, read_timeout=60.0)
            assert time.monotonic() - began < 20
        finally:
            for each in waiting:
                each.close()


@pytest.mark.parametrize(
    ("handler", "nothing"), [(no_length(DATA), True), (ranged(DATA), False), (chunked(DATA), False)]
)
def test_what_ends_a_body_is_known(handler: Handler, *, nothing: bool) -> None:
    """A length or chunks; over TLS its own goodbye; else nothing, and a body cut short would look whole."""
    with (
        certificate() as pem,
        serving(handler) as plain,
        serving(handler, tls=pem.server_context()) as secure,
        client(cacert=str(pem.ca)) as transport,
    ):
        answers = [transport.open(Request(server.url())) for server in (plain, secure)]
        assert [answer.ended_by_nothing for answer in answers] == [nothing, False]
        for answer in answers:
            answer.finish()


def test_an_end_of_our_own_doing_is_no_end_of_a_body() -> None:
    """A body without a length ends with its connection, but not with an abort."""

    def endless(exchange: Exchange) -> None:
        exchange.head(200, {}, version="HTTP/1.0")
        exchange.body(DATA[:1000])
        exchange.hold(None)

    with serving(endless) as server, client(read_timeout=60.0) as transport:
        response = transport.open(Request(server.url()))
        buffer = memoryview(bytearray(1000))
        assert response.readinto(buffer) == 1000
        response.abort()
        with pytest.raises(NetworkError) as caught:
            response.readinto(buffer)
        response.finish()
    assert str(caught.value) == f"{server.url()}: no progress within the timeout"


def test_a_redirect_whose_body_stands_still_ends_the_request() -> None:
    """Eleven of them would be as many timeouts."""

    def moved(exchange: Exchange) -> None:
        exchange.head(302, {"Location": "/b", "Content-Length": "5"})
        exchange.hold(None)

    with serving(routes({"/object": moved, "/b": ranged(DATA)})) as server:
        with pytest.raises(NetworkError) as caught:
            fetch(server.url(), read_timeout=0.2)
        assert str(caught.value) == f"{server.url()}: no progress within the timeout"
        assert len(server.log) == 1


def test_a_coded_body_is_given_as_it_is() -> None:
    """Decoding is nobody's business here: bytes are compared with what was promised on the wire."""
    coded = gzip.compress(b"x" * 1000)
    with serving(ranged(coded, extra_headers={"Content-Encoding": "gzip"})) as server:
        assert fetch(server.url())[1] == coded


HEAD = b'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: "x"\r\n\r\n'


@pytest.mark.parametrize("cut", range(1, len(HEAD)))
def test_a_head_that_breaks_off_is_no_fault_of_what_it_says(cut: int) -> None:
    """Wherever it does: a line that is whole would be judged, half of one may become anything."""
    with serving(raw(HEAD[:cut])) as server, pytest.raises(NetworkError):
        fetch(server.url())


class Buffer(bytearray):
    """A buffer whose end can be seen."""


@pytest.mark.parametrize("fault", [reset_after(1000), chunked(DATA, b"zz\r\n")])
def test_an_error_lets_go_of_what_was_being_received(fault: Handler) -> None:
    """At once, not at some collection: it would keep buffers and sockets meanwhile."""
    with serving(spoilt(fault)) as server, client() as transport, without_collections():
        buffer = Buffer(len(DATA))
        gone = weakref.ref(buffer)
        assert _fails(transport, server.url(), buffer)
        del buffer
        assert gone() is None


def _fails(transport: Transport, url: str, buffer: Buffer) -> bool:
    response = transport.open(Request(url))
    try:
        while response.readinto(memoryview(buffer)):
            pass
    except NetworkError:
        return True
    finally:
        response.finish()
    return False


@contextmanager
def without_collections() -> Iterator[None]:
    """Let nothing be collected that refers to itself."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
