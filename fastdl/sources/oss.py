"""Objects in Alibaba Cloud OSS: V4 signatures by the official SDK, conditions, errors told whole.

Source: the SDK's public ``signer`` and ``credentials`` modules; facts about OSS from its API reference.
"""

from __future__ import annotations

import html
import ipaddress
import os
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fastdl.errors import AccessDenied, FastdlError, Refused, UsageError
from fastdl.http import split_url
from fastdl.messages import Request
from fastdl.redact import printable
from fastdl.sources.base import check_headers, describe_plainly, explain_plainly

try:
    from alibabacloud_oss_v2 import credentials as oss_credentials
    from alibabacloud_oss_v2.exceptions import CredentialsEmptyError
    from alibabacloud_oss_v2.signer import SignerV4
    from alibabacloud_oss_v2.types import HttpRequest, SigningContext
except ImportError:
    raise UsageError("oss:// URLs need Alibaba Cloud's SDK: pip install alibabacloud-oss-v2") from None

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastdl.digest import Expected
    from fastdl.http import Transport
    from fastdl.validator import ObjectInfo

ADDRESSING = ("auto", "virtual", "path", "cname")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
_REGION = re.compile(r"[a-z0-9][a-z0-9-]*")
_ENDPOINT_REGION = re.compile(r"(?:oss-(?!accelerate)([a-z0-9-]+?)(?:-internal)?|([a-z0-9-]+)\.oss)\.aliyuncs\.com")
_FIELD = re.compile(r"<(Code|Message|RequestId|EC)>([^<]{0,500})</\1>")


class OssSource:
    """``oss://bucket/key``; ``provider`` hands out credentials when asked, None leaves requests unsigned."""

    def __init__(
        self,
        base: str,
        bucket: str,
        key: str,
        region: str,
        headers: tuple[tuple[str, str], ...],
        version_id: str | None,
        provider: Any | None,
    ) -> None:
        self.shown = printable(f"oss://{bucket}/{key}")
        self.identity = f"oss://{bucket}/{key}" + (f"?versionId={version_id}" if version_id else "")
        self._url = f"{base}/{_path(key)}" + (f"?versionId={quote(version_id, safe='')}" if version_id else "")
        self._bucket, self._key, self._region = bucket, key, region
        self._headers = headers
        self._provider = provider

    def request(self, info: ObjectInfo | None) -> Request:
        """Return a GET signed now: 0.1 ms, so every span gets a signature of its own.

        Raises:
            AccessDenied: the credential provider has nothing to offer.
        """
        # Without this header OSS answers an impossible range with 200 and the whole object.
        headers = {"x-oss-range-behavior": "standard", **dict(self._headers)}
        if info is not None and info.validator.etag:
            headers["If-Match"] = info.validator.etag
        request = HttpRequest("GET", self._url, headers=headers)
        if self._provider is not None:
            context = SigningContext(
                product="oss",
                region=self._region,
                bucket=self._bucket,
                key=self._key,
                request=request,
                credentials=self._credentials(),
            )
            SignerV4().sign(context)
        return Request(self._url, tuple((str(name), str(value)) for name, value in request.headers.items()))

    def pin(self, request: Request) -> None:
        """Do nothing: OSS does not redirect a GET of an object."""

    def adapt(self, refused: Refused) -> bool:  # noqa: ARG002 - no refusal teaches anything here
        """Learn nothing."""
        return False

    def renew(self) -> bool:
        """Credentials are asked of the provider for each request: another attempt is another signature."""
        return self._provider is not None

    def describe(self, headers: Mapping[str, str], size: int | None) -> ObjectInfo:
        """Read size, validators and CRC-64, which OSS gives for the whole object on ranges too."""
        return describe_plainly(headers, size)

    def promises(self, info: ObjectInfo, transport: Transport) -> tuple[Expected, ...]:  # noqa: ARG002 - nothing is asked
        """Return what the first answer's head told."""
        return info.promises

    def explain(self, refused: Refused) -> FastdlError:
        """Show OSS's Code, EC and RequestId; tell archived objects from denied ones."""
        text = refused.excerpt.decode("utf-8", "replace")
        fields = {name: html.unescape(value) for name, value in _FIELD.findall(text)}
        fields.setdefault("RequestId", refused.headers.get("x-oss-request-id", ""))
        fields.setdefault("EC", refused.headers.get("x-oss-ec", ""))
        detail = ", ".join(f"{name} {fields[name]}" for name in ("Code", "EC", "RequestId") if fields.get(name))
        if fields.get("Message"):
            detail += f": {fields['Message']}"
        if fields.get("Code") == "InvalidObjectState":
            return AccessDenied(
                f"{self.shown}: archived, and must be restored before it can be read "
                f"(ossutil api restore-object, or the console): status {refused.status}, {printable(detail)}"
            )
        return explain_plainly(self.shown, refused, detail)

    def _credentials(self) -> Any:
        try:
            return self._provider.get_credentials()  # type: ignore[union-attr]
        except Exception as error:  # noqa: BLE001 - providers raise anything, and the text may hold a secret
            raise AccessDenied(f"{self.shown}: the credential provider failed: {type(error).__name__}") from None


