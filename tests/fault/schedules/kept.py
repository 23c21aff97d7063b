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
    "a SIGINT while a connection's thread began waited for the read timeout": Schedule(
        11615, Thing(2), (Run(blows=(Blow("int", "moment", 7),), crowd=True),) * 8
    ),
    "a small object that came wrong whole could not be asked for a third time": Schedule(
        600545,
        Thing(20, promise="sha256"),
        (Run(Flags(part_size=7), faults=(Fault("zeros", 1), Fault("whole_chunked", 3)), each=1),),
        Flags(part_size=7),
    ),
    "a run without a checkpoint left its partial file beside a finished one": Schedule(
        1068191,
        Thing(806),
        (
            Run(Flags(part_size=500, keep_records=True)),
            Run(Flags(part_size=500, no_checkpoint=True), faults=(Fault("reset", 1), Fault("gone", 3)), each=500),
        ),
        Flags(part_size=500),
    ),
    "a kill lost half a part more than 16 KiB for each connection": Schedule(
        603906,
        Thing(117_015),
        (Run(Flags(part_size=500, connections=2), blows=(Blow("kill", "marks", 23),), first=4875),),
    ),
}
"""What was wrong -> the schedule that showed it, shrunk."""
