"""Ranges out, ranges in."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from urllib3 import HTTPHeaderDict

from fastdl.contract import ContentRange, check_partial, parse_content_range, range_header
from fastdl.errors import FastdlError, ObjectChanged, RangeMismatch

sizes = st.integers(1, 2**63 - 1)


@st.composite
def ranges(draw: st.DrawFn) -> tuple[int, int, int]:
    """Draw ``(start, stop, size)`` of a non-empty range inside an object."""
    size = draw(sizes)
    start = draw(st.integers(0, size - 1))
    return start, draw(st.integers(start + 1, size)), size


@given(ranges())
def test_the_server_reads_the_range_that_was_meant(case: tuple[int, int, int]) -> None:
    """The Range header names the first and the last byte of the half-open range."""
    start, stop, _ = case
    name, value = range_header(start, stop)
    match = re.fullmatch(r"bytes=(\d+)-(\d+)", value)
    assert match is not None
    assert (name, int(match[1]), int(match[2]) + 1) == ("Range", start, stop)


@given(ranges(), st.booleans())
def test_a_right_answer_comes_back_as_the_range_asked_for(case: tuple[int, int, int], total: bool) -> None:
    """Written as a server writes it and read again, a range is itself."""
    start, stop, size = case
    value = f"bytes {start}-{stop - 1}/{size if total else '*'}"
    got = check_partial(206, HTTPHeaderDict({"Content-Range": value}), "http://host/", start, stop, size)
    assert got == ContentRange(start, stop, size if total else None)


@given(ranges(), ranges())
def test_only_a_head_of_the_range_is_accepted(asked: tuple[int, int, int], given_: tuple[int, int, int]) -> None:
    """Any other true range of any other object is refused, and none is a crash."""
    headers = HTTPHeaderDict({"Content-Range": f"bytes {given_[0]}-{given_[1] - 1}/{given_[2]}"})
    if given_[0] == asked[0] and given_[1] <= asked[1] and given_[2] == asked[2]:
        check_partial(206, headers, "http://host/", *asked)
    else:
        with pytest.raises((RangeMismatch, ObjectChanged)):
            check_partial(206, headers, "http://host/", *asked)


junk = st.text() | st.text("bytes 0123456789-/*,=\t\n\u0664\xb2") | st.from_regex(r"bytes ?[\d*-]+-[\d*]+/[\d*-]+")


@given(junk)
@example("bytes 4-7/\xb2")
@example("bytes \u0664-\u0667/16")
@example("bytes 4-7/16\n")
def test_no_junk_parses_to_a_range_other_than_its_digits(value: str) -> None:
    """What is accepted is its own digits, in the one form there is, and a possible range."""
    got = parse_content_range(value)
    if got is not None:
        total = "*" if got.size is None else got.size
        plain = re.sub(r"(?<![0-9])0+(?=[0-9])", "", value.strip().lower())
        assert plain == f"bytes {got.start}-{got.stop - 1}/{total}"
        assert got.start < got.stop
        assert got.size is None or got.stop <= got.size


@given(
    st.integers(100, 599),
    st.dictionaries(
        st.sampled_from(["Content-Range", "Content-Length", "Content-Encoding", "Transfer-Encoding"]), st.text()
    ),
)
def test_no_head_crashes_the_judge(status: int, headers: dict[str, str]) -> None:
    """Whatever a server writes, it is accepted or it is an error of ours."""
    try:
        got = check_partial(status, HTTPHeaderDict(headers), "http://host/", 4, 8, 16)
    except FastdlError as error:
        assert str(error).isprintable()  # noqa: PT017 - one of the two outcomes
    else:
        assert got.start == 4
        assert got.stop <= 8
