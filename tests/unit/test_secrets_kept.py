"""What was sent as a secret is taken out of whatever is shown afterwards, wherever a server writes it."""

from __future__ import annotations

import base64
import html
import json
import logging
import pickle
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from fastdl import redact
from fastdl.messages import Request
from fastdl.redact import keep_secrets, printable, redacted_url, without_secrets
from tests.servers.scripted import ranged, serving
from tests.unit.asking import client

if TYPE_CHECKING:
    from collections.abc import Callable

SIGNED = "OSS4-HMAC-SHA256 Credential=LTAIabcdef/20261126/cn-hangzhou/oss/aliyun_v4_request, Signature=5ec4e7"
AMAZON = (
    "AWS4-HMAC-SHA256 Credential=AKIAabcdef/20261126/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=5ec4e7"
)
LOGIN = base64.b64encode(b"someone:p@ssword").decode()


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
    redact._passing.clear()
    pickle.loads(pickle.dumps(request))
    assert not redact._passing.texts


def test_who_sends_a_request_keeps_its_secrets() -> None:
    """A worker gets requests out of a pipe, which keeps nothing; what it sends a server may send back."""
    request = Request("http://host/x?token=t0p-s3cr3t", (("X-Api-Key", "an0ther-s3cr3t"),))
    with serving(ranged(b"object")) as server, client() as transport:
        request = replace(request, url=f"{server.url()}?token=t0p-s3cr3t")
        redact._passing.clear()
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
    assert len(redact._passing.texts) <= redact._passing.most
    assert without_secrets("signature 9999 by the same always") == "*** by ***"


FORMS: dict[str, Callable[[str], str]] = {
    "as it is": lambda secret: secret,
    "quoted": lambda secret: f'"{secret}"',
    "JSON": lambda secret: json.dumps({"token": secret}),
    "JSON, slashes escaped": lambda secret: json.dumps({"token": secret}, ensure_ascii=False).replace("/", "\\/"),
    "HTML": html.escape,
    "in a URL": lambda secret: quote(secret, safe=""),
    "in a path": quote,
    "by a browser": lambda secret: quote(secret, safe="!~*'()"),
    "in a URL, of latin-1": lambda secret: quote(secret, safe="", encoding="latin-1"),
    "in a URL in a URL": lambda secret: quote(quote(secret)),
    "in a URL in JSON in HTML": lambda secret: html.escape(json.dumps([quote(secret)])),
    "JSON in JSON": lambda secret: json.dumps(json.dumps(secret)),
    "HTML, by numbers": lambda secret: "".join(f"&#{ord(char)};" for char in secret),
    "Python": lambda secret: repr(secret.encode()),
    "in a form": quote_plus,
    "in a query": lambda secret: f"?a={quote_plus(secret)}&b=c",
    "capitals": str.upper,
    "latin-1": lambda secret: secret.encode().decode("latin-1"),
}
WAYS: dict[str, Callable[[str], dict[str, Any]]] = {
    "header": lambda secret: {"headers": (("X-Api-Key", secret),)},
    "cookie": lambda secret: {"headers": (("Cookie", f"a=12345678; b={secret}; c=87654321"),)},
    "one of several words": lambda secret: {"headers": (("X-Keys", f"{secret}, another-one"),)},
    "bearer": lambda secret: {"headers": (("Authorization", f"Bearer {secret}"),)},
    "bare": lambda secret: {"headers": (("Authorization", secret),)},
    "quoted": lambda secret: {"headers": (("Authorization", f'Digest response="{secret}", qop=auth'),)},
    "query": lambda secret: {"url": f"https://host/x?token={quote(secret, safe='')}"},
    "form": lambda secret: {"url": f"https://host/x?token={quote_plus(secret)}"},
    "password": lambda secret: {"url": f"https://user:{quote(secret, safe='')}@host/x"},
    "user": lambda secret: {"url": f"https://{quote(secret, safe='')}@host/x"},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(secret=st.text("abcXYZ0189-_.~/+&<%\\'\"!éü", min_size=8, max_size=40))
def test_no_way_in_and_no_form_of_quoting_shows_a_secret(way: str, form: str, secret: str) -> None:
    """What the user told is taken out of whatever a server says, in whatever spelling."""
    told = secret.rstrip("%")  # no encoded octet is left half
    assume(len(told) >= 8)
    keep_secrets(**WAYS[way](told), given=True)
    quoted = FORMS[form](told)
    shown = without_secrets(f"they said: {quoted}; and left")
    redact._given.clear()
    assert quoted not in shown
    assert (shown.startswith("they said: "), shown.endswith("; and left")) == (True, True)


def test_numbers_as_json_has_them() -> None:
    """Without quotes, and without zeros before them."""
    keep_secrets(headers=(("X-Pin", "0012345678"),), given=True)
    assert without_secrets('{"pin": 12345678, "size": 1234567}') == '{"pin": ***, "size": 1234567}'


def test_only_what_is_quoted_is_taken_out() -> None:
    """Text around a secret stays as it was, in its own quoting; letters that become two when folded shift nothing."""
    keep_secrets("t0p/s3cr3t", given=True)
    assert without_secrets("a%20b=t0p%2Fs3cr3t&amp;c\\n\u0130\u00df") == "a%20b=***&amp;c\\n\u0130\u00df"
    assert without_secrets("\u0130\u00df t0p\\/s3cr3t%0A\u0130") == "\u0130\u00df ***%0A\u0130"


def test_what_a_job_is_given_is_bounded_too() -> None:
    """A million signed URLs do not fill its memory; what is sent is noted again."""
    for number in range(20_000):
        keep_secrets(f"the signature {number}", given=True)
    assert len(redact._given.texts) <= redact._given.most
    assert without_secrets("the signature 19999") == "***"


def test_many_cookies_are_many_secrets() -> None:
    """None of them is left out."""
    cookies = [f"name{number}=secret-{number:04}" for number in range(500)]
    keep_secrets(headers=(("Cookie", "; ".join(cookies)),), given=True)
    assert without_secrets(" ".join(cookies)).count("***") == 500


def test_what_servers_send_pushes_nothing_of_the_users_out() -> None:
    """However many words their redirects have; and memory stays bounded."""
    keep_secrets(headers=(("X-Api-Key", "t0p-s3cr3t"),), given=True)
    for number in range(60):
        words = "&".join(f"w{at}={number:05}{at:05}" + "x" * 40 for at in range(150))
        keep_secrets(url=f"https://host/x?{words}")
    assert without_secrets("t0p-s3cr3t") == "***"
    assert sum(map(len, redact._passing.texts)) <= redact._passing.most_letters


@pytest.mark.parametrize("name", ["urllib3.connectionpool", "urllib3.connection"])
def test_logs_of_urllib3_do_not_tell(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """At DEBUG it tells every target with its signature, and headers that it cannot read with their URL."""
    keep_secrets(url="https://host/x?X-Amz-Signature=5ec4e75ec4e7", given=True)
    with client(), caplog.at_level(logging.DEBUG, name):
        logger = logging.getLogger(name)
        logger.debug('%s://%s "%s %s"', "https", "host", "GET", "/x?X-Amz-Signature=5ec4e75ec4e7")
        try:
            raise ValueError("no headers") from OSError("/x?X-Amz-Signature=5ec4e75ec4e7")
        except ValueError:
            logger.warning("Failed to parse headers", exc_info=True)
        logger.debug("harmless %d", 5)
    assert "5ec4e75ec4e7" not in caplog.text
    assert "X-Amz-Signature=***" in caplog.text
    assert "harmless 5" in caplog.text
