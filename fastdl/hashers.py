"""Digests of whole objects by every algorithm that users and stores name, all of hashlib's manner."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Protocol

import xxhash
from fastcrc import crc32, crc64

from fastdl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable


_CRCS = {"crc64": (crc64.xz, 8), "crc32c": (crc32.iscsi, 4), "crc32": (crc32.iso_hdlc, 4)}  # steps; bytes


class Hashing(Protocol):
    """What hashlib's objects have in common with ours."""

    def update(self, data: memoryview, /) -> None:
        """Add ``data``, which nobody may change meanwhile."""
        ...

    def hexdigest(self) -> str:
        """Return the digest of all that was added."""
        ...


class _Crc:
    """A CRC as hashlib would have it; ``step`` continues one over more bytes."""

    def __init__(self, step: Callable[[memoryview, int], int], nbytes: int) -> None:
        self._step, self._digits, self._crc = step, 2 * nbytes, 0

    def update(self, data: memoryview, /) -> None:
        self._crc = self._step(data, self._crc)

    def hexdigest(self) -> str:
        return f"{self._crc:0{self._digits}x}"


class _Composite:
    """The digest of the digests of parts of ``part_size`` bytes, as S3 makes it of multipart uploads."""

    def __init__(self, algorithm: str, part_size: int) -> None:
        self._algorithm, self._part_size = algorithm, part_size
        self._digests = bytearray()  # of the parts before the one at hand; S3 allows 10,000
        self._part, self._left = make_hasher(algorithm), part_size

    def update(self, data: memoryview, /) -> None:
        while data:
            if self._left == 0:
                self._digests += bytes.fromhex(self._part.hexdigest())
                self._part, self._left = make_hasher(self._algorithm), self._part_size
            piece = data[: self._left]
            self._part.update(piece)
            self._left -= len(piece)
            data = data[len(piece) :]

    def hexdigest(self) -> str:
        whole = make_hasher(self._algorithm)
        whole.update(memoryview(self._digests + bytes.fromhex(self._part.hexdigest())))
        return whole.hexdigest()


def make_hasher(algorithm: str, part_size: int | None = None) -> Hashing:
    """Return what computes ``algorithm``: crc64 (XZ), crc64nvme, crc32c, crc32, xxh3, or a name of hashlib's.

    With ``part_size`` it is the digest of the digests of parts of so many bytes.

    Raises:
        ValueError: the algorithm is unknown, or has no one length.
        UsageError: it needs a library that is not there.
    """
    if part_size is not None:
        return _Composite(algorithm, part_size)
    if algorithm == "crc64nvme":
        return _Crc(_crc64nvme(), 8)
    if algorithm in _CRCS:
        return _Crc(*_CRCS[algorithm])
    if algorithm == "xxh3":
        return xxhash.xxh3_64()
    hasher = hashlib.new(algorithm, usedforsecurity=False)  # md5 is refused by some systems for anything else
    if hasher.digest_size == 0:
        raise ValueError(algorithm)
    return hasher


def is_known(algorithm: str) -> bool:
    """Tell whether this installation can compute it."""
    try:
        make_hasher(algorithm)
    except (ValueError, TypeError):
        return False
    return True


def _crc64nvme() -> Callable[[memoryview, int], int]:
    try:
        from awscrt import checksums  # noqa: PLC0415 - 55 ms, and only S3 promises this one
    except ImportError:
        raise UsageError("crc64nvme needs Amazon's CRT: pip install awscrt") from None
    step: Callable[[memoryview, int], int] = checksums.crc64nvme
    return step
