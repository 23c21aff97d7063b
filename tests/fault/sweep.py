"""The nth failure: every system call of every scene answered with an error, once or from then on.

``python -m tests.fault.sweep`` runs all of it and prints the counts.
"""

from __future__ import annotations

import argparse
import errno
import random
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fault.judge import Call, Judge, Key, Refuse, judging
from tests.fault.scenes import Stage, stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fault.judge import Verdict
    from tests.fault.scenes import Scene

EVERYWHERE = ("ENOSPC", "EIO", "EINTR", "EMFILE", "ENOMEM", "EDQUOT", "EROFS")
_ALSO = {  # what only some calls answer, and fastdl has a way around
    "flock": ("ENOLCK", "EOPNOTSUPP"),
    "fallocate": ("EOPNOTSUPP", "ENOSYS", "EINVAL", "EFBIG"),
    "mmap": ("ENODEV",),
    "rename": ("EXDEV", "EACCES"),
    "copy_file_range": ("EXDEV", "EOPNOTSUPP", "EINVAL"),
    "openat": ("EACCES", "ENFILE"),
    "clone": ("EAGAIN",),
    "clone3": ("EAGAIN",),
    "vfork": ("EAGAIN",),
}
_SECONDS = 120.0  # until a run counts as a hang: a worker that is replaced must start under the judge's eyes


@dataclass(frozen=True, slots=True)
class Point:
    """The ``nth`` call of ``key`` fails with ``error``; with ``ever`` all later ones too."""

    scene: str
    key: Key
    nth: int
    error: str
    ever: bool

    def __str__(self) -> str:
        return f"{self.scene} {self.key} {self.nth}{'+' * self.ever} {self.error}"

    def decide(self, call: Call) -> Verdict:
        """Judge a call."""
        if call.key == self.key and (call.nth == self.nth or (self.ever and call.nth > self.nth)):
            return Refuse(getattr(errno, self.error))
        return None


def counted(stage: Stage, scene: Scene) -> Counter[Key]:
    """Run a scene with nothing in its way; return how often each call came."""
    stage.prepare(scene)
    with judging(stage.output) as judge:
        born = stage.start(scene, judge.address)
        born.wait()
    assert born.code == 0, born.stderr
    return judge.counts


def points(scene: str, counts: Counter[Key], *, every: bool) -> Iterator[Point]:
    """Yield the points of a scene: with ``every`` each occurrence, else the first, second and last of each call."""
    for key, count in counts.items():
        for nth in range(1, count + 1) if every else sorted({1, min(2, count), count}):
            for error in EVERYWHERE + _ALSO.get(key.call, ()):
                yield Point(scene, key, nth, error, ever=False)
                if error != "EINTR":  # no kernel interrupts one call for ever, and whoever repeats it is right
                    yield Point(scene, key, nth, error, ever=True)


def strike(stage: Stage, point: Point) -> tuple[int | None, str]:
    """Run a scene with one point struck, then with none; return the exit code and what was wrong, or nothing.

    The code is None if the call never came: how often some come is up to threads.
    """
    scene = stage.scenes[point.scene]
    stage.prepare(scene)
    with judging(stage.output, point.decide) as judge:
        born = stage.start(scene, judge.address)
        try:
            born.wait(_SECONDS)
        except TimeoutError as error:
            return born.code, str(error)
    wrong = stage.sound(scene, born)
    return born.code if struck(judge, point) else None, wrong or stage.recovered(scene)


def struck(judge: Judge, point: Point) -> bool:
    """Tell whether the call came."""
    return judge.counts[point.key] >= point.nth


def main() -> int:
    """Strike everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", action="store_true", help="each occurrence, not the first, second and last")
    parser.add_argument("--scene", action="append", help="only this one; repeatable")
    parser.add_argument("--call", help="only this call")
    parser.add_argument("--share", type=int, default=1, help="one of so many points, at random")
    parser.add_argument("--seed", type=int, default=1, help="what chooses them")
    arguments = parser.parse_args()
    codes: Counter[str] = Counter()
    rng = random.Random(arguments.seed)
    wrongs = 0
    with tempfile.TemporaryDirectory() as folder, stage(Path(folder)) as ready:
        for name in arguments.scene or ready.scenes:
            counts = counted(ready, ready.scenes[name])
            for point in points(name, counts, every=arguments.every):
                if arguments.call not in (None, point.key.call) or rng.randrange(arguments.share):
                    continue
                code, wrong = strike(ready, point)
                codes["never came" if code is None else f"exit code {code}"] += 1
                if wrong:
                    wrongs += 1
                    print(f"{point}: {wrong}", flush=True)
            print(f"{name}: {sum(counts.values())} calls of {len(counts)} kinds; so far {dict(codes)}", flush=True)
    print(f"{sum(codes.values())} points, {wrongs} wrong")
    return 1 if wrongs else 0


if __name__ == "__main__":
    sys.exit(main())
