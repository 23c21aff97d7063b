"""Where a bucket is: botocore's rules, and ours where it has none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fastdl.errors import AccessDenied, UsageError
from fastdl.sources.s3_session import Place, S3Session
from tests.e2e.s3 import nobodys_machine

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _nobodys_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobodys_machine(tmp_path, monkeypatch)


def place(
    bucket: str = "bucket",
    *,
    endpoint_url: str | None = None,
    region: str | None = None,
    addressing: str = "auto",
    learnt: str | None = None,
    sign: bool = True,
) -> Place:
    """Ask where ``a/b`` is."""
    session = S3Session(profile=None, endpoint_url=endpoint_url, region=region, addressing=addressing, sign=sign)
    return session.place(bucket, "a/b", learnt)


@pytest.mark.parametrize(
    ("region", "host"),
    [
        (None, "bucket.s3.amazonaws.com"),
        ("us-east-1", "bucket.s3.us-east-1.amazonaws.com"),
        ("eu-central-1", "bucket.s3.eu-central-1.amazonaws.com"),
        ("cn-north-1", "bucket.s3.cn-north-1.amazonaws.com.cn"),
    ],
)
def test_amazons_regions(region: str | None, host: str) -> None:
    """Each has its names; where none is known the global one, signed as us-east-1 until the store says otherwise."""
    found = place(region=region)
    assert found.url in (f"https://{host}/a/b", "https://bucket.s3.amazonaws.com/a/b")
    assert found.region == (region or "us-east-1")


def test_a_region_that_was_learnt_comes_first() -> None:
    """The store knows better than flags and files."""
    assert place(region="us-east-1", learnt="eu-west-3") == Place(
        "https://bucket.s3.eu-west-3.amazonaws.com/a/b", "eu-west-3"
    )


def test_the_region_of_variables_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS_REGION before AWS_DEFAULT_REGION before the config file."""
    (tmp_path / "none").write_text("[default]\nregion = ap-south-1\n")
    assert place().region == "ap-south-1"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    assert place().region == "eu-north-1"
    monkeypatch.setenv("AWS_REGION", "sa-east-1")
    assert place().region == "sa-east-1"


@pytest.mark.parametrize(
    ("bucket", "addressing", "endpoint_url", "url"),
    [
        ("my.bucket", "auto", None, "https://s3.eu-west-1.amazonaws.com/my.bucket/a/b"),
        ("bucket", "path", None, "https://s3.eu-west-1.amazonaws.com/bucket/a/b"),
        ("bucket", "auto", "http://127.0.0.1:9000", "http://127.0.0.1:9000/bucket/a/b"),
        ("bucket", "auto", "store.example", "https://store.example/bucket/a/b"),
        ("bucket", "virtual", "store.example:444", "https://bucket.store.example:444/a/b"),
        ("under_score", "auto", None, "https://s3.eu-west-1.amazonaws.com/under_score/a/b"),
    ],
)
def test_how_a_bucket_is_addressed(bucket: str, addressing: str, endpoint_url: str | None, url: str) -> None:
    """By name at Amazon's, if the name can be one; elsewhere by path, unless told."""
    assert place(bucket, region="eu-west-1", addressing=addressing, endpoint_url=endpoint_url).url == url


def test_the_addressing_of_the_config_file(tmp_path: Path) -> None:
    """What somebody configured for the AWS tools holds here too."""
    (tmp_path / "none").write_text("[default]\nregion = eu-west-1\ns3 =\n  addressing_style = virtual\n")
    assert place(endpoint_url="http://store.example").url == "http://bucket.store.example/a/b"
    assert place(endpoint_url="http://store.example", addressing="path").url == "http://store.example/bucket/a/b"


@pytest.mark.parametrize(
    "endpoint_url", ["http://[::1", "ftp://host", "http://host:x", "http://host/?a=b", "http://u@h/"]
)
def test_what_is_no_endpoint(endpoint_url: str) -> None:
    """One line, before anything is asked."""
    with pytest.raises(UsageError):
        place(endpoint_url=endpoint_url)


def test_who_has_no_credentials_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to set; unsigned requests need none."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    session = S3Session(profile=None, endpoint_url=None, region=None, addressing="auto", sign=True)
    with pytest.raises(AccessDenied, match="AWS_ACCESS_KEY_ID"):
        session.credentials()
    assert place(sign=False).url == "https://bucket.s3.amazonaws.com/a/b"
