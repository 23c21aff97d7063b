"""Scenarios that look at fastdl alone: resuming, growing objects, small objects, its checkpoint, its start."""

from __future__ import annotations

import filecmp
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bench.measure import ROOT, random_file, workspace
from bench.scenarios import FASTDL, Contender, Scenario
from bench.servers import repeating
from fastdl.plan import GIB, KIB, MIB
from tests.servers.nginx import serving_nginx

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.measure import Sample

_LINE = 400_000_000  # bytes per second of all connections together
_COUNT = 100  # small objects in a row
_PARTS = (10**3, 10**4, 10**5, 10**6)
_REPEATED = GIB  # bytes of the piece that makes up the growing objects
_BLOCK = 16 * MIB  # compared at a time
_CURL = ("curl", "--silent", "--show-error", "--fail", "--output", "{out}", "{url}")


@contextmanager
def resume(folder: Path | None, size: int) -> Iterator[Scenario]:
    """Yield a run that was killed as it was about to publish, continued: all is hashed, nothing fetched.

    Two sizes, because the difference of the two is hashing alone: what a whole command costs besides is in both.
    """
    with ExitStack() as stack:
        contenders, states = [], {}
        for name, nbytes in (("whole", size), ("half", size // 2)):
            original, output = stack.enter_context(workspace(folder, nbytes))
            server = stack.enter_context(serving_nginx(original.parents[1]))
            values = {"url": server.url("/bench/object"), "out": str(output)}
            states[name] = (original, output, _kill_at_publication(values["url"], output))
            contenders.append(Contender(name, (*FASTDL, "--json"), nbytes, values=values))

        def prepare(contender: Contender) -> None:
            _, output, marks = states[contender.name]
            if output.exists():  # published by the run before: the same file, so the checkpoint fits it
                output.rename(f"{output}.part")
            shutil.copyfile(marks, f"{output}.cp")

        def verify(contender: Contender) -> bool:
            original, output, _ = states[contender.name]
            return filecmp.cmp(original, output, shallow=False)

        def derive(contender: Contender, sample: Sample) -> Sample:
            if sample["bytes_fetched"]:
                raise RuntimeError("the killed run was not continued but fetched again")
            return {"rate": contender.size / sample["wall"]}

        yield Scenario(tuple(contenders), {}, prepare, verify, derive)


def _kill_at_publication(url: str, output: Path) -> Path:
    """Download until ``OUT.part`` is about to be renamed and kill everything; return a copy of the checkpoint."""
    inject = "inject=rename,renameat,renameat2:signal=KILL"
    strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-P", f"{output}.part"]
    command = [*strace, "-e", "trace=rename,renameat,renameat2", "-e", inject, sys.executable, "-m", "fastdl"]
    process = subprocess.Popen([*command, url, "-o", str(output)], cwd=ROOT, start_new_session=True)
    process.wait()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    if output.exists() or not Path(f"{output}.part").exists():
        raise RuntimeError("fastdl could not be killed at publication; is strace installed?")
    return Path(shutil.copyfile(f"{output}.cp", f"{output.parent}/../marks"))


@contextmanager
def growth(folder: Path | None, size: int) -> Iterator[Scenario]:
    """Yield objects from a sixteenth of ``size`` to ``size``: CPU a GiB and memory of a worker must stay the same."""
    with workspace(folder, min(size, _REPEATED)) as (piece, output), repeating(piece) as url:
        sizes = [size >> shift for shift in (4, 3, 2, 1, 0)]
        contenders = [Contender(_shown(n), FASTDL, n, values={"url": f"{url}{n}"}) for n in sizes]

        def prepare(_: Contender) -> None:
            output.unlink(missing_ok=True)

        def verify(contender: Contender) -> bool:
            return _repeats(piece, output, contender.size)

        yield Scenario(tuple(contenders), {"out": str(output)}, prepare, verify, watch_memory=True)


@contextmanager
def digest(folder: Path | None, size: int) -> Iterator[Scenario]:
    """Yield a line of 400 MB/s for all connections together, and none at all, with a SHA-256 promised and without."""
    with ExitStack() as stack:
        piece, output = stack.enter_context(workspace(folder, min(size, _REPEATED)))
        sha256, left = hashlib.sha256(), size
        while left:
            with piece.open("rb") as file:
                while left and (block := file.read(min(_BLOCK, left))):
                    sha256.update(block)
                    left -= len(block)
        contenders = []
        for name, rate in (("line", _LINE), ("loopback", 0)):
            url = stack.enter_context(repeating(piece, rate))
            contenders.append(Contender(name, (*FASTDL, "--json"), size, values={"url": f"{url}{size}"}))
            promised = {"url": f"{url}{size}/{sha256.hexdigest()}"}
            contenders.append(Contender(f"{name}, sha256", (*FASTDL, "--json"), size, values=promised))

        def prepare(_: Contender) -> None:
            output.unlink(missing_ok=True)

        def verify(_: Contender) -> bool:
            return _repeats(piece, output, size)

        yield Scenario(tuple(contenders), {"out": str(output)}, prepare, verify)


def _repeats(piece: Path, output: Path, size: int) -> bool:
    """Tell whether ``output`` is ``size`` bytes of ``piece`` repeated."""
    if output.stat().st_size != size:
        return False
    with piece.open("rb") as expected, output.open("rb") as found:
        while block := found.read(_BLOCK):
            again = expected.read(len(block))
            if len(again) < len(block):
                expected.seek(0)
                again += expected.read(len(block) - len(again))
            if again != block:
                return False
    return True


@contextmanager
def small(folder: Path | None, size: int) -> Iterator[Scenario]:
    """Yield a hundred objects of ``size`` bytes in a row, in one process, against bare GETs by urllib3."""
    with workspace(folder, 0) as (original, output), serving_nginx(original.parents[1]) as server:
        for number in range(_COUNT):
            random_file(original.with_name(str(number)), size)
        command = ("{python}", "-m", "bench.small", "{by}", "{endpoint}", "{folder}", str(_COUNT))
        contenders = [Contender(by, command, _COUNT * size, values={"by": by}) for by in ("fastdl", "urllib3")]
        values = {"endpoint": server.url("/bench/"), "folder": str(output.parent)}

        def prepare(_: Contender) -> None:
            for number in range(_COUNT):
                output.with_name(str(number)).unlink(missing_ok=True)

        def verify(_: Contender) -> bool:
            names = [str(number) for number in range(_COUNT)]
            return filecmp.cmpfiles(original.parent, output.parent, names, shallow=False)[0] == names

        yield Scenario(tuple(contenders), values, prepare, verify)


@contextmanager
def checkpoint(folder: Path | None, size: int) -> Iterator[Scenario]:  # noqa: ARG001 - all scenarios are called alike
    """Yield checkpoints of a thousand to a million parts: microseconds to mark a part, milliseconds to open."""
    with workspace(folder, 0) as (_, output):
        command = ("{python}", "-m", "bench.marks", "{parts}", "{out}")
        contenders = [Contender(f"{n} parts", command, 0, values={"parts": str(n)}) for n in _PARTS]
        yield Scenario(
            tuple(contenders), {"out": str(output)}, lambda _: output.unlink(missing_ok=True), lambda _: True, repeat=3
        )


@contextmanager
def startup(folder: Path | None, size: int) -> Iterator[Scenario]:
    """Yield what it costs to start: bare Python, ``import fastdl``, and the whole command for one small object."""
    with workspace(folder, size) as (original, output), serving_nginx(original.parents[1]) as server:
        contenders = (
            Contender("python", ("{python}", "-c", "pass"), 0),
            Contender("import fastdl", ("{python}", "-c", "import fastdl"), 0),
            Contender("fastdl URL", FASTDL, size),
            Contender("curl URL", _CURL, size, version=("curl", "--version")),
        )

        def verify(contender: Contender) -> bool:
            return not contender.size or filecmp.cmp(original, output, shallow=False)

        values = {"url": server.url("/bench/object"), "out": str(output)}
        yield Scenario(contenders, values, lambda _: output.unlink(missing_ok=True), verify, repeat=5)


def _shown(nbytes: int) -> str:
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if nbytes >= unit:
            return f"{nbytes // unit} {name}"
    return f"{nbytes} B"
