"""Objects in Alibaba Cloud OSS: V4 signatures by the official SDK, conditions, versions, the server's clock.

Source: the SDK's public ``signer`` module; facts about OSS from its API reference.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fastdl.errors import UsageError
from fastdl.messages import Request
from fastdl.redact import printable
from fastdl.sources.base import check_headers, clock_ahead, describe_plainly
from fastdl.sources.oss_endpoint import locate
from fastdl.sources.oss_errors import DENIED, SKEWED, explain, said
from fastdl.sources.oss_restore import restore
from fastdl.sources.ossutil import load_profile

try:
    from alibabacloud_oss_v2.signer import SignerV4
    from alibabacloud_oss_v2.types import HttpRequest, SigningContext

    from fastdl.sources.oss_credentials import Login, find_provider
except ImportError:
    raise UsageError("oss:// URLs need Alibaba Cloud's SDK: pip install alibabacloud-oss-v2") from None

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fastdl.digest import Expected
    from fastdl.errors import Archived, FastdlError, Refused
    from fastdl.http import Transport
    from fastdl.sources.oss_endpoint import Place
    from fastdl.sources.oss_restore import Restoring
    from fastdl.validator import ObjectInfo

_SKEW = 60.0  # seconds; a signature is refused after fifteen minutes
log = logging.getLogger("fastdl")


class OssSource:
    """``oss://bucket/key``; ``login`` hands out credentials when asked, None leaves requests unsigned.

    ``standing`` headers go on every request, ``reading`` ones on those that read the object.
    """

    several = False

    def __init__(
        self,
        place: Place,
        login: Login | None,
        *,
        standing: Mapping[str, str],
        reading: Mapping[str, str],
        version_id: str | None,
        restoring: Restoring,
    ) -> None:
        self.shown = printable(f"oss://{place.bucket}/{place.key}")
        self.identity = f"oss://{place.bucket}/{place.key}" + (f"?versionId={version_id}" if version_id else "")
        self.address = place.url
        self._place = place
        self._login = login
        self._standing, self._reading = dict(standing), dict(reading)
        self._version_id = version_id  # every request is about this one; None: the latest, until one is pinned
        self._may_pin = version_id is None
        self._pinned = ""
        self._clock_offset = 0.0  # seconds that the server's clock is ahead of ours
        self._clock_is_set = False
        self._restoring = restoring

    def request(self, info: ObjectInfo | None) -> Request:
        """Return a GET signed now: 0.1 ms, so every span gets a signature of its own.

        Once the version is known it is asked for by its id, so that all parts come of one.

        Raises:
            AccessDenied: the credential provider has nothing to offer.
        """
        headers = self._standing | self._reading
        if info is not None and info.validator.etag:
            headers["If-Match"] = info.validator.etag
        self._pinned = info.validator.version_id if info is not None and self._may_pin else ""
        return self._signed("GET", headers, self._version_id or self._pinned)

    def pin(self, request: Request) -> None:
        """Do nothing: OSS does not redirect a GET of an object."""

    def adapt(self, refused: Refused) -> bool:
        """Set the clock by the server's, once; do without a pinned version that we may not read by its id."""
        code = said(refused).code
        if code == SKEWED and not self._clock_is_set:
            return self._set_clock(clock_ahead(refused))
        if code == DENIED and self._pinned:
            # oss:GetObject is no permission to name versions; If-Match and each answer's version id still hold.
            self._may_pin, self._pinned = False, ""
            return True
        return False

    def renew(self) -> bool:
        """Forget the credentials, so that the provider is asked for others: once, whoever was refused with them."""
        if self._login is not None:
            self._login.drop()
        return self._login is not None

    def describe(self, headers: Mapping[str, str], size: int | None) -> ObjectInfo:
        """Read size, validators and CRC-64, which OSS gives for the whole object on ranges too."""
        return describe_plainly(headers, size)

    def promises(self, info: ObjectInfo, transport: Transport) -> tuple[Expected, ...]:  # noqa: ARG002 - nothing is asked
        """Return what the first answer's head told."""
        return info.promises

    def thaw(self, archived: Archived, transport: Transport, sleep: Callable[[float], None]) -> None:
        """Have the object restored, if that is wanted, and wait for it."""
        if not self._restoring.wanted:
            raise archived
        version, body = self._version_id or self._pinned, self._restoring.body
        xml = self._standing | {"Content-Type": "application/xml"}
        restore(
            self.shown,
            self._restoring,
            lambda: self._signed("POST", xml, version, "restore", body),
            lambda: self._signed("HEAD", self._standing, version),
            transport,
            sleep,
        )

    def explain(self, refused: Refused) -> FastdlError:
        """Show OSS's Code, EC, RequestId and words; tell archived objects from denied ones."""
        return explain(self.shown, refused)

    def _signed(
        self, method: str, headers: Mapping[str, str], version: str, resource: str = "", body: bytes = b""
    ) -> Request:
        query = "&".join(filter(None, (resource, version and f"versionId={quote(version, safe='')}")))
        url = self._place.url + (f"?{query}" if query else "")
        request = HttpRequest(method, url, headers=dict(headers))
        if self._login is not None:
            context = SigningContext(
                product="oss",
                region=self._place.region,
                bucket=self._place.bucket,
                key=self._place.key,
                request=request,
                credentials=self._login.credentials(),
                clock_offset=self._clock_offset,
            )
            SignerV4().sign(context)
        pairs = tuple((str(name), str(value)) for name, value in request.headers.items())
        return Request(url, pairs, method, follow=False, body=body)

    def _set_clock(self, offset: float | None) -> bool:
        # If the clock is right, then the signature had become old.
        if offset is None or abs(offset - self._clock_offset) < _SKEW:
            return False
        self._clock_offset, self._clock_is_set = offset, True
        log.warning("%s: this clock and the server's differ by %.0f s; theirs is used", self.shown, offset)
        return True


def open_oss(
    url: str,
    headers: tuple[tuple[str, str], ...],
    *,
    endpoint_url: str | None,
    region: str | None,
    addressing: str,
    sign: bool,
    version_id: str | None,
    profile: str | None,
    request_payer: str | None,
    traffic_limit: int | None,
    restoring: Restoring,
    credentials: Any | None,
) -> OssSource:
    """Return the source of ``oss://bucket/key``; ``traffic_limit`` in bits per second of each request.

    What is not given comes from OSS_ENDPOINT, OSS_REGION, OSS_ACCESS_KEY_ID, OSS_ACCESS_KEY_SECRET and
    OSS_SESSION_TOKEN, then from the ``profile`` of ossutil, then, credentials alone, from a role that is configured.

    Raises:
        UsageError: bucket, key, endpoint, region, profile or a setting cannot be meant.
        AccessDenied: there are no credentials.
    """
    check_headers(headers)
    section = load_profile(profile, os.environ)
    endpoint = endpoint_url or os.environ.get("OSS_ENDPOINT") or section.endpoint
    place = locate(url, endpoint, region or os.environ.get("OSS_REGION") or section.region, addressing)
    standing = dict(headers)
    if request_payer is not None:
        if request_payer != "requester":
            raise UsageError("the request payer can only be 'requester'")
        standing["x-oss-request-payer"] = request_payer
    # Without this header OSS answers an impossible range with 200 and the whole object.
    reading = {"x-oss-range-behavior": "standard"}
    if traffic_limit is not None:
        reading["x-oss-traffic-limit"] = str(traffic_limit)
    provider = find_provider(credentials, section, os.environ) if sign else None
    login = None if provider is None else Login(provider)
    return OssSource(place, login, standing=standing, reading=reading, version_id=version_id, restoring=restoring)
