"""Which digests S3 promises of a whole object: it tells them to a HEAD, of composites only half.

A composite is the digest of the digests of the upload's parts, whose size a HEAD of the first part tells.
"""

from __future__ import annotations

import logging
import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from fastdl.connections import patience
from fastdl.contract import content_length
from fastdl.digest import Expected
from fastdl.errors import FastdlError
from fastdl.promises import promised
from fastdl.redact import redacted_url
from fastdl.retry import RETRYABLE_STATUS
from fastdl.sources.base import describe_plainly

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fastdl.http import Transport
    from fastdl.messages import Request
    from fastdl.validator import ObjectInfo

    Asking = Callable[[Mapping[str, str], int | None], Request]  # headers, and a part's number or none -> signed HEAD

_NAMES = ("crc64nvme", "crc32c", "crc32", "sha256", "sha1")
_HASHES = frozenset(("sha256", "sha1"))  # of an upload in parts S3 has these as composites only
_ETAG = re.compile(r'"?([0-9a-f]{32})(?:-([0-9]{1,5}))?"?')
_VALUE = re.compile(r"([A-Za-z0-9+/=]{8,44})(?:-([0-9]{1,5}))?")
_ENABLED = {"x-amz-checksum-mode": "ENABLED"}
_PARTS = frozenset((200, 206))
_WAITS = (0.1, 0.5)  # seconds before a HEAD that failed is sent again
log = logging.getLogger("fastdl")
_TELLING = 3  # parts from which on a size that fits the first need not fit the last


def describe(headers: Mapping[str, str], size: int | None) -> ObjectInfo:
    """Read size and validators, and of the digests those that are surely of the whole object."""
    info = describe_plainly(headers, size)
    etag = _ETAG.fullmatch(info.validator.etag)
    if headers.get("x-amz-checksum-type") or not etag or not etag[2]:
        return info
    return replace(info, promises=tuple(each for each in info.promises if each.algorithm == "crc64nvme"))


def ask(info: ObjectInfo, asking: Asking, transport: Transport) -> tuple[Expected, ...]:
    """Return what the store promises; whoever refuses a HEAD, or knows no checksums, promises nothing.

    Without a checksum the ETag is taken for the MD5 that it is of an object uploaded in one piece and not encrypted
    with a key of a user's. It costs a processor's time, at 0.6 GB/s, and finds what nothing else would.
    """
    head = _ask(asking(_ENABLED, None), transport)
    if head is None or head.get("Content-Length") != str(info.size) or head.get("ETag", "") != info.validator.etag:
        return ()  # refused, or of an object that came in between
    etag = _ETAG.fullmatch(info.validator.etag)
    count = etag[2] if etag else None
    kind = head.get("x-amz-checksum-type", "").strip().upper()
    found: list[Expected] = []
    for algorithm in _NAMES:
        match = _VALUE.fullmatch(head.get(f"x-amz-checksum-{algorithm}", ""))
        digest = promised({f"x-amz-checksum-{algorithm}": match[1]}, whole=True) if match else ()
        if match is None or not digest:
            continue
        if _is_full(algorithm, kind, in_parts=bool(count), suffix=match[2]):
            found += digest
        elif (match[2] or count) and (kind == "COMPOSITE" or (not kind and (match[2] or algorithm in _HASHES))):
            part_size = _part_size(info, int(match[2] or count or 0), asking, transport)
            found += [replace(each, part_size=part_size) for each in digest if part_size]
    if not found and etag and not count and _is_md5(head):
        found.append(Expected("md5", etag[1]))
    return tuple(found)


def _is_full(algorithm: str, kind: str, *, in_parts: bool, suffix: str | None) -> bool:
    """Tell whether a digest is of the whole object's bytes.

    Stores that do not say which kind it is mean the parts, where there are parts: only CRC-64/NVME is never composite.
    """
    return not suffix and (kind == "FULL_OBJECT" or (not kind and (not in_parts or algorithm == "crc64nvme")))


def _is_md5(head: Mapping[str, str]) -> bool:
    encryption = head.get("x-amz-server-side-encryption", "AES256")
    return encryption == "AES256" and "x-amz-server-side-encryption-customer-algorithm" not in head


def _part_size(info: ObjectInfo, count: int, asking: Asking, transport: Transport) -> int | None:
    """Return the size of the upload's parts, if all but the last have the same."""

    def length(number: int) -> int | None:
        head = _ask(asking({}, number), transport)
        if head is None or head.get("x-amz-mp-parts-count", str(count)) != str(count):
            return None
        etag = head.get("ETag", "")  # the object's, at Amazon's; the part's own, elsewhere
        return None if "-" in etag and etag != info.validator.etag else content_length(head)

    size, first = info.size or 0, length(1)
    if not first or -(-size // first) != count:
        return None
    if count >= _TELLING and length(count) != size - (count - 1) * first:
        return None
    return first


def _ask(request: Request, transport: Transport) -> Mapping[str, str] | None:
    """Return an answer's head; None if it is a refusal. What may pass is tried again, and then said."""
    for wait in (*_WAITS, None):
        try:
            with patience(transport.line.read_timeout):
                response = transport.open(request)
            response.finish()
        except FastdlError as error:
            failure = str(error)
        else:
            if response.status not in RETRYABLE_STATUS:
                return response.headers if response.status in _PARTS else None
            failure = f"status {response.status}"
        if wait is not None:
            time.sleep(wait)
    log.warning("%s: asked in vain for its checksum, so none is compared: %s", redacted_url(request.url), failure)
    return None
