"""What S3 is asked, what its refusals teach, and what it is asked again."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from urllib3 import HTTPHeaderDict

from fastdl.digest import Expected
from fastdl.errors import AccessDenied, Archived, Refused, UsageError
from fastdl.messages import Request
from fastdl.sources import resolve, s3_checksums
from fastdl.sources.s3 import S3Source
from fastdl.validator import ObjectInfo, Validator
from tests.e2e.s3 import nobodys_machine
from tests.servers.s3 import KEY
from tests.servers.scripted import Handler, hang_up, script, serving, status
from tests.unit.asking import client

if TYPE_CHECKING:
    from pathlib import Path

ETAG = '"0f343b0931126a20f133d67c2b018a3b-7"'
INFO = ObjectInfo(70, Validator(ETAG, "", "v1"))


@pytest.fixture(autouse=True)
def _nobodys_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobodys_machine(tmp_path, monkeypatch)


def source(url: str = "s3://bucket/key", **settings: Any) -> S3Source:
    """Make a source; nothing is sent."""
    found = resolve(url, **{"region": "eu-west-1", "credentials": KEY, **settings})
    assert isinstance(found, S3Source)
    return found


def refused(code: str, status: int = 403, **headers: str) -> Refused:
    """Make a refusal."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Refused("x", status, named, f"<Error><Code>{code}</Code></Error>".encode())


def test_credentials_that_fail_are_an_error_without_their_words() -> None:
    """What a credential process said may hold a secret."""

    class Expired:
        def get_frozen_credentials(self) -> None:
            raise RuntimeError("token s3cr3t expired")

    with pytest.raises(AccessDenied) as caught:
        source(credentials=Expired()).request(None)
    assert str(caught.value) == "s3://bucket/key: the credentials failed: RuntimeError"


def test_credentials_of_another_store_are_refused() -> None:
    """At once, and not when they are to sign."""
    with pytest.raises(UsageError, match="are botocore's"):
        source(credentials=object())


def test_only_who_signs_has_credentials_to_renew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given ones refresh themselves; found ones are looked for anew; without a signature nothing can help."""
    assert not source(sign=False, credentials=None).renew()
    given = source()
    assert given.renew()
    assert "AKIATESTACCESSKEY" in dict(given.request(None).headers)["Authorization"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAONE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    found = source(credentials=None)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATWO")
    assert "AKIAONE" in dict(found.request(None).headers)["Authorization"]
    assert found.renew()
    assert "AKIATWO" in dict(found.request(None).headers)["Authorization"]


def test_a_region_is_learnt_once() -> None:
    """What is none is no lesson, and a store that sends to and fro is not followed for ever."""
    asked = source()
    assert not asked.adapt(refused("PermanentRedirect", 301, x_amz_bucket_region="eu-west-1"))
    assert asked.adapt(refused("PermanentRedirect", 301, x_amz_bucket_region="eu-central-1"))
    assert asked.request(None).url == "https://bucket.s3.eu-central-1.amazonaws.com/key"
    assert not asked.adapt(refused("PermanentRedirect", 301, x_amz_bucket_region="eu-north-1"))
    assert asked.request(None).url == "https://bucket.s3.eu-central-1.amazonaws.com/key"


def test_a_version_that_may_not_be_named_is_not_named_again() -> None:
    """If-Match still holds; a refusal of a request that named none teaches nothing."""
    asked = source()
    denied = refused("AccessDenied")
    assert not asked.adapt(denied)
    assert asked.request(INFO).url.endswith("?versionId=v1")
    assert asked.adapt(denied)
    assert asked.request(INFO).url.endswith("/key")
    assert dict(asked.request(INFO).headers)["If-Match"] == ETAG
    assert not asked.adapt(denied)


def test_an_archived_object_stays_archived() -> None:
    """Restoring is for other tools here; and where S3 sends elsewhere is not remembered."""
    asked, archived = source(), Archived("x: archived")
    first = asked.request(None).url
    asked.pin(Request("https://other/key"))
    assert asked.request(None).url == first
    with client() as transport, pytest.raises(Archived) as caught:
        asked.thaw(archived, transport, lambda _: None)
    assert caught.value is archived


def test_what_the_first_answer_promised_needs_no_other() -> None:
    """No HEAD is sent: the address would not even be reached."""
    promises = (Expected("sha256", "ab"),)
    with client() as transport:
        assert source().promises(ObjectInfo(5, Validator('"a"'), None, promises), transport) == promises


def heads(*answers: Handler) -> tuple[tuple[Expected, ...], int]:
    """Ask for the checksum against these answers, the last of them again and again; return it and the requests."""
    with serving(script(dict(enumerate(answers, 1)), otherwise=answers[-1])) as server, client() as transport:
        found = s3_checksums.ask(INFO, lambda _, __: Request(server.url("/key?X-Amz-Signature=s3cr3t")), transport)
        return found, len(server.log)


def head(**fields: str) -> Handler:
    """Answer with an object's head; a body is nobody's here."""
    given = {name.replace("_", "-"): value for name, value in fields.items()}
    return status(200, {"ETag": ETAG} | given, random.Random(1).randbytes(70))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Note waits and wait for none."""
    waits: list[float] = []
    monkeypatch.setattr(s3_checksums, "time", SimpleNamespace(sleep=waits.append))
    return waits


