"""A file that is there, held against what is known of it: kept records, a store's promises, digests, a second copy.

Nothing is written but by a repair, which overwrites bad parts in place: no second file is needed, and a file that is
half repaired is still bad to the next look, because neither records nor promises change.
"""

from __future__ import annotations

import logging
import random
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fastdl.checkpoint import open_checkpoint
from fastdl.connections import until
from fastdl.crew import OWN
from fastdl.errors import IntegrityError, UsageError
from fastdl.follower import Follower
from fastdl.hashing import hash_parts
from fastdl.header import STAMP, Header, identity_digest
from fastdl.http import Transport
from fastdl.plan import Run, make_plan
from fastdl.probe import probe, why_not_same
from fastdl.progress import Teller
from fastdl.proof import Claims, verify, worth_comparing
from fastdl.ranged import RangedDownload
from fastdl.repair import settle
from fastdl.result import Fetched, VerifyResult
from fastdl.retry import Attempts
from fastdl.validator import Validator
from fastdl.votes import Answers, Votes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fastdl.checkpoint import Checkpoint
    from fastdl.digest import Expected
    from fastdl.messages import Line
    from fastdl.plan import Plan
    from fastdl.probe import Probe
    from fastdl.progress import ProgressEvent
    from fastdl.retry import Backoff
    from fastdl.sources import Source
    from fastdl.there import FileThere

