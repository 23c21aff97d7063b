"""One download from lock to publication: the one place that knows the whole sequence.

resolve -> lock -> probe -> plan -> resume or begin -> fetch -> verify (and repair) -> publish
"""

from __future__ import annotations

import logging
import random
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from fastdl import ordered
from fastdl.checkpoint import Checkpoint, open_checkpoint
from fastdl.crew import OWN
from fastdl.errors import IntegrityError, NetworkError, ObjectChanged, UsageError
from fastdl.hashers import file_digest
from fastdl.header import Header, Stored, identity_digest
from fastdl.http import Transport
from fastdl.output import Output, check_path, check_room, create_output, part_path_of, reopen_output
from fastdl.plan import Plan, make_plan, probe_length
from fastdl.probe import Probe, probe
from fastdl.progress import Meter, ProgressEvent
from fastdl.proof import CRC64, Claims, worth_comparing
from fastdl.ranged import RangedDownload
from fastdl.redact import printable
from fastdl.repair import repair
from fastdl.result import DownloadResult, Fetched
from fastdl.retry import Attempts
from fastdl.validator import why_not_resumable

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastdl.job import Job
    from fastdl.validator import ObjectInfo
    from fastdl.votes import Answers

_PROBE_ATTEMPTS = 4  # before anything worked a wrong address is likelier than a bad line: fail within seconds
_TELL_EVERY = 0.1  # seconds between progress events
log = logging.getLogger("fastdl")


