"""Servers that tests do not need: a line capped per connection, one that misbehaves, an object larger than the disk.

Plain and TLS scenarios use ``tests.servers.nginx`` as it is.
"""

from __future__ import annotations

import base64
import os
import socket
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tests.servers.nginx import Nginx
from tests.servers.program import free_port, program, running_program
from tests.servers.ranges import clip_range, content_range, parse_range

if TYPE_CHECKING:
    from collections.abc import Iterator

RATE = 10_000_000  # bytes per second and connection
DELAY = 0.05  # seconds to the first byte
CRAWL = 10_000  # bytes per second of the connection that crawls
STALLING, CRAWLING = 3, 5  # which connections misbehave, counted from 1 by their first requests
_MODULES = Path("/usr/lib/nginx/modules")
_DEADLINE = 10.0  # seconds for a server to answer
# nginx waits after each piece for as long as the piece should have taken, late by up to a millisecond, and not at all
# after the last piece of an answer. At 25 ms a piece both errors are a few per cent, in opposite directions.
_PIECE = 250_000
_CRAWLING_PIECE = 1_000
_TURN = 256 * 1024  # bytes that a connection of a shared line sends at a time
_LATE = 0.005  # seconds of its rate that a shared line makes up for: sleeps end late

_CONFIG = """\
{user}daemon off;
worker_processes 2;
pid {prefix}/nginx.pid;
error_log {prefix}/error.log warn;
load_module {modules}/ndk_http_module.so;
load_module {modules}/ngx_http_lua_module.so;
events {{ worker_connections 4096; }}
http {{
    log_format bytes '$body_bytes_sent';
    access_log off;
    client_body_temp_path {prefix}/body; proxy_temp_path {prefix}/proxy; fastcgi_temp_path {prefix}/fastcgi;
    uwsgi_temp_path {prefix}/uwsgi; scgi_temp_path {prefix}/scgi;
    default_type application/octet-stream;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 100000;
    limit_conn_zone $server_name zone=all:1m;
    limit_conn_status 503;
    lua_shared_dict numbers 1m;
    server {{
        listen 127.0.0.1:{port} backlog=512;
        server_name localhost;
        root "{root}";
        location / {{
            access_log {prefix}/access.log bytes;
            limit_rate {rate};
            sendfile_max_chunk {piece};
            {limit}
            access_by_lua_block {{
                ngx.sleep({delay})
                {misbehaviour}
            }}
        }}
        location @stall {{
            access_log {prefix}/access.log bytes; limit_rate 1; limit_rate_after {piece}; sendfile_max_chunk {piece};
        }}
        location @crawl {{
            access_log {prefix}/access.log bytes; limit_rate {crawl}; sendfile_max_chunk {crawling_piece};
        }}
        location = /forget {{ content_by_lua_block {{ ngx.shared.numbers:flush_all() }} }}
    }}
}}
"""
_MISBEHAVIOUR = f"""
                local numbers, own = ngx.shared.numbers, ngx.var.connection
                if not numbers:get(own) then numbers:set(own, numbers:incr("count", 1, 0)) end
                local number = numbers:get(own)
                if number == {STALLING} then return ngx.exec("@stall") end
                if number == {CRAWLING} then return ngx.exec("@crawl") end"""


