"""Who of the connections moves, stands still or crawls, told from counts that are looked at a few times a second."""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_SMOOTHING = 0.3  # seconds that rates are averaged over
_GRACE = 1.0  # seconds a connection gets before it is compared with the others
_CRAWL, _CRAWL_AT_END = 8.0, 3.0  # times slower than the usual: what crawls; stricter when it holds up the end
_RENEWALS = 3  # of one order: a slow server is not a slow connection
_ENOUGH = 2  # other connections that have shown what is usual


@dataclass(slots=True)
class Watched:
    """An order under way on ``slot``; times by the caller's clock, ``rate`` in bytes per second."""

    slot: int
    number: int
    given: float
    base: int  # bytes that its slot had received before
    counted: int
    moved: float  # when bytes last came
    rate: float = 0.0
    first_byte: float | None = None  # seconds until the first byte
    settled: float = 0.0  # from when on its rate is comparable: a renewed one begins anew
    renewals: int = 0
    aborted: float | None = None


@dataclass(slots=True)
class Watches:
    """All orders that fetch, by their numbers."""

    orders: dict[int, Watched] = field(default_factory=dict)
    _looked: float | None = None
    _usual: deque[float] = field(default_factory=lambda: deque(maxlen=64))  # rates of connections that ended
    _first_bytes: deque[float] = field(default_factory=lambda: deque(maxlen=32))
    _served: set[int] = field(default_factory=set)  # slots whose newest answer had bytes

    def begin(self, slot: int, number: int, received: int, now: float) -> None:
        """Watch an order from now on; its slot has ``received`` so many bytes before."""
        self.orders[number] = Watched(slot, number, now, received, received, now, settled=now + _GRACE)

    def end(self, number: int) -> None:
        """Watch an order no longer."""
        watched = self.orders.pop(number)
        if watched.first_byte is None:
            self._served.discard(watched.slot)
        if watched.first_byte is not None and watched.counted > watched.base:
            self._usual.append((watched.counted - watched.base) / max(1e-3, watched.moved - watched.given))

    def look(self, now: float, received: Sequence[int]) -> None:
        """Take note of what each slot has ``received`` by now."""
        seconds = now - self._looked if self._looked is not None else 0.0
        self._looked = now
        weight = min(1.0, seconds / _SMOOTHING)
        for watched in self.orders.values():
            count = received[watched.slot] - watched.counted
            if count:
                watched.counted, watched.moved = received[watched.slot], now
                if watched.first_byte is None:
                    watched.first_byte = now - watched.given
                    self._served.add(watched.slot)
                    self._first_bytes.append(watched.first_byte)
            if seconds:
                watched.rate += weight * (count / seconds - watched.rate)

    @property
    def delivering(self) -> int:
        """How many have received anything yet."""
        return sum(watched.first_byte is not None for watched in self.orders.values())

    @property
    def served(self) -> int:
        """How many are served: those that wait for the next answer after one that came count too."""
        return sum(watched.slot in self._served for watched in self.orders.values())

    @property
    def first_byte(self) -> float:
        """Seconds that answers usually take to begin; 0 as long as none has."""
        return statistics.median(self._first_bytes) if self._first_bytes else 0.0

    def usual(self, but: Watched | None = None) -> float:
        """Return the usual rate of a connection, judged without one of them; 0 as long as it is not known."""
        rates = [each.rate for each in self.orders.values() if each is not but and each.first_byte is not None]
        if len(rates) < _ENOUGH:
            rates.extend(self._usual)
        return statistics.median(rates) if len(rates) >= _ENOUGH else 0.0

    def crawling(self, now: float, *, at_end: bool) -> Iterable[Watched]:
        """Yield each order that had its time and is far slower than usual; it counts as renewed."""
        times = _CRAWL_AT_END if at_end else _CRAWL
        for watched in list(self.orders.values()):
            waited = now - watched.given > 4 * self.first_byte or watched.first_byte is not None
            if now < watched.settled or watched.renewals >= _RENEWALS or not waited:
                continue
            if watched.rate * times < self.usual(watched):
                watched.renewals += 1
                watched.settled = now + _GRACE * 2**watched.renewals
                yield watched

    def stalled(self, now: float, seconds: float) -> Iterable[Watched]:
        """Yield each order that stood still for ``seconds`` and was not aborted yet, and every aborted one."""
        for watched in self.orders.values():
            if watched.aborted is None and now - watched.moved > seconds:
                watched.aborted = now
            if watched.aborted is not None:
                yield watched
