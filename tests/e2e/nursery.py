"""Commands without their start: a process that has imported fastdl already forks one for each run.

What is forked is the real command from its first line on, with workers and signals of its own; only the interpreter's
start and the imports, nine tenths of what a small download costs, are paid for once. The nursery adopts whatever a
killed command leaves behind, so that the end of *every* process of a run is an event and not a search.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

from fastdl.__main__ import run
from fastdl.retry import Backoff
from tests.fault.seccomp import watch_me

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PATIENCE = 60.0  # seconds until a run counts as a hang; only failing tests ever take as long
GONE = 2.0  # seconds that workers may outlive their command
_ROOT = Path(__file__).resolve().parents[2]
_SIGNALS = frozenset((signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER. Source: prctl(2)
_GLANCE = 0.002  # seconds between looks at children that offer no event
# As a download does, and a look; the last two are click's and Python's own, for the first short flag and host name.
_IMPORTS = (
    *("fastdl.api", "fastdl.cli", "fastdl.commands.get", "fastdl.commands.verify", "fastdl.kept", "fastdl.prefork"),
    *("fastdl.repair", "fastdl.verification", "difflib", "encodings.ascii", "encodings.idna"),
)
_BACKING_OFF = ("fastdl.api", "fastdl.verification")  # who calls make_backoff
# What a command may inherit; a test's own variables come beside it.
_INHERITED = ("PATH", "LD_LIBRARY_PATH", "TMPDIR", "LC_ALL")


class Born:
    """A command under way; its output goes to files, so that it never waits for a reader."""

    def __init__(self, nursery: Nursery, pid: int, out: Path, err: Path) -> None:
        self.pid = pid  # also that of its session and process group
        self.code: int | None = None  # as of ``Popen.returncode``
        self._nursery = nursery
        self._out, self._err = out, err
        self._pidfd = os.pidfd_open(pid)

    @property
    def stdout(self) -> str:
        """What was printed so far."""
        return self._out.read_text("utf-8")

    @property
    def stderr(self) -> str:
        """What was complained about so far."""
        return self._err.read_text("utf-8")

    @property
    def last(self) -> dict[str, Any]:
        """The last JSON line: ``done`` or ``error``."""
        last: dict[str, Any] = json.loads(self.stdout.splitlines()[-1])
        return last

    def workers(self) -> list[int]:
        """List the processes that the command started and that have not ended."""
        with suppress(OSError):
            return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text("ascii").split()]
        return []

    def ended(self, seconds: float = 0.0) -> bool:
        """Wait at most ``seconds`` for the command's end; tell whether it came. Workers may still live."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def signal(self, number: int) -> None:
        """Send a signal to the command alone, unless it ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def kill_tree(self) -> None:
        """SIGKILL the command and every descendant in one call, so that nobody sees another one die first."""
        if self.code is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def wait(self, seconds: float = PATIENCE) -> int:
        """Wait until the command and all its descendants ended; return the command's exit code.

        Raises:
            TimeoutError: it hangs, or leaves an orphan; nothing of it is left then.
        """
        if self.code is not None:
            return self.code
        hung = not self.ended(seconds)
        if hung:
            self.kill_tree()
        self.code, orphans = self._nursery.reap(self.pid)
        os.close(self._pidfd)
        if hung:
            message = f"still running after {seconds} s; stderr: {self.stderr[-2000:]}"
            raise TimeoutError(message)
        if orphans:
            message = f"{orphans} processes outlived their command for too long; stderr: {self.stderr[-2000:]}"
            raise TimeoutError(message)
        return self.code


class Nursery:
    """The process that forks; :func:`nursery` starts and ends it. For one thread."""

    def __init__(self, folder: Path, gone: float, backoff: float | None) -> None:
        self._folder = folder
        self._gone = gone
        self._count = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.nursery", *([] if backoff is None else [str(backoff)])],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={name: os.environ[name] for name in _INHERITED if name in os.environ} | {"HOME": str(folder)},
        )

    def start(
        self,
        *arguments: object,
        cwd: Path | None = None,
        variables: Mapping[str, str] | None = None,
        judge: str | None = None,
    ) -> Born:
        """Start ``fastdl ARGUMENTS`` in ``cwd``, in an environment of little but ``variables``.

        With the address of a ``judge`` its system calls are that one's to decide.
        """
        self._count += 1
        out, err = (self._folder / f"{name}-{self._count % 16}" for name in ("out", "err"))
        for each in (out, err):  # who is killed at once says nothing, and not what the one before said
            each.write_bytes(b"")
        order = {
            "arguments": list(map(str, arguments)),
            "cwd": str(cwd or self._folder),
            "variables": dict(variables or {}),
            "out": str(out),
            "err": str(err),
            "judge": judge,
        }
        return Born(self, self._ask(order)["pid"], out, err)

    def run(self, *arguments: object, cwd: Path | None = None, seconds: float = PATIENCE) -> Born:
        """Run ``fastdl ARGUMENTS`` to its end, whatever that is."""
        born = self.start(*arguments, cwd=cwd)
        born.wait(seconds)
        return born

    def reap(self, pid: int) -> tuple[int, int]:
        """Return the exit code of a command that ended, and how many of its descendants had to be killed."""
        answer = self._ask({"reap": pid, "gone": self._gone})
        return answer["code"], answer["orphans"]

    def close(self) -> None:
        """End it; commands under way go with it."""
        self._stdin.close()
        self._process.wait()
        self._stdout.close()

    @property
    def _stdin(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def _stdout(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        self._stdin.write(json.dumps(order).encode() + b"\n")
        line = self._stdout.readline()
        assert line, f"the nursery ended: {self._process.poll()}"
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def nursery(folder: Path, *, gone: float = GONE, backoff: float | None = None) -> Iterator[Nursery]:
    """Have commands forked until the end of the block; what they print lands in ``folder``.

    ``gone`` is for how many seconds workers may outlive their command, ``backoff`` how many commands wait after a
    failure, to begin with, for tests of what they do after that.
    """
    folder.mkdir(exist_ok=True)
    keeper = Nursery(folder, gone, backoff)
    try:
        yield keeper
    finally:
        keeper.close()


def _bear(order: dict[str, Any]) -> int:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # until the child is the command
    pid = os.fork()
    if pid == 0:
        _live(order)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


def _live(order: dict[str, Any]) -> NoReturn:
    """Be the command."""
    os.setsid()
    nowhere = os.open(os.devnull, os.O_RDONLY)
    files = [os.open(order[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600) for name in ("out", "err")]
    for number, fd in enumerate((nowhere, *files)):
        os.dup2(fd, number)
        os.close(fd)
    os.chdir(order["cwd"])
    os.environ.update(order["variables"])
    for number in _SIGNALS:  # as the command's first lines leave them; nohup and shells' background ignore some
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    sys.argv[:] = ["fastdl", *order["arguments"]]
    if order["judge"] is not None:
        watch_me(order["judge"])
    run()


def _reap(pid: int, gone_within: float) -> dict[str, int]:
    """Wait for a whole process group; kill what outlives its leader for too long."""
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    deadline, killed = time.monotonic() + gone_within, 0
    while True:
        try:
            gone, _ = os.waitpid(-pid, os.WNOHANG)
        except ChildProcessError:
            return {"code": code, "orphans": killed}
        if gone == 0:
            if time.monotonic() > deadline:
                killed += 1
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(-pid, 0)
            else:
                time.sleep(_GLANCE)


def main() -> None:
    """Obey orders from standard input until it ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_SUBREAPER, 1, 0, 0, 0)
    for module in _IMPORTS:
        importlib.import_module(module)
    if len(sys.argv) > 1:
        _wait_less(float(sys.argv[1]))
    gc.collect()
    gc.freeze()  # what is shared with commands stays shared while nobody walks through it
    orders = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    for line in orders:
        order = json.loads(line)
        answer = _reap(order["reap"], order["gone"]) if "reap" in order else {"pid": _bear(order)}
        answers.write(json.dumps(answer).encode() + b"\n")
    for pid in _children():
        os.kill(pid, signal.SIGKILL)


def _wait_less(base: float) -> None:
    """Let the waits between attempts begin at ``base`` seconds; how often is tried stays the command's."""

    def hurried(retry: int) -> Backoff:
        return Backoff(attempts=retry + 1, base=base)

    for name in _BACKING_OFF:
        vars(importlib.import_module(name))["make_backoff"] = hurried


def _children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text("ascii").split()]


if __name__ == "__main__":
    main()