CRC = {"x_amz_checksum_crc32": "AAAAAA==", "x_amz_checksum_type": "FULL_OBJECT"}


@pytest.mark.parametrize("fault", [status(503), status(500), hang_up])
def test_a_head_that_fails_is_asked_for_again(fault: Handler, quick: list[float]) -> None:
    """Twice, after short waits; a broken connection counts as well."""
    found, _ = heads(fault, fault if fault is not hang_up else head(**CRC), head(**CRC))
    assert found == (Expected("crc32", "00000000"),)
    assert quick == [0.1, 0.5][: len(quick)]


def test_a_head_that_fails_for_good_promises_nothing_and_says_so(
    quick: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """The download is worth more than its checksum; the warning shows no signature."""
    assert heads(status(503)) == ((), 3)
    assert quick == [0.1, 0.5]
    (message,) = caplog.messages
    assert message.endswith("asked in vain for its checksum, so none is compared: status 503")
    assert "s3cr3t" not in message


def test_a_refused_head_is_not_asked_for_again(quick: list[float]) -> None:
    """Whoever may read the object need not be allowed to ask."""
    assert heads(status(403)) == ((), 1)
    assert quick == []


COMPOSITE = {"x_amz_checksum_crc32": "AAAAAA==-7", "x_amz_checksum_type": "COMPOSITE"}


@pytest.mark.parametrize(
    "part",
    [
        status(403),
        status(206, {"x-amz-mp-parts-count": "8", "ETag": ETAG}, bytes(10)),
        status(206, {"ETag": '"0f343b0931126a20f133d67c2b018a3b-9"'}, bytes(10)),
        status(206, {"ETag": ETAG}, bytes(12)),
        status(206, {"ETag": ETAG}, b""),
    ],
)
def test_parts_that_are_not_told_rightly_promise_nothing(part: Handler) -> None:
    """A composite of parts of another size would be a wrong promise, and a good file thrown away."""
    assert heads(head(**COMPOSITE), part)[0] == ()


def test_parts_of_which_the_last_does_not_fit_promise_nothing() -> None:
    """Seven parts of which the first has ten bytes and the last eleven are not of one size."""
    first = status(206, {"x-amz-mp-parts-count": "7", "ETag": ETAG}, bytes(10))
    last = status(206, {"x-amz-mp-parts-count": "7", "ETag": ETAG}, bytes(11))
    assert heads(head(**COMPOSITE), first, last) == ((), 3)
    assert heads(head(**COMPOSITE), first, first) == ((Expected("crc32", "00000000", part_size=10),), 3)


def test_digests_of_a_large_objects_range_are_not_of_the_whole() -> None:
    """Of an object uploaded in parts only CRC-64/NVME is never composite."""
    fields = HTTPHeaderDict(
        {"ETag": ETAG, "x-amz-checksum-crc32": "AAAAAA==", "x-amz-checksum-crc64nvme": "A" * 11 + "="}
    )
    assert {each.algorithm for each in s3_checksums.describe(fields, 70).promises} <= {"crc64nvme"}
