"""Answers to several ranges in one request, right ones and wrong ones. Source: RFC 9110, 14.6 and 15.3.7.2."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeAlias

from tests.servers.ranges import clip_range, content_range
from tests.servers.scripted import LAST_MODIFIED, Source, as_source, ranged

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers.exchange import Exchange, Handler

BOUNDARY = "0123456789abcdef"
Part: TypeAlias = tuple[str, bytes]  # the value of Content-Range, and the bytes
_SEVERAL = re.compile(r"bytes=(\d+-\d+(?:,\d+-\d+)+)")


def asked_for(exchange: Exchange) -> list[tuple[int, int]]:
    """Return the half-open ranges that a request asks for, of which there are several, or none."""
    match = _SEVERAL.fullmatch(exchange.request.headers.get("range", ""))
    found = [] if match is None else [each.split("-") for each in match[1].split(",")]
    return [(int(first), int(last) + 1) for first, last in found]


def several(
    data: bytes | Source,
    spoil: Callable[[list[Part]], list[Part]] = lambda parts: parts,
    *,
    etag: str = '"v1"',
    last: str = f"\r\n--{BOUNDARY}--\r\n",
    content_type: str = f"multipart/byteranges; boundary={BOUNDARY}",
    status: int = 206,
) -> Handler:
    """Answer several ranges with the parts that ``spoil`` makes of the right ones, all else rightly."""
    source = as_source(data)
    single = ranged(data, etag)

    def handle(exchange: Exchange) -> None:
        spans = [clip_range(span, source.size) for span in asked_for(exchange)]
        parts = [(content_range(*s, source.size), bytes(source.read(*s))) for s in spans if s is not None]
        if not parts:
            single(exchange)
            return
        body = b"".join(
            f"\r\n--{BOUNDARY}\r\nContent-Type: text/plain\r\nContent-Range: {head}\r\n\r\n".encode() + content
            for head, content in spoil(parts)
        )
        fields = {"ETag": etag, "Last-Modified": LAST_MODIFIED, "Content-Type": content_type}
        exchange.reply(status, fields, body + last.encode())

    return handle
