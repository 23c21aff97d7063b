"""What S3 promises of an object is what its bytes are compared with, and nothing else is."""

from __future__ import annotations

import base64
import hashlib
import random
import zlib
from typing import TYPE_CHECKING

import pytest
from awscrt import checksums
from fastcrc import crc32

import fastdl
from tests.e2e.command import names
from tests.e2e.s3 import PART, fetch, get, nobodys_machine
from tests.servers.s3 import Stored, serving_s3
from tests.servers.scripted import short_206

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DATA = random.Random(31).randbytes(40 * PART + 77)
ALGORITHMS: dict[str, Callable[[bytes], bytes]] = {
    "crc64nvme": lambda data: int(checksums.crc64nvme(data)).to_bytes(8, "big"),
    "crc32c": lambda data: crc32.iscsi(data).to_bytes(4, "big"),
    "crc32": lambda data: zlib.crc32(data).to_bytes(4, "big"),
    "sha256": lambda data: hashlib.sha256(data).digest(),
    "sha1": lambda data: hashlib.sha1(data).digest(),
}
UPLOAD = 100_000  # bytes of one part of an upload; seven parts
TOLD_TO_HEAD = {1: short_206(PART)}  # the first answer is not the whole object, and tells no digest
ETAG = '"0f343b0931126a20f133d67c2b018a3b-7"'


@pytest.fixture(autouse=True)
def _nobodys_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobodys_machine(tmp_path, monkeypatch)


def coded(digest: bytes) -> str:
    """Write a digest as S3 does."""
    return base64.b64encode(digest).decode()


def full(algorithm: str, data: bytes = DATA, kind: str | None = "FULL_OBJECT") -> dict[str, str]:
    """Make the fields of a digest of the whole object."""
    fields = {f"x-amz-checksum-{algorithm}": coded(ALGORITHMS[algorithm](data))}
    return fields if kind is None else fields | {"x-amz-checksum-type": kind}


def composite(algorithm: str, data: bytes = DATA, suffix: str = "-7", kind: str | None = "COMPOSITE") -> dict[str, str]:
    """Make the fields of a digest of the digests of parts."""
    of = ALGORITHMS[algorithm]
    parts = b"".join(of(data[at : at + UPLOAD]) for at in range(0, len(data), UPLOAD))
    fields = {f"x-amz-checksum-{algorithm}": coded(of(parts)) + suffix}
    return fields if kind is None else fields | {"x-amz-checksum-type": kind}


def in_parts(fields: dict[str, str], part_size: int = UPLOAD) -> Stored:
    """Make an object that was uploaded in parts."""
    return Stored(DATA, ETAG, part_size=part_size, checksums=fields)


MD5 = Stored(DATA, f'"{hashlib.md5(DATA).hexdigest()}"')
PROMISED = {
    **{f"full {name}": (in_parts(full(name)), name) for name in ALGORITHMS},
    **{f"composite {name}": (in_parts(composite(name)), name) for name in ALGORITHMS if name != "crc64nvme"},
    "one piece, kind not told": (Stored(DATA, '"x"', checksums=full("sha256", kind=None)), "sha256"),
    "in parts, crc64nvme, kind not told": (in_parts(full("crc64nvme", kind=None)), "crc64nvme"),
    "in parts, sha256, neither kind nor count told": (in_parts(composite("sha256", suffix="", kind=None)), "sha256"),
    "in parts, crc32c, only the count told": (in_parts(composite("crc32c", kind=None)), "crc32c"),
    "an MD5 as ETag": (MD5, "md5"),
    "an MD5 as ETag, encrypted by S3": (
        Stored(DATA, MD5.etag, fields={"x-amz-server-side-encryption": "AES256"}),
        "md5",
    ),
}
UNPROMISED = {
    "nothing": in_parts({}),
    "in parts, crc32, kind not told": in_parts(full("crc32", kind=None)),
    "composite of parts of another number": in_parts(composite("sha256", suffix="-8")),
    "composite of parts too short": in_parts(composite("sha256"), part_size=90_000),
    "composite of uneven parts": Stored(
        DATA, ETAG, part_size=UPLOAD, first_part=98_000, checksums=composite("sha256", suffix="-7")
    ),
    "no digest": in_parts({"x-amz-checksum-sha256": "????", "x-amz-checksum-type": "FULL_OBJECT"}),
    "a digest too short": in_parts({"x-amz-checksum-crc64nvme": "AAAA", "x-amz-checksum-type": "FULL_OBJECT"}),
    "an unknown kind": in_parts(full("sha256", kind="OTHER")),
    "an ETag of KMS": Stored(
        DATA, '"0f343b0931126a20f133d67c2b018a3b"', fields={"x-amz-server-side-encryption": "aws:kms"}
    ),
}


