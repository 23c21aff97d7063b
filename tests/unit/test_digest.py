"""xxh3, CRC-64/XZ and what users write about digests."""

from __future__ import annotations

import pytest
import xxhash

from fastdl.combine import crc64_combine, crc64_of_parts
from fastdl.digest import Digest, Expected, Hasher, parse_checksum
from fastdl.errors import UsageError
from fastdl.hashers import make_hasher

CHECK = b"123456789"


def digest_of(data: bytes, index: int = 0) -> Digest:
    """Hash in one go."""
    hasher = Hasher(index)
    hasher.update(memoryview(data))
    return hasher.digest()


@pytest.mark.parametrize(("data", "crc"), [(b"", 0), (CHECK, 0x995DC9BBDF1939FA), (b"12345", 0x5DA746FFA5045CE9)])
def test_crc64_is_the_one_called_xz(data: bytes, crc: int) -> None:
    """The published check value, and those of the official OSS client."""
    assert digest_of(data).crc64 == crc


@pytest.mark.parametrize(("data", "xxh3"), [(b"", 0x2D06800538D394C2), (CHECK, 0x72DCB18B67A17DFF)])
def test_xxh3_is_the_64_bit_one(data: bytes, xxh3: int) -> None:
    """The reference implementation's values, with seed 0 for part 0."""
    assert digest_of(data).xxh3 == xxh3


def test_equal_bytes_of_two_parts_have_two_records() -> None:
    """The seed is the part's index: records that changed places never pass for each other."""
    assert digest_of(CHECK, 1).xxh3 == xxhash.xxh3_64_intdigest(CHECK, seed=1)
    assert digest_of(CHECK, 1).xxh3 != digest_of(CHECK, 2).xxh3
    assert digest_of(CHECK, 1).crc64 == digest_of(CHECK, 2).crc64


def test_combining_is_hashing_what_was_joined() -> None:
    """A vector of zlib's algorithm with 64 bits."""
    assert crc64_combine(0x5DA746FFA5045CE9, 0x573A0A56C70BC2DD, 5) == 0xB1CB31BBB4A2B2BE


def test_nothing_may_be_joined_on_either_side() -> None:
    """The empty part is neutral."""
    crc = digest_of(CHECK).crc64
    assert crc64_combine(crc, 0, 0) == crc
    assert crc64_combine(0, crc, len(CHECK)) == crc


def test_a_length_of_terabytes_is_combined_as_if_it_were_written_out() -> None:
    """Zeros behind a byte, doubled up to 8 TiB, agree with the two halves combined."""
    crc, zeros, nbytes = digest_of(b"\1").crc64, digest_of(b"\0").crc64, 1
    for _ in range(43):
        zeros, nbytes = crc64_combine(zeros, zeros, nbytes), 2 * nbytes
    half = crc64_combine(crc, zeros, nbytes)
    assert crc64_combine(half, zeros, nbytes) == crc64_combine(crc, crc64_combine(zeros, zeros, nbytes), 2 * nbytes)


def test_the_whole_of_no_parts_is_the_crc_of_nothing() -> None:
    """An empty object has the CRC 0."""
    assert crc64_of_parts([], 8, 0) == 0


def test_the_whole_of_one_part_is_that_part() -> None:
    """A single part needs no factor."""
    assert crc64_of_parts([0x995DC9BBDF1939FA], 2**20, 9) == 0x995DC9BBDF1939FA


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sha256=" + "AB" * 32, Expected("sha256", "ab" * 32)),
        (" SHA256 = " + "ab" * 32 + " ", Expected("sha256", "ab" * 32)),
        ("md5=" + "0" * 32, Expected("md5", "0" * 32)),
        ("sha3_256=" + "0" * 64, Expected("sha3-256", "0" * 64)),
        ("crc64=995dc9bbdf1939fa", Expected("crc64", "995dc9bbdf1939fa")),
        ("xxh3=72DCB18B67A17DFF", Expected("xxh3", "72dcb18b67a17dff")),
        ("CRC64NVME=AE8B14860A799888", Expected("crc64nvme", "ae8b14860a799888")),
        ("crc32c=e3069283", Expected("crc32c", "e3069283")),
        ("crc32=cbf43926", Expected("crc32", "cbf43926")),
    ],
)
def test_a_checksum_is_an_algorithm_and_hex(text: str, expected: Expected) -> None:
    """Case and blanks do not matter."""
    assert parse_checksum(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "=", "sha256", "sha256=", "sha256=abc", "nonsense=00", "=" + "0" * 64, "crc64=123", "xxh3=" + "0" * 17),
        *("sha256=" + "g" * 64, "sha256:" + "0" * 64, "shake_128=", "shake_128=00", "sha256\0=00", "\ud800=00"),
    ],
)
def test_what_is_no_checksum_is_refused(text: str) -> None:
    """An unknown algorithm or a digest of another length is a usage error, at once."""
    with pytest.raises(UsageError, match=r"unknown|hexadecimal digits"):
        parse_checksum(text)


def test_the_worth_of_digests_is_an_order() -> None:
    """By length, but broken ones and those that guard against accidents only come last."""
    names = ("crc32", "md5", "sha1", "crc32c", "crc64", "crc64nvme", "sha256", "sha512")
    digests = [Expected(name, make_hasher(name).hexdigest()) for name in names]
    assert sorted(digests, key=lambda each: each.worth) == digests
    assert len({each.worth for each in digests}) == len(digests)
