"""A source turns a URL into requests and answers into facts."""

from __future__ import annotations

import base64
import sys
from email.utils import formatdate

import pytest
from urllib3 import HTTPHeaderDict

from fastdl.errors import (
    AccessDenied,
    Archived,
    FastdlError,
    NotFound,
    ObjectChanged,
    ProtocolError,
    Refused,
    ServerBusy,
)
from fastdl.errors import UsageError as Usage
from fastdl.messages import Request
from fastdl.sources import resolve
from fastdl.sources.base import check_headers
from fastdl.sources.http import HttpSource
from fastdl.validator import ObjectInfo, Validator
from tests.unit.asking import client

URL = "https://host/a/b"
RESERVED = (
    *("Range", "If-Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "Host"),
    *("Accept-Encoding", "Connection", "Content-Length", "Transfer-Encoding", "TE", "Upgrade", "Expect"),
)


def refused(status: int, excerpt: bytes = b"", **headers: str) -> Refused:
    """Make an answer without data."""
    return Refused("x", status, {name.replace("_", "-"): value for name, value in headers.items()}, excerpt)


@pytest.mark.parametrize("url", ["http://host/x", "HTTPS://host/x", "http://[::1]:8080/x"])
def test_web_urls_have_a_source(url: str) -> None:
    """In any case of the scheme, by any kind of host."""
    assert isinstance(resolve(url), HttpSource)


@pytest.mark.parametrize("url", ["", "x", "ftp://host/x", "file:///etc/passwd", "s4://b/k", "//host/x", "host/x"])
def test_other_urls_have_none(url: str) -> None:
    """Nothing is guessed, no local file is read."""
    with pytest.raises(Usage, match="only http://, https://, oss://, s3:// and hf:// URLs are known"):
        resolve(url)


@pytest.mark.parametrize(
    "url",
    [
        *("http://", "http:///x", "https://:80/x", "http://host:x/", "http://host:99999/", "http://[::1/x"),
        *("http://ho\nst/x", "http://host/x\r\nX: y", "http://host/\0", "http://host/x\x7f"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused(url: str) -> None:
    """One line, before anything is sent."""
    with pytest.raises(Usage) as caught:
        resolve(url)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "url",
    [
        "https://user:s3cr3t@ex\u2100mple.com/x",
        "https://user:s3cr3t/x@host/",
        "https://user:s3cr3t#@host/",
        "user:s3cr3t@host/x",
        "ftp://user:s3cr3t@host/x",
        "https://host:80s3cr3t@x:y/",
    ],
)
def test_a_refused_url_keeps_its_password(url: str) -> None:
    """The text of the error holds no piece of it, nor does what the parser said."""
    with pytest.raises(Usage) as caught:
        resolve(url)
    assert "s3cr3t" not in str(caught.value)


def test_a_url_is_asked_for_as_it_is() -> None:
    """A signature covers what we cannot see: nothing is added, decoded, sorted or normalised."""
    url = "https://host/a//b/../%7Ec%2fd+e?b=2&a=%2B&&c"
    assert HttpSource(url).request(None) == Request(url, ())


def test_conditions_are_judged_and_not_sent() -> None:
    """An If-Match that a web server misreads would break what works."""
    info = ObjectInfo(5, Validator('"a"'))
    assert HttpSource(URL).request(info) == HttpSource(URL).request(None)


def test_userinfo_becomes_a_header() -> None:
    """It is decoded, and leaves the URL, its identity and what people see."""
    source = HttpSource("https://us%40er:p%3Aw@host/x?a=1#f")
    login = base64.b64encode(b"us@er:p:w").decode()
    assert source.request(None) == Request("https://host/x?a=1", (("Authorization", f"Basic {login}"),))
    assert (source.identity, source.shown) == ("https://host/x?a=1", "https://host/x?a=***")


def test_an_authorization_of_the_users_own_comes_first() -> None:
    """Whoever gives both a header and userinfo means the header."""
    source = HttpSource("https://user:pw@host/x", (("authorization", "Bearer t"),))
    assert source.request(None).headers == (("authorization", "Bearer t"),)


def test_a_request_shows_no_secret() -> None:
    """In no traceback and no log."""
    source = HttpSource("https://user:s3cr3t@host/x?Signature=s3cr3t", (("Cookie", "s3cr3t"),))
    assert "s3cr3t" not in repr(source.request(None)) + repr(source)


def test_a_redirect_is_remembered_until_it_fails() -> None:
    """Later requests go to its target at once, and back to the user's URL after a refusal; once is enough."""
    source = HttpSource(URL)
    first, moved = source.request(None), Request("https://other/x")
    assert not source.renew()
    source.pin(moved)
    assert source.request(None) == moved
    assert source.renew()
    assert source.request(None) == first
    assert not source.renew()


@pytest.mark.parametrize("name", RESERVED)
def test_reserved_headers_are_refused(name: str) -> None:
    """In any case: a user's value would break the range contract or the framing."""
    for spelling in (name, name.lower(), name.upper()):
        with pytest.raises(Usage, match="is fastdl's own and cannot be set"):
            check_headers(((spelling, "x"),))


@pytest.mark.parametrize("name", ["", " ", "a b", "a:b", "a\r\nb", "a\0", "\xe4", "a(b)", "Range ", "\u212aey"])
def test_a_name_that_is_no_token_is_refused(name: str) -> None:
    """No name smuggles a second header."""
    with pytest.raises(Usage):
        check_headers(((name, "x"),))


@pytest.mark.parametrize("value", ["a\r\nHost: x", "a\nb", "a\0b", "a\x7f", "a\x1b", "\u65e5", "\ud800"])
def test_a_value_that_cannot_be_sent_is_refused(value: str) -> None:
    """Neither a control character nor one that latin-1 lacks; and the value, maybe a secret, is not told."""
    with pytest.raises(Usage) as caught:
        check_headers((("Authorization", f"Bearer s3cr3t{value}"),))
    assert "s3cr3t" not in str(caught.value)


def test_ordinary_headers_are_accepted() -> None:
    """Tokens, tabs, latin-1."""
    check_headers((("X-Custom_1", 'a\tb; c="d"'), ("Cookie", "k\xe4=1"), ("Authorization", "Bearer x.y-z")))


@pytest.mark.parametrize(
    ("value", "crc"),
    [("0", 0), ("18446744073709551615", 2**64 - 1), (" 5 ", 5)],
)
def test_the_stores_crc_is_read(value: str, crc: int) -> None:
    """On presigned URLs and behind CDNs too."""
    info = HttpSource(URL).describe(HTTPHeaderDict({"x-oss-hash-crc64ecma": value, "ETag": '"a"'}), 7)
    assert info == ObjectInfo(7, Validator('"a"'), crc)


@pytest.mark.parametrize("value", ["", "-1", "18446744073709551616", "0x10", "1, 1", "\u0665", "9" * 400, "junk"])
def test_a_crc_that_is_none_promises_nothing(value: str) -> None:
    """Better no check than a wrong one."""
    assert HttpSource(URL).describe(HTTPHeaderDict({"x-oss-hash-crc64ecma": value}), 7).crc64 is None


def test_a_symlinks_digests_promise_nothing() -> None:
    """They may be the link's own, which is what Content-MD5 of a link would be."""
    head = {"x-oss-hash-crc64ecma": "5", "Content-MD5": "1B2M2Y8AsgTpgAmY7PhCfg==", "ETag": '"a"'}
    for kind, crc in (("Symlink", None), ("Normal", 5)):
        info = HttpSource(URL).describe(HTTPHeaderDict(head | {"x-oss-object-type": kind}), 7)
        assert (info.crc64, bool(info.promises), info.validator.etag) == (crc, crc is not None, '"a"')


def test_a_processed_object_has_another_crc() -> None:
    """What x-oss-process makes is not what the CRC covers."""
    source = HttpSource(f"{URL}?x-oss-process=image/resize,w_10")
    assert source.describe(HTTPHeaderDict({"x-oss-hash-crc64ecma": "5"}), 7).crc64 is None


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, NotFound) for status in (404, 410)),
        *((status, AccessDenied) for status in (401, 403, 407)),
        (412, ObjectChanged),
        *((status, ServerBusy) for status in (408, 429, 500, 502, 503, 504)),
        *((status, ProtocolError) for status in (204, 205, 226, 304, 400, 405, 416, 418, 501, 505, 999)),
    ],
)
def test_a_status_has_one_meaning(status: int, kind: type[FastdlError]) -> None:
    """The text names what, where, and the status, without the query."""
    error = HttpSource(f"{URL}?token=s3cr3t").explain(refused(status))
    assert type(error) is kind
    assert str(error).startswith(f"https://host/a/b?token=***: status {status}")