@pytest.mark.parametrize("case", PROMISED)
def test_a_promise_is_compared(tmp_path: Path, case: str) -> None:
    """The result names the digest that was computed of these bytes."""
    stored, algorithm = PROMISED[case]
    with serving_s3({"key": stored}, faults=TOLD_TO_HEAD) as server:
        result = fetch(server, tmp_path)
        assert server.log[1].method == "HEAD"
    assert (tmp_path / "out").read_bytes() == DATA
    assert result.integrity == algorithm


@pytest.mark.parametrize("case", PROMISED)
def test_other_bytes_than_promised_are_no_file(tmp_path: Path, case: str) -> None:
    """One bit of the object differs from what was uploaded: exit code 8, of every algorithm."""
    stored, algorithm = PROMISED[case]
    rotten = bytes([DATA[0] ^ 1]) + DATA[1:]
    spoilt = Stored(rotten, stored.etag, part_size=stored.part_size, checksums=stored.checksums, fields=stored.fields)
    with (
        serving_s3({"key": spoilt}, faults=TOLD_TO_HEAD) as server,
        pytest.raises(fastdl.IntegrityError, match=algorithm),
    ):
        fetch(server, tmp_path)
    assert names(tmp_path) == set()


@pytest.mark.parametrize("whole", [False, True], ids=["to a HEAD", "with the whole object"])
@pytest.mark.parametrize("case", UNPROMISED)
def test_what_is_no_promise_is_not_compared(tmp_path: Path, case: str, whole: bool) -> None:
    """Half a promise, or one of other bytes, fails no download of a right object."""
    with serving_s3({"key": UNPROMISED[case]}, faults={} if whole else TOLD_TO_HEAD) as server:
        assert fetch(server, tmp_path).integrity == "length"
    assert (tmp_path / "out").read_bytes() == DATA


def test_a_whole_answer_needs_no_head(tmp_path: Path) -> None:
    """A small object's first answer tells its checksum already."""
    with serving_s3({"key": Stored(DATA[:5000], checksums=full("sha256", DATA[:5000]))}) as server:
        assert fetch(server, tmp_path).integrity == "sha256"
        assert [seen.method for seen in server.log] == ["GET"]


@pytest.mark.parametrize(("failing", "integrity"), [(2, "sha256"), (10**9, "length")])
def test_a_head_that_fails_is_sent_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, failing: int, integrity: str
) -> None:
    """A busy moment costs no proof; a server that never tells is named in the log."""
    with serving_s3({"key": in_parts(full("sha256"))}, faults=TOLD_TO_HEAD) as server:
        server.failing_heads = failing
        assert fetch(server, tmp_path).integrity == integrity
    assert ("asked in vain for its checksum" in caplog.text) == (integrity == "length")
    assert (tmp_path / "out").read_bytes() == DATA


def test_who_may_not_ask_is_promised_nothing(tmp_path: Path) -> None:
    """A refused HEAD is no failure."""
    with serving_s3({"key": in_parts(full("sha256"))}, faults=TOLD_TO_HEAD) as server:
        server.may_head = False
        assert fetch(server, tmp_path).integrity == "length"
    assert (tmp_path / "out").read_bytes() == DATA


def test_a_head_of_another_object_promises_nothing(tmp_path: Path) -> None:
    """Replaced between the first answer and the HEAD, by a store that ignores conditions."""
    other = {"ETag": '"other"', "Content-Length": str(len(DATA)), **full("sha256", b"other")}
    with serving_s3({"key": in_parts({})}, faults={2: lambda exchange: exchange.reply(200, other)}) as server:
        assert fetch(server, tmp_path).integrity == "length"
        assert server.log[1].method == "HEAD"


def test_a_wrong_promise_is_exit_code_8(tmp_path: Path) -> None:
    """By the command, which leaves no file."""
    with serving_s3({"key": in_parts(composite("sha256", DATA[1:] + b"x"))}) as server:
        outcome = get(server, tmp_path)
    assert (outcome.code, "sha256" in outcome.message) == (8, True)
    assert names(tmp_path) == set()
