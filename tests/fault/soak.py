"""``python -m tests.fault.soak --minutes 60``: a process downloads on and on, through faults, and stays as it is.

The downloads are the library's, in several threads of a process that lives all the time. After each round they rest,
and its descriptors, threads, children and memory are looked at from outside.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TYPE_CHECKING, Any

import fastdl
from fastdl.retry import Backoff
from tests.fault.schedules.shop import KINDS, Version, make_version, right_answer
from tests.fault.schedules.values import Fault, Thing
from tests.servers.wire import serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.servers.exchange import Exchange

_ROOT = Path(__file__).resolve().parents[2]
THREADS = 3  # that download at the same time
_SIZE = 300_000  # bytes
_PART = 8192
_FAULTY = 0.06  # of all answers
_KILLED = 0.3  # of all rounds, in which a worker is killed
_PATIENCE = 120.0  # seconds that a round may take
_REST, _GLANCE = 2.0, 0.01  # seconds until what is still there counts, and between looks
_SLACK = 4.0  # MiB
_WARM = 5  # rounds until everything was imported and allocated once


@dataclass(frozen=True, slots=True)
class Look:
    """The process at rest after a round."""

    descriptors: int
    threads: int
    children: int  # zombies included
    private: float  # MiB


@dataclass(slots=True)
class Soak:
    """What was seen so far."""

    looks: list[Look] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)  # of downloads
    faults: Counter[str] = field(default_factory=Counter)
    kills: int = 0

    @property
    def line(self) -> str:
        """The last look as a line of a table."""
        look, errors = self.looks[-1], sum(self.ends.values()) - self.ends["done"]
        return (
            f"{self.ends['done']:>9,} done {errors:>8,} failed {sum(self.faults.values()):>9,} faults {self.kills:>6,} "
            f"kills {look.descriptors:>5} descriptors {look.threads:>4} threads {look.children:>4} children "
            f"{look.private:>8.1f} MiB"
        )

    def leaks(self, slack: float) -> list[str]:
        """Say what has grown between the first rounds, once warm, and the last ones.

        Memory may differ by ``slack`` MiB at its least: what an allocator keeps depends on who came when.
        """
        warm = self.looks[_WARM:]
        few = max(1, len(warm) // 4)
        early, late = warm[:few], warm[-few:]
        found = []
        for name in ("descriptors", "threads", "children"):
            before, after = (max(getattr(look, name) for look in looks) for looks in (early, late))
            if after > before:
                found.append(f"{name}: {before} at first, {after} in the end")
        least, later = (min(look.private for look in looks) for looks in (early, late))
        if later > least + slack:
            found.append(f"memory: {least:.1f} MiB at first, {later:.1f} in the end")
        return found


def soak(seconds: float, seed: int = 1, tell: Callable[[Soak], None] = lambda _: None) -> Soak:
    """Let a process download for so long; ``tell`` hears of each round."""
    seen, rng = Soak(), random.Random(seed)
    thing = Thing(_SIZE, promise="crc64")
    version = make_version(thing, seed, 0, _SIZE)
    deadline = time.monotonic() + seconds
    with (
        TemporaryDirectory(prefix="fastdl-soak-") as folder,
        serving(_faulty(thing, version, rng, seen.faults)) as server,
    ):
        Path(folder, "right").write_bytes(version.data)
        with _subject(server.url(), folder, seed) as (process, lines, orders):
            while time.monotonic() < deadline:
                orders.write(b"\n")
                with _killing(process.pid, seen, rng):
                    ends = json.loads(_line(process, lines))
                seen.ends.update(ends)
                seen.looks.append(rested(process.pid))
                tell(seen)
    return seen


def look(pid: int) -> Look:
    """Look at a process from outside."""
    proc = Path(f"/proc/{pid}")
    rollup = dict(line.split(":") for line in (proc / "smaps_rollup").read_text().splitlines()[1:])
    private = sum(int(rollup[f"Private_{kind}"].split()[0]) for kind in ("Clean", "Dirty"))
    return Look(
        descriptors=len(list((proc / "fd").iterdir())),
        threads=len(list((proc / "task").iterdir())),
        children=len(_children(pid)),
        private=private / 1024,
    )


def rested(pid: int) -> Look:
    """Look at it once nobody is on the way out: who was joined may still be in the kernel for an instant."""
    deadline = time.monotonic() + _REST
    while (seen := look(pid)).threads + seen.children > 1 and time.monotonic() < deadline:
        time.sleep(_GLANCE)
    return seen


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            found += map(int, (task / "children").read_text().split())
    return found


def _faulty(thing: Thing, version: Version, rng: random.Random, counts: Counter[str]) -> Callable[[Exchange], None]:
    """Answer in short ranges, so that workers have something to do, and some answers wrongly."""
    names = [name for name in KINDS if name not in ("replaced", "drip", "no_promise", "stall", "stall_head")]
    lock, never = threading.Lock(), threading.Event()

    def handle(exchange: Exchange) -> None:
        with lock:
            kind = rng.choice(names) if rng.random() < _FAULTY else "short"
            fault = Fault(kind, 0, 40_000 if kind == "short" else rng.randrange(_SIZE))
            counts[kind] += kind != "short"
        exchange.otherwise = right_answer(thing, version)
        KINDS[kind].make(fault, version, never)(exchange)

    return handle


@contextmanager
def _subject(url: str, folder: str, seed: int) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes], IO[bytes]]]:
    """Start the process that downloads: it does a round for each line that it is sent."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.fault.soak", "--subject", url, "--folder", folder, "--seed", str(seed)],
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process, process.stdout, process.stdin
        finally:
            process.kill()


