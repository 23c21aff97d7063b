"""Servers that say nothing: one that drops connections, one that accepts and listens, a resolver without answers."""

from __future__ import annotations

import select
import socket
import threading
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SYN_SENT = "02"  # as /proc/net/tcp says it
_POLL = 0.02  # seconds between two bytes of a drip


def bound(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """Return a socket with an address of the loopback, at which nobody listens yet."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, port))
    return sock


@contextmanager
def black_hole(host: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """Drop every connection to a port until the end of the block; yields the port.

    The kernel drops packets that would open a connection for which the listener's queue has no room.
    """
    with bound(host, port) as listener, ExitStack() as stack:
        listener.listen(0)
        for _ in range(3):
            filler = stack.enter_context(socket.socket(listener.family))
            filler.setblocking(False)  # noqa: FBT003 - named by socket
            filler.connect_ex(listener.getsockname())
        select.select([listener], [], [])
        yield listener.getsockname()[1]


def knocking(port: int) -> int:
    """Count the sockets whose first packet to a port was not answered yet."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]]
    return sum(row[2].endswith(f":{port:04X}") and row[3] == _SYN_SENT for row in rows)


@contextmanager
def mute(talk: Callable[[socket.socket], None] | None = None) -> Iterator[tuple[int, threading.Event]]:
    """Accept connections, let ``talk`` say something on each, and then nothing more; yields port and "one came"."""
    came, over = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []
    with bound() as listener:

        def serve(conn: socket.socket) -> None:
            with conn, suppress(OSError):
                conn.recv(65536)
                came.set()
                if talk is not None:
                    talk(conn)
                while not over.is_set():
                    if select.select([conn], [], [], _POLL)[0] and not conn.recv(65536):
                        return

        def accept() -> None:
            while not over.is_set():
                if select.select([listener], [], [], _POLL)[0]:
                    conn, _ = listener.accept()
                    threads.append(threading.Thread(target=serve, args=(conn,)))
                    threads[-1].start()

        listener.listen()
        threads.append(threading.Thread(target=accept))
        threads[-1].start()
        try:
            yield listener.getsockname()[1], came
        finally:
            over.set()
            while threads:
                threads.pop().join()


def dripping(head: bytes, drop: bytes = b"x") -> Callable[[socket.socket], None]:
    """Say ``head``, and then ``drop`` again and again until the other side has had enough."""

    def talk(conn: socket.socket) -> None:
        conn.sendall(head)
        while not select.select([conn], [], [], _POLL)[0]:
            conn.sendall(drop)

    return talk


SILENT_RESOLVER = """
import fcntl, pathlib, signal, socket, struct, subprocess, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command decides
with socket.socket() as any_socket:  # up with the loopback of this new network
    request = struct.pack("16sH14s", b"lo", 1, b"")
    fcntl.ioctl(any_socket, 0x8914, request)
resolver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
resolver.bind(("127.0.0.1", 53))
command = subprocess.Popen(sys.argv[2:], preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
resolver.recv(512)
pathlib.Path(sys.argv[1]).touch()
sys.exit(command.wait())
"""
