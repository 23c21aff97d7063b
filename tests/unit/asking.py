"""One GET by the transport under test."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from fastdl.http import Response, Transport
from fastdl.messages import Line, Request
from tests.servers.scripted import Handler, ranged, script

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = bytes(range(256)) * 1000


@contextmanager
def client(**settings: object) -> Iterator[Transport]:
    """Yield a transport whose connections end with the block."""
    transport = Transport(Line(**{"connect_timeout": 5.0, "read_timeout": 5.0, **settings}), 2)  # type: ignore[arg-type]
    try:
        yield transport
    finally:
        transport.close()


def read(response: Response, limit: int = len(DATA) + 100) -> bytes:
    """Receive a whole body and end the answer."""
    try:
        buffer = memoryview(bytearray(limit))
        filled = 0
        while count := response.readinto(buffer[filled:]):
            filled += count
        return bytes(buffer[:filled])
    finally:
        response.finish()


def fetch(url: str, **settings: object) -> tuple[Response, bytes]:
    """Ask once."""
    with client(**settings) as transport:
        response = transport.open(Request(url))
        return response, read(response)


def spoilt(fault: Handler) -> Handler:
    """Spoil the first answer only."""
    return script({1: fault}, otherwise=ranged(DATA))
