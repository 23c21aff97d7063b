"""``python -m tests.fault.flips --count 1000000``: the long form, with a table of what was found."""

from __future__ import annotations

import argparse
import sys
import time

from tests.fault.flips.trials import SHARES


def main() -> int:
    """Flip, judge and print; return 1 if anything passed undetected."""
    parser = argparse.ArgumentParser(prog="python -m tests.fault.flips", description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000, help="flips in all")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    began, flips, undetected = time.monotonic(), 0, 0
    for trial, share in SHARES:
        found = trial(given.count * share // 100, given.seed)
        flips, undetected = flips + found.flips, undetected + found.undetected
        print(  # noqa: T201 - it is a command
            f"{found.kind}: {found.flips} flips, {found.detected} detected, {found.without_effect} without effect, "
            f"{found.undetected} undetected",
            flush=True,
        )
    seconds = time.monotonic() - began
    print(f"{flips} flips, {undetected} undetected, in {seconds:.0f} s, seed {given.seed}")  # noqa: T201
    return 1 if undetected else 0


if __name__ == "__main__":
    sys.exit(main())
