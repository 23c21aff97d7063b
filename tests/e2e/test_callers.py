"""The library works from wherever it is called: scripts, daemonic children, threads, forks, strange directories."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import fastdl
from tests.e2e.processes import PATIENCE, running_any
from tests.servers.scripted import (
    Handler,
    Pattern,
    from_request,
    hang_up,
    ranged,
    reset_after,
    serving,
    status,
    truncate_after,
    wrong_content_range,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers.wire import Server

MIB = 1 << 20
SIZE = 20 * MIB + 11  # more than the caller's own connection asks for at first, so that workers take part
PATTERN = Pattern(SIZE, seed=4)
PACKAGE = Path(fastdl.__file__).parent
TRAP = "open(__file__ + '.sprung', 'a').close()\nraise SystemExit('the wrong module was imported')\n"


@pytest.fixture
def server() -> Iterator[Server]:
    """Serve the pattern."""
    with serving(ranged(PATTERN)) as started:
        yield started


def run_script(
    folder: Path, server: Server, script: str, *arguments: str, cwd: Path | None = None, options: tuple[str, ...] = ()
) -> str:
    """Run ``script``, which finds URL and output directory in ``URL`` and ``OUT``; it must end well, leaving nothing.

    Returns:
        What it printed.
    """
    out = folder / "out"
    out.mkdir(exist_ok=True)
    path = folder / "scripts" / "caller.py"
    path.parent.mkdir()
    path.write_text(f"URL, OUT = {server.url()!r}, {str(out)!r}\n{script}")
    command = [sys.executable, *options, str(path), *arguments]
    with running_any(folder / "logs", command, cwd=cwd) as caller:
        assert caller.wait(PATIENCE) == 0, caller.stderr
        assert caller.stderr == ""
        caller.wait_gone()
        return caller.stdout


def assert_exact(folder: Path, *names: str) -> None:
    """Check that exactly these files came out, byte for byte."""
    assert sorted(path.name for path in (folder / "out").iterdir()) == sorted(names)
    for name in names:
        assert (folder / "out" / name).read_bytes() == PATTERN.read(0, SIZE)


def test_an_unguarded_script(tmp_path: Path, server: Server) -> None:
    """No ``if __name__ == "__main__"`` is needed: workers never import the caller's script."""
    script = "print('once', flush=True)\nimport fastdl\nfastdl.download(URL, OUT + '/a')\n"
    assert run_script(tmp_path, server, script).splitlines() == ["once"]
    assert_exact(tmp_path, "a")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_daemonic_child(tmp_path: Path, server: Server, method: str) -> None:
    """A daemonic process, as data loaders have them, may not start children by multiprocessing; workers are none."""
    script = f"""
import multiprocessing
import fastdl

def child():
    assert multiprocessing.current_process().daemon
    fastdl.download(URL, OUT + "/a")

if __name__ == "__main__":
    process = multiprocessing.get_context({method!r}).Process(target=child, daemon=True)
    process.start()
    process.join()
    raise SystemExit(process.exitcode)
"""
    run_script(tmp_path, server, script)
    assert_exact(tmp_path, "a")


def test_four_threads_at_once(tmp_path: Path, server: Server) -> None:
    """Downloads of one process share nothing that could be confused."""
    script = """
import threading
import fastdl

threads = [threading.Thread(target=fastdl.download, args=(URL, f"{OUT}/{i}")) for i in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    run_script(tmp_path, server, script)
    assert_exact(tmp_path, "0", "1", "2", "3")


def test_two_threads_with_the_same_output(tmp_path: Path, server: Server) -> None:
    """Locks hold between threads too: one downloads, the other one is told or comes after it."""
    script = """
import threading
import fastdl

outcomes = []
def download():
    try:
        outcomes.append(fastdl.download(URL, OUT + "/a").size)
    except fastdl.Busy:
        outcomes.append("busy")

