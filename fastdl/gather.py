"""Many pieces of one object at once: threads of the caller's process, each with a connection, and one eye on all."""

from __future__ import annotations

import functools
import itertools
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastdl.answers import Answer, Pace, read_answer, unfit
from fastdl.cancellation import current
from fastdl.connections import break_asking, is_connecting
from fastdl.errors import Cancelled, DiskError, FastdlError, NetworkError, ServerBusy
from fastdl.renewal import Renewal
from fastdl.retry import Attempts

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from fastdl.answers import Batch
    from fastdl.http import Response, Transport
    from fastdl.places import Places
    from fastdl.prepare import Prepared
    from fastdl.validator import ObjectInfo

WORTH_CONTINUING = 64 * 1024  # bytes of progress that earn a broken transfer an immediate continuation
_NAP = 0.1  # seconds between looks at who stands still
_GRACE = 1.25  # times the read timeout: the socket's own comes first
# Seconds to wait at the end for threads that were broken. What cannot be woken, a TLS handshake, ends by itself later.
_PATIENCE = 1.5


@dataclass(slots=True)
class _Seat:
    """What one thread does: ``since`` when it moved last, None while it waits for nothing of a server's."""

    number: int
    pace: Pace
    thread: threading.Thread | None = None
    response: Response | None = None
    since: float | None = None


