"""The range contract: which answers may enter the output."""

from __future__ import annotations

import pytest
from urllib3 import HTTPHeaderDict

from fastdl.contract import (
    ContentRange,
    check_partial,
    check_uncoded,
    check_validator,
    check_whole,
    content_length,
    is_partial,
    parse_content_range,
    range_header,
    unsatisfied_size,
)
from fastdl.errors import ObjectChanged, ProtocolError, RangeMismatch
from fastdl.validator import Validator

URL = "https://user:secret@host/object?Signature=secret"
RIGHT = "bytes 4-7/16"


def check(status: int = 206, size: int | None = 16, **headers: str) -> ContentRange:
    """Judge an answer to a request for the bytes [4, 8)."""
    named = HTTPHeaderDict({name.replace("_", "-"): value for name, value in headers.items()})
    return check_partial(status, named, URL, 4, 8, size)


def test_the_header_alone_is_inclusive() -> None:
    """Half-open bytes become first and last."""
    assert range_header(4, 8) == ("Range", "bytes=4-7")


@pytest.mark.parametrize("size", [16, None])
def test_the_very_range_is_accepted(size: int | None) -> None:
    """Whether or not the size was known before."""
    assert check(size=size, Content_Range=RIGHT, Content_Length="4") == ContentRange(4, 8, 16)


@pytest.mark.parametrize(
    ("value", "got"),
    [
        ("bytes 4-6/16", ContentRange(4, 7, 16)),
        ("bytes 4-4/16", ContentRange(4, 5, 16)),
        ("bytes 4-7/*", ContentRange(4, 8, None)),
        ("Bytes 4-7/16", ContentRange(4, 8, 16)),
        (" bytes 4-7/16 ", ContentRange(4, 8, 16)),
    ],
)
def test_legal_variants_are_accepted(value: str, got: ContentRange) -> None:
    """A shorter range, an unknown total and another case of the unit are allowed by RFC 9110."""
    assert check(Content_Range=value) == got


@pytest.mark.parametrize(
    "value",
    [
        *("", "bytes", "bytes 4-7", "bytes=4-7/16", "4-7/16", "items 4-7/16", "bytes 4-7/16, bytes 4-7/16"),
        *("bytes 0-3/16", "bytes 3-7/16", "bytes 5-7/16", "bytes 4-8/16", "bytes 0-15/16", "bytes 8-11/16"),
        *("bytes 7-4/16", "bytes 4-3/16", "bytes -4-7/16", "bytes +4-7/16", "bytes 4--7/16", "bytes 4-7/-16"),
        *("bytes 4-7/7", "bytes 4-7/4", "bytes 4-7/0", "bytes */16", "bytes 4-7/", "bytes 4-/16", "bytes -7/16"),
        *("bytes 0x4-7/16", "bytes 4.0-7/16", "bytes 4-7/16;", "bytes 4-7/16 x", "bytes  4-7/16", "bytes 4 - 7 / 16"),
        *("bytes \u0664-7/16", "bytes 4-7/\u0661\u0666", "bytes 4-7/1_6", "bytes 4-7/16\n5", "bytes\t4-7/16"),
        *("bytes 00000000000000000004-7/16", "bytes 4-7/" + "9" * 20, "bytes 4-" + "9" * 400 + "/16", "*"),
    ],
)
def test_no_other_content_range_is_accepted(value: str) -> None:
    """Not one byte of another range, of junk or of two statements is used."""
    with pytest.raises((RangeMismatch, ObjectChanged)):
        check(Content_Range=value)


def test_a_206_without_content_range_is_refused() -> None:
    """Absence is not agreement."""
    with pytest.raises(RangeMismatch, match=r"status 206 with no Content-Range to a request for bytes 4-7"):
        check(Content_Length="4")


@pytest.mark.parametrize("size", [15, 17, 8, 2**63])
def test_another_total_means_another_object(size: int) -> None:
    """A total other than the known one is a replaced object, not a broken server."""
    with pytest.raises(ObjectChanged, match=rf"it had 16 bytes, has {size}"):
        check(Content_Range=f"bytes 4-7/{size}")


@pytest.mark.parametrize("length", ["3", "5", "16", "0"])
def test_a_body_of_another_length_is_refused(length: str) -> None:
    """Content-Length and Content-Range must tell the same story."""
    with pytest.raises(RangeMismatch, match=f"promised {length} bytes of body"):
        check(Content_Range=RIGHT, Content_Length=length)


@pytest.mark.parametrize("status", [200, 203, 204, 226, 304, 416, 500])
def test_no_other_status_carries_a_range(status: int) -> None:
    """A whole object never lands at a part's offset, whatever its Content-Range says."""
    with pytest.raises(RangeMismatch, match=f"status {status}"):
        check(status, Content_Range=RIGHT)


def test_a_200_with_range_and_length_is_a_206() -> None:
    """The one tolerance: both headers exact, as a known server answers."""
    assert check(200, Content_Range=RIGHT, Content_Length="4") == ContentRange(4, 8, 16)