threads = [threading.Thread(target=download) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(sorted(map(str, outcomes))[0])
"""
    assert run_script(tmp_path, server, script).strip() == str(SIZE)
    assert_exact(tmp_path, "a")


def test_a_process_that_forked(tmp_path: Path, server: Server) -> None:
    """After a download the process forks; both halves download on."""
    script = """
import os
import fastdl

fastdl.download(URL, OUT + "/before")
pid = os.fork()
fastdl.download(URL, OUT + ("/parent" if pid else "/child"))
if pid == 0:
    os._exit(0)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    run_script(tmp_path, server, script)
    assert_exact(tmp_path, "before", "parent", "child")


def test_a_fork_in_the_middle_of_a_download(tmp_path: Path, server: Server) -> None:
    """A process that forks while another thread downloads keeps its download; the child may download too."""
    script = """
import os, threading
import fastdl

begun = threading.Event()
thread = threading.Thread(target=fastdl.download, args=(URL, OUT + "/a"), kwargs={"progress": lambda _: begun.set()})
thread.start()
begun.wait()
pid = os.fork()
if pid == 0:
    fastdl.download(URL, OUT + "/b")
    os._exit(0)
thread.join()
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    run_script(tmp_path, server, script)
    assert_exact(tmp_path, "a", "b")


def set_traps(folder: Path) -> Path:
    """Make a directory of modules that nobody may import."""
    traps = folder / "traps"
    (traps / "fastdl").mkdir(parents=True)
    for name in ("random.py", "socket.py", "signal.py", "urllib3.py", "fastdl/__init__.py", "fastdl/worker.py"):
        (traps / name).write_text(TRAP)
    return traps


def assert_none_sprung(traps: Path) -> None:
    """Check that none was imported."""
    assert [path.name for path in traps.rglob("*.sprung")] == []


def test_a_working_directory_full_of_traps(tmp_path: Path, server: Server) -> None:
    """A random.py, a socket.py or a directory fastdl/ where the caller stands are none of the workers' business."""
    traps = set_traps(tmp_path)
    script = "import fastdl\nfastdl.download(URL, OUT + '/a')\n"
    run_script(tmp_path, server, script, cwd=traps)
    assert_none_sprung(traps)
    assert_exact(tmp_path, "a")


def test_a_caller_that_went_where_traps_are(tmp_path: Path, server: Server) -> None:
    """With '' on its path, as in an interactive session, a caller that has fastdl already changes its directory."""
    traps = set_traps(tmp_path)
    script = f"""
import os, sys
sys.path.insert(0, "")
import fastdl, fastdl.api, fastdl.worker, random, signal, socket, urllib3
os.chdir({str(traps)!r})
fastdl.download(URL, OUT + "/a")
"""
    run_script(tmp_path, server, script)
    assert_none_sprung(traps)
    assert_exact(tmp_path, "a")


@pytest.mark.parametrize("name", ["copy", "with space", "with:colon", "ünï"])
def test_a_package_found_through_a_changed_path(tmp_path: Path, server: Server, name: str) -> None:
    """Workers run the very fastdl that the caller imported, wherever sys.path led to it."""
    shutil.copytree(PACKAGE, tmp_path / name / "fastdl", ignore=shutil.ignore_patterns("__pycache__"))
    script = f"""
import sys
sys.path.insert(0, {str(tmp_path / name)!r})
import fastdl
assert fastdl.__file__.startswith({str(tmp_path / name)!r}), fastdl.__file__
fastdl.download(URL, OUT + "/a")
"""
    run_script(tmp_path, server, script)
    assert_exact(tmp_path, "a")


@pytest.mark.parametrize("entry", ["pathlib.Path(OUT)", "b'/bytes'", "None", "'relative/directory'", "'/no/such'"])
def test_odd_entries_of_the_path(tmp_path: Path, server: Server, entry: str) -> None:
    """Whatever Python itself tolerates in sys.path does not keep workers from starting."""
    script = f"import pathlib, sys\nsys.path.append({entry})\nimport fastdl\nfastdl.download(URL, OUT + '/a')\n"
    run_script(tmp_path, server, script)
    assert_exact(tmp_path, "a")


def test_a_path_changed_after_the_import(tmp_path: Path, server: Server) -> None:
    """The package's own directory may be gone from sys.path once it is imported."""
    script = f"""
import sys
import fastdl.api
sys.path[:] = [entry for entry in sys.path if entry != {str(PACKAGE.parent)!r}]
fastdl.download(URL, OUT + "/a")
"""
    run_script(tmp_path, server, script)
    assert_exact(tmp_path, "a")


def test_relative_paths_and_a_changed_directory(tmp_path: Path, server: Server) -> None:
    """A relative output is where the caller stood when it called, also if it moves on meanwhile."""
    script = """
import os
import fastdl

os.chdir(OUT)
fastdl.download(URL, "a", progress=lambda _: os.chdir("/"))
"""
    run_script(tmp_path, server, script)
    assert_exact(tmp_path, "a")


def test_closed_standard_streams(tmp_path: Path, server: Server) -> None:
    """Services close their standard streams; descriptors 0 to 2 are then anybody's."""
    script = """
import os
for number in range(3): os.close(number)
import fastdl
fastdl.download(URL, OUT + "/a")
os._exit(0)
"""
    run_script(tmp_path, server, script)
    assert_exact(tmp_path, "a")


def test_a_callback_that_raises(tmp_path: Path, server: Server) -> None:
    """What the caller's progress function raises reaches the caller; no process stays, and the rest resumes.

    All but one part for each connection is used again.
    """
    script = """
import fastdl

def stop(event):
    if event.received > 9 << 20:
        raise KeyError("enough")

settings = {"part_size": 1 << 18, "connections": 8}
try:  # a second and more, so that the function is called in the middle
    fastdl.download(URL, OUT + "/a", progress=stop, limit_rate=20 << 20, **settings)
except KeyError:
    print(fastdl.download(URL, OUT + "/a", **settings).parts_reused)
"""
    assert int(run_script(tmp_path, server, script)) >= 9 * 4 - 8
    assert_exact(tmp_path, "a")


def test_handlers_and_logging_stay_the_callers(tmp_path: Path, server: Server) -> None:
    """The library installs no signal handler, configures no logging and leaves no thread, child or descriptor."""
    script = """
import json, logging, os, signal, threading
import fastdl

def state():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)
    handlers = [str(signal.getsignal(number)) for number in numbers]
    mask = [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())]
    return [handlers, mask, logging.getLogger().handlers, threading.active_count(), sorted(os.listdir("/proc/self/fd"))]

fastdl.download(URL, OUT + "/first")
before = state()
fastdl.download(URL, OUT + "/second")
after = state()
print(json.dumps([before, after]))
"""
    before, after = json.loads(run_script(tmp_path, server, script))
    assert before == after
    assert_exact(tmp_path, "first", "second")


def test_the_import_is_light(tmp_path: Path, server: Server) -> None:
    """``import fastdl`` loads neither urllib3 nor numpy; workers never load numpy."""
    script = "import sys\nimport fastdl\nprint(sorted({'urllib3', 'numpy', 'rich', 'click'} & set(sys.modules)))\n"
    assert run_script(tmp_path, server, script).strip() == "[]"
    (tmp_path / "worker").mkdir()
    script = "import sys\nimport fastdl.worker\nprint(sorted({'numpy', 'rich', 'click'} & set(sys.modules)))\n"
    assert run_script(tmp_path / "worker", server, script).strip() == "[]"


@pytest.mark.parametrize(
    "fault",
    [
        hang_up,
        reset_after(1000),
        truncate_after(1000),
        status(404),
        status(503),
        wrong_content_range("bytes 1-2/3"),
    ],
    ids=["hang_up", "reset", "truncated", "missing", "busy", "contradiction"],
)
def test_downloads_that_fail_leave_no_descriptor_to_a_collection(tmp_path: Path, fault: Handler) -> None:
    """A loader that tries again and again, and collects seldom, must not run out of them."""
    script = """
import gc, os, fastdl

def attempt():
    try:
        fastdl.download(URL, OUT + "/a", retry=0)
    except fastdl.FastdlError:
        return len(os.listdir("/proc/self/fd"))
    raise SystemExit("it did not fail")

attempt()
gc.disable()
print(len({attempt() for _ in range(5)}))
"""
    with serving(from_request(1, then=fault, before=ranged(PATTERN))) as server:
        assert run_script(tmp_path, server, script) == "1\n"
