"""The range contract: what an answer must show before one byte of it enters the output.

Absence is not agreement. Stores and servers answer ranges with whole objects, other ranges, coded or multipart
bodies; each of those written at a part's offset is a silently wrong file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastdl.errors import ObjectChanged, ProtocolError, RangeMismatch
from fastdl.redact import printable, redacted_url
from fastdl.validator import difference, validator_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fastdl.validator import Validator

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.ASCII | re.IGNORECASE)
_UNSATISFIED = re.compile(r"bytes \*/(\d{1,19})", re.ASCII | re.IGNORECASE)
_OK, _PARTIAL, _UNSATISFIABLE = 200, 206, 416


@dataclass(frozen=True, slots=True)
class ContentRange:
    """Half-open bytes ``[start, stop)`` of an object of ``size`` bytes, None where the server wrote ``*``."""

    start: int
    stop: int
    size: int | None


def range_header(start: int, stop: int) -> tuple[str, str]:
    """Return the Range header for the half-open bytes ``[start, stop)``; the header alone is inclusive."""
    return "Range", f"bytes={start}-{stop - 1}"


def ranges_header(ranges: Iterable[tuple[int, int]]) -> tuple[str, str]:
    """Return the Range header for several half-open ranges ``(start, stop)`` in one request."""
    return "Range", "bytes=" + ",".join(f"{start}-{stop - 1}" for start, stop in ranges)


def parse_content_range(value: str) -> ContentRange | None:
    """Read a Content-Range header; None unless it is one valid range of bytes. Source: RFC 9110, 14.4."""
    match = _CONTENT_RANGE.fullmatch(value.strip())
    if match is None:
        return None
    first, last = int(match[1]), int(match[2])
    size = None if match[3] == "*" else int(match[3])
    if first > last or (size is not None and last >= size):
        return None
    return ContentRange(first, last + 1, size)


def unsatisfied_size(headers: Mapping[str, str]) -> int | None:
    """Return the size that a 416 answer names, None if it names none."""
    match = _UNSATISFIED.fullmatch(headers.get("Content-Range", "").strip())
    return None if match is None else int(match[1])


def check_satisfiable(status: int, headers: Mapping[str, str], url: str, size: int) -> None:
    """Take a 416 that names another size for what it is.

    Raises:
        ObjectChanged: the object has another size than ``size`` bytes now.
    """
    now = unsatisfied_size(headers) if status == _UNSATISFIABLE else None
    if now is not None and now != size:
        raise ObjectChanged(f"{redacted_url(url)} was replaced: it had {size} bytes, has {now}; run again to restart")


def content_length(headers: Mapping[str, str]) -> int | None:
    """Return the promised length of the body in bytes, None where there is none or the transfer is chunked.

    Raises:
        ProtocolError: the header is no number, or says two things.
    """
    if "Content-Length" not in headers or "Transfer-Encoding" in headers:
        return None
    values = {value.strip() for value in headers["Content-Length"].split(",")}
    value = values.pop()
    if values or not value.isascii() or not value.isdigit() or len(value) > len(str(2**63)):
        raise ProtocolError(f"Content-Length {printable(headers['Content-Length'], 60)!r} is no length")
    return int(value)


def is_partial(status: int, headers: Mapping[str, str], start: int, stop: int) -> bool:
    """Tell whether an answer to ``bytes [start, stop)`` claims to be a range.

    Some servers answer a range with status 200 and yet an exact Content-Range and Content-Length (``rclone serve
    s3`` does): where both say just what was asked for, up to the object's end, they mean what 206 means.
    """
    if status == _PARTIAL:
        return True
    got = parse_content_range(headers.get("Content-Range", "")) if status == _OK else None
    if got is None or got.size is None:
        return False
    exact = (got.start, got.stop) == (start, min(stop, got.size))
    return exact and content_length(headers) == got.stop - got.start


def check_whole(headers: Mapping[str, str], url: str) -> None:
    """Refuse an answer with status 200 whose Content-Range does not say that it carries the whole object.

    It would be a piece of the object, or of another one, under the object's name.

    Raises:
        RangeMismatch: it must not be used.
    """
    value = headers.get("Content-Range")
    if value is None:
        return
    got = parse_content_range(value)
    if got is None or got.start or not got.stop == got.size == content_length(headers):
        raise RangeMismatch(
            f"{redacted_url(url)} answered status {_OK} with {printable(value, 80)}, which is not the whole object"
        )


def check_uncoded(headers: Mapping[str, str], url: str) -> None:
    """Refuse a body in a content coding: identity was asked for, and coded bytes are not the object's.

    Raises:
        ProtocolError: the body is coded.
    """
    coding = headers.get("Content-Encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise ProtocolError(
            f"{redacted_url(url)} answers in content coding {printable(coding, 40)!r} though identity was asked for"
        )


def check_partial(
    status: int, headers: Mapping[str, str], url: str, start: int, stop: int, size: int | None
) -> ContentRange:
    """Return the range that an answer to ``bytes [start, stop)`` carries: from ``start``, perhaps shorter.

    ``size`` is the object's size in bytes where it is known already.

    Raises:
        RangeMismatch: it is not that range; its body must not be used.
        ObjectChanged: the object has another size now.
    """
    claimed = is_partial(status, headers, start, stop)
    got = parse_content_range(headers.get("Content-Range", "")) if claimed else None
    if got is not None and size is not None and got.size not in (size, None):
        raise ObjectChanged(
            f"{redacted_url(url)} was replaced: it had {size} bytes, has {got.size}; run again to restart"
        )
    if got is None or got.start != start or got.stop > stop:
        asked = f"a request for bytes {start}-{stop - 1}"
        raise RangeMismatch(f"{redacted_url(url)} answered status {status} with {_shown(headers)} to {asked}")
    length = content_length(headers)
    if length is not None and length != got.stop - got.start:
        raise RangeMismatch(f"{redacted_url(url)} promised {length} bytes of body for {_shown(headers)}")
    check_uncoded(headers, url)
    return got


def _shown(headers: Mapping[str, str]) -> str:
    """Return what is told of an answer's range; where nothing is wrong this would be half of what checking costs."""
    return printable(headers.get("Content-Range", "no Content-Range"), 80)


def check_validator(headers: Mapping[str, str], url: str, expected: Validator) -> None:
    """Make sure that an answer is of the very object that the download began with.

    Raises:
        ObjectChanged: it is not.
    """
    changed = difference(expected, validator_of(headers))
    if changed:
        raise ObjectChanged(
            f"{redacted_url(url)} was replaced during the download: {printable(changed, 200)}; run again to restart"
        )
