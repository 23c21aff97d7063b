"""fsspec's HTTP filesystem: ``cat_ranges``, all at once; see ``bench.ranges`` for arguments and figures."""

from __future__ import annotations

import aiohttp  # noqa: F401 - imported by the first call otherwise
import fsspec
import fsspec.implementations.http

from bench.ranges import measure


def read(url: str, wanted: list[tuple[int, int]]) -> list[bytes]:
    """Read by connections of its own, as a process does that reads one object."""
    filesystem = fsspec.filesystem("http", skip_instance_cache=True)
    starts = [offset for offset, _ in wanted]
    stops = [offset + length for offset, length in wanted]
    found: list[bytes] = filesystem.cat_ranges([url] * len(wanted), starts, stops)
    return found


if __name__ == "__main__":
    measure(read)
