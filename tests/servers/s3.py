"""An S3 endpoint for one bucket in one region: signatures recomputed by botocore, checksums, versions, refusals.

It answers path style on its address. As the HTTP proxy of a client it also has Amazon's names, virtual-host style.
"""

from __future__ import annotations

import hmac
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote
from xml.sax.saxutils import escape

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.servers.ranges import clip_range, content_range
from tests.servers.scripted import LAST_MODIFIED, Exchange, Handler, as_source, pieces, script
from tests.servers.wire import Server, running

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BUCKET, REGION = "bucket", "eu-central-1"
KEY = Credentials("AKIATESTACCESSKEY", "test-secret/key+", None)
_TIME = "%Y%m%dT%H%M%SZ"
_SKEW = timedelta(minutes=15)
_AMAZON = re.compile(r"(?:(?P<bucket>[a-z0-9.-]+)\.)?s3(?:\.(?P<region>[a-z0-9-]+))?\.amazonaws\.com")
_CLAIM = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<id>[^/]+)/\d{8}/(?P<region>[^/]+)/s3/aws4_request, "
    r"SignedHeaders=(?P<names>[^,]+), Signature=(?P<signature>\w{64})"
)
_CUSTOMER_KEY = "x-amz-server-side-encryption-customer-key"


@dataclass(frozen=True, slots=True)
class Stored:
    """One version of one object; ``checksums`` are told where S3 tells them: to HEAD, and with whole objects."""

    body: bytes
    etag: str = '"0f343b0931126a20f133d67c2b018a3b-2"'
    version_id: str | None = None
    part_size: int | None = None  # of the upload, if it was in parts
    first_part: int | None = None  # if that one has another size
    checksums: dict[str, str] = field(default_factory=dict)  # header name -> value
    fields: dict[str, str] = field(default_factory=dict)
    archived: bool = False
    deleted: bool = False  # a delete marker
    requester_pays: bool = False
    customer_key: str = ""
    public: bool = False  # readable without a signature


@dataclass(eq=False)
class RefusalError(Exception):
    """An S3 error answer."""

    status: int
    code: str
    message: str = "As told."
    fields: dict[str, str] = field(default_factory=dict)  # of the head
    parts: dict[str, str] = field(default_factory=dict)  # of the XML


