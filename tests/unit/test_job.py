"""Settings are checked and resolved before anything is touched."""

from __future__ import annotations

import errno
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastdl.errors import DiskError, UsageError
from fastdl.job import (
    LEAST_TRAFFIC,
    MOST_TRAFFIC,
    checkpoint_path_of,
    concurrency,
    file_name,
    make_backoff,
    make_line,
    target_path,
    traffic_share,
)
from fastdl.sources.http import HttpSource

if TYPE_CHECKING:
    from fastdl.messages import Line

PROXY_NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no proxy of the machine's show."""
    for name in (*PROXY_NAMES, "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def line(url: str = "http://host/object", proxy: str | None = None, **times: Any) -> Line:
    """Make a line with ordinary times but for some."""
    given = {"connect_timeout": 10.0, "read_timeout": 30.0, "max_time": None, "cacert": None, **times}
    return make_line(HttpSource(url), proxy=proxy, insecure=False, **given)


@pytest.mark.parametrize(
    ("url", "environment", "proxy"),
    [
        ("http://host/", {}, ""),
        ("http://host/", {"http_proxy": "http://proxy:3128"}, "http://proxy:3128"),
        ("https://host/", {"http_proxy": "http://proxy:3128"}, ""),
        ("https://host/", {"https_proxy": "http://proxy:3128"}, "http://proxy:3128"),
        ("https://host/", {"HTTPS_PROXY": "http://proxy:3128"}, "http://proxy:3128"),
        ("https://host/", {"HTTPS_PROXY": "http://upper", "https_proxy": "http://lower"}, "http://lower"),
        ("http://host/", {"ALL_PROXY": "http://proxy"}, "http://proxy"),
        ("http://host/", {"http_proxy": "proxy:3128"}, "http://proxy:3128"),
        ("http://host/", {"http_proxy": "user:pw@proxy:3128"}, "http://user:pw@proxy:3128"),
        ("http://host/", {"http_proxy": "http://proxy", "no_proxy": "host"}, ""),
        ("http://host/", {"http_proxy": "http://proxy", "no_proxy": "*"}, ""),
        ("http://a.host/", {"http_proxy": "http://proxy", "NO_PROXY": "other, .host"}, ""),
        ("http://host:81/", {"http_proxy": "http://proxy", "no_proxy": "host:81"}, ""),
        ("http://user:pw@host/", {"http_proxy": "http://proxy", "no_proxy": "host"}, ""),
        ("http://host/", {"http_proxy": "http://proxy", "no_proxy": "other"}, "http://proxy"),
        ("http://host/", {"http_proxy": ""}, ""),
    ],
)
def test_the_environment_chooses_the_proxy(
    url: str, environment: dict[str, str], proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By scheme, in both cases of letters, unless the host is excepted."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert line(url).proxy == proxy


@pytest.mark.parametrize("proxy", ["", "http://mine:3128"])
def test_a_given_proxy_silences_the_environment(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the user says counts, also if it is: none."""
    monkeypatch.setenv("http_proxy", "http://proxy")
    assert line(proxy=proxy).proxy == proxy


@pytest.mark.parametrize("proxy", ["socks5://user:s3cr3t@proxy", "ftp://user:s3cr3t@proxy", "file:///etc/passwd"])
def test_an_unknown_kind_of_proxy_is_refused(proxy: str) -> None:
    """Before anything is sent, and without its password in the text."""
    with pytest.raises(UsageError, match="only http:// and https:// proxies") as caught:
        line(proxy=proxy)
    assert "s3cr3t" not in str(caught.value)


def test_a_given_proxy_without_scheme_is_refused_without_its_password() -> None:
    """What looks like a scheme may be a user's name, and what follows a password."""
    with pytest.raises(UsageError, match="proxies are known") as caught:
        line(proxy="user:s3cr3t@proxy:3128")
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("name", ["connect_timeout", "read_timeout", "max_time"])
@pytest.mark.parametrize("seconds", [0.0, -1.0, math.inf, math.nan, 1_000_001.0, 1e300])
def test_a_time_is_a_positive_number_of_seconds(name: str, seconds: float) -> None:
    """Zero would never connect, infinity never end, and what the kernel cannot count would be taken for little."""
    times: dict[str, Any] = {name: seconds}
    with pytest.raises(UsageError, match="must be a positive number of seconds"):
        line(**times)


def test_no_connection_waits_longer_than_the_whole_download() -> None:
    """The read timeout is at most the time for everything."""
    assert line(read_timeout=30.0, max_time=5.0).read_timeout == 5.0


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://host/a/model.bin", "model.bin"),
        ("https://host/model.bin?key=a/b&sig=x/y", "model.bin"),
        ("https://host/model.bin#a/b", "model.bin"),
        ("https://host/a%20b", "a b"),
        ("https://host/%E6%97%A5", "日"),
        ("https://host/a%2Fb", "b"),
        ("https://host/..%2f..%2fetc%2fpasswd", "passwd"),
        ("https://host/.hidden", ".hidden"),
        ("https://host/%FF", "\ufffd"),
        ("oss://bucket/a/model.bin", "model.bin"),
        ("oss://bucket/100%25", "100%25"),
        ("oss://bucket/a#c", "a#c"),
    ],
)
def test_a_file_is_named_after_the_urls_last_segment(url: str, name: str) -> None:
    """Decoded once for web servers, literally for a store's key, never with a directory in it."""
    assert file_name(url) == name


@pytest.mark.parametrize(
    "url",
    [
        *(
            "https://host",
            "https://host/",
            "https://host/a/",
            "https://host/.",
            "https://host/a/..",
            "https://host/%2e",
        ),
        *(
            "https://host/a%2f%2e%2e",
            "https://host/%20",
            "https://host/...",
            "https://host/a%00b",
            "https://host/a%0Ab",
        ),
        *("https://host/a%5cb", "https://host/..%5c..%5cb", "https://host/C%3Ab", "https://host/a%1b%5B2J"),
        *("https://host/a%E2%80%AEb", "https://host/a%7f", "oss://bucket/a/", "oss://bucket/..", "oss://bucket/a\\b"),
    ],
)
def test_a_hostile_last_segment_names_nothing(url: str) -> None:
    """Neither a parent directory, a separator of another system, a control character nor a turned line."""
    with pytest.raises(UsageError, match="ends in no file name; give one with -o"):
        file_name(url)


def test_a_path_is_obeyed(tmp_path: Path) -> None:
    """Users name their files as they like; relative names are those of now."""
    assert target_path(tmp_path / "a:b \\c", "https://host/x") == tmp_path / "a:b \\c"
    assert target_path("x", "https://host/y") == Path.cwd() / "x"
    assert target_path(os.fsencode(tmp_path / "x").decode(), "https://host/y") == tmp_path / "x"


def test_in_a_directory_the_url_names_the_file(tmp_path: Path) -> None:
    """And never one outside of it."""
    assert target_path(tmp_path, "https://host/..%2fmodel.bin") == tmp_path / "model.bin"
    with pytest.raises(UsageError):
        target_path(tmp_path, "https://host/..")


@pytest.mark.parametrize("path", ["", "a\0b", "a\ud800"])
def test_a_path_that_no_file_can_have_is_refused(path: str) -> None:
    """Nothing, a NUL or half a surrogate pair is a usage error, whoever made it up."""
    with pytest.raises(UsageError, match="cannot be an output"):
        target_path(path, "https://host/x")
    if path:
        with pytest.raises(UsageError):
            checkpoint_path_of(Path("/out"), path)


def test_a_fault_of_the_disk_is_no_fault_of_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever gave it can do nothing about it."""

    def fail(_: Path) -> bool:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "is_dir", fail)
    with pytest.raises(DiskError, match="Input/output error"):
        target_path(tmp_path, "https://host/x")


def test_the_checkpoint_is_beside_the_output_unless_told_otherwise() -> None:
    """OUT.cp, or the given path."""
    assert checkpoint_path_of(Path("/d/out"), None) == Path("/d/out.cp")
    assert checkpoint_path_of(Path("/d/out"), "/e/x") == Path("/e/x")


@pytest.mark.parametrize("given", ["out", "./out", "out.part", "sub/../out", "sub/../out.part"])
def test_the_checkpoint_is_never_the_output(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In no spelling: it would be cut to nothing at the start."""
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="the checkpoint cannot be the output itself"):
        checkpoint_path_of(tmp_path / "out", given)


