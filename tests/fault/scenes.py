"""Small runs that between them use every path to the disk, each from a folder made ready in a millisecond."""

from __future__ import annotations

import hashlib
import random
import struct
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import xxhash

from fastdl.header import SLOT
from tests.e2e.nursery import nursery
from tests.fault.judge import judging
from tests.servers.scripted import first_of, no_length, ranged, routes, serving, short_206, status

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tests.e2e.nursery import Born, Nursery
    from tests.fault.judge import Call, Judge, Verdict
    from tests.servers.scripted import Exchange, Handler, Server

PART = 16 * 1024
# No byte of the object is zero: what was never received shows, because files are allocated as zeros.
DATA = random.Random(5).randbytes(9 * PART + 4321).replace(b"\0", b"\1")
OLD = b"an older file"
CODES = frozenset(range(11))  # all that a run without signals may end with
_FLAGS = ("-p", PART, "-x", 3, "-w", 2, "--retry", 2, "--json")
_GONE = 20.0  # seconds that a worker may live after its command: as a program it must start before it can end
_MOST = 1 << 20  # bytes asked for; more is the probe, whose answer is kept short so that workers have something to do


@dataclass(frozen=True, slots=True)
class Scene:
    """A command, and what lies in its folder before it runs and after a run that ended well."""

    name: str
    arguments: tuple[object, ...]  # URL and OUT stand for what their names say
    before: Mapping[str, bytes] = field(default_factory=dict)
    after: frozenset[str] = frozenset(("out",))
    in_place: bool = False  # the output is repaired where it is: until then it is as bad as before, or less

    def prepare(self, folder: Path) -> Path:
        """Make the folder and what lies in it; return the output's path."""
        folder.mkdir(exist_ok=True)
        for path in folder.iterdir():
            path.unlink()
        for name, content in self.before.items():
            (folder / name).write_bytes(content)
        if "out.part" in self.before:
            _adopt(folder / "out.cp", (folder / "out.part").stat())
        return folder / "out"


