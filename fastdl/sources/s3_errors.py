"""What S3 says when it refuses, told whole: Code, Message, RequestId and HostId, and what to do about it."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

from fastdl.errors import AccessDenied, Archived, FastdlError, NotFound, ServerBusy
from fastdl.redact import printable
from fastdl.sources.base import clock_ahead, explain_plainly

if TYPE_CHECKING:
    from fastdl.errors import Refused

_FIELD = re.compile(r"<(Code|Message|RequestId|HostId|Region|StorageClass)>([^<]{0,500})</\1>")
_REGION = re.compile(r"[a-z0-9][a-z0-9-]{1,40}")
# Refusals of the one who asks, though their status is 400. Source: S3's list of error codes.
_IDENTITY = frozenset(("ExpiredToken", "InvalidToken", "TokenRefreshRequired", "AuthorizationHeaderMalformed"))
_BAD_REQUEST = 400
_REDIRECTS = frozenset((301, 302, 303, 307, 308))


def fields_of(refused: Refused) -> dict[str, str]:
    """Read the error's XML, and from the head what a HEAD or a cut body leaves out."""
    found = {name: html.unescape(value) for name, value in _FIELD.findall(refused.excerpt.decode("utf-8", "replace"))}
    heads = (("RequestId", "x-amz-request-id"), ("HostId", "x-amz-id-2"), ("Region", "x-amz-bucket-region"))
    return {name: refused.headers.get(head, "") for name, head in heads} | found


def region_of(refused: Refused) -> str:
    """Return the region that a refusal sends to; empty if it sends nowhere."""
    if refused.status not in _REDIRECTS and refused.status != _BAD_REQUEST:
        return ""
    region = refused.headers.get("x-amz-bucket-region") or fields_of(refused)["Region"]
    return region if _REGION.fullmatch(region) else ""


def skew_of(refused: Refused) -> float | None:
    """Return how many seconds the server's clock is ahead of ours, if that is what it complains of."""
    if fields_of(refused).get("Code") != "RequestTimeTooSkewed":
        return None
    return clock_ahead(refused)


def explain_s3(shown: str, bucket: str, key: str, refused: Refused) -> FastdlError:
    """Give a refusal its error."""
    fields = fields_of(refused)
    detail = ", ".join(f"{name} {fields[name]}" for name in ("Code", "RequestId", "HostId") if fields.get(name))
    if fields.get("Message"):
        detail += f": {fields['Message']}"
    kind, meaning = _meaning(fields, bucket, key, refused)
    if not meaning:
        return explain_plainly(shown, refused, detail)
    return kind(f"{shown}: {printable(meaning)}: status {refused.status}, {printable(detail)}")


def _meaning(fields: dict[str, str], bucket: str, key: str, refused: Refused) -> tuple[type[FastdlError], str]:
    """Say what a refusal means where its status alone does not tell; empty where it does."""
    code = fields.get("Code", "")
    kind: type[FastdlError] = AccessDenied
    meaning = ""
    if code == "InvalidObjectState":
        kind = Archived
        kept = f" in {fields['StorageClass']}" if fields.get("StorageClass") else ""
        command = f"aws s3api restore-object --bucket {bucket} --key {key} --restore-request Days=1"
        meaning = f"archived{kept}, and must be restored before it can be read ({command})"
    elif refused.headers.get("x-amz-delete-marker", "").lower() == "true":
        kind, meaning = NotFound, "deleted: what is there is a delete marker; --version-id names what was there before"
    elif code == "RequestTimeout":
        kind, meaning = ServerBusy, "the server waited too long"
    elif code in _IDENTITY or code.startswith("KMS."):
        meaning = "access denied: check the credentials, their expiry and the region"
    elif refused.status == _BAD_REQUEST and "server side encryption" in fields.get("Message", "").lower():
        meaning = "encrypted with a key of its owner's: give it by -H 'x-amz-server-side-encryption-customer-key: …'"
    elif refused.status in _REDIRECTS and region_of(refused):
        meaning = f"the bucket is in region {region_of(refused)}; give --region"
    return kind, meaning
