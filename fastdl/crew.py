"""Everybody who fetches: the workers of the pool, and a few connections of the caller's own until the first is up."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from heapq import heapify, heappop, heappush
from multiprocessing.connection import Pipe
from typing import TYPE_CHECKING, Self

from fastdl import reuse
from fastdl.errors import NetworkError, disk_errors
from fastdl.messages import Abort, Nudge, Renew, Report, Trim, Trimmed
from fastdl.slot import Slot

if TYPE_CHECKING:
    from fastdl.http import Response, Transport
    from fastdl.messages import Line, Order
    from fastdl.pool import Died

OWN = 4  # connections that the caller's process has itself, until the first worker is up
STOP_PATIENCE = 1.0  # seconds they get to end: Ctrl-C must not take two
OUTPUT = 0  # a crew serves one output


class _Duplicate:
    """A descriptor of the output for threads of our own; closed at the latest when nobody refers to it any more.

    A thread that does not end in time goes on with it: closed under its hands it could soon mean another file.
    """

    fd = -1  # until there is one: Ctrl-C may come before

    def __init__(self, fd: int) -> None:
        self.fd = os.dup(fd)

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close it, unless it was."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


class Crew:
    """``workers`` processes with ``connections`` in all for the output behind ``fd``; use it from one thread."""

    def __init__(self, line: Line, workers: int, connections: int, fd: int, transport: Transport) -> None:
        own = max(1, min(OWN, connections - workers))  # a small budget is for the workers
        self._way = line, workers, connections, own
        self._pool = reuse.take_pool(*self._way)
        self._fd = fd
        try:
            with disk_errors("no descriptor for the connections of this process"):
                self._own_output = _Duplicate(fd)
                self._reports, self._reports_in = Pipe(duplex=False)
        except BaseException:
            reuse.give_pool(self._pool, *self._way, unused=True)
            raise
        self._pool.listen(self._reports)
        self._sending = threading.Lock()
        self._transport = transport
        self._own = [
            Slot(number, self._pool.counters, self._send, transport, lambda _: self._own_output.fd)
            for number in range(own)
        ]
        self.counters = self._pool.counters
        self.hash_slots = frozenset(self._pool.hash_slots)
        self._trimmed: list[Trimmed] = []  # of our own
        self._rank = {slot: rank for rank, slot in enumerate(self._pool.fetch_slots)}
        self._up = False  # whether any worker ever came up: from then on the caller's process only steers
        self._idle = [(self.rank(slot), slot) for slot in range(own)]  # a heap
        self._idle_hash: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for slot in self._own:
            slot.stop(0)
        self._pool.unlisten(self._reports)
        self._reports.close()  # whoever is telling something is told that nobody listens
        deadline = time.monotonic() + STOP_PATIENCE
        ended = [slot.stop(max(0.0, deadline - time.monotonic())) for slot in self._own]
        if all(ended):
            self._own_output.close()
        reuse.give_pool(self._pool, *self._way, unused=all(ended))
        with self._sending:
            self._reports_in.close()

    def start(self) -> None:
        """Start the workers; until the first is up the caller's own connections get the orders."""
        self._pool.start()
        self._pool.attach(OUTPUT, self._fd)
        self._idle.extend((self.rank(slot), slot) for slot in self._pool.fetch_slots)
        heapify(self._idle)
        self._idle_hash.extend(self._pool.hash_slots)
        self._look_up()

    @property
    def newest(self) -> int:
        """The highest number that an order of these workers ever had; another one needs another."""
        return self._pool.newest

    @property
    def idle(self) -> int:
        """How many connections have nothing to do."""
        return len(self._idle)

    @property
    def received(self) -> int:
        """Bytes of body that all connections received in this run."""
        return sum(self.counters.received)

    def idle_slot(self, *, rehash: bool = False) -> int | None:
        """Return a slot that is idle, and is no longer; None if none is."""
        if rehash:
            return self._idle_hash.pop() if self._idle_hash else None
        return heappop(self._idle)[1] if self._idle else None

    def release(self, slot: int) -> None:
        """Take note that a slot ended its order."""
        if slot in self.hash_slots:
            self._idle_hash.append(slot)
        elif not self._is_own(slot) or not self._up:
            heappush(self._idle, (self.rank(slot), slot))
        else:
            self._transport.close()  # nobody will use that connection again, and servers may count it

    def rank(self, slot: int) -> int:
        """Return who comes first where few are wanted: one of each worker, then another of each, and so on.

        The caller's own are the first while nobody else is there, and the last to go on when the workers are.
        """
        if self._is_own(slot):
            return slot + (len(self._pool.fetch_slots) if self._up else -len(self._own))
        return self._rank[slot]

    def give(self, order: Order, response: Response | None = None) -> None:
        """Give an order to its slot; only the caller's own can take over an answer that is open already."""
        if self._is_own(order.slot):
            self._own[order.slot].give(order, response)
        else:
            self._pool.give(order)

    def tell(self, message: Trim | Renew | Abort) -> None:
        """Tell a slot something about its order."""
        if not self._is_own(message.slot):
            self._pool.tell(message)
        elif isinstance(message, Trim):
            trimmed = self._own[message.slot].trim(message.number, message.stop)
            self._trimmed.extend([] if trimmed is None else [trimmed])
        elif isinstance(message, Renew):
            self._own[message.slot].renew(message.number)
        else:
            self._own[message.slot].abort(message.number)

    def drop_idle(self) -> None:
        """Close the connections that nobody uses now, in all processes: the server may count them."""
        self._transport.close()
        self._pool.drop_idle()

    def nudge(self) -> None:
        """Let ``wait`` return, from whatever thread."""
        self._send(Nudge())

    def kill(self, slot: int) -> None:
        """Kill the worker that a slot belongs to; wait() then tells what was lost.

        Raises:
            NetworkError: it is the caller's own.
        """
        if self._is_own(slot):
            raise NetworkError("a connection cannot be ended")
        self._pool.kill(slot)

    def wait(self, timeout: float) -> list[Report | Trimmed | Died | Nudge]:
        """Return what happened, at the latest after ``timeout`` seconds."""
        trimmed, self._trimmed = self._trimmed, []
        events: list[Report | Trimmed | Died | Nudge] = [*trimmed, *self._pool.wait(0 if trimmed else timeout)]
        self._look_up()
        return events

    def _look_up(self) -> None:
        if not self._up and self._pool.ready:
            self._up = True
            self._transport.close()
            self._idle = [entry for entry in self._idle if not self._is_own(entry[1])]
            heapify(self._idle)

    def _is_own(self, slot: int) -> bool:
        return slot < len(self._own)

    def _send(self, report: Report | Nudge) -> None:
        with self._sending, suppress(OSError):  # the download ended without this thread
            self._reports_in.send(report)
