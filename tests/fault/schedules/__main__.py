"""``python -m tests.fault.schedules --seeds A:B``: a campaign, told as it goes."""

from __future__ import annotations

import argparse
import sys
import time

from tests.fault.schedules.campaign import Outcome, campaign
from tests.fault.schedules.values import shown

_EVERY = 60.0  # seconds between lines


def main() -> int:
    """Play a campaign; 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fault.schedules", description=__doc__)
    parser.add_argument("--seeds", default="0:2000", metavar="A:B", help="half-open")
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--minutes", type=float, help="no schedule is begun later")
    parser.add_argument("--no-shrink", action="store_true", help="print failing schedules as they were drawn")
    given = parser.parse_args()
    first, _, stop = given.seeds.partition(":")
    seeds = range(int(first), int(stop or int(first) + 1))
    so_far, began = Outcome(), time.monotonic()
    told = began

    def tell(bit: Outcome) -> None:
        nonlocal told
        so_far.add(bit)
        for failure in bit.failures:
            text = f"seed {failure.seed}: {failure.complaint}\n{shown(failure.schedule)}"
            if failure.shrunk is not None:
                text += f"\nshrunk:\n{shown(failure.shrunk)}"
            sys.stdout.write(text + "\n")
        if time.monotonic() > told + _EVERY:
            told = time.monotonic()
            sys.stdout.write(f"{told - began:.0f} s, {so_far.summary}\n")
        sys.stdout.flush()

    seconds = None if given.minutes is None else 60 * given.minutes
    outcome = campaign(seeds, given.jobs, small=not given.no_shrink, seconds=seconds, tell=tell)
    for name in sorted(outcome.counts):
        sys.stdout.write(f"  {name}: {outcome.counts[name]:,}\n")
    sys.stdout.write(f"seeds from {seeds.start}, in {time.monotonic() - began:.0f} s: {outcome.summary}\n")
    return bool(outcome.failures)


if __name__ == "__main__":
    sys.exit(main())
