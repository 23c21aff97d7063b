"""Where a wrong byte cannot be noticed by anybody: what a schedule does that nothing known contradicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.fault.schedules.values import Damage, Replacement, Run

if TYPE_CHECKING:
    from tests.fault.schedules.values import Schedule

_LIES = frozenset(("flip", "zeros"))
# What the stamp and the form of a checkpoint do not show, and only hashing would.
_BELIEVED = frozenset((("part", "flip"), ("part", "older"), ("cp", "older")))


def excuse(schedule: Schedule, upto: int) -> str:
    """Say why the file that step ``upto`` leaves may be wrong without anybody's fault; empty if it may not.

    Each reason is one that the documentation gives: right headers over wrong bytes where no digest is promised, two
    states of an object that nothing tells apart, an end of the connection that alone ends the body, marks that the
    user wants to be trusted.
    """
    thing, why = schedule.thing, ""
    steps = schedule.steps[: upto + 1]
    run = steps[upto] if upto < len(steps) else Run(schedule.last)
    assert isinstance(run, Run)
    silent = any(fault.kind == "no_promise" for fault in run.faults)
    if schedule.checksum != "none" or (thing.promise == "sha256" and not silent):
        return ""
    damaged = trusted = False
    for step in steps:
        if isinstance(step, Damage):
            damaged |= (step.what, step.how) in _BELIEVED
            continue
        if isinstance(step, Replacement):
            continue
        kinds = {fault.kind for fault in step.faults}
        if kinds & _LIES:
            why = "bytes came wrong under right headers"
        nameless = thing.validator == "none" or "no_validator" in kinds
        if nameless and "replaced" in kinds:
            why = "two states of the object that nothing tells apart"
        if thing.serving == "endless" and kinds & {"cut", "admitted", "longer", "junk"}:
            why = "the end of the connection ends the body"
        trusted |= damaged and step.flags.resume == "trust"
    if trusted:  # a CRC-64 is combined from records, which agree with each other whatever became of the bytes
        return "marks were trusted after damage"
    return "" if thing.promise == "crc64" and not silent else why
