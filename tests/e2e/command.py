"""The real command in a process of its own, in an environment that holds nothing but what a test gives it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any

import fastdl
from tests.servers.scripted import Exchange, Handler, short_206

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PATIENCE = 20.0  # seconds until a command counts as hanging; only failing tests ever take as long
# What a Python may need to start at all; the last one only if scripts/coverage measures.
_INHERITED = ("PATH", "LD_LIBRARY_PATH", "TMPDIR", "COVERAGE_PROCESS_CONFIG")
_PACKAGES = str(Path(fastdl.__file__).parents[1])  # of the very fastdl that the tests import


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended."""

    code: int
    events: tuple[dict[str, Any], ...]  # the JSON lines on standard output; empty without --json
    stdout: str
    stderr: str

    @property
    def last(self) -> dict[str, Any]:
        """The event ``done`` or ``error``."""
        return self.events[-1]

    @property
    def message(self) -> str:
        """The one line that told of the failure."""
        return self.stderr.splitlines()[-1]


class Running:
    """A command under way; ``running`` starts it."""

    def __init__(self, process: subprocess.Popen[bytes], out: IO[bytes], err: IO[bytes], *, as_json: bool) -> None:
        self.process, self._out, self._err, self._as_json = process, out, err, as_json

    def finish(self, timeout: float = PATIENCE) -> Outcome:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: it hangs.
        """
        code = self.process.wait(timeout)
        texts = []
        for stream in (self._out, self._err):
            stream.seek(0)
            texts.append(stream.read().decode("utf-8", "surrogateescape"))
        return _outcome(code, *texts, as_json=self._as_json)

    def children(self) -> tuple[int, ...]:
        """Return the processes that it started and that run now: its workers."""
        own = f"/proc/{self.process.pid}/task"
        lists = [Path(task.path, "children").read_text() for task in os.scandir(own)]
        return tuple(int(number) for text in lists for number in text.split())


@contextmanager
def running(
    *arguments: str | Path, cwd: Path, variables: Mapping[str, str] | None = None, as_json: bool = True
) -> Iterator[Running]:
    """Start ``fastdl ARGUMENTS`` in ``cwd``; at the end of the block it is killed if it still runs."""
    command = [sys.executable, "-m", "fastdl", *map(str, arguments), *(["--json"] if as_json else [])]
    environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    environment |= {"PYTHONPATH": _PACKAGES, "HOME": str(cwd), "LC_ALL": "C.UTF-8", **(variables or {})}
    with TemporaryFile() as out, TemporaryFile() as err:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=cwd, env=environment)
        try:
            yield Running(process, out, err, as_json=as_json)
        finally:
            process.kill()
            process.wait()


def run(
    *arguments: str | Path,
    cwd: Path,
    variables: Mapping[str, str] | None = None,
    as_json: bool = True,
    timeout: float = PATIENCE,
) -> Outcome:
    """Run ``fastdl ARGUMENTS`` in ``cwd`` to its end."""
    with running(*arguments, cwd=cwd, variables=variables, as_json=as_json) as command:
        return command.finish(timeout)


def left_to_workers(part: int, after: int, faults: Mapping[int, Handler] | None = None) -> dict[int, Handler]:
    """Make ``faults`` for a server whose requests but the first are all sent by workers until the ``after``-th.

    The first one, which the command's own process sends, is answered with one part and held until the ``after``-th
    request is there. Without this a small object would be over before any worker is up.
    """
    gate = threading.Event()

    def first(exchange: Exchange) -> None:
        exchange.break_body(1, lambda: exchange.hold(gate))
        short_206(part)(exchange)

    def opening(exchange: Exchange) -> None:
        gate.set()
        given.get(after, exchange.otherwise)(exchange)

    given = dict(faults or {})
    return {1: first, **given, after: opening}


def names(folder: Path) -> set[str]:
    """List what is in ``folder``."""
    return {path.name for path in folder.iterdir()}


def _outcome(code: int, stdout: str, stderr: str, *, as_json: bool) -> Outcome:
    """Check what holds for every run, whatever its end."""
    assert "Traceback" not in stdout + stderr, stderr
    lines = stderr.splitlines()
    assert all(line.startswith("fastdl: ") for line in lines), stderr
    assert (code == 0) or lines, f"exit code {code} without a word"
    if not as_json:
        return Outcome(code, (), stdout, stderr)
    events = tuple(json.loads(line) for line in stdout.splitlines())
    assert events, stderr
    assert all(event["event"] == "progress" for event in events[:-1]), stdout
    if code == 0:
        assert events[-1]["event"] == "done", stdout
    else:
        assert (events[-1]["event"], events[-1]["exit_code"]) == ("error", code), stdout
        assert lines[-1] == f"fastdl: {events[-1]['message']}"
    return Outcome(code, events, stdout, stderr)
