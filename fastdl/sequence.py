"""One download from lock to publication: the one place that knows the whole sequence.

resolve -> lock -> probe -> plan -> resume or begin -> fetch -> verify (and repair) -> publish
"""

from __future__ import annotations

import logging
import random
from contextlib import ExitStack, closing
from functools import partial
from typing import TYPE_CHECKING

from fastdl import reuse
from fastdl.checkpoint import Checkpoint, open_checkpoint
from fastdl.connections import until
from fastdl.crew import OWN
from fastdl.disk import check_path, part_path_of
from fastdl.doubt import find_again
from fastdl.errors import (
    Archived,
    IntegrityError,
    NetworkError,
    UsageError,
    disk_errors,
)
from fastdl.header import identity_digest
from fastdl.output import Output, create_output, reopen_output
from fastdl.plan import probe_length
from fastdl.probe import Probe, probe
from fastdl.progress import ProgressEvent, Teller
from fastdl.proof import Claims, worth_comparing
from fastdl.redact import printable, without_secrets
from fastdl.result import DownloadResult, Fetched
from fastdl.retry import Attempts
from fastdl.there import refuse_ours
from fastdl.transfer import Transfer
from fastdl.validator import ObjectInfo, Validator

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastdl.job import Job
    from fastdl.plan import Plan

log = logging.getLogger("fastdl")


