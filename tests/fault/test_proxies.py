"""Row N37: proxies that refuse, lie, fall silent or die, with a tunnel and without. Their password is never shown."""

from __future__ import annotations

import base64
import random
from typing import TYPE_CHECKING

import pytest

import fastdl
from tests.e2e.command import left_to_workers, names, run
from tests.e2e.partial import bits
from tests.e2e.processes import wait_until
from tests.servers import scripted
from tests.servers.scripted import Exchange, Handler, from_request, ranged, script, serving, status
from tests.servers.tls import certificate
from tests.servers.tunnel import tunnelling

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers.wire import Server

PART = 16 * 1024
DATA = random.Random(37).randbytes(20 * PART + 5)
SECRET = "s3cr3t"


def through(server: Server) -> str:
    """Return a proxy's URL, with a login."""
    return f"http://user:{SECRET}@127.0.0.1:{server.port}"


def established(*afterwards: bytes) -> Handler:
    """Open the tunnel, and have these bytes at its other end."""
    return scripted.raw(b"HTTP/1.1 200 Connection established\r\n\r\n", *afterwards)


def reset_after_connect(exchange: Exchange) -> None:
    """Open the tunnel and reset it once the TLS handshake has begun."""
    exchange.send(b"HTTP/1.1 200 OK\r\n\r\n")
    exchange._conn.recv(1)
    exchange.reset()


TUNNELS: dict[str, tuple[Handler, type[fastdl.FastdlError]]] = {
    "hangs up": (scripted.hang_up, fastdl.NetworkError),
    "resets": (scripted.reset, fastdl.NetworkError),
    "hangs up in its status line": (scripted.raw(b"HTTP/1.1 20"), fastdl.FastdlError),
    "hangs up in its head": (scripted.raw(b"HTTP/1.1 200 OK\r\nX: y\r\n"), fastdl.NetworkError),
    "no HTTP": (scripted.raw(b"SSH-2.0-OpenSSH_9.2\r\n"), fastdl.FastdlError),
    "noise": (scripted.raw(b"\xff" * 200), fastdl.FastdlError),
    "dies when the tunnel is open": (established(), fastdl.NetworkError),
    "resets when the tunnel is open": (reset_after_connect, fastdl.NetworkError),
    "no TLS at the other end": (established(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"), fastdl.NetworkError),
    "redirects": (scripted.redirect("http://127.0.0.1/"), fastdl.NetworkError),
    "answers itself": (status(204), fastdl.FastdlError),
    "400": (status(400), fastdl.NetworkError),
    "403": (status(403), fastdl.NetworkError),
    "407": (status(407, {"Proxy-Authenticate": "Basic"}), fastdl.AccessDenied),
    "500": (status(500), fastdl.NetworkError),
    "502": (status(502), fastdl.NetworkError),
    "504": (status(504), fastdl.NetworkError),
}

# A tunnel whose head breaks off passes for open: http.client takes any end for the head's.
AT_THE_OTHER_END = [TUNNELS[name][0] for name in TUNNELS if name.endswith(("is open", "other end", "in its head"))]


@pytest.mark.parametrize("url", ["http://user:s3cr3t@h:99999", "http://", "http://user:s3cr3t@", "ftp://s3cr3t@host"])
def test_n37_what_is_no_proxy_is_told_as_the_proxys_mistake(tmp_path: Path, url: str) -> None:
    """Nobody looks for it in the object's URL; and it is not quoted."""
    with pytest.raises(fastdl.UsageError, match=r"prox(y:|ies)") as caught:
        fastdl.download("http://name.invalid/object", tmp_path / "out", proxy=url)
    assert SECRET not in repr(caught.value)


@pytest.mark.parametrize(("proxy", "error"), [pytest.param(*TUNNELS[name], id=name) for name in TUNNELS])
def test_n37_a_tunnel_that_does_not_open(tmp_path: Path, proxy: Handler, error: type[fastdl.FastdlError]) -> None:
    """Whatever is said instead of 200, and whatever is at the other end but TLS: a typed error without the password."""
    with serving(proxy) as server:
        with pytest.raises(error) as caught:
            fastdl.download(
                "https://name.invalid/object", tmp_path / "out", retry=0, read_timeout=5, proxy=through(server)
            )
        assert server.log[0].method == "CONNECT"
        assert server.log[0].target == "name.invalid:443"
        login = base64.b64encode(f"user:{SECRET}".encode()).decode()
        assert server.log[0].headers["proxy-authorization"] == f"Basic {login}"
    assert caught.value.exit_code in (4, 5, 6)
    assert "the proxy" in str(caught.value) or proxy in AT_THE_OTHER_END
    assert SECRET not in repr(caught.value)
    assert login not in repr(caught.value)
    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(scripted.truncate_after(1000), id="dies in a body"),
        pytest.param(scripted.reset_after(70_000), id="resets after progress"),
        pytest.param(scripted.hang_up, id="dies before the head"),
        pytest.param(status(502), id="502"),
        pytest.param(status(504), id="504"),
        pytest.param(scripted.stall_after(1000), id="falls silent"),
    ],
)
def test_n37_a_proxy_that_fails_once_is_asked_again(tmp_path: Path, fault: Handler) -> None:
    """Without a tunnel a proxy's faults are those of a server."""
    handler = script(left_to_workers(PART, 3, {2: fault}), otherwise=ranged(DATA))
    with serving(handler) as server:
        fastdl.download(
            "http://name.invalid/object",
            tmp_path / "out",
            part_size=PART,
            connections=3,
            workers=1,
            read_timeout=0.5,
            proxy=through(server),
        )
        assert {seen.target for seen in server.log} == {"http://name.invalid/object"}
    assert (tmp_path / "out").read_bytes() == DATA


def test_n37_a_proxy_that_wants_a_login_mid_way_ends_it(tmp_path: Path) -> None:
    """407 is no expired signature: exit code 4, and what was fetched stays."""

    def refuse(exchange: Exchange) -> None:
        wait_until(lambda: bits(tmp_path / "out.cp"))
        exchange.reply(407)

    handler = from_request(2, then=refuse, before=script({1: scripted.short_206(10 * PART)}, otherwise=ranged(DATA)))
    with serving(handler) as server:
        outcome = run(
            *("http://name.invalid/object", "-o", "out", "-p", str(PART), "-x", "1", "-w", "1"),
            *("--proxy", through(server)),
            cwd=tmp_path,
        )
    assert outcome.code == 4, outcome.message
    assert "proxy" in outcome.message
    assert SECRET not in outcome.stdout + outcome.stderr
    assert names(tmp_path) == {"out.part", "out.cp"}


@pytest.mark.parametrize("cut", [None, 70_000])
def test_n37_tls_through_a_tunnel(tmp_path: Path, cut: int | None) -> None:
    """The name behind the tunnel is what the certificate is of; a tunnel that breaks is opened again."""
    with certificate("name.invalid") as pem, serving(ranged(DATA), tls=pem.server_context()) as server:
        with tunnelling(server.port, cut) as (port, targets):
            result = fastdl.download(
                "https://name.invalid/object",
                tmp_path / "out",
                part_size=PART,
                connections=2,
                workers=1,
                cacert=pem.ca,
                proxy=f"http://127.0.0.1:{port}",
            )
        assert set(targets) == {b"name.invalid:443"}
    assert (tmp_path / "out").read_bytes() == DATA
    assert (result.retries > 0) == (cut is not None)
