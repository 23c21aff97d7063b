"""A refusal is told in one line, whatever a store writes into it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fastdl.errors import FastdlError, Refused
from fastdl.sources.s3_errors import explain_s3, region_of, skew_of

CODES = st.sampled_from(
    (
        *("InvalidObjectState", "RequestTimeTooSkewed", "ExpiredToken", "KMS.DisabledException", "RequestTimeout"),
        *("AccessDenied", "NoSuchKey", "PermanentRedirect", "InvalidRequest", ""),
    )
)
HEADERS = st.dictionaries(
    st.sampled_from(("x-amz-request-id", "x-amz-id-2", "x-amz-bucket-region", "x-amz-delete-marker", "date")), st.text()
)


@given(status=st.integers(300, 599), code=CODES, junk=st.text(), raw=st.binary(), headers=HEADERS)
def test_any_refusal_is_an_error_of_ours(
    status: int, code: str, junk: str, raw: bytes, headers: dict[str, str]
) -> None:
    """Printable, with the status, and not longer than a line should be."""
    xml = f"<Error><Code>{code}</Code><Message>{junk}</Message><Region>{junk}</Region></Error>".encode(
        "utf-8", "surrogatepass"
    )
    refused = Refused("x", status, headers, xml + raw)
    error = explain_s3("s3://bucket/key", "bucket", "key", refused)
    assert isinstance(error, FastdlError)
    assert str(error).isprintable()
    assert f"status {status}" in str(error)
    assert len(str(error)) < 2500
    assert set(region_of(refused)) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert skew_of(refused) is None or isinstance(skew_of(refused), float)
