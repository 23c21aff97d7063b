"""Where a bucket of OSS is reached: endpoint and region out of what is known of either."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import quote

from fastdl.errors import UsageError
from fastdl.redact import printable
from fastdl.urls import split_url

ADDRESSING = ("auto", "virtual", "path", "cname")
# What may stand for an endpoint: the one of this kind, in the region. Source: OSS's list of regions and endpoints.
_KINDS = {
    "public": "oss-{region}.aliyuncs.com",
    "internal": "oss-{region}-internal.aliyuncs.com",
    "dual-stack": "{region}.oss.aliyuncs.com",
    "accelerate": "oss-accelerate.aliyuncs.com",
    "accelerate-overseas": "oss-accelerate-overseas.aliyuncs.com",
}
_BUCKET = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
_REGION = re.compile(r"[a-z0-9][a-z0-9-]*")
_ENDPOINT_REGION = re.compile(
    r"(?:oss-(?!accelerate)([a-z0-9-]+?)(?:-internal)?|([a-z0-9-]+)\.oss)\.aliyuncs\.com", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Place:
    """One object: ``base`` is scheme, host and path prefix under which the keys of ``bucket`` live."""

    base: str
    bucket: str
    key: str
    region: str

    @property
    def url(self) -> str:
        """The object's URL without a query; segments of dots are encoded too, which proxies would resolve."""
        segments = [quote(segment, safe="") for segment in self.key.split("/")]
        return f"{self.base}/" + "/".join(
            segment.replace(".", "%2E") if segment in (".", "..") else segment for segment in segments
        )


def locate(url: str, endpoint: str, region: str, addressing: str) -> Place:
    """Find ``oss://bucket/key``; the key is literal, no percent-decoding, ``?`` and ``#`` included.

    ``endpoint`` is a URL, a host, or the name of a kind of endpoint; it and ``region`` follow from each other where
    they can if one is empty.

    Raises:
        UsageError: bucket, key, endpoint or region cannot be meant.
    """
    bucket, _, key = url.partition("://")[2].partition("/")
    if not _BUCKET.fullmatch(bucket) or not key:
        raise UsageError("write oss://bucket/key")
    if any("\ud800" <= char <= "\udfff" for char in key):
        raise UsageError("the key is not valid UTF-8")
    named = _region_of(endpoint)
    region = (region or named).removeprefix("oss-")
    if not region:
        raise UsageError("which region? give --region or OSS_REGION: a V4 signature names it")
    if not _REGION.fullmatch(region):
        raise UsageError(f"{printable(region, 60)!r} is no region; write it as in cn-hangzhou")
    if named and named != region:
        raise UsageError(f"the endpoint is of region {printable(named, 60)}, asked for is {region}")
    kind = _KINDS.get(endpoint or "public")
    return Place(_base(kind.format(region=region) if kind else endpoint, bucket, addressing), bucket, key, region)


def _region_of(endpoint: str) -> str:
    """Return the region that an endpoint's name tells; the accelerating ones stand before all regions."""
    match = _ENDPOINT_REGION.search(endpoint)
    return "" if match is None else (match[1] or match[2]).lower()


def _base(endpoint: str, bucket: str, addressing: str) -> str:
    if addressing not in ADDRESSING:
        raise UsageError(f"addressing {printable(addressing, 20)!r} is none of {', '.join(ADDRESSING)}")
    parts = split_url(endpoint if "://" in endpoint else f"https://{endpoint}")
    if parts.path.strip("/") or parts.query or parts.username:
        raise UsageError("the endpoint must be scheme, host and port only")
    if addressing == "auto":
        addressing = "path" if _is_address(parts.hostname or "") else "virtual"
    origin = f"{parts.scheme}://{parts.netloc}"
    if addressing == "path":
        return f"{origin}/{bucket}"
    return origin if addressing == "cname" else f"{parts.scheme}://{bucket}.{parts.netloc}"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return True
