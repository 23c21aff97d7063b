"""Workers and connections that outlive a call, so that the next one need not start them again."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from fastdl.http import Transport
from fastdl.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastdl.messages import Line

_Way = tuple["Line", int, int, int]  # to servers, workers, connections, and slots of the caller's own


class Reuse:
    """Keeps what calls of one process give back, each for one call at a time; a fork begins with nothing."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._over = False
        self._pools: dict[_Way, list[Pool]] = {}
        self._transports: dict[tuple[Line, int], list[Transport]] = {}

    def pool(self, way: _Way) -> Pool:
        """Return a pool of this kind that rests, or a new one."""
        with self._mine():
            resting = self._pools.get(way)
            return resting.pop() if resting else Pool(*way)

    def keep_pool(self, way: _Way, pool: Pool) -> bool:
        """Take a pool that rests; False if nothing is kept any more."""
        with self._mine():
            if not self._over:
                self._pools.setdefault(way, []).append(pool)
            return not self._over

    def transport(self, line: Line, connections: int) -> Transport:
        """Return connections of this kind, perhaps to the very server that is asked next."""
        with self._mine():
            idle = self._transports.get((line, connections))
            return idle.pop() if idle else Transport(line, connections)

    def keep_transport(self, transport: Transport, connections: int) -> bool:
        """Take connections of which none is in use; False if nothing is kept any more."""
        with self._mine():
            if not self._over:
                self._transports.setdefault((transport.line, connections), []).append(transport)
            return not self._over

    def close(self) -> None:
        """Stop and close all that is kept, and keep nothing from now on."""
        with self._mine():
            self._over = True
            pools, self._pools = self._pools, {}
            transports, self._transports = self._transports, {}
        for pool in (each for resting in pools.values() for each in resting):
            pool.close()
        for transport in (each for idle in transports.values() for each in idle):
            transport.close()

    @contextmanager
    def _mine(self) -> Iterator[None]:
        if os.getpid() != self._owner:  # a fork: the workers are its parent's, and the lock may be held by nobody
            for pool in (each for resting in self._pools.values() for each in resting):
                pool.disown()
            self.__init__()  # type: ignore[misc]
        with self._lock:
            yield


_around: ContextVar[Reuse | None] = ContextVar("fastdl_reuse", default=None)


@contextmanager
def reusing(reuse: Reuse) -> Iterator[None]:
    """Let calls made inside take from ``reuse`` what they need, and give it back."""
    token = _around.set(reuse)
    try:
        yield
    finally:
        _around.reset(token)


def take_pool(line: Line, workers: int, connections: int, own: int) -> Pool:
    """Return a pool for one download: one that rests, or a new one."""
    reuse, way = _around.get(), (line, workers, connections, own)
    return Pool(*way) if reuse is None else reuse.pool(way)


def give_pool(pool: Pool, line: Line, workers: int, connections: int, own: int, *, unused: bool) -> None:
    """Give a pool back; it is closed unless somebody keeps it and all of it is ``unused``."""
    reuse = _around.get()
    if reuse is None or not unused or not pool.rest() or not reuse.keep_pool((line, workers, connections, own), pool):
        pool.close()


def take_transport(line: Line, connections: int) -> Transport:
    """Return connections for one call: some that are kept, or none yet."""
    reuse = _around.get()
    return Transport(line, connections) if reuse is None else reuse.transport(line, connections)


def give_transport(transport: Transport, connections: int) -> None:
    """Give them back; they are closed unless somebody keeps them."""
    reuse = _around.get()
    if reuse is None or not reuse.keep_transport(transport, connections):
        transport.close()
