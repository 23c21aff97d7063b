"""Data sets under a real DataLoader: exact samples whatever its workers are, no hang, nobody left behind."""

from __future__ import annotations

import gc
import hashlib
import io
import itertools
import json
import pickle
import random
import tarfile
import threading
from typing import TYPE_CHECKING

import pytest
import torch
from torch.utils.data import DataLoader

import fastdl
from fastdl.integrations.torch import Objects, Shards
from tests.integrations.script import PATIENCE, run_script
from tests.integrations.shards import add_file, by_key, write_shards
from tests.servers.nginx import Nginx, serving_nginx
from tests.servers.scripted import ranged, script, serving, stall_before_head, status

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integrations.shards import Sample

SHARDS = 5
LOADERS = [("fork", 0), ("fork", 2), ("fork", 4), ("spawn", 2), ("spawn", 4)]
CALLER = """
import hashlib, json, sys
from torch.utils.data import DataLoader
from fastdl.integrations.torch import Objects, Shards

if __name__ == "__main__":
    method, workers, kind, *urls = sys.argv[1:]
    options = {"multiprocessing_context": method, "persistent_workers": True} if workers != "0" else {}
    data = Shards(urls, shuffle=True) if kind == "shards" else Objects(urls, how=kind)
    loader = DataLoader(data, batch_size=None, num_workers=int(workers), **options)
    for item in loader:
        break  # a download goes on, and others wait in the workers
    for epoch in range(2):
        if kind == "shards":
            data.set_epoch(epoch)
            seen = [(each["__key__"], hashlib.sha256(each["bin"] + each["cls"]).hexdigest()) for each in loader]
        else:
            seen = [hashlib.sha256(bytes(item) if kind == "bytes" else item.numpy()).hexdigest() for item in loader]
        print(json.dumps(seen))
    for item in loader:
        break
"""


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[tuple[Nginx, list[Sample], list[str]]]:
    """Serve shards; with what is in them, and their URLs."""
    root = tmp_path / "root"
    root.mkdir()
    written = write_shards(root, SHARDS)
    with serving_nginx(root) as server:
        yield server, written, [server.url(f"/{number:04}.tar") for number in range(SHARDS)]


def digests(samples: list[Sample]) -> list[list[str]]:
    """Make what the caller prints of samples."""
    return [[str(each["__key__"]), hashlib.sha256(each["bin"] + each["cls"]).hexdigest()] for each in samples]  # type: ignore[operator]


@pytest.mark.timeout(2 * PATIENCE)
@pytest.mark.parametrize(("method", "workers"), LOADERS)
def test_shards_under_every_kind_of_worker(
    tmp_path: Path, shelf: tuple[Nginx, list[Sample], list[str]], method: str, workers: int
) -> None:
    """Each sample comes exactly once an epoch, epochs differ in order, and an early end leaves nobody behind."""
    _, written, urls = shelf
    epochs = [
        json.loads(line) for line in run_script(tmp_path, CALLER, method, str(workers), "shards", *urls).splitlines()
    ]
    assert [sorted(epoch) for epoch in epochs] == [sorted(digests(written))] * 2
    assert epochs[0] != epochs[1]


@pytest.mark.timeout(2 * PATIENCE)
@pytest.mark.parametrize(
    ("method", "workers", "how"), [("fork", 0, "bytes"), ("fork", 4, "numpy"), ("spawn", 2, "bytes")]
)
def test_objects_under_every_kind_of_worker(
    tmp_path: Path, shelf: tuple[Nginx, list[Sample], list[str]], method: str, workers: int, how: str
) -> None:
    """They come whole and in the order of their index."""
    server, _, urls = shelf
    want = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((tmp_path / "root").iterdir())]
    printed = run_script(tmp_path, CALLER, method, str(workers), how, *urls).splitlines()
    assert [json.loads(line) for line in printed] == [want] * 2
    assert all(" 206 " in line or " 200 " in line for line in server.access_log)


