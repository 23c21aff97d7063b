"""The body of an answer to several ranges: what is exactly right is read, all else is an error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdl.contract import ContentRange
from fastdl.errors import FastdlError, ProtocolError, Truncated
from fastdl.multipart import MAX_HEAD, WINDOW, Multipart, boundary_of

HEAD = b"--b\r\nContent-Type: text/plain\r\nContent-Range: bytes %d-%d/1000000\r\n\r\n"
CONTENT = bytes(range(256)) * 2000


def body_of(spans: list[tuple[int, int]], end: bytes = b"\r\n--b--\r\n") -> bytes:
    """Write the parts ``(start, stop)`` of CONTENT."""
    return b"".join(b"\r\n" + HEAD % (start, stop - 1) + CONTENT[start:stop] for start, stop in spans) + end


def read_all(body: bytes, step: int = 10**9) -> list[tuple[ContentRange, bytes]]:
    """Read every part of ``body``, which arrives ``step`` bytes at a time."""
    rest = memoryview(body)

    def read(view: memoryview) -> int:
        nonlocal rest
        count = min(step, len(view), len(rest))
        view[:count], rest = rest[:count], rest[count:]
        return count

    found, parts = [], Multipart(b"b", read)
    while (got := parts.part()) is not None:
        view = memoryview(bytearray(got.stop - got.start))
        parts.readinto(view)
        found.append((got, bytes(view)))
    return found


SPANS = st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 400)), min_size=1, max_size=20)


@given(SPANS, st.sampled_from((1, 2, 3, 17, 100, 10**9)))
def test_parts_come_as_they_stand_there(spans: list[tuple[int, int]], step: int) -> None:
    """However the line cuts the body."""
    cut = [(start, start + length) for start, length in spans]
    expected = [(ContentRange(start, stop, 10**6), CONTENT[start:stop]) for start, stop in cut]
    assert read_all(body_of(cut), step) == expected


@pytest.mark.parametrize("length", [WINDOW - 1, WINDOW, WINDOW + 1, 3 * WINDOW + 5])
@pytest.mark.parametrize("step", [1000, 10**9])
def test_parts_larger_than_the_window(length: int, step: int) -> None:
    """They are received where they belong, and the next part is found behind them."""
    spans = [(5, 5 + length), (9, 12), (0, length)]
    assert [content for _, content in read_all(body_of(spans), step)] == [CONTENT[start:stop] for start, stop in spans]


@given(st.integers(0, 10**4))
def test_a_body_that_is_cut_off_is_noticed(at: int) -> None:
    """At whatever byte: a part is complete only if the next boundary says so."""
    body = body_of([(0, 100), (200, 300)])
    cut = body[: at % (len(body) - 2)]  # the line break behind the last boundary is no loss
    with pytest.raises(Truncated):
        read_all(cut)


@given(st.integers(0, 10**4), st.integers(0, 3), st.binary(max_size=3))
def test_an_edited_body_is_an_error_or_says_the_same(at: int, count: int, new: bytes) -> None:
    """No edit of the framing moves a byte."""
    spans = [(0, 100), (200, 300)]
    right = body_of(spans)
    at %= len(right)
    edited = right[:at] + new + right[at + count :]
    try:
        found = read_all(edited)
    except FastdlError:
        return
    for got, content in found:
        assert len(content) == got.stop - got.start
        assert content in edited


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"preamble" + body_of([(0, 9)]), id="preamble"),
        pytest.param(body_of([(0, 9)]).replace(b"--b", b"--c", 1), id="another boundary"),
        pytest.param(body_of([(0, 9), (5, 7)]).replace(b"\x08\r\n", b"\x08\n"), id="no line break before a boundary"),
        pytest.param(body_of([(0, 9)]).replace(b"Content-Range", b"Content-Ranges"), id="no range"),
        pytest.param(body_of([(0, 9)]).replace(b"bytes", b"items"), id="another unit"),
        pytest.param(body_of([(0, 9)]).replace(b"0-8", b"8-0"), id="a range that ends before it begins"),
        pytest.param(body_of([(0, 9)]).replace(b"Content-Type: ", b"Content-Range: "), id="two ranges"),
        pytest.param(body_of([(0, 9)]).replace(b"Content-Type: text/plain", b"Content-Encoding: gzip"), id="coded"),
        pytest.param(
            body_of([(0, 9)]).replace(b"Content-Type: text/plain", b"Content-Transfer-Encoding: base64"),
            id="transfer coded",
        ),
        pytest.param(body_of([(0, 9)]).replace(b"text/plain", b"x" * MAX_HEAD), id="a long head"),
        pytest.param(body_of([(0, 9)]).replace(b"Content-Type: ", b" fold"), id="no field"),
        pytest.param(b"\r\n--b--\r\n" + b"x" * MAX_HEAD, id="no part"),
    ],
)
def test_framing_that_is_not_exact(body: bytes) -> None:
    """It could be read in two ways, so it is not read at all."""
    with pytest.raises(ProtocolError):
        read_all(body)


def test_a_part_is_read_to_its_end() -> None:
    """Less is an error of ours, more would be bytes of the next part."""
    parts = Multipart(b"b", lambda view: _put(view, body_of([(0, 9), (20, 30)])))
    assert parts.peek() == parts.part() == ContentRange(0, 9, 10**6)
    with pytest.raises(ProtocolError, match="shorter"):
        parts.readinto(memoryview(bytearray(10)))
    with pytest.raises(ProtocolError, match="left"):
        parts.part()


def _put(view: memoryview, data: bytes) -> int:
    view[: len(data)] = data
    return len(data)


@pytest.mark.parametrize(
    ("value", "boundary"),
    [
        ("multipart/byteranges; boundary=00000000000000000017", b"00000000000000000017"),
        ('Multipart/ByteRanges;boundary="a b:c"', b"a b:c"),
        ("multipart/byteranges; boundary=" + "x" * 70, b"x" * 70),
        ("multipart/byteranges; boundary=" + "x" * 71, None),
        ("multipart/byteranges", None),
        ("multipart/byteranges; boundary=", None),
        ('multipart/byteranges; boundary="a', None),
        ('multipart/byteranges; boundary="a "', None),
        ("multipart/byteranges; boundary=a; boundary=b", None),
        ("multipart/mixed; boundary=a", None),
        ("multipart/byteranges; boundary=a\x85", None),
    ],
)
def test_boundaries(value: str, boundary: bytes | None) -> None:
    """Only what is clearly one."""
    assert boundary_of(value) == boundary
