"""An HTTP proxy that opens tunnels by CONNECT, all to one port of this machine, and may cut the first of them."""

from __future__ import annotations

import select
import socket
import ssl
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_POLL = 0.02  # seconds between two looks at whether it is over


@contextmanager
def tunnelling(to: int, cut: int | None = None, tls: ssl.SSLContext | None = None) -> Iterator[tuple[int, list[bytes]]]:
    """Tunnel to the port ``to``; yields the proxy's port and the targets that were asked for.

    With ``tls`` the proxy itself is spoken to so.
    The first tunnel is reset once ``cut`` bytes have come through it from the server.
    """
    over = threading.Event()
    threads: list[threading.Thread] = []
    targets: list[bytes] = []

    def serve(accepted: socket.socket, number: int) -> None:
        with accepted, suppress(OSError), tls.wrap_socket(accepted, server_side=True) if tls else accepted as client:
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(65536)
            targets.append(head.split(b" ")[1])
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            left = cut if cut is not None and number == 0 else 1 << 62
            with socket.create_connection(("127.0.0.1", to)) as server:
                while not over.is_set() and left > 0:
                    for source in _arrived(client, server):
                        data = source.recv(min(65536, left))
                        if not data:
                            return
                        left -= len(data) if source is server else 0
                        (client if source is server else server).sendall(data)

    def accept() -> None:
        while not over.is_set():
            if select.select([listener], [], [], _POLL)[0]:
                client, _ = listener.accept()
                threads.append(threading.Thread(target=serve, args=(client, len(threads) - 1)))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads.append(threading.Thread(target=accept))
        threads[-1].start()
        try:
            yield listener.getsockname()[1], targets
        finally:
            over.set()
            while threads:
                threads.pop().join()


def _arrived(client: socket.socket, server: socket.socket) -> list[socket.socket]:
    """Return who sent something, or nobody after a while."""
    if isinstance(client, ssl.SSLSocket) and client.pending():  # what the kernel no longer has
        return [client]
    return select.select([client, server], [], [], _POLL)[0]
