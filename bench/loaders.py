"""What a training job waits for: whole epochs of tar shards under a DataLoader, and the first sample of a large one.

Run it with the environment of the tests, which has torch: ``.venv/bin/python -m bench.loaders``.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

import fastdl
from bench.clients.lengths import Lengths, Samples
from bench.measure import KEPT, ROOT, random_file
from bench.servers import DELAY, RATE, capped_line
from fastdl.integrations.torch import Shards
from tests.servers.nginx import serving_nginx

_MIB = 1 << 20
_SAMPLE = 256 * 1024  # bytes: a picture
_SHARDS = 4
WAYS = ("shards", "bytes", "path")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=256, help="of one shard")
    parser.add_argument("--rounds", type=int, default=5, help="the first is dropped")
    parser.add_argument("--spawn", action="store_true", help="spawned workers too, which import torch for seconds")
    options = parser.parse_args()
    KEPT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=KEPT) as name, ExitStack() as stack:
        root = Path(name)
        _write_shards(root, options.mib)
        server = stack.enter_context(serving_nginx(root))
        _compare(root, [server.url(f"/{number}.tar") for number in range(_SHARDS)], options.rounds, spawn=options.spawn)
        line = stack.enter_context(capped_line(root))
        _first_sample(line.url("/large.tar"), options.rounds)


def _write_shards(root: Path, mib: int) -> None:
    random_file(root / "sample", _SAMPLE)
    for name, size in [*((f"{number}.tar", mib * _MIB) for number in range(_SHARDS)), ("large.tar", 1 << 30)]:
        with tarfile.open(root / name, "w") as archive:
            for number in range(size // _SAMPLE):
                archive.add(root / "sample", f"{number:08}.bin")


def _compare(root: Path, urls: list[str], rounds: int, *, spawn: bool) -> None:
    """Take turns: the command, shard after shard, and epochs under every kind of worker."""
    kinds = [("-", 0), ("fork", 2), ("fork", 4), *([("spawn", 2), ("spawn", 4)] if spawn else [])]
    samples: dict[str, list[dict[str, float]]] = defaultdict(list)
    for turn in range(rounds):
        for name, wall in [("fastdl get", _commands(root, urls)), ("fastdl get again", _commands(root, urls))]:
            samples[name].append({"seconds": wall})
        for way in WAYS:
            for method, workers in kinds:
                samples[f"{way}, {method} {workers}"].append(_epoch(way, method, workers, urls))
        print(f"round {turn}:", {name: each[-1]["seconds"] for name, each in samples.items()}, file=sys.stderr)
    for name, each in samples.items():
        kept = each[1:] or each
        medians = {key: statistics.median(sample[key] for sample in kept) for key in kept[0]}
        walls = " ".join(f"{sample['seconds']:.2f}" for sample in kept)
        print(f"{name:18}", " ".join(f"{key} {value:.2f}" for key, value in medians.items()), f"({walls})")


def _commands(root: Path, urls: list[str]) -> float:
    """Download every shard by the command; return the seconds."""
    began = time.perf_counter()
    for url in urls:
        subprocess.run([sys.executable, "-m", "fastdl", url, "-o", str(root / "out")], cwd=ROOT, check=True)
    seconds = time.perf_counter() - began
    (root / "out").unlink()
    return seconds


def _epoch(way: str, method: str, workers: int, urls: list[str]) -> dict[str, float]:
    """Read everything once; of samples their lengths go to the trainer, as decoded they would be something else."""
    options: dict[str, Any] = {"multiprocessing_context": method} if workers else {}
    with tempfile.TemporaryDirectory(dir=KEPT) as cache:
        data = _dataset(way, urls, cache)
        loader = DataLoader(data, batch_size=None, num_workers=workers, **options)
        began = time.perf_counter()
        first, total = 0.0, 0
        for length in loader:
            first = first or time.perf_counter() - began
            total += int(length)
        seconds = time.perf_counter() - began
    if way != "shards" and total != sum(fastdl.head(url).size or 0 for url in urls):
        raise SystemExit(f"{way}: {total} bytes are not all")
    return {"seconds": seconds, "first": first}


def _dataset(way: str, urls: list[str], cache: str) -> Any:
    return Samples(urls) if way == "shards" else Lengths(urls, way, cache)


def _first_sample(url: str, rounds: int) -> None:
    """Time the first sample of 1 GiB over a line that lets one wait, in this process."""
    bound = 2 * DELAY + _MIB / RATE
    times = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        samples: Any = iter(Shards([url]))
        next(samples)
        times.append(time.perf_counter() - began)
        samples.close()
    print(f"first sample of 1 GiB {statistics.median(times[1:]):.3f} s, bound {bound:.3f}", times)


if __name__ == "__main__":
    main()
