"""One worker of the pool: its process, forked ahead or started as a program, and the pipe to it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING

from fastdl import prefork
from fastdl.errors import DiskError
from fastdl.pipe import Pipe, anonymous_file

if TYPE_CHECKING:
    from fastdl.messages import Order, Welcome

_STOP_PATIENCE = 0.5  # seconds a worker gets to see the end of its pipe before it is killed
START_ATTEMPTS = 3
# Not -m fastdl.worker with PYTHONPATH: that cannot carry a directory with a colon in its name.
_BOOT = (
    "import json,os,socket,sys;sys.path[:]=json.loads(os.environ.pop('FASTDL_PATH'));"
    "from fastdl.worker import main;main(socket.socket(fileno=int(sys.argv[1])))"
)
_NEEDED = ("fastdl", "urllib3", "xxhash", "fastcrc")


class Member:
    """One worker process and what it was told; whoever dies before he was told anything is replaced.

    Raises:
        DiskError: processes, memory or descriptors are short.
    """

    def __init__(self, welcome: Welcome, shared: int) -> None:
        self.welcome = welcome
        self.orders: dict[int, Order] = {}
        self.ready = False
        self.process: subprocess.Popen[bytes] | prefork.Forked
        failed = 0
        while True:
            waiting = prefork.take()
            try:
                self.process, end, self.errors = waiting or _started()
                self.pipe = Pipe(end)
                self.pipe.send(welcome, shared)
            except OSError as error:
                # Who ended before the first word was killed by somebody, unless it happens again and again.
                gone = waiting is None and isinstance(error, ConnectionError)
                failed += gone
                if waiting is None and (not gone or failed >= START_ATTEMPTS):
                    raise DiskError(f"a worker cannot be started: {error.strerror}") from None
                self.process.kill()
                self.close()
            else:
                return

    def last_words(self) -> str:
        """Return the last line that it said on its standard error."""
        self.errors.seek(0)
        lines = self.errors.read(65536).decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else ""

    def disown(self) -> None:
        """Close what a fork of the caller inherited; the worker is its parent's."""
        self.pipe.close()
        self.errors.close()
        if isinstance(self.process, subprocess.Popen):
            self.process.returncode = 0  # or it would be looked after here, and missed

    def close(self) -> None:
        """Wait for its end, not long, and free what it used."""
        self.pipe.close()
        try:
            self.process.wait(_STOP_PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.errors.close()


def _started() -> tuple[subprocess.Popen[bytes], socket.socket, IO[bytes]]:
    """Start a worker; return it, our end of its pipe and what it says on standard error.

    Raises:
        OSError: processes, memory or descriptors are short.
    """
    ours, theirs = socket.socketpair()
    errors = anonymous_file()
    with theirs, prefork.interrupts_blocked():
        process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-P", "-c", _BOOT, str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=_environment(),
        )
    return process, ours, errors


def _environment() -> dict[str, str]:
    """Return a worker's environment: no secrets, and the caller's import path, so that it finds the same fastdl."""
    return {**prefork.harmless_environment(), "FASTDL_PATH": json.dumps(_import_path())}


def _import_path() -> list[str]:
    """Return the caller's import path without entries that depend on where it stands now.

    A relative entry, or '' as in interactive sessions, meant another directory when the caller imported fastdl than it
    may mean now; what the caller loaded through one is named by its absolute place instead.
    """
    path = [entry for entry in map(str, sys.path) if Path(entry).is_absolute()]
    for module in filter(None, map(sys.modules.get, _NEEDED)):
        root = str(Path(str(module.__file__)).resolve().parent.parent)
        if not any(Path(entry).resolve() == Path(root) for entry in path):
            path.insert(0, root)
    return path
