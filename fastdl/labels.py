"""What names an object in the cache, and what a version of it: digests, because names are seen, and may be secret.

KEY is 32 hexadecimal digits of the SHA-256 of the source's identity, in which no signature is, ``-``, and eight of that
of its address and of the headers that choose content. VERSION is 32 digits of the SHA-256 of size and validators.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from fastdl.errors import UsageError
from fastdl.header import identity_digest
from fastdl.signatures import unsigned_url
from fastdl.validator import ObjectInfo, why_not_resumable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fastdl.sources import Source

_DIGITS, _FEW = 32, 8
_KEY = re.compile(rf"[0-9a-f]{{{_DIGITS}}}-[0-9a-f]{{{_FEW}}}")
_CHOOSING = frozenset(("accept", "accept-language"))  # headers that choose content, and hold no secret


def is_key(name: str) -> bool:
    """Tell whether ``name`` is one that ``key_of`` may have made."""
    return _KEY.fullmatch(name) is not None


def key_of(source: Source, headers: Iterable[tuple[str, str]]) -> str:
    """Return the directory of an object: the same for any signature, another for another endpoint or ``Accept``."""
    choosing = sorted((name.lower(), value) for name, value in headers if name.lower() in _CHOOSING)
    rest = "\0".join((source.address, *(f"{name}:{value}" for name, value in choosing)))
    return f"{prefix_of(source.identity)}-{identity_digest(rest).hex()[:_FEW]}"


def prefix_of(identity: str) -> str:
    """Return what the directories of one identity begin with, whatever the endpoint."""
    return identity_digest(identity).hex()[:_DIGITS]


def version_of(info: ObjectInfo) -> str:
    """Return the name of an object's state; empty if its validators do not tell it from others."""
    known = info.validator
    if why_not_resumable(known, known):
        return ""
    weak = () if known.strong else (known.last_modified, str(info.crc64))
    text = "\0".join((str(info.size), known.version_id, known.etag, *weak))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]


def identity_of(url: str) -> str:
    """Return the identity of a URL's source, without the credentials and endpoint that the source itself needs."""
    scheme, separator, rest = url.partition("://")
    if scheme.lower() in ("http", "https"):
        try:
            return unsigned_url(url)
        except ValueError:
            raise UsageError("the URL cannot be read") from None
    return scheme.lower() + separator + rest
