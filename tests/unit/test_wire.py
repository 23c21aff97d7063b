"""A connection's bytes: large pieces by one call, small ones as they come, and a timeout whoever keeps it."""

from __future__ import annotations

import fcntl
import io
import socket
import ssl
import struct
import termios
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from fastdl.errors import NetworkError
from fastdl.messages import Request
from fastdl.wire import Wire
from tests.servers.scripted import Handler, Pattern, ranged, script, serving, stall_after, stall_before_head
from tests.servers.tls import Certificate, certificate
from tests.unit.asking import DATA, client, read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SMALL = io.DEFAULT_BUFFER_SIZE
LARGE = 12 * SMALL
HUGE = 4 << 20  # more than a connection holds on its way
BODY = bytes(Pattern(HUGE).read(0, HUGE))
SHORT = 0.05  # seconds of a timeout that is meant to run out
PATIENCE = 20.0  # seconds; only failing tests take as long


class Counting(socket.socket):
    """A socket that knows how often it was asked for bytes, and how."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(fileno=sock.detach())
        self.flags: list[int] = []

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """Note the flags, and receive."""
        self.flags.append(flags)
        return super().recv_into(buffer, nbytes, flags)


@contextmanager
def connected(kind: str = "unix") -> Iterator[tuple[Counting, socket.socket]]:
    """Yield both ends of a connection, ours first."""
    if kind == "unix":
        ours, theirs = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ours = socket.create_connection(listener.getsockname())
            theirs, _ = listener.accept()
    with Counting(ours) as counting, theirs:
        yield counting, theirs


@contextmanager
def streaming(sock: socket.socket) -> Iterator[Wire]:
    """Yield a stream of a socket as fastdl makes one."""
    with Wire(sock.makefile("rb", buffering=0), sock) as stream:
        yield stream


@contextmanager
def meanwhile(what: Callable[[], object]) -> Iterator[None]:
    """Do something in another thread, which must end with the block."""
    thread = threading.Thread(target=what, daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join(PATIENCE)
    assert not thread.is_alive()


@contextmanager
def secured(pem: Certificate) -> Iterator[tuple[ssl.SSLSocket, ssl.SSLSocket]]:
    """Yield both ends of a connection with TLS, ours first."""
    ours, theirs = socket.socketpair()
    served: list[ssl.SSLSocket] = []
    with meanwhile(lambda: served.append(pem.server_context().wrap_socket(theirs, server_side=True))):
        secure = pem.client_context().wrap_socket(ours, server_hostname="localhost")
    with secure, served[0]:
        secure.settimeout(PATIENCE)
        yield secure, served[0]


def in_pieces(sock: socket.socket, nbytes: int = 10_007) -> Callable[[], None]:
    """Send the body piece by piece."""

    def send() -> None:
        for start in range(0, HUGE, nbytes):
            sock.sendall(BODY[start : start + nbytes])

    return send


def had_by(stream: Wire, nbytes: int) -> bytes:
    """Receive by one call."""
    buffer = bytearray(nbytes)
    return bytes(buffer[: stream.readinto(memoryview(buffer))])


def unread(sock: socket.socket) -> int:
    """Return how many bytes are there to be read."""
    count: int = struct.unpack("i", fcntl.ioctl(sock, termios.FIONREAD, bytes(4)))[0]
    return count


def kernel_timeout(sock: socket.socket) -> float:
    """Return for how many seconds the kernel waits; 0 is for ever."""
    option = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.calcsize("ll"))
    seconds, microseconds = struct.unpack("ll", option)
    return float(seconds + microseconds / 1e6)


@pytest.mark.parametrize("timeout", [None, PATIENCE])
@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_a_large_read_is_filled_by_one_call(kind: str, timeout: float | None) -> None:
    """Though the peer sends in pieces, of which fewer are under way at once than were asked for."""
    with connected(kind) as (ours, theirs), streaming(ours) as stream:
        ours.settimeout(timeout)
        with meanwhile(in_pieces(theirs)):
            assert had_by(stream, HUGE) == BODY
        assert ours.flags == [socket.MSG_WAITALL]


@pytest.mark.parametrize("timeout", [None, PATIENCE])
@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_the_end_of_the_stream_is_a_short_count_and_then_none(kind: str, timeout: float | None) -> None:
    """A large read does not wait for what cannot come any more; afterwards every read is empty."""
    with connected(kind) as (ours, theirs), streaming(ours) as stream:
        ours.settimeout(timeout)
        theirs.sendall(BODY[:LARGE])
        theirs.shutdown(socket.SHUT_WR)
        assert had_by(stream, 2 * LARGE) == BODY[:LARGE]
        assert [had_by(stream, nbytes) for nbytes in (LARGE, 10, LARGE)] == [b"", b"", b""]


@pytest.mark.parametrize("nbytes", [10, SMALL, SMALL + 1, LARGE])
@pytest.mark.parametrize("switched", [False, True])
def test_silence_is_a_timeout(nbytes: int, *, switched: bool) -> None:
    """Of small and large reads, also after a large one, from which on the kernel keeps the time."""
    with connected() as (ours, theirs), streaming(ours) as stream:
        ours.settimeout(SHORT)
        if switched:
            theirs.sendall(BODY[:LARGE])
            assert had_by(stream, LARGE) == BODY[:LARGE]
            assert ours.gettimeout() is None
        for _ in range(2):
            with pytest.raises(TimeoutError):
                stream.readinto(bytearray(nbytes))


def test_what_came_before_the_silence_is_not_lost() -> None:
    """A large read that runs out of time returns what it has; only the next one fails."""
    with connected() as (ours, theirs), streaming(ours) as stream:
        ours.settimeout(SHORT)
        theirs.sendall(BODY[:10_000])
        assert had_by(stream, LARGE) == BODY[:10_000]
        with pytest.raises(TimeoutError):
            stream.readinto(bytearray(LARGE))
        theirs.sendall(BODY[10_000:10_010])
        assert had_by(stream, LARGE) == BODY[10_000:10_010]


@pytest.mark.parametrize("nbytes", [10, SMALL])
@pytest.mark.parametrize("switched", [False, True])
def test_a_small_read_takes_what_is_there(nbytes: int, *, switched: bool) -> None:
    """A head is shorter than the buffer it is read into: nobody may wait for more of it."""
    with connected() as (ours, theirs), streaming(ours) as stream:
        ours.settimeout(PATIENCE)
        if switched:
            theirs.sendall(BODY[:LARGE])
            stream.readinto(bytearray(LARGE))
        theirs.sendall(b"head")
        assert had_by(stream, nbytes) == b"head"
        theirs.sendall(BODY[:SMALL])
        assert had_by(stream, nbytes) == BODY[:nbytes]
        assert ours.flags[-2:] == [0, 0]


@pytest.mark.parametrize("timeout", [0.25, 1.5, 20])
def test_the_kernel_gets_the_sockets_own_timeout(timeout: float) -> None:
    """And, where somebody sets another one for the next request, that."""
    with connected() as (ours, theirs), streaming(ours) as stream:
        for seconds in (8.0, timeout):
            ours.settimeout(seconds)
            theirs.sendall(BODY[:LARGE])
            assert had_by(stream, LARGE) == BODY[:LARGE]
            assert seconds <= kernel_timeout(ours) <= seconds + 0.011  # it counts in ticks of at most 10 ms


def test_the_shortest_timeout_is_not_none() -> None:
    """To the kernel zero means to wait for ever."""
    with connected() as (ours, _), streaming(ours) as stream:
        ours.settimeout(1e-7)
        with pytest.raises(TimeoutError):
            stream.readinto(bytearray(LARGE))


def test_without_a_timeout_none_is_set() -> None:
    """Who waits for ever goes on doing so."""
    with connected() as (ours, theirs), streaming(ours) as stream:
        ours.settimeout(None)
        theirs.sendall(BODY[:LARGE])
        assert had_by(stream, LARGE) == BODY[:LARGE]
        assert kernel_timeout(ours) == 0


def test_a_blocked_reader_is_woken_by_a_shutdown() -> None:
    """That is how another thread aborts it: it gets what had come, and then the end."""
    got: list[bytes] = []
    with connected("tcp") as (ours, theirs), streaming(ours) as stream:
        theirs.sendall(BODY[:SMALL])
        ours.recv(SMALL, socket.MSG_PEEK | socket.MSG_WAITALL)
        ours.settimeout(PATIENCE)
        with meanwhile(lambda: got.extend((had_by(stream, LARGE), had_by(stream, LARGE)))):
            deadline = time.monotonic() + PATIENCE
            while unread(ours):  # the first call waits for the rest once it took what there is
                assert time.monotonic() < deadline
                time.sleep(0.001)
            ours.shutdown(socket.SHUT_RD)
    assert got == [BODY[:SMALL], b""]


def test_the_socket_stays_open_as_long_as_the_stream() -> None:
    """http.client closes it behind the head of an answer whose body is still to come."""
    with connected() as (ours, theirs), streaming(ours) as stream:
        theirs.sendall(BODY[:LARGE])
        ours.close()
        assert ours.fileno() >= 0
        assert had_by(stream, LARGE) == BODY[:LARGE]
        stream.close()
        assert (stream.closed, ours.fileno()) == (True, -1)
        assert theirs.recv(1) == b""
        stream.close()


def test_the_end_of_a_stream_is_not_the_sockets() -> None:
    """The connection serves the next answer, which gets a stream of its own."""
    with connected() as (ours, theirs):
        ours.settimeout(PATIENCE)
        for _ in range(2):
            theirs.sendall(BODY[:LARGE])
            with streaming(ours) as stream:
                assert had_by(stream, LARGE) == BODY[:LARGE]
        ours.sendall(b"again")
        assert theirs.recv(5) == b"again"
        assert ours.fileno() >= 0


def test_a_buffered_reader_loses_nothing_between_small_and_large() -> None:
    """Some of the body comes with the head, into the reader's buffer; closed, it lets go of the socket."""
    head = b"HTTP/1.1 200 OK\r\n"
    with connected() as (ours, theirs):
        ours.settimeout(PATIENCE)
        reader = io.BufferedReader(Wire(ours.makefile("rb", buffering=0), ours))

        def send() -> None:
            theirs.sendall(head + BODY[:1000])
            theirs.sendall(BODY[1000:])

        with meanwhile(send):
            assert reader.readline() == head
            assert reader.read(5) == BODY[:5]
            buffer = bytearray(HUGE - 5)
            assert reader.readinto(buffer) == HUGE - 5
        assert buffer == BODY[5:]
        ours.close()
        reader.close()
        assert ours.fileno() == -1


