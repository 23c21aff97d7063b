"""One timed run of a command: CPU of its whole tree, its workers' memory, a limit of time."""

from __future__ import annotations

import json
import os
import platform
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Sample = dict[str, float]
ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / ".bench"  # what must not be committed: the peers' tools, objects under way, quick results
_BLOCK = 16 << 20  # bytes made at a time
_SAMPLING = 0.1  # seconds between looks at memory; each look costs the process looked at some microseconds


class Failed(Exception):
    """A run ended otherwise than asked: the text tells how."""


@contextmanager
def workspace(folder: Path | None, size: int) -> Iterator[tuple[Path, Path]]:
    """Yield the paths of an object of random bytes, ``STORE/bench/object``, and of an output that is not there yet.

    Without ``folder`` they are inside the checkout, because /tmp may be memory and not a disk.
    """
    parent = folder or KEPT / "work"
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent) as name:
        original = Path(name, "store", "bench", "object")
        original.parent.mkdir(parents=True)
        (Path(name) / "out").mkdir()
        random_file(original, size)
        yield original, Path(name, "out", "object")


def random_file(path: Path, size: int) -> None:
    """Write ``size`` random bytes."""
    with path.open("wb") as file:
        for start in range(0, size, _BLOCK):
            file.write(os.urandom(min(_BLOCK, size - start)))


def timed(command: list[str], environment: Mapping[str, str], limit: float, *, watch_memory: bool = False) -> Sample:
    """Run a command to its end; return seconds of wall and of CPU of it and all children it waited for.

    What it prints as its last line, if that is a JSON object of numbers, is added; with ``watch_memory`` the memory of
    itself and of its largest child too.

    Raises:
        Failed: it is missing, ended with another code than 0, or ran longer than ``limit`` seconds and was killed.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        began = time.perf_counter()
        try:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )
        except OSError as error:
            raise Failed(f"cannot be started: {error.strerror}") from None
        watch = _MemoryWatch(process.pid) if watch_memory else None
        in_time = _wait(process.pid, limit)
        wall = time.perf_counter() - began
        if not in_time:
            os.killpg(process.pid, signal.SIGKILL)
        # wait4 and not Popen.wait(timeout), which sleeps up to 50 ms between two looks and tells no CPU time.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        memory = watch.stop() if watch else {}
        if not in_time:
            raise Failed(f"killed after {limit:.0f} s")
        output.seek(0)
        errors.seek(0)
        printed = output.read().decode("utf-8", "replace")
        if process.returncode:
            said = (errors.read().decode("utf-8", "replace").strip() or printed.strip()).splitlines()
            raise Failed(f"exit {process.returncode}: {said[-1][:200] if said else 'without a word'}")
    sample = {"wall": wall, "user": usage.ru_utime, "sys": usage.ru_stime, **memory, **_figures(printed)}
    return {name: round(value, 6) for name, value in sample.items()}


def _wait(pid: int, limit: float) -> bool:
    """Wait until a process is over, without reaping it; False if it takes longer than ``limit`` seconds."""
    descriptor = os.pidfd_open(pid)
    try:
        return bool(select.select([descriptor], [], [], limit)[0])
    finally:
        os.close(descriptor)


def _figures(printed: str) -> Sample:
    lines = printed.strip().splitlines()
    if not lines or not lines[-1].startswith("{"):
        return {}
    figures = json.loads(lines[-1])
    return {
        name: float(value)
        for name, value in figures.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


class _MemoryWatch:
    """A thread that looks at the memory of a process and its children until it is stopped."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._most: Sample = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> Sample:
        """Return the most that was seen, in bytes."""
        self._over.set()
        self._thread.join()
        return self._most

    def _watch(self) -> None:
        while not self._over.wait(_SAMPLING):
            with suppress(OSError, StopIteration, ValueError):
                self._note("caller", self._pid)
                for child in Path(f"/proc/{self._pid}/task/{self._pid}/children").read_text().split():
                    self._note("worker", int(child))

    def _note(self, who: str, pid: int) -> None:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        for kind in ("Rss", "Pss", "Pss_Anon"):
            nbytes = next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{kind}:"))
            name = f"{who}_{kind.lower()}"
            self._most[name] = max(self._most.get(name, 0.0), float(nbytes))


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the figures depend on of this machine, and nothing that names it."""

    cpus: int
    processor: str
    memory: int  # bytes
    kernel: str
    python: str
    filesystem: str  # under the output

    @classmethod
    def here(cls, folder: Path) -> Surroundings:
        """Look around."""
        processors = Path("/proc/cpuinfo").read_text().splitlines()
        return cls(
            os.cpu_count() or 0,
            next((line.partition(":")[2].strip() for line in processors if line.startswith("model name")), "unknown"),
            os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
            platform.release(),
            sys.version.split()[0],
            subprocess.run(
                ["stat", "--file-system", "--format=%T", str(folder)], capture_output=True, text=True, check=False
            ).stdout.strip(),
        )


def commit() -> str:
    """Return the commit that was measured, with ``+`` if the tree had changes beyond it."""
    command = ["git", "describe", "--always", "--dirty=+"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