class S3Server(Server):
    """The endpoint; tests assign its attributes and call :meth:`put` while it runs."""

    def __init__(self, objects: Mapping[str, bytes | Stored], faults: Mapping[int, Handler] | None = None) -> None:
        """Bind; ``faults`` are those of :func:`tests.servers.scripted.script`."""
        super().__init__(script(faults or {}, otherwise=self._answer))
        self.region = REGION
        self.keys: dict[str, Credentials] = {KEY.access_key: KEY}
        self.clock_offset = timedelta(0)  # of the server's clock from the true one
        self.may_head = self.may_name_versions = True
        self.failing_heads = 0  # so many HEADs to come are answered with 503
        self.redirecting = 301  # how a request signed for another region is answered: 301, 307 or 400
        self._objects: dict[tuple[str, str | None], Stored] = {}
        for key, stored in objects.items():
            self.put(key, stored)

    def put(self, key: str, stored: bytes | Stored) -> None:
        """Store or replace an object; earlier versions stay readable by their version id."""
        kept = stored if isinstance(stored, Stored) else Stored(stored)
        self._objects[key, None] = self._objects[key, kept.version_id] = kept

    def now(self) -> datetime:
        """Read the server's clock."""
        return datetime.now(UTC) + self.clock_offset

    def _answer(self, exchange: Exchange) -> None:
        try:
            self._serve_object(exchange)
        except RefusalError as refusal:
            refuse(exchange, refusal, self.now())

    def _serve_object(self, exchange: Exchange) -> None:
        request = exchange.request
        host, path, query = _split_target(request.target, request.headers.get("host", ""))
        named = _AMAZON.fullmatch(host)
        bucket, key = (named["bucket"], path[1:]) if named and named["bucket"] else path[1:].partition("/")[::2]
        authorization = request.headers.get("authorization", "")
        if claim := _CLAIM.fullmatch(authorization):
            self._check_region(claim["region"], named["region"] if named else None)
            self._check_key(claim["id"], request.headers)
            url = f"http://{host}{path}" + (f"?{query}" if query else "")
            self._check_signature(claim, request.method, url, request.headers)
        elif authorization or not self._objects.get((unquote(key), None), Stored(b"")).public:
            raise RefusalError(403, "AccessDenied", "Access Denied")
        if bucket != BUCKET:
            raise RefusalError(404, "NoSuchBucket")
        stored = self._find(unquote(key), parse_qs(query).get("versionId", [None])[0])
        self._check_access(stored, request.method, request.headers)
        self._send(exchange, stored, query)

    def _check_region(self, signed_for: str, named: str | None) -> None:
        """Send clients to the bucket's region, by its name in the host's or in the signature's scope."""
        if named in (None, self.region) and signed_for == self.region:
            return
        if self.redirecting == 400 or named == self.region:
            raise RefusalError(
                400, "AuthorizationHeaderMalformed", "The region is wrong.", parts={"Region": self.region}
            )
        where = {"x-amz-bucket-region": self.region}
        if self.redirecting == 307:
            where["Location"] = "http://elsewhere.invalid/"
        raise RefusalError(self.redirecting, "PermanentRedirect", "Use the bucket's own endpoint.", where)

    def _check_key(self, key_id: str, headers: Mapping[str, str]) -> None:
        sent = datetime.strptime(headers["x-amz-date"], _TIME).replace(tzinfo=UTC)
        if abs(self.now() - sent) > _SKEW:
            raise RefusalError(403, "RequestTimeTooSkewed", "The difference between the clocks is too large.")
        known = self.keys.get(key_id)
        if known is None:
            raise RefusalError(403, "InvalidAccessKeyId", "The AWS Access Key Id does not exist in our records.")
        if known.token != headers.get("x-amz-security-token"):
            raise RefusalError(400, "ExpiredToken", "The provided token has expired.")

    def _check_signature(self, claim: re.Match[str], method: str, url: str, headers: Mapping[str, str]) -> None:
        """Sign the request anew with botocore and compare."""
        names = claim["names"].split(";")
        unsigned = {name for name in headers if name.startswith("x-amz-")} - set(names)
        if unsigned or "host" not in names:
            raise RefusalError(403, "AccessDenied", f"There were headers present which were not signed: {unsigned}")
        again = AWSRequest(method, url, {name: headers[name] for name in names})
        again.context["timestamp"] = headers["x-amz-date"]
        signer = S3SigV4Auth(self.keys[claim["id"]], "s3", claim["region"])
        right = signer.signature(signer.string_to_sign(again, signer.canonical_request(again)), again)
        if not hmac.compare_digest(right, claim["signature"]):
            raise RefusalError(403, "SignatureDoesNotMatch", "The request signature we calculated does not match.")

    def _find(self, key: str, version: str | None) -> Stored:
        if version is not None and not self.may_name_versions:
            raise RefusalError(403, "AccessDenied")
        stored = self._objects.get((key, version))
        if stored is None:
            raise RefusalError(404, "NoSuchKey" if version is None else "NoSuchVersion")
        if stored.deleted:
            raise RefusalError(404, "NoSuchKey", "", {"x-amz-delete-marker": "true"})
        return stored

    def _check_access(self, stored: Stored, method: str, headers: Mapping[str, str]) -> None:
        payer = not stored.requester_pays or headers.get("x-amz-request-payer") == "requester"
        if method == "HEAD" and self.failing_heads:
            self.failing_heads -= 1
            raise RefusalError(503, "SlowDown")
        if not payer or (method == "HEAD" and not self.may_head):
            raise RefusalError(403, "AccessDenied")
        if stored.archived and method == "GET":
            raise RefusalError(403, "InvalidObjectState", "Not valid now.", parts={"StorageClass": "GLACIER"})
        if stored.customer_key != headers.get(_CUSTOMER_KEY, ""):
            message = "The object was stored using a form of Server Side Encryption."
            raise RefusalError(400, "InvalidRequest", message)
        if headers.get("if-match", stored.etag) != stored.etag:
            raise RefusalError(412, "PreconditionFailed")

    def _send(self, exchange: Exchange, stored: Stored, query: str) -> None:
        request, size = exchange.request, len(stored.body)
        fields = {"ETag": stored.etag, "Last-Modified": LAST_MODIFIED, "Accept-Ranges": "bytes", **stored.fields}
        fields["Date"] = format_datetime(self.now(), usegmt=True)
        if stored.version_id is not None:
            fields["x-amz-version-id"] = stored.version_id
        status, (start, stop) = 200, (0, size)
        number = parse_qs(query).get("partNumber", [None])[0]
        if number is not None:
            part_size = stored.part_size or size
            start = (int(number) - 1) * part_size
            stop = stored.first_part if stored.first_part and number == "1" else min(start + part_size, size)
            status = 206
            if stored.part_size is not None:
                fields["x-amz-mp-parts-count"] = str(-(-size // part_size))
        elif request.range is not None:
            span = clip_range(request.range, size)
            if span is None:
                raise RefusalError(416, "InvalidRange")
            status, (start, stop) = 206, span
        if status == 206:
            fields["Content-Range"] = content_range(start, stop, size)
        if request.headers.get("x-amz-checksum-mode") == "ENABLED" and (start, stop) == (0, size):
            fields |= stored.checksums
        source = as_source(stored.body)
        exchange.reply(status, fields | {"Content-Length": str(stop - start)}, pieces(source, start, stop))


def refuse(exchange: Exchange, refusal: RefusalError, now: datetime | None = None) -> None:
    """Answer with an error as S3 words it; a HEAD gets its head only."""
    number = exchange.request.number
    parts = {"Code": refusal.code, "Message": refusal.message, "RequestId": f"REQ{number}", "HostId": "host/id="}
    inner = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in (parts | refusal.parts).items())
    xml = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inner}</Error>'.encode()
    fields = {"x-amz-request-id": f"REQ{number}", "x-amz-id-2": "host/id=", "Content-Type": "application/xml"}
    fields["Date"] = format_datetime(now or datetime.now(UTC), usegmt=True)
    exchange.reply(refusal.status, fields | refusal.fields, xml)


@contextmanager
def serving_s3(
    objects: Mapping[str, bytes | Stored], faults: Mapping[int, Handler] | None = None
) -> Iterator[S3Server]:
    """Serve ``objects``, by key, as one bucket until the end of the block."""
    server = S3Server(objects, faults)
    with running(server):
        yield server


def _split_target(target: str, host: str) -> tuple[str, str, str]:
    """Split a request target, in absolute form or not, into host, raw path and raw query."""
    if absolute := re.fullmatch(r"http://([^/?]+)(.*)", target):
        host, target = absolute[1], absolute[2] or "/"
    path, _, query = target.partition("?")
    return host, path, query