def test_tls_records_fill_a_large_read() -> None:
    """A record holds 16 KiB at most, and a call still brings all; small reads bring one record or less."""
    with certificate() as pem, secured(pem) as (ours, theirs), streaming(ours) as stream:
        with meanwhile(in_pieces(theirs)):
            assert had_by(stream, HUGE) == BODY
        theirs.sendall(b"head")
        assert had_by(stream, SMALL) == b"head"


@pytest.mark.parametrize("nbytes", [10, LARGE])
def test_silence_under_tls_is_a_timeout(nbytes: int) -> None:
    """As ever, also after a large read: there the kernel cannot keep the time, and need not."""
    with certificate() as pem, secured(pem) as (ours, theirs), streaming(ours) as stream:
        with meanwhile(lambda: theirs.sendall(BODY[:LARGE])):
            assert had_by(stream, LARGE) == BODY[:LARGE]
        ours.settimeout(SHORT)
        with pytest.raises(TimeoutError):
            stream.readinto(bytearray(nbytes))


def test_the_end_of_tls_is_a_short_count_and_then_none() -> None:
    """If the peer says so."""
    with certificate() as pem, secured(pem) as (ours, theirs), streaming(ours) as stream:

        def send() -> None:
            theirs.sendall(BODY[:LARGE])
            theirs.unwrap()

        with meanwhile(send):
            assert had_by(stream, 2 * LARGE) == BODY[:LARGE]
            assert [had_by(stream, nbytes) for nbytes in (LARGE, 10)] == [b"", b""]
            ours.unwrap().close()


