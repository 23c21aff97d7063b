"""Tar shards of samples that a test can recognise."""

from __future__ import annotations

import io
import random
import tarfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

Sample = dict[str, object]


def write_shards(folder: Path, shards: int = 5, samples: int = 6, size: int = 20_000, seed: int = 1) -> list[Sample]:
    """Write ``folder/NNNN.tar`` files and return every sample that is in them, in order."""
    rng = random.Random(seed)
    written: list[Sample] = []
    for shard in range(shards):
        with tarfile.open(folder / f"{shard:04}.tar", "w") as archive:
            for number in range(samples):
                key = f"part.{shard}/{number:06}"
                sample: Sample = {"__key__": key, "bin": rng.randbytes(rng.randrange(size)), "cls": b"%d" % number}
                for field in ("bin", "cls"):
                    add_file(archive, f"{key}.{field}", sample[field])
                written.append(sample)
    return written


def add_file(archive: tarfile.TarFile, name: str, data: object) -> None:
    """Append one file of bytes."""
    assert isinstance(data, bytes)
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def by_key(samples: list[Sample]) -> list[Sample]:
    """Sort samples, which workers give in whatever order."""
    return sorted(samples, key=lambda sample: str(sample["__key__"]))
