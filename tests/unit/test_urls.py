"""What counts as a URL, what credentials are bound to, and which proxy the environment names."""

from __future__ import annotations

import pytest

from fastdl.errors import UsageError
from fastdl.urls import environment_proxy, origin, split_url

UNREADABLE = "the URL cannot be read: check host and port; in a password #, / and ? are %23, %2F and %3F"


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Begin with an environment that names no proxy."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://host:x/", UNREADABLE),
        ("http://host:65536/", UNREADABLE),
        ("http://[::1/", UNREADABLE),
        ("http://user:pa/ss@host/", UNREADABLE),
        ("ftp://host/", "the URL is not an absolute http or https one"),
        ("host/path", "the URL is not an absolute http or https one"),
        ("http:///path", "the URL is not an absolute http or https one"),
        ("//host/path", "the URL is not an absolute http or https one"),
        *((f"http://host/a{char}b", "the URL holds control characters") for char in "\0\t\n\r\x1f\x7f"),
        *((f"http://host/?a{char}b", "the URL holds control characters") for char in "\0\x7f"),
    ],
)
def test_what_is_no_url_is_refused_without_being_shown(url: str, text: str) -> None:
    """A password may stand in any place of what cannot be read."""
    with pytest.raises(UsageError) as caught:
        split_url(url)
    assert str(caught.value) == text


@pytest.mark.parametrize("url", ["http://host", "HTTPS://host:65535/a b?c=\xe4#d", "http://u:p@[::1]:1/%00~!"])
def test_what_is_a_url_is_split(url: str) -> None:
    """Spaces and all that is not ASCII are urllib3's to write; nothing is changed here."""
    assert split_url(url).geturl().casefold() == url.casefold()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://Host/x", ("http", "host", 80)),
        ("https://host/x", ("https", "host", 443)),
        ("https://u:p@host:80/x", ("https", "host", 80)),
        ("http://host:443/x", ("http", "host", 443)),
        ("http://b\xfccher.example/", ("http", "xn--bcher-kva.example", 80)),
    ],
)
def test_an_origin_names_its_port(url: str, expected: tuple[str, str, int]) -> None:
    """Given or meant."""
    assert origin(url) == expected


def test_a_host_that_idna_refuses_is_a_usage_error() -> None:
    """It names the host, with nothing in it that a terminal would obey."""
    with pytest.raises(UsageError) as caught:
        origin("http://" + "\xe4" * 64 + "/")
    assert str(caught.value).endswith(" is not a host name")
    assert "\xe4" * 10 in str(caught.value)


@pytest.mark.parametrize(
    ("names", "url", "proxy"),
    [
        ({}, "http://host/", ""),
        ({"http_proxy": "http://proxy:1"}, "http://host/", "http://proxy:1"),
        ({"http_proxy": "http://proxy:1"}, "https://host/", ""),
        ({"HTTPS_PROXY": "http://proxy:1"}, "https://host/", "http://proxy:1"),
        ({"https_proxy": "http://one", "all_proxy": "http://two"}, "https://host/", "http://one"),
        ({"https_proxy": "http://one", "all_proxy": "http://two"}, "http://host/", "http://two"),
        ({"ALL_PROXY": "http://two"}, "https://host/", "http://two"),
        ({"http_proxy": ""}, "http://host/", ""),
        ({"http_proxy": "proxy:1"}, "http://host/", "http://proxy:1"),
        ({"http_proxy": "https://proxy:1"}, "http://host/", "https://proxy:1"),
        ({"http_proxy": "http://proxy:1", "no_proxy": "host"}, "http://host/", ""),
        ({"http_proxy": "http://proxy:1", "no_proxy": "host"}, "http://user:pw@host/", ""),
        ({"http_proxy": "http://proxy:1", "no_proxy": "host"}, "http://a.host/", ""),
        ({"http_proxy": "http://proxy:1", "no_proxy": "host"}, "http://other/", "http://proxy:1"),
        ({"http_proxy": "http://proxy:1", "no_proxy": "host:81"}, "http://host:81/", ""),
        ({"http_proxy": "http://proxy:1", "no_proxy": "*"}, "http://other/", ""),
    ],
)
def test_the_environments_proxy_is_used_but_for_its_exceptions(
    variables: pytest.MonkeyPatch, names: dict[str, str], url: str, proxy: str
) -> None:
    """In lower and upper case, by scheme, then for all; a bare host is taken for an http one."""
    for name, value in names.items():
        variables.setenv(name, value)
    assert environment_proxy(url) == proxy


def test_without_a_proxy_variable_nothing_is_looked_up(variables: pytest.MonkeyPatch) -> None:
    """The URL may still be one that cannot be read: whoever asks it will say so."""
    assert environment_proxy("http://host:x/") == ""
    variables.setenv("http_proxy", "http://proxy:1")
    with pytest.raises(UsageError):
        environment_proxy("http://host:x/")
