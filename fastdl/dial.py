"""Connecting to whichever of a host's addresses answers, within one timeout, and so that it can be given up meanwhile.

``socket.create_connection`` gives each address the whole timeout, one after the other, and the resolver has timeouts of
its own; neither can be ended by anybody. Several dead addresses of one host would keep a download for minutes.
"""

from __future__ import annotations

import errno
import os
import queue
import selectors
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Address = str
    Option = tuple[int, int, int | bytes]

_T = TypeVar("_T")
# Seconds that an address is tried alone, before the next is tried beside it. A lost first packet is sent again after
# one second (RFC 6298, 2.1): whoever has not answered by then is not merely far away.
_HEAD_START = 1.0
_NAP = 0.1  # seconds between looks at whether the connection is still wanted


def patiently(find: Callable[[], _T], deadline: float, wanted: Callable[[], bool]) -> _T:
    """Return what ``find`` returns, called by a thread of its own, which is left behind if it takes too long.

    Raises:
        TimeoutError: it was not there by ``deadline``, or not ``wanted`` any more.
        Exception: what ``find`` raised.
    """
    answers: queue.SimpleQueue[tuple[list[_T], Exception | None]] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(([find()], None))
        except Exception as error:  # noqa: BLE001 - raised again by whoever waits
            answers.put(([], error))

    try:
        threading.Thread(target=ask, name="fastdl-resolver", daemon=True).start()
    except RuntimeError:  # as many threads as this system allows
        return find()
    while wanted() and (left := deadline - time.monotonic()) > 0:
        with suppress(queue.Empty):
            found, error = answers.get(timeout=min(_NAP, left))
            if error is None:
                return found[0]
            try:
                raise error
            finally:
                del error  # this frame and the traceback that holds it would keep each other
    raise TimeoutError("timed out")


def dial(
    addresses: Sequence[Address],
    port: int,
    deadline: float,
    *,
    options: Iterable[Option],
    wanted: Callable[[], bool],
    failed: Callable[[Address], None],
) -> socket.socket:
    """Return a connected, non-blocking socket; ``failed`` hears of every address that did not answer in time.

    They are tried in this order, the next one as soon as one refuses or after its head start.

    Raises:
        OSError: none can be connected to; TimeoutError if one is silent until ``deadline``, or none is ``wanted``.
    """
    waiting = deque(addresses)
    error = OSError("the host has no address")
    next_start = 0.0
    with selectors.PollSelector() as attempts:  # needs no descriptor of its own
        try:
            while waiting or attempts.get_map():
                now = time.monotonic()
                if now >= deadline or not wanted():
                    raise TimeoutError("timed out")
                if waiting and (now >= next_start or not attempts.get_map()):
                    address = waiting.popleft()
                    next_start = now + _HEAD_START
                    try:
                        attempts.register(_begun(address, port, options), selectors.EVENT_WRITE, (address, now))
                    except OSError as refusal:
                        error = refusal
                        failed(address)
                        continue
                for key, _ in attempts.select(min(_NAP, deadline - now)):
                    sock, (address, _) = key.fileobj, key.data
                    assert isinstance(sock, socket.socket)  # noqa: S101 - nothing else is registered
                    attempts.unregister(sock)
                    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if not code:
                        return sock
                    sock.close()
                    error = _refusal(code)
                    failed(address)
                    next_start = 0.0
        finally:
            for key in list(attempts.get_map().values()):  # another one was faster, or all were too slow
                assert isinstance(key.fileobj, socket.socket)  # noqa: S101 - see above
                key.fileobj.close()
                address, began = key.data
                if time.monotonic() >= min(deadline, began + _HEAD_START):
                    failed(address)
    try:
        raise error
    finally:
        del error  # as above


def _begun(address: Address, port: int, options: Iterable[Option]) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        for option in options:
            sock.setsockopt(*option)
        sock.setblocking(False)  # noqa: FBT003 - named by socket
        code = sock.connect_ex((address, port))
        if code not in (0, errno.EINPROGRESS):
            raise _refusal(code)
    except BaseException:
        sock.close()
        raise
    return sock


def _refusal(code: int) -> OSError:
    return OSError(code, os.strerror(code))
