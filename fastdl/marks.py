"""Which parts are finished, and what their bytes hash to: a bit and a record of each, in the form a checkpoint keeps.

A part is *marked* if its bit is set and its record is not all zeros.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from fastdl.combine import crc64_of_parts
from fastdl.digest import Digest
from fastdl.header import RECORD, bitmap_bytes
from fastdl.plan import Run

if TYPE_CHECKING:
    from fastdl.plan import Plan

_EMPTY = bytes(RECORD.size)
_FEW = 2**15  # parts that plain Python looks through in 20 ms


class Marks:
    """Those of the parts of ``plan``, none at first; ``bitmap`` and ``records`` are as the file has them."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.bitmap = bytearray(bitmap_bytes(plan))
        self.records = bytearray(RECORD.size * plan.count)

    @property
    def any(self) -> bool:
        """Whether a bit is set."""
        return any(self.bitmap)

    @property
    def complete(self) -> bool:
        """Whether every part is marked."""
        return self.any and not self.runs()[1]

    def mark(self, index: int, digest: Digest) -> None:
        """Mark part ``index``, whose bytes have ``digest``."""
        RECORD.pack_into(self.records, RECORD.size * index, digest.xxh3, digest.crc64)
        self.bitmap[index >> 3] |= 1 << (index & 7)

    def clear(self, index: int) -> None:
        """Take the mark of part ``index`` back, its record too: a stale one must not pass for a true one."""
        self.bitmap[index >> 3] &= ~(1 << (index & 7))
        self.records[RECORD.size * index : RECORD.size * (index + 1)] = _EMPTY

    def bit(self, index: int) -> tuple[int, memoryview]:
        """Return the byte that holds the bit of part ``index``, and before it where in the bitmap that is."""
        return index >> 3, memoryview(self.bitmap)[index >> 3 : (index >> 3) + 1]

    def record(self, index: int) -> tuple[int, memoryview]:
        """Return the record of part ``index``, and before it where among the records that is."""
        start = RECORD.size * index
        return start, memoryview(self.records)[start : start + RECORD.size]

    def digest(self, index: int) -> Digest:
        """Return the record of part ``index``, meaningful only if it is marked."""
        return Digest(*RECORD.unpack_from(self.records, RECORD.size * index))

    @property
    def crc64(self) -> int:
        """The whole object's CRC-64/XZ, combined from all records; meaningful only if every part is marked."""
        crcs = (crc for _, crc in RECORD.iter_unpack(self.records))
        return crc64_of_parts(crcs, self.plan.part_size, self.plan.part(self.plan.count - 1).nbytes)

    def runs(self) -> tuple[list[Run], list[Run]]:
        """Return the runs of marked and of missing parts, each in order."""
        count = self.plan.count
        if not self.any:
            return [], [Run(0, count)]
        begins_marked, edges = self._edges_of_few() if count <= _FEW else self._edges_of_many()
        runs = [Run(first, stop) for first, stop in itertools.pairwise((0, *edges, count))]
        return runs[not begins_marked :: 2], runs[begins_marked::2]

    def _edges_of_few(self) -> tuple[bool, list[int]]:
        """Return whether part 0 is marked, and every part that differs in that from the one before it."""
        records = RECORD.iter_unpack(self.records)
        marked = [bool(self.bitmap[i >> 3] >> (i & 7) & 1 and any(record)) for i, record in enumerate(records)]
        return marked[0], [i for i in range(1, len(marked)) if marked[i] != marked[i - 1]]

    def _edges_of_many(self) -> tuple[bool, list[int]]:
        """Return the same, four times as fast."""
        import numpy as np  # noqa: PLC0415 - 50 to 150 ms, more than the parts of most objects take without it

        count = self.plan.count
        bits = np.unpackbits(np.frombuffer(self.bitmap, np.uint8), count=count, bitorder="little")
        known = np.frombuffer(self.records, "<u8").reshape(count, 2).any(axis=1)
        marked = (bits != 0) & known
        return bool(marked[0]), (np.flatnonzero(np.diff(marked)) + 1).tolist()
