"""Whether an OSS request is signed rightly: its V4 signature, recomputed by the official SDK's signer."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import unquote

from alibabacloud_oss_v2.credentials import Credentials  # type: ignore[import-untyped, unused-ignore]
from alibabacloud_oss_v2.signer import SignerV4  # type: ignore[import-untyped, unused-ignore]
from alibabacloud_oss_v2.types import HttpRequest, SigningContext  # type: ignore[import-untyped, unused-ignore]

if TYPE_CHECKING:
    from collections.abc import Collection

_ALGORITHM = "OSS4-HMAC-SHA256"
_TIME = "%Y%m%dT%H%M%SZ"
_SKEW = timedelta(minutes=15)
_LONGEST = 604_800  # seconds a presigned URL may live


@dataclass(frozen=True, slots=True)
class AccessKey:
    """A key pair the endpoint knows; with ``token`` a temporary one of STS."""

    id: str
    secret: str
    token: str | None = None
    expired: bool = False
    until: datetime | None = None  # when it expires by itself


@dataclass(eq=False)
class RefusalError(Exception):
    """An OSS error answer."""

    status: int
    code: str
    message: str
    ec: str  # as documented for the case; a client may show it and must not act on it
    fields: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Signed:
    """The parts of a request that its signature covers."""

    method: str
    query: str  # raw
    headers: dict[str, str]
    bucket: str
    key: str
    region: str


@dataclass(frozen=True, slots=True)
class _Claim:
    """What a request says about its own signature."""

    key_id: str
    scope: tuple[str, ...]  # date, region, product, terminator
    time: datetime
    token: str | None
    additional: frozenset[str]
    signature: str
    expires: timedelta | None  # None when the header is signed, not the URL


def check_signature(request: Signed, keys: Collection[AccessKey], now: datetime) -> None:
    """Accept a request signed in its header or its URL.

    Raises:
        RefusalError: as OSS answers unsigned, ill-timed and wrongly signed requests.
    """
    claim = _claim(request)
    if claim.scope != (claim.time.strftime("%Y%m%d"), request.region, "oss", "aliyun_v4_request"):
        raise RefusalError(400, "InvalidArgument", "Invalid scope in the credential of the signature.", "0002-00000223")
    _check_time(claim, now)
    key = next((key for key in keys if key.id == claim.key_id), None)
    if key is None:
        message = "The OSS Access Key Id you provided does not exist in our records."
        raise RefusalError(403, "InvalidAccessKeyId", message, "0002-00000902")
    if key.token != claim.token:
        raise RefusalError(403, "InvalidSecurityToken", "The security token you provided is invalid.", "0002-00000006")
    if key.expired or (key.until is not None and now > key.until):
        raise RefusalError(403, "SecurityTokenExpired", "The security token you provided has expired.", "0002-00000007")
    if not hmac.compare_digest(claim.signature, _expected(request, claim, key)):
        message = "The request signature we calculated does not match the signature you provided. Check your key."
        raise RefusalError(403, "SignatureDoesNotMatch", message, "0002-00000201")


def _claim(request: Signed) -> _Claim:
    query = dict(pair.partition("=")[::2] for pair in request.query.split("&"))
    try:
        if "x-oss-signature" in query:
            return _claim_of_query({name: unquote(value) for name, value in query.items()})
        if "authorization" in request.headers:
            return _claim_of_header(request.headers)
    except (KeyError, ValueError) as error:
        raise RefusalError(400, "InvalidArgument", f"Malformed signature: {error!r}", "0002-00000210") from error
    raise RefusalError(403, "AccessDenied", "Anonymous user has no right to access this bucket.", "0003-00000001")


def _claim_of_header(headers: dict[str, str]) -> _Claim:
    algorithm, _, rest = headers["authorization"].partition(" ")
    fields = dict(field.strip().partition("=")[::2] for field in rest.split(","))
    if algorithm != _ALGORITHM or headers["x-oss-content-sha256"] != "UNSIGNED-PAYLOAD":
        raise ValueError(algorithm)
    key_id, *scope = fields["Credential"].split("/")
    additional = frozenset(filter(None, fields.get("AdditionalHeaders", "").split(";")))
    token = headers.get("x-oss-security-token")
    return _Claim(key_id, tuple(scope), _time(headers["x-oss-date"]), token, additional, fields["Signature"], None)


def _claim_of_query(query: dict[str, str]) -> _Claim:
    if query["x-oss-signature-version"] != _ALGORITHM:
        raise ValueError(query["x-oss-signature-version"])
    key_id, *scope = query["x-oss-credential"].split("/")
    additional = frozenset(filter(None, query.get("x-oss-additional-headers", "").split(";")))
    expires, token = timedelta(seconds=int(query["x-oss-expires"])), query.get("x-oss-security-token")
    return _Claim(
        key_id, tuple(scope), _time(query["x-oss-date"]), token, additional, query["x-oss-signature"], expires
    )


def _time(text: str) -> datetime:
    return datetime.strptime(text, _TIME).replace(tzinfo=UTC)


def _check_time(claim: _Claim, now: datetime) -> None:
    if claim.expires is None:
        if abs(now - claim.time) > _SKEW:
            message = "The difference between the request time and the current time is too large."
            raise RefusalError(403, "RequestTimeTooSkewed", message, "0002-00000504")
        return
    if not 1 <= claim.expires.total_seconds() <= _LONGEST:
        raise RefusalError(400, "InvalidArgument", "x-oss-expires must be from 1 to 604800 seconds.", "0002-00000232")
    if now > claim.time + claim.expires:
        raise RefusalError(403, "AccessDenied", "Request has expired.", "0002-00000069")


def _expected(request: Signed, claim: _Claim, key: AccessKey) -> str:
    """Sign the request anew with the SDK and return its signature."""
    kept = "&".join(pair for pair in request.query.split("&") if not pair.startswith("x-oss-signature="))
    headers = {name: value for name, value in request.headers.items() if name != "authorization"}
    again = HttpRequest(request.method, f"http://host/?{kept}", headers)
    context = SigningContext(
        product="oss",
        region=request.region,
        bucket=request.bucket,
        key=request.key,
        request=again,
        credentials=Credentials(key.id, key.secret, key.token),
        signing_time=claim.time,
        additional_headers=set(claim.additional),
    )
    if claim.expires is not None:
        context.auth_method_query = True
        context.expiration_time = claim.time + claim.expires
    SignerV4().sign(context)
    if claim.expires is not None:
        return str(again.url).rpartition("x-oss-signature=")[2]
    return str(again.headers["Authorization"]).rpartition("Signature=")[2]
