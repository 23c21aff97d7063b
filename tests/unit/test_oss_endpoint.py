"""Endpoint and region of OSS follow from each other where they can, and nothing is guessed where they cannot."""

from __future__ import annotations

import pytest

from fastdl.errors import UsageError as Usage
from fastdl.sources.oss_endpoint import locate

URL = "oss://bucket/key"


@pytest.mark.parametrize(
    ("endpoint", "region", "base", "found"),
    [
        ("", "cn-hangzhou", "https://bucket.oss-cn-hangzhou.aliyuncs.com", "cn-hangzhou"),
        ("", "oss-cn-hangzhou", "https://bucket.oss-cn-hangzhou.aliyuncs.com", "cn-hangzhou"),
        ("public", "eu-central-1", "https://bucket.oss-eu-central-1.aliyuncs.com", "eu-central-1"),
        ("internal", "eu-central-1", "https://bucket.oss-eu-central-1-internal.aliyuncs.com", "eu-central-1"),
        ("dual-stack", "eu-central-1", "https://bucket.eu-central-1.oss.aliyuncs.com", "eu-central-1"),
        ("accelerate", "eu-central-1", "https://bucket.oss-accelerate.aliyuncs.com", "eu-central-1"),
        ("accelerate-overseas", "us-east-1", "https://bucket.oss-accelerate-overseas.aliyuncs.com", "us-east-1"),
        ("oss-cn-beijing.aliyuncs.com", "", "https://bucket.oss-cn-beijing.aliyuncs.com", "cn-beijing"),
        ("OSS-cn-beijing.aliyuncs.com", "", "https://bucket.OSS-cn-beijing.aliyuncs.com", "cn-beijing"),
        (
            "oss-cn-beijing-internal.aliyuncs.com",
            "",
            "https://bucket.oss-cn-beijing-internal.aliyuncs.com",
            "cn-beijing",
        ),
        ("http://cn-beijing.oss.aliyuncs.com", "", "http://bucket.cn-beijing.oss.aliyuncs.com", "cn-beijing"),
        ("http://127.0.0.1:8080/", "r", "http://127.0.0.1:8080/bucket", "r"),
        ("http://[::1]:8080", "r", "http://[::1]:8080/bucket", "r"),
        ("localhost", "r", "https://localhost/bucket", "r"),
        ("data.example", "r", "https://bucket.data.example", "r"),
    ],
)
def test_where_a_bucket_is(endpoint: str, region: str, base: str, found: str) -> None:
    """Public, internal, dual-stack and accelerating endpoints by name or by kind; addresses by path."""
    place = locate(URL, endpoint, region, "auto")
    assert (place.base, place.region, place.url) == (base, found, f"{base}/key")


@pytest.mark.parametrize(
    ("addressing", "base"),
    [
        ("virtual", "http://bucket.data.example"),
        ("path", "http://data.example/bucket"),
        ("cname", "http://data.example"),
    ],
)
def test_how_an_endpoint_names_the_bucket(addressing: str, base: str) -> None:
    """By subdomain, by path, or as the domain that is bound to it."""
    assert locate(URL, "http://data.example", "r", addressing).base == base


@pytest.mark.parametrize(
    ("endpoint", "region", "words"),
    [
        ("", "", "which region"),
        ("internal", "", "which region"),
        ("oss-accelerate.aliyuncs.com", "", "which region"),
        ("https://oss-accelerate-overseas.aliyuncs.com", "", "which region"),
        ("data.example", "", "which region"),
        ("", "cn hangzhou", "is no region"),
        ("", "../x", "is no region"),
        ("oss-cn-beijing.aliyuncs.com", "cn-hangzhou", "of region cn-beijing, asked for is cn-hangzhou"),
        ("https://host/path", "r", "scheme, host and port only"),
        ("https://user:s3cr3t@host", "r", "scheme, host and port only"),
        ("ftp://host", "r", "not an absolute http or https one"),
    ],
)
def test_what_cannot_be_meant(endpoint: str, region: str, words: str) -> None:
    """One line, without a password."""
    with pytest.raises(Usage, match=words) as caught:
        locate(URL, endpoint, region, "auto")
    assert "s3cr3t" not in str(caught.value)


def test_an_unknown_addressing() -> None:
    """The known ones are named."""
    with pytest.raises(Usage, match="none of auto, virtual, path, cname"):
        locate(URL, "", "r", "dns")
