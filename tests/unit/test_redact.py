"""Secrets never survive, and one object has one identity."""

from __future__ import annotations

import pytest

from fastdl.redact import printable, redacted_url

SECRET = "s3cr3t"


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