class Download:
    """One job from lock to publication."""

    def __init__(self, job: Job, tell: Callable[[ProgressEvent], None] | None) -> None:
        self._job = job
        self._source = job.source
        self._listener = tell
        self._meter = Meter()
        self._began = time.monotonic()
        self._next_tell = 0.0
        self._rng = random.Random()
        self._fetched = Fetched()
        self._transport = Transport(job.line, min(OWN, job.connections))
        self._started_over = ""
        self._size: int | None = None
        self._complete = False  # whether every byte is there and judged
        self._claims = Claims(job.checksums, ())
        self._markable = False  # whether the checkpoint's marks are about this run's output

    def run(self) -> DownloadResult:
        """Carry the job out; whatever fails, what can be resumed stays and what cannot is removed."""
        job = self._job
        check_path(job.path)
        if not job.overwrite and job.path.exists():
            raise UsageError(f"{job.path}: exists; not replaced")
        with ExitStack() as stack:
            stack.callback(self._transport.close)
            checkpoint = open_checkpoint(job.checkpoint_path)
            stack.callback(checkpoint.close)
            try:
                return self._locked(checkpoint, stack)
            except BaseException:
                if not checkpoint.any_marked:
                    checkpoint.remove()
                raise

    def _locked(self, checkpoint: Checkpoint, stack: ExitStack) -> DownloadResult:
        output = self._earlier(checkpoint)
        try:
            found = self._probe(checkpoint, output is not None)
        except BaseException:
            if output is not None:
                output.close()
            raise
        stack.callback(found.close)
        promises = self._source.promises(found.info, self._transport)
        self._claims = replace(self._claims, promised=worth_comparing(promises, found.info.crc64))
        resumed = output is not None and not self._started_over
        if resumed and output is not None and output.published and checkpoint.stored is not None:
            if self._finished_before(output, checkpoint, checkpoint.stored.plan):
                stack.callback(output.close)
                integrity = self._verify(found, output)
                checkpoint.remove()
                return self._result(found, checkpoint.stored.plan, integrity)
            self._fetched.parts_reused, resumed = 0, False
            self._started_over = "the finished file was changed after it was published"
        if self._started_over:
            self._started_over = printable(self._started_over)
            log.warning("%s: starting over: %s", self._job.path, self._started_over)
            if output is not None:
                output.discard()
                output.close()  # now, because its blocks may be needed
        if output is None or not resumed:
            output = create_output(self._job.path)
        stack.callback(output.close)
        try:
            plan = self._fetch(found, output, checkpoint, resumed=resumed)
            integrity = self._judge(found, output, checkpoint, plan)
            self._complete = True
            output.publish(fsync=self._job.fsync)
        except BaseException as error:
            # After a mismatch the records agree with the bytes: kept, they would fail in the same way for ever.
            kept = self._complete or (self._markable and checkpoint.any_marked)
            if isinstance(error, IntegrityError) or not kept:
                checkpoint.remove()
                output.discard()
            raise
        checkpoint.remove()
        self._tell(self._size or 0, 0, final=True)
        return self._result(found, plan, integrity)

    def _earlier(self, checkpoint: Checkpoint) -> Output | None:
        """Open what an earlier run left if it may be resumed, else say in ``_started_over`` why not."""
        stored = checkpoint.stored
        if stored is None:
            self._started_over = checkpoint.damage
            part_path = part_path_of(self._job.path)
            left = part_path.is_file() and not part_path.is_symlink()
            if not self._started_over and self._job.checkpoint_path and left:
                self._started_over = "the partial file that is there has no checkpoint"
        elif self._job.resume == "no":
            self._started_over = "resuming was not wanted"
        elif stored.identity_digest != identity_digest(self._source.identity):
            self._started_over = "the checkpoint is of another URL"
        elif self._job.part_size not in (None, stored.plan.part_size):
            self._started_over = f"the part size was {stored.plan.part_size}, is {self._job.part_size}"
        else:
            output = reopen_output(self._job.path, stored, complete=checkpoint.complete)
            if output is not None:
                return output
            self._started_over = "the partial file is missing, or is not the one the checkpoint is about"
        return None

    def _probe(self, checkpoint: Checkpoint, resumable: bool) -> Probe:
        """Ask for the first bytes that are needed; if the object is another one than before, for its first."""
        if resumable and checkpoint.stored is not None:
            stored = checkpoint.stored
            _, missing = checkpoint.runs()
            start, stop = 0, 1  # nothing is missing: one byte, to hear whether the object is the same
            if missing:
                start, stop = stored.plan.bounds(missing[0])
                stop = min(stop, start + probe_length(stored.plan.part_size))
            try:
                found = self._ask(start, stop)
            except ObjectChanged as error:
                self._started_over = str(error)
            else:
                self._started_over = _why_not(stored, found)
                if not self._started_over:
                    return found
                found.close()
        return self._ask(0, probe_length(self._job.part_size))

    def _ask(self, start: int, stop: int) -> Probe:
        attempts = Attempts(
            replace(self._job.backoff, attempts=min(self._job.backoff.attempts, _PROBE_ATTEMPTS)), self._rng
        )
        found = probe(self._source, self._transport, start, stop, attempts, self._sleep)
        self._fetched.requests += found.requests
        self._fetched.retries += found.retries
        return found

    def _fetch(self, found: Probe, output: Output, checkpoint: Checkpoint, *, resumed: bool) -> Plan:
        """Plan, allocate, and bring all bytes into the output."""
        job, info = self._job, found.info
        if resumed and checkpoint.stored is not None:
            plan = checkpoint.stored.plan  # its part size holds if none was asked for
        else:
            if job.part_size is None:  # what no plan can hold no disk can
                check_room(job.path, info.size or 0)
            plan = make_plan(info.size or 0, job.part_size)
        log.debug("%s: %s bytes in %d parts of %d", self._source.shown, info.size, plan.count, plan.part_size)
        trust = resumed and job.resume == "trust" and not output.sealed
        self._claims = replace(self._claims, trusted=trust and checkpoint.any_marked)
        self._markable = resumed
        self._size = info.size
        output.allocate(info.size)
        if found.ranged:
            if not resumed:
                header = Header(plan, self._source.identity, info.validator, info.crc64, output.inode, output.stamp)
                checkpoint.begin(header)
                self._markable = True
            self._ranged(found.info, plan, output, checkpoint, trust=trust).run(found)
            self._fetched.crc64 = checkpoint.crc64
        elif found.response is not None:
            log.info("%s: no ranges, or no length: one connection, and nothing can be resumed", self._source.shown)
            self._size = ordered.fetch_stream(
                self._source,
                found,
                output,
                self._transport,
                Attempts(job.backoff, self._rng),
                self._fetched,
                stall=job.line.read_timeout,
                limit_rate=job.limit_rate,
                sleep=self._sleep,
                tell=self._tell,
            )
        return plan

    def _ranged(
        self,
        info: ObjectInfo,
        plan: Plan,
        output: Output,
        checkpoint: Checkpoint,
        *,
        trust: bool = False,
        answers: Answers | None = None,
    ) -> RangedDownload:
        job = self._job
        return RangedDownload(
            self._source,
            info,
            plan,
            output,
            checkpoint,
            job.line,
            self._transport,
            workers=job.workers,
            connections=job.connections,
            limit_rate=job.limit_rate,
            trust=trust,
            backoff=job.backoff,
            rng=self._rng,
            fetched=self._fetched,
            tell=self._tell,
            answers=answers,
        )

    def _judge(self, found: Probe, output: Output, checkpoint: Checkpoint, plan: Plan) -> str:
        """Judge the whole object, and repair what came by ranges; return what it was compared with.

        Raises:
            IntegrityError: it is not what was promised.
        """
        try:
            return self._verify(found, output)
        except IntegrityError as error:
            if not found.ranged:
                raise
            why = error

        def fetch(answers: Answers | None) -> None:
            self._claims = replace(self._claims, trusted=False)
            self._ranged(found.info, plan, output, checkpoint, answers=answers).run()
            self._fetched.crc64 = checkpoint.crc64

        return repair(
            self._source.shown,
            plan,
            checkpoint,
            self._fetched,
            fetch=fetch,
            verify=lambda: self._verify(found, output),
            trusted=self._claims.trusted,
            why=why,
        )

    def _verify(self, found: Probe, output: Output) -> str:
        """Judge the whole object; return what it was compared with.

        Raises:
            IntegrityError: it is not what was promised.
        """
        digests = {kind: file_digest(output.fd, self._size or 0, *kind) for kind in self._claims.kinds}
        if CRC64 not in digests:
            digests[CRC64] = f"{self._fetched.crc64:016x}"
        proven = self._claims.judge(self._source.shown, digests)
        return proven or ("none" if found.info.size is None else "length")

    def _finished_before(self, output: Output, checkpoint: Checkpoint, plan: Plan) -> bool:
        """Tell whether a run that was killed while it published left a file that still is what its records say."""
        self._size, self._fetched.crc64 = plan.size, checkpoint.crc64
        self._fetched.parts_reused = plan.count
        return file_digest(output.fd, plan.size, "crc64") == f"{self._fetched.crc64:016x}"

    def _result(self, found: Probe, plan: Plan, integrity: str) -> DownloadResult:
        fetched = self._fetched
        return DownloadResult(
            path=self._job.path,
            url=self._source.shown,
            size=self._size or 0,
            etag=found.info.validator.etag,
            crc64=fetched.crc64,
            integrity=integrity,
            part_size=plan.part_size,
            parts=plan.count if found.ranged else 0,
            parts_reused=fetched.parts_reused,
            parts_damaged=tuple(sorted(fetched.parts_damaged)),
            parts_repaired=fetched.parts_repaired,
            bytes_fetched=fetched.bytes_fetched,
            requests=fetched.requests,
            retries=fetched.retries,
            seconds=time.monotonic() - self._began,
            connections=max(1, fetched.connections),
            levels=fetched.levels,
            bottleneck=fetched.bottleneck,
            started_over=self._started_over,
        )

    def _tell(self, done: int, connections: int, *, final: bool = False) -> None:
        """Pass the state on to whoever listens, a few times a second, and watch the time."""
        now = time.monotonic()
        self._check_time(now)
        if self._listener is None or (now < self._next_tell and not final):
            return
        self._next_tell = now + _TELL_EVERY
        fetched = self._fetched
        seconds = now - self._began
        event = self._meter.event(seconds, done, self._size, fetched.bytes_fetched, connections, fetched.parts_reused)
        self._listener(event)

    def _sleep(self, seconds: float) -> None:
        if self._job.max_time is not None:
            seconds = min(seconds, max(0.0, self._began + self._job.max_time - time.monotonic()))
        time.sleep(seconds)
        self._check_time(time.monotonic())

    def _check_time(self, now: float) -> None:
        if self._job.max_time is not None and now - self._began > self._job.max_time:
            raise NetworkError(
                f"{self._source.shown}: not done within {self._job.max_time} seconds; run again to resume"
            )


def _why_not(stored: Stored, found: Probe) -> str:
    """Say why the parts of an earlier run are not of the object that was found; empty if they are."""
    info = found.info
    if info.size != stored.plan.size:
        return f"the object was replaced: it had {stored.plan.size} bytes, has {info.size}"
    if not found.ranged:
        return "the server serves no ranges any more"
    if info.crc64 != stored.crc64 and None not in (info.crc64, stored.crc64):
        return "the object was replaced: its CRC-64 is another one"
    return why_not_resumable(stored.validator, info.validator)
