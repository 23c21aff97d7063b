"""The first GET of a download: it finds out what the object is, and its body is the first that is used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastdl.again import again
from fastdl.connections import patience
from fastdl.contract import (
    check_partial,
    check_uncoded,
    check_whole,
    content_length,
    is_partial,
    range_header,
    unsatisfied_size,
)
from fastdl.errors import ObjectChanged
from fastdl.validator import why_not_resumable

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastdl.header import Stored
    from fastdl.http import Response, Transport
    from fastdl.retry import Attempts
    from fastdl.sources import Source
    from fastdl.validator import ObjectInfo

_OK, _UNSATISFIABLE = 200, 416


@dataclass(slots=True)
class Probe:
    """What the first answer told, and its body, still to be read.

    ``ranged``: the body is the bytes ``[start, stop)`` and other ranges can be asked for; otherwise it is the whole
    object in order, and ``response`` is None if that is empty.
    """

    response: Response | None
    info: ObjectInfo
    ranged: bool
    start: int
    stop: int
    requests: int
    retries: int

    def close(self) -> None:
        """End the answer, if nobody read it, without waiting for its body."""
        if self.response is not None:
            self.response.finish()


def probe(
    source: Source,
    transport: Transport,
    start: int,
    stop: int,
    attempts: Attempts,
    sleep: Callable[[float], None],
    known: ObjectInfo | None = None,
) -> Probe:
    """Ask for the bytes ``[start, stop)`` and learn size, validators and whether ranges are served. No HEAD is needed.

    ``known`` are facts of an earlier run that the object must have.

    Raises:
        ObjectChanged: there are no such bytes: the object is shorter than it was when ``start`` was chosen.
        FastdlError: the object cannot be had.
    """
    requests = 0

    def ask() -> Probe:
        nonlocal requests
        requests += 1
        with patience(transport.line.read_timeout):
            return _ask(source, transport, start, stop, known)

    found = again(source, attempts, sleep, ask)
    found.requests, found.retries = requests, attempts.failures
    return found


def _ask(source: Source, transport: Transport, start: int, stop: int, known: ObjectInfo | None) -> Probe:
    response = transport.open(source.request(known), (range_header(start, stop),))
    source.pin(response.request)
    url, headers = response.request.url, response.headers
    try:
        if is_partial(response.status, headers, start, stop):
            got = check_partial(response.status, headers, url, start, stop, None)
            if got.size is not None:
                return Probe(response, source.describe(headers, got.size), True, start, got.stop, 0, 0)  # noqa: FBT003
        elif response.status == _OK:
            return _whole(source, response)
        elif response.status != _UNSATISFIABLE:
            raise response.refused()
        elif start > 0:
            raise ObjectChanged(f"{source.shown}: has no byte {start} any more")
        elif unsatisfied_size(headers) == 0:
            info = source.describe(headers, 0)
            response.finish()
            return Probe(None, info, False, 0, 0, 0, 0)  # noqa: FBT003
    except BaseException:
        response.finish()
        raise
    # A range of unknown total, or a 416 to the very first byte: this server is asked without Range.
    response.finish()
    return ask_whole(source, transport)


def ask_whole(source: Source, transport: Transport) -> Probe:
    """Ask for the whole object in one answer.

    Raises:
        FastdlError: as of the transport; Refused if the answer carries no data.
    """
    response = transport.open(source.request(None))
    try:
        if response.status != _OK:
            raise response.refused()
        return _whole(source, response)
    except BaseException:
        response.finish()
        raise


def _whole(source: Source, response: Response) -> Probe:
    check_whole(response.headers, response.request.url)
    check_uncoded(response.headers, response.request.url)
    size = content_length(response.headers)
    return Probe(response, source.describe(response.headers, size), False, 0, size or 0, 0, 0)  # noqa: FBT003


def why_not_same(stored: Stored, found: Probe) -> str:
    """Say why the parts of an earlier run are not of the object that was found; empty if they are."""
    info = found.info
    if info.size is not None and info.size != stored.plan.size:
        return f"the object was replaced: it had {stored.plan.size} bytes, has {info.size}"
    if not found.ranged:
        return "the server serves no ranges any more"
    if info.crc64 != stored.crc64 and None not in (info.crc64, stored.crc64):
        return "the object was replaced: its CRC-64 is another one"
    return why_not_resumable(stored.validator, info.validator)
