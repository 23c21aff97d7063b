"""A threaded HTTP/1.1 server on raw sockets that logs every request and leaves the answer to a handler."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager, suppress
from functools import partial
from http.client import parse_headers
from io import BytesIO
from typing import TYPE_CHECKING

from tests.servers.exchange import Exchange, Handler, Seen
from tests.servers.ranges import parse_range

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

PATIENCE = 10.0  # seconds until a wait of a test counts as a hang; only failing tests ever take as long
_HEAD_LIMIT = 1 << 20  # bytes; more than any client here may send


class Server:
    """A listening server; :func:`serving` starts and stops it."""

    def __init__(self, handler: Handler, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        """Bind a port of the kernel's choice; nothing is accepted before ``start()``."""
        self._handler, self._tls, self.host = handler, tls, host
        self._listener = socket.create_server((host, 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self.stopping = threading.Event()
        self._changed = threading.Condition()  # re-entrant; guards everything below
        self._log: list[Seen] = []
        self._errors: list[Exception] = []
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._connections = self._sent = 0

    def url(self, path: str = "/object") -> str:
        """Make the URL of a path on this server."""
        return f"{'https' if self._tls else 'http'}://{self.host}:{self.port}{path}"

    @property
    def log(self) -> tuple[Seen, ...]:
        """All requests so far, in the order of their numbers."""
        with self._changed:
            return tuple(self._log)

    @property
    def connections(self) -> int:
        """How many connections were accepted so far."""
        with self._changed:
            return self._connections

    @property
    def open_connections(self) -> int:
        """How many connections are open now."""
        with self._changed:
            return len(self._open)

    @property
    def sent(self) -> int:
        """How many bytes of bodies went to the kernel; never less than clients received, exact between two answers."""
        with self._changed:
            return self._sent

    def wait_for(self, count: int, timeout: float = PATIENCE) -> tuple[Seen, ...]:
        """Wait for ``count`` requests in all and return the log.

        Raises:
            TimeoutError: fewer came within ``timeout`` seconds.
        """
        self.wait_until(lambda: len(self._log) >= count, timeout)
        return self.log

    def wait_until(self, condition: Callable[[], bool], timeout: float = PATIENCE) -> None:
        """Wait until ``condition`` holds; asked again at every request, body byte, connection and disconnection.

        Raises:
            TimeoutError: it did not within ``timeout`` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(condition, timeout):
                message = (
                    f"not within {timeout} s; seen: {[(seen.method, seen.target, seen.range) for seen in self._log]}"
                )
                raise TimeoutError(message)

    def start(self) -> None:
        """Accept from now on."""
        self._spawn(self._accept)

    def stop(self) -> None:
        """End the listener and all connections; no thread stays.

        Raises:
            RuntimeError: a handler blocks on something other than its exchange.
        """
        self.stopping.set()
        with self._changed:
            for conn in (self._listener, *self._open):
                with suppress(OSError):
                    socket.socket.shutdown(conn, socket.SHUT_RDWR)  # not SSLSocket's: its thread may be inside it
        deadline = time.monotonic() + PATIENCE
        while self._threads:
            thread = self._threads.pop()
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                message = f"{thread.name}: a handler does not end; let it wait by exchange.hold()"
                raise RuntimeError(message)
        self._listener.close()

    @property
    def errors(self) -> tuple[Exception, ...]:
        """Bugs of handlers so far; clients that break off are none."""
        with self._changed:
            return tuple(self._errors)

    def _count(self, sent: int) -> None:
        with self._changed:
            self._sent += sent
            self._changed.notify_all()

    def _spawn(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, name=f"server on port {self.port}", daemon=True)
        thread.start()
        self._threads.append(thread)

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                conn, _ = self._listener.accept()
            except OSError:  # stop() shut the listener down, or a client left before it was accepted
                continue
            with self._changed:
                if self.stopping.is_set():
                    conn.close()
                    return
                self._connections += 1
                self._open.add(conn)
                self._changed.notify_all()
                number = self._connections
            self._spawn(partial(self._serve, conn, number))

    def _serve(self, conn: socket.socket, number: int) -> None:
        stream = conn
        try:
            conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                with self._changed:  # before the handshake, so that stop() can end one that stalls
                    stream = self._tls.wrap_socket(conn, server_side=True, do_handshake_on_connect=False)
                    self._open = (self._open - {conn}) | {stream}
                stream.do_handshake()
            for request in self._requests(stream, number):
                exchange = Exchange(stream, request, self.stopping, self._count)
                self._handler(exchange)
                if not (exchange.persistent and exchange.answered):
                    break
        except OSError:
            pass  # the client went away or the handler ended the connection; the log has what a test may ask
        except Exception as error:  # noqa: BLE001 - a bug in a handler must fail the test, not print in a thread
            with self._changed:
                self._errors.append(error)
        finally:
            with self._changed:
                self._open -= {conn, stream}
                stream.close()
                self._changed.notify_all()

    def _requests(self, conn: socket.socket, number: int) -> Iterator[Seen]:
        pending = b""
        while True:
            while b"\r\n\r\n" not in pending:
                data = conn.recv(65536)
                if not data or len(pending) > _HEAD_LIMIT:
                    return
                pending += data
            head, _, pending = pending.partition(b"\r\n\r\n")
            line, _, rest = head.partition(b"\r\n")
            method, target, _ = line.decode("latin-1").split(" ")
            headers: dict[str, str] = {}
            for name, value in parse_headers(BytesIO(rest + b"\r\n\r\n")).items():
                key = name.lower()
                headers[key] = f"{headers[key]}, {value}" if key in headers else value
            length = int(headers.get("content-length", "0"))
            while len(pending) < length:
                data = conn.recv(65536)
                if not data:
                    return
                pending += data
            body, pending = pending[:length], pending[length:]
            with self._changed:
                asked = parse_range(headers.get("range"))
                seen = Seen(len(self._log) + 1, number, method, target, headers, asked, body, head)
                self._log.append(seen)
                self._changed.notify_all()
            yield seen


@contextmanager
def running(server: Server) -> Iterator[None]:
    """Start a server and stop it at the end of the block, which also raises what a handler raised."""
    server.start()
    try:
        yield
    except BaseException as error:
        for bug in server.errors:  # most likely the cause of what the client saw
            error.add_note(f"the handler had raised {bug!r}")
        raise
    finally:
        server.stop()
    if server.errors:
        raise server.errors[0]


@contextmanager
def serving(handler: Handler, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """Serve by ``handler`` on a port of the kernel's choice until the end of the block."""
    server = Server(handler, host, tls)
    with running(server):
        yield server
