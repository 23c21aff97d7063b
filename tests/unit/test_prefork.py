"""Workers forked ahead: only where that is safe, gone when nobody takes them, and as good as started ones."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fastdl.prefork import Forked

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


def test_a_foreign_child_cannot_be_waited_for() -> None:
    """The number of no child of ours is an error, not a hang."""
    with pytest.raises(ChildProcessError):
        Forked(1).wait()
