"""fastdl's data sets as a trainer would wrap them: of each item its length is left, its bytes stay in the worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.utils.data import Dataset, IterableDataset

from fastdl.integrations.torch import Objects, Shards

if TYPE_CHECKING:
    from collections.abc import Iterator


class Samples(IterableDataset[int]):  # type: ignore[misc, unused-ignore]
    """Lengths of samples."""

    def __init__(self, urls: list[str]) -> None:
        self._shards = Shards(urls)

    def __iter__(self) -> Iterator[int]:
        for sample in self._shards:
            yield len(sample["bin"])


class Lengths(Dataset[int]):  # type: ignore[misc, unused-ignore]
    """Lengths of objects."""

    def __init__(self, urls: list[str], how: str, cache: str) -> None:
        self._objects = Objects(urls, how=how, **({"cache_dir": cache} if how == "path" else {}))
        self._how = how

    def __len__(self) -> int:
        return len(self._objects)

    def __getitem__(self, index: int) -> int:
        item = self._objects[index]
        if self._how == "path":
            from pathlib import Path  # noqa: PLC0415

            return Path(item).stat().st_size
        return len(item)
