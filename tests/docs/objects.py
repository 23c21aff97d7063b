"""The objects that the examples of the documentation fetch."""

from __future__ import annotations

import hashlib
import io
import json
import random
import subprocess
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from tests.integrations.shards import write_shards

if TYPE_CHECKING:
    from pathlib import Path

_CHUNKS = """
import sys
from litdata.streaming.cache import Cache

cache = Cache(sys.argv[1], chunk_size=10)
for number in range(20):
    cache[number] = {"number": number}
cache.done()
cache.merge()
"""


def write_objects(root: Path) -> None:
    """Write ``model.bin`` and its ``SHA256SUMS``, ``array.npy``, ``shards/*.tar``, ``table.jsonl``.

    And ``table.parquet`` and ``chunks/``, where what writes them is installed: then there are programs that read them.
    """
    rng = random.Random(20)
    model, array = rng.randbytes(3_000_000), io.BytesIO()
    np.save(array, np.arange(100_000, dtype="float32"))
    (root / "shards").mkdir(parents=True)
    (root / "model.bin").write_bytes(model)
    (root / "SHA256SUMS").write_text(f"{hashlib.sha256(model).hexdigest()}  model.bin\n")
    (root / "array.npy").write_bytes(array.getvalue())
    write_shards(root / "shards", shards=4)
    rows = [{"number": number, "share": 0.5, "text": "text"} for number in range(1000)]
    (root / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if find_spec("pyarrow") is not None:
        write_parquet(root / "table.parquet", rows)
    if find_spec("litdata") is not None:
        # In a process of its own: litdata leaves threads and a registry behind.
        subprocess.run([sys.executable, "-c", _CHUNKS, str(root / "chunks")], check=True, env={"HOME": str(root)})


def write_parquet(path: Path, rows: list[dict[str, object]]) -> None:
    """Write a table."""
    import pyarrow.parquet  # noqa: PLC0415 - there in long tests only

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
