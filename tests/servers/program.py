"""A server that is a program of its own: started on a port, waited for, ended."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_DEADLINE = 20.0  # seconds for a program to start or to stop
_POLL = 0.01  # seconds between two attempts to connect


def program(name: str, package: str) -> str:
    """Find a program, beside this Python or where root's are.

    Raises:
        RuntimeError: it is not installed.
    """
    places = (str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin")
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        message = f"no {name} here: install {package}"
        raise RuntimeError(message)
    return found


def free_port() -> int:
    """Return a port of the loopback that nobody listened on just now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@contextmanager
def running_program(
    command: list[str], port: int, output: Path, environment: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Run a server until the end of the block; inside it accepts connections on ``port``. It prints to ``output``.

    Raises:
        RuntimeError: it did not start; the message then carries what it printed.
    """
    with output.open("wb") as file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env={**os.environ, **(environment or {})}
        )
    try:
        _wait_until_accepting(process, port, output)
        yield
    finally:
        process.terminate()
        try:
            process.wait(_DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_accepting(process: subprocess.Popen[bytes], port: int, output: Path) -> None:
    deadline = time.monotonic() + _DEADLINE
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(_POLL)
        else:
            return
    message = f"it did not start (exit {process.poll()}): {output.read_text(errors='replace')}"
    raise RuntimeError(message)
