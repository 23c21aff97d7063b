"""The bytes of one object that was found: planned, brought into the output, proven, repaired where they are wrong."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from fastdl import ordered
from fastdl.errors import IntegrityError
from fastdl.follower import Follower, Frontier
from fastdl.header import Header
from fastdl.plan import GIB, MOST_BYTES, NO_PARTS, make_plan, make_stream_plan
from fastdl.proof import Claims, verify
from fastdl.ranged import RangedDownload
from fastdl.retry import Attempts

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from fastdl.arrivals import Arrivals
    from fastdl.checkpoint import Checkpoint
    from fastdl.http import Transport
    from fastdl.job import Job
    from fastdl.memory import Memory
    from fastdl.output import Output
    from fastdl.plan import Run
    from fastdl.probe import Probe
    from fastdl.progress import Teller
    from fastdl.result import Fetched
    from fastdl.votes import Answers

_LARGE = GIB  # bytes that nobody likes to fetch twice
log = logging.getLogger("fastdl")
advice = logging.getLogger("fastdl.advice")  # of no use to whoever wants quiet


class Transfer:
    """``found`` on its way into ``output``; with ``resumed`` the checkpoint's marks are about that very output.

    ``readers`` use what is there while the rest is coming.
    """

    def __init__(
        self,
        job: Job,
        found: Probe,
        output: Output | Memory,
        checkpoint: Checkpoint,
        transport: Transport,
        claims: Claims,
        *,
        resumed: bool,
        fetched: Fetched,
        teller: Teller,
        rng: random.Random,
        readers: Arrivals | None = None,
    ) -> None:
        self._job = job
        self._found = found
        self._output = output
        self._checkpoint = checkpoint
        self._transport = transport
        self._resumed = self.markable = resumed  # whether marks are about this output; from then on they may stay
        self._fetched = fetched
        self._teller = teller
        self._rng = rng
        self._readers = readers
        self._trust = resumed and job.resume == "trust" and not output.sealed
        self._claims = replace(claims, trusted=self._trust and checkpoint.marks.any)
        self._doubted = resumed and checkpoint.doubted
        self._shown = job.source.shown
        self.plan = NO_PARTS

    def run(self) -> str:
        """Bring all bytes into the output and judge them; return what they were compared with.

        Raises:
            IntegrityError: they are not what was promised.
            FastdlError: they cannot be had; what is marked can be resumed if the marks are about this output.
        """
        info = self._found.info
        if self._resumed and self._checkpoint.stored is not None:
            self.plan = self._checkpoint.stored.plan  # its part size holds if none was asked for
        else:
            if self._job.part_size is None or (info.size or 0) > MOST_BYTES:  # what no plan can hold no disk can
                self._output.check_room(info.size or 0)
            cut = make_plan if self._found.ranged else make_stream_plan
            self.plan = cut(info.size or 0, self._job.part_size)
        if self._found.ranged:
            log.debug("%s: %d bytes in %d parts of %d", self._shown, info.size, self.plan.count, self.plan.part_size)
        self._fetched.size = info.size
        self._output.allocate(info.size)
        ring, hashed = self._output.ring, (lambda _: None) if self._readers is None else self._readers.hashed
        if self._readers is not None:
            self._readers.begin(info.size, self.plan if self._found.ranged else NO_PARTS)
        with Follower(self._output.fd, self._claims.kinds, ring, hashed) as follower:
            if self._found.ranged:
                self._fetch_ranges(follower)
            else:
                self._fetch_stream(follower)
            proven = self._prove(follower)
        response = self._found.response
        if proven == "none" and response is not None and response.ended_by_nothing:
            log.warning("%s: only the end of the connection tells that these bytes are all", self._shown)
        return proven

    def _prove(self, follower: Follower) -> str:
        """Judge the whole, and repair it if need be; should this run be killed meanwhile the next one is told of it."""
        doubted = self._doubted
        try:
            proven = self._verify(follower)
        except IntegrityError as error:
            if not self._found.ranged or self._output.ring:  # what has passed cannot be taken back
                raise
            self._checkpoint.doubt(doubted=True)
            doubted = True
            proven = self._repair(follower, error)
        if doubted:
            self._checkpoint.doubt(doubted=False)
        return proven

    def _fetch_stream(self, follower: Follower) -> None:
        job = self._job
        if self._found.response is None:
            return
        size = self._found.info.size
        level = logging.WARNING if self._readers is None and (size is None or size > _LARGE) else logging.INFO
        what = "does not say how long the object is" if size is None else "serves no ranges"
        advice.log(level, "%s: the server %s: one connection, and it cannot be resumed", self._shown, what)
        self._fetched.size = ordered.fetch_stream(
            job.source,
            self._found,
            self._output,
            self._transport,
            Attempts(job.backoff, self._rng),
            self._fetched,
            follower,
            stall=job.line.read_timeout,
            limit_rate=job.limit_rate,
            sleep=self._teller.sleep,
            tell=self._teller.tell,
            readers=self._readers,
        )

    def _fetch_ranges(self, follower: Follower) -> None:
        if not self._resumed:
            info, output = self._found.info, self._output
            identity = self._job.source.identity
            header = Header(self.plan, identity, info.validator, info.crc64, output.inode, output.stamp)
            self._checkpoint.begin(header)
            self.markable = True
        readers = self._readers

        def advance(stop: int) -> None:
            follower.advance(stop)
            if readers is not None:
                readers.advance(stop)

        frontier = Frontier(self.plan, advance)

        def final(run: Run) -> None:
            if readers is not None:
                readers.arrived(run)
            frontier.add(run)

        self._ranged(final, trust=self._trust).run(self._found)
        self._fetched.crc64 = self._checkpoint.marks.crc64

    def _ranged(
        self, final: Callable[[Run], None], *, trust: bool = False, answers: Answers | None = None
    ) -> RangedDownload:
        job = self._job
        return RangedDownload(
            job.source,
            self._found.info,
            self.plan,
            self._output,
            self._checkpoint,
            job.line,
            self._transport,
            workers=job.workers,
            connections=job.connections,
            limit_rate=job.limit_rate,
            trust=trust,
            backoff=job.backoff,
            rng=self._rng,
            fetched=self._fetched,
            tell=self._teller.tell,
            final=final,
            answers=answers,
            readers=self._readers if answers is None else None,
        )

    def _repair(self, follower: Follower, why: IntegrityError) -> str:
        from fastdl.repair import repair  # noqa: PLC0415 - hardly ever needed

        def fetch(answers: Answers | None) -> None:
            follower.restart()
            if answers is not None:  # a look at the disk clears nothing: records and wrong bytes may agree
                self._doubted = False
            self._claims = replace(self._claims, trusted=False)
            self._ranged(lambda _: None, answers=answers).run()
            self._fetched.crc64 = self._checkpoint.marks.crc64

        return repair(
            self._shown,
            self.plan,
            self._checkpoint,
            self._fetched,
            fetch=fetch,
            verify=lambda: self._verify(follower),
            trusted=self._claims.trusted,
            why=why,
        )

    def _verify(self, follower: Follower) -> str:
        def watch() -> None:
            self._teller.tell(self._fetched.size or 0, 0)

        sized = self._found.info.size is not None
        proven = verify(self._shown, self._claims, follower, self._fetched, watch, sized=sized)
        if self._doubted and proven in ("length", "none"):
            raise IntegrityError(
                f"{self._shown}: an earlier run found it wrong, and nothing is promised that clears it"
            )
        return proven
