"""What ``read_ranges`` refuses before anything is sent."""

from __future__ import annotations

import array
from typing import Any

import pytest

import fastdl

URL = "http://127.0.0.1:9/object"  # nobody listens there


@pytest.mark.parametrize(
    "pair",
    [
        *((-1, 5), (5, -1), (True, 5), (5, False), (1.0, 5), (5, 1.5), ("1", "2"), "12", (1,), (1, 2, 3), None, 5),
        *((0, 1 << 63), (1 << 63, 0)),
    ],
)
def test_a_pair_that_is_no_range(pair: Any) -> None:
    """The error tells which of many it is."""
    with pytest.raises(fastdl.UsageError, match=r"^range 2"):
        fastdl.read_ranges(URL, [(0, 1), (5, 0), pair])


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"gap": -1}, "gap -1"),
        ({"gap": True}, "gap: want a whole number, got bool"),
        ({"gap": "many"}, "gap: "),
        ({"gap": 1.5}, "gap: want a whole number"),
        ({"connections": 0}, "0 connections"),
        ({"connections": 129}, "129 connections"),
        ({"connections": True}, "connections: want a whole number"),
        ({"connections": 2.0}, "connections: want a whole number"),
        ({"into": bytes(10)}, "writable"),
        ({"into": bytearray(9)}, "9 bytes, the ranges have 10"),
        ({"into": memoryview(bytearray(20))[::2]}, "contiguous"),
        ({"into": 10}, "buffer"),
        ({"into": ""}, "buffer"),
        ({"read_timeout": 0}, "read timeout"),
        ({"retry": -1}, "retry"),
    ],
)
def test_settings_that_cannot_be_meant(settings: dict[str, Any], text: str) -> None:
    """Each has its own line."""
    with pytest.raises(fastdl.UsageError, match=text):
        fastdl.read_ranges(URL, [(0, 10)], **settings)


@pytest.mark.parametrize("ranges", [5, None])
def test_ranges_that_are_none(ranges: Any) -> None:
    """Not a TypeError from inside."""
    with pytest.raises(fastdl.UsageError, match="pairs"):
        fastdl.read_ranges(URL, ranges)


def test_empty_ranges_ask_for_nothing() -> None:
    """Nobody is asked, and every buffer of no bytes will do."""
    assert fastdl.read_ranges(URL, [(5, 0), (1 << 40, 0)]) == [b"", b""]
    assert [bytes(view) for view in fastdl.read_ranges(URL, [(5, 0)], into=array.array("d"))] == [b""]
    assert fastdl.read_ranges(URL, [], into=bytearray()) == []


def test_a_setting_that_download_has_and_ranges_have_not() -> None:
    """Python's own error, as of any function."""
    with pytest.raises(TypeError, match="part_size"):
        fastdl.read_ranges(URL, [(0, 1)], part_size=5)  # type: ignore[call-overload]
