"""What is recorded of a part, xxh3-64 and CRC-64/XZ, and what is said of a whole object.

CRC-64/XZ is what Alibaba Cloud OSS calls ``crc64ecma``. Both hashes run at 16 to 20 GB/s a core on bytes that are
still in cache and release the GIL for windows of 16 KiB and more.
"""

from __future__ import annotations

from dataclasses import dataclass

import xxhash
from fastcrc import crc64

from fastdl.arguments import texts
from fastdl.errors import UsageError
from fastdl.hashers import make_hasher

# What a digest is worth: its length in bytes, but for those that were broken or that guard against accidents only.
_WORTH = {"crc64nvme": 9, "crc64": 8, "crc32c": 7, "sha1": 6, "md5": 5, "crc32": 4}


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


@dataclass(frozen=True, slots=True)
class Expected:
    """A digest that somebody expects or promises of the whole object, lower-case hex.

    With ``part_size`` it is what S3 calls composite: the digest of the digests of its parts of so many bytes.
    """

    algorithm: str
    hex: str
    part_size: int | None = None

    @property
    def worth(self) -> int:
        """The more, the more an equal digest proves: sha512, sha256, then CRCs of 64 bits, crc32c, sha1, md5, crc32."""
        return _WORTH.get(self.algorithm, len(self.hex) // 2)


def parse_checksums(given: object) -> tuple[Expected, ...]:
    """Read one checksum, or each of several; None means none.

    Raises:
        UsageError: it is no text, or as of ``parse_checksum``.
    """
    return tuple(map(parse_checksum, texts("checksum", given)))


def parse_checksum(text: str) -> Expected:
    """Read ``ALGORITHM=HEX``: crc64, crc64nvme, crc32c, crc32, xxh3, or a name of hashlib.

    Raises:
        UsageError: the algorithm is unknown, or the digest has another length.
    """
    name, _, value = text.partition("=")
    algorithm, value = name.strip().lower().replace("_", "-"), value.strip().lower()
    try:
        digits = len(make_hasher(algorithm).hexdigest())
    except UsageError:
        raise
    except (ValueError, TypeError):
        raise UsageError(f"checksum algorithm {name[:40]!r} is unknown; write as in sha256=HEX or crc64=HEX") from None
    if len(value) != digits or set(value) - set("0123456789abcdef"):
        raise UsageError(f"a {algorithm} checksum is {digits} hexadecimal digits, not {value[:80]!r}")
    return Expected(algorithm, value)
