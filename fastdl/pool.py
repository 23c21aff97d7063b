"""The process pool: start workers, feed them orders, watch them, replace the dead, stop them all. Knows no HTTP."""

from __future__ import annotations

import selectors
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Self

from fastdl import prefork
from fastdl.counters import Counters, nbytes
from fastdl.errors import FastdlError, disk_errors
from fastdl.member import START_ATTEMPTS, Member
from fastdl.messages import (
    Abort,
    Attach,
    Detach,
    Drop,
    Line,
    Nudge,
    Order,
    Ready,
    Renew,
    Report,
    Trim,
    Trimmed,
    Welcome,
)
from fastdl.pipe import anonymous_file


@dataclass(frozen=True, slots=True)
class Died:
    """A worker ended uncalled: its orders are lost. ``code`` as in ``Popen.returncode``, ``last_words`` its stderr."""

    orders: tuple[Order, ...]
    code: int
    last_words: str

    @property
    def by_bus_error(self) -> bool:
        """Whether it touched a page of the mapping that has no block behind it: disk full or file truncated."""
        return self.code == -signal.SIGBUS


class Pool:
    """``workers`` processes that share ``connections`` connections; each has one more slot for hashing.

    The first ``own`` slots are not the workers': the caller's own process counts what it receives there. Serves orders
    for any number of attached outputs. Use it from one thread.
    """

    def __init__(self, line: Line, workers: int, connections: int, own: int = 0) -> None:
        workers = min(workers, connections)
        self._outputs: list[tuple[Attach, int]] = []
        self._members: list[Member] = []
        self._member_of: dict[int, int] = {}
        self._failed_starts = 0
        self._closed = False
        self.newest = 0  # number of an order
        self.fetch_slots: list[int] = []
        self.hash_slots: list[int] = []
        self._welcomes: list[Welcome] = []
        slot = own
        for index in range(workers):
            slots = connections // workers + (index < connections % workers) + 1
            self._welcomes.append(Welcome(line, slot, slots, own + connections + workers))
            self._member_of.update(dict.fromkeys(range(slot, slot + slots), index))
            self.fetch_slots.extend(range(slot, slot + slots - 1))
            self.hash_slots.append(slot + slots - 1)
            slot += slots
        # Neighbouring slots alternate between the workers, so that the first orders keep all processes busy.
        self.fetch_slots.sort(key=lambda slot: (slot - self._welcomes[self._member_of[slot]].first_slot, slot))
        with disk_errors("no memory to share with workers"):
            self._shared = anonymous_file()
            self._shared.truncate(nbytes(slot))
            self.counters = Counters(self._shared.fileno(), slot)
            self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start all workers and return at once; they take 100 ms until their first request, unless forked before.

        Those of a pool that rested are there already.
        """
        if not self._members:
            for welcome in self._welcomes:
                self._members.append(self._begin(welcome))

    @property
    def ready(self) -> bool:
        """Whether any worker is up, or needs no time for it."""
        return any(member.ready or isinstance(member.process, prefork.Forked) for member in self._members)

    def attach(self, output: int, fd: int) -> None:
        """Make an open file known to every worker, also to those that will replace the dead."""
        self._outputs.append((Attach(output), fd))
        for member in self._members:
            with suppress(OSError):
                member.pipe.send(*self._outputs[-1])

    def give(self, order: Order) -> None:
        """Give an order to its slot, which must be idle."""
        self.newest = max(self.newest, order.number)
        member = self._members[self._member_of[order.slot]]
        member.orders[order.slot] = order
        with suppress(OSError):  # a dead worker shows in wait(), with this order among the lost
            member.pipe.send(order)

    def tell(self, message: Trim | Renew | Abort) -> None:
        """Tell a slot something about its order, unless its worker does not listen: that one must be killed."""
        pipe = self._members[self._member_of[message.slot]].pipe
        if pipe.writable:
            with suppress(OSError):
                pipe.send(message)

    def drop_idle(self) -> None:
        """Let every worker that listens close its idle connections."""
        for member in self._members:
            if member.pipe.writable:
                with suppress(OSError):
                    member.pipe.send(Drop())

    def kill(self, slot: int) -> None:
        """Kill the worker that a slot belongs to; wait() then tells what was lost."""
        self._members[self._member_of[slot]].process.kill()

    def listen(self, other: Connection) -> None:
        """Let wait() also tell of the reports that come through a pipe that is not a worker's."""
        self._selector.register(other, selectors.EVENT_READ)

    def unlisten(self, other: Connection) -> None:
        """Let wait() tell of them no longer; before the pipe is closed."""
        self._selector.unregister(other)

    def wait(self, timeout: float) -> list[Report | Trimmed | Died | Nudge]:
        """Return what happened, at the latest after ``timeout`` seconds.

        Raises:
            FastdlError: workers cannot be started.
        """
        events: list[Report | Trimmed | Died | Nudge] = []
        for key, _ in self._selector.select(timeout):
            member: Member | None = key.data
            assert isinstance(key.fileobj, Connection)  # noqa: S101 - nothing else is registered
            try:
                message = key.fileobj.recv()
            except (EOFError, OSError):
                if member is not None:
                    events.append(self._replace(member))
                continue
            if member is not None and isinstance(message, Ready):
                self._check(member, message)
                continue
            if member is not None and isinstance(message, Report) and message.finished:
                member.orders.pop(message.slot, None)
            events.append(message)
        return events

    def rest(self) -> bool:
        """Make ready for other outputs; False if some order has not ended, so that the pool is of no more use."""
        if self._closed or any(member.orders for member in self._members):
            return False
        for attach, _ in self._outputs:
            for member in self._members:
                with suppress(OSError):
                    member.pipe.send(Detach(attach.output))
        self._outputs.clear()
        self.counters.reset()
        return True

    def disown(self) -> None:
        """Let go of workers that are the parent's, in a fork of it."""
        self._closed = True
        for member in self._members:
            member.disown()

    def close(self) -> None:
        """Stop every worker, within a second, and free what they shared."""
        if self._closed:
            return
        self._closed = True
        for member in self._members:
            # All bytes are in the file already: nothing a worker could still do is worth waiting for.
            member.process.kill()
        for member in self._members:
            member.close()
        self._selector.close()
        self.counters.close()
        self._shared.close()

    def _begin(self, welcome: Welcome) -> Member:
        member = Member(welcome, self._shared.fileno())
        self._selector.register(member.pipe.connection, selectors.EVENT_READ, member)
        return member

    def _check(self, member: Member, ready: Ready) -> None:
        ours = Path(__file__).parent
        if Path(ready.package).parent != ours:
            raise FastdlError(f"workers run another fastdl: {Path(ready.package).parent} instead of {ours}")
        member.ready = True
        self._failed_starts = 0

    def _replace(self, member: Member) -> Died:
        member.process.kill()  # its pipe is broken, whatever it still does
        code = member.process.wait()
        died = Died(tuple(member.orders.values()), code, member.last_words())
        if not member.ready and not isinstance(member.process, prefork.Forked):
            self._failed_starts += 1
            if self._failed_starts >= START_ATTEMPTS:
                raise FastdlError(f"workers cannot start: {sys.executable}: {died.last_words or code}")
        self.counters.forget(range(member.welcome.first_slot, member.welcome.first_slot + member.welcome.slots))
        index = self._members.index(member)
        self._selector.unregister(member.pipe.connection)
        member.close()
        new = self._members[index] = self._begin(member.welcome)
        for attach, fd in self._outputs:
            with suppress(OSError):
                new.pipe.send(attach, fd)
        return died
