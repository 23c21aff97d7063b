"""What is measured: for each scenario a server, an object and the commands that fetch it, one a tool."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.servers.nginx import serving_nginx

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_BLOCK = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Scenario:
    """One object at ``url``, ``size`` bytes; ``commands`` write it to ``output``, equal to ``original``."""

    name: str
    url: str
    size: int
    original: Path
    output: Path
    commands: Mapping[str, list[str]]


@contextmanager
def plain(folder: Path, size: int) -> Iterator[Scenario]:
    """Equivalent to ``curl -o output http://127.0.0.1/object``: nginx with sendfile, plain HTTP over loopback."""
    store = folder / "store"
    store.mkdir()
    original, output = store / "object", folder / "output"
    with original.open("wb") as file:
        for start in range(0, size, _BLOCK):
            file.write(os.urandom(min(_BLOCK, size - start)))
    with serving_nginx(store) as server:
        url = server.url("/object")
        curl = ["curl", "--silent", "--show-error", "--output", str(output), url]
        commands = {
            "fastdl": [sys.executable, "-m", "fastdl", url, "-o", str(output)],
            "curl": curl,
            "curl again": curl,
        }
        yield Scenario("plain", url, size, original, output, commands)


def versions() -> dict[str, str]:
    """Return what each tool says of its version; a missing one is an error.

    Raises:
        RuntimeError: a tool is not installed.
    """
    if shutil.which("curl") is None:
        raise RuntimeError("curl is missing: apt-get install curl")
    curl = subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True)
    fastdl = subprocess.run([sys.executable, "-m", "fastdl", "--version"], capture_output=True, text=True, check=True)
    return {"curl": curl.stdout.splitlines()[0], "fastdl": fastdl.stdout.strip()}
