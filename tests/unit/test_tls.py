"""Certificates."""

from __future__ import annotations

import ssl
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from urllib3.util import create_urllib3_context

from fastdl.connections import patience
from fastdl.errors import NetworkError, ProtocolError, UsageError
from fastdl.messages import Request
from tests.servers.scripted import (
    Exchange,
    Handler,
    no_length,
    ranged,
    script,
    serving,
    stall_after,
)
from tests.servers.tls import certificate
from tests.servers.tunnel import tunnelling
from tests.unit.asking import DATA, client, fetch, read

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def test_a_certificate_that_fails_is_not_retried() -> None:
    """Unknown authority: a protocol error with what to do; verification is never switched off by itself."""
    with certificate() as pem, serving(ranged(DATA), tls=pem.server_context()) as server:
        with pytest.raises(ProtocolError, match=r"certificate refused: .*; give its CA with --cacert"):
            fetch(server.url())
        assert fetch(server.url(), cacert=str(pem.ca))[1] == DATA


def test_the_systems_authorities_are_trusted_without_being_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """And those that the environment names, as every program's that uses OpenSSL."""
    with certificate() as pem, serving(ranged(DATA), tls=pem.server_context()) as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(pem.ca))
        assert fetch(server.url())[1] == DATA


def test_a_certificate_of_another_host_is_refused() -> None:
    """The right authority is not enough."""
    with (
        certificate("other.example") as pem,
        serving(ranged(DATA), tls=pem.server_context()) as server,
        pytest.raises(ProtocolError, match="certificate refused"),
    ):
        fetch(server.url(), cacert=str(pem.ca))


def test_insecure_is_the_users_own_choice() -> None:
    """Told so, any certificate is accepted."""
    with certificate("other.example") as pem, serving(ranged(DATA), tls=pem.server_context()) as server:
        assert fetch(server.url(), insecure=True)[1] == DATA


@pytest.mark.parametrize("content", [None, b"no certificate"])
def test_a_ca_file_that_is_none_is_a_usage_error(tmp_path: Path, content: bytes | None) -> None:
    """A mistyped path is not a broken line: it is not retried, and the text names the file."""
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=r"CA file .*ca\.pem"):
        fetch("https://127.0.0.1:1/", cacert=str(path))


@contextmanager
def behind(way: str, handler: Handler, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    """Serve over TLS, by a trusted certificate; yields the URL and the proxy to ask."""
    with certificate() as pem, serving(handler, tls=pem.server_context()) as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(pem.ca))
        if way == "to a proxy":
            yield "http://name.invalid/object", f"https://127.0.0.1:{server.port}"
        elif way == "within a proxy's":
            with tunnelling(server.port, tls=pem.server_context()) as (port, _):
                yield server.url(), f"https://127.0.0.1:{port}"
        else:
            yield server.url(), ""


@pytest.mark.parametrize("way", ["to a server", "to a proxy", "within a proxy's"])
def test_an_end_without_close_notify_is_a_broken_line(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Also where Python, as Debian builds it, tells OpenSSL to take it for an end like any other."""

    def lax() -> ssl.SSLContext:
        context = create_urllib3_context()
        context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
        return context

    monkeypatch.setattr("fastdl.ways.create_urllib3_context", lax)
    monkeypatch.setattr("urllib3.connection.create_urllib3_context", lax)
    with behind(way, no_length(DATA), monkeypatch) as (url, proxy), pytest.raises(NetworkError):
        fetch(url, proxy=proxy)


def test_a_body_is_ended_from_outside_behind_a_proxy_that_speaks_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    """What reads TLS within TLS is no socket; the one beneath it is broken."""
    errors: list[NetworkError] = []

    def receive() -> None:
        try:
            read(response)
        except NetworkError as error:
            errors.append(error)

    with (
        behind("within a proxy's", script({1: stall_after(1000)}, otherwise=ranged(DATA)), monkeypatch) as (url, proxy),
        client(proxy=proxy, read_timeout=60.0) as transport,
    ):
        response = transport.open(Request(url))
        response.hurry()
        thread = threading.Thread(target=receive)
        thread.start()
        began = time.monotonic()
        response.abort()
        thread.join()
    assert errors
    assert time.monotonic() - began < 30


def test_a_head_is_given_up_behind_a_proxy_that_speaks_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch breaks the socket, in the time that was said."""

    def silent(exchange: Exchange) -> None:
        exchange.hold(None)

    with (
        behind("within a proxy's", silent, monkeypatch) as (url, proxy),
        client(proxy=proxy, read_timeout=60.0) as transport,
    ):
        began = time.monotonic()
        with patience(0.5), pytest.raises(NetworkError):
            transport.open(Request(url))
        assert time.monotonic() - began < 30
