"""One state on a real file system, and what fastdl's own code believes of it when the command is run again.

``Judge`` calls what a resuming run calls, in its order: the checkpoint is opened and locked, the earlier file found by
its stamp, the server's object compared with the header, every marked part hashed as a worker hashes it and judged by
its record, the whole by its promised CRC-64. Only what happens in between, fetching what is missing, is left out: those
parts are right by another suite's word. ``Judge.rerun`` is the command itself, from beginning to end.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import xxhash
from fastcrc import crc64
from urllib3 import HTTPHeaderDict

from fastdl.access import make_reader
from fastdl.checkpoint import open_checkpoint
from fastdl.digest import Hasher
from fastdl.errors import FastdlError, IntegrityError
from fastdl.fetch import WINDOW, rehash
from fastdl.header import RECORD, SLOT, STAMP
from fastdl.job import Job
from fastdl.kept import reuse
from fastdl.messages import Line
from fastdl.plan import Plan, Run
from fastdl.probe import Probe, why_not_same
from fastdl.proof import Claims, worth_comparing
from fastdl.retry import Backoff
from fastdl.sequence import Download
from fastdl.sources import resolve
from tests.fault.powerloss.stage import PART, Object, Recorded

if TYPE_CHECKING:
    from fastdl.checkpoint import Checkpoint
    from fastdl.digest import Digest
    from fastdl.output import Output
    from tests.e2e.nursery import Nursery
    from tests.fault.powerloss.disk import State
    from tests.fault.powerloss.shelf import Shelf

OUT, UNFINISHED, CHECKPOINT = "out", "out.part", "out.cp"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run that resumes from a state makes of it."""

    kind: str  # over, resumed, mended, finished, refused: how it begins
    reused: int = 0  # parts that are believed
    wrong: int = 0  # of them parts that are not the object's
    caught: str = ""  # what finds that out in the end: the store's promise, or a doubt that was noted

    @property
    def false_done(self) -> bool:
        """Whether wrong bytes would be published as done."""
        return self.wrong > 0 and not self.caught


class _Heard:
    """What a worker reports while it hashes."""

    def __init__(self) -> None:
        self.digests: list[Digest] = []

    def progress(self, nbytes: int) -> None:
        """Nobody watches."""

    def report(self, first: int, digests: tuple[Digest, ...]) -> None:  # noqa: ARG002 - they come in order
        """Take them."""
        self.digests.extend(digests)


