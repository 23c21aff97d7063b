"""Which of several answers about a part to believe: what came twice wins. A state machine without input or output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastdl.plan import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from fastdl.digest import Digest


class Votes:
    """The digests that each part came with; ``first`` tells those that are known already, ``undecided`` the doubted.

    Only parts whose answers differ take memory. A part is *disputed* once two answers differ, and *settled* once one
    digest came twice; the bytes of the digest that came last are then those that won.
    """

    def __init__(self, first: Callable[[int], Digest], undecided: Collection[int] = ()) -> None:
        self._first = first
        self._answers = {index: [first(index)] for index in undecided}
        self.disputed = set(undecided)  # every part that ever was
        self.replaced: dict[int, Digest] = {}  # what those were settled to that were settled against their first digest

    def hear(self, index: int, digest: Digest) -> bool:
        """Count one more answer about part ``index``; tell whether the part is settled now, by this very digest."""
        answers = self._answers.setdefault(index, [self._first(index)])
        if digest in answers:
            if digest != answers[0]:
                self.replaced[index] = digest
            del self._answers[index]
            return True
        answers.append(digest)
        self.disputed.add(index)
        return False

    @property
    def undecided(self) -> set[int]:
        """The parts whose answers all differ."""
        return set(self._answers)


class Answers:
    """Parts that are fetched once more, for ``votes``; with ``keep`` they are stored, and it hears of what may stay."""

    def __init__(self, votes: Votes, runs: list[Run], keep: Callable[[int, Digest], None] | None = None) -> None:
        self.runs = runs
        self.store = keep is not None
        self._votes = votes
        self._keep = keep

    def mark(self, index: int, digest: Digest) -> None:
        """Take note that part ``index`` came with ``digest``."""
        if self._votes.hear(index, digest) and self._keep is not None:
            self._keep(index, digest)


def runs_of(indices: Iterable[int]) -> list[Run]:
    """Return the runs that ``indices``, each named once, make up, in order."""
    runs: list[Run] = []
    for index in sorted(indices):
        if runs and runs[-1].stop == index:
            runs[-1] = Run(runs[-1].first, index + 1)
        else:
            runs.append(Run(index, index + 1))
    return runs


def named(indices: Iterable[int], most: int = 20) -> str:
    """Return ``indices`` for people: ``7, 100-101``, and how many more than ``most`` runs there are."""
    runs = runs_of(indices)
    text = ", ".join(str(run.first) if len(run) == 1 else f"{run.first}-{run.stop - 1}" for run in runs[:most])
    return text + (f" and {sum(map(len, runs[most:]))} more" if len(runs) > most else "")