class Download:
    """One job from lock to publication; ``accept`` may raise at what the first answer told, before a byte is used."""

    def __init__(
        self,
        job: Job,
        tell: Callable[[ProgressEvent], None] | None,
        accept: Callable[[ObjectInfo], None] = lambda _: None,
    ) -> None:
        self._job = job
        self._accept = accept
        self._source = job.source
        self._checksums = job.checksums
        self._rng = random.Random()
        self._fetched = Fetched()
        self._teller = Teller(tell, job.source.shown, job.max_time, self._fetched)
        self._transport = reuse.take_transport(job.line, min(OWN, job.connections))
        self._started_over = ""

    def run(self) -> DownloadResult:
        """Carry the job out; whatever fails, what can be resumed stays and what cannot is removed."""
        with until(self._teller.due):
            try:
                return self._run()
            except NetworkError:
                self._teller.sleep(0)  # if the time is up that is what to say
                raise

    def _run(self) -> DownloadResult:
        job = self._job
        check_path(job.path)
        refuse_ours(job.path)
        with disk_errors(job.path):
            if not job.overwrite and job.path.exists():
                raise UsageError(f"{job.path}: exists; not replaced")
        if job.sums is not None:
            self._checksums += job.sums.digests(job.backoff, self._teller.sleep)
        with ExitStack() as stack:
            stack.callback(reuse.give_transport, self._transport, min(OWN, self._job.connections))
            checkpoint = open_checkpoint(job.checkpoint_path)
            stack.callback(checkpoint.close)
            try:
                return self._locked(checkpoint, stack)
            except BaseException:
                if not checkpoint.marks.any:
                    checkpoint.withdraw()
                raise

    def _locked(self, checkpoint: Checkpoint, stack: ExitStack) -> DownloadResult:
        output = self._earlier(checkpoint)
        try:
            found = self._probe(checkpoint, output is not None)
            stack.callback(found.close)
            self._accept(found.info)
        except BaseException:
            if output is not None:
                output.close()
            raise
        promises = self._source.promises(found.info, self._transport)
        claims = Claims(self._checksums, worth_comparing(promises, found.info.crc64))
        resumed = output is not None and not self._started_over
        if resumed and output is not None and output.published and checkpoint.stored is not None:
            from fastdl.kept import changed_parts, judge_finished, reuse  # noqa: PLC0415 - few runs find what they would make

            plan = checkpoint.stored.plan
            self._fetched.size = plan.size
            changed = changed_parts(
                output, checkpoint, plan, self._job.workers, lambda done: self._teller.tell(done, 0)
            )
            if not changed:
                stack.callback(output.close)
                self._fetched.crc64, self._fetched.parts_reused = checkpoint.marks.crc64, plan.count
                shown, fsync = self._source.shown, self._job.fsync
                proven = judge_finished(shown, output, checkpoint, claims, self._fetched, self._watch, fsync=fsync)
                return self._finish(found, checkpoint, plan, proven)
            with closing(output):
                output = reuse(output, changed, checkpoint, plan, self._source.identity, found.info)
            if output is None:
                resumed, self._started_over = False, "the finished file was changed after it was published"
            else:
                self._fetched.parts_damaged.extend(changed)
        if self._started_over:
            self._start_over(output)
            output = None
        transfer: Transfer | None = None
        complete = False
        try:
            if output is None:
                output = create_output(self._job.path)
            stack.callback(output.close)
            transfer = Transfer(
                self._job,
                found,
                output,
                checkpoint,
                self._transport,
                claims,
                resumed=resumed,
                fetched=self._fetched,
                teller=self._teller,
                rng=self._rng,
            )
            integrity = transfer.run()
            complete = True
            output.publish(fsync=self._job.fsync, replace=self._job.overwrite)
        except BaseException as error:
            markable = resumed if transfer is None else transfer.markable
            _tidy(error, output, checkpoint, complete=complete, markable=markable)
            raise
        return self._finish(found, checkpoint, transfer.plan, integrity)

    def _earlier(self, checkpoint: Checkpoint) -> Output | None:
        """Open what an earlier run left if it may be resumed, else say in ``_started_over`` why not."""
        stored = checkpoint.stored
        if stored is None:
            self._started_over = checkpoint.damage
            part_path = part_path_of(self._job.path)
            with disk_errors(part_path):
                left = part_path.is_file() and not part_path.is_symlink()
            if not self._started_over and left:
                why = "the partial file that is there has no checkpoint"
                self._started_over = why if self._job.checkpoint_path else "without a checkpoint nothing is resumed"
        elif self._job.resume == "no":
            self._started_over = "resuming was not wanted"
        elif stored.identity_digest != identity_digest(self._source.identity):
            self._started_over = "the checkpoint is of another URL"
        elif self._job.part_size not in (None, stored.plan.part_size):
            self._started_over = f"the part size was {stored.plan.part_size}, is {self._job.part_size}"
        else:
            output = reopen_output(self._job.path, stored, complete=checkpoint.marks.complete)
            if output is not None:
                return output
            self._started_over = "the partial file is missing, or is not the one the checkpoint is about"
        return None

    def _start_over(self, output: Output | None) -> None:
        """Throw away what an earlier run left."""
        self._started_over = printable(self._started_over)
        log.warning("%s: starting over: %s", self._job.path, self._started_over)
        if output is not None:
            output.discard()
            output.close()  # now, because its blocks may be needed

    def _probe(self, checkpoint: Checkpoint, resumable: bool) -> Probe:
        """Ask for the first bytes that are needed; if the object is another one than before, for its first."""
        if resumable and checkpoint.stored is not None:
            stored = checkpoint.stored
            _, missing = checkpoint.marks.runs()
            start, stop = 0, 1  # nothing is missing: one byte, to hear whether the object is the same
            if missing:
                start, stop = stored.plan.bounds(missing[0])
                stop = min(stop, start + probe_length(stored.plan.part_size))
            # The version that was begun is asked for by its id, though a newer one may be there.
            version = Validator(version_id=stored.validator.version_to_name)
            ask = partial(self._ask, start, stop, ObjectInfo(None, version))
            found = find_again(stored, ask, self._pause, self._source.shown, kept=checkpoint.marks.any)
            if not isinstance(found, str):
                return found
            self._started_over = found
        return self._ask(0, probe_length(self._job.part_size))

    def _pause(self, failures: int) -> None:
        self._teller.sleep(self._job.backoff.delay(failures, self._rng))

    def _ask(self, start: int, stop: int, known: ObjectInfo | None = None) -> Probe:
        attempts = Attempts(self._job.backoff.of_probe, self._rng)
        ask = partial(probe, self._source, self._transport, start, stop, attempts, self._teller.sleep, known)
        try:
            found = ask()
        except Archived as archived:
            self._source.thaw(archived, self._transport, self._teller.sleep)
            found = ask()
        self._fetched.requests += found.requests
        self._fetched.retries += found.retries
        return found

    def _finish(self, found: Probe, checkpoint: Checkpoint, plan: Plan, integrity: str) -> DownloadResult:
        """Leave the records beside the published file if that is wanted, else nothing; return what was done."""
        if not self._job.keep_records:
            checkpoint.remove()
        elif not found.ranged or not checkpoint.marks.complete:
            log.warning("%s: no records to keep: the server gave it in one piece", self._job.path)
            checkpoint.remove()
        else:
            checkpoint.keep()
        self._teller.tell(self._fetched.size or 0, 0, final=True)
        result = self._result(found, plan, integrity)
        log.info("%s: %s", self._job.path, result.reused)
        log.info("%s: %s", self._job.path, result.proof)
        return result

    def _result(self, found: Probe, plan: Plan, integrity: str) -> DownloadResult:
        fetched = self._fetched
        return DownloadResult(
            path=self._job.path,
            url=self._source.shown,
            size=self._fetched.size or 0,
            etag=without_secrets(found.info.validator.etag),
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
            seconds=self._teller.seconds,
            connections=max(1, fetched.connections),
            levels=fetched.levels,
            bottleneck=fetched.bottleneck,
            started_over=self._started_over,
        )

    def _watch(self) -> None:
        self._teller.tell(self._fetched.size or 0, 0)


def _tidy(
    error: BaseException, output: Output | None, checkpoint: Checkpoint, *, complete: bool, markable: bool
) -> None:
    """Remove what a run that failed leaves if it is of no use to the next one, else let that one find it."""
    marked = checkpoint.path is not None and checkpoint.marks.any
    kept = complete or (markable and marked)
    # After a mismatch the records agree with the bytes: kept, they would fail in the same way for ever.
    if output is not None and (isinstance(error, IntegrityError) or output.lost or not kept):
        checkpoint.withdraw()
        output.discard()
    elif complete and marked:
        checkpoint.keep()  # of a small object, too, which is not marked before it is published
