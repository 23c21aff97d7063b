"""All moments of all scenarios, counted: how many states, how many of them differ, and what is wrong with any."""

from __future__ import annotations

import itertools
import math
import multiprocessing
import random
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import xxhash

from tests.e2e.nursery import nursery
from tests.fault.powerloss.disk import Create, Mode, Write
from tests.fault.powerloss.replay import OUT, Judge, Verdict, sound_parts
from tests.fault.powerloss.scenarios import SCENARIOS
from tests.fault.powerloss.shelf import Shelf
from tests.fault.powerloss.stage import Recorded, Stage
from tests.fault.powerloss.states import FEW, every, some
from tests.servers.scripted import Handler, first_of, serving, status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.nursery import Nursery
    from tests.fault.powerloss.disk import Disk, State


_DRAWN = 4  # times as many states as there shall be different ones, at most


@dataclass(slots=True)
class Count:
    """What came of one scenario's states."""

    name: str
    moments: int = 0
    states: int = 0  # enumerated or drawn, each judged once if it differs from all before
    distinct: int = 0
    reruns: int = 0  # of the real command
    kinds: Counter[str] = field(default_factory=Counter)  # of verdicts about distinct states
    torn_output: int = 0  # states with bytes under the final name that are neither the old ones nor the new ones
    failures: list[str] = field(default_factory=list)


def play(
    scenario: Callable[[Stage], Recorded],
    folder: Path,
    bearer: Nursery,
    *,
    states: int,
    reruns: int,
    seed: int = 0,
    few: int = FEW,
) -> Count:
    """Record a scenario and judge about so many different states of it; the command is run on about ``reruns``."""
    now: list[Handler] = [status(500)]
    with serving(first_of(now)) as server, _shelf() as shelf:
        stage = Stage(folder, server, now)
        recorded = scenario(stage)
        stage.serve(recorded.object.handler)
        return Replay(recorded, shelf, Judge(shelf, recorded, server.url()), bearer, reruns, seed, few).run(states)


def play_all(folder: Path, states: int, reruns: int, seed: int, jobs: int) -> Iterator[Count]:
    """Play every scenario, ``jobs`` at a time; yield each count in order. The states are shared out among them."""
    number = len(SCENARIOS)
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        tasks = [
            pool.submit(_play_alone, at, folder / str(at), states // number, reruns // number, seed)
            for at in range(number)
        ]
        for task in tasks:
            yield task.result()


def _play_alone(at: int, folder: Path, states: int, reruns: int, seed: int) -> Count:
    folder.mkdir()
    with nursery(folder / "nursery") as bearer:
        return play(SCENARIOS[at], folder / "stage", bearer, states=states, reruns=reruns, seed=seed)


class Replay:
    """The moments of one recording."""

    def __init__(
        self, recorded: Recorded, shelf: Shelf, judge: Judge, bearer: Nursery, reruns: int, seed: int, few: int
    ) -> None:
        self._recorded, self._judge, self._bearer = recorded, judge, bearer
        self._reruns, self._seed, self._most = reruns, seed, few
        shelf.inode(len(recorded.tape.files) + sum(isinstance(each, Create) for each in recorded.tape.log))
        self._log = shelf.adapted(recorded.tape.log)
        self._mode = {each.mode for each in self._log if isinstance(each, Mode)}
        self._seen: set[int] = set()
        self.count = Count(recorded.name, len(self._log) + 1)

    def run(self, quota: int) -> Count:
        """Judge about ``quota`` different states: all of moments with few unsynced operations, some of all others."""
        few = sum(self._few(disk) for _, disk in self._moments())
        many = sum(len(disk.pending) > self._most for _, disk in self._moments())
        chance = self._reruns / max(quota, few, 1)
        for moment, disk in self._moments():
            rng = random.Random(f"{self._seed} {self._recorded.name} {moment}")
            choices, enough = every(disk.pending, rng), -1
            if len(disk.pending) > self._most:
                share = max(1, (quota - self.count.distinct) // many)
                choices, enough = itertools.islice(some(disk.pending, rng), _DRAWN * share), self.count.distinct + share
                many -= 1
            for choice in choices:
                self._take(moment, disk.after(choice), rng.random() < chance)
                if self.count.distinct == enough:
                    break
        return self.count

    def _moments(self) -> Iterator[tuple[int, Disk]]:
        disk = self._recorded.tape.start()
        yield 0, disk
        for number, operation in enumerate(self._log, 1):
            disk.do(operation)
            yield number, disk

    def _few(self, disk: Disk) -> int:
        options = [3 if isinstance(each, Write) and each.sectors > 1 else 2 for each in disk.pending]
        return math.prod(options) if len(options) <= self._most else 0

    def _take(self, moment: int, state: State, chosen: bool) -> None:
        done = moment == len(self._log) and self._recorded.fsync
        self.count.states += 1
        key = _fingerprint(state, done)
        if key in self._seen:
            return
        self._seen.add(key)
        self.count.distinct += 1
        verdict = self._judge.judge(state)
        if verdict.false_done and moment < self._recorded.unknown_until:
            verdict = replace(verdict, caught="nobody knew yet")
        kind = f"{verdict.kind}{', ' * bool(verdict.caught)}{verdict.caught}"
        self.count.kinds[kind] += 1
        problem = self._problem(state, verdict, done)
        if chosen or self.count.kinds[kind] == 1:
            self.count.reruns += 1
            problem = problem or self._judge.rerun(state, self._bearer, *self._recorded.flags)
        if problem:
            self.count.failures.append(f"{self._recorded.name}, moment {moment}: {problem} ({verdict})")

    def _problem(self, state: State, verdict: Verdict, done: bool) -> str:
        """Say what no state may be; empty if it is none of that."""
        if verdict.false_done:
            return "false done"
        if verdict.kind == "refused":
            return "refused"
        what, file = self._recorded.object, state.names.get(OUT)
        output = None if file is None else state.contents[file]
        if output != what.data and (done or output not in (None, *self._recorded.before)):
            self.count.torn_output += 1
            if done or not self._recorded.torn:
                return "lost after it was done" if done else "wrong bytes under the final name"
        if (
            not self._recorded.torn
            and output == what.data
            and file is not None
            and state.modes.get(file) not in self._mode
        ):
            return "permissions lost"
        sound = sound_parts(state, what)
        return f"{sound} sound parts, {verdict.reused} used" if verdict.reused < sound else ""


def _fingerprint(state: State, done: bool) -> int:
    hasher = xxhash.xxh3_128(f"{done} {sorted(state.names.items())} {sorted(state.modes.items())}".encode())
    for file in state.names.values():
        hasher.update(state.contents[file])
    return hasher.intdigest()


@contextmanager
def _shelf() -> Iterator[Shelf]:
    """Make a shelf in memory: nothing here depends on what is below a file system."""
    memory = Path("/dev/shm")
    with (
        tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder,
        closing(Shelf(Path(folder))) as shelf,
    ):
        yield shelf
