"""A slot: one thread that carries out orders one by one, over one connection at a time, and reports on each.

Workers run many; the caller's process runs a few, which read the first answers while the workers are starting.
"""

from __future__ import annotations

import threading
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING

from fastdl.access import Writer, make_reader
from fastdl.connections import break_asking
from fastdl.errors import DiskError, FastdlError, NetworkError, ServerBusy
from fastdl.fetch import WINDOW, SpanFetch, rehash
from fastdl.messages import Fetch, Rehash, Report, Trimmed

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastdl.counters import Counters
    from fastdl.digest import Digest
    from fastdl.http import Response, Transport

_STALLED = NetworkError("a connection made no progress for the read timeout and was given up")
_GLANCE, _LONGEST_GLANCE = 0.0002, 0.005  # seconds between looks at whether parts were marked: longer and longer
_NAP = 0.1  # seconds between looks at the pace and at orders taken back


class Slot:
    """Orders go in by ``give``, reports come out by ``send``; ``descriptor`` finds an order's output."""

    def __init__(
        self,
        number: int,
        counters: Counters,
        send: Callable[[Report], None],
        transport: Transport,
        descriptor: Callable[[int], int],
    ) -> None:
        self._number = number
        self._counters = counters
        self._send = send
        self._transport = transport
        self._descriptor = descriptor
        self._orders: SimpleQueue[tuple[Fetch | Rehash, Response | None] | None] = SimpleQueue()
        self._order: Fetch | Rehash | None = None
        self._span: SpanFetch | None = None
        self._response: Response | None = None
        self._aborted = self._renewing = -1
        self._beginning = threading.Lock()
        self._trim_ahead = -1, 0
        self._writer: tuple[int, Writer] | None = None
        self._thread: threading.Thread | None = None

    def give(self, order: Fetch | Rehash, response: Response | None = None) -> None:
        """Queue an order, with the answer to it if that is open already.

        The caller gives the next one only after the report that finished the last.
        """
        self._orders.put((order, response))
        if self._thread is None:  # most slots of a pool never get an order
            thread = threading.Thread(target=self._run, name=f"fastdl-slot-{self._number}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # as many as this system allows: no reason to end the others
                self._orders.get()
                busy = ServerBusy(f"no thread for one more connection: {error}", 0, None)
                self._send(Report(self._number, order.number, 0, (), finished=True, error=busy))
            else:
                self._thread = thread

    def trim(self, number: int, stop: int) -> Trimmed | None:
        """Leave the parts from ``stop`` on of order ``number`` to somebody else; tell from which on really.

        None if the order has ended. One that did not begin yet is trimmed when it does.
        """
        with self._beginning:
            order, span = self._order, self._span
            if order is None or order.number < number:
                self._trim_ahead = number, stop
                return Trimmed(self._number, number, stop)
            if order.number > number or span is None:
                return None
            return Trimmed(self._number, number, span.trim(stop))

    def renew(self, number: int) -> None:
        """Break the connection of order ``number`` so that it goes on over another."""
        order, response = self._order, self._response
        if order is not None and order.number == number:
            self._renewing = number
            self._break(response)

    def abort(self, number: int) -> None:
        """Break the connection of order ``number``, now or as soon as it has one; a failed report follows."""
        self._aborted = number
        self._break_if_aborted()

    def stop(self, patience: float) -> bool:
        """End the thread and wait for it at most ``patience`` seconds; tell whether it ended."""
        self._orders.put(None)
        if self._thread is None:
            return True
        deadline = time.monotonic() + patience
        while self._thread.is_alive():
            if self._order is not None:
                self.abort(self._order.number)  # again and again: it may have been between two connections
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._thread.join(min(left, _NAP))
        return True

    def watch(self, response: Response | None) -> None:
        """Remember the answer that abort has to break."""
        self._response = response
        if response is not None:
            self._break_if_aborted()

    def progress(self, nbytes: int) -> None:
        """Count received bytes where the caller sees them."""
        if isinstance(self._order, Fetch):
            self._counters.received[self._number] += nbytes

    def allowed(self, nbytes: int) -> int:
        """Wait until the pace allows more; return how many bytes.

        Raises:
            NetworkError: the order was aborted.
        """
        counters = self._counters
        if not counters.limited:
            return nbytes
        while excess := counters.excess():
            self._pause(min(excess, _NAP))
        return counters.paced(nbytes)

    def settle(self) -> None:
        """Wait until the caller marked what this slot reported.

        Raises:
            NetworkError: the order was aborted.
        """
        counters = self._counters
        glance = _GLANCE
        while counters.reported[self._number] != counters.marked[self._number]:
            self._pause(glance)
            glance = min(_LONGEST_GLANCE, 2 * glance)

    def renewed(self) -> bool:
        """Tell, once, whether the connection was broken to be replaced by another."""
        order = self._order
        if order is None or self._renewing != order.number or self._aborted == order.number:
            return False
        self._renewing = -1
        return True

    def report(self, first: int, digests: tuple[Digest, ...]) -> None:
        """Tell the caller of finished parts."""
        if isinstance(self._order, Fetch):
            self._counters.reported[self._number] += len(digests)
        self._tell(first, digests, finished=False, error=None)

    def _pause(self, seconds: float) -> None:
        if self._order is not None and self._order.number == self._aborted:
            raise NetworkError("the order was taken back")
        time.sleep(seconds)

    def _break_if_aborted(self) -> None:
        order = self._order
        if order is not None and order.number == self._aborted:
            self._break(self._response)

    def _break(self, response: Response | None) -> None:
        if response is not None:
            response.abort()
        else:
            break_asking(None if self._thread is None else self._thread.ident)

    def _run(self) -> None:
        while (given := self._orders.get()) is not None:
            order, response = given
            error: FastdlError | None = None
            try:
                with self._beginning:
                    self._begin(order)
                self._carry_out(order, response)
            except FastdlError as failure:
                error = failure if order.number != self._aborted else _STALLED
            except MemoryError:
                error = DiskError("no memory left to receive into")
            except Exception as failure:  # noqa: BLE001 - a defect of ours must reach the caller, not vanish here
                error = FastdlError(f"unexpected {type(failure).__name__} in a connection: {failure}")
            self._tell(0, (), finished=True, error=error)
            self._span = None

    def _begin(self, order: Fetch | Rehash) -> None:
        self._order = order
        if isinstance(order, Fetch):
            fd = self._descriptor(order.output)
            if self._writer is None or self._writer[0] != fd:
                self._writer = fd, Writer(fd, WINDOW)
            self._span = SpanFetch(order, self._transport, self._writer[1], self)
            if self._trim_ahead[0] == order.number:
                self._span.trim(self._trim_ahead[1])

    def _carry_out(self, order: Fetch | Rehash, response: Response | None) -> None:
        if isinstance(order, Rehash):
            reader = make_reader(self._descriptor(order.output), order.plan.size, WINDOW)
            rehash(order.plan, order.run, reader, self)
        else:
            assert self._span is not None  # noqa: S101 - _begin made it
            self._span.run(response)

    def _tell(self, first: int, digests: tuple[Digest, ...], *, finished: bool, error: FastdlError | None) -> None:
        assert self._order is not None  # noqa: S101 - reports are made of orders
        requests = retries = 0
        if self._span is not None:
            requests, retries = self._span.requests, self._span.retries
            self._span.requests = self._span.retries = 0
        self._send(Report(self._number, self._order.number, first, digests, finished, error, requests, retries))
