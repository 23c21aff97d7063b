"""The objects that the examples of the documentation fetch."""

from __future__ import annotations

import hashlib
import io
import random
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

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
    """Write ``model.bin`` and its ``SHA256SUMS``, ``array.npy``, ``table.*``, ``shards/*.tar``, ``chunks/``."""
    rng = random.Random(20)
    model, array = rng.randbytes(3_000_000), io.BytesIO()
    np.save(array, np.arange(100_000, dtype="float32"))
    (root / "shards").mkdir(parents=True)
    (root / "model.bin").write_bytes(model)
    (root / "SHA256SUMS").write_text(f"{hashlib.sha256(model).hexdigest()}  model.bin\n")
    (root / "array.npy").write_bytes(array.getvalue())
    write_shards(root / "shards", shards=4)
    table = pd.DataFrame({"number": range(1000), "share": [0.5] * 1000, "text": ["text"] * 1000})
    table.to_parquet(root / "table.parquet")
    table.to_json(root / "table.jsonl", orient="records", lines=True)
    # In a process of its own: litdata leaves threads and a registry behind.
    subprocess.run([sys.executable, "-c", _CHUNKS, str(root / "chunks")], check=True, env={"HOME": str(root)})
