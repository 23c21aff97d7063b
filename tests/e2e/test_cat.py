"""``fastdl cat``: the object on standard output, and an exit code that tells whether it was right."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import fastdl
from tests.servers.scripted import Pattern, from_request, hang_up, ignores_range, ranged, serving, status

if TYPE_CHECKING:
    from tests.servers.exchange import Exchange, Handler

DATA = random.Random(12).randbytes(3_000_001)
PATIENCE = 60.0
_PACKAGES = str(Path(fastdl.__file__).parents[1])


def started(*arguments: str, stdout: int = subprocess.PIPE, **variables: str) -> subprocess.Popen[bytes]:
    """Start ``fastdl cat ARGUMENTS``."""
    return subprocess.Popen(
        [sys.executable, "-m", "fastdl", "cat", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": _PACKAGES, **variables},
    )


@pytest.mark.parametrize("handler", [ranged(DATA), ignores_range(DATA)], ids=["ranges", "no ranges"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_every_byte_in_order(handler: Handler, unbuffered: str) -> None:
    """Nothing but the object is on standard output, whatever Python thinks of buffers."""
    with (
        serving(handler) as server,
        started(server.url(), "--window", "1M", PYTHONUNBUFFERED=unbuffered) as command,
    ):
        out, err = command.communicate(timeout=PATIENCE)
    assert (command.returncode, err) == (0, b"")
    assert out == DATA


def test_a_reader_that_takes_little_at_a_time() -> None:
    """A pipe takes what it has room for; the rest is written when there is more."""
    with serving(ranged(DATA)) as server, started(server.url(), "--window", "256K") as command:
        assert command.stdout is not None
        read = b"".join(iter(lambda: os.read(command.stdout.fileno(), 1000), b""))  # type: ignore[union-attr]
        assert command.wait(PATIENCE) == 0
        assert read == DATA


def test_a_reader_that_leaves() -> None:
    """As with any filter of a pipe: no message, the code of a process that SIGPIPE ended, and no worker stays."""
    with serving(ranged(Pattern(1 << 30))) as server, started(server.url()) as command:
        assert command.stdout is not None
        assert command.stdout.read(10)
        command.stdout.close()
        assert command.wait(PATIENCE) == 128 + signal.SIGPIPE
        assert command.stderr is not None
        assert command.stderr.read() == b""


def test_a_full_disk() -> None:
    """One line and the code of the disk."""
    with (
        serving(ranged(DATA)) as server,
        Path("/dev/full").open("wb") as full,
        started(server.url(), stdout=full.fileno()) as command,
    ):
        _, err = command.communicate(timeout=PATIENCE)
    assert command.returncode == 9
    assert err == b"fastdl: standard output: No space left on device\n"


@pytest.mark.parametrize(
    ("handler", "arguments", "code"),
    [
        (status(404), (), 3),
        (status(403), (), 4),
        (from_request(1, hang_up, ranged(DATA)), ("--retry", "0"), 5),
        (ranged(DATA), ("--checksum", "sha256=" + "0" * 64), 8),
        (ranged(DATA), ("--window", "3", "-p", "2"), 2),
    ],
    ids=["404", "403", "hung up", "digest", "usage"],
)
def test_failures(handler: Handler, arguments: tuple[str, ...], code: int) -> None:
    """One line and the exit code of every command."""
    with serving(handler) as server, started(server.url(), *arguments) as command:
        _, err = command.communicate(timeout=PATIENCE)
    assert command.returncode == code
    assert err.startswith(b"fastdl: ")
    assert err.count(b"\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals(number: int) -> None:
    """It ends while it waits for a server, with the code of the signal."""
    hold = threading.Event()

    def silent(exchange: Exchange) -> None:
        exchange.hold(hold)

    with serving(silent) as server, started(server.url()) as command:
        server.wait_for(1)
        command.send_signal(number)
        assert command.wait(PATIENCE) == 128 + number
        hold.set()
