"""Objects that boto3 uploaded to moto in every manner: the digest that S3 then promises is the one compared."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
import urllib3

import fastdl
from tests.contract.shelves import Bucket, s3_way
from tests.e2e.command import names, run
from tests.servers.s3 import BUCKET
from tests.servers.scripted import Exchange, Handler, serving

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1024 * 1024
DATA = random.Random(61).randbytes(12 * MIB + 321)
UPLOAD = 5 * MIB  # bytes; S3 takes no smaller parts
QUIET = {"AWS_EC2_METADATA_DISABLED": "true"}
# name -> algorithm, type of the checksum, in parts
UPLOADS: dict[str, tuple[str, str | None, bool]] = {
    "crc64nvme of the whole, in parts": ("CRC64NVME", "FULL_OBJECT", True),
    "crc32 of the whole, in parts": ("CRC32", "FULL_OBJECT", True),
    "sha256 composite": ("SHA256", "COMPOSITE", True),
    "sha1 composite": ("SHA1", "COMPOSITE", True),
    "crc32 composite": ("CRC32", "COMPOSITE", True),
    "sha256 in parts, its type not told": ("SHA256", None, True),
    "crc32 in parts, its type not told": ("CRC32", None, True),
    "sha256 in one piece": ("SHA256", None, False),
    "crc64nvme in one piece": ("CRC64NVME", None, False),
}
PROVEN = {name: algorithm.lower() for name, (algorithm, _, _) in UPLOADS.items()} | {
    "crc32 in parts, its type not told": "length"  # it could as well be of the whole
}


def upload(bucket: Bucket, name: str) -> str:
    """Store DATA in one manner; return its key."""
    algorithm, kind, in_parts = UPLOADS[name]
    key, client = name.replace(" ", "-"), bucket.client
    if not in_parts:
        client.put_object(Bucket=BUCKET, Key=key, Body=DATA, ChecksumAlgorithm=algorithm)
        return key
    where: dict[str, Any] = {"Bucket": BUCKET, "Key": key}
    told = {} if kind is None else {"ChecksumType": kind}
    where["UploadId"] = client.create_multipart_upload(**where, **told, ChecksumAlgorithm=algorithm)["UploadId"]
    parts = []
    for number, at in enumerate(range(0, len(DATA), UPLOAD), 1):
        sent = client.upload_part(**where, PartNumber=number, Body=DATA[at : at + UPLOAD], ChecksumAlgorithm=algorithm)
        parts.append({"ETag": sent["ETag"], "PartNumber": number})
    client.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})
    return key


def rotten(endpoint: str) -> Handler:
    """Pass everything on to a store, but flip a bit of the byte in the middle of the object, always."""
    pool = urllib3.PoolManager(maxsize=32)

    def handle(exchange: Exchange) -> None:
        asked = exchange.request
        answer = pool.request(asked.method, endpoint + asked.target, headers=asked.headers, decode_content=False)
        body = bytearray(answer.data)
        start = asked.range[0] if asked.range is not None else 0
        if asked.method == "GET" and start <= len(DATA) // 2 < start + len(body):
            body[len(DATA) // 2 - start] ^= 1
        fields = {name: value for name, value in answer.headers.items() if name.lower() != "connection"}
        exchange.reply(answer.status, fields, bytes(body))

    return handle


@pytest.fixture(scope="module")
def uploads(moto_bucket: Bucket) -> dict[str, str]:
    """Upload everything once; return the keys by name."""
    return {name: upload(moto_bucket, name) for name in UPLOADS}


@pytest.mark.parametrize("name", UPLOADS)
def test_what_was_uploaded_is_proven(name: str, uploads: dict[str, str], moto_bucket: Bucket, tmp_path: Path) -> None:
    """By the command; `integrity` names the digest of the upload."""
    way = s3_way(moto_bucket.endpoint, uploads[name])
    outcome = run(way.url, "-o", "out", *way.arguments, cwd=tmp_path, variables=QUIET | way.variables)
    assert outcome.code == 0, outcome.message
    assert (tmp_path / "out").read_bytes() == DATA
    assert outcome.last["integrity"] == PROVEN[name]
    assert fastdl.head(way.url, **way.settings).integrity == PROVEN[name]


@pytest.mark.parametrize("name", [name for name in UPLOADS if PROVEN[name] != "length"])
def test_what_came_otherwise_is_no_file(
    name: str, uploads: dict[str, str], moto_bucket: Bucket, tmp_path: Path
) -> None:
    """A bit that is flipped in every answer: exit code 8, by whichever digest."""
    with serving(rotten(moto_bucket.endpoint)) as server:
        way = s3_way(server.url("").rstrip("/"), uploads[name])
        outcome = run(way.url, "-o", "out", *way.arguments, cwd=tmp_path, variables=QUIET | way.variables)
    assert (outcome.code, PROVEN[name] in outcome.message) == (8, True), outcome.message
    assert names(tmp_path) == set()


def test_a_wrong_promise_is_no_file(moto_bucket: Bucket, tmp_path: Path) -> None:
    """Moto keeps the checksum that an uploader claims, true or not."""
    moto_bucket.client.put_object(
        Bucket=BUCKET, Key="wrong", Body=DATA, ChecksumAlgorithm="SHA256", ChecksumSHA256="A" * 43 + "="
    )
    way = s3_way(moto_bucket.endpoint, "wrong")
    outcome = run(way.url, "-o", "out", *way.arguments, cwd=tmp_path, variables=QUIET | way.variables)
    assert (outcome.code, "sha256" in outcome.message) == (8, True), outcome.message
    assert names(tmp_path) == set()
