"""HTTP requests and answers: redirects, proxies, TLS; bodies are received straight into the caller's buffer."""

from __future__ import annotations

import functools
import re
import socket
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import quote, urljoin, urlsplit

import urllib3

from fastdl.connections import asking, bare_socket, break_socket, was_broken
from fastdl.errors import NetworkError, ProtocolError, Refused
from fastdl.redact import keep_secrets, redacted_url
from fastdl.translate import FOREIGN, translated, translation
from fastdl.urls import ascii_host, origin, split_url, without_login
from fastdl.ways import pools_of, tls_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from fastdl.framing import StrictResponse
    from fastdl.messages import Line, Request

USER_AGENT = "fastdl/0.1"
MAX_REDIRECTS = 10
EXCERPT = 64 * 1024  # bytes of an error body worth reading
_LONGEST_LOCATION = 8192  # letters; more than browsers and servers take
_VISIBLE = "".join(map(chr, range(ord("!"), 0x7F)))  # what a URL that somebody encoded already is made of
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
# What may follow a redirect to another origin; every other header may be a secret. Source: the redirect CVEs of curl,
# requests and urllib3, which each forgot one name on a list of forbidden ones.
_HARMLESS = frozenset(("range", "accept-encoding", "user-agent"))


class Response:
    """An answer whose body is still on the wire; ``headers`` look names up without regard to case.

    ``request`` is what was finally asked, after redirects. End it with ``finish`` or ``abort``.
    """

    def __init__(self, raw: urllib3.BaseHTTPResponse, request: Request) -> None:
        self._raw = raw
        self._body: StrictResponse = raw.connection.body  # type: ignore[union-attr]
        self.request = request
        self.status: int = raw.status
        self.headers: Mapping[str, str] = raw.headers
        self._aborted = False

    def readinto(self, view: memoryview) -> int:
        """Receive into ``view`` (writable, contiguous) until it is full or the body ends; return the bytes received.

        0 means the end of the body, promised or not: compare with what was promised.

        Raises:
            NetworkError: the connection failed, stood still for the read timeout or was aborted.
        """
        try:
            count = self._body.readinto(view)
        except FOREIGN as error:
            failure = translation(error, self.request.url)
        else:
            if not count and self._aborted:  # this end is our own doing: of a body without a length it proves nothing
                raise NetworkError(f"{redacted_url(self.request.url)}: no progress within the timeout")
            return count
        try:
            raise failure  # out here, where what was raised is not its context
        finally:  # in this frame, which its traceback holds, it would keep buffers and sockets until a collection
            del failure

    @property
    def ended_by_nothing(self) -> bool:
        """Whether a body that was cut short would end as this one does: no length, no chunks, no TLS."""
        framed = "Content-Length" in self.headers or "Transfer-Encoding" in self.headers
        return not framed and self.request.url.startswith("http://")

    def hurry(self) -> None:
        """Have what arrives acknowledged at once: whoever sends a body in many pieces may wait 40 ms for that.

        The kernel forgets it after a while, so it is said anew of each answer. Source: Nagle, RFC 896; tcp(7).
        """
        sock = getattr(self._raw.connection, "sock", None)  # None if the connection ends with this answer
        if sock is not None and hasattr(socket, "TCP_QUICKACK"):
            with suppress(OSError, AttributeError):  # what TLS through a TLS proxy makes of it has no options
                bare_socket(sock).setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def finish(self) -> None:
        """Give the connection back for another request if the body was read to its end, else close it."""
        if self._body.isclosed():
            self._raw.release_conn()
        else:
            self._raw.close()

    def abort(self) -> None:
        """Wake a thread that is blocked in ``readinto``; may be called from any thread, more than once."""
        self._aborted = True
        if self._raw.connection is not None:  # else it may be another answer's by now
            break_socket(self._body.sock)

    def excerpt(self, limit: int = EXCERPT) -> bytes:
        """Return at most ``limit`` bytes of the body and end the answer."""
        buffer, count = bytearray(limit), 0
        with suppress(NetworkError), asking(connection=self._raw.connection):
            count = self.readinto(memoryview(buffer))
        self.finish()
        return bytes(buffer[:count])

    def refused(self) -> Refused:
        """Return this answer as an error, its body read and ended."""
        headers = {name.lower(): value for name, value in self.headers.items()}
        text = f"{redacted_url(self.request.url)} answered status {self.status}"
        return Refused(text, self.status, headers, self.excerpt())


