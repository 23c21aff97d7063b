"""The kinds of trials; each counts what was flipped, what was found, and what was not."""

from __future__ import annotations

import os
import random
import tempfile
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fastdl.access import Writer, make_reader
from fastdl.checkpoint import open_checkpoint
from fastdl.errors import DiskError
from fastdl.fetch import WINDOW, SpanFetch, rehash
from fastdl.header import RECORD, SLOT, Header
from fastdl.http import Transport
from fastdl.messages import Fetch, Line, Request
from fastdl.plan import Run
from tests.fault.flips.download import PART, PARTS, SIZE, VALIDATOR, Object, Slot, Spoiling, digest_of
from tests.fault.flips.line import flip, flipping

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastdl.digest import Digest

_MANY = 512  # parts of the unfinished file


@dataclass(slots=True)
class Found:
    """What came of the trials of one kind."""

    kind: str
    flips: int = 0
    detected: int = 0
    without_effect: int = 0  # flips of what nothing is believed about: nothing wrong follows, nothing is said
    undetected: int = 0


def whole_answers(count: int, seed: int) -> Found:
    """A trial is a whole download: one GET, one bit of the body flipped by the server, all parts marked, all judged."""
    found = Found("on the line, one in an object")
    with ExitStack() as stack:
        what, fetch = _fetcher(stack, seed, lambda line: Transport(line, 1), "/whole")
        while found.flips < count:
            for index, digest in enumerate(fetch()):
                what.checkpoint.mark(index, digest)
            assert what.flipped_bits() == 1
            _judge(found, what)
    return found


def parts_on_the_line(count: int, seed: int) -> Found:
    """A trial is one part of an answer with one bit flipped by the server, marked among parts that are right."""
    return _parts("on the line, one in a part", count, seed, lambda line: Transport(line, 1), "/parts")


def parts_in_memory(count: int, seed: int) -> Found:
    """The same, but the bit flips in the window that was received, before it is hashed."""
    return _parts("between socket and hash", count, seed, lambda line: Spoiling(line, PART, seed), "/right")


def unfinished_file(count: int, seed: int) -> Found:
    """A trial is one marked part of ``OUT.part`` with one bit flipped between two runs, hashed and judged on resume."""
    found, rng = Found("in OUT.part between two runs"), random.Random(seed)
    with ExitStack() as stack:
        what = Object(stack, 64, _MANY * 64 - 5, seed)
        while found.flips < count:
            spoilt = bytearray(what.data)
            for index, digest in enumerate(what.digests):
                what.checkpoint.mark(index, digest)
                part = what.plan.part(index)
                flip(spoilt, 8 * part.start + rng.randrange(8 * part.nbytes))
            os.pwrite(what.fd, spoilt, 0)
            heard = Slot()
            rehash(what.plan, Run(0, _MANY), make_reader(what.fd, what.plan.size, WINDOW), heard)
            for index, digest in enumerate(heard.digests):
                found.flips += 1
                if what.checkpoint.judge(index, digest):
                    found.undetected += 1
                else:
                    found.detected += 1
    return found


def checkpoints(count: int, seed: int) -> Found:
    """A trial is one bit of ``OUT.cp`` flipped between two runs: what is opened may claim no part that is wrong.

    Two parts of three are finished and right, the others hold other bytes. The bit is one of the head, of the bitmap,
    of a record or of the empty rest.
    """
    found, rng = Found("in OUT.cp between two runs"), random.Random(seed)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        what = Object(stack, PART, SIZE, seed)
        path = Path(folder, "out.cp")
        with closing(open_checkpoint(path)) as checkpoint:
            checkpoint.begin(Header(what.plan, "", VALIDATOR, None, (0, 0), bytes(16)))
            for index in range(PARTS):
                if index % 3 != 1:
                    checkpoint.mark(index, what.digests[index])
        there = [index % 3 != 1 for index in range(PARTS)]
        on_disk = [digest_of(index, what.part(index) if there[index] else bytes(PART)) for index in range(PARTS)]
        data = path.read_bytes()
        records = len(data) - RECORD.size * PARTS
        places = [(0, 512), (SLOT - 8, SLOT + 512), (2 * SLOT, 2 * SLOT + PARTS // 8), (records, len(data))]
        places += [(0, len(data))]
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        stack.callback(os.close, fd)
        for _ in range(count):
            at = rng.randrange(*places[found.flips % len(places)])
            os.pwrite(fd, bytes([data[at] ^ 1 << rng.randrange(8)]), at)
            found.flips += 1
            claimed = _claimed(path, on_disk)
            os.pwrite(fd, data, 0)
            if any(is_claimed and not right for is_claimed, right in zip(claimed, there, strict=True)):
                found.undetected += 1
            elif claimed != there:
                found.detected += 1
            else:
                found.without_effect += 1
    return found


def _claimed(path: Path, on_disk: list[Digest]) -> list[bool]:
    """Return which parts a resuming run would use."""
    claimed = [False] * len(on_disk)
    with suppress(DiskError), closing(open_checkpoint(path)) as checkpoint:
        if checkpoint.stored is not None:
            for run in checkpoint.marks.runs()[0]:
                for index in range(run.first, run.stop):
                    claimed[index] = checkpoint.judge(index, on_disk[index])
    return claimed


def _parts(kind: str, count: int, seed: int, connect: Callable[[Line], Transport], path: str) -> Found:
    found = Found(kind)
    with ExitStack() as stack:
        what, fetch = _fetcher(stack, seed, connect, path)
        for index, digest in enumerate(what.digests):
            what.checkpoint.mark(index, digest)
        assert what.accepted()
        while found.flips < count:
            digests = fetch()
            assert what.flipped_bits() == PARTS
            for index, digest in enumerate(digests):
                what.checkpoint.mark(index, digest)
                _judge(found, what)
                what.checkpoint.mark(index, what.digests[index])
    return found


def _fetcher(
    stack: ExitStack, seed: int, connect: Callable[[Line], Transport], path: str
) -> tuple[Object, Callable[[], list[Digest]]]:
    """Return an object, and what fetches it whole into its file and returns the digests of its parts."""
    what = Object(stack, PART, SIZE, seed)
    url = stack.enter_context(flipping(what.data, PART, seed))
    transport, writer = connect(Line(read_timeout=10.0)), Writer(what.fd, WINDOW)
    stack.callback(transport.close)
    order = Fetch(0, 0, 0, what.plan, Run(0, PARTS), Request(url + path), VALIDATOR)

    def fetch() -> list[Digest]:
        heard = Slot()
        SpanFetch(order, transport, writer, heard).run()
        return heard.digests

    return what, fetch


def _judge(found: Found, what: Object) -> None:
    found.flips += 1
    if what.accepted():
        found.undetected += 1
    else:
        found.detected += 1


# How many in a hundred flips are of each kind.
SHARES: tuple[tuple[Callable[[int, int], Found], int], ...] = (
    *((whole_answers, 10), (parts_on_the_line, 40), (parts_in_memory, 10)),
    *((unfinished_file, 25), (checkpoints, 15)),
)
