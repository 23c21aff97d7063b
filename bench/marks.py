"""What a checkpoint of many parts costs: ``python -m bench.marks PARTS PATH``.

Prints one JSON object: ``mark``, microseconds to mark one part; ``open``, milliseconds to open what is there and read
it; ``runs``, milliseconds to tell the marked parts from the missing, numpy imported before.
"""

from __future__ import annotations

import json
import random
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np  # noqa: F401 - imported so that the time of its import is not counted

from fastdl.checkpoint import open_checkpoint
from fastdl.digest import Digest
from fastdl.header import STAMP, Header
from fastdl.plan import MIB, Plan
from fastdl.validator import Validator

_MARKS = 50_000  # at most: enough for a mean, few enough to stay in the page cache


def main() -> None:
    """Make one, mark it in random order, open it again and print."""
    parts, path = int(sys.argv[1]), Path(sys.argv[2])
    order = random.Random(parts).sample(range(parts), min(parts, _MARKS))
    plan = Plan(8 * MIB * parts, 8 * MIB)
    with closing(open_checkpoint(path)) as made:
        made.begin(Header(plan, "http://127.0.0.1/object", Validator('"1"'), None, (1, 1), bytes(STAMP)))
        digest = Digest(2**64 - 1, 2**63)
        began = time.perf_counter()
        for index in order:
            made.mark(index, digest)
        marked = time.perf_counter() - began
    began = time.perf_counter()
    with closing(open_checkpoint(path)) as again:
        opened = time.perf_counter() - began
        began = time.perf_counter()
        found = sum(map(len, again.marks.runs()[0]))
        told = time.perf_counter() - began
    if found != len(order):
        raise SystemExit(f"{found} of {len(order)} marks were found again")
    print(json.dumps({"mark": marked / len(order) * 1e6, "open": opened * 1000, "runs": told * 1000}))


if __name__ == "__main__":
    main()
