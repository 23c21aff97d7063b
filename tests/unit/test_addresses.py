"""A host's addresses are used in turn, those that fail last, and certificates stay the name's."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from fastdl import connections
from fastdl.addresses import Addresses
from fastdl.errors import NetworkError
from fastdl.http import Transport
from fastdl.messages import Line, Request

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "many.test"


@pytest.fixture
def resolved(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Let names mean what a test wants; anything else is resolved as ever."""
    names: dict[str, list[str]] = {}
    real = socket.getaddrinfo

    def resolve(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        if host not in names:
            return real(host, port, *arguments, **options)
        kinds = {True: socket.AF_INET6, False: socket.AF_INET}
        return [(kinds[":" in each], socket.SOCK_STREAM, 6, "", (each, port)) for each in names[host]]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(connections, "_addresses", Addresses(0))
    return names


def test_addresses_take_turns(resolved: dict[str, list[str]]) -> None:
    """Each connection begins at the next one, and has all the others to go on to."""
    resolved[NAME] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    addresses = Addresses(0)
    orders = [addresses.of(NAME, 80) for _ in range(6)]
    assert Counter(order[0] for order in orders) == dict.fromkeys(resolved[NAME], 2)
    assert all(sorted(order) == resolved[NAME] for order in orders)


def test_the_other_family_comes_last(resolved: dict[str, list[str]]) -> None:
    """The system's order decides which family is tried first; the other is for when all of that fail."""
    resolved[NAME] = ["::1", "10.0.0.1", "::2"]
    addresses = Addresses(0)
    assert {tuple(addresses.of(NAME, 80)) for _ in range(4)} == {("::1", "::2", "10.0.0.1"), ("::2", "::1", "10.0.0.1")}


def test_what_failed_is_tried_last(resolved: dict[str, list[str]]) -> None:
    """For a while; and it is still tried, if nothing else works."""
    resolved[NAME] = ["10.0.0.1", "10.0.0.2"]
    addresses = Addresses(0)
    addresses.failed("10.0.0.1")
    assert {tuple(addresses.of(NAME, 80)) for _ in range(4)} == {("10.0.0.2", "10.0.0.1")}


def test_an_unknown_name_is_an_error() -> None:
    """Which the one who connects explains."""
    with pytest.raises(OSError, match=r"."):
        Addresses(0).of("no-such-host.invalid", 80)


class _Handler(BaseHTTPRequestHandler):
    """Answers with the address it was asked at."""

    def do_GET(self) -> None:
        """Answer."""
        body = self.connection.getsockname()[0].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Host", self.headers["Host"])
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - named by http.server
        """Print nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    """Serve the same port of two addresses."""
    with ExitStack() as stack:
        number = 0
        for address in ("127.0.0.1", "127.0.0.2"):
            server = stack.enter_context(ThreadingHTTPServer((address, number), _Handler))
            number = server.server_port
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
        yield number


def asked(transport: Transport, port: int) -> str:
    """Ask over a connection of its own, and return the address that answered."""
    response = transport.open(Request(f"http://{NAME}:{port}/"))
    assert response.headers["X-Host"] == f"{NAME}:{port}"
    buffer = memoryview(bytearray(64))
    count = response.readinto(buffer)
    response.abort()
    transport.close()
    return bytes(buffer[:count]).decode()


def test_connections_are_spread(resolved: dict[str, list[str]], port: int) -> None:
    """New connections go to both machines, and one where nobody listens costs nothing; the Host stays the name."""
    resolved[NAME] = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    seen = Counter(asked(Transport(Line(), 1), port) for _ in range(8))
    assert set(seen) == {"127.0.0.1", "127.0.0.2"}
    assert min(seen.values()) >= 2


def test_nobody_listens_anywhere(resolved: dict[str, list[str]]) -> None:
    """An error of the network, as with one address."""
    resolved[NAME] = ["127.0.0.4", "127.0.0.5"]
    with pytest.raises(NetworkError):
        Transport(Line(), 1).open(Request(f"http://{NAME}:9/"))


def test_a_dot_at_the_end_of_a_name_is_for_the_resolver(resolved: dict[str, list[str]], port: int) -> None:
    """It keeps the resolver from trying other names behind this one."""
    resolved[f"{NAME}."] = ["127.0.0.1"]
    transport = Transport(Line(), 1)
    response = transport.open(Request(f"http://{NAME}.:{port}/"))
    response.finish()
    transport.close()
    with pytest.raises(NetworkError, match="cannot be resolved"):
        Transport(Line(), 1).open(Request(f"http://{NAME}:{port}/"))


@pytest.mark.parametrize(
    ("host", "at_hand"), [("127.0.0.1", True), ("[::1]", True), ("::1", True), (NAME, False), ("127.1.", False)]
)
def test_an_address_needs_no_resolver(host: str, *, at_hand: bool) -> None:
    """And nothing else does without one, that was not asked for before."""
    assert Addresses(0).at_hand(host, 80) == at_hand


def test_a_name_just_resolved_is_at_hand(resolved: dict[str, list[str]]) -> None:
    """For the port it was resolved for."""
    resolved[NAME] = ["127.0.0.1"]
    addresses = Addresses(0)
    addresses.of(NAME, 80)
    assert (addresses.at_hand(NAME, 80), addresses.at_hand(NAME, 81)) == (True, False)
