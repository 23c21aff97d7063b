"""A process of the pool: several connections, one thread each.

Started as a program and not by ``multiprocessing``, which would import the caller's ``__main__`` again and refuses to
start anything in a daemonic process. It ends when its pipe does, or when its parent is another one than at the start:
a fork of the caller may hold the pipe open.
"""

from __future__ import annotations

import gc
import os
import signal
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from fastdl.counters import Counters
from fastdl.http import Transport
from fastdl.messages import Abort, Attach, Detach, Drop, Ready, Renew, Trim
from fastdl.pipe import Pipe
from fastdl.slot import Slot

if TYPE_CHECKING:
    import socket

    from fastdl.messages import Order, Report, Trimmed, Welcome

PARENT_CHECK = 0.5  # seconds between looks at who our parent is


class Worker:
    """What the slots of one process share: the pipe, the outputs, the connections."""

    def __init__(self, pipe: Pipe, welcome: Welcome, counters: Counters) -> None:
        self._pipe = pipe
        self._outputs: dict[int, int] = {}
        self._transport = Transport(welcome.line, welcome.slots)
        numbers = range(welcome.first_slot, welcome.first_slot + welcome.slots)
        self._slots = {
            number: Slot(number, counters, self._send, self._transport, self._outputs.__getitem__) for number in numbers
        }

    def serve(self) -> None:
        """Obey until the pipe ends."""
        parent = os.getppid()
        while True:
            if not self._pipe.connection.poll(PARENT_CHECK):
                if os.getppid() != parent:
                    return
                continue
            message = self._pipe.recv()
            if isinstance(message, Attach):
                self._outputs[message.output] = self._pipe.recv_descriptor()
            elif isinstance(message, Detach):
                os.close(self._outputs.pop(message.output))
            elif isinstance(message, Drop):
                self._transport.close()
            else:
                self._hand_on(message)

    def _hand_on(self, message: Order | Trim | Renew | Abort) -> None:
        slot = self._slots[message.slot]
        if isinstance(message, Trim):
            trimmed = slot.trim(message.number, message.stop)
            if trimmed is not None:
                self._send(trimmed)
        elif isinstance(message, Renew):
            slot.renew(message.number)
        elif isinstance(message, Abort):
            slot.abort(message.number)
        else:
            slot.give(message)

    def _send(self, report: Report | Trimmed) -> None:
        try:
            self._pipe.send(report)
        except OSError:
            os._exit(0)  # nobody listens any more


def main(end: socket.socket) -> NoReturn:
    """Serve the pipe of which ``end`` is ours until it ends, then end the process."""
    # The terminal's Ctrl-C reaches the whole process group; what it means is the caller's to decide.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    gc.enable()  # a command that forked us ahead did so before it enabled it itself
    warnings.simplefilter("ignore")  # nobody reads them here, and the caller's -W error would end a worker
    pipe = Pipe(end)
    with suppress(EOFError, OSError):
        welcome = pipe.recv()
        shared = pipe.recv_descriptor()
        counters = Counters(shared, welcome.all_slots)
        os.close(shared)
        worker = Worker(pipe, welcome, counters)
        pipe.send(Ready(__file__))
        worker.serve()
    # Threads may be blocked in recv for the read timeout; everything they finished is in the file already.
    os._exit(0)