@pytest.mark.parametrize(
    ("workers", "connections"),
    [(0, None), (-1, None), (65, None), (65, 100), (2, 1), (1, 0), (None, 0), (None, -5), (1, 1025), (None, 10**9)],
)
def test_numbers_out_of_bounds_are_refused(workers: int | None, connections: int | None) -> None:
    """Each worker has a connection, and neither are so many that the machine suffers."""
    with pytest.raises(UsageError, match="must be"):
        concurrency(workers, connections)


@pytest.mark.parametrize(("workers", "connections"), [(1, 1), (64, 1024), (None, 1), (64, None), (None, None)])
def test_numbers_within_bounds_are_resolved(workers: int | None, connections: int | None) -> None:
    """What is given is obeyed; what is not fits it."""
    got = concurrency(workers, connections)
    assert 1 <= got[0] <= got[1]
    assert workers in (None, got[0])
    assert connections in (None, got[1])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # of proxies, which do not matter here
@given(limit=st.integers(LEAST_TRAFFIC, 10**13), asked=st.none() | st.integers(1, 2000))
def test_a_traffic_limit_is_divided_within_the_stores_bounds(limit: int, asked: int | None) -> None:
    """All shares together are no more than was said, and each is one that OSS takes."""
    _, connections = concurrency(None, asked, limit)
    share = traffic_share(limit, connections)
    assert share is not None
    assert LEAST_TRAFFIC <= share <= MOST_TRAFFIC
    assert share * connections <= limit
    assert connections <= (asked or 128)
    assert connections <= 8 or limit > 8 * MOST_TRAFFIC


@pytest.mark.parametrize(
    ("workers", "connections", "limit"),
    [(None, None, LEAST_TRAFFIC - 1), (None, None, 0), (None, 0, 10**8), (9, None, 10**8)],
)
def test_a_traffic_limit_out_of_bounds(workers: int | None, connections: int | None, limit: int) -> None:
    """Less than OSS can hold one request to, or more workers than connections are useful."""
    with pytest.raises(UsageError, match="must be"):
        concurrency(workers, connections, limit)


@pytest.mark.parametrize("retry", [-1, 1001])
def test_absurd_retries_are_refused(retry: int) -> None:
    """Neither less than none nor days of waiting."""
    with pytest.raises(UsageError, match="must be 0 to 1000"):
        make_backoff(retry)


def test_retries_come_after_the_first_attempt() -> None:
    """No retry means one attempt."""
    assert make_backoff(0).attempts == 1
