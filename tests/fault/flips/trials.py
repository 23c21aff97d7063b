"""The kinds of trials; each counts what was flipped, what was found, and what was not."""

from __future__ import annotations

import os
import random
import tempfile
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcrc import crc64

from fastdl.access import Writer, make_reader
from fastdl.checkpoint import open_checkpoint
from fastdl.digest import Digest, Expected, Hasher
from fastdl.errors import DiskError, IntegrityError
from fastdl.fetch import WINDOW, SpanFetch, rehash
from fastdl.follower import Follower
from fastdl.header import RECORD, SLOT, Header
from fastdl.http import Response, Transport
from fastdl.messages import Fetch, Line, Request
from fastdl.pipe import anonymous_descriptor
from fastdl.plan import Plan, Run
from fastdl.proof import Claims, verify
from fastdl.result import Fetched
from fastdl.validator import Validator
from tests.fault.flips.line import ETAG, flip, flipping

if TYPE_CHECKING:
    from collections.abc import Callable

PART = 256  # bytes
PARTS = 16
SIZE = PARTS * PART - 37
_MANY = 512  # parts of the unfinished file
_VALIDATOR = Validator(ETAG)


@dataclass(slots=True)
class Found:
    """What came of the trials of one kind."""

    kind: str
    flips: int = 0
    detected: int = 0
    without_effect: int = 0  # flips of what nothing is believed about: nothing wrong follows, nothing is said
    undetected: int = 0


class Object:
    """An object whose CRC-64 is promised, and everything that a download of it uses but its processes."""

    def __init__(self, stack: ExitStack, part_size: int, size: int, seed: int) -> None:
        self.data = random.Random(seed).randbytes(size)
        self.plan = Plan(size, part_size)
        self.claims = Claims((), (Expected("crc64", f"{crc64.xz(self.data):016x}"),))
        self.digests = [_digest(index, self.part(index)) for index in range(self.plan.count)]
        self.fd = anonymous_descriptor()
        stack.callback(os.close, self.fd)
        os.truncate(self.fd, size)
        self.follower = stack.enter_context(Follower(self.fd, self.claims.kinds))
        self.checkpoint = open_checkpoint(None)
        stack.callback(self.checkpoint.close)
        self.checkpoint.begin(Header(self.plan, "", _VALIDATOR, None, (0, 0), bytes(16)))

    def part(self, index: int) -> bytes:
        """Return the right bytes of one part."""
        part = self.plan.part(index)
        return self.data[part.start : part.stop]

    def accepted(self) -> bool:
        """Tell whether a download would be called right now."""
        fetched = Fetched(size=self.plan.size, crc64=self.checkpoint.crc64)
        try:
            proven = verify("", self.claims, self.follower, fetched, lambda: None, sized=True)
        except IntegrityError:
            return False
        assert proven == "crc64"
        return True

    def flipped_bits(self) -> int:
        """Count the bits of the file that are not the object's."""
        stored = os.pread(self.fd, self.plan.size, 0)
        return (int.from_bytes(stored) ^ int.from_bytes(self.data)).bit_count()


class Slot:
    """A connection's listener: what it reports is kept, nothing holds it up."""

    def __init__(self) -> None:
        self.digests: list[Digest] = []

    def watch(self, response: Response | None) -> None:
        """Nobody aborts."""

    def allowed(self, nbytes: int) -> int:
        """No pace."""
        return nbytes

    def settle(self) -> None:
        """Every part is marked when all are there."""

    def renewed(self) -> bool:
        """Nobody renews."""
        return False

    def progress(self, nbytes: int) -> None:
        """Nobody watches."""

    def report(self, first: int, digests: tuple[Digest, ...]) -> None:
        """Keep what was hashed."""
        assert first == len(self.digests)
        self.digests.extend(digests)


class Spoiling(Transport):
    """A transport whose answers flip one bit of each part between socket and hash."""

    def __init__(self, line: Line, part: int, seed: int) -> None:
        super().__init__(line, 1)
        self._part, self._rng = part, random.Random(seed)

    def open(self, request: Request, extra: tuple[tuple[str, str], ...] = ()) -> Response:
        """Send the request; spoil the answer."""
        response: Any = super().open(request, extra)
        return _Spoilt(response, self._part, self._rng)  # type: ignore[return-value]


class _Spoilt:
    def __init__(self, response: Response, part: int, rng: random.Random) -> None:
        self._response, self._part, self._rng = response, part, rng
        self._at = 0
        self._bits: dict[int, int] = {}  # of each part, chosen when its first byte comes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._response, name)

    def readinto(self, view: memoryview) -> int:
        """Receive, then flip."""
        count = self._response.readinto(view)
        for index in range(self._at // self._part, -(-(self._at + count) // self._part)):
            last = min(self._part, SIZE - index * self._part)
            bit = self._bits.setdefault(index, 8 * index * self._part + self._rng.randrange(8 * last))
            if 8 * self._at <= bit < 8 * (self._at + count):
                flip(view, bit - 8 * self._at)
        self._at += count
        return count


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
            checkpoint.begin(Header(what.plan, "", _VALIDATOR, None, (0, 0), bytes(16)))
            for index in range(PARTS):
                if index % 3 != 1:
                    checkpoint.mark(index, what.digests[index])
        there = [index % 3 != 1 for index in range(PARTS)]
        on_disk = [_digest(index, what.part(index) if there[index] else bytes(PART)) for index in range(PARTS)]
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
            for run in checkpoint.runs()[0]:
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
    order = Fetch(0, 0, 0, what.plan, Run(0, PARTS), Request(url + path), _VALIDATOR)

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


def _digest(index: int, data: bytes) -> Digest:
    hasher = Hasher(index)
    hasher.update(memoryview(data))
    return hasher.digest()


# How many in a hundred flips are of each kind.
SHARES: tuple[tuple[Callable[[int, int], Found], int], ...] = (
    *((whole_answers, 10), (parts_on_the_line, 40), (parts_in_memory, 10)),
    *((unfinished_file, 25), (checkpoints, 15)),
)
