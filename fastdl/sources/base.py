"""What a source is, and what all of them share: reserved headers, the CRC header, plain meanings of statuses."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Protocol

from fastdl.contract import parse_content_range
from fastdl.errors import (
    AccessDenied,
    FastdlError,
    NotFound,
    ObjectChanged,
    ProtocolError,
    Refused,
    ServerBusy,
    UsageError,
)
from fastdl.promises import promised
from fastdl.redact import printable
from fastdl.retry import RETRYABLE_STATUS, parse_retry_after
from fastdl.validator import ObjectInfo, validator_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fastdl.digest import Expected
    from fastdl.errors import Archived
    from fastdl.http import Transport
    from fastdl.messages import Request

# fastdl itself decides on these; a user's value would break the range contract or the framing.
_RESERVED = frozenset(
    (
        *("range", "if-range", "if-match", "if-none-match", "if-modified-since"),
        *("if-unmodified-since", "host", "accept-encoding", "connection", "content-length"),
        *("transfer-encoding", "te", "upgrade", "expect"),
    )
)

_DENIED = "access denied: check credentials, policy or the URL's expiry"
_MEANINGS: dict[int, tuple[type[FastdlError], str]] = {
    401: (AccessDenied, _DENIED),
    403: (AccessDenied, _DENIED),
    404: (NotFound, "nothing is there"),
    407: (AccessDenied, "the proxy wants other credentials"),
    410: (NotFound, "nothing is there any more"),
    412: (ObjectChanged, "the object was replaced during the download; run again to restart"),
}


class Source(Protocol):
    """One object in one store; lives in the caller's process only, because it may hold credentials."""

    identity: str  # names the object across runs, without secrets
    address: str  # the URL that it is first asked for by, without secrets: of which store of that name it is
    shown: str  # what people see of the URL, redacted
    several: bool  # whether several ranges may be asked for in one request; stores do not answer that

    def request(self, info: ObjectInfo | None) -> Request:
        """Return a signed GET without Range; ``info``, once known, adds the conditions of its validator."""
        ...

    def renew(self) -> bool:
        """Prepare for another attempt after a refusal: new credentials, no pinned redirect; False if pointless."""
        ...

    def adapt(self, refused: Refused) -> bool:
        """Learn from a refusal what later requests must do otherwise (another region, another clock).

        True if the same request is worth asking again at once; no lesson is learnt twice, so that this ends.
        """
        ...

    def thaw(self, archived: Archived, transport: Transport, sleep: Callable[[float], None]) -> None:
        """Make an object readable that was found ``archived``, and return once it is.

        Raises:
            Archived: that is not wanted, or not waited for.
        """
        ...

    def pin(self, request: Request) -> None:
        """Remember where redirects led, so that later requests go there at once."""
        ...

    def describe(self, headers: Mapping[str, str], size: int | None) -> ObjectInfo:
        """Read the object's facts from the head of an answer that carries ``size`` bytes in all."""
        ...

    def promises(self, info: ObjectInfo, transport: Transport) -> tuple[Expected, ...]:
        """Return the digests that the store promises of the whole object; may ask, fails never, is called once."""
        ...

    def explain(self, refused: Refused) -> FastdlError:
        """Turn an answer without data into the error that people see."""
        ...


def check_headers(headers: tuple[tuple[str, str], ...]) -> None:
    """Refuse user headers that would smuggle or break something.

    Raises:
        UsageError: a name is reserved or no token, or a value holds control characters.
    """
    for name, value in headers:
        if name.lower() in _RESERVED:
            raise UsageError(f"header {name!r} is fastdl's own and cannot be set")
        if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
            raise UsageError("a header's name is made of letters, digits, - and _; write as in 'Name: value'")
        if any((char < " " and char != "\t") or char == "\x7f" or char > "\xff" for char in value):
            raise UsageError(f"the value of header {name!r} holds control characters, or some beyond latin-1")


def describe_plainly(headers: Mapping[str, str], size: int | None) -> ObjectInfo:
    """Read size, validator, the CRC-64 that OSS promises, on presigned URLs and behind CDNs too, and other digests."""
    value = headers.get("x-oss-hash-crc64ecma", "").strip()
    known = value.isascii() and value.isdigit() and len(value) <= len(str(2**64)) and int(value) < 2**64
    if headers.get("x-oss-object-type", "").lower() == "symlink":  # they may be the link's own
        return ObjectInfo(size, validator_of(headers))
    return ObjectInfo(size, validator_of(headers), int(value) if known else None, _promises(headers, size))


def _promises(headers: Mapping[str, str], size: int | None) -> tuple[Expected, ...]:
    """Read the digests of a head that carries the whole object or a range of it, or is a 416 without any byte of it."""
    if "Content-Range" not in headers:
        return promised(headers, whole=True)
    got = parse_content_range(headers["Content-Range"])
    return () if got is None else promised(headers, whole=got.stop - got.start == size)


def clock_ahead(refused: Refused) -> float | None:
    """Return how many seconds the server's clock is ahead of ours; None if it does not tell."""
    try:
        return parsedate_to_datetime(refused.headers.get("date", "")).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None


def explain_plainly(shown: str, refused: Refused, detail: str = "") -> FastdlError:
    """Give a status its error; ``detail`` is what the store said beside it."""
    status = refused.status
    text = f"{shown}: status {status}" + (f", {printable(detail)}" if detail else "")
    if status in RETRYABLE_STATUS:
        wish = parse_retry_after(refused.headers.get("retry-after", ""), time.time())
        return ServerBusy(f"{text}; the server is busy or failing", status, wish)
    kind, meaning = _MEANINGS.get(status, (ProtocolError, "an answer that carries no data and has no meaning here"))
    return kind(f"{text}; {meaning}")
