"""``fastdl head``: what is shown is what the store said, and what a download then proves."""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING

import pytest

import fastdl
from tests.e2e.command import names, run
from tests.e2e.s3 import QUIET, login, nobodys_machine
from tests.servers.oss import KEY as OSS_KEY
from tests.servers.oss import Crc, serving_oss
from tests.servers.oss import Stored as OssStored
from tests.servers.s3 import KEY, REGION, Stored, serving_s3
from tests.servers.scripted import Handler, chunked, ignores_range, ranged, serving, status

if TYPE_CHECKING:
    from pathlib import Path

DATA = random.Random(41).randbytes(100_000)
OSS = {"OSS_ACCESS_KEY_ID": OSS_KEY.id, "OSS_ACCESS_KEY_SECRET": OSS_KEY.secret, "OSS_REGION": "cn-hangzhou"}


def test_the_facts_of_a_web_servers_object(tmp_path: Path) -> None:
    """One GET of one byte; the query stays hidden, no file is made."""
    extra = {"Content-Type": "image/png", "x-amz-storage-class": "STANDARD_IA"}
    with serving(ranged(DATA, extra_headers=extra)) as server:
        outcome = run("head", server.url("/object?token=s3cr3t"), cwd=tmp_path)
        assert [(seen.method, seen.range) for seen in server.log] == [("GET", (0, 1))]
    assert outcome.code == 0, outcome.message
    done = outcome.last
    assert done == {
        "event": "done",
        "url": server.url("/object?token=***"),
        "size": len(DATA),
        "etag": '"v1"',
        "last_modified": "Wed, 01 Jan 2025 00:00:00 GMT",
        "version_id": "",
        "storage_class": "STANDARD_IA",
        "content_type": "image/png",
        "ranges": True,
        "promises": [],
        "integrity": "length",
    }
    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    ("handler", "size", "ranges", "integrity"),
    [
        (ranged(b""), 0, False, "length"),
        (ranged(b"x"), 1, True, "length"),
        (ignores_range(DATA), len(DATA), False, "length"),
        (chunked(DATA), None, False, "none"),
        (ranged(DATA, extra_headers={"x-oss-hash-crc64ecma": "5"}), len(DATA), True, "crc64"),
    ],
)
def test_what_a_server_can_do(handler: Handler, size: int | None, ranges: bool, integrity: str) -> None:
    """Sizes, ranges and promises of all kinds."""
    with serving(handler) as server:
        facts = fastdl.head(server.url())
    assert (facts.size, facts.ranges, facts.integrity) == (size, ranges, integrity)


def test_the_facts_as_text(tmp_path: Path) -> None:
    """For people: one fact a line, nothing on standard error, control characters made harmless."""
    stored = Stored(DATA, f'"{hashlib.md5(DATA).hexdigest()}"', version_id="v1", fields={"Content-Type": "a\x9bb"})
    with serving_s3({"key": stored}) as server:
        outcome = run(
            "head", "s3://bucket/key", "--endpoint-url", server.url(""), cwd=tmp_path, variables=login(), as_json=False
        )
    assert outcome.code == 0, outcome.message
    assert outcome.stderr == ""
    first, *lines = outcome.stdout.splitlines()
    rows = {line[:22].strip(): line[24:] for line in lines}
    assert first == "s3://bucket/key"
    assert rows == {
        "size": "100,000 bytes",
        "ETag": stored.etag,
        "Last-Modified": "Wed, 01 Jan 2025 00:00:00 GMT",
        "version": "v1",
        "content type": "a%C2%9Bb",
        "ranges": "served",
        "promised": f"md5 {hashlib.md5(DATA).hexdigest()}",
        "proven by a download": "md5",
    }


def test_the_facts_of_a_composite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The part size that the digest is made with is told."""
    nobodys_machine(tmp_path, monkeypatch)
    fields = {
        "x-amz-checksum-sha256": "c3RycmVhbGx5IG5vdGhpbmcgYnV0IDMyIGJ5dGVzISE=-2",
        "x-amz-checksum-type": "COMPOSITE",
    }
    with serving_s3({"key": Stored(DATA, part_size=60_000, checksums=fields)}) as server:
        facts = fastdl.head("s3://bucket/key", endpoint_url=server.url(""), region=REGION, credentials=KEY)
    (promise,) = facts.promises
    assert (promise.algorithm, promise.part_size, facts.integrity) == ("sha256", 60_000, "sha256")


def test_the_facts_of_oss(tmp_path: Path) -> None:
    """Signed, with the storage class and the CRC-64."""
    with serving_oss({"key": OssStored(DATA, crc=Crc.RIGHT)}) as server:
        outcome = run("head", "oss://bucket/key", "--endpoint-url", server.url(""), cwd=tmp_path, variables=OSS)
    assert outcome.code == 0, outcome.message
    assert (outcome.last["storage_class"], outcome.last["integrity"]) == ("Standard", "crc64")


@pytest.mark.parametrize(("answer", "code"), [(404, 3), (403, 4), (400, 6)])
def test_a_refusal_ends_with_its_exit_code(tmp_path: Path, answer: int, code: int) -> None:
    """As with `get`."""
    with serving(status(answer)) as server:
        assert run("head", server.url(), cwd=tmp_path).code == code


def test_a_busy_server_is_asked_again_as_long_as_there_is_time(tmp_path: Path) -> None:
    """Three more times at most."""
    with serving(status(503, {"Retry-After": "0"})) as server:
        assert run("head", server.url(), cwd=tmp_path).code == 5
        assert len(server.log) == 4
    with serving(status(503, {"Retry-After": "60"})) as server:
        outcome = run("head", server.url(), "--max-time", "5", cwd=tmp_path)
        assert (outcome.code, "within 5.0 seconds" in outcome.message) == (5, True)
        assert len(server.log) == 1


def test_usage_errors_of_head(tmp_path: Path) -> None:
    """Exit code 2, one line."""
    for arguments in (["head"], ["head", "ftp://host/x"], ["head", "http://host/x", "-o", "x"]):
        assert run(*arguments, cwd=tmp_path).code == 2
    assert run("head", "s3://bucket/key", cwd=tmp_path, variables=QUIET).code == 4
