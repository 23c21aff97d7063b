"""Reading checksum files: from this machine, or from where objects come from."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from fastdl.again import again
from fastdl.connections import patience, stall_watch
from fastdl.contract import content_length
from fastdl.errors import Truncated, UsageError
from fastdl.http import Transport
from fastdl.probe import ask_whole
from fastdl.redact import printable
from fastdl.retry import Attempts
from fastdl.sums import find_digests
from fastdl.urls import origin

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastdl.digest import Expected
    from fastdl.http import Response
    from fastdl.messages import Line
    from fastdl.retry import Backoff
    from fastdl.sources import Source

_LIMIT = 16 * 1024 * 1024  # bytes: a hundred thousand lines
_WINDOW = 16 * 1024  # bytes received at a time
_ATTEMPTS = 4  # as of a probe: a wrong address is likelier than a bad line


@dataclass(frozen=True, slots=True)
class SumFile:
    """A checksum file at ``where``: a path, or if there is a ``source`` and a ``line`` to it, a URL.

    Wanted are the digests of the object whose path has the segments ``wanted``, or of the output's ``own_name``.
    """

    where: str
    wanted: tuple[str, ...]
    own_name: str
    source: Source | None = None
    line: Line | None = None

    def digests(self, backoff: Backoff, sleep: Callable[[float], None]) -> tuple[Expected, ...]:
        """Read the file and return what it has of the object.

        Raises:
            UsageError: the file cannot be read, or has none.
            FastdlError: it cannot be had from its server.
        """
        if self.source is None or self.line is None:
            shown, content = printable(self.where, 200), _read(self.where)
        else:
            shown = self.source.shown
            backoff = replace(backoff, attempts=min(backoff.attempts, _ATTEMPTS))
            content = _fetch(self.source, self.line, Attempts(backoff, random.Random()), sleep)
        if len(content) > _LIMIT:
            raise UsageError(f"{shown}: more than {_LIMIT} bytes are no checksum file")
        return find_digests(content, shown, segments_of(self.where)[-1], self.wanted, self.own_name)


def is_url(where: str) -> bool:
    """Tell a URL from a path."""
    return "://" in where


def same_origin(where: str, url: str) -> bool:
    """Tell whether two web URLs have scheme, host and port in common: what headers of one may be sent to the other."""
    web = ("http://", "https://")
    return where.lower().startswith(web) and url.lower().startswith(web) and origin(where) == origin(url)


def segments_of(url: str) -> tuple[str, ...]:
    """Return the segments of a URL's path, decoded unless it is a store's literal key, or of a path."""
    path = url.partition("://")[2].partition("/")[2] if is_url(url) else url
    if url.lower().startswith(("http://", "https://")):
        path = unquote(urlsplit(url).path)
    return tuple(segment for segment in path.split("/") if segment) or ("",)


def _read(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(_LIMIT + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{printable(path)}: the checksum file cannot be read: {reason}") from None


def _fetch(source: Source, line: Line, attempts: Attempts, sleep: Callable[[float], None]) -> bytes:
    transport = Transport(line, 1)

    def ask() -> bytes:
        with patience(line.read_timeout):
            found = ask_whole(source, transport)
        return b"" if found.response is None else _body(found.response, source.shown, line, sleep)

    try:
        return again(source, attempts, sleep, ask)
    finally:
        transport.close()


def _body(response: Response, shown: str, line: Line, sleep: Callable[[float], None]) -> bytes:
    """Receive at most a little more than the limit; ``sleep`` is called again and again, to watch the time."""
    body, window = bytearray(), memoryview(bytearray(_WINDOW))
    promised = content_length(response.headers)
    try:
        with stall_watch(lambda: len(body), line.read_timeout, response.abort):
            while len(body) <= _LIMIT and (count := response.readinto(window)):
                body += window[:count]
                sleep(0.0)
    finally:
        response.finish()
    if promised is not None and len(body) < min(promised, _LIMIT):
        raise Truncated(f"{shown}: the body ended {promised - len(body)} bytes early")
    return bytes(body)
