"""Workers forked ahead: only where that is safe, gone when nobody takes them, and as good as started ones."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.servers.scripted import Pattern, ranged, serving

if TYPE_CHECKING:
    from pathlib import Path

CHILDREN = """
import os
from pathlib import Path
from fastdl import prefork

def children():
    return Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
"""


def script(text: str, **environment: str) -> str:
    """Run a program of one thread; return what it prints."""
    command = [sys.executable, "-c", CHILDREN + text]
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, env=os.environ | environment
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_who_is_not_taken_is_ended() -> None:
    """Two wait inside the block, none is left behind it."""
    assert script("with prefork.prepared(2):\n    print(len(children()))\nprint(len(children()))") == "2\n0"


def test_a_process_of_several_threads_does_not_fork() -> None:
    """Its locks would be held for ever by threads that the child does not have."""
    text = """
import threading
stop = threading.Event()
thread = threading.Thread(target=stop.wait)
thread.start()
with prefork.prepared(2):
    print(len(children()), prefork.take())
stop.set()
thread.join()
"""
    assert script(text) == "0 None"


def test_nothing_of_the_commands_environment_stays() -> None:
    """Neither the arguments nor the variables that could be secrets; what workers need is kept."""
    text = """
with prefork.prepared(1):
    process, pipe, errors = prefork.take()
    import time
    deadline = time.monotonic() + 20
    arguments = Path(f"/proc/{process.pid}/cmdline")
    while not arguments.read_bytes().startswith(b"fastdl.worker") and time.monotonic() < deadline:
        pass
    print(arguments.read_bytes().strip(b"\\0"))
    while b"CANARY" in Path(f"/proc/{process.pid}/environ").read_bytes() and time.monotonic() < deadline:
        pass
    print(b"CANARY" in Path(f"/proc/{process.pid}/environ").read_bytes())
    process.kill()
    print(process.wait(), process.wait())
"""
    assert script(text, OSS_ACCESS_KEY_SECRET="CANARY") == "b'fastdl.worker'\nFalse\n-9 -9"


def test_the_end_of_a_child_is_told() -> None:
    """As Popen does: a code, a negative signal, or TimeoutExpired."""
    text = """
import subprocess
pid = os.fork()
if not pid:
    os._exit(7)
print(prefork.Forked(pid).wait(20.0))
pid = os.fork()
if not pid:
    import signal
    signal.pause()
child = prefork.Forked(pid)
try:
    child.wait(0.01)
except subprocess.TimeoutExpired:
    print("still there")
child.kill()
print(child.wait())
child.kill()
"""
    assert script(text) == "7\nstill there\n-9"


def test_a_child_that_the_kernel_took_away_is_gone() -> None:
    """Whoever ignores SIGCHLD, as some parents leave it, cannot wait for children; that is no failure."""
    text = """
import signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
pid = os.fork()
if not pid:
    os._exit(7)
child = prefork.Forked(pid)
print(child.wait())
child.kill()
"""
    assert script(text) == "0"


@pytest.mark.parametrize(
    "around",
    [
        "exec {} <&- >&- 2>&-",
        "exec {} <&-",
        "exec {} >&- 2>&-",
        (
            "exec {python} -c 'import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); "
            "os.execv(sys.argv[1], sys.argv[1:])' {}"
        ),
    ],
)
def test_the_command_in_odd_surroundings(tmp_path: Path, around: str) -> None:
    """With standard streams closed or SIGCHLD ignored it does its work as ever."""
    pattern = Pattern(12 * 1024 * 1024)
    with serving(ranged(pattern)) as server:
        command = f"{sys.executable} -m fastdl {server.url()} -o {tmp_path / 'out'}"
        line = around.replace("{python}", sys.executable).replace("{}", command)
        assert subprocess.run(["sh", "-c", line], check=False, timeout=60).returncode == 0
    assert (tmp_path / "out").read_bytes() == pattern.read(0, pattern.size)


def test_forked_workers_that_end_at_once_are_replaced_by_programs(tmp_path: Path) -> None:
    """Where a child cannot wipe what it inherited it must not work; the download does without it."""
    pattern = Pattern(12 * 1024 * 1024)
    text = f"""
import sys
def fail():
    raise OSError("no")
prefork._wipe = fail
sys.argv[1:] = [sys.argv[1], "-o", {str(tmp_path / "out")!r}, "-w", "3"]
from fastdl.cli import main
main()
"""
    with serving(ranged(pattern)) as server:
        command = [sys.executable, "-c", CHILDREN + text, server.url()]
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")
    assert (tmp_path / "out").read_bytes() == pattern.read(0, pattern.size)
