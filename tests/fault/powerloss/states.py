"""What may be on the disk after a power loss: all of it where few operations are unsynced, else some by seed."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from tests.fault.powerloss.disk import ALL, Create, Rename, Unlink, Write

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Sequence

    from tests.fault.powerloss.disk import Change

FEW = 10  # unsynced operations of which every combination is tried
_CHANCES = (0.0, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 1.0)  # that an operation on one file, or on names, is on the disk
_LATE = 0.05  # that one behind the edge is there all the same
_TORN = (0.1, 0.3, 0.7)  # that a write that is there is torn


def every(pending: Sequence[Change], rng: random.Random) -> Iterator[tuple[int, ...]]:
    """Yield each combination of lost and kept, and of torn in one way that ``rng`` chooses for each."""
    options = []
    for change in pending:
        torn = _torn(change, rng)
        options.append((ALL, 0, torn) if torn else (ALL, 0))
    return itertools.product(*options)


def some(pending: Sequence[Change], rng: random.Random) -> Iterator[tuple[int, ...]]:
    """Yield combinations without end: each file has a chance of its own, and now and then a moment is an edge in time.

    A coin for each operation alone would hardly ever find a whole file in order beside one that is lost. And files
    without a name or a size are all alike: mostly these are there, and only bytes are lost.
    """
    draw = rng.random
    while True:
        framed, torn = draw() < 0.9, _TORN[int(draw() * len(_TORN))]
        edge = int(draw() * (len(pending) + 1)) if draw() < 0.3 else len(pending)
        chances: dict[int, float] = {}
        choices = []
        for number, change in enumerate(pending):
            written = isinstance(change, Write)
            if framed and not written:
                choices.append(ALL)
                continue
            file = -1 if isinstance(change, Create | Rename | Unlink) else change.file
            if file not in chances:
                chances[file] = _CHANCES[int(draw() * len(_CHANCES))]
            if draw() >= (chances[file] if number < edge else _LATE):
                choices.append(0)
            elif torn and written and draw() < torn:
                choices.append(_torn(change, rng) or ALL)
            else:
                choices.append(ALL)
        yield tuple(choices)


def _torn(change: Change, rng: random.Random) -> int:
    """Choose some of a write's sectors, neither none nor all; 0 if there is only one."""
    if not isinstance(change, Write) or change.sectors == 1:
        return 0
    return rng.randrange(1, 2**change.sectors - 1)
