"""A schedule played: the real command against a real server, blow by blow, and judged after every run."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.e2e.partial import bits
from tests.fault.schedules.disk import behind_its_back, contents, damage
from tests.fault.schedules.excuses import excuse
from tests.fault.schedules.rules import Broken, Seen, check, check_last
from tests.fault.schedules.shop import CANARY, Shop
from tests.fault.schedules.values import Damage, Replacement, Run
from tests.servers.wire import running

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.nursery import Born, Nursery
    from tests.fault.schedules.values import Blow, Flags, Schedule

BOUND = 30.0  # seconds that a run may take: retries, read timeouts and Retry-After are a few each
_MOST_LAST = 4  # runs without faults until a download must be done
_START = 5.0  # seconds until a first request: a signal that comes before the command is up is another test's matter
_STILL = 0.2  # seconds after which a blow is struck though its event did not come
_STOP = 5.0  # seconds from a signal to the end: two are promised, to a machine that is not busy with campaigns
_SIGNALS = {"int": signal.SIGINT, "term": signal.SIGTERM, "hup": signal.SIGHUP}
_BEHIND = {"cut_part": "out.part", "delete_part": "out.part", "delete_cp": "out.cp"}


def _stopped(born: Born, seconds: float) -> None:
    born.signal(signal.SIGSTOP)
    time.sleep(seconds)
    born.signal(signal.SIGCONT)


def _worker_stopped(born: Born, worker: int, seconds: float) -> None:
    os.kill(worker, signal.SIGSTOP)
    born.ended(seconds)
    os.kill(worker, signal.SIGCONT)


def _workers_killed(born: Born, _worker: int, _seconds: float) -> None:
    for worker in born.workers():
        os.kill(worker, signal.SIGKILL)


_PROCESSES: dict[str, Callable[[Born, float], None]] = {
    "kill": lambda born, _: born.signal(signal.SIGKILL),
    "kill_tree": lambda born, _: born.kill_tree(),
    "stop": _stopped,
}
_WORKERS: dict[str, Callable[[Born, int, float], None]] = {
    "kill_worker": lambda _born, worker, _seconds: os.kill(worker, signal.SIGKILL),
    "kill_workers": _workers_killed,
    "stop_worker": _worker_stopped,
}


class Player:
    """One schedule on its way, in an empty ``folder``."""

    def __init__(self, schedule: Schedule, nursery: Nursery, folder: Path, counts: Counter[str]) -> None:
        self._schedule = schedule
        self._nursery = nursery
        self._folder = folder
        self._counts = counts
        self._shop = Shop(schedule.thing, schedule.seed)
        self._out = folder / "out"
        self._before: dict[str, bytes] = {}
        self._older: dict[str, bytes] = {}
        self._others: list[Born] = []
        self._struck: list[str] = []
        self._expected = ""  # what --checksum is given
        self._disturbed = False  # something was done to files since the last success

    def play(self) -> None:
        """Play everything.

        Raises:
            Broken: what must hold did not.
        """
        with running(self._shop.server):
            for number, step in enumerate(self._schedule.steps):
                if isinstance(step, Run):
                    self._run(step, number)
                elif isinstance(step, Replacement):
                    self._shop.replace(step.size)
                else:
                    self._damage(step)
            self._finish()

    def _finish(self) -> None:
        last = Run(replace(self._schedule.last, no_clobber=False, no_checkpoint=False, resume="verify"))
        for _ in range(_MOST_LAST):
            seen = self._run(last, len(self._schedule.steps))
            if seen.code == 0:
                check_last(seen)
                return
            if seen.foreign:
                (self._folder / "out.cp").unlink()
        raise Broken(f"not done after {_MOST_LAST} runs without faults: {seen.code}, {seen.stderr}")

    def _damage(self, step: Damage) -> None:
        name = {"part": "out.part", "cp": "out.cp", "out": "out"}[step.what]
        if damage(self._folder / name, step, self._older.get(name)):
            self._disturbed = True
            self._counts[f"damage {step.what} {step.how}"] += 1

    def _run(self, run: Run, number: int) -> Seen:
        shop, folder = self._shop, self._folder
        self._before = contents(folder)
        shop.open(run)
        version = shop.version
        checksum = self._schedule.checksum
        self._expected = "" if checksum == "none" else f"{checksum}={version.digest(checksum)}"
        self._others.clear()
        self._struck.clear()
        began = time.monotonic()
        born = self._nursery.start(*arguments(run, shop.server.port, self._expected), cwd=folder)
        try:
            for blow in run.blows:
                if self._await(born, blow):
                    self._strike(born, blow)
        except BaseException:
            born.kill_tree()
            raise
        finally:
            shop.release()
            try:
                code = born.wait(BOUND)
                others = [(other.wait(BOUND), other) for other in self._others]
            except TimeoutError as error:
                raise Broken(str(error)) from None
        seen = Seen(
            schedule=self._schedule,
            run=run,
            code=code,
            stdout=born.stdout,
            stderr=born.stderr,
            seconds=time.monotonic() - began,
            before=self._before,
            after=contents(folder),
            current=[each.data for each in shop.current],
            versions=[each.data for each in shop.versions],
            injected=tuple(shop.injected),
            struck=tuple(self._struck),
            disturbed=self._disturbed,
            excuse=excuse(self._schedule, number),
            requests=shop.requests,
            checkpoint=folder / "out.cp",
        )
        self._count(seen)
        check(seen)
        for code, other in others:
            beside = replace(run, flags=self._flags(0), verb="get")
            check(replace(seen, run=beside, code=code, stdout=other.stdout, stderr=other.stderr, second=True))
        self._older = self._before
        if code == 0 and run.verb == "get":
            self._disturbed = False
        return seen

    def _await(self, born: Born, blow: Blow) -> bool:
        """Wait for the moment to strike; tell whether the command still runs."""
        shop, count = self._shop, blow.count
        if not self._until(born, lambda: shop.requests >= 1, _START):
            return False
        if blow.event == "moment":
            return not born.ended(count / 1000)
        return self._until(
            born,
            {
                "requests": lambda: shop.requests >= count,
                "sent": lambda: shop.sent >= count,
                "marks": lambda: bits(self._folder / "out.cp") >= count,
            }[blow.event],
        )

    def _until(self, born: Born, condition: Callable[[], bool], seconds: float = _STILL) -> bool:
        deadline = time.monotonic() + seconds
        while not condition():
            if born.ended(0.001):
                return False
            if time.monotonic() > deadline:
                break
        return not born.ended()

    def _strike(self, born: Born, blow: Blow) -> None:
        kind, workers = blow.kind, born.workers()
        victim = workers[blow.amount % len(workers)] if workers else 0
        if kind in _PROCESSES:
            _PROCESSES[kind](born, blow.amount / 1000)
        elif kind in _WORKERS and victim:
            with suppress(ProcessLookupError):
                _WORKERS[kind](born, victim, blow.amount / 1000)
        elif kind.rstrip("2") in _SIGNALS:
            self._end(born, _SIGNALS[kind.rstrip("2")], twice=kind.endswith("2"))
        elif kind == "second":
            beside = Run(self._flags(blow.amount))
            line = arguments(beside, self._shop.server.port, self._expected)
            self._others.append(self._nursery.start(*line, cwd=self._folder))
        elif kind in _BEHIND and self._shop.holding.is_set():  # else it may be the very instant of publishing
            behind_its_back(self._folder / _BEHIND[kind], "delete" if kind.startswith("delete") else "cut")
            self._disturbed = True
        else:
            return
        self._struck.append(kind)

    def _flags(self, amount: int) -> Flags:
        return replace(self._schedule.last, part_size=(self._schedule.last.part_size, 512)[amount % 2])

    def _end(self, born: Born, number: signal.Signals, *, twice: bool) -> None:
        born.signal(number)
        if twice:
            born.signal(number)
        if not born.ended(_STOP):
            raise Broken(f"{number.name} and no end within {_STOP} s; {born.stderr}")

    def _count(self, seen: Seen) -> None:
        self._counts["runs"] += 1
        self._counts["requests"] += seen.requests
        self._counts[f"exit {seen.code}"] += 1
        for kind in seen.injected:
            self._counts[f"fault {kind}"] += 1
        for kind in seen.struck:
            self._counts[f"blow {kind}"] += 1
        if seen.excuse:
            self._counts["excused runs"] += 1


def arguments(run: Run, port: int, expected: str) -> list[str]:
    """Write the command line of a run."""
    flags = run.flags
    url = f"http://user:{CANARY}@127.0.0.1:{port}/object?Expires=1&Signature={CANARY}"
    line = ["verify", "out"] if run.verb != "get" else ["-o", "out"]
    if run.verb != "records":
        line += [url, "-H", f"X-Key: {CANARY}"]
    line += ["-x", str(flags.connections), "-w", str(flags.workers), "--retry", str(flags.retry)]
    line += ["--read-timeout", str(flags.read_timeout)]
    line += ["--checksum", expected] if expected else []
    line += ["--json"] if flags.json else []
    line += ["--limit-rate", str(flags.limit_rate)] if flags.limit_rate else []
    line += ["--repair"] if run.verb == "repair" else []
    if run.verb != "get":
        return line
    line += ["-p", str(flags.part_size)] if flags.part_size else []
    line += ["--resume", flags.resume]
    switches = {
        "--fsync": flags.fsync,
        "--keep-records": flags.keep_records,
        "--no-checkpoint": flags.no_checkpoint,
        "-n": flags.no_clobber,
    }
    return line + [name for name, on in switches.items() if on]
