"""The CRC-64/XZ of a whole from the CRCs of its parts, without looking at a byte again."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_POLYNOMIAL = 0xC96C5795D7870F42  # CRC-64/XZ, reflected: bit 63 is the coefficient of x^0
_ONE = 1 << 63


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