class Transport:
    """Keep-alive connections to any number of servers; safe to share among threads, not among processes."""

    def __init__(self, line: Line, connections: int) -> None:
        self._timeout = urllib3.Timeout(connect=line.connect_timeout, read=line.read_timeout)
        self._proxied = bool(line.proxy)
        self.line = line
        self._manager = pools_of(line, connections)

    @functools.cached_property
    def _context(self) -> ssl.SSLContext:
        return tls_context(self.line)

    def open(self, request: Request, extra: tuple[tuple[str, str], ...] = ()) -> Response:
        """Send a request with ``extra`` headers and return the answer's head; follows redirects if it says so.

        A connection that the server had closed while it was idle is replaced once, unnoticed.

        Raises:
            NetworkError: no answer.
            ProtocolError: an answer that is not HTTP, a redirect that must not be followed, a certificate that fails.
        """
        for _ in range(MAX_REDIRECTS + 1):
            response = self._send(request, extra)
            if response.status not in _REDIRECTS or not request.follow:
                return response
            location = response.headers.get("Location", "")
            began = time.monotonic()
            response.excerpt()
            # Eleven of these would be as many timeouts.
            if was_broken() or time.monotonic() - began >= self.line.read_timeout:
                raise NetworkError(f"{redacted_url(request.url)}: no progress within the timeout")
            request = _redirected(request, location)
        raise ProtocolError(f"{redacted_url(request.url)} is the end of more than {MAX_REDIRECTS} redirects")

    def close(self) -> None:
        """Close every idle connection, and what is in use now as soon as it is done."""
        pools = [self._manager.pools.get(key) for key in self._manager.pools.keys()]  # noqa: SIM118 - not iterable
        self._manager.clear()
        for pool in filter(None, pools):
            pool.close()

    def _send(self, request: Request, extra: tuple[tuple[str, str], ...]) -> Response:
        keep_secrets(url=request.url, headers=request.headers)
        parts = split_url(request.url)
        headers = urllib3.HTTPHeaderDict(request.headers)
        for name, value in (("Accept-Encoding", "identity"), *extra):
            headers[name] = value
        if "User-Agent" not in headers:
            headers["User-Agent"] = USER_AGENT
        target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        if self._proxied and parts.scheme == "http":
            target = without_login(parts._replace(fragment=""))
        options = {"ssl_context": self._context} if parts.scheme == "https" else None
        host = ascii_host(parts)
        # What urllib3 would have to percent-encode it may; everything else goes out as it is.
        exact = target if re.fullmatch(r"[!-~]+", target) else None
        with translated(request.url), asking(exact):
            fresh = False
            while True:
                pool = self._manager.connection_from_host(host, parts.port, parts.scheme, options)
                try:
                    raw = pool.urlopen(
                        request.method,
                        target,
                        body=request.body or None,
                        headers=headers,
                        timeout=self._timeout,
                        retries=False,
                        redirect=False,
                        assert_same_host=False,
                        preload_content=False,
                        decode_content=False,
                    )
                    break
                except urllib3.exceptions.ClosedPoolError:  # by close(), between the two lines above
                    continue
                except urllib3.exceptions.ProtocolError as error:
                    if fresh or was_broken() or not _was_idle(error):
                        raise
                    fresh = True
        return Response(raw, request)


def _redirected(request: Request, location: str) -> Request:
    """Return the request for a redirect's target, without anything that could be a secret to another origin."""
    if len(location) > _LONGEST_LOCATION:
        raise ProtocolError(f"{redacted_url(request.url)} redirects to a URL of {len(location)} letters; refused")
    try:
        url = urljoin(request.url, _encoded(location))
        old, new = origin(request.url), origin(url)
    except ValueError:  # UsageError is one: here the mistake is the server's
        url = ""
    if not url:
        raise ProtocolError(f"{redacted_url(request.url)} redirects to what is no URL")
    if not location:
        raise ProtocolError(f"{redacted_url(request.url)} redirects to nowhere")
    if old[0] == "https" and new[0] == "http":
        raise ProtocolError(f"{redacted_url(request.url)} redirects from https to http; refused")
    if old == new:
        return replace(request, url=url)
    return replace(request, url=url, headers=tuple(pair for pair in request.headers if pair[0].lower() in _HARMLESS))


def _encoded(location: str) -> str:
    """Return ``location``, of which http.client took each byte for a letter, as the URL that its bytes mean.

    Bytes beyond ASCII are percent-encoded as they are, but for a host's, which are a name in UTF-8.
    """
    if location.isascii():
        return location
    parts = urlsplit(location.encode("latin-1").decode("utf-8", "surrogateescape"))
    path, query = (quote(text, _VISIBLE, "utf-8", "surrogateescape") for text in (parts.path, parts.query))
    return parts._replace(path=path, query=query).geturl()


def _was_idle(error: urllib3.exceptions.ProtocolError) -> bool:
    """Tell whether a connection ended before an answer's first byte, as one does that the server closed while idle."""
    cause = error.args[1] if len(error.args) > 1 else error
    return isinstance(cause, ConnectionResetError | BrokenPipeError)  # RemoteDisconnected is a ConnectionResetError
