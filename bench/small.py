"""Many small objects in a row in one process: ``python -m bench.small fastdl|urllib3 ENDPOINT FOLDER COUNT``.

Prints one JSON object: ``each``, the mean of milliseconds an object, imports and the first object left out.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

import urllib3

import fastdl

_POOL = urllib3.PoolManager()


def main() -> None:
    """Fetch them all and print."""
    by, endpoint, folder, count = sys.argv[1:]
    fetch = {"fastdl": _fastdl, "urllib3": _urllib3}[by]
    fetch(f"{endpoint}0", Path(folder, "0"))
    began = time.perf_counter()
    for number in range(1, int(count)):
        fetch(f"{endpoint}{number}", Path(folder, str(number)))
    print(json.dumps({"each": (time.perf_counter() - began) / (int(count) - 1) * 1000}))


def _fastdl(url: str, path: Path) -> None:
    fastdl.download(url, path)


def _urllib3(url: str, path: Path) -> None:
    with _POOL.request("GET", url, preload_content=False) as response, path.open("wb") as file:
        shutil.copyfileobj(response, file)


if __name__ == "__main__":
    main()
