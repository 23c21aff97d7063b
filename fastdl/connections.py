"""urllib3's connections as fastdl needs them: the body readable without a copy, the target exact, the head breakable.

``urllib3.HTTPResponse.readinto`` reads into a new bytes object and copies (urllib3 issue 1540); its connection class,
however, lets the ``http.client`` response be kept, and CPython receives that one's body into any writable buffer: a
third of the CPU time per byte.
"""

from __future__ import annotations

import http.client
import math
import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError, ProxyError

from fastdl.addresses import Addresses
from fastdl.cancellation import current
from fastdl.dial import dial, patiently
from fastdl.errors import DiskError
from fastdl.framing import StrictResponse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LEAST = 0.001  # seconds
_NAP = 0.1  # seconds between two attempts to end what is over
# The connection on which each thread is waiting for the head of an answer: another thread may have to break it.
_asking: dict[int, _Asked] = {}
_addresses = Addresses()
_broken: set[int] = set()  # threads whose wait was ended by another one
# The request target of each thread, which urllib3 would normalise, though a signature may cover it.
_target = threading.local()
# The moment at which whatever each thread waits for must end, on the monotonic clock.
_until = threading.local()


class _Asked:
    """Mix-in for urllib3's connections; ``body`` is the answer that came last."""

    body: StrictResponse
    sock: socket.socket | None

    def response_class(self, *args: Any, **kwargs: Any) -> StrictResponse:
        self.body = StrictResponse(*args, **kwargs)
        return self.body

    def connect(self) -> None:
        _asking[threading.get_ident()] = self
        super().connect()  # type: ignore[misc]
        if was_broken():  # during the TLS handshake, which has the connect timeout as its deadline and cannot be woken
            raise ConnectTimeoutError(self, "timed out")
        sock: Any = self.sock
        if hasattr(sock, "suppress_ragged_eofs"):  # TLS, or urllib3's TLS within the TLS of a proxy
            # An end without close_notify may be anybody's doing: where nothing else tells the end of a body, this must.
            sock.suppress_ragged_eofs = False

    def _new_conn(self) -> socket.socket:
        """Connect to one of the host's addresses, or of its proxy's; names and certificates stay what they are."""
        conn: Any = self  # one of urllib3's: mypy sees the mix-in alone
        deadline = time.monotonic() + min(conn.timeout, _time_left())

        def wanted() -> bool:
            return not was_broken()

        try:
            # Not conn.host: that one is without the dot at its end, which keeps the resolver from trying other names.
            host, port = conn._dns_host, conn.port  # noqa: SLF001
            at_hand = _addresses.at_hand(host, port)  # a thread for the resolver costs a millisecond
            addresses = (
                _addresses.of(host, port) if at_hand else patiently(lambda: _addresses.of(host, port), deadline, wanted)
            )
            sock = dial(addresses, port, deadline, options=conn.socket_options, wanted=wanted, failed=_addresses.failed)
        except (socket.gaierror, UnicodeError) as error:
            raise NameResolutionError(conn.host, conn, error) from error  # type: ignore[arg-type]
        except TimeoutError as error:
            raise ConnectTimeoutError(conn, "timed out") from error
        except OSError as error:
            raise NewConnectionError(conn, str(error)) from error
        sock.settimeout(min(conn.timeout, _time_left()))
        return sock

    def _tunnel(self) -> None:
        try:
            super()._tunnel()  # type: ignore[misc]
        except (http.client.HTTPException, ConnectionError) as error:  # the proxy's doing, not the server's
            raise ProxyError("no tunnel", error) from error
        if self.sock is not None:  # a handshake follows, which cannot be woken
            self.sock.settimeout(min(self.timeout, _time_left()))  # type: ignore[attr-defined]

    def putrequest(self, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        _asking[threading.get_ident()] = self
        super().putrequest(method, getattr(_target, "value", url), *args, **kwargs)  # type: ignore[misc]


class _Plain(_Asked, HTTPConnection):  # type: ignore[misc]
    pass


class _Secure(_Asked, HTTPSConnection):  # type: ignore[misc]
    pass


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Secure

    def _validate_conn(self, conn: Any) -> None:
        """Connect, and warn of no certificate that the user told not to verify: a warning may be made an error."""
        if conn.is_closed:
            conn.connect()


POOLS = {"http": _PlainPool, "https": _SecurePool}


@contextmanager
def asking(target: str | None = None, connection: Any = None) -> Iterator[None]:
    """Note that this thread waits for a server, so that ``break_asking`` works.

    ``target`` is sent exactly as it is, whatever urllib3 makes of it. ``connection`` is the one waited on, if known.
    """
    ident = threading.get_ident()
    _broken.discard(ident)
    if target is not None:
        _target.value = target
    if connection is not None:
        _asking[ident] = connection
    try:
        yield
    finally:
        _asking.pop(ident, None)
        if target is not None:
            del _target.value


def break_asking(ident: int | None) -> None:
    """Break the connection on which the thread ``ident`` waits, if it does; its wait ends with an error."""
    connection = _asking.get(ident or 0)
    if connection is not None:
        _broken.add(ident or 0)  # one that connects looks at this
        sock = connection.sock
        if sock is not None:
            break_socket(sock)


def bare_socket(sock: Any) -> socket.socket:
    """Return the socket beneath what urllib3 wraps around the TLS of a proxy."""
    while not isinstance(sock, socket.socket):
        sock = sock.socket
    return sock


def break_socket(sock: Any) -> None:
    """Wake whoever waits on ``sock``, from any thread: what he waits for has ended."""
    with suppress(OSError):
        socket.socket.shutdown(bare_socket(sock), socket.SHUT_RDWR)  # not the TLS layer's: it is the other thread's


def is_connecting(ident: int | None) -> bool:
    """Tell whether the thread ``ident`` has no connection yet on which it waits: connecting has its own timeout."""
    connection = _asking.get(ident or 0)
    return connection is None or connection.sock is None


def was_broken() -> bool:
    """Tell whether another thread ended what this thread asks inside ``asking``: it must not ask again by itself."""
    return threading.get_ident() in _broken


@contextmanager
def until(due: float | None) -> Iterator[None]:
    """End whatever this thread waits for inside the block at ``due``, a moment of the monotonic clock; None for never.

    It ends as any other timeout does; attempts that follow end at once.
    """
    before = getattr(_until, "due", math.inf)
    _until.due = before if due is None else min(due, before)
    try:
        yield
    finally:
        _until.due = before


def _time_left() -> float:
    """Return the seconds left to this thread: never none, which a socket would take for not waiting at all."""
    return max(_LEAST, getattr(_until, "due", math.inf) - time.monotonic())


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Break what this thread asks inside the block once a head takes ``seconds`` to come, even if bytes drip in."""
    ident = threading.get_ident()

    def waited_on() -> object:
        connection = _asking.get(ident)
        connected = connection is not None and connection.sock is not None
        return connection if connected else object()  # never the same: connecting has a timeout of its own

    with stall_watch(waited_on, seconds, lambda: break_asking(ident)):
        yield


@contextmanager
def stall_watch(state: Callable[[], object], seconds: float, give_up: Callable[[], None]) -> Iterator[None]:
    """Call ``give_up``, from another thread and again and again, while ``state`` stays equal for ``seconds``.

    Or once the call is taken back that this thread is in, or its time is up (``until``).

    Raises:
        DiskError: this system allows no more threads.
    """
    over, cancellation = threading.Event(), current()
    due = getattr(_until, "due", math.inf)

    def watch() -> None:
        seen, since = state(), time.monotonic()
        while not over.wait(min(0.5, seconds / 4, max(_NAP, due - time.monotonic()))):
            now = state()
            if cancellation.wanted or time.monotonic() >= due:
                give_up()
            elif now != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > seconds:
                give_up()

    thread = threading.Thread(target=watch, name="fastdl-watch", daemon=True)
    try:
        try:
            thread.start()  # a signal may end it when the thread runs already
        except RuntimeError as error:
            raise DiskError(f"no thread to watch the line in: {error}") from None
        yield
    finally:
        over.set()
        if thread.is_alive():
            thread.join()
