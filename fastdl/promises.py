"""What the head of an answer promises of the whole object: digests, read out of half a dozen headers.

A value that cannot be read is no promise, and never an error: absence of proof shows in the result.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING

from fastdl.digest import Expected

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_LIMIT = 4096  # characters looked at of one header; six sha-512 values have 700
_NBYTES = {"sha512": 64, "sha256": 32, "crc64nvme": 8, "crc32c": 4, "sha1": 20, "md5": 16, "crc32": 4}
# Names of RFC 9530, 5. Its crc32c is left out: how its bytes are written is not told.
_HTTP_NAMES = {"sha-512": "sha512", "sha-256": "sha256", "sha": "sha1", "md5": "md5"}
_AMAZON_NAMES = ("crc64nvme", "crc32c", "crc32", "sha256", "sha1")
_MEMBER = re.compile(r"[ \t]*([a-z*][a-z0-9_.*-]*)=:([A-Za-z0-9+/=]*):[ \t]*(?:;[^,]*)?")


def promised(headers: Mapping[str, str], *, whole: bool) -> tuple[Expected, ...]:
    """Return every digest of the whole object that a response head tells; ``headers`` look names up in any case.

    ``whole``: the answer carries the whole object. Only then do Content-Digest, Content-MD5 and S3's
    x-amz-checksum-* speak of it: on a range they are of the range, or of one part of the upload. Repr-Digest
    (RFC 9530) and Google's x-goog-hash are of the whole object on ranges too. Composite digests of S3, ``value-N``,
    need the part size of the upload and are left to the source.
    """
    found = list(_dictionary(headers, "Repr-Digest"))
    if headers.get("x-goog-stored-content-encoding", "identity").strip().lower() in ("", "identity"):
        found.extend(_google(headers))  # else the hash is of coded bytes, which were decoded for us
    if whole:
        found.extend(_dictionary(headers, "Content-Digest"))
        found.extend(_expected("md5", headers.get("Content-MD5", "")))
        if headers.get("x-amz-checksum-type", "FULL_OBJECT").strip().upper() == "FULL_OBJECT":
            for algorithm in _AMAZON_NAMES:
                found.extend(_expected(algorithm, headers.get(f"x-amz-checksum-{algorithm}", "")))
    return tuple(dict.fromkeys(found))


def _dictionary(headers: Mapping[str, str], name: str) -> Iterator[Expected]:
    """Yield the members of a structured field that are byte sequences of a known name. Source: RFC 8941, 3.2."""
    for member in headers.get(name, "")[:_LIMIT].split(","):
        match = _MEMBER.fullmatch(member)
        if match is not None and match[1] in _HTTP_NAMES:
            yield from _expected(_HTTP_NAMES[match[1]], match[2])


def _google(headers: Mapping[str, str]) -> Iterator[Expected]:
    for member in headers.get("x-goog-hash", "")[:_LIMIT].split(","):
        name, _, value = member.strip().partition("=")
        if name in ("crc32c", "md5"):
            yield from _expected(name, value)


def _expected(algorithm: str, value: str) -> Iterator[Expected]:
    """Yield the digest that ``value`` is in base64, if it is one of the right length."""
    try:
        digest = base64.b64decode(value[:_LIMIT].strip(), validate=True)
    except (binascii.Error, ValueError):
        return
    if len(digest) == _NBYTES[algorithm]:
        yield Expected(algorithm, digest.hex())
