"""Run scenarios: contenders interleaved, memory kept warm, bytes compared after every run.

``python -m bench.run plain --rounds 5`` prints medians and all samples and appends one JSON line to
``bench/results/plain.jsonl``. Without a name all scenarios run. A contender that fails or takes too long is recorded
as such and left out from then on.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench import alone, readers, scenarios
from bench.measure import KEPT, Failed, Sample, Surroundings, commit, timed
from bench.peers import filled, version_of
from bench.warmth import warm
from fastdl.plan import GIB, KIB, MIB, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from bench.scenarios import Contender, Scenario

RESULTS = Path(__file__).parent / "results"
_LIMIT = 120.0  # seconds that a run may take
# Runs this long wait for the line, not for processors: more of them would tell nothing and take hours.
_SLOW = 20.0  # seconds
_QUICK_LIMIT = 20.0  # seconds
_QUICK_PEERS = r"floor|curl|wget2|aria2c tuned|rclone tuned|parts|python|import|half|whole|line|loopback|urllib3|iB$"


@dataclass(frozen=True, slots=True)
class Entry:
    """A scenario's maker and the sizes of its object."""

    make: Callable[[Path | None, int], AbstractContextManager[Scenario]]
    size: int
    quick: int


ENTRIES = {
    "plain": Entry(scenarios.plain, 2 * GIB, 256 * MIB),
    "tls": Entry(scenarios.tls, 2 * GIB, 256 * MIB),
    "capped": Entry(scenarios.capped, 512 * MIB, 64 * MIB),
    "busy": Entry(scenarios.busy, 256 * MIB, 64 * MIB),
    "stalls": Entry(scenarios.stalls, 512 * MIB, 128 * MIB),
    "resume": Entry(alone.resume, 2 * GIB, 512 * MIB),
    "growth": Entry(alone.growth, 16 * GIB, 1 * GIB),
    "digest": Entry(alone.digest, 4 * GIB, 256 * MIB),
    "small": Entry(alone.small, 1 * MIB, 1 * MIB),
    "ranges-random": Entry(readers.ranges_random, 1 * GIB, 64 * MIB),
    "ranges-near": Entry(readers.ranges_near, 1 * GIB, 64 * MIB),
    "checkpoint": Entry(alone.checkpoint, 0, 0),
    "startup": Entry(alone.startup, 1 * MIB, 1 * MIB),
}


@dataclass(slots=True)
class Outcome:
    """What became of a contender: its counted samples, or why there are no more."""

    command: tuple[str, ...]
    environment: dict[str, str]
    size: int  # bytes it moves
    samples: list[Sample]
    failure: str = ""


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(ENTRIES))
    parser.add_argument("--rounds", type=int, help="counted rounds, after one that is dropped (5; quick: 1)")
    parser.add_argument("--size", type=parse_size, help="of the object; each scenario has its own by default")
    parser.add_argument("--peers", default="", help="regular expression of names; fastdl takes part in any case")
    parser.add_argument("--quick", action="store_true", help="small objects, few peers, results to .bench/quick")
    parser.add_argument("--limit", type=float, help="seconds that a run may take (120; quick: 20)")
    parser.add_argument("--dir", type=Path, help="where to put the files: a directory on the disk to be measured")
    options = parser.parse_args()
    if unknown := set(options.scenarios) - set(ENTRIES):
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    results = KEPT / "quick" if options.quick else RESULTS
    results.mkdir(parents=True, exist_ok=True)
    rounds = options.rounds or (1 if options.quick else 5)
    limit = options.limit or (_QUICK_LIMIT if options.quick else _LIMIT)
    wanted = re.compile(options.peers or (_QUICK_PEERS if options.quick else ""))
    for name in options.scenarios or ENTRIES:
        entry = ENTRIES[name]
        size = options.size or (entry.quick if options.quick else entry.size)
        print(f"{name}, {size} bytes, {rounds} rounds", flush=True)
        with entry.make(options.dir, size) as scenario, warm():
            contenders = [c for c in scenario.contenders if c.name.startswith("fastdl") or wanted.search(c.name)]
            outcomes = measure(scenario, contenders, rounds, limit)
            versions = {c.name: version_of(c.version, {"python": sys.executable}) for c in contenders}
        record = {
            "scenario": name,
            "size": size,
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "commit": commit(),
            "host": asdict(Surroundings.here(options.dir or KEPT)),
            "versions": versions,
            "tools": {tool: asdict(outcome) for tool, outcome in outcomes.items()},
        }
        with (results / f"{name}.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")
        report(contenders, outcomes)


def measure(scenario: Scenario, contenders: list[Contender], rounds: int, limit: float) -> dict[str, Outcome]:
    """Run all in turn, ``rounds`` times after a first time that is dropped; a slow one's first time counts, alone."""
    outcomes = {
        contender.name: Outcome(contender.command, dict(contender.environment), contender.size, [])
        for contender in contenders
    }
    over: set[str] = set()
    for number in range(rounds + 1):
        for contender in contenders:
            if contender.name in over:
                continue
            outcome = outcomes[contender.name]
            for _ in range(scenario.repeat):
                try:
                    sample = _once(scenario, contender, limit)
                except Failed as failure:
                    outcome.failure = str(failure)
                    print(f"  {contender.name}: {failure}", flush=True)
                    over.add(contender.name)
                    break
                slow = number == 0 and sample["wall"] > _SLOW
                if number or slow:
                    outcome.samples.append(sample)
                if slow:
                    over.add(contender.name)
                    break
    return outcomes


def _once(scenario: Scenario, contender: Contender, limit: float) -> Sample:
    """Run one contender once.

    Raises:
        Failed: it failed, took too long, or wrote other bytes than the object's.
    """
    values = {"python": sys.executable, **scenario.values, **contender.values}
    environment = {name: value.format(**values) for name, value in contender.environment.items()}
    scenario.prepare(contender)
    sample = timed(filled(contender.command, values), environment, limit, watch_memory=scenario.watch_memory)
    sample |= scenario.derive(contender, sample)
    if not scenario.verify(contender):
        raise Failed("wrote other bytes")
    return sample


def report(contenders: list[Contender], outcomes: dict[str, Outcome]) -> None:
    """Print the medians of every figure, then each sample's wall."""
    for contender in contenders:
        outcome = outcomes[contender.name]
        if not outcome.samples:
            print(f"  {contender.name:<26} {outcome.failure}")
            continue
        medians = {
            name: statistics.median(sample[name] for sample in outcome.samples if name in sample)
            for name in outcome.samples[0]
        }
        cpu = statistics.median(sample["user"] + sample["sys"] for sample in outcome.samples)
        each = f" ({cpu / contender.size * GIB:.2f} s/GiB)" if contender.size > GIB // KIB else ""
        others = "  ".join(
            f"{name} {value:.4g}" for name, value in medians.items() if name not in ("wall", "user", "sys")
        )
        walls = " ".join(f"{sample['wall']:.2f}" for sample in outcome.samples)
        print(f"  {contender.name:<26} wall {medians['wall']:.3f} s  CPU {cpu:.3f} s{each}  {others}  walls {walls}")


if __name__ == "__main__":
    main()
