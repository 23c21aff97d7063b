"""Debian's nginx over a directory, with a configuration, prefix and port of its own."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tests.servers.program import free_port, program, running_program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers.tls import Certificate

_CONFIG = """\
{user}daemon off;
worker_processes 2;
pid {prefix}/nginx.pid;
error_log {prefix}/error.log info;
events {{ worker_connections 4096; }}
http {{
    access_log {prefix}/access.log;
    {temporary}
    types {{ }}
    default_type application/octet-stream;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 100000;
    limit_conn_zone $server_name zone=all:1m;
    server {{
        listen 127.0.0.1:{port}{ssl} backlog=512;
        server_name localhost;
        root "{root}";
        {options}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Nginx:
    """A running nginx; :func:`serving_nginx` ends it."""

    port: int
    prefix: Path
    ca: Path | None  # PEM file a client must trust; None over plain HTTP

    def url(self, path: str = "/") -> str:
        """Make the URL of a path, which must be percent-encoded."""
        return f"{'http' if self.ca is None else 'https'}://127.0.0.1:{self.port}{path}"

    @property
    def error_log(self) -> str:
        """What nginx complained about so far."""
        return _read(self.prefix / "error.log")

    @property
    def access_log(self) -> list[str]:
        """One line per finished request, in nginx's combined format."""
        return _read(self.prefix / "access.log").splitlines()


@contextmanager
def serving_nginx(
    root: Path, *, tls: Certificate | None = None, rate: int | None = None, limit_conn: int | None = None
) -> Iterator[Nginx]:
    """Serve ``root``; ``rate`` in bytes per second and connection, 503 beyond ``limit_conn`` busy connections.

    Raises:
        RuntimeError: nginx is not installed, or did not start; the message then carries its log.
    """
    binary = program("nginx", "nginx-light")
    with TemporaryDirectory(prefix="fastdl-nginx-", ignore_cleanup_errors=True) as folder:
        server = Nginx(free_port(), Path(folder), tls.ca if tls else None)
        config = server.prefix / "nginx.conf"
        config.write_text(_config(server, root.resolve(), tls, rate, limit_conn))
        command = [binary, "-p", folder, "-e", f"{folder}/error.log", "-c", str(config)]
        with running_program(command, server.port, server.prefix / "output.log"):
            yield server  # SIGTERM, at its end, is nginx's fast shutdown: the master ends its workers first


def _config(server: Nginx, root: Path, tls: Certificate | None, rate: int | None, limit_conn: int | None) -> str:
    options = []
    if tls is not None:
        options += [f"ssl_certificate {tls.chain};", f"ssl_certificate_key {tls.key};"]
    if rate is not None:
        options += [f"limit_rate {rate};"]
    if limit_conn is not None:
        options += [f"limit_conn all {limit_conn};", "limit_conn_status 503;"]
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return _CONFIG.format(
        user="user root;\n" if os.geteuid() == 0 else "",
        prefix=server.prefix,
        port=server.port,
        root=root,
        ssl=" ssl" if tls else "",
        temporary="\n    ".join(f"{kind}_temp_path {server.prefix}/{kind};" for kind in kinds),
        options="\n        ".join(options),
    )


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