def open_oss(
    url: str,
    headers: tuple[tuple[str, str], ...],
    *,
    endpoint_url: str | None,
    region: str | None,
    addressing: str,
    sign: bool,
    version_id: str | None,
    credentials: Any | None,
) -> OssSource:
    """Return the source of ``oss://bucket/key``; the key is literal, no percent-decoding, ``?`` and ``#`` included.

    ``endpoint_url`` and ``region`` fall back to OSS_ENDPOINT and OSS_REGION, and to each other where one follows
    from the other; ``credentials`` to OSS_ACCESS_KEY_ID, OSS_ACCESS_KEY_SECRET and OSS_SESSION_TOKEN.

    Raises:
        UsageError: bucket, key, endpoint or region cannot be meant.
        AccessDenied: there are no credentials.
    """
    check_headers(headers)
    bucket, _, key = url.partition("://")[2].partition("/")
    if not _BUCKET.fullmatch(bucket) or not key:
        raise UsageError("write oss://bucket/key")
    if not key.isprintable() and any("\ud800" <= char <= "\udfff" for char in key):
        raise UsageError("the key is not valid UTF-8")
    endpoint_url = endpoint_url or os.environ.get("OSS_ENDPOINT") or None
    region = region or os.environ.get("OSS_REGION") or _region_of(endpoint_url)
    if not region:
        raise UsageError("which region? give --region or OSS_REGION: a V4 signature names it")
    region = region.removeprefix("oss-")
    if not _REGION.fullmatch(region):
        raise UsageError(f"{printable(region, 60)!r} is no region; write it as in cn-hangzhou")
    base = _base(endpoint_url or f"https://oss-{region}.aliyuncs.com", bucket, addressing)
    if sign and credentials is None:
        try:
            credentials = oss_credentials.EnvironmentVariableCredentialsProvider()
        except CredentialsEmptyError:
            raise AccessDenied(
                "no OSS credentials: set OSS_ACCESS_KEY_ID and OSS_ACCESS_KEY_SECRET, "
                "or use --no-sign-request for a public object"
            ) from None
    return OssSource(base, bucket, key, region, headers, version_id, credentials if sign else None)


def _path(key: str) -> str:
    """Percent-encode a key; segments of dots too, which proxies and libraries would resolve."""
    segments = [quote(segment, safe="") for segment in key.split("/")]
    return "/".join(segment.replace(".", "%2E") if segment in (".", "..") else segment for segment in segments)


def _region_of(endpoint_url: str | None) -> str:
    match = _ENDPOINT_REGION.search(endpoint_url or "")
    return "" if match is None else (match[1] or match[2])


def _base(endpoint_url: str, bucket: str, addressing: str) -> str:
    """Return scheme, host and path prefix under which the bucket's keys live."""
    if addressing not in ADDRESSING:
        raise UsageError(f"addressing {printable(addressing, 20)!r} is none of {', '.join(ADDRESSING)}")
    parts = split_url(endpoint_url if "://" in endpoint_url else f"https://{endpoint_url}")
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
