"""Row N35: names with dead addresses, black holes and no address at all. Each costs its time, and no more."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.e2e.partial import bits
from tests.e2e.processes import program, running, wait_until
from tests.servers import scripted
from tests.servers.scripted import Exchange, ranged, serving
from tests.servers.silence import black_hole, knocking

if TYPE_CHECKING:
    from pathlib import Path

PART = 16 * 1024
DATA = random.Random(35).randbytes(40 * PART + 3)
ALIVE, DEAD, REFUSING = "127.0.0.1", ("127.0.0.2", "127.0.0.3"), ("127.0.0.4", "127.0.0.5")
NAME = "many.test"


def knowing(folder: Path, *addresses: str) -> tuple[str, ...]:
    """Return the prefix under which a command finds these addresses behind ``NAME``."""
    hosts = folder / "hosts"
    hosts.write_text("".join(f"{address} {NAME}\n" for address in addresses))
    script = f'mount --bind {hosts} /etc/hosts && exec "$@"'
    return (program("unshare", "util-linux"), "-rm", "sh", "-c", script, "sh")


@pytest.mark.parametrize(
    "addresses", [(*DEAD, *REFUSING, ALIVE), ("::1", *REFUSING, ALIVE)], ids=["IPv4", "IPv6 first"]
)
def test_n35_one_machine_that_answers_is_enough(tmp_path: Path, addresses: tuple[str, ...]) -> None:
    """Two black holes and two machines where nobody listens cost each process two seconds, once, and no attempt."""
    with ExitStack() as stack:
        server = stack.enter_context(serving(ranged(DATA)))
        for address in addresses:
            if address in (*DEAD, "::1"):
                stack.enter_context(black_hole(address, server.port))
        arguments = (f"http://{NAME}:{server.port}/object", "-o", tmp_path / "out", "-p", PART, "-w", 1, "--retry", 0)
        began = time.monotonic()
        with running(tmp_path / "logs", *arguments, "--json", prefix=knowing(tmp_path, *addresses)) as command:
            assert command.wait() == 0, command.stderr  # with not one attempt to spare
        assert time.monotonic() - began < 10
        assert all(seen.headers["host"] == f"{NAME}:{server.port}" for seen in server.log)
    assert (tmp_path / "out").read_bytes() == DATA


def test_n35_addresses_that_are_all_dead_take_the_time_of_one(tmp_path: Path) -> None:
    """The connect timeout is that of all of them together: exit code 5, and nothing is left."""
    with ExitStack() as stack:
        port = stack.enter_context(black_hole(ALIVE))
        for address in DEAD:
            stack.enter_context(black_hole(address, port))
        limits = ("--retry", "0", "--connect-timeout", "0.5")
        arguments = (f"http://{NAME}:{port}/object", "-o", tmp_path / "out", *limits)
        began = time.monotonic()
        with running(tmp_path / "logs", *arguments, prefix=knowing(tmp_path, ALIVE, *DEAD)) as command:
            assert command.wait() == 5
            assert command.stderr.count("\n") == 1
        assert time.monotonic() - began < 0.5 + 5
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("how", ["the stall timeout", "Ctrl-C"])
def test_n35_machines_that_die_mid_way_do_not_hold_the_end_up(tmp_path: Path, how: str) -> None:
    """All connections break and nobody accepts new ones: the end comes in time, and what is marked stays."""
    port = 0

    def handle(exchange: Exchange) -> None:
        if exchange.request.number == 1:
            exchange.otherwise = ranged(DATA)
            scripted.short_206(10 * PART)(exchange)
        wait_until(lambda: bits(tmp_path / "out.cp"))
        exchange.reset()

    with ExitStack() as stack:
        with serving(handle) as server:
            port = server.port
            limits = ("--retry", "2", "--connect-timeout", "1", "--read-timeout", "1") if how != "Ctrl-C" else ()
            arguments = (f"http://{NAME}:{port}/object", "-o", tmp_path / "out", "-p", PART, "-x", 3, "-w", 1, *limits)
            prefix = knowing(tmp_path, ALIVE, *DEAD)
            command = stack.enter_context(running(tmp_path / "logs", *arguments, prefix=prefix))
            server.wait_for(3)
        for address in (ALIVE, *DEAD):
            stack.enter_context(black_hole(address, port))
        before = knocking(port)
        began = time.monotonic()
        if how == "Ctrl-C":
            command.wait_until(lambda: knocking(port) > before)
            began = time.monotonic()
            os.killpg(command.pid, signal.SIGINT)
            assert command.wait() == 130
            assert time.monotonic() - began < 2
        else:
            assert command.wait() == 5, command.stderr
            assert time.monotonic() - began < 3 * 1 + 2 + 5  # three attempts, and the waits between them
        command.wait_gone()
    assert {path.name for path in tmp_path.glob("out*")} == {"out.part", "out.cp"}
