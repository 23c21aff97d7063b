"""What the counts call for while a download runs.

More connections or fewer, another one for one that crawls, an end for one that stands still, and a share of the last
long runs for those that have nothing left to do.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fastdl.counters import BURST
from fastdl.machine import Machine
from fastdl.messages import Abort, Renew, Trim
from fastdl.watch import Watches

if TYPE_CHECKING:
    from fastdl.crew import Crew
    from fastdl.limit import Limit
    from fastdl.messages import Line
    from fastdl.plan import Run
    from fastdl.result import Fetched
    from fastdl.schedule import Schedule

TICK = 0.1  # seconds between looks at counters, clocks and the file
QUICK_TICK = 0.01  # the same of counters alone, while the number of connections is being found
ABORT_PATIENCE = 5.0  # seconds a stalled connection gets to report after it was broken, before its worker is killed
_WORTH = 4  # times the first byte's wait that a request should bring bytes for
_WORTH_SHARING = 0.1  # seconds, and two such waits, that a run must still take for its tail to go to somebody else
log = logging.getLogger("fastdl")


class Steering:
    """Steers a ``crew`` that carries out what ``schedule`` leases; ``limit_rate`` in bytes per second."""

    def __init__(self, crew: Crew, schedule: Schedule, limit: Limit, line: Line, limit_rate: int | None) -> None:
        self._crew = crew
        self._schedule = schedule
        self._limit = limit
        self._stall = line.read_timeout
        self._abort_patience = ABORT_PATIENCE + line.connect_timeout  # a TLS handshake cannot be broken
        self._limit_rate = limit_rate
        self._watches = Watches()
        self._machine = Machine()
        self._next_share = self._next_drop = 0.0
        self.most_delivering = 0
        self._pace(burst=0.0)

    @property
    def patience(self) -> float:
        """Seconds until the next look is due at the latest."""
        return QUICK_TICK if self._limit.trying else TICK

    @property
    def worth(self) -> int:
        """How many bytes are worth a request, so that waiting for first bytes stays small against receiving."""
        return int(_WORTH * self._watches.first_byte * self._watches.usual())

    @property
    def connections(self) -> int:
        """How many fetch now."""
        return len(self._watches.orders)

    @property
    def stalled(self) -> frozenset[int]:
        """The numbers of orders that were aborted because they stood still."""
        return frozenset(number for number, watched in self._watches.orders.items() if watched.aborted is not None)

    def begin(self, slot: int, number: int, now: float) -> None:
        """Watch an order from now on."""
        self._watches.begin(slot, number, self._crew.counters.received[slot], now)

    def refused(self, now: float) -> None:
        """Let go of idle connections: a server that counts connections, and not requests, counts them too."""
        if now >= self._next_drop:
            self._next_drop = now + TICK
            self._crew.drop_idle()

    def end(self, number: int) -> None:
        """Watch an order no longer."""
        self._watches.end(number)

    def forward(self, wanted: Run) -> None:
        """Bring the parts of ``wanted`` forward; connections that are far from them leave them to others."""
        for number, stop in self._schedule.forward(wanted):
            self._schedule.leases.ask_trim(number)
            self._crew.tell(Trim(self._watches.orders[number].slot, number, stop))

    def look(self, now: float) -> None:
        """Look at the counts, judge the number of connections, and end those that are too many."""
        self._machine.look(now)
        self._watches.look(now, self._crew.counters.received)
        delivering = self._watches.delivering
        self.most_delivering = max(self.most_delivering, delivering)
        served, fetching = self._watches.served, self._schedule.leases.fetching
        self._limit.observe(now, self._crew.received, delivering, served, fetching, short=self._machine.busy)
        for level in self._limit.news(now):
            log.debug(
                "after %.2f s at %.0f MB/s: %d connections",
                level.seconds,
                level.bytes_per_second / 1e6,
                level.connections,
            )
        self._shed()

    def tick(self, now: float) -> None:
        """Break what stands still, replace what crawls; due every TICK seconds.

        Raises:
            NetworkError: a connection of the caller's own cannot be ended.
        """
        self._pace(burst=BURST)
        for watched in self._watches.stalled(now, self._stall):
            if watched.aborted is not None and now - watched.aborted > self._abort_patience:
                self._crew.kill(watched.slot)
            else:  # again and again: it may have been between two connections
                self._crew.tell(Abort(watched.slot, watched.number))
        if self._limit_rate is not None:  # connections that wait for their turn are not slow
            return
        for watched in self._watches.crawling(now, at_end=self._schedule.at_end):
            log.debug("order %d crawls at %.0f B/s: it goes on over another connection", watched.number, watched.rate)
            self._crew.tell(Renew(watched.slot, watched.number))

    def share(self, now: float) -> None:
        """When nothing is missing any more, let idle connections take over what others would take long for."""
        if not self._schedule.at_end or now < self._next_share or self._limit_rate is not None:
            return
        takers = min(self._crew.idle, self._schedule.room(now)) - self._schedule.leases.trimming
        if takers <= 0:
            return
        rates = {
            number: watched.rate
            for number, watched in self._watches.orders.items()
            if now - watched.given > _WORTH_SHARING
        }
        for _ in range(takers):
            longest = self._schedule.leases.longest(rates)
            if longest is None or longest[2] < _WORTH_SHARING + 2 * self._watches.first_byte:
                self._next_share = now + QUICK_TICK
                return
            number, stop, _ = longest
            self._schedule.leases.ask_trim(number)
            self._crew.tell(Trim(self._watches.orders[number].slot, number, stop))

    def conclude(self, fetched: Fetched) -> None:
        """Sum up in ``fetched`` what was found of the line; a repair's findings are not what people look for."""
        if fetched.levels:
            return
        fetched.connections = self.most_delivering
        fetched.levels = tuple(self._limit.levels)
        fetched.bottleneck = self.bottleneck()
        log.debug("bottleneck: %s", fetched.bottleneck or "unknown, it was over too soon")

    def bottleneck(self) -> str:
        """Say what kept this download from being faster, as far as it can be told."""
        if self._limit_rate is not None:
            return "limit rate"
        if self._limit.refused_beyond:
            return "server"
        short = self._machine.short_of
        if short and (short != "processors" or self._machine.ours):
            return short
        if not self._limit.rising:
            return "line"
        return "connections" if self._limit.allowed == self._limit.most else ""

    def _shed(self) -> None:
        """Let connections that are too many end after the part they are at."""
        orders = self._watches.orders
        for number, stop in self._schedule.superfluous(lambda number: self._crew.rank(orders[number].slot)):
            self._schedule.leases.ask_trim(number)
            self._crew.tell(Trim(orders[number].slot, number, stop))

    def _pace(self, *, burst: float) -> None:
        if self._limit_rate is not None:
            self._crew.counters.limit(self._limit_rate, burst)
