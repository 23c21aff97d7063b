"""An OSS endpoint for one bucket, with OSS's own signatures, quirks and errors.

It answers path style on its IP address, virtual-host style (``bucket.oss-cn-hangzhou.aliyuncs.com``,
``bucket.localhost``) and CNAMEs. Where such names do not resolve, point the client at it as its HTTP proxy: request
targets in absolute form are understood.
"""

from __future__ import annotations

import base64
import re
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import unquote
from xml.sax.saxutils import escape

from tests.servers.oss_objects import Crc, Restorations, Stored
from tests.servers.oss_signature import AccessKey, RefusalError, Signed, check_signature
from tests.servers.ranges import clip_range, content_range
from tests.servers.scripted import Exchange, Handler, as_source, pieces, script
from tests.servers.wire import Server, running

if TYPE_CHECKING:
    import ssl
    from collections.abc import Collection, Iterator, Mapping

__all__ = ["AccessKey", "Crc", "OssServer", "RefusalError", "Stored", "refusing", "serving_oss"]

KEY = AccessKey("test-access-key-id", "test-access-key-secret")

_ENDPOINT = re.compile(
    r"(?:(?P<bucket>[a-z0-9-]+)\.)?(?P<endpoint>localhost|(?:oss-[a-z0-9-]+|[a-z0-9-]+\.oss)\.aliyuncs\.com)"
)
_IP = re.compile(r"[\d.]+|\[[\da-f:]+\]")


