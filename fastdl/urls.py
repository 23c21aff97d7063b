"""What URLs say: whom a request goes to, what its credentials are bound to, which proxy the environment names."""

from __future__ import annotations

import os
from base64 import b64encode
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

from fastdl.errors import UsageError
from fastdl.redact import printable


def split_url(url: str) -> SplitResult:
    """Return the pieces of an absolute http or https URL.

    Raises:
        UsageError: it is not one, or holds characters that could smuggle a header.
    """
    # What cannot be read as a URL is not shown: a password may stand in any place of it.
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        parts = None
    if parts is None:  # said out here, where what was raised, and quotes the URL, is not the error's context
        raise UsageError("the URL cannot be read: check host and port; in a password #, / and ? are %23, %2F and %3F")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError("the URL is not an absolute http or https one")
    if not {" ", "\\"}.isdisjoint(parts.netloc):  # browsers read a backslash as the end of the host
        raise UsageError("the URL's host cannot be told for sure: it holds a space or a backslash")
    if any(ord(char) < ord(" ") or char == "\x7f" for char in url):
        raise UsageError("the URL holds control characters")
    return parts


def basic_login(parts: SplitResult) -> str:
    """Return the value of an Authorization header that carries a URL's login, in UTF-8. Source: RFC 7617, 2.1."""
    name, password = ((text or "").encode("utf-8", "surrogateescape") for text in (parts.username, parts.password))
    login = unquote_to_bytes(name) + b":" + unquote_to_bytes(password)
    return f"Basic {b64encode(login).decode()}"


def without_login(parts: SplitResult) -> str:
    """Return the URL without its login."""
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def environment_proxy(url: str) -> str:
    """Return the proxy that the environment names for ``url``; empty for none."""
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return ""
    parts = split_url(url)
    if proxy_bypass_environment(parts.netloc.rpartition("@")[2]):
        return ""
    proxies = getproxies_environment()
    proxy: str = proxies.get(parts.scheme) or proxies.get("all") or ""
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


def origin(url: str) -> tuple[str, str, int]:
    """Return what credentials are bound to: scheme, host and port."""
    parts = split_url(url)
    return parts.scheme, ascii_host(parts), parts.port or (443 if parts.scheme == "https" else 80)


def ascii_host(parts: SplitResult) -> str:
    """Return the host as a request names it.

    Raises:
        UsageError: it is none.
    """
    host = parts.hostname or ""
    try:
        return host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        raise UsageError(f"{printable(host)!r} is not a host name") from None
