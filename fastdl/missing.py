"""The runs of parts that nobody fetches yet, in the order in which they are to be asked for."""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from typing import TYPE_CHECKING

from fastdl.plan import Run

if TYPE_CHECKING:
    from collections.abc import Iterable


class Missing:
    """Runs that do not overlap; ``parts`` counts what they hold together."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self._runs = deque(runs)
        self.parts = sum(map(len, self._runs))

    def __bool__(self) -> bool:
        return bool(self._runs)

    def next(self, *, ordered: bool) -> Run | None:
        """Return the run to begin with: the first one, or, where order matters, the one of the lowest index."""
        if not self._runs:
            return None
        return min(self._runs, key=lambda run: run.first) if ordered else self._runs[0]

    def take(self, run: Run, count: int) -> Run:
        """Take the first ``count`` parts of ``run``, one of ours, out and return them."""
        taken = Run(run.first, run.first + count)
        if run == self._runs[0]:  # as always but where order matters
            self._runs.popleft()
            if taken != run:
                self._runs.appendleft(Run(taken.stop, run.stop))
        else:
            at = self._runs.index(run)
            del self._runs[at]
            if taken != run:
                self._runs.insert(at, Run(taken.stop, run.stop))
        self.parts -= count
        return taken

    def adopt(self, run: Run) -> bool:
        """Take exactly ``run`` out; False, and nothing done, unless all of it is missing."""
        holder = next((old for old in self._runs if old.first <= run.first and run.stop <= old.stop), None)
        if holder is None:
            return False
        at = self._runs.index(holder)
        del self._runs[at]
        for rest in (Run(run.stop, holder.stop), Run(holder.first, run.first)):
            if rest.first < rest.stop:
                self._runs.insert(at, rest)
        self.parts -= len(run)
        return True

    def put_back(self, run: Run) -> None:
        """Let ``run`` be the next to be asked for; neighbours are fetched in one request."""
        self.parts += len(run)
        if self._runs:
            following = self._runs[0]
            if run.stop == following.first or following.stop == run.first:
                self._runs.popleft()
                run = Run(min(run.first, following.first), max(run.stop, following.stop))
        self._runs.appendleft(run)

    def add(self, index: int) -> None:
        """Let part ``index`` be the last to be asked for."""
        first = index
        if self._runs and self._runs[-1].stop == index:
            first = self._runs.pop().first
        self._runs.append(Run(first, index + 1))
        self.parts += 1

    def forward(self, wanted: Run) -> bool:
        """Let what is missing of ``wanted`` be the next to be asked for; tell whether anything is."""
        inside: list[Run] = []
        outside: list[Run] = []
        for run in self._runs:
            cuts = {at for at in (wanted.first, wanted.stop) if run.first < at < run.stop}
            for first, stop in pairwise(sorted({run.first, *cuts, run.stop})):
                (inside if wanted.first <= first < wanted.stop else outside).append(Run(first, stop))
        self._runs = deque(inside + outside)
        return bool(inside)
