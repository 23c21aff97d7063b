"""Any bytes, from a server, a disk or an environment, are an error of ours or are understood."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS

# What the parsers look for: without these random bytes would not get past the first comparison.
WORDS = (
    *(b"bytes ", b"bytes=", b"0-9/20", b"5-9/20", b"*/", b"/*", b"-", b"18446744073709551616", b"9" * 19),
    *(b"Wed, 21 Oct 2015 07:28:00 GMT", b"Fri, 31 Dec 9999 23:59:59 -9999", b"120", b"-5", b"1e9", b"\xb2"),
    *(b"<Error>", b"<Code>", b"</Code>", b"RequestTimeTooSkewed", b"InvalidObjectState", b"<Message>", b"</Message>"),
    *(b"<Region>", b"</Region>", b"&#x110000;", b"&#0;", b"&#xD800;", b"&lt;", b"AccessDenied", b"<EC>", b"</EC>"),
    *(b"[default]", b"[profile ", b"]", b"accessKeyId=", b"mode = AK", b"\n", b"\r\n", b"#", b";", b"\xef\xbb\xbf"),
    *(b"SHA256 (object) = ", b"a" * 64, b"  object", b" *object", b"\\", b"md5", b") = ", b"(", b")", b"%s"),
    *(b"sha-256=:", b":", b"crc32c=", b"md5=", b"AAAAAA==", b"=" * 5, b",", b'"', b"-7", b"COMPOSITE", b"FULL_OBJECT"),
    *(b"http://", b"https://", b"//", b"host", b"@", b"user:pw@", b":81", b":99999", b"[::1]", b"[", b"%2e%2e%2f"),
    *(b"../", b"?x-oss-signature=", b"&", b"file:///", b"\xc2\xb5", b"\xef\xbc\x8e", b"xn--", b"javascript:", b"\t"),
    *(b"8M", b"1.5K", b"GiB", b"sha256=", b"crc64=", b"0" * 16, b'{"AccessKeyId":', b'"Expiration":', b"[" * 50, b"}"),
    *(b"\r\n--bnd\r\nContent-Range: bytes 0-4/20\r\n\r\n01234", b"--bnd--", b"Content-Range: ", b"\r\n\r\n", b"0-0/1"),
    *(
        b"\r\n--bnd\r\nX: y\r\ncontent-range:bytes 5-5/*\r\n\r\n5\r\n--bnd--\r\n",
        b"multipart/byteranges; boundary=",
        b"5",
    ),
    *(b"{'descr': ", b"'<i2'", b"'|O'", b"'a2'", b"[('a', '<i2')]", b", 'fortran_order': ", b"True", b", 'shape': "),
    *(b"(2, 4)", b'{"', b'": ', b'{"dtype":"I16","shape":[2],"data_offsets":[0,4]}', b'"__metadata__":{}', b"NaN"),
    *(b"fastdlCP", b"\0" * 16, b"\xff" * 8),
)
DATA = st.lists(st.sampled_from(WORDS) | st.binary(max_size=8), max_size=12).map(b"".join) | st.binary(max_size=400)


def fuzz(name: str, examples: int) -> None:
    """Try so many inputs on a target; Hypothesis shrinks one that breaks a promise."""

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(DATA)
    @example(b"")
    def attempt(data: bytes) -> None:
        TARGETS[name](data)

    attempt()


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes_are_understood_or_an_error_of_ours(name: str) -> None:
    """Never another exception, never a value that cannot be."""
    fuzz(name, 60)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes_at_length(name: str) -> None:
    """The same, for as long as a night has."""
    fuzz(name, 5_000)
