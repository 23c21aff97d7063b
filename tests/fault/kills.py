"""SIGKILL at every system call of every scene, before and after it took effect and half-way through a write.

``python -m tests.fault.kills --points 10000 --seed 1`` goes through all of them once, then through random chains of
kills: the run that resumes after one is killed too, and the last one is let through.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fastdl.checkpoint import open_checkpoint
from tests.fault.judge import Call, Key, Pretend, judging
from tests.fault.scenes import DATA, PART, stage
from tests.fault.sweep import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.e2e.nursery import Born
    from tests.fault.judge import Verdict
    from tests.fault.scenes import Scene, Stage

_VICTIMS = ("tree", "parent", "worker")
_CHANGING = frozenset(
    ("pwrite64", "ftruncate", "fallocate", "fchmod", "rename", "renameat", "renameat2", "unlink", "unlinkat", "openat")
)
_AT_STAKE = 3 * max(PART, 16 * 1024)  # bytes: connections times parts. What one kill may cost, as promised
_DAMAGED = 0  # the part that is damaged before the scene "resume" begins
_DELAY = 0.002  # seconds between a call and a kill at a random moment, at most
_SECONDS = 120.0  # until a run counts as a hang: a worker that is replaced must start under the judge's eyes
_LONGEST = 3  # kills in a row
_SELDOM = 0.1  # how often a scene is played that is not among the _QUICK ones, whose workers are all forked
_QUICK = ("fresh", "resume", "keep", "stream")


@dataclass(frozen=True, slots=True)
class Kill:
    """Who dies, and when: at the ``nth`` call of ``key``, or at the ``nth`` call of all if it is None."""

    scene: str
    key: Key | None
    nth: int
    victim: str
    effect: float = 0.0  # how much of the call is done before: 0 nothing, 1 all, between them a torn write
    delay: float = 0.0  # seconds that the call has to wait for the kill, while everybody else goes on

    def __str__(self) -> str:
        at = f"{self.key} {self.nth}" if self.key is not None else f"call {self.nth}"
        done = f", {self.effect:.0%} done" if self.effect else ""
        return f"{self.scene}: {self.victim} at {at}{done}{', a moment later' if self.delay else ''}"


class Killer:
    """Carries one kill out."""

    def __init__(self, kill: Kill) -> None:
        self._kill = kill
        self._seen = 0
        self.struck = ""  # whom it met

    def decide(self, call: Call) -> Verdict:
        """Let every call pass but the one."""
        self._seen += 1
        kill = self._kill
        if self.struck or (
            self._seen != kill.nth if kill.key is None else (call.key, call.nth) != (kill.key, kill.nth)
        ):
            return None
        self.struck = kill.victim
        if kill.delay:
            time.sleep(kill.delay)
        victim = self._victim(call.process)
        done = None
        if kill.effect and (victim in (0, call.process) or call.key.call != "openat"):
            done = call.done(kill.effect)
        with suppress(ProcessLookupError):
            if victim:
                os.kill(victim, signal.SIGKILL)
            else:
                os.killpg(os.getpgid(call.process), signal.SIGKILL)
        # If the caller lives, what was done for it must not be done twice.
        return None if done is None or victim in (0, call.process) else Pretend(done)

    def _victim(self, caller: int) -> int:
        """Return whom to kill, 0 for all."""
        command = os.getpgid(caller)  # that of a nursery's command leads the group
        if self._kill.victim == "tree":
            return 0
        workers = [] if caller == command else [caller]
        workers += map(int, Path(f"/proc/{command}/task/{command}/children").read_text("ascii").split())
        if self._kill.victim == "worker" and workers:
            return workers[0]
        self.struck = "parent"
        return command


def every_kill(scene: str, counts: Mapping[Key, int]) -> Iterator[Kill]:
    """Yield each victim at each call, before it and after, and half-way through each write."""
    for key, count in counts.items():
        for nth in range(1, count + 1):
            for victim in _VICTIMS:
                yield Kill(scene, key, nth, victim)
                if key.call in _CHANGING:
                    yield Kill(scene, key, nth, victim, effect=1.0)
                if key.call == "pwrite64":
                    yield Kill(scene, key, nth, victim, effect=0.5)


def random_kill(scene: str, calls: int, rng: random.Random) -> Kill:
    """Return any kill at any call, or a moment later."""
    effect = rng.choice((0.0, 1.0, rng.random()))
    delay = 0.0 if effect else rng.choice((0.0, rng.random() * _DELAY))
    return Kill(scene, None, rng.randrange(1, calls + 1), rng.choice(_VICTIMS), effect, delay)


def suffer(stage: Stage, kills: list[Kill]) -> tuple[int, str]:
    """Play a scene with one kill after the other, then undisturbed; return how many struck and what was wrong."""
    scene = stage.scenes[kills[0].scene]
    stage.prepare(scene)
    struck = 0
    for kill in kills:
        killer = Killer(kill)
        with judging(stage.output, killer.decide) as judge:
            born = stage.start(scene, judge.address)
            try:
                born.wait(_SECONDS)
            except TimeoutError as error:
                return struck, f"{kill}: {error}"
        struck += bool(killer.struck)
        wrong = _judged(stage, scene, born, killer.struck)
        if wrong:
            return struck, f"{kill}: {wrong}"
        if born.code == 0:
            break
    due = _due(stage, scene)
    wrong = stage.recovered(scene)
    if not wrong and due is not None and stage.fetched != due:
        wrong = f"{stage.fetched} bytes were fetched again, {due} were missing"
    return struck, f"{', then '.join(map(str, kills))}: {wrong}" if wrong else ""


def _judged(stage: Stage, scene: Scene, born: Born, struck: str) -> str:
    """Say what is wrong with a run that was killed, or lost a worker, and lose what it did not mark."""
    if struck in ("", "worker"):
        return stage.sound(scene, born) or (f"exit code {born.code}: {born.stderr}" if born.code else "")
    if born.code != -signal.SIGKILL:
        return f"exit code {born.code}: {born.stderr}"
    if born.stderr and "warning" not in born.stderr and "fastdl: " not in born.stderr:
        return f"said {born.stderr!r}"
    return stage.harmed(scene, finished=False) or _lose(stage, scene)


def _marked(stage: Stage) -> set[int] | None:
    """Return the parts that the next run will take for finished; None if it cannot tell."""
    path = stage.output.with_name("out.cp")
    if not path.exists():
        return None
    with closing(open_checkpoint(path)) as opened:
        if opened.stored is None:
            return None
        partial = stage.output.with_name("out.part")
        if partial.exists():
            behind = partial.read_bytes()[len(DATA) :]
            sealed = partial.stat().st_size == len(DATA) and opened.marks.complete
            if not opened.is_about(behind) and not sealed:
                return None  # records of the finished file, while another one is begun
        return {index for run in opened.marks.runs()[0] for index in range(run.first, run.stop)}


def _lose(stage: Stage, scene: Scene) -> str:
    """Wipe what was received and is not marked, so that the next run cannot live on it; say if it was too much.

    The object has no zero byte, and files are allocated as zeros.
    """
    partial, marked = stage.output.with_name("out.part"), _marked(stage)
    if not partial.exists() or marked is None:
        return ""
    lost = 0
    with partial.open("r+b") as file:
        for index in range(-(-len(DATA) // PART)):
            right = DATA[index * PART : (index + 1) * PART]
            file.seek(index * PART)
            piece = file.read(len(right))
            if index in marked:
                if piece != right and not (scene.name == "resume" and index == _DAMAGED):
                    return f"part {index} is marked and wrong"
            elif piece and not (scene.name == "resume" and index == _DAMAGED):
                lost += len(piece) - piece.count(0)
                file.seek(index * PART)
                file.write(bytes(len(piece)))
    received = scene.name != "reuse"  # there most are copied from the old file
    return f"{lost} bytes lost" if received and lost > _AT_STAKE else ""


def _due(stage: Stage, scene: Scene) -> int | None:
    """Return how many bytes the next run has to fetch; None if that is not for records to say."""
    marked = _marked(stage)
    partial = stage.output.with_name("out.part")
    if marked is None or not partial.exists() or scene.in_place:
        return None
    content = partial.read_bytes()
    due = 0
    for index in range(-(-len(DATA) // PART)):
        right = DATA[index * PART : (index + 1) * PART]
        if index not in marked or content[index * PART : index * PART + len(right)] != right:
            due += len(right)
    return due


def campaign(stage: Stage, points: int, seed: int, *, every: bool = True) -> Iterator[tuple[int, str]]:
    """Yield, chain by chain until ``points`` kills struck, how many struck and what was wrong."""
    rng = random.Random(seed)
    calls = {name: counted(stage, scene) for name, scene in stage.scenes.items()}
    struck = 0
    if every:
        kills = [kill for name, counts in calls.items() for kill in every_kill(name, counts)]
        rng.shuffle(kills)
        for kill in kills:
            if struck >= points:
                return
            count, wrong = suffer(stage, [kill])
            struck += count
            yield count, wrong
    while struck < points:
        name = rng.choice(_QUICK if rng.random() > _SELDOM else list(calls))
        total = sum(calls[name].values())
        count, wrong = suffer(stage, [random_kill(name, total, rng) for _ in range(rng.randint(1, _LONGEST))])
        struck += count
        yield count, wrong


def main() -> int:
    """Run a campaign and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--random", action="store_true", help="only chains of random kills")
    arguments = parser.parse_args()
    began, told, total, chains, wrongs = time.monotonic(), 0, 0, 0, 0
    with tempfile.TemporaryDirectory() as folder, stage(Path(folder)) as ready:
        for struck, wrong in campaign(ready, arguments.points, arguments.seed, every=not arguments.random):
            total, chains = total + struck, chains + 1
            if wrong:
                wrongs += 1
                print(wrong, flush=True)
            if total // 500 > told:
                told = total // 500
                print(f"{total} kills, {wrongs} wrong, {time.monotonic() - began:.0f} s", flush=True)
    print(f"seed {arguments.seed}: {total} kills in {chains} chains, {wrongs} wrong, {time.monotonic() - began:.0f} s")
    return 1 if wrongs else 0


if __name__ == "__main__":
    sys.exit(main())
