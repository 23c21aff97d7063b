"""An object fetched into memory by a thread of the caller's process, for readers who use it while it arrives."""

from __future__ import annotations

import atexit
import contextvars
import os
import random
import threading
import time
import weakref
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from fastdl import reuse
from fastdl.cancellation import cancelled_by
from fastdl.checkpoint import open_checkpoint
from fastdl.connections import break_asking, until
from fastdl.crew import OWN
from fastdl.digest import parse_checksums
from fastdl.errors import DiskError, FastdlError
from fastdl.job import Job, check_limit_rate, chosen_part_size, concurrency
from fastdl.plan import probe_length
from fastdl.prepare import Options, prepare
from fastdl.probe import probe
from fastdl.progress import Teller
from fastdl.proof import Claims, worth_comparing
from fastdl.redact import without_secrets
from fastdl.result import Fetched, LoadResult
from fastdl.retry import Attempts
from fastdl.transfer import Transfer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastdl.arrivals import Arrivals
    from fastdl.memory import Memory

_PATIENCE = 3.0  # seconds that the thread gets to end; connections of ours take one, workers half a second
_NAP = 0.05
_going_on: weakref.WeakSet[Loading] = weakref.WeakSet()


def make_job(
    url: str,
    *,
    part_size: int | str | None = None,
    workers: int | None = None,
    connections: int | None = None,
    checksum: str | Sequence[str] | None = None,
    limit_rate: int | str | None = None,
    **options: Unpack[Options],
) -> Job:
    """Check every setting of a call that makes no file; nothing is sent.

    Raises:
        UsageError: one cannot be meant.
        AccessDenied: credentials are wanted and there are none.
    """
    workers, connections = concurrency(workers, connections)
    way = prepare(url, **options)
    return Job(
        source=way.source,
        path=Path(),
        checkpoint_path=None,
        part_size=chosen_part_size(part_size),
        line=way.line,
        workers=workers,
        connections=connections,
        resume="no",
        checksums=parse_checksums(checksum),
        sums=None,
        backoff=way.backoff,
        max_time=way.max_time,
        overwrite=False,
        fsync=False,
        keep_records=False,
        limit_rate=check_limit_rate(limit_rate),
    )


class Loading:
    """``job``'s object on its way into ``memory``; what there is to know of that is in ``arrivals``.

    It goes on by itself until all has come or ``close`` is called, which whoever makes one must do.
    """

    def __init__(self, job: Job, memory: Memory, arrivals: Arrivals) -> None:
        self._job = job
        self.memory = memory
        self.arrivals = arrivals
        self._fetched = Fetched()
        self._owner = os.getpid()
        around = contextvars.copy_context()  # so that the thread finds what its caller reuses
        self._thread = threading.Thread(target=around.run, args=(self._run,), name="fastdl-loading", daemon=True)
        _going_on.add(self)
        try:
            self._thread.start()
        except RuntimeError as error:
            memory.close()
            raise DiskError(f"no thread to fetch {job.source.shown} in: {error}") from None

    @property
    def ours(self) -> bool:
        """Whether this is the process that fetches, and not a fork of it."""
        return os.getpid() == self._owner

    def close(self) -> None:
        """End the fetching if it still goes on, and let go of the memory; mappings stay."""
        if not self.ours:
            self.memory.close()
            return
        self.arrivals.cancel()
        deadline = time.monotonic() + _PATIENCE
        while self._thread.is_alive() and time.monotonic() < deadline:
            break_asking(self._thread.ident)  # again and again: it may have been between two connections
            self._thread.join(_NAP)
        if not self._thread.is_alive():  # else its descriptor could soon mean another file
            self.memory.close()
        _going_on.discard(self)

    def _run(self) -> None:
        result: LoadResult | None = None
        error: FastdlError | None = None
        try:
            with cancelled_by(self.arrivals.cancellation):
                result = self._load()
        except FastdlError as failure:
            error = failure
        except MemoryError:
            error = DiskError("no memory left to fetch into")
        except BaseException as failure:  # noqa: BLE001 - a defect of ours must reach the readers, not vanish here
            error = FastdlError(f"unexpected {type(failure).__name__} while fetching: {failure}")
        self.arrivals.end(result, None if error is None else error.with_traceback(None))

    def _load(self) -> LoadResult:
        job, fetched, rng = self._job, self._fetched, random.Random()
        source, shown = job.source, job.source.shown
        teller = Teller(None, shown, job.max_time, fetched, resumable=False)
        own = min(OWN, job.connections)
        transport = reuse.take_transport(job.line, own)
        with ExitStack() as stack, until(teller.due):
            stack.callback(reuse.give_transport, transport, own)
            stop = probe_length(job.part_size) if job.part_size is None else job.part_size
            found = probe(source, transport, 0, stop, Attempts(job.backoff.of_probe, rng), teller.sleep)
            stack.callback(found.close)
            fetched.requests, fetched.retries = found.requests, found.retries
            claims = Claims(job.checksums, worth_comparing(source.promises(found.info, transport), found.info.crc64))
            checkpoint = open_checkpoint(None)
            stack.callback(checkpoint.close)
            transfer = Transfer(
                job,
                found,
                self.memory,
                checkpoint,
                transport,
                claims,
                resumed=False,
                fetched=fetched,
                teller=teller,
                rng=rng,
                readers=self.arrivals,
            )
            integrity = transfer.run()
        return LoadResult(
            url=shown,
            size=fetched.size or 0,
            etag=without_secrets(found.info.validator.etag),
            crc64=fetched.crc64,
            integrity=integrity,
            part_size=transfer.plan.part_size,
            parts=transfer.plan.count if found.ranged else 0,
            parts_repaired=fetched.parts_repaired,
            bytes_fetched=fetched.bytes_fetched,
            requests=fetched.requests,
            retries=fetched.retries,
            seconds=teller.seconds,
            connections=max(1, fetched.connections),
            bottleneck=fetched.bottleneck,
        )


@atexit.register
def _close_all() -> None:
    """Let an interpreter that ends leave no worker behind and wait for no server."""
    for loading in list(_going_on):
        if loading.ours:
            loading.close()
