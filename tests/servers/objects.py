"""A fast and plain server of the files of one directory: ``python -m tests.servers.objects DIR --port 0``.

Standard library only. Bodies go out by sendfile; ``--rate`` paces each connection and ``--delay`` each first byte, so
that a test can stop a download half-way without racing it.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import threading
import time
from contextlib import contextmanager, suppress
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote, unquote, urlsplit

from tests.servers.ranges import clip_range, content_range, parse_range

if TYPE_CHECKING:
    from collections.abc import Iterator

_UNPACED = 4 << 20  # bytes per sendfile call: large against its cost, small against the precision of ``sent``
_TICKS = 50  # pauses per second of a paced connection: fine enough to stop it within a percent of a second's bytes


class ObjectServer(ThreadingHTTPServer):
    """The server; :func:`serving_objects` starts and stops it."""

    daemon_threads = False  # joined by server_close(), after stop() has shut their sockets down
    request_queue_size = 512

    def __init__(self, root: Path, rate: float | None = None, delay: float = 0.0, port: int = 0) -> None:
        """Bind; ``rate`` in bytes per second and connection, ``delay`` in seconds before each answer."""
        self.root, self.rate, self.delay = root.resolve(), rate, delay
        self.requests = 0
        self.sent = 0  # bytes of bodies; never less than clients received, exact between two answers
        self.lock = threading.Lock()  # guards requests, sent and the open sockets
        self.stopping = threading.Event()
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _ObjectHandler)

    def url(self, name: str = "") -> str:
        """Make the URL of a file."""
        return f"http://127.0.0.1:{self.server_port}/{quote(name)}"

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Accept a connection and remember it, for stop()."""
        conn, address = self.socket.accept()
        with self.lock:
            self._open.add(conn)
        return conn, address

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        """Close a connection and forget it."""
        with self.lock:
            self._open -= {conn for conn in self._open if conn is request}
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay silent about clients that break off; anything else is printed."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def count(self, sent: int) -> None:
        """Add to the bytes sent."""
        with self.lock:
            self.sent += sent

    def stop(self) -> None:
        """Stop accepting, end all connections and join their threads."""
        self.stopping.set()
        self.shutdown()
        with self.lock:
            for conn in self._open:
                with suppress(OSError):
                    conn.shutdown(socket.SHUT_RDWR)
        self.server_close()


class _ObjectHandler(BaseHTTPRequestHandler):
    """One connection."""

    server: ObjectServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "objects", ""
    disable_nagle_algorithm = True
    _due = 0.0  # monotonic seconds; when this paced connection may send again

    def do_GET(self) -> None:
        """Send a file or one range of it."""
        with self.server.lock:
            self.server.requests += 1
        self.server.stopping.wait(self.server.delay)
        path = (self.server.root / unquote(urlsplit(self.path).path).lstrip("/")).resolve()
        if not path.is_relative_to(self.server.root) or not path.is_file():
            self._head(404, {}, 0)
            return
        with path.open("rb") as file:
            self._answer(file, Path(f"{path}.crc64"))

    do_HEAD = do_GET  # noqa: N815 - the name http.server looks for

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - named by http.server
        """Print nothing."""

    def _answer(self, file: BinaryIO, crc64: Path) -> None:
        stat = os.fstat(file.fileno())
        size, modified = stat.st_size, formatdate(stat.st_mtime, usegmt=True)
        etag = f'"{stat.st_ino:x}-{stat.st_mtime_ns:x}-{size:x}"'
        fields = {"ETag": etag, "Last-Modified": modified, "Accept-Ranges": "bytes"}
        if crc64.is_file():
            fields["x-oss-hash-crc64ecma"] = crc64.read_text("ascii").strip()
        if self.headers.get("If-Match", etag) not in (etag, "*"):
            self._head(412, fields, 0)
            return
        asked = parse_range(self.headers.get("Range"))
        if asked is None or self.command != "GET" or self.headers.get("If-Range", etag) not in (etag, modified):
            self._head(200, fields, size)
            self._body(file, 0, size)
        elif (span := clip_range(asked, size)) is None:
            self._head(416, fields | {"Content-Range": f"bytes */{size}"}, 0)
        else:
            self._head(206, fields | {"Content-Range": content_range(*span, size)}, span[1] - span[0])
            self._body(file, *span)

    def _head(self, status: int, fields: dict[str, str], length: int) -> None:
        self.send_response(status)
        for name, value in (fields | {"Content-Length": str(length)}).items():
            self.send_header(name, value)
        self.end_headers()

    def _body(self, file: BinaryIO, start: int, stop: int) -> None:
        if self.command != "GET":
            return
        rate = self.server.rate
        step = _UNPACED if rate is None else max(1, int(rate / _TICKS))
        while start < stop:
            wanted, count = min(step, stop - start), 0
            self.server.count(wanted)  # before the bytes go: whoever has received them finds them counted
            try:
                count = os.sendfile(self.connection.fileno(), file.fileno(), start, wanted)
            finally:
                self.server.count(count - wanted)
            if count == 0:  # the file was truncated meanwhile
                self.close_connection = True
                return
            start += count
            if rate is not None:
                now = time.monotonic()
                self._due = max(now, self._due) + count / rate
                self.server.stopping.wait(self._due - now)


@contextmanager
def serving_objects(
    root: Path, *, rate: float | None = None, delay: float = 0.0, port: int = 0
) -> Iterator[ObjectServer]:
    """Serve the files of ``root`` until the end of the block."""
    server = ObjectServer(root, rate, delay, port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()


def main() -> None:
    """Print the URL and serve until stdin ends, SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m tests.servers.objects", description=main.__doc__)
    parser.add_argument("root", type=Path, metavar="DIR")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--rate", type=float, help="bytes per second and connection")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each answer")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    with serving_objects(options.root, rate=options.rate, delay=options.delay, port=options.port) as server:
        print(server.url(), flush=True)  # noqa: T201 - this line is the program's interface
        while os.read(sys.stdin.fileno(), 65536):
            pass


if __name__ == "__main__":
    main()