class OssServer(Server):
    """The endpoint; tests assign ``keys``, ``clock_offset`` and the like and call :meth:`put` while it runs."""

    def __init__(
        self,
        objects: Mapping[str, bytes | Stored],
        faults: Mapping[int, Handler] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Bind; ``faults`` are those of :func:`tests.servers.scripted.script`."""
        super().__init__(script(faults or {}, otherwise=self._answer), tls=tls)
        self.bucket, self.region = "bucket", "cn-hangzhou"
        self.keys: Collection[AccessKey] = (KEY,)
        self.cnames: frozenset[str] = frozenset()
        self.clock_offset = timedelta(0)  # of the server's clock from the true one
        self.versions_may_be_named = True  # whether the policy allows oss:GetObjectVersion
        self.restorations = Restorations()
        self._markers: dict[str, str] = {}  # ids of delete markers that are the current version
        self._current: dict[str, tuple[Stored, dict[str, str]]] = {}
        self._versions: dict[tuple[str, str], tuple[Stored, dict[str, str]]] = {}
        for key, stored in objects.items():
            self.put(key, stored)

    def put(self, key: str, stored: bytes | Stored) -> None:
        """Store or replace an object; earlier versions stay readable by their version id."""
        kept = stored if isinstance(stored, Stored) else Stored(stored)
        self._current[key] = entry = (kept, kept.fields())
        self._markers.pop(key, None)
        if kept.version_id is not None:
            self._versions[key, kept.version_id] = entry

    def delete(self, key: str, marker: str | None = None) -> None:
        """Remove an object; under versioning put a delete ``marker`` of that id on top."""
        del self._current[key]
        if marker is not None:
            self._markers[key] = marker

    def forget(self, key: str, version_id: str) -> None:
        """Remove one version of an object for good."""
        del self._versions[key, version_id]

    def expire_keys(self) -> None:
        """Let all keys be known but expired, until a test assigns new ``keys``."""
        self.keys = tuple(replace(key, expired=True) for key in self.keys)

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
        bucket, key = self._locate(host, path)
        restoring = request.method == "POST" and _parameter(query, "restore") is not None
        if request.method not in ("GET", "HEAD") and not restoring:
            raise RefusalError(405, "MethodNotAllowed", "The method is not allowed here.", "0015-00000203")
        current = self._current.get(key)
        if current is None or not current[0].public or "authorization" in request.headers or "x-oss-signature" in query:
            signed = Signed(request.method, query, request.headers, bucket, key, self.region)
            check_signature(signed, self.keys, self.now())
        if bucket != self.bucket:
            raise RefusalError(404, "NoSuchBucket", "The specified bucket does not exist.", "0015-00000101")
        stored, fields = self._version(key, _parameter(query, "versionId"))
        if stored.requester_pays and request.headers.get("x-oss-request-payer") != "requester":
            raise RefusalError(403, "AccessDenied", "The bucket is requester pays.", "0003-00000703")
        _check_traffic_limit(request.headers.get("x-oss-traffic-limit", _parameter(query, "x-oss-traffic-limit")))
        standing = _standing_fields(request.number, self.now())
        if restoring:
            exchange.reply(self.restorations.ask(stored, request.body), standing)
            return
        if request.method == "GET" and not self.restorations.readable(stored):
            message = "The operation is not valid for the object's state"
            raise RefusalError(403, "InvalidObjectState", message, "0016-00000601")
        if request.method == "HEAD":
            fields = {**fields, **self.restorations.look(stored)}
        _send(exchange, stored, fields | standing)

    def _version(self, key: str, version: str | None) -> tuple[Stored, dict[str, str]]:
        """Find the current or the named version."""
        marker = self._markers.get(key)
        if version is None:
            if key not in self._current:
                told = {} if marker is None else {"x-oss-delete-marker": "true", "x-oss-version-id": marker}
                raise RefusalError(404, "NoSuchKey", "The specified key does not exist.", "0026-00000001", told)
            return self._current[key]
        if not self.versions_may_be_named:
            raise RefusalError(403, "AccessDenied", "You have no right to access this object version.", "0003-00000001")
        if version == marker:
            told = {"x-oss-delete-marker": "true", "x-oss-version-id": marker, "Allow": "DELETE"}
            message = "The specified method is not allowed against this resource."
            raise RefusalError(405, "MethodNotAllowed", message, "0026-00000013", told)
        if (key, version) not in self._versions:
            raise RefusalError(404, "NoSuchVersion", "The specified version does not exist.", "0026-00000006")
        return self._versions[key, version]

    def _locate(self, host: str, path: str) -> tuple[str, str]:
        """Find bucket and key; the path is percent-decoded exactly once, and a plus in it is a plus."""
        try:
            plain = unquote(path, errors="strict").removeprefix("/")
        except UnicodeDecodeError as error:
            raise RefusalError(400, "InvalidObjectName", "The object name is not UTF-8.", "0015-00000301") from error
        name = re.sub(r":\d+$", "", host.lower())
        if name in self.cnames:
            return self.bucket, plain
        if known := _ENDPOINT.fullmatch(name):
            if known["bucket"] is not None:
                return known["bucket"], plain
            if known["endpoint"] != "localhost":
                message = "The bucket you are attempting to access must be addressed using OSS third level domain."
                raise RefusalError(403, "SecondLevelDomainForbidden", message, "0004-00000003")
        elif not _IP.fullmatch(name):
            raise RefusalError(404, "NoSuchBucket", f"No bucket is bound to the domain {name}.", "0015-00000101")
        bucket, _, key = plain.partition("/")
        return bucket, key


def refuse(exchange: Exchange, refusal: RefusalError, now: datetime) -> None:
    """Answer with an error, as XML and for HEAD as the base64 of it in x-oss-err."""
    fields = _standing_fields(exchange.request.number, now)
    host = exchange.request.headers.get("host", "")
    parts = {"Code": refusal.code, "Message": refusal.message, "RequestId": fields["x-oss-request-id"]}
    parts |= {"HostId": host, "EC": refusal.ec}
    inner = "".join(f"\n  <{name}>{escape(value)}</{name}>" for name, value in parts.items())
    xml = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inner}\n</Error>\n'.encode()
    fields |= {"Content-Type": "application/xml", "x-oss-ec": refusal.ec, **refusal.fields}
    if exchange.request.method == "HEAD":
        fields["x-oss-err"] = base64.b64encode(xml).decode("ascii")
    exchange.reply(refusal.status, fields, xml)


def refusing(status: int, code: str, message: str = "As scripted.", ec: str = "0000-00000000") -> Handler:
    """Make a fault for ``faults``: an OSS error that comes whatever was asked."""
    return lambda exchange: refuse(exchange, RefusalError(status, code, message, ec), datetime.now(UTC))


@contextmanager
def serving_oss(
    objects: Mapping[str, bytes | Stored],
    *,
    bucket: str = "bucket",
    region: str = "cn-hangzhou",
    keys: Collection[AccessKey] = (KEY,),
    cnames: Collection[str] = (),
    faults: Mapping[int, Handler] | None = None,
    tls: ssl.SSLContext | None = None,
) -> Iterator[OssServer]:
    """Serve ``objects``, by key, as one bucket until the end of the block; ``cnames`` are host names bound to it."""
    server = OssServer(objects, faults, tls)
    server.bucket, server.region, server.keys, server.cnames = bucket, region, keys, frozenset(cnames)
    with running(server):
        yield server


def _send(exchange: Exchange, stored: Stored, fields: dict[str, str]) -> None:
    request, source = exchange.request, as_source(stored.body)
    _check_conditions(request.headers, stored)
    standard = request.headers.get("x-oss-range-behavior") == "standard"
    span = clip_range(request.range, source.size) if request.range is not None else None
    if request.range is not None and span is None and standard and request.method == "GET":
        raise RefusalError(416, "InvalidRange", "The requested range cannot be satisfied", "0016-00000701")
    past_end = request.range is not None and (request.range[1] or 0) > source.size
    if span is None or request.method == "HEAD" or (past_end and not standard):
        status, (start, stop) = 200, (0, source.size)
    else:
        status, (start, stop) = 206, span
        fields["Content-Range"] = content_range(start, stop, source.size)
    exchange.reply(status, fields | {"Content-Length": str(stop - start)}, pieces(source, start, stop))


def _check_traffic_limit(value: str | None) -> None:
    if value is not None and not (value.isascii() and value.isdigit() and 819_200 <= int(value) <= 838_860_800):
        raise RefusalError(400, "InvalidArgument", "The traffic limit is out of bounds.", "0002-00000233")


def _check_conditions(headers: Mapping[str, str], stored: Stored) -> None:
    etag, modified = stored.etag.strip('"'), parsedate_to_datetime(stored.last_modified)
    failed = RefusalError(412, "PreconditionFailed", "At least one of the pre-conditions did not hold", "0016-00000101")
    unchanged = RefusalError(304, "NotModified", "Not modified", "0016-00000102")
    if headers.get("if-match", etag).strip('"') != etag:
        raise failed
    if "if-unmodified-since" in headers and modified > parsedate_to_datetime(headers["if-unmodified-since"]):
        raise failed
    if headers.get("if-none-match", "").strip('"') == etag:
        raise unchanged
    if "if-modified-since" in headers and modified <= parsedate_to_datetime(headers["if-modified-since"]):
        raise unchanged


def _standing_fields(number: int, now: datetime) -> dict[str, str]:
    return {"Server": "AliyunOSS", "Date": format_datetime(now, usegmt=True), "x-oss-request-id": f"{number:024X}"}


def _split_target(target: str, host: str) -> tuple[str, str, str]:
    """Split a request target, in absolute form or not, into host, raw path and raw query."""
    if absolute := re.fullmatch(r"https?://([^/?]+)(.*)", target):
        host, target = absolute[1], absolute[2] or "/"
    path, _, query = target.partition("?")
    return host, path, query


def _parameter(query: str, name: str) -> str | None:
    pairs = [pair.partition("=") for pair in query.split("&")]
    return next((unquote(value) for key, _, value in pairs if unquote(key) == name), None)
