"""The command as a process of its own session: started, watched through /proc, killed with all its descendants."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastdl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PATIENCE = 60.0  # seconds until a wait counts as a hang; only failing tests ever take as long
GONE = 1.0  # seconds that descendants of a killed command may live
_POLL = 0.002  # seconds between two looks at what offers no event
_PACKAGES = Path(fastdl.__file__).parents[1]


class Running:
    """A command under way; :func:`running` ends it. Its output goes to files, so that it never waits for a reader."""

    def __init__(self, command: Sequence[str], folder: Path, cwd: Path | None, environment: dict[str, str]) -> None:
        self._folder = folder
        environment = os.environ | {"PYTHONPATH": str(_PACKAGES)} | environment
        with self._path("out").open("wb") as out, self._path("err").open("wb") as err:
            self.process = subprocess.Popen(
                command,
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Process id of the command, which is also that of its session and group."""
        return self.process.pid

    @property
    def ended(self) -> bool:
        """Whether the command itself is over."""
        return self.process.poll() is not None

    @property
    def stdout(self) -> str:
        """What was printed so far."""
        return self._path("out").read_text("utf-8")

    @property
    def stderr(self) -> str:
        """What was complained about so far."""
        return self._path("err").read_text("utf-8")

    @property
    def result(self) -> dict[str, Any]:
        """The last JSON line."""
        result: dict[str, Any] = json.loads(self.stdout.splitlines()[-1])
        return result

    def session(self) -> list[int]:
        """List the live processes of the session, whoever their parents are by now; zombies do not live."""
        found = []
        for pid in _pids():
            with suppress(OSError):
                state, *numbers = _stat(pid)
                if state not in "ZX" and numbers[2] == str(self.pid):
                    found.append(pid)
        return found

    def workers(self) -> list[int]:
        """List the live processes of the pool, the command's own or orphaned."""
        return [pid for pid in self.session() if b"fastdl.worker" in _command_line(pid)]

    def kill_tree(self) -> None:
        """SIGKILL to the command and every descendant in one call, so that nobody sees another one die first."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()

    def wait(self, seconds: float = PATIENCE) -> int:
        """Wait for the command's end and return its exit code.

        Raises:
            TimeoutError: it hangs.
        """
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            message = f"still running after {seconds} s; stderr: {self.stderr[-2000:]}"
            raise TimeoutError(message) from None

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Poll ``condition`` until it holds.

        Raises:
            AssertionError: the command ended before.
            TimeoutError: it did not hold in time.
        """
        wait_until(lambda: self.ended or condition(), what=lambda: self.stderr[-2000:])
        assert not self.ended or condition(), f"ended with {self.process.returncode}: {self.stderr[-2000:]}"

    def wait_gone(self, seconds: float = GONE) -> None:
        """Wait until no process of the session lives.

        Raises:
            TimeoutError: an orphan does.
        """
        wait_until(
            lambda: not self.session(), seconds, lambda: f"orphans: {[_command_line(p) for p in self.session()]}"
        )

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}-{id(self)}"


@contextmanager
def running(
    folder: Path,
    *arguments: object,
    prefix: Sequence[object] = (),
    cwd: Path | None = None,
    environment: dict[str, str] | None = None,
) -> Iterator[Running]:
    """Run ``fastdl ARGUMENTS`` behind ``prefix``; outputs land in ``folder``; nothing survives the block."""
    command = [*map(str, prefix), sys.executable, "-m", "fastdl", *map(str, arguments)]
    with running_any(folder, command, cwd=cwd, environment=environment) as command_running:
        yield command_running


@contextmanager
def running_any(
    folder: Path, command: Sequence[str], *, cwd: Path | None = None, environment: dict[str, str] | None = None
) -> Iterator[Running]:
    """Run any command likewise."""
    folder.mkdir(exist_ok=True)
    command_running = Running(command, folder, cwd, environment or {})
    try:
        yield command_running
    finally:
        command_running.kill_tree()


def run(folder: Path, *arguments: object, prefix: Sequence[object] = (), expect: int = 0) -> Running:
    """Run ``fastdl ARGUMENTS`` to its end, which must be exit code ``expect`` with no traceback."""
    with running(folder, *arguments, prefix=prefix) as command:
        code = command.wait()
        assert code == expect, f"exit {code}, expected {expect}: {command.stderr[-2000:]}"
        assert "Traceback" not in command.stderr
        command.wait_gone()
        return command


def wait_until(condition: Callable[[], object], seconds: float = PATIENCE, what: Callable[[], str] = str) -> None:
    """Poll ``condition`` until it holds.

    Raises:
        TimeoutError: it did not within ``seconds``; the message is ``what()``.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            message = f"not within {seconds} s: {what()}"
            raise TimeoutError(message)
        time.sleep(_POLL)


def program(name: str, package: str) -> str:
    """Find an installed program.

    Raises:
        RuntimeError: it is not installed.
    """
    found = shutil.which(name)
    if found is None:
        message = f"no {name} here: apt-get install {package}"
        raise RuntimeError(message)
    return found


def killing_at(path: Path, calls: str, when: int = 1) -> list[str]:
    """Return the prefix under which the command and its tree die on entering the ``when``-th of ``calls`` on ``path``.

    strace ends itself with the signal that ended its child; the rest of the tree is the caller's to kill.
    """
    inject = f"inject={calls}:signal=KILL:when={when}"
    strace = program("strace", "strace")
    return [strace, "-f", "-qq", "-o", "/dev/null", "-P", str(path), "-e", f"trace={calls}", "-e", inject]


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - names, not paths


def _stat(pid: int) -> list[str]:
    """Return the fields behind the command's name: state, parent, group, session, … Source: proc(5)."""
    return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
