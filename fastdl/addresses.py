"""Which address of a host to connect to: large services have many machines behind one name, each with limits."""

from __future__ import annotations

import itertools
import os
import socket
import threading
import time
from contextlib import suppress

_KEEP = 60.0  # seconds that addresses are believed, and that one which failed is tried last


class Addresses:
    """Hands out the addresses of hosts in turn; safe to share among threads.

    Every process begins elsewhere. Addresses of the family that the system prefers come first, the others only after
    all of them: half of IPv6 is configured and does not work.
    """

    def __init__(self, start: int | None = None) -> None:
        self._start = start
        self._turn = itertools.count()
        self._known: dict[tuple[str, int], tuple[float, list[str], list[str]]] = {}
        self._failed: dict[str, float] = {}
        self._lock = threading.Lock()

    def at_hand(self, host: str, port: int) -> bool:
        """Tell whether the resolver need not be asked: ``host`` is an address, or was asked for just now."""
        found = self._known.get((host, port))
        return (found is not None and time.monotonic() - found[0] <= _KEEP) or _is_address(host.strip("[]"))

    def of(self, host: str, port: int) -> list[str]:
        """Return the addresses in the order to be tried by this connection.

        Raises:
            OSError: the name cannot be resolved.
        """
        now = time.monotonic()
        with self._lock:
            found = self._known.get((host, port))
        if found is None or now - found[0] > _KEEP:
            found = now, *_resolved(host, port)
        with self._lock:
            self._known[host, port] = found
            _, first, others = found
            start = os.getpid() if self._start is None else self._start  # another one after a fork
            turn = (start + next(self._turn)) % len(first)
            order = [*first[turn:], *first[:turn], *others]
            return sorted(order, key=lambda address: now - self._failed.get(address, -_KEEP) < _KEEP)

    def failed(self, address: str) -> None:
        """Note that no connection could be made to ``address``."""
        with self._lock:
            self._failed[address] = time.monotonic()


def _is_address(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError):
            socket.inet_pton(family, host)
            return True
    return False


def _resolved(host: str, port: int) -> tuple[list[str], list[str]]:
    """Return the addresses of the preferred family, and those of others."""
    found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    family = found[0][0]
    first: list[str] = []
    others: list[str] = []
    for kind, _, _, _, place in found:
        (first if kind == family else others).append(str(place[0]))
    return list(dict.fromkeys(first)), list(dict.fromkeys(others))
