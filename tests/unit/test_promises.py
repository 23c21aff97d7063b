"""What heads promise of whole objects, and what they only seem to."""

from __future__ import annotations

import base64
import hashlib

import pytest
from urllib3 import HTTPHeaderDict

from fastdl.digest import Expected
from fastdl.promises import promised
from fastdl.sources.base import describe_plainly

DATA = b"123456789"
SHA256, SHA512 = hashlib.sha256(DATA), hashlib.sha512(DATA)
MD5, SHA1 = hashlib.md5(DATA), hashlib.sha1(DATA)
CRC32C, NVME = bytes.fromhex("e3069283"), bytes.fromhex("ae8b14860a799888")


def coded(digest: bytes) -> str:
    """Write a digest as every header does."""
    return base64.b64encode(digest).decode()


def read(*, whole: bool = True, **fields: str) -> dict[str, str]:
    """Read a head; underscores in names are hyphens."""
    headers = HTTPHeaderDict({name.replace("_", "-"): value for name, value in fields.items()})
    found = promised(headers, whole=whole)
    assert all(each.part_size is None for each in found)
    return {each.algorithm: each.hex for each in found}


def test_repr_digest_is_of_the_whole_object_on_ranges_too() -> None:
    """RFC 9530: several members, parameters, blanks, unknown ones between them."""
    value = f"sha-256=:{coded(SHA256.digest())}:;x=1 , adler=:AAAA:,sha-512=:{coded(SHA512.digest())}:, flag, n=5"
    for whole in (True, False):
        assert read(whole=whole, Repr_Digest=value) == {"sha256": SHA256.hexdigest(), "sha512": SHA512.hexdigest()}


def test_the_weak_ones_of_rfc_9530_are_promises_too() -> None:
    """MD5 and SHA-1 still tell accidents."""
    value = f"md5=:{coded(MD5.digest())}:, sha=:{coded(SHA1.digest())}:"
    assert read(whole=False, repr_digest=value) == {"md5": MD5.hexdigest(), "sha1": SHA1.hexdigest()}


@pytest.mark.parametrize(
    "fields",
    [
        {"Content-Digest": f"sha-256=:{coded(SHA256.digest())}:"},
        {"Content-MD5": coded(MD5.digest())},
        {"x-amz-checksum-sha256": coded(SHA256.digest())},
        {"x-amz-checksum-crc64nvme": coded(NVME), "x-amz-checksum-type": "FULL_OBJECT"},
        {"x-amz-checksum-crc32c": coded(CRC32C)},
    ],
)
def test_these_speak_of_the_answer_and_so_of_the_object_only_where_it_is_whole(fields: dict[str, str]) -> None:
    """On a range they are of the range, or of one part of an upload."""
    headers = HTTPHeaderDict(fields)
    assert len(promised(headers, whole=True)) == 1
    assert promised(headers, whole=False) == ()


def test_google_promises_the_whole_of_what_it_stores() -> None:
    """Several header lines are one list; on ranges too."""
    headers = HTTPHeaderDict()
    headers.add("x-goog-hash", f"crc32c={coded(CRC32C)}")
    headers.add("x-goog-hash", f"md5={coded(MD5.digest())}")
    expected = (Expected("crc32c", CRC32C.hex()), Expected("md5", MD5.hexdigest()))
    assert promised(headers, whole=False) == expected
    headers["x-goog-stored-content-encoding"] = "identity"
    assert promised(headers, whole=False) == expected


def test_google_promises_nothing_of_what_it_decodes() -> None:
    """Stored gzip is handed out decoded to whoever asks for identity; the hash stays that of the gzip."""
    assert read(x_goog_hash=f"crc32c={coded(CRC32C)}", x_goog_stored_content_encoding="gzip") == {}


@pytest.mark.parametrize("kind", ["COMPOSITE", "composite", "", "SOMETHING"])
def test_a_composite_is_not_taken_for_the_whole(kind: str) -> None:
    """Which type it is must be said rightly, or not at all."""
    assert read(x_amz_checksum_sha256=coded(SHA256.digest()), x_amz_checksum_type=kind) == {}
    assert read(x_amz_checksum_sha256=coded(SHA256.digest()) + "-2") == {}


@pytest.mark.parametrize(
    "value",
    [
        *("", "x", "sha-256", "sha-256=", "sha-256=::", "sha-256=:AAAA:", "sha-256=:====:", "sha-256=:\u00e9:"),
        *(f"sha-256={coded(SHA256.digest())}", f"sha-256=:{coded(SHA256.digest())}", f"SHA-256=:{coded(b'')}:"),
        f"sha-256=:{coded(SHA512.digest())}:",
        f"sha-256=:{coded(SHA256.digest())[:-1]}:",
        "," * 100_000,
    ],
)
def test_what_cannot_be_read_is_no_promise(value: str) -> None:
    """Never an error: the result says what was proven."""
    assert read(Repr_Digest=value, Content_Digest=value, Content_MD5=value, x_goog_hash=value) == {}


def test_the_same_promise_twice_is_one_and_two_different_ones_are_two() -> None:
    """Whoever contradicts himself is found out by comparing both."""
    right, wrong = f"sha-256=:{coded(SHA256.digest())}:", f"sha-256=:{coded(bytes(32))}:"
    assert len(promised(HTTPHeaderDict({"Repr-Digest": right, "Content-Digest": right}), whole=True)) == 1
    assert len(promised(HTTPHeaderDict({"Repr-Digest": right, "Content-Digest": wrong}), whole=True)) == 2


@pytest.mark.parametrize(
    ("content_range", "found"),
    [(None, {"md5", "sha256"}), ("bytes 0-8/9", {"md5", "sha256"}), ("bytes 0-7/9", {"sha256"}), ("bytes */0", set())],
)
def test_whether_an_answer_is_whole_is_told_by_its_range(content_range: str | None, found: set[str]) -> None:
    """A 416 carries nothing of the object: its digests are of the error's page."""
    fields = {"Repr-Digest": f"sha-256=:{coded(SHA256.digest())}:", "Content-MD5": coded(MD5.digest())}
    fields |= {} if content_range is None else {"Content-Range": content_range}
    info = describe_plainly(HTTPHeaderDict(fields), 0 if content_range == "bytes */0" else 9)
    assert {each.algorithm for each in info.promises} == found
