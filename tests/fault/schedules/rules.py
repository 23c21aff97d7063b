"""What must hold after every run, whatever was done to it."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.e2e.partial import marked
from tests.fault.schedules.shop import CANARY, KINDS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fault.schedules.values import Run, Schedule

_NAMES = {"out", "out.part", "out.cp"}
_LEAST_WINDOW = 16 * 1024  # of the promise about what a kill costs: connections x max(part size, 16 KiB)
_STOPS = {"int": signal.SIGINT, "term": signal.SIGTERM, "hup": signal.SIGHUP}
_FOREIGN = "is no checkpoint of fastdl"


class Broken(AssertionError):
    """Something that must hold did not."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A run that ended, and all that may be known of it."""

    schedule: Schedule
    run: Run
    code: int
    stdout: str
    stderr: str
    seconds: float
    before: dict[str, bytes]  # files by name
    after: dict[str, bytes]
    current: list[bytes]  # states that the object had during the run
    versions: list[bytes]  # and ever
    injected: tuple[str, ...]
    struck: tuple[str, ...]
    disturbed: bool  # files were changed by somebody else since the last success
    excuse: str
    requests: int
    checkpoint: Path
    second: bool = False  # it was started beside another one

    @property
    def foreign(self) -> bool:
        """Whether it refused a checkpoint that is not fastdl's."""
        return _FOREIGN in self.stderr

    @property
    def clean(self) -> bool:
        """Whether nothing was done to it while it ran."""
        return not (self.injected or self.struck or self.second)

    @property
    def abrupt(self) -> bool:
        """Whether it had no time to say anything."""
        return self.code < 0 or any(kind.endswith("2") for kind in self.struck)


def check(seen: Seen) -> None:
    """Check everything about one run.

    Raises:
        Broken: something does not hold.
    """
    for rule in (_files, _words, _lines, _code, _secrets, _content, _loss):
        complaint = rule(seen)
        if complaint:
            raise Broken(f"{complaint}\n  exit {seen.code} after {seen.seconds:.2f} s: {seen.stderr.strip()[-600:]}")


def check_last(seen: Seen) -> None:
    """Check what only the last run of all must leave.

    Raises:
        Broken: something does not hold.
    """
    if not seen.excuse and seen.after.get("out") != seen.current[-1]:
        raise Broken("done, and the file is not the object")


def _files(seen: Seen) -> str:
    """Nothing is left but what is documented, and of a success nothing but the file."""
    if not seen.after.keys() <= _NAMES:
        return f"left behind: {seen.after.keys() - _NAMES}"
    if seen.run.verb != "get" or seen.code != 0 or seen.disturbed or seen.second or "second" in seen.struck:
        return ""
    flags = seen.run.flags
    left = set(seen.after) - {"out"}
    if flags.keep_records or flags.no_checkpoint:
        left -= {"out.cp"}
    return f"left behind by a success: {left}" if left else ""


def _words(seen: Seen) -> str:
    """One-line errors and no traceback."""
    text = seen.stdout + seen.stderr
    for word in ("Traceback", "please report", "unexpected "):
        if word in text:
            return f"{word!r} was said: {text[-2000:]}"
    lines = seen.stderr.splitlines()
    if not all(line.startswith("fastdl: ") for line in lines):
        return f"not in one line of ours: {lines}"
    silent = seen.code == 0 or seen.abrupt or (seen.run.verb != "get" and seen.code == 8)
    return "" if lines or silent else "failed without a word"


def _lines(seen: Seen) -> str:
    """Every line of --json can be read, and the last one says how it ended."""
    if not seen.run.flags.json:
        return ""
    try:
        events = [json.loads(line) for line in seen.stdout.splitlines()]
    except ValueError as error:
        return f"{error}: {seen.stdout}"
    if seen.abrupt:
        return ""
    last = events[-1] if events else {}
    if seen.code == 0 or last.get("event") == "verified":
        wanted = "done" if seen.run.verb == "get" else "verified"
        return "" if last.get("event") == wanted else f"the last line is no {wanted!r}: {last}"
    return "" if (last.get("event"), last.get("exit_code")) == ("error", seen.code) else f"not an error: {last}"


def _code(seen: Seen) -> str:
    """An exit code that is documented and that something of this run accounts for."""
    allowed = {0}
    for kind in seen.injected:
        allowed |= KINDS[kind].codes
    if seen.schedule.thing.serving == "chunked" and {"flip", "zeros"} & set(seen.injected):
        allowed |= {5, 6}  # what is spoilt may be the coding
    for kind in seen.struck:
        allowed |= _codes_of_blow(kind)
    if seen.second:
        allowed |= {-9}
    if seen.second or "second" in seen.struck:
        allowed |= {2, 7, 8, 10}
    if seen.foreign:
        allowed |= {9}
    allowed |= _codes_of_flags(seen)
    if seen.run.verb != "get":
        allowed |= _codes_of_verify(seen)
    if _in_doubt(seen) or (seen.schedule.thing.serving == "endless" and "cut" in seen.injected):
        allowed |= {8}
    return "" if seen.code in allowed else f"exit code {seen.code}, plausible were {sorted(allowed)}"