@pytest.mark.parametrize(("value", "wish"), [("7", 7.0), ("", None), ("junk", None), (formatdate(0, usegmt=True), 0.0)])
def test_a_busy_servers_wish_is_kept(value: str, wish: float | None) -> None:
    """Retry-After reaches the schedule."""
    error = HttpSource(URL).explain(refused(503, retry_after=value))
    assert isinstance(error, ServerBusy)
    assert (error.status, error.retry_after) == (503, wish)


@pytest.mark.parametrize("settings", [{"restore": True}, {"traffic_limit": 819_200}, {"traffic_limit": 0}])
@pytest.mark.parametrize("url", [URL, "s3://bucket/key"])
def test_what_only_oss_does_is_refused_elsewhere(url: str, settings: dict[str, bool | int]) -> None:
    """Ignored, it would let an object be billed or a line be filled."""
    with pytest.raises(Usage, match="only OSS restores objects and limits traffic"):
        resolve(url, **settings)  # type: ignore[arg-type]


def test_an_archived_object_behind_a_url_stays_archived() -> None:
    """Whoever signed it signed a GET; and no refusal teaches anything."""
    source, archived = HttpSource(URL), Archived("x: archived")
    slept: list[float] = []
    with client() as transport, pytest.raises(Archived) as caught:
        source.thaw(archived, transport, slept.append)
    assert (caught.value, slept) == (archived, [])
    assert not source.adapt(refused(400, b"<Error><Code>RequestTimeTooSkewed</Code></Error>"))


@pytest.mark.parametrize(
    ("module", "missing", "url", "text"),
    [
        ("oss", "alibabacloud_oss_v2.signer", "oss://bucket/key", "pip install alibabacloud-oss-v2"),
        ("s3_session", "botocore", "s3://bucket/key", "pip install botocore"),
    ],
)
def test_a_store_without_its_library_says_what_to_install(
    module: str, missing: str, url: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line and no traceback; everything else works without."""
    for name in ("oss", "s3", module):
        monkeypatch.delitem(sys.modules, f"fastdl.sources.{name}", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(Usage, match=text):
        resolve(url)
