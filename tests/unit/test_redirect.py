"""What is sent, and what is followed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from fastdl.contract import range_header
from fastdl.errors import FastdlError, NetworkError, ProtocolError, UsageError
from fastdl.http import MAX_REDIRECTS, USER_AGENT
from fastdl.messages import Request
from fastdl.urls import origin, split_url
from tests.servers.scripted import (
    Exchange,
    Handler,
    ranged,
    raw,
    redirect,
    routes,
    serving,
    status,
)
from tests.servers.tls import certificate
from tests.unit.asking import DATA, client, fetch, read

SECRETS = tuple(
    (name, "s3cr3t")
    for name in (
        *("Authorization", "Cookie", "Proxy-Authorization", "X-Oss-Security-Token", "X-Amz-Security-Token"),
        *("X-Api-Key", "X-Custom", "Referer"),
    )
)


def test_a_request_is_sent_as_it_was_made() -> None:
    """The signed target byte for byte, the given headers, identity, a name; no userinfo, no fragment."""
    target = "/a//b/../%7Ec%2Fd+e%2B/?b=2&a=%2B&&c=%E4"
    with serving(ranged(DATA)) as server:
        with client() as transport:
            request = Request(server.url(target).replace("//", "//user:pw@", 1) + "#f", (("X-One", "1"),))
            read(transport.open(request, (range_header(4, 8),)))
        seen = server.log[0]
    assert seen.target == target
    assert (seen.headers["x-one"], seen.headers["range"]) == ("1", "bytes=4-7")
    assert (seen.headers["accept-encoding"], seen.headers["user-agent"]) == ("identity", USER_AGENT)
    assert set(seen.headers) == {"host", "x-one", "range", "accept-encoding", "user-agent"}


def test_the_case_of_a_signed_escape_is_kept() -> None:
    """A signature may cover the target as it is written."""
    with serving(ranged(DATA)) as server:
        fetch(server.url("/a%2fb?c=%e4"))
        assert server.log[0].target == "/a%2fb?c=%e4"


def test_a_user_agent_of_the_users_own_is_sent_once() -> None:
    """In any case of letters."""
    with serving(ranged(DATA)) as server, client() as transport:
        read(transport.open(Request(server.url(), (("user-agent", "mine"),))))
        assert server.log[0].headers["user-agent"] == "mine"


def test_a_proxy_gets_its_password_and_the_whole_url() -> None:
    """The target as it was signed, the proxy's credentials for it alone, the URL's own userinfo nowhere."""
    with serving(ranged(DATA)) as server:
        proxy = server.url("").replace("//", "//us%40er:p%3Aw@")
        with client(proxy=proxy) as transport:
            read(transport.open(Request("http://user:pw@nowhere.invalid/a//b%2Fc?x=%7E&y#f")))
        assert server.log[0].target == "http://nowhere.invalid/a//b%2Fc?x=%7E&y"
        assert server.log[0].headers["proxy-authorization"] == "Basic dXNAZXI6cDp3"
        assert "authorization" not in server.log[0].headers


def test_a_proxy_gets_the_path_as_it_was_written() -> None:
    """A key may hold dots between slashes: another path is another object."""
    with serving(ranged(DATA)) as server:
        fetch("http://nowhere.invalid/a/./b/../c", proxy=server.url(""))
        assert server.log[0].target == "http://nowhere.invalid/a/./b/../c"


@pytest.mark.parametrize(
    "proxy", ["http://us:s3cr3t@" + "a" * 64 + "\xfc.example:1", "http://us:s3cr3t@\u2100.example"]
)
def test_a_proxy_that_has_no_name_is_a_usage_error(proxy: str) -> None:
    """Before anything is asked, and without its password."""
    with pytest.raises(UsageError) as caught:
        fetch("http://nowhere.invalid/", proxy=proxy)
    assert "s3cr3t" not in str(caught.value)


def test_a_redirect_within_the_origin_keeps_the_headers() -> None:
    """Same scheme, host and port: the same secrets."""
    with serving(routes({"/a": redirect("/b?c=1"), "/b": ranged(DATA)})) as server, client() as transport:
        response = transport.open(Request(server.url("/a"), SECRETS[:2]), (range_header(4, 8),))
        assert read(response) == DATA[4:8]
        assert response.request.url == server.url("/b?c=1")
        assert server.log[1].headers["authorization"] == "s3cr3t"


def test_a_redirect_to_another_port_carries_no_secret() -> None:
    """Of the user's headers none goes there; the range does."""
    with serving(ranged(DATA)) as target, serving(redirect(target.url())) as server, client() as transport:
        assert read(transport.open(Request(server.url(), SECRETS), (range_header(4, 8),))) == DATA[4:8]
        assert "s3cr3t" in str(server.log[0].headers)
        assert set(target.log[0].headers) == {"host", "range", "accept-encoding", "user-agent"}