class Stage:
    """The scenes, a server for them and a nursery that runs them; :func:`stage` makes one."""

    def __init__(self, server: Server, now: list[Handler], bearer: Nursery, folder: Path) -> None:
        self.server = server
        self._now = now
        self._bearer = bearer
        self._folder = folder
        self.output = folder / "out"
        self.fetched = 0  # bytes that the last recovery took
        self.scenes = {scene.name: scene for scene in self._make()}

    def prepare(self, scene: Scene) -> Path:
        """Make the folder ready for ``scene``; return the output's path."""
        return scene.prepare(self._folder)

    def start(self, scene: Scene, judge: str | None = None) -> Born:
        """Start the scene's command."""
        return self._start(scene.arguments, judge)

    def judged(self, scene: Scene, decide: Callable[[Call], Verdict] = lambda _: None) -> tuple[Born, Judge]:
        """Make the folder ready and run the scene's command, its calls judged by ``decide``, to its end."""
        self.prepare(scene)
        with judging(self.output, decide) as judge:
            born = self.start(scene, judge.address)
            born.wait()
        return born, judge

    def run(self, scene: Scene) -> Born:
        """Run the scene's command, with nothing in its way, to its end."""
        born = self._start(scene.arguments)
        born.wait()
        return born

    def left(self) -> dict[str, bytes]:
        """Return what lies in the folder, with its content."""
        return {path.name: path.read_bytes() for path in self._folder.iterdir()}

    def names(self) -> frozenset[str]:
        """List what lies in the folder."""
        return frozenset(path.name for path in self._folder.iterdir())

    def sound(self, scene: Scene, born: Born) -> str:
        """Say what is wrong with a run that ended, or nothing: how it ended, what it said, what it left."""
        code, errors = born.code, born.stderr
        lines = errors.splitlines()
        if code not in CODES:
            return f"exit code {code}: {errors}"
        if not all(line.startswith("fastdl: ") for line in lines) or (code and not lines):
            return f"said, with exit code {code}: {errors!r}"
        for word in ("Traceback", "unexpected", "report it"):
            if word in errors:
                return f"said, with exit code {code}: {errors!r}"
        if code and (born.last["exit_code"], f"fastdl: {born.last['message']}") != (code, lines[-1]):
            return f"exit code {code}, last line {born.last}"
        return self.harmed(scene, finished=code == 0)

    def harmed(self, scene: Scene, *, finished: bool) -> str:
        """Say what is wrong with the output, or nothing."""
        there = self.output.read_bytes() if self.output.exists() else None
        if there == DATA:
            return ""
        if finished:
            return "a wrong file, and exit code 0"
        old = scene.before.get("out")
        if scene.in_place and there is not None and old is not None and _between(old, there):
            return ""
        return "" if there == old else "the final name has bytes that it should not have"

    def recovered(self, scene: Scene) -> str:
        """Run the scene's command again, with nothing in its way; say what is wrong then, or nothing."""
        born = self.run(scene)
        if born.code != 0:
            return f"the next run: exit code {born.code}: {born.stderr}"
        if self.output.read_bytes() != DATA:
            return "the next run: a wrong file"
        if self.names() != scene.after:
            return f"the next run left {sorted(self.names())}"
        self.fetched = born.last.get("bytes_fetched", 0)
        return ""

    def _start(self, arguments: tuple[object, ...], judge: str | None = None) -> Born:
        meant = {"URL": self.server.url(), "STREAM": self.server.url("/stream"), "OUT": str(self.output)}
        return self._bearer.start(*(meant.get(str(each), each) for each in arguments), cwd=self._folder, judge=judge)

    def _make(self) -> Iterator[Scene]:
        get = ("URL", "-o", "OUT", *_FLAGS)
        digest = ("--checksum", f"sha256={hashlib.sha256(DATA).hexdigest()}")
        yield Scene("fresh", (*get, *digest, "--fsync"), {"out": OLD})
        self._now[0] = refusing_after(6)
        left = self._left_by(*get)
        self._now[0] = right
        assert set(left) == {"out.part", "out.cp"}
        yield Scene("resume", (*get, "--fsync"), left | {"out.part": _spoilt(left["out.part"], 3)})
        keeping = (*get, "--keep-records")
        kept = self._left_by(*keeping)
        spoilt = kept | {"out": _spoilt(kept["out"], 5 * PART + 7)}
        yield Scene("keep", keeping, kept, frozenset(kept))
        yield Scene("reuse", keeping, spoilt, frozenset(kept))
        verify = ("verify", "OUT", "URL", "--repair", "-x", 2, "-w", 1, "--retry", 2, "--json")
        yield Scene("repair", verify, spoilt, frozenset(kept), in_place=True)
        yield Scene("stream", ("STREAM", "-o", "OUT", *_FLAGS), {"out": OLD})

    def _left_by(self, *arguments: object) -> dict[str, bytes]:
        """Return what a run in an empty folder leaves."""
        Scene("", ()).prepare(self._folder)
        self._start(arguments).wait()
        return self.left()


@contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """Have everything ready until the end of the block."""
    now: list[Handler] = [right]
    stream = no_length(DATA)
    with (
        nursery(folder / "nursery", gone=_GONE) as bearer,
        serving(routes({"/object": first_of(now), "/stream": stream})) as server,
    ):
        yield Stage(server, now, bearer, folder / "play")


def right(exchange: Exchange) -> None:
    """Serve the object; long answers are cut short, which is legal, so that the rest is left to workers."""
    exchange.otherwise = ranged(DATA)
    asked = exchange.request.range
    long = asked is not None and (asked[1] is None or asked[1] - asked[0] > _MOST)
    (short_206(PART) if long else exchange.otherwise)(exchange)


def refusing_after(count: int) -> Handler:
    """Serve one part an answer, and after ``count`` answers no more."""

    def handle(exchange: Exchange) -> None:
        exchange.otherwise = ranged(DATA)
        (short_206(PART) if exchange.request.number <= count else status(403))(exchange)

    return handle


def _adopt(checkpoint: Path, status: os.stat_result) -> None:
    """Let a checkpoint be about the copy of its partial file: device and inode stand behind six other numbers."""
    content = bytearray(checkpoint.read_bytes())
    struct.pack_into("<QQ", content, 40, status.st_dev, status.st_ino)
    struct.pack_into("<Q", content, SLOT - 8, xxhash.xxh3_64_intdigest(content[: SLOT - 8]))
    content[SLOT : 2 * SLOT] = content[:SLOT]
    checkpoint.write_bytes(content)


def _spoilt(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def _between(old: bytes, there: bytes) -> bool:
    """Tell whether each byte is the old one or the right one."""
    return len(old) == len(there) == len(DATA) and all(
        byte in pair for byte, *pair in zip(there, old, DATA, strict=True)
    )
