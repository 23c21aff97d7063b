"""litdata fetches its chunks by ``fastdl.download``, in workers of any kind."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

import pytest
from litdata.streaming import downloader

import fastdl
from fastdl.integrations.litdata import Chunks, register
from tests.integrations.script import PATIENCE, run_script
from tests.servers.nginx import serving_nginx
from tests.servers.scripted import ranged, serving, status

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATA = random.Random(9).randbytes(100_000)
WRITER = """
import sys
from litdata.streaming.cache import Cache

cache = Cache(sys.argv[1], chunk_size=10)
for number in range(35):
    cache[number] = {"number": number, "data": bytes(1000)}
cache.done()
cache.merge()
"""
CALLER = """
import json, sys
from litdata import StreamingDataLoader, StreamingDataset
from litdata.streaming.resolver import Dir
from fastdl.integrations.litdata import register

register("http")

if __name__ == "__main__":
    url, cache, workers = sys.argv[1:]
    data = StreamingDataset(Dir(url=url), cache_dir=cache, shuffle=True)
    loader = StreamingDataLoader(data, batch_size=5, num_workers=int(workers))
    print(json.dumps([int(number) for batch in loader for number in batch["number"]]))
"""


@pytest.fixture(autouse=True)
def _registry() -> Iterator[None]:
    """Leave litdata as it was."""
    before = dict(downloader._DOWNLOADERS)
    yield
    downloader._DOWNLOADERS.clear()
    downloader._DOWNLOADERS.update(before)


@pytest.mark.timeout(3 * PATIENCE)
def test_a_data_set(tmp_path: Path) -> None:
    """Every item comes once, whoever fetches its chunk; each chunk is asked for once by each cache."""
    (tmp_path / "root").mkdir()
    home = {"HOME": str(tmp_path)}
    run_script(tmp_path, WRITER, str(tmp_path / "root" / "data"), environment=home)
    with serving_nginx(tmp_path / "root") as server:
        for workers in ("0", "2"):
            url, cache = server.url("/data"), str(tmp_path / f"cache{workers}")
            printed = run_script(tmp_path, CALLER, url, cache, workers, environment=home)
            assert sorted(json.loads(printed)) == list(range(35))
        assert sum("chunk-0-0.bin" in line for line in server.access_log) == 2


def test_files_and_bytes(tmp_path: Path) -> None:
    """A file that is there is not asked for again; some bytes of one cost no file; options are fastdl's."""
    with serving(ranged(DATA)) as server:
        fetcher = Chunks(server.url("/d"), str(tmp_path), [], {"headers": {"X-Key": "k"}})
        path = tmp_path / "a" / "chunk.bin"
        for _ in range(2):
            fetcher.download_file(server.url("/d/chunk.bin"), str(path))
        assert path.read_bytes() == DATA
        asked = len(server.log)
        assert fetcher.download_bytes(server.url("/d/chunk.bin"), 10, 20, "unused") == DATA[10:30]
        assert len(server.log) == asked + 1
        assert {seen.headers["x-key"] for seen in server.log} == {"k"}
    with serving(status(404)) as server, pytest.raises(fastdl.NotFound):
        fetcher.download_file(server.url("/none"), str(tmp_path / "none"))


def test_which_schemes() -> None:
    """Those that are named, all by default, none that is not known."""
    with pytest.raises(fastdl.UsageError, match="scheme 'gs' is none of"):
        register("oss", "gs")
    register("oss")
    assert downloader._DOWNLOADERS["oss://"] is Chunks
    assert downloader._DOWNLOADERS["s3://"] is not Chunks
    register()
    assert isinstance(downloader.get_downloader("s3://bucket/x", "cache", []), Chunks)
