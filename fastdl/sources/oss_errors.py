"""What OSS says when it refuses: its XML read, and turned into the one line that people see."""

from __future__ import annotations

import base64
import binascii
import html
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastdl.errors import AccessDenied, Archived, FastdlError, NotFound, ServerBusy
from fastdl.redact import printable
from fastdl.retry import RETRYABLE_STATUS
from fastdl.sources.base import explain_plainly

if TYPE_CHECKING:
    from fastdl.errors import Refused

SKEWED = "RequestTimeTooSkewed"
DENIED = "AccessDenied"
RESTORING = "RestoreAlreadyInProgress"
_FIELD = re.compile(r"<(Code|Message|RequestId|EC)>([^<]{0,500})</\1>")
_FAILING = frozenset(range(500, 600)) - {501, 505}  # those two say what a server will never do
_METHOD_NOT_ALLOWED = 405
_DELETED = "deleted, its latest version is a delete marker; an earlier one can be had with --version-id"
_MEANINGS: dict[str, tuple[type[FastdlError], str]] = {
    "InvalidObjectState": (
        Archived,
        "archived, and must be restored before it can be read (--restore, ossutil api restore-object, or the console)",
    ),
    "InvalidTargetType": (NotFound, "a symlink to another symlink, which OSS does not follow"),
    SKEWED: (AccessDenied, "this machine's clock is wrong"),  # corrected once already, or there is no date to go by
}


@dataclass(frozen=True, slots=True)
class Said:
    """The fields of an error answer, as the store wrote them; empty where it gave none."""

    code: str
    message: str
    ec: str  # the number of the case in OSS's documentation
    request_id: str

    def __str__(self) -> str:
        named = (("Code", self.code), ("EC", self.ec), ("RequestId", self.request_id))
        text = ", ".join(f"{name} {value}" for name, value in named if value)
        return f"{text}: {self.message}" if self.message else text


def said(refused: Refused) -> Said:
    """Read an error's XML out of its body or, where HEAD has none, out of ``x-oss-err``; headers fill what it lacks."""
    text = refused.excerpt.decode("utf-8", "replace")
    if not _FIELD.search(text):
        try:
            text = base64.b64decode(refused.headers.get("x-oss-err", "")).decode("utf-8", "replace")
        except (binascii.Error, ValueError):
            text = ""
    fields = {name: html.unescape(value) for name, value in _FIELD.findall(text)}
    return Said(
        fields.get("Code", ""),
        fields.get("Message", ""),
        fields.get("EC") or refused.headers.get("x-oss-ec", ""),
        fields.get("RequestId") or refused.headers.get("x-oss-request-id", ""),
    )


def explain(shown: str, refused: Refused) -> FastdlError:
    """Tell what OSS refused and why; archived objects and deleted ones apart from denied and missing ones."""
    told = said(refused)
    kind, meaning = _MEANINGS.get(told.code, (NotFound, ""))
    if refused.headers.get("x-oss-delete-marker", "").lower() == "true":
        of_version = refused.status == _METHOD_NOT_ALLOWED
        meaning = "this version is a delete marker and has no bytes" if of_version else _DELETED
    text = f"status {refused.status}, {printable(str(told))}"
    if meaning:
        return kind(f"{shown}: {meaning}: {text}")
    if refused.status in _FAILING and refused.status not in RETRYABLE_STATUS:
        return ServerBusy(f"{shown}: {text}; the server is failing", refused.status, None)
    return explain_plainly(shown, refused, str(told))
