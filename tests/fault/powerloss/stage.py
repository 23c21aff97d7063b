"""Where scenarios are played: an object, a server that can be changed, a folder of its own."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fastcrc import crc64

from tests.e2e.processes import run
from tests.fault.powerloss.record import Recorder, Tape
from tests.servers.scripted import (
    LAST_MODIFIED,
    Exchange,
    Handler,
    Server,
    ignores_range,
    ranged,
)

if TYPE_CHECKING:
    from pathlib import Path

PART = 1024  # bytes: two sectors
PARTS = 11
_ZEROS = bytes(PART)


def _object(seed: int, *zeros: int) -> bytes:
    """Make an object some of whose parts are zeros: what a lost page looks like is right there."""
    data = bytearray(random.Random(seed).randbytes(PARTS * PART - 300))
    for index in zeros:
        data[index * PART : (index + 1) * PART] = _ZEROS
    return bytes(data)


@dataclass(frozen=True, slots=True)
class Object:
    """What the server has when the power is back."""

    data: bytes
    etag: str
    promised: bool = False  # whether the store tells its CRC-64
    ranges: bool = True

    @property
    def fields(self) -> dict[str, str]:
        """What tells it in each answer."""
        promise = {"x-oss-hash-crc64ecma": str(crc64.xz(self.data))} if self.promised else {}
        return {"ETag": self.etag, "Last-Modified": LAST_MODIFIED, **promise}

    @property
    def handler(self) -> Handler:
        """Serve it rightly."""
        fields = {name: value for name, value in self.fields.items() if name.startswith("x-")}
        if not self.ranges:
            return ignores_range(self.data, etag=self.etag, extra_headers=fields)
        return ranged(self.data, etag=self.etag, extra_headers=fields)


OLD, NEW = Object(_object(1, 4, 7), '"old"'), Object(_object(2, 2, 7), '"new"')
OTHER = b"what somebody had there before"


@dataclass(frozen=True, slots=True)
class Recorded:
    """A tape and what is expected of every moment on it."""

    name: str
    tape: Tape
    object: Object  # what the server has when the power is back
    before: tuple[bytes, ...]  # what stood under the final name and may still be there
    fsync: bool = True  # whether the last command had --fsync: once it ended the new object must be there
    torn: bool = False  # whether one had not, so that until then the final name may stand over anything
    flags: tuple[str, ...] = ()
    unknown_until: int = 0  # the moment at which it is on the disk that bytes came wrong: nothing else can tell it


class Stage:
    """Where scenarios are played: a server that can be changed, and for each a folder of its own."""

    def __init__(self, folder: Path, server: Server, now: list[Handler]) -> None:
        self.folder, self.logs = folder / "files", folder / "logs"
        self.server, self._now = server, now
        self.folder.mkdir(parents=True)
        self.logs.mkdir()
        self.out, self.checkpoint = self.folder / "out", self.folder / "out.cp"
        self.flags = (server.url(), "-o", self.out, "-p", PART, "-x", 2, "-w", 1, "--retry", 2)

    def serve(self, handler: Handler) -> None:
        """Answer by ``handler`` from now on, requests counted anew."""
        first = len(self.server.log)

        def counted(exchange: Exchange) -> None:
            exchange.request = replace(exchange.request, number=exchange.request.number - first)
            handler(exchange)

        self._now[0] = counted

    def run(self, *flags: object, expect: int = 0) -> None:
        """Run the command off the record: what it leaves is durable."""
        run(self.logs, *self.flags, *flags, expect=expect)

    def begun(self, *flags: object) -> Recorder:
        """Begin a tape with one run."""
        recorder = Recorder(self.folder, self.logs)
        recorder.run(*self.flags, *flags)
        return recorder
