"""The one border at which what urllib3, http.client, ssl and socket raise becomes an error of ours."""

from __future__ import annotations

import http.client
import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING

import urllib3
from urllib3.exceptions import HTTPError, NameResolutionError, ProxyError, SSLError

from fastdl.errors import AccessDenied, FastdlError, NetworkError, ProtocolError
from fastdl.redact import printable, redacted_url

if TYPE_CHECKING:
    from collections.abc import Iterator


# What a socket, TLS or HTTP may raise; everything else is a defect and stays what it is.
FOREIGN = (HTTPError, http.client.HTTPException, OSError, ValueError)


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Turn everything urllib3, http.client, ssl and socket raise into our errors: the one border for that."""
    try:
        yield
    except FastdlError:
        raise
    except FOREIGN as error:
        failure = translation(error, url)
        try:
            raise failure from None
        finally:
            failure.__context__ = None  # it may quote a server that quotes a secret
            del failure  # this frame and the traceback that holds it would keep each other


def translation(error: Exception, url: str) -> FastdlError:  # noqa: PLR0911 - one for each kind of foreign error
    """Return the error of ours that ``error``, met on the way to ``url``, means."""
    where = redacted_url(url)
    if isinstance(error, SSLError):
        return _tls_error(where, error)
    if isinstance(error, ssl.SSLError):
        return NetworkError(f"{where}: TLS failed: {error.reason or 'connection broken'}")
    if isinstance(error, ProxyError):
        return _proxy_error(where, error)
    if isinstance(error, NameResolutionError):
        return NetworkError(f"{where}: the host name cannot be resolved")
    if isinstance(error, TimeoutError):
        return NetworkError(f"{where}: no progress within the timeout")
    if isinstance(error, http.client.IncompleteRead | ConnectionError):
        return NetworkError(f"{where}: the connection broke: {_reason(error)}")
    if isinstance(error, urllib3.exceptions.ProtocolError):
        return _broken(where, error)
    return _odd(where, error)


def _proxy_error(where: str, error: ProxyError) -> FastdlError:
    reason, cause = _reason(error), error.__cause__
    if "Tunnel connection failed: 407" in reason:
        return AccessDenied(f"{where}: the proxy wants other credentials (407)")
    if isinstance(cause, http.client.HTTPException) and not isinstance(cause, ConnectionError):
        return ProtocolError(f"{where}: the proxy does not speak HTTP: {reason}")
    return NetworkError(f"{where}: the proxy failed: {reason}")


def _odd(where: str, error: Exception) -> ProtocolError | NetworkError:
    if isinstance(error, http.client.HTTPException):
        return ProtocolError(f"{where}: not HTTP: {_reason(error)}")
    if isinstance(error, UnicodeError) or str(error).startswith("Invalid header"):  # they quote what they refuse
        return ProtocolError(f"{where}: the request holds characters that HTTP cannot carry")
    return NetworkError(f"{where}: {_reason(error)}")


def _tls_error(where: str, error: SSLError) -> ProtocolError | NetworkError:
    cause = error.args[0] if error.args else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return ProtocolError(f"{where}: certificate refused: {cause.verify_message}; give its CA with --cacert")
    return NetworkError(f"{where}: TLS failed: {_reason(error)}")


def _broken(where: str, error: urllib3.exceptions.ProtocolError) -> ProtocolError | NetworkError:
    cause = error.args[1] if len(error.args) > 1 else error
    if isinstance(cause, http.client.HTTPException) and not isinstance(cause, ConnectionError):
        return ProtocolError(f"{where}: not HTTP: {_reason(cause)}")
    return NetworkError(f"{where}: the connection broke: {_reason(cause)}")


def _reason(error: BaseException) -> str:
    """Return the innermost readable cause, without the object addresses that urllib3's texts carry."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, OSError) and error.strerror:
        return printable(error.strerror, 120)
    return printable(str(error) or type(error).__name__, 120)
