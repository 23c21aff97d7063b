"""A published file whose records were kept, or whose run was killed before it removed them: what of it is still right.

A file under its final name is never changed: where parts of it differ, the right ones are copied to a new ``OUT.part``
and the others are fetched there, while readers see the old file until the new one replaces it.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from fastdl.errors import DiskError, FastdlError, IntegrityError
from fastdl.follower import Follower
from fastdl.hashing import hash_parts
from fastdl.header import Header
from fastdl.output import create_output, remove_leftover
from fastdl.plan import Run
from fastdl.proof import verify
from fastdl.votes import named, runs_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastdl.checkpoint import Checkpoint
    from fastdl.digest import Digest
    from fastdl.output import Output
    from fastdl.plan import Plan
    from fastdl.proof import Claims
    from fastdl.result import Fetched
    from fastdl.validator import ObjectInfo

log = logging.getLogger("fastdl")


def changed_parts(
    output: Output, checkpoint: Checkpoint, plan: Plan, workers: int, tell: Callable[[int], None]
) -> list[int]:
    """Hash every part of ``output``; return those that are not what ``checkpoint`` recorded, in order.

    Raises:
        DiskError: the file cannot be read.
    """
    changed: list[int] = []

    def compare(index: int, digest: Digest) -> None:
        if digest != checkpoint.marks.digest(index):
            changed.append(index)

    hash_parts(output.path, output.fd, plan, [Run(0, plan.count)], workers, compare, tell)
    return sorted(changed)


def judge_finished(
    shown: str,
    output: Output,
    checkpoint: Checkpoint,
    claims: Claims,
    fetched: Fetched,
    watch: Callable[[], None],
    *,
    fsync: bool,
) -> str:
    """Judge a file that an earlier run published and that still is what its records say; return what proves it.

    Raises:
        IntegrityError: it is not what was promised or expected.
        DiskError: it cannot be read, or with ``fsync`` not be made durable.
    """
    with Follower(output.fd, claims.kinds) as follower:

        def proven(by: Claims) -> str:
            return verify(shown, by, follower, fetched, watch, sized=True)

        try:
            integrity = proven(claims)
        except IntegrityError:
            if not _vouched_for(lambda: proven(replace(claims, expected=()))):
                checkpoint.remove()  # records and file agree on what is wrong: the next run starts over
            raise
    if fsync:  # the run that published it may have died before it did that, or not been asked to
        try:
            output.sync()
        except DiskError:
            checkpoint.remove()  # it would be believed the next time: the kernel shows what the disk refused
            raise
    with suppress(FastdlError, OSError):  # of a run that was killed, or still goes on
        remove_leftover(output.path)
    return integrity


def _vouched_for(proven: Callable[[], str]) -> bool:
    """Tell whether the store itself vouches for the file, so that it is the user's digest that is of another one."""
    try:
        return proven() not in ("length", "none")
    except IntegrityError:
        return False


def reuse(
    old: Output, changed: list[int], checkpoint: Checkpoint, plan: Plan, identity: str, info: ObjectInfo
) -> Output | None:
    """Begin a new file with all but the ``changed`` parts of ``old``, and let ``checkpoint`` be about that.

    None if not one part is right. The caller closes both.

    Raises:
        DiskError: there is no room for a second file, or it cannot be written.
    """
    if len(changed) == plan.count:
        return None
    log.info("%s: parts %s changed since it was published", old.path, named(changed))
    bad = set(changed)
    records = {index: checkpoint.marks.digest(index) for index in range(plan.count) if index not in bad}
    new = create_output(old.path)
    try:
        new.allocate(plan.size)
        for run in runs_of(records):
            _copy(old, new, *plan.bounds(run))
        # Not before all is copied: until here a killed run costs nothing, from here on what is not marked is fetched.
        checkpoint.begin(Header(plan, identity, info.validator, info.crc64, new.inode, new.stamp))
        for index, digest in records.items():
            checkpoint.mark(index, digest)
    except BaseException:
        if not checkpoint.is_about(new.stamp):
            new.discard()  # nothing knows of it
        new.close()
        raise
    return new


def _copy(old: Output, new: Output, start: int, stop: int) -> None:
    """Copy the bytes ``[start, stop)`` within the kernel: on some file systems both files then share the blocks."""
    try:
        while start < stop:
            count = os.copy_file_range(old.fd, new.fd, stop - start, start, start)
            if count == 0:
                raise DiskError(f"{old.path}: another process truncated it")
            start += count
    except OSError as error:
        raise DiskError(f"{new.part_path}: {old.path} cannot be copied: {error.strerror}") from None