class Judge:
    """Judges the states of one recording."""

    def __init__(self, shelf: Shelf, recorded: Recorded, url: str) -> None:
        self._shelf, self._url, self._recorded = shelf, url, recorded
        self._out = shelf.folder / OUT
        self._object = recorded.object.data
        source = resolve(url)
        self._identity = source.identity
        self._job = Job(
            source=source,
            path=self._out,
            checkpoint_path=shelf.folder / CHECKPOINT,
            part_size=PART,
            line=Line(),
            workers=1,
            connections=2,
            resume="verify",
            checksums=(),
            sums=None,
            backoff=Backoff(),
            max_time=None,
            overwrite=True,
            fsync=True,
            keep_records=False,
            limit_rate=None,
        )
        self._download = Download(self._job, None)
        info = source.describe(HTTPHeaderDict(recorded.object.fields), len(self._object))
        self._found = Probe(None, info, recorded.object.ranges, 0, 1, 0, 0)
        self._claims = Claims((), worth_comparing((), info.crc64))
        plan = Plan(len(self._object), PART)
        self._true = []
        for index in range(plan.count):
            hasher = Hasher(index)
            hasher.update(memoryview(self._object)[index * PART : (index + 1) * PART])
            self._true.append(hasher.digest())

    def judge(self, state: State) -> Verdict:
        """Tell what the next run would believe of ``state``."""
        self._shelf.put(state)
        if CHECKPOINT not in state.names:
            self._shelf.touched()  # opening makes one
        try:
            checkpoint = open_checkpoint(self._job.checkpoint_path)
        except FastdlError:
            return Verdict("refused")
        try:
            return self._opened(checkpoint)
        finally:
            checkpoint.close()

    def rerun(self, state: State, nursery: Nursery, *flags: object) -> str:
        """Run the command on ``state``; return what is wrong with the end of it, empty if all is as promised."""
        self._shelf.put(state)
        self._shelf.touched()
        born = nursery.run(self._url, "-o", self._out, "-p", PART, "-x", 2, "-w", 1, "--fsync", *flags)
        left = sorted(os.listdir(self._shelf.folder))  # noqa: PTH208 - names, not paths
        expected = [OUT, CHECKPOINT] if "--keep-records" in flags and self._recorded.object.ranges else [OUT]
        if born.code != 0 or born.stderr.count("Traceback"):
            return f"exit {born.code}: {born.stderr[-300:]}"
        if self._out.read_bytes() != self._object:
            return "wrong bytes"
        return "" if left == expected else f"left {left}"

    def _opened(self, checkpoint: Checkpoint) -> Verdict:
        download = self._download
        download._started_over = ""
        output = download._earlier(checkpoint)
        if output is None or checkpoint.stored is None:
            return Verdict("over")
        try:
            if why_not_same(checkpoint.stored, self._found):
                return Verdict("over")
            if output.published:
                return self._published(output, checkpoint)
            marked, _ = checkpoint.marks.runs()
            digests = _hashed(output, checkpoint.stored.plan, marked)
            believed = [index for index, digest in digests if checkpoint.judge(index, digest)]
            if len(believed) < len(digests):
                self._shelf.touched()
            return self._verdict("resumed", output, checkpoint, believed)
        finally:
            output.close()

    def _published(self, output: Output, checkpoint: Checkpoint) -> Verdict:
        """Judge a file under its final name, as of ``kept`` and of ``Download._finished_before``."""
        assert checkpoint.stored is not None
        plan = checkpoint.stored.plan
        digests = _hashed(output, plan, [Run(0, plan.count)])
        changed = [index for index, digest in digests if digest != checkpoint.marks.digest(index)]
        if not changed:
            return self._verdict("finished", output, checkpoint, [index for index, _ in digests])
        self._shelf.touched()
        new = reuse(output, changed, checkpoint, plan, self._identity, self._found.info)
        if new is None:
            return Verdict("over")
        try:
            kept = [index for index in range(plan.count) if index not in changed]
            return self._verdict("mended", new, checkpoint, kept)
        finally:
            new.close()

    def _verdict(self, kind: str, output: Output, checkpoint: Checkpoint, believed: list[int]) -> Verdict:
        data = os.pread(output.fd, len(self._object), 0)
        wrong = [index for index in believed if _part(data, index) != _part(self._object, index)]
        caught = ""
        if wrong:
            self._shelf.touched()
            for index in set(range(len(self._true))) - set(believed):
                checkpoint.mark(index, self._true[index])
            try:
                self._claims.judge("", {("crc64", None): f"{checkpoint.marks.crc64:016x}"})
            except IntegrityError:
                caught = "caught by the promise"
            else:
                caught = "caught by the doubt" if checkpoint.doubted else ""
        return Verdict(kind, len(believed), len(wrong), caught)


def sound_parts(state: State, what: Object) -> int:
    """Count the parts of ``OUT.part`` that are right and whose marks are on the disk, without asking fastdl's code.

    None, if what tells that the two files belong together and to the object is not there.
    """
    if not {CHECKPOINT, UNFINISHED} <= state.names.keys():
        return 0
    checkpoint, data = (state.contents[state.names[name]] for name in (CHECKPOINT, UNFINISHED))
    needed = data[len(what.data) :], what.etag.encode()
    slots = [slot for slot in (checkpoint[:SLOT], checkpoint[SLOT : 2 * SLOT]) if _is_whole(slot)]
    if (
        len(needed[0]) != STAMP
        or not any(needed[0])
        or not slots
        or not all(each in slot for slot in slots for each in needed)
    ):
        return 0
    found = 0
    for index in range(-(-len(what.data) // PART)):
        part, at = _part(what.data, index), 3 * SLOT + RECORD.size * index
        record = RECORD.pack(xxhash.xxh3_64_intdigest(part, seed=index), crc64.xz(part))
        bit = checkpoint[2 * SLOT + index // 8] >> index % 8 & 1
        found += bool(bit and checkpoint[at : at + RECORD.size] == record and _part(data, index) == part)
    return found


def _is_whole(slot: bytes) -> bool:
    return any(slot) and xxhash.xxh3_64_digest(slot[:-8])[::-1] == slot[-8:]


def _hashed(output: Output, plan: Plan, runs: list[Run]) -> list[tuple[int, Digest]]:
    """Hash parts of the file as a worker does."""
    found: list[tuple[int, Digest]] = []
    for run in runs:
        heard = _Heard()
        rehash(plan, run, make_reader(output.fd, plan.size, WINDOW), heard)  # type: ignore[arg-type]
        found.extend(enumerate(heard.digests, run.first))
    return found


def _part(data: bytes, index: int) -> bytes:
    return data[index * PART : (index + 1) * PART]
