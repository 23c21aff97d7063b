"""A thousand ranges of 4 KiB of one object by fastdl: ``python -m bench.ranges URL random|near SIZE OUTPUT``.

Prints one JSON object of seconds: ``first``, a call in a process that had made none, imports left out, and ``reading``
and ``processor``, medians of the calls after it. ``bench.clients.fsspec`` does the same.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

COUNT, LENGTH = 1000, 4096
_APART = 5120  # bytes from one near range to the next
_CALLS = 9


def ranges(kind: str, size: int) -> list[tuple[int, int]]:
    """Return offsets and lengths, the same in every process."""
    rng = random.Random(4)
    if kind == "near":
        start = rng.randrange(size - COUNT * _APART)
        return [(start + number * _APART, LENGTH) for number in range(COUNT)]
    return [(rng.randrange(size - LENGTH), LENGTH) for _ in range(COUNT)]


def measure(read: Callable[[str, list[tuple[int, int]]], list[bytes]]) -> None:
    """Time ``read`` of what the command line asks for; write what the last call brought and print."""
    url, kind, size, output = sys.argv[1:]
    wanted = ranges(kind, int(size))
    walls, processor = [], []
    for _ in range(1 + _CALLS):
        began, used = time.perf_counter(), time.process_time()
        found = read(url, wanted)
        walls.append(time.perf_counter() - began)
        processor.append(time.process_time() - used)
    Path(output).write_bytes(b"".join(found))
    middle = {"reading": statistics.median(walls[1:]), "processor": statistics.median(processor[1:])}
    print(json.dumps({"first": walls[0], **middle}))


if __name__ == "__main__":
    from fastdl import read_ranges

    measure(read_ranges)