def _line(process: subprocess.Popen[bytes], lines: IO[bytes]) -> bytes:
    """Read what a round came to; a round that hangs is an error."""
    timer = threading.Timer(_PATIENCE, process.kill)
    timer.start()
    try:
        line = lines.readline()
    finally:
        timer.cancel()
        timer.join()
    assert line, f"the process ended, or hung for {_PATIENCE} s: {process.poll()}"
    return line


@contextmanager
def _killing(pid: int, seen: Soak, rng: random.Random) -> Iterator[None]:
    """Kill a worker now and then until the end of the block."""
    over = threading.Event()

    def kill() -> None:
        while not over.wait(rng.random()):
            victims = _children(pid)
            if victims:
                with suppress(ProcessLookupError):
                    os.kill(rng.choice(victims), signal.SIGKILL)
                    seen.kills += 1
                return

    killer = threading.Thread(target=kill) if rng.random() < _KILLED else None
    if killer is not None:
        killer.start()
    try:
        yield
    finally:
        over.set()
        if killer is not None:
            killer.join()


class _EnoughError(Exception):
    """What a user's own callback raises."""


def subject(url: str, folder: Path, seed: int) -> None:
    """Download in threads, a round for each line of standard input."""
    vars(importlib.import_module("fastdl.api"))["make_backoff"] = lambda retry: Backoff(attempts=retry + 1, base=0.01)
    right = (folder / "right").read_bytes()
    rngs = [random.Random(f"{seed}/{number}") for number in range(THREADS)]
    for _ in sys.stdin.buffer:
        ends: Counter[str] = Counter()
        threads = [
            threading.Thread(target=_download, args=(url, folder / f"out{number}", right, rng, ends))
            for number, rng in enumerate(rngs)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        gc.collect()  # what waits for that, frames of failed downloads with their windows, is no leak
        sys.stdout.write(json.dumps(ends) + "\n")
        sys.stdout.flush()


def _download(url: str, path: Path, right: bytes, rng: random.Random, ends: Counter[str]) -> None:
    tired = rng.random() < 0.1

    def progress(_: Any) -> None:
        if tired:
            raise _EnoughError

    try:
        fastdl.download(
            url,
            path,
            part_size=_PART,
            workers=rng.choice((1, 1, 2)),
            connections=rng.choice((2, 4, 8)),
            retry=rng.choice((2, 4)),
            checkpoint=rng.random() < 0.9,
            keep_records=False,
            read_timeout=10.0,
            progress=progress,
        )
    except (fastdl.FastdlError, _EnoughError) as error:
        ends[type(error).__name__] += 1
    else:
        assert path.read_bytes() == right, "a wrong file"
        path.unlink()
        ends["done"] += 1


def main() -> int:
    """Soak, a line a minute; 1 if anything has grown."""
    parser = argparse.ArgumentParser(prog="python -m tests.fault.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--subject", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.subject:
        subject(given.subject, given.folder, given.seed)
        return 0
    began = told = time.monotonic()

    def tell(seen: Soak) -> None:
        nonlocal told
        if time.monotonic() > told + 60 or len(seen.looks) == _WARM:
            told = time.monotonic()
            sys.stdout.write(f"{(told - began) / 60:5.1f} min {seen.line}\n")
            sys.stdout.flush()

    seen = soak(60 * given.minutes, given.seed, tell)
    leaks = seen.leaks(_SLACK)
    sys.stdout.write(f"{seen.line}\n{dict(seen.ends)}\n{leaks or 'nothing has grown'}\n")
    return bool(leaks)


if __name__ == "__main__":
    sys.exit(main())
