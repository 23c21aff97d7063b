"""Memory that stays warm for a whole scenario, also in a virtual machine that gives freed memory back to its host.

Linux tells the host of free blocks of 2 MiB and more, a few seconds after they became free; touched again, each costs
a fault in the host: 0.5 to 2 CPU seconds a GiB, at random moments. So a process touches free memory once and frees all
but one page of each MiB: what is free between those is too small to be told of. Source: Linux, mm/page_reporting.c.
"""

from __future__ import annotations

import mmap
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_POPULATE_WRITE = 23  # madvise(2), since Linux 5.14; Python has no name for it
_OF_FREE = 0.9  # of free memory is warmed: more would push files out of the cache
_APART = 1 << 20  # bytes from one page that stays to the next


@contextmanager
def warm() -> Iterator[None]:
    """Keep what is free now warm until the end of the block."""
    command = [sys.executable, "-I", __file__, str(int(_free() * _OF_FREE))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as keeper:
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        keeper.stdout.readline()
        try:
            yield
        finally:
            keeper.stdin.close()


def _free() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemFree"))


def _keep(nbytes: int) -> None:
    """Touch, free most, say so, and hold the rest until standard input ends."""
    with mmap.mmap(-1, max(mmap.PAGESIZE, nbytes), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        with suppress(OSError):  # an old kernel: then nothing is warm
            memory.madvise(mmap.MADV_NOHUGEPAGE)
            memory.madvise(_POPULATE_WRITE)
        for start in range(0, len(memory) - _APART, _APART):
            memory.madvise(mmap.MADV_DONTNEED, start + mmap.PAGESIZE, _APART - mmap.PAGESIZE)
        print(flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    _keep(int(sys.argv[1]))
