"""The ways that requests take: through a proxy or not, and which certificates are trusted on them."""

from __future__ import annotations

import logging
import ssl
import traceback
from typing import TYPE_CHECKING

import urllib3
from urllib3.util import create_urllib3_context

from fastdl.connections import POOLS
from fastdl.errors import UsageError
from fastdl.redact import keep_secrets, without_secrets
from fastdl.urls import basic_login, split_url, without_login

if TYPE_CHECKING:
    from fastdl.messages import Line

_LOGGERS = ("urllib3.connectionpool", "urllib3.connection")


def pools_of(line: Line, connections: int) -> urllib3.PoolManager:
    """Return what makes and keeps connections, so many to each server.

    Raises:
        UsageError: the proxy's URL is none.
    """
    _let_no_log_tell()
    manager: urllib3.PoolManager
    if line.proxy:
        parts = split_url(line.proxy)
        headers = {"proxy-authorization": basic_login(parts)} if parts.username else {}
        keep_secrets(url=line.proxy, headers=headers.items(), given=True)
        try:
            manager = urllib3.ProxyManager(
                without_login(parts),
                proxy_headers=headers,
                proxy_ssl_context=_proxy_context(line) if parts.scheme == "https" else None,
                maxsize=connections,
            )
        except urllib3.exceptions.LocationParseError:
            raise UsageError("the proxy's host is not a host name") from None
    else:
        manager = urllib3.PoolManager(maxsize=connections)
    manager.pool_classes_by_scheme = POOLS
    return manager


def tls_context(line: Line) -> ssl.SSLContext:
    """Load the trusted certificates once for all connections: 10 to 20 ms that urllib3 would spend on each."""
    context = _strict_context(insecure=line.insecure)
    if line.insecure:
        return context
    if line.cacert:
        try:
            context.load_verify_locations(line.cacert)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(f"CA file {line.cacert}: {error}") from None
    else:
        context.load_default_certs()
    return context


def _proxy_context(line: Line) -> ssl.SSLContext:
    """Make the context for a proxy, which the system's authorities vouch for whatever CA the servers have."""
    context = _strict_context(insecure=line.insecure)
    if not line.insecure:
        context.load_default_certs()
    return context


def _strict_context(*, insecure: bool) -> ssl.SSLContext:
    """Make a context to which an end without close_notify is an error.

    Python 3.11 as Debian and others build it sets the option that makes it an end like any other: a body without a
    length that anybody cut would be whole. Source: SSL_CTX_set_options(3), SSL_OP_IGNORE_UNEXPECTED_EOF.
    """
    try:
        context = create_urllib3_context()
    except OSError as error:  # it opens that file, and nothing else
        raise UsageError(f"SSLKEYLOGFILE cannot be written: {error.strerror}") from None
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)  # OpenSSL 1.1 has no such option
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class _Silence(logging.Filter):
    """Takes out of urllib3's records what must not be shown: its debugging tells targets with their signatures."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Put the finished text in the place of its pieces, without secrets."""
        text = record.getMessage()
        clean = without_secrets(text)
        if clean != text:
            record.msg, record.args = clean, ()
        if record.exc_info and record.exc_info[1] is not None:
            told = "".join(traceback.format_exception(record.exc_info[1]))  # with what it was raised from
            if without_secrets(told) != told:
                record.exc_info = None
        return True


_silence = _Silence()


def _let_no_log_tell() -> None:
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_silence)  # once: adding it again does nothing
