"""The runs whose every moment is replayed; what may stand under the final name, and when it must be the new object."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from fastcrc import crc64

from fastdl.header import RECORD, SLOT, decode
from tests.e2e.partial import bits
from tests.e2e.processes import wait_until
from tests.fault.powerloss.disk import Operation, Sync, Write
from tests.fault.powerloss.record import Recorder
from tests.fault.powerloss.stage import NEW, OLD, OTHER, PART, Object, Recorded, Stage
from tests.servers.scripted import (
    Exchange,
    Handler,
    flipped,
    short_206,
    status,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_FEW = 4  # parts that one answer gives


def _shared(what: Object, fault: Handler | None = None) -> Handler:
    """Serve ``what`` in answers of a few parts, the first to the command's own process, the others to a worker.

    The first one is held until the worker asks: without that the object would be over before any worker is up.
    ``fault`` answers the first request for the end.
    """
    gate = threading.Event()
    faults = [] if fault is None else [fault]

    def handle(exchange: Exchange) -> None:
        exchange.otherwise = what.handler
        start, stop = exchange.request.range or (0, None)
        if stop is not None and stop - start <= _FEW * PART:  # a probe for one byte, or the end
            (faults.pop() if faults and start else what.handler)(exchange)
            return
        if start == 0:
            exchange.break_body(1, lambda: exchange.hold(gate))
        gate.set() if start else None
        short_206(_FEW * PART)(exchange)

    return handle


def _stopped(what: Object, parts: int, checkpoint: Path) -> Handler:
    """Serve the first ``parts`` parts, and refuse all others once these are marked."""

    def handle(exchange: Exchange) -> None:
        exchange.otherwise = what.handler
        if (exchange.request.range or (0, 0))[0] == 0:
            short_206(parts * PART)(exchange)
        else:
            wait_until(lambda: bits(checkpoint) == parts)
            status(403)(exchange)

    return handle


def fresh(stage: Stage) -> Recorded:
    """A download from nothing."""
    stage.serve(_shared(NEW))
    return Recorded("fresh", stage.begun("--fsync").tape, NEW, ())


def over_an_older_file(stage: Stage) -> Recorded:
    """A file of another size stands under the final name, and stays until the new one is there."""
    stage.out.write_bytes(OTHER)
    stage.serve(_shared(NEW))
    return Recorded("over an older file", stage.begun("--fsync").tape, NEW, (OTHER,))


def without_fsync(stage: Stage) -> Recorded:
    """What is not promised without it is the published file, and nothing else."""
    stage.out.write_bytes(OTHER)
    stage.serve(_shared(NEW))
    return Recorded("without --fsync", stage.begun().tape, NEW, (OTHER,), fsync=False, torn=True)


def resumed(stage: Stage) -> Recorded:
    """A refused run leaves five parts, none of them durable; a second one goes on."""
    recorder = Recorder(stage.folder, stage.logs)
    stage.serve(_stopped(NEW, 5, stage.checkpoint))
    recorder.run(*stage.flags, "--fsync", expect=4)
    stage.serve(_shared(NEW))
    recorder.run(*stage.flags, "--fsync")
    return Recorded("resumed", recorder.tape, NEW, ())


def damaged(stage: Stage) -> Recorded:
    """Two parts and one record changed on the disk between two runs."""
    stage.serve(_stopped(NEW, 8, stage.checkpoint))
    stage.run(expect=4)
    for name, at in (("out.part", PART + 3), ("out.part", 5 * PART), ("out.cp", 3 * SLOT + 3 * RECORD.size)):
        _flip(stage.folder / name, at)
    stage.serve(_shared(NEW))
    return Recorded("resumed with damage", stage.begun("--fsync").tape, NEW, ())


def started_over(stage: Stage) -> Recorded:
    """Another object of the same size came; one that was begun is thrown away, its checkpoint used again."""
    recorder = Recorder(stage.folder, stage.logs)
    stage.serve(_stopped(OLD, 8, stage.checkpoint))
    recorder.run(*stage.flags, expect=4)
    stage.serve(_shared(NEW))
    recorder.run(*stage.flags, "--fsync")
    return Recorded("started over", recorder.tape, NEW, ())


def kept(stage: Stage) -> Recorded:
    """The records of the old object stand beside it; the new one has the same size."""
    stage.serve(OLD.handler)
    stage.run("--keep-records")
    stage.serve(_shared(NEW))
    tape = stage.begun("--fsync", "--keep-records").tape
    return Recorded("records kept, object replaced", tape, NEW, (OLD.data,), flags=("--keep-records",))


def mended(stage: Stage) -> Recorded:
    """The published file was damaged; its good parts are copied."""
    stage.serve(NEW.handler)
    stage.run("--keep-records")
    for at in (PART, 4 * PART + 1):
        _flip(stage.out, at)
    older = stage.out.read_bytes()
    stage.serve(NEW.handler)
    tape = stage.begun("--fsync", "--keep-records").tape
    return Recorded("records kept, file damaged", tape, NEW, (older,), flags=("--keep-records",))


def repaired(stage: Stage) -> Recorded:
    """Parts came wrong: the store's digest tells, and they are replaced."""
    promised = replace(NEW, promised=True)
    stage.serve(_shared(promised, flipped(5)))
    return Recorded("repaired", stage.begun("--fsync").tape, promised, ())


