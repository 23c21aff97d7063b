"""What tells one state of an object from another: RFC 9110's validators, and what may be concluded from them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastdl.digest import Expected

MOST_STORED = 1024  # characters of one validator that a checkpoint holds; tags of S3 and OSS have 34 to 40
_CUT = "\0"  # stands in no header: before the digest of what was too long to be stored
_DIGEST = 2 * hashlib.sha256().digest_size
_HEAD = 16  # characters shown of what is longer than anybody reads


@dataclass(frozen=True)
class Validator:
    """ETag, Last-Modified and version id exactly as the server wrote them; empty where it gave none."""

    etag: str = ""
    last_modified: str = ""
    version_id: str = ""

    @property
    def strong(self) -> bool:
        """Whether equal bytes follow from equal validators: a version id or a strong ETag."""
        return bool(self.version_id or (self.etag and not self.etag.startswith("W/")))

    def stored(self) -> Validator:
        """Return what a checkpoint keeps of it: each text as it is, or its beginning and its digest."""
        return Validator(*map(_storable, (self.etag, self.last_modified, self.version_id)))

    @property
    def version_to_name(self) -> str:
        """The version id, unless it was too long to be stored and so cannot be asked for."""
        return "" if _CUT in self.version_id else self.version_id


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """The remote object as its first answer described it.

    ``size`` is in bytes, None if the server did not say; ``crc64`` is the CRC-64/XZ that the store promises for the
    whole object, None where it promises nothing; ``promises`` are the other digests of the whole object that the head
    told.
    """

    size: int | None
    validator: Validator
    crc64: int | None = None
    promises: tuple[Expected, ...] = ()


def validator_of(headers: Mapping[str, str]) -> Validator:
    """Read the validator out of a response head; ``headers`` must look names up without regard to case."""
    version = headers.get("x-oss-version-id") or headers.get("x-amz-version-id") or ""
    return Validator(headers.get("ETag", ""), headers.get("Last-Modified", ""), version)


def difference(before: Validator, now: Validator) -> str:
    """Say in which validator two answers differ, for a person; empty when they are of one object.

    Absence is not agreement: what the first answer had, every later one must have. Last-Modified counts only where
    nothing stronger speaks, because the machines behind one name may disagree about it. Either may be of a checkpoint.
    """
    before, now = before.stored(), now.stored()
    pairs = [("version id", before.version_id, now.version_id), ("ETag", before.etag, now.etag)]
    if not (before.strong and now.strong):
        pairs.append(("Last-Modified", before.last_modified, now.last_modified))
    for name, old, new in pairs:
        if old != new:
            return f"{name} was {_shown(old)}, is {_shown(new)}"
    return ""


def why_not_resumable(before: Validator, now: Validator) -> str:
    """Say why parts kept from an earlier run may not be joined with new ones; empty when they may.

    A strong validator proves sameness; Last-Modified with equal size is taken as proof too, as every resuming client
    does, because web servers often give nothing else. Without either nothing is known. Source: RFC 9110, 8.8.
    """
    changed = difference(before, now)
    if changed:
        return f"the object was replaced: {changed}"
    if not now.strong and not now.last_modified:
        return "the server gives neither a strong ETag nor Last-Modified, so a replaced object would go unnoticed"
    return ""


def _storable(text: str) -> str:
    if len(text) <= MOST_STORED or _CUT in text:
        return text
    digest = hashlib.sha256(text.encode("latin-1", "replace")).hexdigest()
    return text[: MOST_STORED - len(_CUT) - _DIGEST] + _CUT + digest


def _shown(text: str) -> str:
    head, cut, digest = text.partition(_CUT)
    return f"{head[:_HEAD]}… ({digest[:_HEAD]}…)" if cut else text or "absent"
