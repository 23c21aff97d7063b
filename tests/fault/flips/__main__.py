"""``python -m tests.fault.flips --count 1000000``: the long form, with a table of what was found."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.e2e.nursery import nursery
from tests.fault.flips.commands import spoilt_always, spoilt_once
from tests.fault.flips.trials import SHARES


def main() -> int:
    """Flip, judge and print; return 1 if anything passed undetected."""
    parser = argparse.ArgumentParser(prog="python -m tests.fault.flips", description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000, help="flips in all")
    parser.add_argument("--commands", type=int, default=300, help="whole runs of the command, each with flips")
    parser.add_argument("--jobs", type=int, default=2, help="kinds of trials at a time")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    began, flips, undetected = time.monotonic(), 0, 0
    with ProcessPoolExecutor(given.jobs, multiprocessing.get_context("spawn")) as pool:
        for task in [pool.submit(trial, given.count * share // 100, given.seed) for trial, share in SHARES]:
            found = task.result()
            flips, undetected = flips + found.flips, undetected + found.undetected
            print(  # noqa: T201 - it is a command
                f"{found.kind}: {found.flips} flips, {found.detected} detected, {found.without_effect} without effect, "
                f"{found.undetected} undetected",
                flush=True,
            )
    with tempfile.TemporaryDirectory() as folder, nursery(Path(folder, "nursery")) as bearer:
        for number in range(given.commands):
            stage = Path(folder, str(number))
            stage.mkdir()
            (spoilt_always if number % 3 == 2 else spoilt_once)(bearer, stage, given.seed + number)
    print(f"{given.commands} runs of the command, one in three with nothing but spoilt answers: all as promised")  # noqa: T201
    seconds = time.monotonic() - began
    print(f"{flips} flips, {undetected} undetected, in {seconds:.0f} s, seed {given.seed}")  # noqa: T201
    return 1 if undetected else 0


if __name__ == "__main__":
    sys.exit(main())
