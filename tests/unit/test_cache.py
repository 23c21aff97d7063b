"""Where the cache is, what names an object and a version in it, and what ``cached`` refuses before it asks anybody."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import fastdl
from fastdl import sources
from fastdl.errors import DiskError, UsageError
from fastdl.flight import Patience, flight
from fastdl.labels import identity_of, is_key, key_of, prefix_of, version_of
from fastdl.shelf import Shelf
from fastdl.tending import bound, directory, items, remove
from fastdl.validator import ObjectInfo, Validator

URL = "http://127.0.0.1:9/object"  # nobody listens there
DATE = "Wed, 01 Jan 2025 00:00:00 GMT"


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The argument, then $FASTDL_CACHE, $XDG_CACHE_HOME, and the home."""
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # which its specification says to ignore
    monkeypatch.delenv("FASTDL_CACHE", raising=False)
    assert directory(None) == Path("/home/me/.cache/fastdl")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert directory(None) == Path("/xdg/fastdl")
    monkeypatch.setenv("FASTDL_CACHE", "/here")
    assert directory(None) == Path("/here")
    assert directory("/there") == Path("/there")


def test_how_much_it_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """The argument, then $FASTDL_CACHE_MAX, then all."""
    monkeypatch.delenv("FASTDL_CACHE_MAX", raising=False)
    assert (bound(None), bound(5), bound("1K")) == (None, 5, 1024)
    monkeypatch.setenv("FASTDL_CACHE_MAX", "2M")
    assert (bound(None), bound(0)) == (2 << 20, 0)
    monkeypatch.setenv("FASTDL_CACHE_MAX", "much")
    with pytest.raises(UsageError, match="FASTDL_CACHE_MAX"):
        bound(None)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"cache_dir": ""}, "cache directory"),
        ({"cache_dir": "a\0b"}, "cache directory"),
        ({"cache_dir": 5}, "cache_dir: want a path"),
        ({"max_bytes": -1}, "max_bytes -1"),
        ({"max_bytes": True}, "max_bytes: want a whole number"),
        ({"max_age": -1}, "max_age -1"),
        ({"max_age": float("nan")}, "max_age nan"),
        ({"max_age": None}, "max_age: want a number"),
        ({"connections": 0}, "0 connections"),
        ({"checksum": "md5=1"}, "32 hexadecimal digits"),
    ],
)
def test_what_cannot_be_meant(tmp_path: Path, settings: dict[str, Any], text: str) -> None:
    """An error that names the argument; nothing is made."""
    with pytest.raises(UsageError, match=text):
        fastdl.cached(URL, **{"cache_dir": tmp_path / "cache", **settings})
    assert list(tmp_path.iterdir()) == []


def test_keys() -> None:
    """Signatures do not matter; queries, endpoints and ``Accept`` do; all keys of one object begin alike."""
    plain = sources.resolve(f"{URL}?id=5")
    signed = sources.resolve(f"{URL}?id=5&X-Amz-Signature=abc")
    key = key_of(plain, ())
    assert is_key(key)
    assert key_of(signed, (("Authorization", "x"),)) == key
    assert key_of(sources.resolve(f"{URL}?id=6"), ()) != key
    other = key_of(plain, (("ACCEPT", "text/html"),))
    assert (other != key, other[:32]) == (True, prefix_of(identity_of(f"{URL}?X-Amz-Signature=d&id=5")))
    stores = [
        sources.resolve("oss://bucket/key", region="cn-hangzhou", endpoint_url=endpoint, sign=False)
        for endpoint in ("internal", "public")
    ]
    first, second = (key_of(store, ()) for store in stores)
    assert (first != second, first[:32]) == (True, second[:32])
    assert first.startswith(prefix_of(identity_of("OSS://bucket/key")))


def test_versions() -> None:
    """Whatever tells two states of an object apart; nothing where nothing does."""
    states = [
        ObjectInfo(5, Validator(etag='"a"')),
        ObjectInfo(6, Validator(etag='"a"')),
        ObjectInfo(5, Validator(etag='"b"')),
        ObjectInfo(5, Validator(etag='"b"', version_id="1")),
        ObjectInfo(5, Validator(last_modified=DATE)),
        ObjectInfo(5, Validator(etag='W/"a"', last_modified=DATE)),
        ObjectInfo(5, Validator(last_modified=DATE), crc64=7),
    ]
    assert len({version_of(state) for state in states}) == len(states)
    assert version_of(ObjectInfo(5, Validator(etag='"a"', last_modified=DATE))) == version_of(states[0])
    for unknown in (Validator(), Validator(etag='W/"a"')):
        assert version_of(ObjectInfo(5, unknown)) == ""


def test_a_copy_that_vanishes_before_it_is_noted(tmp_path: Path) -> None:
    """An error of the disk, and no copy."""
    shelf = Shelf(tmp_path)
    (tmp_path / "a.new").mkdir()
    with pytest.raises(DiskError, match="No such file"):
        shelf.put("a", "name", 0, "", ())
    assert (shelf.copy("a"), shelf.newest(), shelf.url) == (None, None, "unknown")


def shelf_with_a_copy(root: Path) -> Shelf:
    """Put three bytes into a cache."""
    shelf = Shelf(root / f"{'a' * 32}-{'b' * 8}")
    shelf.make("url")
    (shelf.folder / "v.new").mkdir()
    (shelf.folder / "v.new" / "name").write_bytes(b"abc")
    shelf.put("v", "name", 5, "", ())
    return shelf


def test_what_came_before_the_lock_was_had_is_taken(tmp_path: Path) -> None:
    """Between a look and the lock whoever had it may have ended."""
    shelf = shelf_with_a_copy(tmp_path)
    with flight(shelf, "url", Patience("url", None), lambda waited: None if waited else shelf.newest()) as there:
        assert there == shelf.copy("v")


def test_what_was_used_meanwhile_stays(tmp_path: Path) -> None:
    """The list that somebody removes by may be old."""
    shelf = shelf_with_a_copy(tmp_path)
    (item,) = items(tmp_path)
    os.utime(item.path.parent, (1, 1))
    assert (remove(item), item.path.exists()) == (False, True)
    (item,) = items(tmp_path)
    assert (remove(item), shelf.folder.exists()) == (True, False)