def doubted(stage: Stage) -> Recorded:
    """Parts came wrong, and only a digest that the next run is not given tells: it must hear of that all the same."""
    stage.serve(_shared(NEW, flipped(5)))
    checksum = "--checksum", f"crc64={crc64.xz(NEW.data):016x}"
    tape = stage.begun("--fsync", "--keep-records", *checksum).tape
    doubts = [_is_doubt(each) for each in tape.log]
    noted = next(
        at for at, each in enumerate(tape.log) if any(doubts[:at]) and not (doubts[at] or isinstance(each, Sync))
    )
    return Recorded("in doubt", tape, NEW, (), flags=("--keep-records", *checksum), unknown_until=noted)


def killed_before_rename(stage: Stage) -> Recorded:
    """The first run had cut the stamp off when it died: its file is told by inode and hashes alone."""
    recorder = Recorder(stage.folder, stage.logs)
    stage.serve(_shared(NEW))
    recorder.run(*stage.flags, kill="rename")
    stage.serve(NEW.handler)
    recorder.run(*stage.flags, "--fsync")
    return Recorded("killed before its rename, resumed", recorder.tape, NEW, ())


def killed_after_rename(stage: Stage) -> Recorded:
    """The first run published without a sync and died; the second one finds all done, and says so."""
    recorder = Recorder(stage.folder, stage.logs)
    stage.serve(_shared(NEW))
    recorder.run(*stage.flags, kill="unlink")
    stage.serve(NEW.handler)
    recorder.run(*stage.flags, "--fsync")
    return Recorded("killed after its rename, found finished", recorder.tape, NEW, (), torn=True)


def one_stream(stage: Stage) -> Recorded:
    """The server knows no ranges, so that there are no marks."""
    what = replace(NEW, ranges=False)
    stage.out.write_bytes(OTHER)
    stage.serve(what.handler)
    return Recorded("one ordered stream", stage.begun("--fsync").tape, what, (OTHER,))


SCENARIOS: tuple[Callable[[Stage], Recorded], ...] = (
    *(one_stream, started_over, repaired, doubted, damaged, without_fsync, killed_after_rename),
    *(killed_before_rename, over_an_older_file, kept, mended, fresh, resumed),
)


def _is_doubt(operation: Operation) -> bool:
    stored = decode(operation.data[:SLOT]) if isinstance(operation, Write) else None
    return stored is not None and stored.doubted


def _flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))
