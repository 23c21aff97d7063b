"""Workers forked in advance: a command that starts with one thread need not pay for their imports again.

Only for a process that is ours and has no other thread yet; a library must not fork its caller. Whoever does not call
``prepared`` gets workers that are programs of their own.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from fastdl import worker
from fastdl.pipe import anonymous_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NoReturn

# All that a worker may inherit. Credentials and proxy passwords live in other variables and stay with the caller.
_ENVIRONMENT = (
    *("PATH", "HOME", "TMPDIR", "TZ", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "LD_PRELOAD"),
    *("DYLD_LIBRARY_PATH", "PYTHONHOME", "PYTHONUTF8", "PYTHONDONTWRITEBYTECODE", "SSL_CERT_FILE", "SSL_CERT_DIR"),
)
_GLANCE = 0.002  # seconds between looks at whether a child is gone
_ready: list[tuple[Forked, socket.socket, IO[bytes]]] = []


class Forked:
    """A forked child: as much of ``subprocess.Popen`` as a pool needs of it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def kill(self) -> None:
        """End it at once, unless it was waited for already."""
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit code, negative for a signal.

        Raises:
            TimeoutExpired: it is still there after ``timeout`` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, 0 if deadline is None else os.WNOHANG)
            except ChildProcessError:  # somebody ignores SIGCHLD: the kernel told nobody
                self.returncode = 0
                break
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
            elif deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(["fastdl worker"], timeout or 0.0)
            else:
                time.sleep(_GLANCE)
        return self.returncode


@contextmanager
def prepared(count: int) -> Iterator[None]:
    """Have ``count`` forked workers wait for a pool that is made inside the block; in a process of one thread only."""
    try:
        if threading.active_count() == 1 and os.access("/proc/self/mem", os.W_OK):
            with suppress(OSError):  # then the pool starts its workers itself, and says what is short
                _prepare(count)
        yield
    finally:
        while (waiting := take()) is not None:
            process, pipe, errors = waiting
            pipe.close()
            errors.close()
            process.kill()
            process.wait()


def harmless_environment() -> dict[str, str]:
    """Return the variables that a worker may know: none that could be a secret."""
    return {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Start a child with SIGINT held back until it has decided to ignore it; its traceback is nobody's business."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def take() -> tuple[Forked, socket.socket, IO[bytes]] | None:
    """Return a worker that waits, our end of its pipe and what it says on standard error; None if there is none."""
    return _ready.pop(0) if _ready else None


def _prepare(count: int) -> None:
    gc.freeze()  # what is shared with children stays shared while nobody walks through it
    with interrupts_blocked():
        for _ in range(count):
            _fork()


def _fork() -> None:
    errors = anonymous_file()
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        _work(theirs, ours, errors)
    theirs.close()
    _ready.append((Forked(pid), ours, errors))


def _work(pipe: socket.socket, ours: socket.socket, errors: IO[bytes]) -> NoReturn:
    """Be a worker: nothing of the command's may be left, least of all its way out."""
    try:
        ours.close()
        for _, other, log in _ready:
            other.close()
            log.close()
        _ready.clear()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for number, file in ((0, nowhere), (1, nowhere), (2, errors.fileno())):
            os.dup2(file, number)
        _wipe()
        worker.main(pipe)
    except BaseException as error:  # noqa: BLE001 - the last words of a process that may not return
        os.write(2, f"{type(error).__name__}: {error}\n".encode("utf-8", "replace"))
    os._exit(1)


def _wipe() -> None:
    """Overwrite the command's arguments and environment, which may hold secrets: anybody who lists workers sees them.

    Raises:
        OSError: the kernel does not let a process write its own memory; then it must not be a worker.
    """
    kept = harmless_environment()
    os.environ.clear()
    sys.argv[:] = sys.orig_argv[:] = []
    fields = Path("/proc/self/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    # From the third field on; these are arg_start, arg_end, env_start and env_end. Source: proc_pid_stat(5).
    arguments, arguments_end, environment, environment_end = map(int, fields[45:49])
    memory = os.open("/proc/self/mem", os.O_WRONLY | os.O_CLOEXEC)
    try:
        nbytes = arguments_end - arguments
        os.pwrite(memory, b"fastdl.worker"[: nbytes - 1].ljust(nbytes, b"\0"), arguments)
        os.pwrite(memory, bytes(environment_end - environment), environment)
    finally:
        os.close(memory)
    os.environ.update(kept)
