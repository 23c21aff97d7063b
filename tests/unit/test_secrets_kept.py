"""What was sent as a secret is taken out of whatever is shown afterwards, wherever a server writes it."""

from __future__ import annotations

import base64
import pickle
from dataclasses import replace
from urllib.parse import quote

import pytest

from fastdl import redact
from fastdl.messages import Request
from fastdl.redact import keep_secrets, printable, redacted_url, without_secrets
from tests.servers.scripted import ranged, serving
from tests.unit.asking import client

SIGNED = "OSS4-HMAC-SHA256 Credential=LTAIabcdef/20261126/cn-hangzhou/oss/aliyun_v4_request, Signature=5ec4e7"
AMAZON = (
    "AWS4-HMAC-SHA256 Credential=AKIAabcdef/20261126/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=5ec4e7"
)
LOGIN = base64.b64encode(b"someone:p@ssword").decode()


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin without the secrets of other tests."""
    monkeypatch.setattr(redact, "_known", {})


@pytest.mark.parametrize(
    ("header", "secret"),
    [
        (("Authorization", "Bearer t0p-s3cr3t"), "t0p-s3cr3t"),
        (("authorization", f"Basic {LOGIN}"), LOGIN),
        (("authorization", f"Basic {LOGIN}"), "p@ssword"),
        (("authorization", f"Basic {LOGIN}"), quote("p@ssword")),
        (("Authorization", SIGNED), "5ec4e7"),
        (("Authorization", SIGNED), "LTAIabcdef"),
        (("Authorization", AMAZON), "5ec4e7"),
        (("Authorization", AMAZON), "AKIAabcdef"),
        (("Authorization", "OSS LTAIabcdef:c2lnbmVk"), "c2lnbmVk"),
        (("Cookie", "a=1; session=t0p-s3cr3t"), "t0p-s3cr3t"),
        (("X-Api-Key", "t0p-s3cr3t"), "t0p-s3cr3t"),
        (("X-Api-Key", "two w0rds-of-it"), "w0rds-of-it"),
        (("x-oss-security-token", "CAIS/+token=="), "CAIS/+token=="),
        (("x-oss-security-token", "CAIS/+token=="), quote("CAIS/+token==", safe="")),
    ],
)
def test_secrets_of_headers(header: tuple[str, str], secret: str) -> None:
    """Whole, as one word, as the part of a login or a signature that is secret, in every spelling."""
    Request("http://host/object", (header,))
    assert printable(f"you sent {secret}!") == "you sent ***!"


@pytest.mark.parametrize(
    ("url", "secret"),
    [
        ("https://host/x?token=t0p-s3cr3t", "t0p-s3cr3t"),
        ("https://host/x?t0p-s3cr3t", "t0p-s3cr3t"),
        ("https://host/x?a=b&X-Amz-Signature=5ec4e7", "5ec4e7"),
        ("https://host/x?X-Amz-Credential=AKIAabcdef%2F20261126%2Fus-east-1", "AKIAabcdef"),
        ("https://host/x?sig=ab%2Bcdef%3D", "ab+cdef="),
        ("https://host/x?sig=ab%2Bcdef%3D", "ab%2Bcdef%3D"),
        ("https://someone:p%40ssword@host/x", "p@ssword"),
        ("https://t0p-s3cr3t@host/x", "t0p-s3cr3t"),
    ],
)
def test_secrets_of_urls(url: str, secret: str) -> None:
    """Userinfo and the values of a query, encoded or decoded."""
    keep_secrets(url=url)
    assert printable(f"no {secret} is known") == "no *** is known"
    assert secret not in redacted_url(f"https://elsewhere/{secret}/y")


def test_words_that_errors_need_stay() -> None:
    """Conditions, schemes, dates and versions are no secrets; what has five letters cannot be told from any word."""
    headers = (
        ("Range", "bytes=0-1048575"),
        ("If-Match", '"0123456789"'),
        ("Authorization", AMAZON),
        ("X-Pin", "12345"),
    )
    Request("https://host/object?versionId=0123456789&X-Amz-Algorithm=AWS4-HMAC-SHA256", headers)
    for text in ('ETag was "0123456789"', "use AWS4-HMAC-SHA256", "bytes=0-1048575 of https://host/object", "12345"):
        assert printable(text) == text


def test_a_secret_is_recognised_in_other_letters() -> None:
    """Names of hosts and codings are shown in lower case."""
    keep_secrets("T0P-S3CR3T%2f")
    assert without_secrets("t0p-s3cr3t/ T0p-S3cr3t%2F") == "*** ***"


def test_what_is_short_once_decoded_is_no_secret() -> None:
    """Two spaces stand between any two sentences."""
    keep_secrets("%20%20")
    assert without_secrets("one.  Two, %20%20") == "one.  Two, ***"


def test_a_longer_secret_hides_the_shorter_one_inside() -> None:
    """Nothing of it is left beside the stars."""
    keep_secrets("secret", "my-secret-is-long")
    assert without_secrets("my-secret-is-long secret") == "*** ***"


def test_a_cut_leaves_no_beginning_of_a_secret() -> None:
    """A text is cut after the secrets are out."""
    keep_secrets("t0p-s3cr3t" * 20)
    assert printable("x" * 50 + "t0p-s3cr3t" * 20, 60) == "x" * 50 + "***"


def test_a_worker_notes_what_it_sends() -> None:
    """A request that came through a pipe was made elsewhere: it is noted when it is sent, see Transport."""
    request = pickle.loads(pickle.dumps(Request("http://host/x?token=t0p-s3cr3t")))
    redact._known.clear()
    pickle.loads(pickle.dumps(request))
    assert not redact._known


def test_who_sends_a_request_keeps_its_secrets() -> None:
    """A worker gets requests out of a pipe, which keeps nothing; what it sends a server may send back."""
    request = Request("http://host/x?token=t0p-s3cr3t", (("X-Api-Key", "an0ther-s3cr3t"),))
    with serving(ranged(b"object")) as server, client() as transport:
        request = replace(request, url=f"{server.url()}?token=t0p-s3cr3t")
        redact._known.clear()
        transport.open(request).finish()
    assert printable("t0p-s3cr3t an0ther-s3cr3t") == "*** ***"


def test_the_login_of_a_proxy_is_a_secret() -> None:
    """In the spelling of its URL, decoded, and as the header that carries it."""
    with client(proxy="http://someone:p%40ssword@host:1"):
        assert printable(f"p%40ssword p@ssword {LOGIN}") == "*** *** ***"


def test_memory_is_bounded_and_the_latest_are_kept() -> None:
    """A download of a terabyte signs a hundred thousand requests."""
    for number in range(10_000):
        keep_secrets(f"signature {number}", "the same always")
    assert len(redact._known) <= 3 * redact._MOST
    assert without_secrets("signature 9999 by the same always") == "*** by ***"