@pytest.mark.timeout(2 * PATIENCE)
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_paths_are_fetched_once_for_all_workers_and_epochs(
    tmp_path: Path, shelf: tuple[Nginx, list[Sample], list[str]], method: str
) -> None:
    """Four workers want the same objects at once; beyond one download of each there are looks of a byte."""
    server, _, urls = shelf
    caller = """
import hashlib, json, pathlib, sys
from torch.utils.data import DataLoader
from fastdl.integrations.torch import Objects

if __name__ == "__main__":
    cache, method, *urls = sys.argv[1:]
    data = Objects(urls * 4, how="path", cache_dir=cache)
    for epoch in range(2):
        for path in DataLoader(data, batch_size=None, num_workers=4, multiprocessing_context=method):
            print(hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest())
"""
    bodies = [path.read_bytes() for path in sorted((tmp_path / "root").iterdir())]
    printed = run_script(tmp_path, caller, str(tmp_path / "cache"), method, *urls).splitlines()
    assert printed == [hashlib.sha256(body).hexdigest() for body in bodies] * 4 * 2
    sent = [int(line.split('" ')[1].split()[1]) for line in server.access_log]
    assert sum(count for count in sent if count > 1) == sum(map(len, bodies))


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_ranks_share_the_shards(shelf: tuple[Nginx, list[Sample], list[str]], world_size: int) -> None:
    """All of them together give every sample once, in the one order that all agree on, whether pickled or not."""
    _, written, urls = shelf
    ranks = [Shards(urls, shuffle=True, seed=3, rank=rank, world_size=world_size) for rank in range(world_size)]
    shares = [list(rank) for rank in ranks]
    assert by_key([sample for share in shares for sample in share]) == by_key(written)
    assert [list(pickle.loads(pickle.dumps(rank))) for rank in ranks] == shares


def test_the_rank_is_that_of_torch_distributed(tmp_path: Path, shelf: tuple[Nginx, list[Sample], list[str]]) -> None:
    """It is asked where it is initialised, after the data set was made; workers that are spawned are told."""
    caller = f"""
import sys
import torch.distributed
from torch.utils.data import DataLoader
from fastdl.integrations.torch import Shards

if __name__ == "__main__":
    data = Shards(sys.argv[1:])
    store = torch.distributed.FileStore({str(tmp_path / "store")!r}, 1)
    torch.distributed.init_process_group("fake", store=store, rank=1, world_size=2)
    for options in ({{}}, {{"num_workers": 1, "multiprocessing_context": "spawn"}}):
        print(*sorted({{sample["__key__"][:6] for sample in DataLoader(data, batch_size=None, **options)}}))
    torch.distributed.destroy_process_group()
"""
    fake = "import torch.testing._internal.distributed.fake_pg\n"
    assert run_script(tmp_path, fake + caller, *shelf[2]).splitlines() == ["part.1 part.3"] * 2


@pytest.mark.parametrize(("rank", "world_size"), [(0, None), (None, 2), (2, 2), (-1, 2), (0, 0)])
def test_places_that_are_none(rank: int | None, world_size: int | None) -> None:
    """One line says what does not fit."""
    with pytest.raises(fastdl.UsageError, match="rank"):
        Shards(["http://127.0.0.1/a.tar"], rank=rank, world_size=world_size)


def test_settings_that_cannot_be_meant() -> None:
    """They are told when the data set is made, not in a worker an hour later."""
    with pytest.raises(fastdl.UsageError, match="how 'text' is none of bytes, numpy, path"):
        Objects(["http://127.0.0.1/a"], how="text")
    with pytest.raises(fastdl.UsageError, match="a list of URLs"):
        Shards("http://127.0.0.1/a.tar")


def test_who_leaves_early_ends_the_download() -> None:
    """Neither a thread nor a connection goes on for samples that nobody wants."""
    data = io_of_shard(samples=400, size=20_000)
    with serving(ranged(data)) as server:
        samples = iter(Shards([server.url()], window=256 * 1024, part_size=64 * 1024))
        next(samples)
        samples.close()  # type: ignore[attr-defined]
        assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("fastdl")]


