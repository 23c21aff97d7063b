"""xxh3-64 and CRC-64/XZ of buffers, and the CRC of a whole from the CRCs of its parts.

CRC-64/XZ is what Alibaba Cloud OSS calls ``crc64ecma``. Both hashes run at 16 to 20 GB/s a core on bytes that are
still in cache and release the GIL for windows of 16 KiB and more.
"""

from __future__ import annotations

import functools
import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import xxhash
from fastcrc import crc64

from fastdl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_POLYNOMIAL = 0xC96C5795D7870F42  # CRC-64/XZ, reflected: bit 63 is the coefficient of x^0
_ONE = 1 << 63
_LENGTHS = {"crc64": 8, "xxh3": 8}  # bytes; hashlib knows those of its own
_BUFFER = 1024 * 1024  # bytes read at a time when a whole file is hashed


@dataclass(frozen=True)  # no slots, as all that crosses between processes (messages.py)
class Digest:
    """What is recorded of one part: xxh3-64 seeded with the part's index, and the plain CRC-64/XZ."""

    xxh3: int
    crc64: int


class Hasher:
    """Both digests of one part, fed window by window.

    xxh3 is seeded with the part's index, so that two records that changed places never pass for each other.
    """

    __slots__ = ("_crc", "_xxh3")

    def __init__(self, index: int) -> None:
        self._xxh3 = xxhash.xxh3_64(seed=index)
        self._crc = crc64.xz(b"")

    def update(self, window: memoryview) -> None:
        """Add ``window``, any number of contiguous bytes, which nobody may change meanwhile."""
        self._xxh3.update(window)
        self._crc = crc64.xz(window, self._crc)

    def digest(self) -> Digest:
        """Return the digests of all that was added."""
        return Digest(self._xxh3.intdigest(), self._crc)


def crc64_combine(first: int, second: int, second_nbytes: int) -> int:
    """Return the CRC-64/XZ of A followed by B from those of A and B and the length of B in bytes.

    ``crc(A||B) = crc(A) * x^(8|B|) mod P ^ crc(B)``. Source: zlib's crc32_combine by Mark Adler, with 64 bits.
    """
    return _multiply(first, _power(second_nbytes)) ^ second


def crc64_of_parts(crcs: Iterable[int], part_size: int, last_size: int) -> int:
    """Return the CRC of the whole from those of its parts, in order; all but the last hold ``part_size`` bytes.

    The factor is the same for all full parts, so a part costs eight table look-ups: a million parts, a second.
    """
    whole = 0
    held: int | None = None  # the newest CRC waits until it is known whether it is the last, shorter part
    t0, t1, t2, t3, t4, t5, t6, t7 = _tables(_power(part_size))
    for crc in crcs:
        if held is not None:
            w = whole
            whole = (
                t0[w & 255]
                ^ t1[w >> 8 & 255]
                ^ t2[w >> 16 & 255]
                ^ t3[w >> 24 & 255]
                ^ t4[w >> 32 & 255]
                ^ t5[w >> 40 & 255]
                ^ t6[w >> 48 & 255]
                ^ t7[w >> 56]
                ^ held
            )
        held = crc
    return whole if held is None else crc64_combine(whole, held, last_size)


@dataclass(frozen=True, slots=True)
class Expected:
    """The digest that a user expects of the whole object, lower-case hex."""

    algorithm: str
    hex: str


def parse_checksum(text: str) -> Expected:
    """Read ``ALGORITHM=HEX``: crc64, xxh3, or a name of hashlib.

    Raises:
        UsageError: the algorithm is unknown, or the digest has another length.
    """
    name, _, value = text.partition("=")
    algorithm, value = name.strip().lower().replace("_", "-"), value.strip().lower()
    try:
        length = _LENGTHS.get(algorithm) or hashlib.new(algorithm).digest_size
    except (ValueError, TypeError):
        raise UsageError(f"checksum algorithm {name[:40]!r} is unknown; write as in sha256=HEX or crc64=HEX") from None
    if length == 0 or len(value) != 2 * length or set(value) - set("0123456789abcdef"):
        raise UsageError(f"a {algorithm} checksum is {2 * length} hexadecimal digits, not {value[:80]!r}")
    return Expected(algorithm, value)


class _Crc64:
    """CRC-64/XZ as hashlib would have it."""

    def __init__(self) -> None:
        self._crc = 0

    def update(self, data: memoryview) -> None:
        self._crc = crc64.xz(data, self._crc)

    def hexdigest(self) -> str:
        return f"{self._crc:016x}"


def file_digest(fd: int, size: int, algorithm: str) -> str:
    """Hash the first ``size`` bytes of an open file with what parse_checksum took; return the digest in hex."""
    if algorithm == "crc64":
        digest: Any = _Crc64()
    else:
        digest = xxhash.xxh3_64() if algorithm == "xxh3" else hashlib.new(algorithm)
    buffer = memoryview(bytearray(_BUFFER))
    offset = 0
    while count := os.preadv(fd, [buffer[: size - offset]], offset):
        digest.update(buffer[:count])
        offset += count
    return str(digest.hexdigest())


def _multiply(a: int, b: int) -> int:
    """Return ``a * b mod P`` over GF(2), reflected."""
    product = 0
    while a:
        if a & _ONE:
            product ^= b
        a = a << 1 & (2**64 - 1)
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
    return product


@functools.lru_cache(maxsize=64)
def _power(nbytes: int) -> int:
    """Return ``x^(8 * nbytes) mod P`` by square and multiply."""
    result, base = _ONE, _ONE >> 8
    while nbytes:
        if nbytes & 1:
            result = _multiply(result, base)
        base = _multiply(base, base)
        nbytes >>= 1
    return result


@functools.lru_cache(maxsize=4)
def _tables(factor: int) -> Sequence[tuple[int, ...]]:
    """Return eight tables of 256: the product of ``factor`` with each value of each byte of the other operand."""
    bits = [0] * 64  # the products with single bits; bit 63 is x^0, each lower one is one more x
    for position in range(63, -1, -1):
        bits[position] = factor
        factor = factor >> 1 ^ (_POLYNOMIAL if factor & 1 else 0)
    tables = []
    for byte in range(8):
        table = [0] * 256
        for value in range(1, 256):
            low = value & -value
            table[value] = table[value ^ low] ^ bits[8 * byte + low.bit_length() - 1]
        tables.append(tuple(table))
    return tables
