"""Scenarios that read parts of an object in the caller's process, against fsspec: many ranges at once."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from bench.measure import workspace
from bench.ranges import ranges
from bench.scenarios import Contender, Scenario
from bench.servers import capped_line
from tests.servers.nginx import serving_nginx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FASTDL = ("{python}", "-m", "bench.ranges", "{url}", "{kind}", "{size}", "{out}")
_FSSPEC = ("{tools}/python", "-m", "bench.clients.fsspec", "{url}", "{kind}", "{size}", "{out}")
_VERSION = "from importlib.metadata import version; print('fsspec', version('fsspec'), 'aiohttp', version('aiohttp'))"


@contextmanager
def ranges_random(folder: Path | None, size: int) -> Iterator[Scenario]:
    """Yield a thousand ranges of 4 KiB anywhere, over loopback and over the capped line."""
    with _many(folder, size, "random") as scenario:
        yield scenario


@contextmanager
def ranges_near(folder: Path | None, size: int) -> Iterator[Scenario]:
    """Yield a thousand ranges of 4 KiB with 1 KiB between, over the same lines."""
    with _many(folder, size, "near") as scenario:
        yield scenario


@contextmanager
def _many(folder: Path | None, size: int, kind: str) -> Iterator[Scenario]:
    with ExitStack() as stack:
        original, output = stack.enter_context(workspace(folder, size))
        servers = {
            "loopback": stack.enter_context(serving_nginx(original.parents[1])),
            "line": stack.enter_context(capped_line(original.parents[1])),
        }
        contenders = []
        for name, server in servers.items():
            values = {"url": server.url("/bench/object")}
            contenders += [
                Contender(f"fastdl, {name}", _FASTDL, 0, values=values),
                Contender(f"fastdl again, {name}", _FASTDL, 0, values=values),
                Contender(f"fsspec, {name}", _FSSPEC, 0, values=values, version=("{tools}/python", "-c", _VERSION)),
            ]

        def verify(_: Contender) -> bool:
            with original.open("rb") as file:
                expected = [os.pread(file.fileno(), length, offset) for offset, length in ranges(kind, size)]
            return output.read_bytes() == b"".join(expected)

        values = {"kind": kind, "size": str(size), "out": str(output)}
        yield Scenario(tuple(contenders), values, lambda _: output.unlink(missing_ok=True), verify)
