"""What names an object in a signed URL."""

from __future__ import annotations

import pytest

from fastdl.redact import redacted_url
from fastdl.signatures import unsigned_url

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
    "OBS": "AccessKeyId={0}&Expires=17{0}&Signature={0}%3D&x-obs-security-token={0}",
    "COS": "q-sign-algorithm=sha1&q-ak={0}&q-sign-time=17{0}%3B18{0}&q-key-time=17{0}%3B18{0}&q-header-list=host"
    "&q-url-param-list=&q-signature={0}&x-cos-security-token={0}",
    "Azure account": "sv=2024-11-04&ss=b&srt=o&sp=r&se={0}&st={0}&spr=https&sig={0}%3D",
    "Azure policy": "sv=2024-11-04&si={0}&sr=c&sig={0}%3D",
    "CDN": "auth_key=17{0}-0-0-{0}",
    "B2": "Authorization=4_{0}",
    "Akamai": "hdnea=st=17{0}~exp=18{0}~acl=/*~hmac={0}",
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
        ("?auth_key=s&se=a", "?auth_key=s&se=b"),
        ("?sig=s&Expires=1", "?sig=s&Expires=2"),
        ("?Signature=s&sr=a", "?Signature=s&sr=b"),
        ("?q-signature=s&policy=a", "?q-signature=s&policy=b"),
        ("?q-ak=a", "?q-ak=b"),
        ("", "?key"),
        ("/a", "/A"),
        ("/a%2Fb", "/a/b"),
    ],
)
def test_other_content_is_another_object(one: str, other: str) -> None:
    """Without a signature every parameter counts; with one, those that are not its own."""
    assert unsigned_url(OBJECT + one) != unsigned_url(OBJECT + other)


def test_spelling_of_scheme_and_host_is_no_other_object() -> None:
    """Case of scheme and host, userinfo and fragment do not name content."""
    assert unsigned_url("HTTPS://user:password@BUCKET.host/path/object#part") == OBJECT


@pytest.mark.parametrize("name", ["Signature", "SIGNATURE", "%53ignature", "X-AMZ-SIGNATURE", "x%2Doss-signature"])
def test_a_signature_is_recognised_in_any_spelling(name: str) -> None:
    """Case and percent-encoding of the name do not hide it."""
    assert unsigned_url(f"{OBJECT}?{name}={SECRET}") == OBJECT
