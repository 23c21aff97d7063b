"""Process rows P1 to P13: who dies, who is stopped, who is interrupted, who comes second."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import fastdl
from tests.e2e.partial import bits, checkpoint_of, leftovers
from tests.e2e.processes import run, running, running_any, wait_until
from tests.fault.judge import Call, Key, failing
from tests.fault.kills import Kill, suffer
from tests.fault.scenes import DATA, Stage, stage
from tests.servers.scripted import Exchange, Pattern, ranged, serving, stall_after

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fault.judge import Verdict
    from tests.servers.wire import Server

MIB = 1 << 20
PART = MIB
SIZE = 24 * MIB + 5
PATTERN = Pattern(SIZE)
FLAGS = ("-p", PART, "-x", 4, "-w", 2)
PROMPT = 2.0  # seconds that a clean stop may take


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Have the scenes ready."""
    with stage(tmp_path_factory.mktemp("stage")) as ready:
        yield ready


@pytest.fixture
def gated() -> Iterator[tuple[Server, threading.Event]]:
    """Serve two and a half parts of each answer, then nothing before the gate opens."""
    gate, right = threading.Event(), ranged(PATTERN)

    def handle(exchange: Exchange) -> None:
        exchange.otherwise = right
        stall_after(PART * 5 // 2, gate)(exchange)

    with serving(handle) as server:
        yield server, gate


@pytest.mark.parametrize("effect", [0.0, 0.5, 1.0], ids=["before", "torn", "after"])
@pytest.mark.parametrize("nth", [1, 4])
def test_p1_a_worker_dies_at_a_write(play: Stage, nth: int, effect: float) -> None:
    """Before it, half-way through it or after it: the same run ends well, with another worker."""
    for scene in ("fresh", "resume"):
        assert suffer(play, [Kill(scene, Key("pwrite64", "part"), nth, "worker", effect)]) == (1, "")


@pytest.mark.parametrize("effect", [0.0, 0.5, 1.0], ids=["before", "torn", "after"])
@pytest.mark.parametrize("file", ["part", "checkpoint"])
def test_p2_the_command_dies_at_a_write(play: Stage, file: str, effect: float) -> None:
    """Its workers end; what was marked is used by the next run, and nothing else."""
    for scene in ("fresh", "resume"):
        assert suffer(play, [Kill(scene, Key("pwrite64", file), 6, "parent", effect)]) == (1, "")


PHASES = [  # scene, call at which the signal comes: what the command is doing then
    pytest.param("resume", "mmap", "part", 1, id="hashing an earlier run"),
    pytest.param("keep", "mmap", "output", 1, id="hashing a published file"),
    pytest.param("reuse", "copy_file_range", "part", 1, id="copying what is right of it"),
    pytest.param("fresh", "preadv2", "part", 1, id="computing a digest"),
    pytest.param("fresh", "fchmod", "part", 1, id="publishing"),
    pytest.param("fresh", "fsync", "part", 1, id="syncing"),
    pytest.param("fresh", "rename", "part", 1, id="renaming"),
    pytest.param("fresh", "unlink", "checkpoint", 1, id="removing the records"),
    pytest.param("repair", "mmap", "output", 1, id="verifying"),
    pytest.param("repair", "pwrite64", "output", 1, id="repairing"),
    pytest.param("stream", "pwrite64", "part", 3, id="receiving a stream"),
]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("scene", "call", "file", "nth"), PHASES)
def test_p3_a_signal_in_every_phase(
    play: Stage, scene: str, call: str, file: str, nth: int, number: signal.Signals
) -> None:
    """Over within two seconds by the signal's exit code, or well if all is done already; the next run is exact."""
    came: list[float] = []

    def interrupt(each: Call) -> Verdict:
        if each.key == Key(call, file) and each.nth == nth and not came:
            came.append(time.monotonic())
            os.kill(os.getpgid(each.process), number)
        return None

    born, _ = play.judged(play.scenes[scene], interrupt)
    assert time.monotonic() - came[0] < PROMPT
    assert born.code == 128 + number or (call == "unlink" and born.code == 0), born.stderr
    if born.code:
        assert born.stderr.splitlines()[-1].startswith(f"fastdl: stopped by {number.name}")
    assert play.harmed(play.scenes[scene], finished=born.code == 0) == ""
    assert play.recovered(play.scenes[scene]) == ""


