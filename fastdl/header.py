"""The head of a checkpoint: what it is about, byte by byte; ``checkpoint`` describes the whole file.

A slot is ``<8s I I Q Q Q Q Q Q 32s 16s`` = magic, version, flags, generation, size, part size, device and inode
of ``OUT.part``, promised crc64, SHA-256 of the source's identity, stamp of ``OUT.part``; then ETag, Last-Modified and
version id, each as a ``<H`` length and latin-1 bytes (at most 1024: of a longer one the beginning, a zero and its
SHA-256 in hexadecimal); zeros; and in its last eight bytes the xxh3-64 of all before.
Flags: 1, the promised crc64 is known; 2, the object as a whole was found not to be what was promised, and is repaired.

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
_CRC64_KNOWN, _DOUBTED = 1, 2
_FLAGS = struct.Struct("<I")
_FLAGS_AT, _GENERATION_AT = 12, 16


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
    doubted: bool = False  # whether the whole was found wrong, and nobody has found it right since


def identity_digest(identity: str) -> bytes:
    """Return what is stored of a source's identity."""
    return hashlib.sha256(identity.encode("utf-8", "surrogatepass")).digest()


def bitmap_bytes(plan: Plan) -> int:
    """Return how many bytes hold a bit for each part."""
    return -(-plan.count // 8)


def layout(plan: Plan) -> tuple[int, int]:
    """Return where the records begin and the file ends, in bytes."""
    records = 2 * SLOT + -(-bitmap_bytes(plan) // SLOT) * SLOT
    return records, records + RECORD.size * plan.count


def begins_ours(slot: bytes) -> bool:
    """Tell whether a file that begins so is a checkpoint."""
    return slot.startswith(_MAGIC)


def is_foreign(slots: list[bytes]) -> bool:
    """Tell whether a file that begins with ``slots`` was never a checkpoint, and so is not ours to overwrite.

    Whatever a crash leaves of ours has a magic, the beginning of one, or zeros but for the hashes: a disk may write
    the last sector of a slot first.
    """
    torn = _MAGIC.startswith(b"".join(slot[: SLOT - _HASH.size] for slot in slots).rstrip(b"\0"))
    return not torn and not any(slot.startswith(_MAGIC) for slot in slots)


def encode(header: Header, generation: int) -> bytes:
    """Return the slot of ``header``, SLOT bytes."""
    fixed = _FIXED.pack(
        _MAGIC,
        _VERSION,
        _CRC64_KNOWN * (header.crc64 is not None),
        generation,
        header.plan.size,
        header.plan.part_size,
        *header.inode,
        header.crc64 or 0,
        identity_digest(header.identity),
        header.stamp,
    )
    validator = header.validator.stored()
    # Header values are latin-1 on the wire, and stored ones have at most 1024 characters: three fit into a slot.
    texts = [
        text.encode("latin-1", "replace") for text in (validator.etag, validator.last_modified, validator.version_id)
    ]
    body = fixed + b"".join(struct.pack("<H", len(text)) + text for text in texts)
    return _sealed(body.ljust(SLOT - _HASH.size, b"\0"))


def doubting(slot: bytes, *, doubted: bool) -> bytes:
    """Return ``slot`` of the next generation, doubted or not."""
    body = bytearray(slot[: -_HASH.size])
    flags = _FLAGS.unpack_from(body, _FLAGS_AT)[0] & ~_DOUBTED | _DOUBTED * doubted
    _FLAGS.pack_into(body, _FLAGS_AT, flags)
    generation = min(_HASH.unpack_from(body, _GENERATION_AT)[0], MAX_GENERATION) + 1
    _HASH.pack_into(body, _GENERATION_AT, generation)
    return _sealed(bytes(body))


def _sealed(body: bytes) -> bytes:
    return body + _HASH.pack(xxhash.xxh3_64_intdigest(body))


def decode(slot: bytes) -> Stored | None:
    """Read a slot; None unless it is whole, of this version, and its numbers are possible."""
    if len(slot) != SLOT or _HASH.unpack(slot[-8:])[0] != xxhash.xxh3_64_intdigest(slot[:-8]):
        return None
    magic, version, flags, generation, size, part_size, device, inode, crc64, identity, stamp = _FIXED.unpack_from(slot)
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
    promised = crc64 if flags & _CRC64_KNOWN else None
    validator, doubted = Validator(*texts), bool(flags & _DOUBTED)
    return Stored(plan, identity, validator, promised, (device, inode), stamp, generation, doubted)
