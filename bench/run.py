"""Run a scenario: tools interleaved, memory warmed before every run, bytes compared after every run.

``python -m bench.run plain --rounds 5 --size 2G`` prints medians and all samples and appends one JSON line to
``bench/results/plain.jsonl``.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import mmap
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bench import scenarios
from fastdl.plan import parse_size

if TYPE_CHECKING:
    from bench.scenarios import Scenario

RESULTS = Path(__file__).parent / "results"
_POPULATE_WRITE = 23  # madvise(2), since Linux 5.14; Python has no name for it
_WARM = 3  # times the object's size


def main() -> None:
    """Measure one scenario."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", choices=["plain"])
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds, after one that is dropped")
    parser.add_argument("--size", type=parse_size, default=parse_size("2G"))
    parser.add_argument("--dir", type=Path, help="where to put the files (a directory on the disk to be measured)")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="fastdl-bench-", dir=options.dir) as name,
        scenarios.plain(Path(name), options.size) as scenario,
    ):
        samples = measure(scenario, options.rounds)
    record = {
        "scenario": scenario.name,
        "size": scenario.size,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit(),
        "host": host(),
        "versions": scenarios.versions(),
        "samples": samples,
    }
    with (RESULTS / f"{scenario.name}.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")
    report(samples, scenario.size)


def measure(scenario: Scenario, rounds: int) -> dict[str, list[dict[str, float]]]:
    """Return wall and CPU seconds of every counted run, by tool; the tools take turns."""
    samples: dict[str, list[dict[str, float]]] = {tool: [] for tool in scenario.commands}
    for number in range(rounds + 1):
        for tool, command in scenario.commands.items():
            with suppress(FileNotFoundError):
                scenario.output.unlink()
            warm(_WARM * scenario.size)
            sample = timed(command)
            if not filecmp.cmp(scenario.original, scenario.output, shallow=False):
                raise SystemExit(f"{tool} wrote other bytes")
            if number:
                samples[tool].append(sample)
    return samples


def timed(command: list[str]) -> dict[str, float]:
    """Run a command to its end; seconds of wall, and of CPU of it and all its children."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    return {"wall": round(wall, 4), "user": round(user, 4), "sys": round(system, 4)}


def warm(nbytes: int) -> None:
    """Touch and free anonymous memory: pages a virtual machine gave back to its host cost seconds at the next use."""
    memory = mmap.mmap(-1, nbytes)
    with suppress(OSError):
        memory.madvise(_POPULATE_WRITE, 0, nbytes)
    memory.close()


def commit() -> str:
    """Return the commit that was measured, with ``+`` if the tree had changes beyond it."""
    result = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"], cwd=RESULTS, capture_output=True, text=True, check=False
    )
    return result.stdout.strip()


def host() -> dict[str, str | int]:
    """Return what the figures depend on of this machine, and nothing that names it."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    cpus = os.cpu_count() or 0
    return {"cpus": cpus, "memory": memory, "kernel": platform.release(), "python": sys.version.split()[0]}


def report(samples: dict[str, list[dict[str, float]]], size: int) -> None:
    """Print medians, then every sample."""
    for tool, runs in samples.items():
        wall = statistics.median(run["wall"] for run in runs)
        cpu = statistics.median(run["user"] + run["sys"] for run in runs)
        walls = " ".join(f"{run['wall']:.2f}" for run in runs)
        print(f"{tool:<12} wall {wall:.2f} s  CPU {cpu:.2f} s ({cpu / size * 2**30:.2f} s/GiB)  walls {walls}")


if __name__ == "__main__":
    main()
