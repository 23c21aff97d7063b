"""Objects in Amazon S3 and what speaks like it: V4 signatures by botocore, conditions, regions, clocks."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fastdl.errors import AccessDenied, FastdlError, Refused, UsageError
from fastdl.messages import Request
from fastdl.redact import printable
from fastdl.sources.base import check_headers
from fastdl.sources.s3_checksums import ask, describe
from fastdl.sources.s3_errors import explain_s3, fields_of, region_of, skew_of
from fastdl.sources.s3_session import S3Session, signed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fastdl.digest import Expected
    from fastdl.errors import Archived
    from fastdl.http import Transport
    from fastdl.validator import ObjectInfo

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
_DIRECTORY = "--x-s3"  # ends the names of buckets that want a session of their own, not the user's signature
_DENIED = 403


class S3Source:
    """``s3://bucket/key``; ``credentials`` are botocore's, None looks for them, and an unsigned session needs none."""

    several = False

    def __init__(
        self,
        session: S3Session,
        bucket: str,
        key: str,
        headers: tuple[tuple[str, str], ...],
        version_id: str | None,
        credentials: Any | None,
    ) -> None:
        self.shown = printable(f"s3://{bucket}/{key}")
        self.identity = f"s3://{bucket}/{key}" + (f"?versionId={version_id}" if version_id else "")
        self._session, self._bucket, self._key = session, bucket, key
        self._headers = headers
        self._version_id = version_id
        self._place = session.place(bucket, key)
        self.address = self._place.url
        self._given = credentials
        self._credentials = (credentials or session.credentials()) if session.sign else None
        self._clock_offset = 0.0  # seconds that the store's clock is ahead; 0.0 as long as it does not complain
        self._pins = version_id is None  # later requests name the version that the first answer was of
        self._pinned = False  # one did
        self._moved = False

    def request(self, info: ObjectInfo | None) -> Request:
        """Return a GET signed now: every span gets a signature of its own.

        Raises:
            AccessDenied: the credentials expired and could not be refreshed.
        """
        return self.asking("GET", info, {"x-amz-checksum-mode": "ENABLED"} if info is None or info.size is None else {})

    def asking(
        self, method: str, info: ObjectInfo | None, headers: Mapping[str, str], part: int | None = None
    ) -> Request:
        """Return a signed request for the object, or for one ``part`` of its upload."""
        headers = {**headers, **dict(self._headers)}
        version = self._version_id
        if info is not None:
            # Some stores compare a part's ETag.
            if info.validator.etag and not info.validator.etag.startswith("W/") and part is None:
                headers["If-Match"] = info.validator.etag
            if self._pins and info.validator.version_id:
                version, self._pinned = info.validator.version_id, True
        query = [f"partNumber={part}"] if part is not None else []
        if version:
            query.append(f"versionId={quote(version, safe='')}")
        url = self._place.url + "?" * bool(query) + "&".join(query)
        sent = tuple(headers.items())
        if self._credentials is not None:
            try:
                sent = signed(method, url, headers, self._credentials, self._place.region, self._clock_offset)
            except AccessDenied:
                raise
            except Exception as error:  # noqa: BLE001 - refreshing asks services and processes; their text may be secret
                raise AccessDenied(f"{self.shown}: the credentials failed: {type(error).__name__}") from None
        return Request(url, sent, method, follow=False)

    def pin(self, request: Request) -> None:
        """Do nothing: where S3 sends elsewhere, ``adapt`` signs for that place."""

    def adapt(self, refused: Refused) -> bool:
        """Learn once each: the bucket's region, the store's clock, that the version may not be named."""
        region = region_of(refused)
        if region and region != self._place.region and not self._moved:
            self._moved = True
            with suppress(UsageError):  # what is no region is no lesson
                self._place = self._session.place(self._bucket, self._key, region)
                return True
        skew = skew_of(refused)
        if skew is not None and not self._clock_offset:
            self._clock_offset = skew
            return True
        if self._pins and self._pinned and fields_of(refused).get("Code") == "AccessDenied":
            # Naming a version takes s3:GetObjectVersion, which who may read the object need not have; If-Match stays.
            self._pins = False
            return True
        return False

    def thaw(self, archived: Archived, transport: Transport, sleep: Callable[[float], None]) -> None:  # noqa: ARG002
        """Do nothing: restoring is for other tools here."""
        raise archived

    def renew(self) -> bool:
        """Look for credentials anew: a token expired, a file was rotated. What the caller gave refreshes itself."""
        if self._credentials is None:
            return False
        if self._given is None:
            self._credentials = self._session.credentials()
        return True

    def describe(self, headers: Mapping[str, str], size: int | None) -> ObjectInfo:
        """Read size, validators and, where the answer is the whole object, its digests."""
        return describe(headers, size)

    def promises(self, info: ObjectInfo, transport: Transport) -> tuple[Expected, ...]:
        """Return what the first answer told, as it does of whole objects, or ask with a HEAD."""
        if info.promises:
            return info.promises
        return ask(info, lambda headers, part: self.asking("HEAD", info, headers, part), transport)

    def explain(self, refused: Refused) -> FastdlError:
        """Show S3's Code, Message, RequestId and HostId; tell archived, deleted and encrypted from denied."""
        return explain_s3(self.shown, self._bucket, self._key, refused)


def open_s3(
    url: str,
    headers: tuple[tuple[str, str], ...],
    *,
    endpoint_url: str | None,
    region: str | None,
    addressing: str,
    sign: bool,
    version_id: str | None,
    credentials: Any | None,
    profile: str | None,
    request_payer: str | None,
) -> S3Source:
    """Return the source of ``s3://bucket/key``; the key is literal, no percent-decoding, ``?`` and ``#`` included.

    Raises:
        UsageError: bucket, key, profile, endpoint or region cannot be meant.
        AccessDenied: there are no credentials.
    """
    check_headers(headers)
    bucket, _, key = url.partition("://")[2].partition("/")
    if not _BUCKET.fullmatch(bucket) or ".." in bucket or not key:
        raise UsageError("write s3://bucket/key")
    if bucket.endswith(_DIRECTORY):
        raise UsageError(f"s3://{bucket}: directory buckets are not supported")
    if not key.isprintable() and any("\ud800" <= char <= "\udfff" for char in key):
        raise UsageError("the key is not valid UTF-8")
    if credentials is not None and not hasattr(credentials, "get_frozen_credentials"):
        raise UsageError("credentials for s3:// are botocore's: session.get_credentials() of a boto3 session")
    if request_payer:
        headers = (*headers, ("x-amz-request-payer", request_payer))
    session = S3Session(profile=profile, endpoint_url=endpoint_url, region=region, addressing=addressing, sign=sign)
    return S3Source(session, bucket, key, headers, version_id, credentials)
