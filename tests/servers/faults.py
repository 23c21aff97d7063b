"""Named faults: handlers that spoil one right answer, the one of ``script(..., otherwise=...)``, or give none."""

from __future__ import annotations

import gzip
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping

    from tests.servers.exchange import Answer, Exchange, Fields, Handler

_BOUNDARY = "fastdl-test-boundary"


def reset_after(nbytes: int) -> Handler:
    """RST once ``nbytes`` bytes of the body have arrived at the client's kernel."""
    return _breaking(nbytes, lambda exchange: exchange.reset())


def truncate_after(nbytes: int) -> Handler:
    """FIN after ``nbytes`` bytes of the body, short of the Content-Length."""
    return _breaking(nbytes, lambda exchange: exchange.close())


def stall_after(nbytes: int, gate: threading.Event | None = None) -> Handler:
    """Fall silent after ``nbytes`` bytes of the body until ``gate`` opens, or without one until the client leaves."""
    return _breaking(nbytes, lambda exchange: exchange.hold(gate))


def stall_before_head(gate: threading.Event | None = None) -> Handler:
    """Fall silent before the first byte of the answer."""

    def handle(exchange: Exchange) -> None:
        exchange.hold(gate)
        exchange.otherwise(exchange)

    return handle


def drip(gate: threading.Event, pause: float = 0.02, step: int = 1) -> Handler:
    """Send the right body ``step`` bytes at a time until ``gate`` opens."""

    def handle(exchange: Exchange) -> None:
        def take(answer: Answer) -> Answer:
            exchange.head(answer.status, answer.fields)
            exchange.drip(answer.content(), gate, pause, step)
            exchange.close()

        exchange.spoil = take
        exchange.otherwise(exchange)

    return handle


def hang_up(exchange: Exchange) -> None:
    """FIN before the first byte of an answer."""
    exchange.close()


def reset(exchange: Exchange) -> None:
    """RST before the first byte of an answer."""
    exchange.reset()


def closes_afterwards(exchange: Exchange) -> None:
    """Answer rightly, then close the kept-alive connection without having announced it."""
    exchange.otherwise(exchange)
    exchange.close()


def informational(count: int, status: int = 103) -> Handler:
    """Send ``count`` interim answers before the right one."""

    def handle(exchange: Exchange) -> None:
        for _ in range(count):
            exchange.head(status)
        exchange.otherwise(exchange)

    return handle


def raw(*blobs: bytes) -> Handler:
    """Send these bytes in place of an answer, then FIN."""

    def handle(exchange: Exchange) -> None:
        for blob in blobs:
            exchange.send(blob)
        exchange.close()

    return handle


def status(code: int, headers: Fields = (), body: bytes = b"") -> Handler:
    """Answer with this status, with a right Content-Length."""
    return lambda exchange: exchange.reply(code, headers, body)


def redirect(location: str, code: int = 302) -> Handler:
    """Send the client elsewhere."""
    return status(code, {"Location": location})


def wrong_content_range(*values: str) -> Handler:
    """Replace the Content-Range: by nothing, one value or several fields."""
    return spoiling(
        lambda answer: answer.without("content-range").plus(*(("Content-Range", value) for value in values))
    )


def other_fields(fields: Mapping[str, str | None]) -> Handler:
    """Replace fields of the right answer; None drops one."""
    pairs = tuple((name, value) for name, value in fields.items() if value is not None)
    return spoiling(lambda answer: answer.without(*fields).plus(*pairs))


def longer_body(extra: bytes = b"surplus") -> Handler:
    """Send ``extra`` after the right body, beyond its Content-Length; the connection stays open."""
    return spoiling(lambda answer: replace(answer, body=answer.content() + extra))


def admitted_longer_body(extra: bytes = b"surplus") -> Handler:
    """Send ``extra`` after the right body and count it in the Content-Length, but not in the Content-Range."""
    return spoiling(lambda answer: _framed(replace(answer, body=answer.content() + extra)))


def flipped(at: int) -> Handler:
    """Flip the bits of the ``at``-th byte of this body and tell nobody."""

    def spoil(answer: Answer) -> Answer:
        data = bytearray(answer.content())
        data[at] ^= 0xFF
        return replace(answer, body=bytes(data))

    return spoiling(spoil)


def shifted_206(start: int = 0, stop: int = 0) -> Handler:
    """Answer as if the range asked for began ``start`` bytes and stopped ``stop`` bytes later; consistent in itself."""

    def handle(exchange: Exchange) -> None:
        if exchange.request.range is not None:
            first, last = exchange.request.range
            asked = (first + start, None if last is None else last + stop)
            exchange.request = replace(exchange.request, range=asked)
        exchange.otherwise(exchange)

    return handle


def short_206(nbytes: int) -> Handler:
    """Answer a range with its first ``nbytes`` bytes only, honestly declared: legal."""

    def handle(exchange: Exchange) -> None:
        if exchange.request.range is not None:
            first = exchange.request.range[0]
            exchange.request = replace(exchange.request, range=(first, first + nbytes))
        exchange.otherwise(exchange)

    return handle


def gzip_coded() -> Handler:
    """Code the body with gzip although identity was asked for."""
    return spoiling(
        lambda answer: _framed(replace(answer, body=gzip.compress(answer.content()))).plus(("Content-Encoding", "gzip"))
    )


def multipart_byteranges() -> Handler:
    """Wrap the one range asked for in multipart/byteranges, which a server must not do."""

    def spoil(answer: Answer) -> Answer:
        inner = dict(answer.fields).get("Content-Range", "")
        head = f"--{_BOUNDARY}\r\nContent-Type: application/octet-stream\r\nContent-Range: {inner}\r\n\r\n"
        body = head.encode() + answer.content() + f"\r\n--{_BOUNDARY}--\r\n".encode()
        bare = answer.without("content-range", "content-type")
        return _framed(replace(bare, body=body)).plus(("Content-Type", f"multipart/byteranges; boundary={_BOUNDARY}"))

    return spoiling(spoil)


def spoiling(spoil: Callable[[Answer], Answer]) -> Handler:
    """Change the right answer on its way out."""

    def handle(exchange: Exchange) -> None:
        exchange.spoil = spoil
        exchange.otherwise(exchange)

    return handle


def _breaking(nbytes: int, action: Callable[[Exchange], None]) -> Handler:
    def handle(exchange: Exchange) -> None:
        exchange.break_body(nbytes, lambda: action(exchange))
        exchange.otherwise(exchange)

    return handle


def _framed(answer: Answer) -> Answer:
    return answer.without("content-length").plus(("Content-Length", str(len(answer.content()))))