def test_an_end_of_tls_that_nobody_declared_is_an_error() -> None:
    """Where it must tell the end of a body, it may be anybody's doing."""
    with certificate() as pem, secured(pem) as (ours, theirs), streaming(ours) as stream:
        ours.suppress_ragged_eofs = False  # type: ignore[attr-defined] # public, yet unknown to typeshed
        with meanwhile(lambda: theirs.sendall(BODY[:LARGE])):
            assert had_by(stream, LARGE) == BODY[:LARGE]
        theirs.close()
        with pytest.raises(ssl.SSLError, match=r"(?i)EOF"):  # SSLEOFError, but for Python 3.11.2
            stream.readinto(bytearray(LARGE))


@pytest.mark.parametrize("fault", [stall_before_head(), stall_after(100_000)])
@pytest.mark.parametrize("secure", [False, True])
def test_the_next_request_of_a_connection_has_its_timeout_too(fault: Handler, *, secure: bool) -> None:
    """A body that was read by large pieces leaves the connection as it was."""
    with (
        certificate() as pem,
        serving(script({3: fault}, otherwise=ranged(DATA)), tls=pem.server_context() if secure else None) as server,
        client(cacert=str(pem.ca), read_timeout=0.4) as transport,
    ):
        for _ in range(2):
            assert read(transport.open(Request(server.url()))) == DATA
        with pytest.raises(NetworkError, match=r"no progress|timed out"):
            read(transport.open(Request(server.url())))
        assert [seen.connection for seen in server.log] == [1, 1, 1]