def test_a_sample_comes_before_the_shard_is_whole() -> None:
    """The first one is there while the server holds back all that follows."""
    data = io_of_shard(samples=400, size=20_000)
    faults = dict.fromkeys(range(2, 50), stall_before_head())
    with serving(script(faults, otherwise=ranged(data))) as server:
        samples = iter(Shards([server.url()], part_size=128 * 1024))
        assert next(samples)["__key__"] == "000000"
        samples.close()  # type: ignore[attr-defined]


def test_a_shard_that_is_not_there_is_an_error_in_the_loop() -> None:
    """It passes the border between worker and trainer with its type and its text."""
    with (
        serving(status(404)) as server,
        pytest.raises(fastdl.NotFound, match="nothing is there"),
    ):
        list(DataLoader(Shards([server.url("/a.tar")]), batch_size=None, num_workers=1, multiprocessing_context="fork"))


@pytest.mark.parametrize("text", ["no archive", "two fields"])
def test_a_shard_that_holds_no_samples(text: str) -> None:
    """One line names the shard, without what is secret in its URL."""
    data = random.Random(1).randbytes(50_000) if text == "no archive" else twice_the_field()
    with (
        serving(ranged(data)) as server,
        pytest.raises(fastdl.ProtocolError, match=r"a\.tar\?key=\*\*\*: cannot be read as a tar archive of samples: "),
    ):
        list(Shards([server.url("/a.tar?key=secret")]))


def test_the_end_of_an_epoch_is_told_only_of_shards_that_were_judged() -> None:
    """Tarfile stops at the archive's end; what the store promised is of the whole object."""
    with (
        serving(ranged(io_of_shard(4, 100), extra_headers={"Repr-Digest": f"sha-256=:{'A' * 43}=:"})) as server,
        pytest.raises(fastdl.IntegrityError),
    ):
        list(Shards([server.url()]))


def test_the_members_that_are_no_fields(tmp_path: Path) -> None:
    """Directories, links and names without a dot are left out; fields are in lower case; keys may hold dots above."""
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        folder = tarfile.TarInfo("a.b")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name in ("a.b/README", "a.b/c.x.JPG", "a.b/c.cls", "a.b/.hidden", "d.cls"):
            add_file(archive, name, name.encode())
    with serving(ranged((tmp_path / "a.tar").read_bytes())) as server:
        assert list(Shards([server.url()])) == [
            {"__key__": "a.b/c", "x.jpg": b"a.b/c.x.JPG", "cls": b"a.b/c.cls"},
            {"__key__": "d", "cls": b"d.cls"},
        ]


def test_arrays_may_be_written() -> None:
    """Torch warns of tensors that may not."""
    with serving(ranged(b"\0" * 10)) as server:
        (tensor,) = DataLoader(Objects([server.url()], how="numpy"), batch_size=None)
    assert torch.equal(tensor.add_(1), torch.ones(10, dtype=torch.uint8))


def test_what_was_read_of_a_shard_is_forgotten() -> None:
    """A shard of millions of samples must not grow into memory; tarfile keeps the head of each."""
    data = io_of_shard(samples=3000, size=1)
    with serving(ranged(data)) as server:
        samples = iter(Shards([server.url()]))
        next(samples)
        gc.collect()
        before = sum(type(each) is tarfile.TarInfo for each in gc.get_objects())
        for _ in itertools.islice(samples, 2900):
            pass
        assert sum(type(each) is tarfile.TarInfo for each in gc.get_objects()) < before + 10
        samples.close()  # type: ignore[attr-defined]


def test_nobody_pays_for_torch_who_does_not_use_it(tmp_path: Path) -> None:
    """Only the integration imports it."""
    run_script(tmp_path, "import sys, fastdl\nfastdl.download, fastdl.stream\nassert 'torch' not in sys.modules\n")


def io_of_shard(samples: int, size: int) -> bytes:
    """Make a shard in memory."""
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as archive:
        for number in range(samples):
            add_file(archive, f"{number:06}.bin", bytes(size))
    return body.getvalue()


def twice_the_field() -> bytes:
    """Make a shard whose sample has two files of one name."""
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as archive:
        for name in ("a.cls", "a.CLS"):
            add_file(archive, name, b"1")
    return body.getvalue()
