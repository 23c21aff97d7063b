"""Connecting: one timeout for everything, company for the silent, and an end whenever it is not wanted any more."""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from fastdl.dial import dial, patiently
from tests.servers.silence import black_hole, bound

if TYPE_CHECKING:
    from collections.abc import Callable

NODELAY = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),)


def dialled(
    addresses: list[str], port: int, seconds: float = 5.0, wanted: Callable[[], bool] = lambda: True
) -> tuple[str, list[str]]:
    """Return the address that was connected to, and those that failed."""
    failed: list[str] = []
    deadline = time.monotonic() + seconds
    with dial(addresses, port, deadline, options=NODELAY, wanted=wanted, failed=failed.append) as sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        return sock.getpeername()[0], failed


def test_the_first_address_is_the_one() -> None:
    """Where it answers nobody else is asked."""
    with bound() as listener:
        listener.listen()
        port = listener.getsockname()[1]
        assert dialled(["127.0.0.1", "127.0.0.2"], port) == ("127.0.0.1", [])


def test_refusals_are_passed_at_once() -> None:
    """Any number of machines where nobody listens costs nothing and is told of."""
    with bound("127.0.0.9") as listener:
        listener.listen()
        port = listener.getsockname()[1]
        began = time.monotonic()
        dead = [f"127.0.0.{number}" for number in range(2, 8)]
        assert dialled([*dead, "127.0.0.9"], port) == ("127.0.0.9", dead)
        assert time.monotonic() - began < 1


def test_the_silent_get_company() -> None:
    """A black hole costs its head start and is told of; the one that answered is what counts."""
    with bound() as listener:
        listener.listen()
        port = listener.getsockname()[1]
        with black_hole("127.0.0.2", port):
            began = time.monotonic()
            assert dialled(["127.0.0.2", "127.0.0.1"], port) == ("127.0.0.1", ["127.0.0.2"])
            assert 0.9 < time.monotonic() - began < 2.5


def test_one_timeout_for_all() -> None:
    """Three black holes take no longer than one."""
    with black_hole("127.0.0.1") as port, black_hole("127.0.0.2", port), black_hole("127.0.0.3", port):
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            dialled(["127.0.0.1", "127.0.0.2", "127.0.0.3"], port, 0.4)
        assert 0.3 < time.monotonic() - began < 1.5


def test_nobody_listens_anywhere() -> None:
    """The last refusal is what is told."""
    with bound("127.0.0.2") as nobody, pytest.raises(ConnectionRefusedError):
        dialled(["127.0.0.2"], nobody.getsockname()[1])


def test_what_cannot_even_be_tried_is_passed_too() -> None:
    """A family that this machine does not have, an address that nobody may connect to."""
    with bound() as listener:
        listener.listen()
        port = listener.getsockname()[1]
        odd = "255.255.255.255"
        assert dialled([odd, "127.0.0.1"], port) == ("127.0.0.1", [odd])


def test_it_can_be_given_up() -> None:
    """Another thread's word ends it long before its time."""
    over = threading.Event()
    timer = threading.Timer(0.2, over.set)
    with black_hole() as port:
        timer.start()
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            dialled(["127.0.0.1"], port, 60.0, lambda: not over.is_set())
        assert time.monotonic() - began < 2
    timer.join()


def test_a_wait_for_what_cannot_be_interrupted_is_bounded() -> None:
    """What is found in time is returned, what is raised is raised, and nobody waits for the rest."""
    gate = threading.Event()
    soon = time.monotonic() + 0.3
    assert patiently(lambda: 5, soon, lambda: True) == 5
    with pytest.raises(socket.gaierror):
        patiently(lambda: socket.getaddrinfo("no-such-host.invalid", 80), time.monotonic() + 30, lambda: True)
    with pytest.raises(TimeoutError):
        patiently(gate.wait, soon, lambda: True)
    with pytest.raises(TimeoutError):
        patiently(gate.wait, time.monotonic() + 60, lambda: False)
    gate.set()


def test_without_a_thread_it_is_asked_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many threads as the system allows are no reason to fail."""

    def refuse(_: threading.Thread) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert patiently(lambda: 5, time.monotonic() + 1, lambda: True) == 5
