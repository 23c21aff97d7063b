"""Secrets never survive, and one object has one identity."""

from __future__ import annotations

import pytest

from fastdl.redact import printable, redacted_url, unsigned_url

OBJECT = "https://bucket.host/path/object"
SIGNED = {
    "OSS V1": "OSSAccessKeyId={0}&Expires=17{0}&Signature={0}%3D&security-token={0}",
    "OSS V4": "x-oss-signature-version=OSS4-HMAC-SHA256&x-oss-date={0}&x-oss-expires=3600&x-oss-credential={0}%2F2025"
    "&x-oss-signature={0}&x-oss-security-token={0}",
    "AWS V2": "AWSAccessKeyId={0}&Expires=17{0}&Signature={0}",
    "AWS V4": "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={0}%2F2025&X-Amz-Date={0}&X-Amz-Expires=3600"
    "&X-Amz-SignedHeaders=host&X-Amz-Security-Token={0}&X-Amz-Signature={0}",
    "GCS V2": "GoogleAccessId={0}&Expires=17{0}&Signature={0}",
    "GCS V4": "X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential={0}&X-Goog-Date={0}&X-Goog-Expires=900"
    "&X-Goog-SignedHeaders=host&X-Goog-Signature={0}",
    "Azure SAS": "sv=2024-11-04&st={0}&se={0}&sr=b&sp=r&spr=https&sip=1.2.3.4&sig={0}%3D",
    "Azure user delegation": "skoid={0}&sktid={0}&skt={0}&ske={0}&sks=b&skv=2024-11-04&sv=1&se={0}&sr=b&sp=r&sig={0}",
    "CloudFront canned": "Expires=17{0}&Signature={0}~&Key-Pair-Id={0}",
    "CloudFront custom": "Policy={0}__&Signature={0}~&Key-Pair-Id={0}",
}
SECRET = "s3cr3t"


@pytest.mark.parametrize("query", SIGNED.values(), ids=SIGNED)
def test_a_new_signature_is_no_other_object(query: str) -> None:
    """A presigned URL that was signed again resumes: its identity is that of the URL without signature."""
    assert unsigned_url(f"{OBJECT}?{query.format('one')}") == unsigned_url(f"{OBJECT}?{query.format('two')}") == OBJECT


@pytest.mark.parametrize("query", SIGNED.values(), ids=SIGNED)
def test_what_names_content_stays_part_of_a_signed_identity(query: str) -> None:
    """Parameters that are not the signature's tell one object from another, wherever they stand."""
    first = unsigned_url(f"{OBJECT}?key=a&{query.format('x')}&versionId=1")
    assert first == f"{OBJECT}?key=a&versionId=1"
    assert first != unsigned_url(f"{OBJECT}?key=b&{query.format('x')}&versionId=1")


@pytest.mark.parametrize("query", SIGNED.values(), ids=SIGNED)
def test_no_secret_of_a_signature_is_shown_or_kept(query: str) -> None:
    """Neither what people see nor what files keep holds a value of a signed query."""
    url = f"https://user:{SECRET}@bucket.host/path/object?{query.format(SECRET)}#{SECRET}"
    assert SECRET not in redacted_url(url)
    assert SECRET not in unsigned_url(url)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("?key=a", "?key=b"),
        ("?id=1&se=a", "?id=1&se=b"),
        ("?Expires=1", "?Expires=2"),
        ("?x-amz-meta=1", "?x-amz-meta=2"),
        ("?x-oss-process=a&x-oss-signature=s", "?x-oss-process=b&x-oss-signature=s"),
        ("", "?key"),
        ("/a", "/A"),
        ("/a%2Fb", "/a/b"),
    ],
)
def test_other_content_is_another_object(one: str, other: str) -> None:
    """Without a signature every parameter counts; with one, those that name content."""
    assert unsigned_url(OBJECT + one) != unsigned_url(OBJECT + other)


def test_spelling_of_scheme_and_host_is_no_other_object() -> None:
    """Case of scheme and host, userinfo and fragment do not name content."""
    assert unsigned_url("HTTPS://user:password@BUCKET.host/path/object#part") == OBJECT


@pytest.mark.parametrize("name", ["Signature", "SIGNATURE", "%53ignature", "X-AMZ-SIGNATURE", "x%2Doss-signature"])
def test_a_signature_is_recognised_in_any_spelling(name: str) -> None:
    """Case and percent-encoding of the name do not hide it."""
    assert unsigned_url(f"{OBJECT}?{name}={SECRET}") == OBJECT


@pytest.mark.parametrize(
    "url",
    [
        f"https://user:{SECRET}@host/object",
        f"https://{SECRET}@host/object",
        f"https://user:a@{SECRET}@host/object",
        f"https://host/object?token={SECRET}&a=b",
        f"https://host/object?token={SECRET};more={SECRET}",
        f"https://host/object?a={SECRET}=x",
        f"https://host/object?{SECRET}",
        f"https://host/object?a=b&{SECRET}",
        f"https://host/object#{SECRET}",
        f"oss://user:{SECRET}@bucket/key",
        f"//user:{SECRET}@host/object",
        f"https://user:{SECRET}@ex\u2100mple.com/object",
        f"https://user:{SECRET}@[::1/object",
    ],
)
def test_no_secret_of_a_url_is_shown(url: str) -> None:
    """Userinfo, fragment and everything in the query but the names are taken out."""
    assert SECRET not in redacted_url(url)


@pytest.mark.parametrize(
    "url",
    [
        f"user:{SECRET}@host/object",
        f"user:{SECRET}@host:3128",
        f"https://user:{SECRET}/x@host/object",
        f"https://user:x/{SECRET}@host/object",
        f"https://user:{SECRET}#x@host/object",
        f"https://user:{SECRET}?x@host/object",
        f"https://user:x?{SECRET}@host/object",
    ],
)
def test_no_secret_of_a_mistyped_url_is_shown(url: str) -> None:
    """A password with a character that should have been encoded, or a forgotten scheme, is still a password."""
    assert SECRET not in redacted_url(url)


def test_what_is_no_secret_is_shown() -> None:
    """People recognise their URL: scheme, host, port, path and the names of parameters stay."""
    shown = redacted_url("https://user:password@host:8443/a%20b/c@d?versionId=1&token=2")
    assert shown == "https://host:8443/a%20b/c@d?versionId=***&token=***"


@pytest.mark.parametrize("char", ["\n", "\r", "\0", "\x1b", "\x7f", "\u202e", "\u2028", "\ud800", "\x9b"])
def test_foreign_text_is_one_printable_line(char: str) -> None:
    """No server or URL moves the cursor, forges a line of a log or turns the writing direction."""
    for text in (printable(f"a{char}b"), redacted_url(f"https://host/a{char}b")):
        assert text.isprintable()
        assert char not in text


def test_foreign_text_is_bounded() -> None:
    """An endless header is quoted by its head."""
    assert printable("x" * 10**6, 60) == "x" * 60 + "…"
    assert len(printable("\n" * 10**6, 60)) == 61
    assert printable("x" * 60, 60) == "x" * 60