def test_a_header_is_harmless_by_its_name() -> None:
    """In any case of letters, and whatever its value looks like."""
    headers = (("user-AGENT", "mine"), ("X-Token", "range"), ("X-Key", "user-agent"))
    with serving(ranged(DATA)) as target, serving(redirect(target.url())) as server, client() as transport:
        read(transport.open(Request(server.url(), headers)))
        assert set(target.log[0].headers) == {"host", "accept-encoding", "user-agent"}
        assert target.log[0].headers["user-agent"] == "mine"


def test_a_redirect_to_another_host_carries_no_secret() -> None:
    """The same port under another name is another origin."""
    handlers: dict[str, Handler] = {"/b": ranged(DATA)}
    with serving(routes(handlers)) as server, client() as transport:
        handlers["/a"] = redirect(server.url("/b").replace("127.0.0.1", "localhost"))
        assert read(transport.open(Request(server.url("/a"), SECRETS))) == DATA
        assert "s3cr3t" in str(server.log[0].headers)
        assert set(server.log[1].headers) == {"host", "accept-encoding", "user-agent"}


def test_secrets_do_not_come_back_later_in_the_chain() -> None:
    """Once stripped they stay away, even back at the first origin: the other one could have chosen the target."""
    handlers: dict[str, Handler] = {"/back": ranged(DATA)}
    with serving(routes(handlers)) as first, serving(redirect(first.url("/back"))) as second, client() as transport:
        handlers["/"] = redirect(second.url())
        assert read(transport.open(Request(first.url("/"), SECRETS))) == DATA
        assert "s3cr3t" in str(first.log[0].headers)
        assert "s3cr3t" not in str(first.log[1].headers)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("http://host/a", "HTTP://HOST:80/b?c#d", True),
        ("https://host", "https://host:443", True),
        ("https://user:pw@host", "https://host", True),
        ("https://b\xfccher.example", "https://xn--bcher-kva.example", True),
        ("http://host", "https://host", False),
        ("http://host:443", "https://host:443", False),
        ("http://host", "http://host:8080", False),
        ("http://host", "http://a.host", False),
        ("http://host", "http://host.", False),
        ("http://127.0.0.1", "http://localhost", False),
    ],
)
def test_an_origin_is_scheme_host_and_port(one: str, other: str, *, same: bool) -> None:
    """All three, in any spelling, and nothing less."""
    assert (origin(one) == origin(other)) is same


def test_no_redirect_leads_from_https_to_http() -> None:
    """Bytes that were asked for over TLS never come without; the other server is not even asked."""
    with certificate() as pem, serving(ranged(DATA)) as plain:
        tls = pem.server_context()
        with (
            serving(redirect(plain.url()), tls=tls) as secure,
            pytest.raises(ProtocolError, match="from https to http; refused"),
        ):
            fetch(secure.url(), cacert=str(pem.ca))
        assert plain.log == ()


@pytest.mark.parametrize(
    "location",
    [
        *("file:///etc/passwd", "ftp://host/x", "javascript:alert(1)", "data:,x", "oss://bucket/key", ""),
        *("http://[::1", "//[", "http://host:99999/", "http://host:x/", "http://", "http://a b/", "//ho\u2100st/"),
    ],
)
def test_a_redirect_that_must_not_be_followed_is_a_protocol_error(location: str) -> None:
    """Other schemes, nowhere, and what is no URL: the server's mistake, not the user's, and never a crash."""
    answer = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()
    with serving(raw(answer)) as server, pytest.raises(ProtocolError) as caught:
        fetch(server.url())
    assert type(caught.value) is ProtocolError


def test_a_redirect_to_bytes_beyond_ascii_is_followed_by_them() -> None:
    """As browsers do: each is percent-encoded, whether or not it is UTF-8; what is encoded already stays."""
    answer = b"HTTP/1.1 302 Found\r\nLocation: /\xc3\xa4\xff%20(x)?b=\xe4+%41\r\nContent-Length: 0\r\n\r\n"

    def handle(exchange: Exchange) -> None:
        (raw(answer) if exchange.request.number == 1 else ranged(DATA))(exchange)

    with serving(handle) as server:
        assert fetch(server.url())[1] == DATA
        assert server.log[1].target == "/%C3%A4%FF%20(x)?b=%E4+%41"


