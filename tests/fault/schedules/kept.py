"""Schedules that once failed, kept for ever: as values, because what a seed makes may change."""

from __future__ import annotations

from tests.fault.schedules.values import Blow, Fault, Flags, Run, Schedule, Thing

KEPT: dict[str, Schedule] = {
    "a second SIGINT while the first one's cleanup ends was an empty line and a wrong word": Schedule(
        648,
        Thing(2163),
        (
            Run(
                Flags(part_size=1024),
                faults=(Fault("reset_after", 1, amount=2134),),
                blows=(Blow("int2", "sent", 938), Blow("kill_tree", "marks", 5, amount=126)),
            ),
        ),
    ),
    "and a SIGINT after the last byte": Schedule(
        693, Thing(1), (Run(Flags(part_size=2048), blows=(Blow("int2", "moment", 25),)),)
    ),
}
"""What was wrong -> the schedule that showed it, shrunk."""
