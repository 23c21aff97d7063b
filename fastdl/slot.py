"""A slot: one thread that carries out orders one by one, over one connection at a time, and reports on each.

Workers run several; the caller's process runs one, which reads the first answer while the workers are starting.
"""

from __future__ import annotations

import threading
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING

from fastdl.connections import break_asking
from fastdl.errors import DiskError, FastdlError, NetworkError
from fastdl.fetch import WINDOW, SpanFetch, rehash
from fastdl.messages import Fetch, Rehash, Report
from fastdl.plan import Run

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastdl.counters import Counters
    from fastdl.digest import Digest
    from fastdl.http import Response, Transport
    from fastdl.writers import Writer

_STALLED = NetworkError("a connection made no progress for the read timeout and was given up")
_GLANCE = 0.0002  # seconds between looks at whether parts were marked


class Slot:
    """Orders go in by ``give``, reports come out by ``send``; the pool has ``connections`` that fetch."""

    def __init__(
        self,
        number: int,
        counters: Counters,
        connections: int,
        send: Callable[[Report], None],
        transport: Transport,
        writer: Callable[[int], Writer],
    ) -> None:
        self._number = number
        self._counters = counters
        self._connections = connections
        self._send = send
        self._transport = transport
        self._writer = writer
        self._orders: SimpleQueue[tuple[Fetch | Rehash, Response | None] | None] = SimpleQueue()
        self._order: Fetch | Rehash | None = None
        self._span: SpanFetch | None = None
        self._response: Response | None = None
        self._aborted = -1
        self._part_size = 0
        self._thread = threading.Thread(target=self._run, name=f"fastdl-slot-{number}", daemon=True)
        self._thread.start()

    def give(self, order: Fetch | Rehash, response: Response | None = None) -> None:
        """Queue an order, with the answer to it if that is open already.

        The caller gives the next one only after the report that finished the last.
        """
        self._orders.put((order, response))

    def abort(self, number: int) -> None:
        """Break the connection of order ``number``, now or as soon as it has one; a failed report follows."""
        self._aborted = number
        self._break_if_aborted()

    def stop(self, patience: float) -> bool:
        """End the thread and wait for it at most ``patience`` seconds; tell whether it ended."""
        order = self._order
        if order is not None:
            self.abort(order.number)
        self._orders.put(None)
        self._thread.join(patience)
        return not self._thread.is_alive()

    def watch(self, response: Response | None) -> None:
        """Remember the answer that abort has to break."""
        self._response = response
        if response is not None:
            self._break_if_aborted()

    def progress(self, nbytes: int) -> None:
        """Count bytes where the caller sees them."""
        self._counters.received[self._number] += nbytes
        if isinstance(self._order, Fetch):
            self._counters.partial[self._number] += nbytes

    def settle(self) -> None:
        """Wait until one more window cannot bring what a kill would lose above one part for each connection.

        On average half of that is at stake, so this waits only when the caller is late with its marks.

        Raises:
            NetworkError: the order was aborted.
        """
        limit = self._connections * (self._part_size - WINDOW)
        while self._counters.at_stake(self._part_size) > limit and self._counters.unmarked():
            if self._order is not None and self._order.number == self._aborted:
                raise NetworkError("the order was taken back")
            time.sleep(_GLANCE)

    def report(self, first: int, digests: tuple[Digest, ...]) -> None:
        """Tell the caller of finished parts."""
        if isinstance(self._order, Fetch):
            run = Run(first, first + len(digests))
            self._counters.reported[self._number] += len(digests)
            self._counters.partial[self._number] -= self._order.plan.nbytes(run)
        self._tell(first, digests, finished=False, error=None)

    def _break_if_aborted(self) -> None:
        order, response = self._order, self._response
        if order is None or order.number != self._aborted:
            return
        if response is not None:
            response.abort()
        else:
            break_asking(self._thread.ident)

    def _run(self) -> None:
        while (given := self._orders.get()) is not None:
            self._order, response = given
            error: FastdlError | None = None
            try:
                self._carry_out(self._order, response)
            except FastdlError as failure:
                error = failure if self._order.number != self._aborted else _STALLED
            except MemoryError:
                error = DiskError("no memory left to receive into")
            except Exception as failure:  # noqa: BLE001 - a defect of ours must reach the caller, not vanish here
                error = FastdlError(f"unexpected {type(failure).__name__} in a connection: {failure}")
            self._tell(0, (), finished=True, error=error)
            self._span = None

    def _carry_out(self, order: Fetch | Rehash, response: Response | None) -> None:
        writer = self._writer(order.output)
        self._counters.partial[self._number] = 0
        self._part_size = order.plan.part_size
        if isinstance(order, Rehash):
            rehash(order.plan, order.run, writer, self)
            return
        self._span = SpanFetch(order.plan, order.run, order.request, order.validator, self._transport, writer, self)
        self._span.run(response)

    def _tell(self, first: int, digests: tuple[Digest, ...], *, finished: bool, error: FastdlError | None) -> None:
        assert self._order is not None  # noqa: S101 - reports are made of orders
        requests = retries = 0
        if self._span is not None:
            requests, retries = self._span.requests, self._span.retries
            self._span.requests = self._span.retries = 0
        self._send(Report(self._number, self._order.number, first, digests, finished, error, requests, retries))
