"""The one border at which what urllib3, http.client, ssl and socket raise becomes an error of ours."""

from __future__ import annotations

import errno
import http.client
import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING

import urllib3
from urllib3.exceptions import HTTPError, NameResolutionError, ProxyError, SSLError

from fastdl.errors import AccessDenied, DiskError, FastdlError, NetworkError, ProtocolError
from fastdl.redact import printable, redacted_url

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def translated(url: str) -> Iterator[None]:  # noqa: C901, PLR0912 - one branch for each kind of foreign error
    """Turn everything urllib3, http.client, ssl and socket raise into our errors: the one border for that."""
    where = redacted_url(url)
    try:
        yield
    except FastdlError:
        raise
    except SSLError as error:
        raise _tls_error(where, error) from None
    except ssl.SSLError as error:
        raise NetworkError(f"{where}: TLS failed: {error.reason or 'connection broken'}") from None
    except ProxyError as error:
        if "Tunnel connection failed: 407" in _reason(error):
            raise AccessDenied(f"{where}: the proxy wants other credentials (407)") from None
        raise NetworkError(f"{where}: the proxy failed: {_reason(error)}") from None
    except NameResolutionError:
        raise NetworkError(f"{where}: the host name cannot be resolved") from None
    except TimeoutError:
        raise NetworkError(f"{where}: no progress within the timeout") from None
    except (http.client.IncompleteRead, ConnectionError) as error:
        raise NetworkError(f"{where}: the connection broke: {_reason(error)}") from None
    except urllib3.exceptions.ProtocolError as error:
        raise _broken(where, error) from None
    except http.client.HTTPException as error:
        raise ProtocolError(f"{where}: not HTTP: {_reason(error)}") from None
    except OSError as error:
        if error.errno == errno.EFAULT:  # the kernel's copy met a page of the mapping without a block behind it
            raise DiskError(
                "the output cannot take what was received: the disk is full or the file truncated"
            ) from None
        raise NetworkError(f"{where}: {_reason(error)}") from None
    except (HTTPError, ValueError) as error:
        raise NetworkError(f"{where}: {_reason(error)}") from None


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
