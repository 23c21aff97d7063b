"""What a download is made of, without its processes."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Any

from fastcrc import crc64

from fastdl.checkpoint import open_checkpoint
from fastdl.digest import Digest, Expected, Hasher
from fastdl.errors import IntegrityError
from fastdl.follower import Follower
from fastdl.header import Header
from fastdl.http import Response, Transport
from fastdl.pipe import anonymous_descriptor
from fastdl.plan import Plan
from fastdl.proof import Claims, verify
from fastdl.result import Fetched
from fastdl.validator import Validator
from tests.fault.flips.line import ETAG, flip

if TYPE_CHECKING:
    from contextlib import ExitStack

    from fastdl.messages import Line, Request

PART = 256  # bytes
PARTS = 16
SIZE = PARTS * PART - 37
VALIDATOR = Validator(ETAG)


class Object:
    """An object whose CRC-64 is promised, and everything that a download of it uses but its processes."""

    def __init__(self, stack: ExitStack, part_size: int, size: int, seed: int) -> None:
        self.data = random.Random(seed).randbytes(size)
        self.plan = Plan(size, part_size)
        self.claims = Claims((), (Expected("crc64", f"{crc64.xz(self.data):016x}"),))
        self.digests = [digest_of(index, self.part(index)) for index in range(self.plan.count)]
        self.fd = anonymous_descriptor()
        stack.callback(os.close, self.fd)
        os.truncate(self.fd, size)
        self.follower = stack.enter_context(Follower(self.fd, self.claims.kinds))
        self.checkpoint = open_checkpoint(None)
        stack.callback(self.checkpoint.close)
        self.checkpoint.begin(Header(self.plan, "", VALIDATOR, None, (0, 0), bytes(16)))

    def part(self, index: int) -> bytes:
        """Return the right bytes of one part."""
        part = self.plan.part(index)
        return self.data[part.start : part.stop]

    def accepted(self) -> bool:
        """Tell whether a download would be called right now."""
        fetched = Fetched(size=self.plan.size, crc64=self.checkpoint.marks.crc64)
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


def digest_of(index: int, data: bytes) -> Digest:
    """Return what is recorded of a part that holds ``data``."""
    hasher = Hasher(index)
    hasher.update(memoryview(data))
    return hasher.digest()