def test_a_redirect_without_location_is_a_protocol_error() -> None:
    """There is nowhere to go."""
    with serving(status(302)) as server, pytest.raises(ProtocolError, match="redirects to"):
        fetch(server.url())


def test_a_redirect_is_an_answer_where_it_must_not_be_followed() -> None:
    """A signature names its host: what leads elsewhere is for the one who signed."""
    with serving(redirect("/b")) as server, client() as transport:
        response = transport.open(Request(server.url(), follow=False))
        assert (response.status, response.headers["Location"]) == (302, "/b")
        response.finish()
        assert len(server.log) == 1


def test_a_head_has_no_body_and_keeps_its_connection() -> None:
    """Its Content-Length is the object's; redirected it stays a HEAD."""
    with serving(routes({"/object": redirect("/b"), "/b": ranged(DATA)})) as server, client() as transport:
        response = transport.open(Request(server.url(), method="HEAD"))
        assert (response.headers["Content-Length"], read(response)) == (str(len(DATA)), b"")
        assert read(transport.open(Request(server.url("/b")))) == DATA
        assert [seen.method for seen in server.log] == ["HEAD", "HEAD", "GET"]
        assert server.connections == 1


def test_redirects_are_bounded() -> None:
    """A loop ends, and its text shows no secret of the target."""
    with serving(redirect("/object?token=s3cr3t")) as server:
        with pytest.raises(ProtocolError, match=f"more than {MAX_REDIRECTS} redirects") as caught:
            fetch(server.url())
        assert len(server.log) == MAX_REDIRECTS + 1
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize(("hops", "followed"), [(9, True), (10, True), (11, False)])
def test_ten_redirects_are_followed(hops: int, *, followed: bool) -> None:
    """And not one more; whoever needs as many has a loop."""
    handlers: dict[str, Handler] = {f"/{hop}": redirect(f"/{hop + 1}") for hop in range(hops)}
    with serving(routes({**handlers, f"/{hops}": ranged(DATA)})) as server:
        if followed:
            assert fetch(server.url("/0"))[1] == DATA
        else:
            with pytest.raises(ProtocolError, match="is the end of more than 10 redirects"):
                fetch(server.url("/0"))


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_every_redirect_is_followed_with_a_get(code: int) -> None:
    """All five mean the same for a GET, and cost no second connection."""
    with serving(routes({"/object": redirect("/b", code), "/b": ranged(DATA)})) as server:
        assert fetch(server.url())[1] == DATA
        assert [seen.method for seen in server.log] == ["GET", "GET"]
        assert server.connections == 1


@pytest.mark.parametrize(
    "url", ["ftp://host/", "host", "http://", "http://host:x/", "http://h\r\nX: y/", "http://[::1"]
)
def test_what_is_no_web_url_is_a_usage_error(url: str) -> None:
    """Only absolute http and https URLs without control characters are asked."""
    with pytest.raises(UsageError):
        split_url(url)


@pytest.mark.parametrize("host", ["a" * 64 + "\xfc.example", "\u2100.example"])
def test_a_host_that_has_no_name_is_an_error_of_ours(host: str) -> None:
    """What IDNA refuses never reaches the resolver."""
    with pytest.raises(FastdlError):
        fetch(f"http://{host}/")


@pytest.mark.parametrize(("seconds", "followed"), [(4.9, True), (5.0, False), (60.0, False)])
def test_a_redirect_whose_body_takes_the_timeout_is_a_stall(
    seconds: float, monkeypatch: pytest.MonkeyPatch, *, followed: bool
) -> None:
    """Eleven of them would else be as many timeouts."""
    times = iter((100.0, 100.0 + seconds))
    monkeypatch.setattr("fastdl.http.time", SimpleNamespace(monotonic=lambda: next(times)))
    with serving(routes({"/object": redirect("/there"), "/there": ranged(DATA)})) as server, client() as transport:
        if followed:
            assert read(transport.open(Request(server.url()))) == DATA
        else:
            with pytest.raises(NetworkError, match="no progress within the timeout"):
                transport.open(Request(server.url()))