@contextmanager
def capped_line(root: Path, *, limit_conn: int | None = None, misbehaving: bool = False) -> Iterator[Nginx]:
    """Serve ``root`` at RATE for each connection, DELAY before each answer, 503 beyond ``limit_conn`` busy connections.

    ``misbehaving``: the third connection stalls after 250 kB, the fifth crawls; GET /forget starts the count anew.

    Raises:
        RuntimeError: nginx or its Lua module is missing, or did not start.
    """
    binary = program("nginx", "nginx-light")
    if not (_MODULES / "ngx_http_lua_module.so").exists():
        raise RuntimeError("nginx's Lua module is missing: apt-get install libnginx-mod-http-lua")
    with TemporaryDirectory(prefix="fastdl-line-", ignore_cleanup_errors=True) as folder:
        server = Nginx(free_port(), Path(folder), None)
        config = _CONFIG.format(
            user="user root;\n" if os.geteuid() == 0 else "",
            prefix=folder,
            modules=_MODULES,
            port=server.port,
            root=root.resolve(),
            rate=RATE,
            piece=_PIECE,
            delay=DELAY,
            limit="" if limit_conn is None else f"limit_conn all {limit_conn};",
            misbehaviour=_MISBEHAVIOUR if misbehaving else "",
            crawl=CRAWL,
            crawling_piece=_CRAWLING_PIECE,
        )
        Path(folder, "nginx.conf").write_text(config)
        command = [binary, "-p", folder, "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf"]
        with running_program(command, server.port, Path(folder, "output")):
            yield server


def bytes_sent(server: Nginx) -> int:
    """Return how many bytes of bodies a capped line sent so far; exact once all connections are closed."""
    return sum(int(line) for line in server.access_log)


def forget(server: Nginx) -> None:
    """Let a misbehaving line count connections anew, and start its log anew."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=_DEADLINE) as conn:
        conn.sendall(b"GET /forget HTTP/1.0\r\n\r\n")
        while conn.recv(65536):
            pass
    with suppress(FileNotFoundError):
        os.truncate(server.prefix / "access.log", 0)


@contextmanager
def repeating(piece: Path, rate: int = 0) -> Iterator[str]:
    """Serve ``/SIZE`` for any size: the bytes of ``piece`` again and again, so that 16 GiB need no 16 GiB of cache.

    All connections together get ``rate`` bytes a second; 0 is no limit. ``/SIZE/SHA256`` promises that digest.
    """
    port = free_port()
    command = [sys.executable, "-m", "bench.servers", str(piece), str(port), str(rate)]
    with running_program(command, port, piece.with_name("output")):
        yield f"http://127.0.0.1:{port}/"


class _Pace:
    """The rate of all connections together."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._due = 0.0
        self._lock = threading.Lock()

    def allowed(self, nbytes: int) -> int:
        """Wait for one's turn; return how many of ``nbytes`` may be sent now."""
        if not self._rate:
            return nbytes
        nbytes = min(nbytes, _TURN)
        with self._lock:
            now = time.monotonic()
            self._due = max(self._due, now - _LATE) + nbytes / self._rate
            wait = self._due - now
        if wait > 0:
            time.sleep(wait)
        return nbytes


def _serve(piece: str, port: int, rate: int) -> None:
    """Answer for ever, one thread a connection."""
    file = os.open(piece, os.O_RDONLY)
    pace = _Pace(rate)
    with socket.create_server(("127.0.0.1", port), backlog=512) as listener:
        while True:
            conn, _ = listener.accept()
            threading.Thread(target=_answer, args=(conn, file, pace), daemon=True).start()


def _answer(conn: socket.socket, file: int, pace: _Pace) -> None:
    length = os.fstat(file).st_size
    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with conn, suppress(OSError), conn.makefile("rb") as requests:
        while request := requests.readline().split():
            fields = dict(line.decode("latin-1").lower().split(":", 1) for line in iter(requests.readline, b"\r\n"))
            name, _, sha256 = request[1][1:].decode("ascii").partition("/")
            size, promise = int(name), ""
            if sha256:
                promise = f"Repr-Digest: sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:\r\n"
            span = clip_range(parse_range(fields.get("range", "bytes=0-").strip()) or (0, None), size) or (0, size)
            conn.sendall(
                f"HTTP/1.1 206 Partial Content\r\nContent-Range: {content_range(*span, size)}\r\n"
                f'ETag: "{size}"\r\n{promise}Content-Length: {span[1] - span[0]}\r\n\r\n'.encode()
            )
            start, stop = span
            while start < stop:
                offset = start % length
                nbytes = pace.allowed(min(stop - start, length - offset))
                start += os.sendfile(conn.fileno(), file, offset, nbytes)


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