def test_p4_a_stopped_tree_goes_on(tmp_path: Path, gated: tuple[Server, threading.Event]) -> None:
    """SIGSTOP to all, for longer than connections may stand still, then SIGCONT: the download ends well."""
    server, gate = gated
    output = tmp_path / "out" / "object"
    output.parent.mkdir()
    with running(tmp_path / "logs", server.url(), "-o", output, *FLAGS, "--read-timeout", 1) as command:
        command.wait_until(lambda: bits(checkpoint_of(output)) >= 4 and len(server.log) >= 4)
        os.killpg(command.pid, signal.SIGSTOP)
        wait_until(lambda: all(_state(pid) == "T" for pid in command.session()))
        woken = time.monotonic() + 1.5
        wait_until(lambda: time.monotonic() > woken)
        gate.set()
        os.killpg(command.pid, signal.SIGCONT)
        assert command.wait() == 0, command.stderr
    assert output.read_bytes() == PATTERN.read(0, SIZE)


def test_p4_no_deadline_is_kept_by_a_clock_that_jumps() -> None:
    """The wall clock is read for servers' dates, signatures and the ages of cached copies, nowhere else."""
    package = Path(fastdl.__file__).parent
    reading = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if any(call in path.read_text("utf-8") for call in ("time.time(", "datetime.now(", "utcnow(", "time.time_ns("))
    }
    assert reading <= {"cache.py", "sources/base.py", "sources/oss_roles.py", "tending.py"}


ENDINGS = {
    "an exception": ("raise KeyError('mine')", "", 1),
    "SystemExit": ("raise SystemExit(7)", "", 7),
    "os._exit": ("os._exit(7)", "", 7),
    "the interpreter's end": ("going.set(); time.sleep(60)", "going.wait()", 0),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_p12_whatever_ends_a_caller_leaves_nobody(
    tmp_path: Path, gated: tuple[Server, threading.Event], name: str
) -> None:
    """Raised or ended in the progress function, or in a daemon thread at the interpreter's end: no process stays."""
    ending, waiting, code = ENDINGS[name]
    server, _ = gated
    output = tmp_path / "out" / "object"
    output.parent.mkdir()
    script = f"""
import os, threading, time
import fastdl

going = threading.Event()

def end(event):
    if event.done > {4 * PART}:
        {ending}

def download():
    fastdl.download({server.url()!r}, {str(output)!r}, progress=end, part_size={PART}, connections=4, workers=2)

if {bool(waiting)}:
    threading.Thread(target=download, daemon=True).start()
    {waiting or "pass"}
else:
    download()
"""
    with running_any(tmp_path / "logs", [sys.executable, "-c", script]) as caller:
        assert caller.wait() == code, caller.stderr
        caller.wait_gone(20)  # a worker that is starting ends as soon as it looks at its pipe
    assert leftovers(output.parent) == ["object.cp", "object.part"]
    with serving(ranged(PATTERN)) as whole:
        again = run(tmp_path / "logs", whole.url(), "-o", output, *FLAGS, "--json").result
    assert output.read_bytes() == PATTERN.read(0, SIZE)
    assert again["bytes_fetched"] in range(SIZE + 1)


@pytest.mark.parametrize("error", ["ENOSPC", "EIO", "EDQUOT", "EROFS"])
def test_p13_a_checkpoint_that_takes_no_more(play: Stage, error: str) -> None:
    """The download goes on and comes out exact; one line says what a resume would cost."""
    refuse = failing("pwrite64", "checkpoint", error, range(4, 10**6))
    born, _ = play.judged(play.scenes["fresh"], refuse)
    assert born.code == 0
    assert born.stderr.count("\n") == 1
    assert "the download goes on, but can be resumed only from here" in born.stderr
    assert play.output.read_bytes() == DATA
    assert play.names() == {"out"}


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(") ")[2][0]
