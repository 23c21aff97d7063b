"""mosaicml-streaming fetches its shards by ``fastdl.download``; its own data set and writer, in a process of their own.

Two of its requirements are imported and not used here: transformers, which holds huggingface_hub back, and torchvision,
whose builds load beside one build of torch only. Empty modules stand in for them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.integrations.script import PATIENCE, run_script
from tests.servers.nginx import serving_nginx
from tests.servers.oss import KEY, serving_oss

if TYPE_CHECKING:
    from pathlib import Path

STAND_INS = """
import sys, types

for full, kind in [
    ("transformers.feature_extraction_utils", "BatchFeature"),
    ("transformers.tokenization_utils_base", "BatchEncoding"),
    ("transformers.models.auto.tokenization_auto", "AutoTokenizer"),
    ("torchvision.datasets", "VisionDataset"),
    ("torchvision.transforms.functional", "to_tensor"),
]:
    module = types.ModuleType(full)
    setattr(module, kind, type(kind, (), {}))
    sys.modules[full] = module
    while "." in full:
        full = full.rpartition(".")[0]
        sys.modules.setdefault(full, types.ModuleType(full))
"""
WRITER = """
import sys
from streaming import MDSWriter

with MDSWriter(out=sys.argv[1], columns={"number": "int", "data": "bytes"}, size_limit=20_000) as writer:
    for number in range(100):
        writer.write({"number": number, "data": bytes(1000)})
"""
CALLER = """
import json, sys
from streaming import StreamingDataset
from torch.utils.data import DataLoader
from fastdl.integrations.streaming import register

remote, local, workers, settings = sys.argv[1:]
register(remote.partition(":")[0], **json.loads(settings))

if __name__ == "__main__":
    data = StreamingDataset(remote=remote, local=local, batch_size=5, shuffle=True)
    print(json.dumps([int(each["number"]) for each in DataLoader(data, batch_size=None, num_workers=int(workers))]))
"""
REGISTRY = """
import os, sys
import fastdl
from fastdl.integrations.streaming import Shards, register
from streaming.base.storage.download import CloudDownloader

try:
    register("oss", "ftp")
except fastdl.UsageError as error:
    print(error)
register("http", max_time=5, retry=0)
try:
    CloudDownloader.get(sys.argv[1]).download(sys.argv[1], "./out", timeout=60)
except fastdl.NotFound as error:
    print(type(error).__name__, os.path.exists("out"))
print(isinstance(CloudDownloader.get("s3://bucket/key"), Shards))
register()
print(isinstance(CloudDownloader.get("s3://bucket/key"), Shards))
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Write a data set of several shards."""
    (tmp_path / "root").mkdir()
    run_script(tmp_path, STAND_INS + WRITER, str(tmp_path / "root" / "data"))
    return tmp_path / "root"


@pytest.mark.timeout(3 * PATIENCE)
@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_data_set_on_a_web_server(tmp_path: Path, root: Path, workers: str) -> None:
    """Every item comes once, and every shard is asked for once, whichever worker does."""
    with serving_nginx(root) as server:
        arguments = server.url("/data"), str(tmp_path / "local"), workers, "{}"
        printed = run_script(tmp_path, STAND_INS + CALLER, *arguments)
        assert sum("shard.00000.mds" in line for line in server.access_log) == 1
    assert sorted(json.loads(printed)) == list(range(100))


@pytest.mark.timeout(3 * PATIENCE)
def test_a_data_set_in_a_bucket(tmp_path: Path, root: Path) -> None:
    """Streaming knows nothing of OSS; settings go to whoever fetches."""
    objects = {f"data/{path.name}": path.read_bytes() for path in (root / "data").iterdir()}
    with serving_oss(objects) as server:
        settings = {"endpoint_url": server.url(""), "region": "cn-hangzhou"}
        key = {"OSS_ACCESS_KEY_ID": KEY.id, "OSS_ACCESS_KEY_SECRET": KEY.secret}
        arguments = "oss://bucket/data", str(tmp_path / "local"), "2", json.dumps(settings)
        printed = run_script(tmp_path, STAND_INS + CALLER, *arguments, environment=key)
    assert sorted(json.loads(printed)) == list(range(100))


def test_which_schemes(tmp_path: Path) -> None:
    """Those that are named, all by default; what is not there is told by fastdl's own error and leaves no file."""
    (tmp_path / "root").mkdir()
    with serving_nginx(tmp_path / "root") as server:
        lines = run_script(tmp_path, STAND_INS + REGISTRY, server.url("/none")).splitlines()
    assert lines == ["scheme 'ftp' is none of oss, s3, http, https, hf", "NotFound False", "False", "True"]