def _codes_of_flags(seen: Seen) -> set[int]:
    flags = seen.run.flags
    there = flags.no_clobber and "out" in {**seen.before, **seen.after}
    return {2} if there or (flags.no_checkpoint and flags.keep_records) else set()


def _codes_of_blow(kind: str) -> set[int]:
    stop = _STOPS.get(kind.rstrip("2"))
    if stop is not None:
        return {128 + stop, -stop}
    return {
        "kill": {-9},
        "kill_tree": {-9},
        "kill_worker": {1},
        "kill_workers": {1},
        "cut_part": {9},
        "delete_part": {9},
        "stop": {5},
        "stop_worker": {5},
    }.get(kind, set())


def _codes_of_verify(seen: Seen) -> set[int]:
    """Tell how a look may end: bad only if something is, or may be to its eyes."""
    out = seen.before.get("out")
    if out is None:
        return {3}
    allowed = {2}  # nothing to hold it against
    known = seen.versions if seen.run.verb == "records" else seen.current
    if out not in known or seen.disturbed or seen.injected or seen.excuse or len(seen.versions) > 1:
        allowed |= {7, 8}
    return allowed


def _in_doubt(seen: Seen) -> bool:
    """Tell whether an earlier run may have found wrong what nothing clears now: a promise that was a lie."""
    kinds = {fault.kind for step in seen.schedule.steps for fault in getattr(step, "faults", ())}
    return "wrong_promise" in kinds and seen.schedule.thing.promise == "none"


def _secrets(seen: Seen) -> str:
    """No secret is said or kept."""
    if CANARY in seen.stdout + seen.stderr:
        return "a secret was said"
    kept = [name for name in ("out.part", "out.cp") if CANARY.encode() in seen.after.get(name, b"")]
    return f"a secret is in {kept}" if kept else ""


def _content(seen: Seen) -> str:
    """The final name is absent, what it was, or exact."""
    before, after = seen.before.get("out"), seen.after.get("out")
    if seen.run.verb != "get":
        return _content_of_verify(seen, before, after)
    if seen.code == 0 and after is None:
        return "done, and no file"
    if seen.excuse or after in seen.current:
        return ""
    if seen.code == 0:
        return f"done, and wrong: {_difference(after or b'', seen.current[-1])}"
    return "" if after == before else f"a wrong file: {_difference(after or b'', seen.current[-1])}"


def _content_of_verify(seen: Seen, before: bytes | None, after: bytes | None) -> str:
    """A look changes nothing; a repair replaces bytes, and of a good file none."""
    if seen.run.verb != "repair" and after != before:
        return "a look changed the file"
    if (before is None) != (after is None) or len(before or b"") != len(after or b""):
        return "a repair changed the size"
    known = seen.versions if seen.run.verb == "records" else seen.current
    if seen.code == 0 and after not in known and not seen.excuse:
        return f"called good, and wrong: {_difference(after or b'', known[-1])}"
    lied_to = bool({"flip", "zeros", "wrong_promise", "replaced", "no_promise"} & set(seen.injected))
    if before in seen.current and after != before and not lied_to and not seen.disturbed and not seen.excuse:
        return f"a good file was repaired: {_difference(after or b'', before or b'')}"
    return ""


def _loss(seen: Seen) -> str:
    """A kill costs at most the parts that were under way."""
    flags = seen.run.flags
    first_of_all = not seen.before
    if seen.code != -9 or not first_of_all or "out.part" not in seen.after or flags.no_checkpoint:
        return ""
    if seen.second or "second" in seen.struck or len(seen.current) > 1 or seen.disturbed:
        return ""
    if {"flip", "zeros", "wrong_promise"} & set(seen.injected):  # a repair unmarks what it doubts
        return ""
    plan, found = marked(seen.checkpoint)
    if plan is None:
        return ""
    data = bytearray(seen.after["out.part"][: plan.size])
    for index in found:
        part = plan.part(index)
        if data[part.start : part.stop] != seen.current[0][part.start : part.stop]:
            return f"part {index} is marked, and its bytes are not there"
        data[part.start : part.stop] = bytes(part.nbytes)
    lost, most = len(data) - data.count(0), flags.connections * max(plan.part_size, _LEAST_WINDOW)
    return f"{lost} bytes are there and not marked, the promise is {most}" if lost > most else ""


def _difference(after: bytes, right: bytes) -> str:
    if len(after) != len(right):
        return f"{len(after)} bytes instead of {len(right)}"
    wrong = [at for at in range(len(right)) if after[at] != right[at]]
    return f"{len(wrong)} bytes differ, from {wrong[0]} to {wrong[-1]}" if wrong else "equal to another state"
