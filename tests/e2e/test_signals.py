"""Signals stop the command within two seconds, once and cleanly; what is finished stays."""

from __future__ import annotations

import hashlib
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import fastdl
from tests.e2e.partial import bits, checkpoint_of, leftovers, marked
from tests.e2e.processes import PATIENCE, program, run, running, running_any, wait_until
from tests.servers.scripted import Exchange, Pattern, ranged, serving, stall_after, stall_before_head

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.servers.wire import Server

MIB = 1 << 20
PART = MIB
SIZE = 24 * MIB + 5
PATTERN = Pattern(SIZE)
PROMPT = 2.0  # seconds that a clean stop may take
SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
FLAGS = ("-p", PART, "-x", 4, "-w", 2)


@dataclass(frozen=True, slots=True)
class Scene:
    """A server that stands still in the middle of each answer until ``gate`` opens, and an output."""

    server: Server
    gate: threading.Event
    output: Path
    logs: Path

    @property
    def arguments(self) -> tuple[object, ...]:
        """The command's."""
        return (self.server.url(), "-o", self.output, *FLAGS)

    @property
    def half_way(self) -> bool:
        """Whether the caller's connection and workers' have marked parts, and more are under way."""
        return bits(checkpoint_of(self.output)) >= 4 and len(self.server.log) >= 4

    def resume(self) -> None:
        """Finish what a signal stopped: the marked parts are used and the bytes exact."""
        _, parts = marked(checkpoint_of(self.output))
        assert len(parts) >= 4
        self.gate.set()
        result = run(self.logs, *self.arguments, "--json").result
        assert self.output.read_bytes() == PATTERN.read(0, SIZE)
        assert (result["parts_reused"], result["parts_damaged"], result["started_over"]) == (len(parts), [], "")
        assert leftovers(self.output.parent) == ["object"]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Serve two and a half parts of each answer, then nothing before the gate opens."""
    gate = threading.Event()
    right = ranged(PATTERN)

    def handle(exchange: Exchange) -> None:
        exchange.otherwise = right
        stall_after(PART * 5 // 2, gate)(exchange)

    (tmp_path / "out").mkdir()
    with serving(handle) as server:
        yield Scene(server, gate, tmp_path / "out" / "object", tmp_path / "logs")


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_signal_is_one_clean_stop(scene: Scene, number: signal.Signals, code: int) -> None:
    """Within two seconds: the signal's exit code, one line, no process left, the checkpoint kept, resumable."""
    with running(scene.logs, *scene.arguments) as command:
        command.wait_until(lambda: scene.half_way)
        began = time.monotonic()
        os.kill(command.pid, number)
        assert command.wait() == code
        assert time.monotonic() - began < PROMPT
        command.wait_gone()
        assert command.stderr == f"fastdl: stopped by {number.name}; run again to resume\n"
    assert leftovers(scene.output.parent) == ["object.cp", "object.part"]
    scene.resume()


def test_a_signal_while_a_digest_is_computed(scene: Scene) -> None:
    """The thread that hashes behind the frontier ends as promptly; the next run hashes from the first byte."""
    flags = ("--checksum", f"sha256={hashlib.sha256(PATTERN.read(0, SIZE)).hexdigest()}")
    with running(scene.logs, *scene.arguments, *flags) as command:
        command.wait_until(lambda: scene.half_way)
        began = time.monotonic()
        os.kill(command.pid, signal.SIGINT)
        assert command.wait() == 130
        assert time.monotonic() - began < PROMPT
        command.wait_gone()
    scene.gate.set()
    result = run(scene.logs, *scene.arguments, *flags, "--json").result
    assert (result["integrity"], result["parts_reused"] >= 4) == ("sha256", True)


def test_ctrl_c_reaches_the_whole_group(scene: Scene) -> None:
    """A terminal sends SIGINT to every process of the group: the workers leave the decision to the command."""
    with running(scene.logs, *scene.arguments) as command:
        command.wait_until(lambda: scene.half_way)
        began = time.monotonic()
        os.killpg(command.pid, signal.SIGINT)
        assert command.wait() == 130
        assert time.monotonic() - began < PROMPT
        command.wait_gone()
        assert command.stderr == "fastdl: stopped by SIGINT; run again to resume\n"
    scene.resume()


def test_ctrl_c_while_the_command_still_imports(tmp_path: Path) -> None:
    """Nothing has begun, so nothing is said: the process ends as by any signal, and not in a traceback."""
    (tmp_path / "click.py").write_text("import os, signal; open(os.environ['UP'], 'w').close(); signal.pause()")
    up = tmp_path / "up"
    with running(
        tmp_path, "--help", environment={"PYTHONPATH": f"{tmp_path}:{Path(fastdl.__file__).parents[1]}", "UP": str(up)}
    ) as command:
        command.wait_until(up.exists)
        os.kill(command.pid, signal.SIGINT)
        assert command.wait() == -signal.SIGINT
        assert command.stderr == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_at_once(scene: Scene, number: signal.Signals) -> None:
    """Whatever the first one is still doing: the same exit codes, no process left, still resumable."""
    with running(scene.logs, *scene.arguments) as command:
        command.wait_until(lambda: scene.half_way)
        began = time.monotonic()
        while not command.ended:  # as an impatient user does; the second one may come at any moment of the first
            with suppress(ProcessLookupError):
                os.killpg(command.pid, number)
        assert command.wait() == 128 + number
        assert time.monotonic() - began < PROMPT
        command.wait_gone()
        assert "Traceback" not in command.stderr
    assert not scene.output.exists()
    scene.resume()


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_signal_before_the_first_answer(tmp_path: Path, number: signal.Signals, code: int) -> None:
    """A server that says nothing can be interrupted too, and nothing stays."""
    output = tmp_path / "out" / "object"
    output.parent.mkdir()
    with serving(stall_before_head()) as server, running(tmp_path / "logs", server.url(), "-o", output) as command:
        server.wait_for(1)
        began = time.monotonic()
        os.kill(command.pid, number)
        assert command.wait() == code
        assert time.monotonic() - began < PROMPT
        command.wait_gone()
    assert leftovers(output.parent) == []


