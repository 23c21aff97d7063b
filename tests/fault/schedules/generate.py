"""A schedule from a seed: the same one for ever as long as this file stays as it is."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TypeVar

from tests.fault.schedules.shop import KINDS
from tests.fault.schedules.values import Blow, Damage, Fault, Flags, Replacement, Run, Schedule, Step, Thing

Choice = TypeVar("Choice")
_KIB = 1024
_PART_SIZES = (1, 7, 64, 500, 1 * _KIB, 4 * _KIB, 16 * _KIB, 64 * _KIB)
_MOST_PARTS = 400
_BLOWS = {
    "kill": 10,
    "kill_tree": 10,
    "kill_worker": 8,
    "kill_workers": 3,
    "stop_worker": 3,
    "stop": 2,
    "int": 4,
    "int2": 2,
    "term": 3,
    "term2": 1,
    "hup": 2,
    "second": 6,
    "cut_part": 3,
    "delete_part": 3,
    "delete_cp": 2,
}
_HOWS = {"flip": 16, "cut": 4, "extend": 3, "delete": 3, "junk": 2, "swap": 2, "older": 3}
_SHOWN_WITHOUT_HASHING = {"part": {"cut": 3, "extend": 1, "junk": 1, "swap": 4}, "cp": {"flip": 4, "cut": 2, "junk": 1}}


def make(seed: int) -> Schedule:
    """Draw a schedule."""
    rng = random.Random(seed)
    part_size = rng.choice(_PART_SIZES)
    size = _size(rng, part_size)
    serving = _pick(rng, {"ranges": 88, "whole": 4, "chunked": 4, "endless": 4})
    thing = Thing(
        size,
        _pick(rng, {"strong": 60, "weak": 10, "date": 20, "none": 10}),
        _pick(rng, {"none": 5, "crc64": 3, "sha256": 2}),
        serving,
    )
    checksum = _pick(rng, {"none": 8, "sha256": 1, "crc64": 1})
    proven = thing.promise != "none" or checksum != "none"
    last = _flags(rng, part_size, sane=True)
    steps: list[Step] = []
    if serving == "ranges" and rng.random() < 0.35:
        steps += _interrupted(rng, last, size)
    for _ in range(_pick(rng, {0: 8, 1: 6, 2: 2, 3: 1} if steps else {1: 15, 2: 4, 3: 1})):
        run = _run(rng, last, size, proven=proven)
        steps.append(run)
        if rng.random() < (0.6 if run.held else 0.3):
            steps.append(_damage(rng, unfinished=bool(run.held)))
        if rng.random() < 0.10:
            size = size if rng.random() < 0.5 else _size(rng, part_size)
            steps.append(Replacement(size))
        if rng.random() < 0.08:
            steps.append(Run(last, rng.choice(("verify", "repair", "records")), _faults(rng, size, 0.3, proven=proven)))
    return Schedule(seed, thing, tuple(steps), last, checksum)


def _size(rng: random.Random, part_size: int) -> int:
    most = min(256 * _KIB, part_size * _MOST_PARTS)
    near = rng.choice((0, 1, 2, 3, 7, 16)) * part_size + rng.choice((-1, 0, 1))
    return min(most, max(0, near)) if rng.random() < 0.25 else int(most * rng.random() ** 1.5)


def _flags(rng: random.Random, part_size: int, *, sane: bool = False) -> Flags:
    odd = 0.0 if sane else 1.0
    workers = _pick(rng, {1: 15, 2: 4, 3: 1})
    no_checkpoint = rng.random() < 0.04 * odd
    return Flags(
        part_size=part_size,
        workers=workers,
        connections=max(workers, rng.choice((1, 2, 3, 4, 4, 6, 8, 16))),
        resume="verify" if sane else _pick(rng, {"verify": 8, "trust": 1, "no": 1}),
        retry=rng.choice((0, 1, 2, 3, 3, 4)),
        limit_rate=400 * _KIB if rng.random() < 0.02 * odd else 0,
        fsync=rng.random() < 0.1,
        keep_records=rng.random() < 0.2 and not no_checkpoint,
        no_checkpoint=no_checkpoint,
        no_clobber=rng.random() < 0.04 * odd,
        json=rng.random() < 0.85,
    )


def _run(rng: random.Random, last: Flags, size: int, *, proven: bool) -> Run:
    part_size = last.part_size if rng.random() < 0.92 else rng.choice((0, 900, 8 * _KIB))
    flags = _flags(rng, part_size) if rng.random() < 0.5 else last
    blows = _blows(rng, size) if rng.random() < 0.65 else ()
    faults = _faults(rng, size, 0.75, proven=proven)
    if any(fault.kind.startswith("stall") for fault in faults):
        flags = replace(flags, read_timeout=1.0)
    return Run(
        flags,
        faults=faults,
        blows=blows,
        first=rng.choice((0, 1, *2 * (part_size, 2 * part_size), 3 * part_size + 1, 1 + size // 3)),
        each=rng.choice((0, 0, 0, part_size, 3 * part_size, 1 + size // 5, 1 + size // 9)),
        held=rng.choice((1, 2, 2, 3, 4)) if blows and rng.random() < 0.75 else 0,
        crowd=rng.random() < 0.4,
    )


def _interrupted(rng: random.Random, last: Flags, size: int) -> list[Step]:
    """Draw what resuming is for: a run that ends half-way, and what may have happened until the next one."""
    parts = -(-size // last.part_size)
    kind = _pick(rng, {"kill_tree": 4, "kill": 3, "int": 2, "term": 1})
    blow = Blow(kind, "marks", max(1, int(parts * rng.uniform(0.1, 0.8))), 0)
    each = max(1, size // rng.choice((3, 4, 6, 9)))
    steps: list[Step] = [Run(last, blows=(blow,), first=each, each=each, held=rng.choice((2, 3, 3, 4)))]
    if rng.random() < 0.2:  # marks that are trusted must still be marks, and of this very file
        what = _pick(rng, {"part": 2, "cp": 1})
        damage = Damage(what, _pick(rng, _SHOWN_WITHOUT_HASHING[what]), rng.randrange(1001))
        return [*steps, damage, Run(replace(last, resume="trust"))]
    if rng.random() < 0.75:
        steps.append(_damage(rng, unfinished=True))
    if rng.random() < 0.2:
        steps.append(Replacement(size if rng.random() < 0.7 else rng.randrange(1 + 2 * size)))
    return steps


def _faults(rng: random.Random, size: int, chance: float, *, proven: bool) -> tuple[Fault, ...]:
    found: dict[int, Fault] = {}
    weights = {name: kind.weight for name, kind in KINDS.items()}
    if not proven and rng.random() < 0.9:  # what nobody could notice is played now and then
        weights |= {"flip": 0, "zeros": 0}
    while rng.random() < chance and len(found) < 6:
        at = rng.choice((1, 1, 2, 2, 2, 3, 3, 4, 5, 8))
        kind = _pick(rng, weights)
        amount = _around(rng, size)
        if kind == "replaced":
            amount = size if rng.random() < 0.5 else rng.randrange(1 + 2 * size)
        found[at] = Fault(kind, at, amount)
        if rng.random() < 0.08 and kind not in ("stall", "stall_head", "replaced"):  # once is chance
            found |= {later: Fault(kind, later, amount) for later in range(at, at + 6)}
    return tuple(found[at] for at in sorted(found))


def _blows(rng: random.Random, size: int) -> tuple[Blow, ...]:
    blows = []
    for _ in range(_pick(rng, {1: 8, 2: 2, 3: 1})):
        event = _pick(rng, {"requests": 4, "sent": 3, "marks": 3, "moment": 2})
        count = {
            "requests": rng.choice((1, 2, 2, 3, 4, 6)),
            "sent": _around(rng, size),
            "marks": rng.choice((1, 1, 2, 3, 5, 8)),
            "moment": rng.randrange(30),
        }[event]
        blows.append(Blow(_pick(rng, _BLOWS), event, count, rng.randrange(200)))
    return tuple(blows)


def _damage(rng: random.Random, *, unfinished: bool) -> Damage:
    whats = {"part": 6, "cp": 6, "out": 1} if unfinished else {"part": 2, "cp": 3, "out": 4}
    return Damage(_pick(rng, whats), _pick(rng, _HOWS), rng.randrange(1001))


def _around(rng: random.Random, size: int) -> int:
    return rng.choice((0, 1, rng.randrange(1 + size), rng.randrange(1 + size // 4)))


def _pick(rng: random.Random, weights: dict[Choice, int]) -> Choice:
    return rng.choices(list(weights), list(weights.values()))[0]