_BUDGET = 2  # times the file's bytes that a repair may receive at most
log = logging.getLogger("fastdl")


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a file is to do; ``source`` is None if no store is asked."""

    path: Path
    source: Source | None
    checksums: tuple[Expected, ...]
    repair: bool
    line: Line
    workers: int
    connections: int
    limit_rate: int | None
    backoff: Backoff
    max_time: float | None


class Audit:
    """One look at one open file."""

    def __init__(self, look: Look, file: FileThere, tell: Callable[[ProgressEvent], None] | None) -> None:
        self._look = look
        self._file = file
        self._shown = look.source.shown if look.source is not None else str(look.path)
        self._rng = random.Random()
        self._fetched = Fetched(size=file.size)
        self._teller = Teller(tell, self._shown, look.max_time, self._fetched)
        self._transport = Transport(look.line, min(OWN, look.connections))
        self._claims = Claims(look.checksums, ())
        self._found: Probe | None = None
        self._plan = make_plan(file.size, None)
        self._reason = ""  # why the whole is not what it should be

    def run(self, records: Checkpoint) -> VerifyResult:
        """Look, and repair if that is wanted; ``records`` are kept ones, or empty.

        Raises:
            FastdlError: file or store cannot be read, so that nothing is known; or the object was replaced meanwhile.
        """
        with closing(self._transport), until(self._teller.due):
            size = self._ask()
            known = self._usable(records)
            if known and records.stored is not None:
                self._plan = records.stored.plan
                size = self._plan.size
            if size is not None and size != self._file.size:
                self._reason = f"it has {self._file.size} bytes, the object has {size}"
                if self._look.repair:
                    self._reason += "; a repair changes no length: download it again"
                return self._result(0, "", set(), set())
            with closing(in_memory(self._plan)) as hashed:
                result = self._compare(hashed, records if known else None)
            if result.parts_repaired and not known and records.stored is not None:
                log.warning("%s: its records were of other bytes than it has now, and are removed", self._look.path)
                records.remove()
            return result

    def _ask(self) -> int | None:
        """Ask the store for the object's first byte, and with it for size and promises."""
        source = self._look.source
        if source is None:
            return None
        attempts = Attempts(self._look.backoff.of_probe, self._rng)
        found = probe(source, self._transport, 0, 1, attempts, self._teller.sleep)
        found.close()
        self._found = found
        self._fetched.requests, self._fetched.retries = found.requests, found.retries
        promises = source.promises(found.info, self._transport)
        self._claims = replace(self._claims, promised=worth_comparing(promises, found.info.crc64))
        return found.info.size

    def _usable(self, records: Checkpoint) -> bool:
        """Tell whether the records are complete, and of the object that the store has now."""
        stored, source = records.stored, self._look.source
        if stored is None or not records.marks.complete:
            return False
        why = ""
        if source is not None and stored.identity_digest != identity_digest(source.identity):
            why = "they are of another URL"
        elif self._found is not None:
            why = why_not_same(stored, self._found)
        if not why and records.doubted:
            why = "they are of a download that was found wrong"
        if why:
            log.warning("%s: its records are not used: %s", self._look.path, why)
        return not why

    def _compare(self, hashed: Checkpoint, records: Checkpoint | None) -> VerifyResult:
        """Hash the file into ``hashed``, find the parts that are bad, repair them if that is wanted."""
        if self._plan.count:
            hash_parts(
                self._file.path,
                self._file.fd,
                self._plan,
                [Run(0, self._plan.count)],
                self._look.workers,
                hashed.mark,
                lambda done: self._teller.tell(done, 0),
            )
        proven = self._prove(hashed)
        if proven:
            return self._result(hashed.marks.crc64, proven, set(), set())
        votes = Votes(hashed.marks.digest if records is None else records.marks.digest)
        if records is not None:
            for index in range(self._plan.count):
                votes.hear(index, hashed.marks.digest(index))
            proven = "records"
        if records is None and not self._servable and not self._reason and not self._empty:
            raise UsageError(
                f"{self._shown}: promises no digest and serves no ranges, so nothing can be compared; give a checksum"
            )
        agreed = records is not None and not votes.disputed  # so what differs from the server's may be the better
        if not votes.disputed and self._servable and (self._reason or records is None):
            votes = Votes(hashed.marks.digest)
            self._fetch(hashed, Answers(votes, [Run(0, self._plan.count)]))
            proven = "bytes"
        before = {index: hashed.marks.digest(index) for index in votes.disputed}
        bad = votes.undecided
        if before and self._look.repair and self._servable and not agreed:
            bad = self._repair(hashed, votes, known=records is not None)
            if not bad:
                proven = self._prove(hashed) or ("bytes" if votes.replaced else proven)
        repaired = {index for index in before.keys() - bad if hashed.marks.digest(index) != before[index]}
        if bad or self._reason:
            proven = ""
        return self._result(0 if bad and self._look.repair else hashed.marks.crc64, proven or "length", bad, repaired)

    def _repair(self, hashed: Checkpoint, votes: Votes, *, known: bool) -> set[int]:
        """Overwrite what is bad; return the parts of which it is not known what they should be.

        Where it is not ``known`` by records that a part is bad, a single answer that differs says as little against the
        file as the file against the answer: then nothing is overwritten before two answers agree.
        """

        def fetch(answers: Answers) -> None:
            self._fetch(hashed, answers)

        budget, copies = _BUDGET * self._plan.size, votes
        if not known:
            budget = settle(self._plan, None, fetch, votes, budget)
            copies = Votes(votes.replaced.__getitem__, votes.replaced)
        settle(self._plan, hashed, fetch, copies, budget)
        self._file.sync()
        return votes.undecided | copies.undecided

    @property
    def _empty(self) -> bool:
        """Whether file and object are known to have no bytes, which is all that can be known of them."""
        return self._found is not None and self._found.info.size == 0

    @property
    def _servable(self) -> bool:
        """Whether parts can be asked for."""
        return self._found is not None and self._found.ranged and self._plan.count > 0

    def _prove(self, hashed: Checkpoint) -> str:
        """Compare the whole with every claim; return what proves it, and set the reason if something does not."""
        self._fetched.crc64 = hashed.marks.crc64
        self._reason = ""
        with Follower(self._file.fd, self._claims.kinds) as follower:
            try:
                proven = verify(
                    self._shown,
                    self._claims,
                    follower,
                    self._fetched,
                    lambda: self._teller.tell(self._file.size, 0),
                    sized=False,
                )
            except IntegrityError as error:
                self._reason = str(error).removeprefix(f"{self._shown}: ")
                return ""
        return "" if proven == "none" else proven

    def _fetch(self, hashed: Checkpoint, answers: Answers) -> None:
        look, found = self._look, self._found
        assert look.source is not None  # noqa: S101 - only a store is asked
        assert found is not None  # noqa: S101 - and it was asked before
        RangedDownload(
            look.source,
            found.info,
            self._plan,
            self._file,
            hashed,
            look.line,
            self._transport,
            workers=look.workers,
            connections=look.connections,
            limit_rate=look.limit_rate,
            trust=False,
            backoff=look.backoff,
            rng=self._rng,
            fetched=self._fetched,
            tell=self._teller.tell,
            final=lambda _: None,
            answers=answers,
        ).run()

    def _result(self, crc64: int, integrity: str, bad: set[int], repaired: set[int]) -> VerifyResult:
        return VerifyResult(
            path=self._look.path,
            url=self._look.source.shown if self._look.source is not None else "",
            size=self._file.size,
            good=not (bad or self._reason),
            reason=self._reason,
            crc64=crc64,
            integrity=integrity,
            part_size=self._plan.part_size,
            parts=self._plan.count,
            parts_bad=tuple(sorted(bad)),
            parts_repaired=tuple(sorted(repaired)),
            bytes_fetched=self._fetched.bytes_fetched,
            requests=self._fetched.requests,
            seconds=self._teller.seconds,
        )


def in_memory(plan: Plan) -> Checkpoint:
    """Return records of what is hashed now, in memory only."""
    checkpoint = open_checkpoint(None)
    checkpoint.begin(Header(plan, "", Validator(), None, (0, 0), bytes(STAMP)))
    return checkpoint