def test_nohup_is_respected(scene: Scene) -> None:
    """A SIGHUP that was ignored before the command began stays ignored."""
    with running(scene.logs, *scene.arguments, prefix=[program("nohup", "coreutils")]) as command:
        command.wait_until(lambda: scene.half_way)
        os.kill(command.pid, signal.SIGHUP)
        scene.gate.set()
        assert command.wait() == 0, command.stderr
    assert scene.output.read_bytes() == PATTERN.read(0, SIZE)


def test_json_tells_of_the_signal(scene: Scene) -> None:
    """A program that reads the lines sees an error event with the exit code."""
    with running(scene.logs, *scene.arguments, "--json") as command:
        command.wait_until(lambda: scene.half_way)
        os.kill(command.pid, signal.SIGTERM)
        assert command.wait() == 143
        assert (command.result["event"], command.result["exit_code"]) == ("error", 143)


def test_keyboard_interrupt_passes_through_the_library(scene: Scene) -> None:
    """The library has no handler of its own: KeyboardInterrupt reaches the caller, no process or thread stays."""
    script = f"""
import threading
import fastdl
try:
    fastdl.download({scene.server.url()!r}, {str(scene.output)!r}, part_size={PART}, connections=4, workers=2)
except KeyboardInterrupt:
    import os, pathlib
    children = pathlib.Path(f"/proc/self/task/{{os.getpid()}}/children").read_text()
    print("interrupted", threading.active_count(), children)
"""
    with running_any(scene.logs, [sys.executable, "-c", script]) as caller:
        wait_until(lambda: scene.half_way)
        began = time.monotonic()
        os.killpg(caller.pid, signal.SIGINT)
        assert caller.wait() == 0, caller.stderr
        assert time.monotonic() - began < PROMPT
        assert caller.stdout.split() == ["interrupted", "1"]
        assert caller.stderr == ""
    scene.resume()


class Terminal:
    """The command under a pseudo-terminal of its own, whose output is collected as it comes."""

    def __init__(self, *arguments: object) -> None:
        ours, theirs = pty.openpty()
        environment = os.environ | {"TERM": "xterm", "COLUMNS": "120", "LINES": "24"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fastdl", *map(str, arguments)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment,
            start_new_session=True,
        )
        os.close(theirs)
        self._ours = ours
        self._output = bytearray()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def text(self) -> str:
        """All that the terminal was told so far."""
        return bytes(self._output).decode("utf-8", "replace")

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Poll ``condition`` until it holds; the command must not end before."""
        wait_until(lambda: self.process.poll() is not None or condition(), what=lambda: self.text)
        assert self.process.poll() is None, self.text

    def wait(self) -> int:
        """Wait for the command's end and for all of its output."""
        code = self.process.wait(PATIENCE)
        self._reader.join()
        return code

    def close(self) -> None:
        """End everything."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join()
        os.close(self._ours)

    def _read(self) -> None:
        with suppress(OSError):  # EIO: the last process that had the terminal open is gone
            while data := os.read(self._ours, 65536):
                self._output.extend(data)


@contextmanager
def terminal(*arguments: object) -> Iterator[Terminal]:
    """Run the command under a terminal until the end of the block."""
    opened = Terminal(*arguments)
    try:
        yield opened
    finally:
        opened.close()


def assert_clean(text: str) -> None:
    """The cursor is shown again, colours are off, and the next prompt begins on a line of its own."""
    assert text.endswith("\n"), repr(text[-200:])
    assert text.rfind("\x1b[?25h") >= text.rfind("\x1b[?25l"), "the cursor stays hidden"
    last = re.findall(r"\x1b\[([\d;]*)m", text)
    assert not last or last[-1] in ("", "0"), "colours stay on"


def test_the_bar_of_a_finished_download(scene: Scene) -> None:
    """At a terminal: percent, bytes and speed while it runs, a summary at its end, a clean terminal after it."""
    with terminal(*scene.arguments) as screen:
        screen.wait_until(lambda: scene.half_way and "%" in screen.text)
        scene.gate.set()
        assert screen.wait() == 0, screen.text
    assert re.search(r"\d+%", screen.text)
    assert re.search(r"[\d,.]+ MB/s", screen.text)
    assert "100%" in screen.text
    assert f"{SIZE:,} bytes" in screen.text
    assert_clean(screen.text)


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_the_terminal_is_clean_after_a_signal(scene: Scene, number: signal.Signals, code: int) -> None:
    """Interrupted with the bar on the screen, the terminal is as it was before, and the last line says why."""
    with terminal(*scene.arguments) as screen:
        screen.wait_until(lambda: scene.half_way and "%" in screen.text)
        os.killpg(screen.process.pid, number)
        assert screen.wait() == code
    assert f"stopped by {number.name}" in screen.text.splitlines()[-1]
    assert_clean(screen.text)
    scene.resume()


def test_no_bar_where_there_is_no_terminal(scene: Scene) -> None:
    """Redirected, the command prints nothing but its errors; -q prints nothing at a terminal either."""
    scene.gate.set()
    command = run(scene.logs, *scene.arguments)
    assert (command.stdout, command.stderr) == ("", "")
    with terminal(*scene.arguments, "-q") as screen:
        assert screen.wait() == 0
    assert screen.text == ""
