"""What OSS refuses is told whole, and as what it is."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdl.errors import AccessDenied, Archived, FastdlError, NotFound, ProtocolError, Refused, ServerBusy
from fastdl.sources.oss_errors import Said, explain, said

XML = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error>
  <Code>AccessDenied</Code>
  <Message>You have no right &amp; no luck.</Message>
  <RequestId>5C3D9175B6FC201293AD4890</RequestId>
  <HostId>bucket.oss-cn-hangzhou.aliyuncs.com</HostId>
  <EC>0003-00000001</EC>
</Error>"""
TOLD = Said("AccessDenied", "You have no right & no luck.", "0003-00000001", "5C3D9175B6FC201293AD4890")


def refused(status: int, body: bytes = b"", **headers: str) -> Refused:
    """Make a refusal."""
    return Refused("refused", status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def coded(code: str) -> bytes:
    """Make the body of an error."""
    return b"<Error><Code>" + code.encode() + b"</Code></Error>"


def test_the_fields_of_an_error() -> None:
    """From the body, and for HEAD, which has none, from x-oss-err; what both lack from headers of its own."""
    assert said(refused(403, XML)) == TOLD
    assert said(refused(403, x_oss_err=base64.b64encode(XML).decode())) == TOLD
    assert said(refused(403, coded("X"), x_oss_ec="1", x_oss_request_id="2")) == Said("X", "", "1", "2")
    assert str(TOLD) == (
        "Code AccessDenied, EC 0003-00000001, RequestId 5C3D9175B6FC201293AD4890: You have no right & no luck."
    )


@given(st.binary(max_size=300), st.text(max_size=100), st.integers(300, 599))
def test_any_answer_makes_one_line(body: bytes, header: str, status: int) -> None:
    """Junk where XML or base64 should be, in any size."""
    error = explain("oss://bucket/key", refused(status, body, x_oss_err=header, x_oss_ec=header))
    assert isinstance(error, FastdlError)
    assert str(error).isprintable()
    assert str(error).startswith("oss://bucket/key: ")


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (403, "AccessDenied", AccessDenied),
        (403, "InvalidObjectState", Archived),
        (403, "RequestTimeTooSkewed", AccessDenied),
        (404, "NoSuchKey", NotFound),
        (404, "SymlinkTargetNotExist", NotFound),
        (400, "InvalidTargetType", NotFound),
        (400, "InvalidArgument", ProtocolError),
        *((status, "Busy", ServerBusy) for status in (408, 429, 500, 502, 503, 504, 507, 509, 520)),
        *((status, "NotImplemented", ProtocolError) for status in (501, 505)),
    ],
)
def test_a_refusal_has_one_meaning(status: int, code: str, kind: type[FastdlError]) -> None:
    """408, 429 and what fails for now are transient; an archive is not; the code is always there."""
    error = explain("oss://bucket/key", refused(status, coded(code)))
    assert type(error) is kind
    assert code in str(error)
    assert f"status {status}" in str(error)


def test_how_to_restore_is_said() -> None:
    """Here, by ossutil, or in the console."""
    text = str(explain("oss://bucket/key", refused(403, coded("InvalidObjectState"))))
    assert all(word in text for word in ("--restore", "ossutil", "console"))


def test_delete_markers_are_told_from_what_never_was() -> None:
    """On top of versions, or asked for by an id."""
    on_top = explain("x", refused(404, coded("NoSuchKey"), x_oss_delete_marker="true"))
    by_id = explain("x", refused(405, coded("MethodNotAllowed"), x_oss_delete_marker="true"))
    assert (type(on_top), type(by_id)) == (NotFound, NotFound)
    assert "--version-id" in str(on_top)
    assert "this version is a delete marker" in str(by_id)