class Gathering:
    """Fetches batches of pieces into their places; ends with all of them, or with the first failure that is final."""

    def __init__(
        self, way: Prepared, transport: Transport, info: ObjectInfo, places: Places, rng: random.Random
    ) -> None:
        self._source = way.source
        self._way = way
        self._transport = transport
        self._info = info
        self._places = places
        self._cancellation = current()
        self._attempts = functools.partial(Attempts, way.backoff, rng)
        self._renewal = Renewal(way.source)
        self._numbers = itertools.count(1)
        self._newest = 0
        self._asking = threading.Lock()  # guards the source and what knows of its refusals
        self._changed = threading.Condition()  # guards what follows
        self._queue: deque[Batch] = deque()
        self._busy = 0
        self._failure: FastdlError | None = None
        self._over = False
        self._not_before = 0.0
        self._allowed = 0
        self._seats: list[_Seat] = []

    def run(self, batches: Iterable[Batch], connections: int, due: float | None) -> None:
        """Fetch ``batches``, by at most so many connections, until the monotonic time ``due``.

        Raises:
            FastdlError: some cannot be had; the places hold garbage, and nobody writes there any more.
        """
        self._queue.extend(batches)
        self._allowed = connections
        try:
            with self._changed:
                while (self._queue or self._busy) and self._failure is None:
                    self._add_seats()
                    self._changed.wait(_NAP)
                    self._look(time.monotonic(), due)
        finally:
            self._stop()
        if self._failure is not None:
            self._places.forget()
            try:
                raise self._failure.with_traceback(None)  # the thread's frames hold the caller's buffer
            finally:
                self._failure = None

    def _add_seats(self) -> None:
        """Start threads while there is more to do than they have."""
        idle = len(self._seats) - self._busy
        for _ in range(min(self._allowed - len(self._seats), len(self._queue) - idle)):
            seat = _Seat(len(self._seats), Pace())
            seat.thread = threading.Thread(target=self._work, args=(seat,), name="fastdl-ranges", daemon=True)
            self._seats.append(seat)  # known before it runs: a signal may end start() when it runs already
            try:
                seat.thread.start()
            except RuntimeError as error:  # as many as this system allows
                self._seats.pop()
                if not self._seats:
                    raise DiskError(f"no thread to fetch ranges in: {error}") from None
                self._allowed = len(self._seats)
                return

    def _look(self, now: float, due: float | None) -> None:
        if due is not None and now >= due and self._failure is None:
            self._failure = NetworkError(f"{self._source.shown}: not all was there within {self._way.max_time} seconds")
        if self._cancellation.wanted:
            self._failure = self._failure or Cancelled(f"{self._source.shown}: cancelled")
        for seat in self._seats:
            if seat.since is not None and seat.thread is not None:
                if seat.response is None and is_connecting(seat.thread.ident):
                    seat.since = now  # that has a timeout of its own
                elif now - seat.since > _GRACE * self._way.line.read_timeout:
                    _break(seat)

    def _stop(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        with self._changed:
            self._over = True
            unread = [batch.answer for batch in self._queue if batch.answer is not None]
            self._queue.clear()
            self._changed.notify_all()
        for answer in unread:
            answer.response.finish()
        for seat in self._seats:
            while seat.thread is not None and seat.thread.is_alive() and time.monotonic() < deadline:
                for each in self._seats:
                    if each.since is not None:
                        _break(each)  # again and again: it may have been between two connections
                seat.thread.join(0.02)

    def _work(self, seat: _Seat) -> None:
        """Fetch one batch after another; the body of every thread."""
        try:
            while (batch := self._take(seat)) is not None:
                self._serve(seat, batch)
        except BaseException as error:  # noqa: BLE001 - a defect of ours must reach the caller, who would wait for ever
            with self._changed:
                self._failure = self._failure or FastdlError(f"unexpected {type(error).__name__}: {error}")
                self._changed.notify_all()

    def _serve(self, seat: _Seat, batch: Batch) -> None:
        failure: FastdlError | None = None
        number = next(self._numbers)
        try:
            self._fetch(seat, batch, number)
        except FastdlError as error:
            failure = error
        except MemoryError:
            failure = DiskError("no memory left to receive into")
        seat.since = None
        if failure is None:
            self._renewal.accepted(number)
        elif not self._over:
            self._judge(batch, number, failure)
        if self._over or self._failure is not None:
            batch.view = None
        with self._changed:
            self._busy -= 1
            if not self._queue:
                self._changed.notify_all()

    def _take(self, seat: _Seat) -> Batch | None:
        """Return what to fetch next, once the server may be asked again; None if there will be nothing."""
        with self._changed:
            while not self._over and seat.number < self._allowed:
                now = time.monotonic()
                if self._queue:
                    wait = max(self._not_before, self._queue[0].not_before) - now
                    if wait <= 0:
                        self._busy += 1
                        seat.since = now
                        return self._queue.popleft()
                elif not self._busy:
                    break
                else:
                    wait = _NAP
                self._changed.wait(min(wait, _NAP))
            return None

    def _fetch(self, seat: _Seat, batch: Batch, number: int) -> None:
        """Ask for a batch, or for what is left of it, until nothing is."""

        def moved() -> None:
            seat.since = time.monotonic()

        batch.moved = 0
        while batch.pieces:
            answer, batch.answer = batch.answer, None
            if answer is None:
                with self._asking:
                    self._newest = max(self._newest, number)
                    request = self._source.request(self._info)
                answer = Answer(self._transport.open(request, (batch.header,)), seat.pace)
            seat.response, answer.pace.moved = answer.response, moved
            try:
                if self._over:
                    return
                read_answer(answer, batch, self._info, self._places)
            finally:
                seat.response = None
                answer.response.finish()

    def _judge(self, batch: Batch, number: int, failure: FastdlError) -> None:
        """Put back what a failure left undone, to be asked for now or later; or let it be the end of all."""
        if len(batch.pieces) > 1 and unfit(failure):
            # This server does not answer several ranges as they must be: what is left goes one by one.
            with self._changed:
                self._queue.append(batch)
                self._queue = deque(one for each in self._queue for one in each.singly(self._attempts))
            return
        with self._asking:
            failure, at_once = self._renewal.judge(number, failure, self._newest)
        if isinstance(failure, NetworkError) and batch.moved >= WORTH_CONTINUING:
            batch.attempts = self._attempts()
            at_once = True
        with self._changed:
            if not at_once:
                try:
                    wait = batch.attempts.after(failure)
                except FastdlError as error:
                    self._failure = self._failure or error
                    self._changed.notify_all()
                    return
                self._put_off(batch, wait, everybody=isinstance(failure, ServerBusy))
            self._queue.append(batch)

    def _put_off(self, batch: Batch, wait: float, *, everybody: bool) -> None:
        batch.not_before = (now := time.monotonic()) + wait
        if everybody:
            if now >= self._not_before:  # those that were refused together are one refusal
                self._allowed = max(1, self._allowed // 2)
            self._not_before = max(self._not_before, batch.not_before)


def _break(seat: _Seat) -> None:
    response = seat.response
    if response is not None:
        response.abort()
    elif seat.thread is not None:
        break_asking(seat.thread.ident)
