"""Every error that a library raises on the way to a server means one of ours, and says so without secrets."""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
from typing import TYPE_CHECKING

import pytest
import urllib3
from urllib3.exceptions import LocationParseError, NameResolutionError, ProxyError, ReadTimeoutError, SSLError

from fastdl.errors import AccessDenied, DiskError, FastdlError, NetworkError, ProtocolError, UsageError
from fastdl.translate import FOREIGN, translated, translation

if TYPE_CHECKING:
    from urllib3.connectionpool import HTTPConnectionPool

URL = "https://user:s3cr3t@host/object?token=s3cr3t"
WHERE = "https://host/object?token=***: "


def tls(reason: str | None) -> ssl.SSLError:
    """Make what the TLS library raises itself."""
    error = ssl.SSLEOFError(8, "EOF occurred in violation of protocol (_ssl.c:1006)")
    error.reason = reason  # type: ignore[assignment] # None where OpenSSL has no word for it
    return error


def refused_certificate() -> SSLError:
    """Make what urllib3 makes of a certificate that fails."""
    cause = ssl.SSLCertVerificationError(1, "certificate verify failed (_ssl.c:1006)")
    cause.verify_message = "self-signed certificate"
    return SSLError(cause)


def caused(error: Exception, cause: BaseException) -> Exception:
    """Give an error its cause, as ``raise from`` does."""
    error.__cause__ = cause
    return error


def pool() -> HTTPConnectionPool:
    """Make a pool that never connects."""
    return urllib3.HTTPConnectionPool("host")


BROKEN = urllib3.exceptions.ProtocolError
CASES: dict[str, tuple[Exception, type[FastdlError], str]] = {
    "certificate": (
        refused_certificate(),
        ProtocolError,
        "certificate refused: self-signed certificate; give its CA with --cacert",
    ),
    "handshake": (SSLError("wrong version number"), NetworkError, "TLS failed: wrong version number"),
    "handshake without a word": (SSLError(), NetworkError, "TLS failed: SSLError"),
    "TLS": (tls("DECRYPTION_FAILED"), NetworkError, "TLS failed: DECRYPTION_FAILED"),
    "TLS without a reason": (tls(None), NetworkError, "TLS failed: connection broken"),
    "proxy's credentials": (
        caused(ProxyError("x", OSError("x")), OSError("Tunnel connection failed: 407 Proxy Authentication Required")),
        AccessDenied,
        "the proxy wants other credentials (407)",
    ),
    "proxy": (
        caused(ProxyError("x", OSError("x")), OSError("Tunnel connection failed: 502 Bad Gateway")),
        NetworkError,
        "the proxy failed: Tunnel connection failed: 502 Bad Gateway",
    ),
    "host name": (
        NameResolutionError("host", urllib3.connection.HTTPConnection("host"), socket.gaierror(-2, "unknown")),
        NetworkError,
        "the host name cannot be resolved",
    ),
    "timeout": (TimeoutError("timed out"), NetworkError, "no progress within the timeout"),
    "timeout of a head": (
        caused(ReadTimeoutError(pool(), "/", "Read timed out."), TimeoutError("timed out")),
        NetworkError,
        "timed out",
    ),
    "body": (
        http.client.IncompleteRead(b"abc", 5),
        NetworkError,
        "the connection broke: IncompleteRead(3 bytes read, 5 more expected)",
    ),
    "reset": (
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        NetworkError,
        "the connection broke: Connection reset by peer",
    ),
    "hung up": (
        http.client.RemoteDisconnected("Remote end closed connection without response"),
        NetworkError,
        "the connection broke: Remote end closed connection without response",
    ),
    "no answer": (
        BROKEN("Connection aborted.", http.client.RemoteDisconnected("closed")),
        NetworkError,
        "the connection broke: closed",
    ),
    "broken head": (
        BROKEN("Connection aborted.", http.client.BadStatusLine("junk")),
        ProtocolError,
        "not HTTP: junk",
    ),
    "broken line": (
        BROKEN("Connection aborted.", BrokenPipeError(errno.EPIPE, "Broken pipe")),
        NetworkError,
        "the connection broke: Broken pipe",
    ),
    "broken somehow": (BROKEN("it broke"), NetworkError, "the connection broke: it broke"),
    "no HTTP": (http.client.LineTooLong("header line"), ProtocolError, "not HTTP: got more than 65536 bytes"),
    "no HTTP, no word": (http.client.HTTPException(), ProtocolError, "not HTTP: HTTPException"),
    "unreachable": (OSError(errno.EHOSTUNREACH, "No route to host"), NetworkError, "No route to host"),
    "no memory for it": (OSError(errno.EFAULT, "Bad address"), NetworkError, "Bad address"),
    "no URL": (LocationParseError("host:x"), NetworkError, "Failed to parse: host:x"),
    "no value": (ValueError("read of closed file"), NetworkError, "read of closed file"),
    "control characters": (OSError("a\r\nb\x1b[2J"), NetworkError, "a%0D%0Ab%1B[2J"),
}


@pytest.mark.parametrize(("error", "kind", "text"), CASES.values(), ids=CASES)
def test_a_foreign_error_means_one_of_ours(error: Exception, kind: type[FastdlError], text: str) -> None:
    """Its kind decides whether it is tried again; the text says where and what, on one line."""
    assert isinstance(error, FOREIGN)
    meant = translation(error, URL)
    assert type(meant) is kind
    assert str(meant).startswith(WHERE + text)
    assert "s3cr3t" not in str(meant)


@pytest.mark.parametrize("error", [TimeoutError("x"), http.client.BadStatusLine("x"), ValueError("x"), SSLError("x")])
def test_at_the_border_the_foreign_error_is_forgotten(error: Exception) -> None:
    """What it carries may be a secret, and its class is unknown to whoever gets ours from another process."""
    with pytest.raises(FastdlError) as caught, translated(URL):
        raise error
    assert str(caught.value) == str(translation(error, URL))
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("error", [UsageError("x"), DiskError("x"), NetworkError("x")])
def test_an_error_of_ours_passes_the_border(error: FastdlError) -> None:
    """It is what it is, though a usage error is a ValueError as well."""
    with pytest.raises(FastdlError) as caught, translated(URL):
        raise error
    assert caught.value is error


@pytest.mark.parametrize("error", [KeyError("x"), TypeError("x"), AttributeError("x"), AssertionError("x")])
def test_a_defect_is_no_network_error(error: Exception) -> None:
    """Tried again it would only be hidden."""
    assert not isinstance(error, FOREIGN)
    with pytest.raises(type(error)) as caught, translated(URL):
        raise error
    assert caught.value is error


def test_a_long_text_is_cut() -> None:
    """A server may choose it."""
    assert len(str(translation(http.client.BadStatusLine("x" * 10_000), URL))) < 200
