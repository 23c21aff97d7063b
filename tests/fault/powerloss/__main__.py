"""``python -m tests.fault.powerloss --states 1000000``: the long form, with a table of what was found."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.fault.powerloss.campaign import Count, play_all


def main() -> int:
    """Replay and print; return 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fault.powerloss", description=__doc__)
    parser.add_argument("--states", type=int, default=1_000_000, help="different ones, in all")
    parser.add_argument("--reruns", type=int, default=3000, help="of them to run the real command on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="scenarios at a time")
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        counts = []
        for count in play_all(Path(folder), given.states, given.reruns, given.seed, given.jobs):
            counts.append(count)
            _tell(count)
    states, distinct = sum(count.states for count in counts), sum(count.distinct for count in counts)
    reruns, failures = sum(count.reruns for count in counts), sum(len(count.failures) for count in counts)
    print(  # noqa: T201 - it is a command
        f"{states} states, {distinct} distinct, {reruns} whole runs, {failures} failures "
        f"in {time.monotonic() - began:.0f} s, seed {given.seed}"
    )
    return 1 if failures else 0


def _tell(count: Count) -> None:
    kinds = ", ".join(f"{kind} {number}" for kind, number in sorted(count.kinds.items()))
    print(  # noqa: T201
        f"{count.name}: {count.moments} moments, {count.states} states, {count.distinct} distinct, "
        f"{count.reruns} whole runs, {count.torn_output} with a torn output; {kinds}",
        flush=True,
    )
    for failure in count.failures[:10]:
        print(f"  {failure}")  # noqa: T201
    if len(count.failures) > 10:
        print(f"  and {len(count.failures) - 10} more")  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
