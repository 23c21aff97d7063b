"""The head of a checkpoint: what it is about, byte by byte; ``checkpoint`` describes the whole file.

A slot is ``<8s I I Q Q Q Q Q Q 32s 16s`` = magic, version, crc64 known, generation, size, part size, device and inode
of ``OUT.part``, promised crc64, SHA-256 of the source's identity, stamp of ``OUT.part``; then ETag, Last-Modified and
version id, each as a ``<H`` length and latin-1 bytes; zeros; and in its last eight bytes the xxh3-64 of all before.

A slot is valid if and only if magic, version and hash are right, the numbers are possible and the lengths stay inside.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

import xxhash

from fastdl.plan import MAX_PART_COUNT, MAX_PART_SIZE, MIN_PART_SIZE, Plan
from fastdl.validator import Validator

SLOT = 4096  # bytes: a page, and not less than a disk writes at once
STAMP = 16  # bytes
RECORD = struct.Struct("<QQ")
_MAGIC = b"fastdlCP"
_VERSION = 1
MAX_GENERATION = 2**64 - 2  # the next one still fits
_FIXED = struct.Struct("<8sIIQQQQQQ32s16s")
_HASH = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Header:
    """What a checkpoint is about; two runs may share one only if everything here agrees."""

    plan: Plan
    identity: str  # the source's, without secrets; only its SHA-256 is stored
    validator: Validator
    crc64: int | None  # the whole object's, as the store promised it
    inode: tuple[int, int]  # device and inode of OUT.part
    stamp: bytes  # the sixteen random bytes behind the object in OUT.part


@dataclass(frozen=True, slots=True)
class Stored:
    """A header as read back: of the identity only the digest is left."""

    plan: Plan
    identity_digest: bytes
    validator: Validator
    crc64: int | None
    inode: tuple[int, int]
    stamp: bytes
    generation: int


def identity_digest(identity: str) -> bytes:
    """Return what is stored of a source's identity."""
    return hashlib.sha256(identity.encode("utf-8", "surrogatepass")).digest()


def layout(plan: Plan) -> tuple[int, int]:
    """Return where the records begin and the file ends, in bytes."""
    records = 2 * SLOT + -(-plan.count // (8 * SLOT)) * SLOT
    return records, records + RECORD.size * plan.count


def is_foreign(slots: list[bytes]) -> bool:
    """Tell whether a file that begins with ``slots`` was never a checkpoint, and so is not ours to overwrite.

    Whatever a crash leaves of ours has a magic, the beginning of one, or zeros.
    """
    torn = _MAGIC.startswith(b"".join(slots).rstrip(b"\0"))
    return not torn and not any(slot.startswith(_MAGIC) for slot in slots)


def encode(header: Header, generation: int) -> bytes:
    """Return the slot of ``header``, SLOT bytes."""
    fixed = _FIXED.pack(
        _MAGIC,
        _VERSION,
        header.crc64 is not None,
        generation,
        header.plan.size,
        header.plan.part_size,
        *header.inode,
        header.crc64 or 0,
        identity_digest(header.identity),
        header.stamp,
    )
    validator = header.validator
    # Header values are latin-1 on the wire and at most 1024 characters in a Validator: three fit into a slot.
    texts = [
        text.encode("latin-1", "replace") for text in (validator.etag, validator.last_modified, validator.version_id)
    ]
    body = fixed + b"".join(struct.pack("<H", len(text)) + text for text in texts)
    body = body.ljust(SLOT - _HASH.size, b"\0")
    return body + _HASH.pack(xxhash.xxh3_64_intdigest(body))


def decode(slot: bytes) -> Stored | None:
    """Read a slot; None unless it is whole, of this version, and its numbers are possible."""
    if len(slot) != SLOT or _HASH.unpack(slot[-8:])[0] != xxhash.xxh3_64_intdigest(slot[:-8]):
        return None
    magic, version, has_crc, generation, size, part_size, device, inode, crc64, identity, stamp = _FIXED.unpack_from(
        slot
    )
    if magic != _MAGIC or version != _VERSION or not MIN_PART_SIZE <= part_size <= MAX_PART_SIZE:
        return None
    plan = Plan(size, part_size)
    if plan.count > MAX_PART_COUNT:
        return None
    texts, at = [], _FIXED.size
    for _ in range(3):
        (length,) = struct.unpack_from("<H", slot, at)
        texts.append(slot[at + 2 : at + 2 + length].decode("latin-1"))
        at += 2 + length
        if at > SLOT - 8:
            return None
    return Stored(plan, identity, Validator(*texts), crc64 if has_crc else None, (device, inode), stamp, generation)
