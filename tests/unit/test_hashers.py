"""Every algorithm that users and stores name, in hashlib's manner."""

from __future__ import annotations

import hashlib
import sys

import pytest

from fastdl.errors import UsageError
from fastdl.hashers import is_known, make_hasher

CHECK = b"123456789"


def digest_of(data: bytes, algorithm: str, part_size: int | None = None) -> str:
    """Hash in windows of odd sizes, an empty one among them."""
    hasher = make_hasher(algorithm, part_size)
    for window in (data[:1], data[1:1], data[1:4], data[4:]):
        hasher.update(memoryview(window))
    return hasher.hexdigest()


@pytest.mark.parametrize(
    ("algorithm", "digest"),
    [
        ("crc64", "995dc9bbdf1939fa"),
        ("crc64nvme", "ae8b14860a799888"),
        ("crc32c", "e3069283"),
        ("crc32", "cbf43926"),
        ("xxh3", "72dcb18b67a17dff"),
        ("md5", "25f9e794323b453885f5181f1b624d0b"),
    ],
)
def test_the_published_check_values(algorithm: str, digest: str) -> None:
    """However the nine bytes arrive."""
    assert digest_of(CHECK, algorithm) == digest


@pytest.mark.parametrize("algorithm", ["crc64", "crc64nvme", "crc32c", "crc32"])
def test_the_crc_of_nothing_is_zero_in_full_length(algorithm: str) -> None:
    """Leading zeros are digits."""
    assert make_hasher(algorithm).hexdigest() in ("0" * 16, "0" * 8)


@pytest.mark.parametrize("size", [0, 1, 4, 5, 8, 9])
@pytest.mark.parametrize("algorithm", ["sha256", "sha1", "crc32c", "crc32"])
def test_a_composite_is_the_digest_of_the_parts_digests(algorithm: str, size: int) -> None:
    """The last part may be shorter, is never an extra empty one, and the digest may be asked for twice."""
    data = CHECK[:size]
    parts = [data[at : at + 4] for at in range(0, size, 4)] or [b""]
    joined = b"".join(bytes.fromhex(digest_of(part, algorithm)) for part in parts)
    hasher = make_hasher(algorithm, 4)
    hasher.update(memoryview(data))
    assert hasher.hexdigest() == hasher.hexdigest() == digest_of(joined, algorithm)
    assert digest_of(data, algorithm, 4) == hasher.hexdigest()


def test_amazons_own_example_of_a_composite() -> None:
    """Two parts, sha256: what boto3 computes of a multipart upload."""
    parts = [hashlib.sha256(b"a" * 5).digest(), hashlib.sha256(b"a" * 2).digest()]
    assert digest_of(b"a" * 7, "sha256", 5) == hashlib.sha256(b"".join(parts)).hexdigest()


@pytest.mark.parametrize("algorithm", ["", "nonsense", "shake_128", "sha256\0", "\ud800"])
def test_an_unknown_algorithm_is_not_known(algorithm: str) -> None:
    """Those without a length of their own neither."""
    assert not is_known(algorithm)


def test_without_amazons_library_its_crc_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for it is told what to install; a store that promises it is not believed, and not refused."""
    monkeypatch.setitem(sys.modules, "awscrt", None)
    assert not is_known("crc64nvme")
    with pytest.raises(UsageError, match="pip install awscrt"):
        make_hasher("crc64nvme")
