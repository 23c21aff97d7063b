"""Data sets for torch's DataLoader: ``Shards`` reads tar shards in order, ``Objects`` any objects by their index.

    from torch.utils.data import DataLoader
    from fastdl.integrations.torch import Shards

    for sample in DataLoader(Shards(urls), batch_size=None, num_workers=4): ...

Both hold only names and settings until they are read, so they can be pickled to workers and ranks of any kind.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from fastdl.cache import cached
from fastdl.errors import UsageError
from fastdl.integrations.tars import Sample, samples
from fastdl.remote import open as open_remote

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fastdl.prepare import Settings

HOW = ("bytes", "numpy", "path")


class Shards(IterableDataset[Sample]):  # type: ignore[misc, unused-ignore]
    """The samples of tar shards, each exactly once an epoch, read while they arrive; nothing touches a disk.

    Files of a shard that follow one another and share a name up to its first dot are one sample,
    ``{"__key__": "0017", "jpg": b"...", "cls": b"3"}``, as webdataset has it. Ranks share the shards, and the workers
    of a rank's DataLoader share its part: make at least as many shards as there are workers in all, else some have
    nothing to do. Ranks get equally many shards only if their number divides that of the shards.

    Args:
        urls: the shards, as of ``fastdl.stream``.
        shuffle: take the shards in another order each epoch, the same one on all ranks.
        seed: of that order.
        rank: which of ``world_size`` processes this one is; by default what ``torch.distributed`` says where it is
            initialised when an epoch begins (in the process of the DataLoader), else the only one.
        world_size: how many there are.
        window: bytes of memory that a shard passes through, for each worker.
        **settings: as of ``fastdl.stream``.

    Raises:
        UsageError: ``rank`` and ``world_size`` do not fit.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        shuffle: bool = False,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        window: int | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        super().__init__()
        if (rank is None) != (world_size is None):
            raise UsageError("rank and world_size belong together")
        if rank is not None and world_size is not None and not 0 <= rank < world_size:
            raise UsageError(f"rank {rank}: must be 0 to {world_size - 1}")
        self.urls = _listed(urls)
        self._shuffle = shuffle
        self._seed = seed
        self._place = None if rank is None or world_size is None else (rank, world_size)
        self._settings: dict[str, Any] = dict(settings) if window is None else {"window": window, **settings}
        # In shared memory, so that workers which live on from epoch to epoch see the next one.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the epoch that begins next; every rank must say the same."""
        self._epoch[0] = epoch

    def __getstate__(self) -> dict[str, Any]:
        """Tell the place among the ranks to workers, where ``torch.distributed`` is not initialised."""
        return {**self.__dict__, "_place": self._place or _initialised_place()}

    def __iter__(self) -> Iterator[Sample]:
        """Yield this process's share; closing the iterator, or leaving it, ends the download that goes on.

        Raises:
            ProtocolError: a shard is no tar archive of samples.
            FastdlError: as of ``fastdl.stream``.
        """
        for url in self._share():
            yield from samples(url, self._settings)

    def _share(self) -> list[str]:
        urls = list(self.urls)
        if self._shuffle:
            random.Random(f"{self._seed} {int(self._epoch[0])}").shuffle(urls)
        rank, world_size = self._place or _initialised_place() or (0, 1)
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        return urls[rank::world_size][first::step]


class Objects(Dataset[Any]):  # type: ignore[misc, unused-ignore]
    """Whole objects by their index, each fetched by many connections when it is asked for.

    Args:
        urls: as of ``fastdl.open``.
        how: what an item is: ``bytes``; ``numpy``, an array of ``uint8`` that may be written; or ``path``, the name of
            a verified file in fastdl's cache, which all workers and ranks of a machine share: each object is fetched
            once, and not again in the next epoch.
        **settings: as of ``fastdl.open``; for paths as of ``fastdl.cached``: ``cache_dir``, ``max_bytes`` and
            ``max_age`` too.

    Raises:
        UsageError: ``how`` is none of these.
    """

    def __init__(self, urls: Sequence[str], *, how: str = "bytes", **settings: Any) -> None:
        super().__init__()
        if how not in HOW:
            raise UsageError(f"how {how!r} is none of {', '.join(HOW)}")
        self.urls = _listed(urls)
        self._how = how
        self._settings = settings

    def __len__(self) -> int:
        return len(self.urls)

    def __getitem__(self, index: int) -> Any:
        """Fetch one object and return it in the form that was chosen.

        Raises:
            IndexError: there are fewer.
            FastdlError: as of ``fastdl.open``.
        """
        if self._how == "path":
            return str(cached(self.urls[index], **self._settings))
        with open_remote(self.urls[index], **self._settings) as remote:
            array = remote.numpy()
            return array.tobytes() if self._how == "bytes" else array.copy()


def _listed(urls: Sequence[str]) -> tuple[str, ...]:
    if isinstance(urls, str):
        raise UsageError("urls: a list of URLs is wanted, not one")
    return tuple(urls)


def _initialised_place() -> tuple[int, int] | None:
    """Return rank and number of ranks if ``torch.distributed`` knows them here."""
    group = torch.distributed
    return (group.get_rank(), group.get_world_size()) if group.is_available() and group.is_initialized() else None