WHOLE, CLIPPED, INNER = "bytes 0-15/16", "bytes 4-15/16", "bytes 4-6/16"
OTHER, UNKNOWN, SEVERAL = "bytes 0-3/16", "bytes 4-7/*", f"{RIGHT}, {RIGHT}"
RANGES = (None, WHOLE, RIGHT, CLIPPED, INNER, OTHER, UNKNOWN, SEVERAL, "bytes */16", "junk", "")
LENGTHS = (None, "chunked", "4", "3", "12", "16", "0")


def head_of(value: str | None, length: str | None) -> HTTPHeaderDict:
    """Make a head with this Content-Range and this length; None for neither."""
    headers = HTTPHeaderDict({} if value is None else {"Content-Range": value})
    if length == "chunked":
        headers["Transfer-Encoding"] = length
    elif length is not None:
        headers["Content-Length"] = length
    return headers


@pytest.mark.parametrize("stop", [8, 100])
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("value", RANGES)
def test_a_200_is_a_range_only_if_it_is_exactly_the_one_asked_for(
    value: str | None, length: str | None, stop: int
) -> None:
    """Of all heads with status 200 one says what 206 says: the bytes from 4 on up to the last one asked for."""
    right = (RIGHT, "4") if stop == 8 else (CLIPPED, "12")
    assert is_partial(200, head_of(value, length), 4, stop) is ((value, length) == right)
    assert is_partial(206, head_of(value, length), 4, stop)
    assert not any(is_partial(status, head_of(value, length), 4, stop) for status in (201, 203, 226, 304, 416))


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("value", RANGES)
def test_a_200_with_a_range_is_whole_only_if_it_is_the_whole(value: str | None, length: str | None) -> None:
    """A piece of the object under status 200 never passes for all of it; without Content-Range nothing is said."""
    if value is None or (value, length) == (WHOLE, "16"):
        check_whole(head_of(value, length), URL)
    else:
        with pytest.raises(RangeMismatch, match=r"answered status 200 with .*, which is not the whole object"):
            check_whole(head_of(value, length), URL)


@pytest.mark.parametrize("coding", ["gzip", "br", "identity, gzip", "x"])
def test_a_coded_body_is_refused(coding: str) -> None:
    """Coded bytes are not the object's."""
    with pytest.raises(ProtocolError, match="content coding"):
        check(Content_Range=RIGHT, Content_Encoding=coding)


@pytest.mark.parametrize("coding", ["identity", "", " Identity "])
def test_identity_is_no_coding(coding: str) -> None:
    """A server may name what it did not do."""
    check_uncoded(HTTPHeaderDict({"Content-Encoding": coding}), URL)


@pytest.mark.parametrize(("value", "length"), [("0", 0), ("16", 16), ("16, 16", 16), (" 16 ", 16), ("016", 16)])
def test_a_length_is_digits(value: str, length: int) -> None:
    """Equal duplicates are one length."""
    assert content_length(HTTPHeaderDict({"Content-Length": value})) == length


@pytest.mark.parametrize("value", ["", "-1", "+5", "0x10", "1e3", "5, 6", "5,", "\u0665", "5 5", "9" * 30, "five"])
def test_a_length_that_is_none_is_refused(value: str) -> None:
    """Neither guessed nor ignored: framing that cannot be read is a broken protocol."""
    with pytest.raises(ProtocolError, match="is no length"):
        content_length(HTTPHeaderDict({"Content-Length": value}))


@pytest.mark.parametrize("headers", [{}, {"Transfer-Encoding": "chunked", "Content-Length": "5"}])
def test_no_length_is_promised(headers: dict[str, str]) -> None:
    """A chunked body's length is not known, whatever else is said."""
    assert content_length(HTTPHeaderDict(headers)) is None


@pytest.mark.parametrize(
    ("value", "size"),
    [("bytes */16", 16), ("bytes */0", 0), ("bytes 0-3/16", None), ("bytes */*", None), ("*/16", None), ("", None)],
)
def test_a_416_may_name_the_size(value: str, size: int | None) -> None:
    """Only the unsatisfied form counts."""
    assert unsatisfied_size(HTTPHeaderDict({"Content-Range": value})) == size


def test_every_answer_must_show_the_first_ones_validator() -> None:
    """Another tag ends the download with the reason and what to do."""
    check_validator(HTTPHeaderDict({"ETag": '"a"'}), URL, Validator('"a"'))
    with pytest.raises(ObjectChanged, match=r'ETag was "a", is "b"; run again to restart'):
        check_validator(HTTPHeaderDict({"ETag": '"b"'}), URL, Validator('"a"'))


@pytest.mark.parametrize("value", ["bytes 0-3/16", "bytes 4-7/17", "junk\r\nX: y"])
def test_refusals_show_no_secret_and_one_line(value: str) -> None:
    """What the server wrote is quoted printably, the URL without its secrets."""
    with pytest.raises((RangeMismatch, ObjectChanged)) as caught:
        check(Content_Range=value)
    assert "secret" not in str(caught.value)
    assert str(caught.value).isprintable()


def test_an_unparsable_range_is_none() -> None:
    """Parsing judges the form alone; the caller judges the numbers."""
    assert parse_content_range("bytes 4-7") is None
