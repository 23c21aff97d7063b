"""Full pipes that nobody reads, and terminals that were closed: nothing waits for them but a result."""

from __future__ import annotations

import fcntl
import os
import random
import select
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import fastdl
from tests.servers.scripted import Pattern, ranged, script, serving, stall_after, status

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20
DATA = random.Random(16).randbytes(3 * MIB)
PATIENCE = 60.0


@contextmanager
def full_pipe() -> Iterator[tuple[int, int]]:
    """Make a pipe that takes not one byte more; yield its ends."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETFL, os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"x")
    fcntl.fcntl(writing, fcntl.F_SETFL, 0)
    try:
        yield reading, writing
    finally:
        os.close(reading)
        os.close(writing)


def started(folder: Path, *arguments: str, stdout: int, stderr: int) -> subprocess.Popen[bytes]:
    """Start ``fastdl ARGUMENTS``."""
    environment = {**os.environ, "PYTHONPATH": str(Path(fastdl.__file__).parents[1])}
    command = [sys.executable, "-m", "fastdl", *arguments]
    return subprocess.Popen(command, cwd=folder, stdout=stdout, stderr=stderr, env=environment)


@pytest.mark.parametrize("flags", [("--json",), ("-v",), ("--json", "-v")])
def test_a_download_does_not_wait_for_them(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """Lines of progress and of the log are left out; the file is there long before anybody reads."""
    with (
        serving(ranged(DATA)) as server,
        full_pipe() as (out, ours),
        full_pipe() as (_, errors),
        started(tmp_path, server.url(), "-o", "a", *flags, stdout=ours, stderr=errors) as command,
    ):
        server.wait_until((tmp_path / "a").exists)
        while "--json" in flags and command.poll() is None:  # the result is waited with: now it is read
            if select.select([out], [], [], 0.05)[0]:
                os.read(out, 65536)
        assert command.wait(PATIENCE) == 0
    assert (tmp_path / "a").read_bytes() == DATA


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_does_not_wait_for_them(tmp_path: Path, number: signal.Signals) -> None:
    """Nor for the last words."""
    silent = script({1: stall_after(MIB)}, otherwise=ranged(DATA))
    with serving(silent) as server, full_pipe() as (_, ours), full_pipe() as (_, errors):
        url = server.url()
        with started(tmp_path, url, "-o", "a", "--json", "-v", stdout=ours, stderr=errors) as command:
            server.wait_for(1)
            command.send_signal(number)
            assert command.wait(PATIENCE) == 128 + number


def test_time_is_up_though_nobody_reads(tmp_path: Path) -> None:
    """``--max-time`` holds."""
    handler = ranged(Pattern(64 * MIB))
    with serving(handler) as server, full_pipe() as (_, ours), full_pipe() as (_, errors):
        flags = ("--json", "-v", "--max-time", "1", "--limit-rate", "1M")
        with started(tmp_path, server.url(), "-o", "a", *flags, stdout=ours, stderr=errors) as command:
            assert command.wait(PATIENCE) == 5


def test_a_failure_does_not_wait_for_them(tmp_path: Path) -> None:
    """Its exit code tells."""
    with (
        serving(status(404)) as server,
        full_pipe() as (_, ours),
        full_pipe() as (_, errors),
        started(tmp_path, server.url(), "--json", stdout=ours, stderr=errors) as command,
    ):
        assert command.wait(PATIENCE) == 3


@pytest.mark.parametrize("arguments", [(), ("head",), ("cat",)])
def test_a_stop_while_a_result_is_waited_with(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """The one thing that waits for its reader ends like any other."""
    with serving(ranged(DATA)) as server, full_pipe() as (_, ours), full_pipe() as (_, errors):
        flags = ("-o", "a", "--json") if not arguments else ("--json",) if arguments == ("head",) else ()
        with started(tmp_path, *arguments, server.url(), *flags, stdout=ours, stderr=errors) as command:
            server.wait_for(1)
            if not arguments:
                server.wait_until((tmp_path / "a").exists)
            command.send_signal(signal.SIGINT)
            assert command.wait(PATIENCE) in (-signal.SIGINT, 128 + signal.SIGINT)


def test_a_terminal_that_was_closed(tmp_path: Path) -> None:
    """Its bar is gone, and the download goes on to its end."""
    ours, theirs = os.openpty()
    with serving(ranged(Pattern(8 * MIB))) as server:
        url = server.url()
        command = started(tmp_path, url, "-o", "a", "--limit-rate", "4M", stdout=subprocess.DEVNULL, stderr=theirs)
        with command:
            os.close(theirs)
            assert os.read(ours, 1)
            os.close(ours)
            assert command.wait(PATIENCE) == 0
    assert (tmp_path / "a").stat().st_size == 8 * MIB
