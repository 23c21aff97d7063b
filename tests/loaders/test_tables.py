"""pandas, pyarrow and datasets read tables through fastdl's file system: the very rows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import datasets
import fsspec
import pandas as pd
import pyarrow.dataset
import pyarrow.parquet
import pytest
from fsspec.registry import _registry

from fastdl.integrations.fsspec import SCHEMES, FastdlFileSystem, register
from tests.e2e.s3 import nobodys_machine
from tests.servers.nginx import serving_nginx
from tests.servers.oss import KEY as OSS_KEY
from tests.servers.oss import serving_oss
from tests.servers.s3 import KEY, REGION, serving_s3

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers.nginx import Nginx

ROWS = 60_000
TABLE: Any = pd.DataFrame(
    {
        "number": range(ROWS),
        "share": [number / 7 for number in range(ROWS)],
        "text": [f"{number * 7919 % ROWS:x}" * 5 for number in range(ROWS)],
    }
)
FORMS = ["fastdl://", "fastdl::", ""]


@pytest.fixture(autouse=True)
def _registry_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave fsspec as it was, and let datasets keep everything in this test's directory."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    monkeypatch.setattr(datasets.config, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    before = dict(_registry)
    yield
    _registry.clear()
    _registry.update(before)
    classes: list[type[FastdlFileSystem]] = [FastdlFileSystem, *SCHEMES.values()]
    for each in classes:
        each.clear_instance_cache()


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Nginx]:
    """Serve the table in two forms."""
    root = tmp_path / "root"
    root.mkdir()
    TABLE.to_parquet(root / "table.parquet", row_group_size=10_000)
    TABLE.to_json(root / "table.jsonl", orient="records", lines=True)
    with serving_nginx(root) as server:
        yield server


@pytest.mark.parametrize("form", FORMS[:2])
def test_pandas(shelf: Nginx, form: str) -> None:
    """Whole tables, some columns, lines of JSON, CSV; by fastdl alone, as the server's log tells."""
    url = form + shelf.url("/table.parquet")
    assert pd.read_parquet(url).equals(TABLE)
    assert pd.read_parquet(url, columns=["share"], storage_options={"connections": 4}).equals(TABLE[["share"]])
    lines = pd.read_json(form + shelf.url("/table.jsonl"), lines=True, dtype={"text": str})
    assert lines[["number", "text"]].equals(TABLE[["number", "text"]])
    assert all("fastdl/" in line for line in shelf.access_log)


def test_pyarrow(shelf: Nginx) -> None:
    """The file system given as it is, and a data set of several files with a filter."""
    fs = FastdlFileSystem()
    name = f"fastdl://{shelf.url('/table.parquet')}"
    assert pyarrow.parquet.read_table(name, filesystem=fs).to_pandas().equals(TABLE)
    data = pyarrow.dataset.dataset([name, name], filesystem=fs, format="parquet")
    some = data.to_table(filter=pyarrow.dataset.field("number") < 5, columns=["text"]).to_pandas()
    assert list(some["text"]) == list(TABLE["text"][:5]) * 2


def test_tables_of_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``oss://`` and ``s3://`` by pandas, behind ``fastdl://`` and once registered."""
    nobodys_machine(tmp_path, monkeypatch)
    TABLE.to_parquet(tmp_path / "table.parquet")
    stored = {"table.parquet": (tmp_path / "table.parquet").read_bytes()}
    with serving_oss(stored) as oss, serving_s3(stored) as s3:
        settings: dict[str, dict[str, Any]] = {
            "oss": {
                "endpoint_url": f"http://127.0.0.1:{oss.port}",
                "region": "cn-hangzhou",
                "credentials": (OSS_KEY.id, OSS_KEY.secret),
            },
            "s3": {"endpoint_url": s3.url(""), "region": REGION, "credentials": KEY},
        }
        register("oss", "s3")
        for scheme, options in settings.items():
            for form in FORMS:
                url = f"{form}{scheme}://bucket/table.parquet"
                assert pd.read_parquet(url, storage_options=options).equals(TABLE)


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize(("kind", "name"), [("parquet", "table.parquet"), ("json", "table.jsonl")])
@pytest.mark.parametrize("form", FORMS)
def test_datasets(shelf: Nginx, tmp_path: Path, form: str, kind: str, name: str, streaming: bool) -> None:
    """``load_dataset``, streaming or not, by each form of URL; every request is fastdl's."""
    register("http")
    url = form + shelf.url(f"/{name}")
    data = datasets.load_dataset(
        kind, data_files=url, split="train", streaming=streaming, cache_dir=str(tmp_path / "cache")
    )
    assert [row["text"] for row in data] == list(TABLE["text"])
    assert all("fastdl/" in line for line in shelf.access_log)


def test_a_data_set_of_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings go through ``storage_options`` of datasets."""
    nobodys_machine(tmp_path, monkeypatch)
    body = "".join(json.dumps({"number": number}) + "\n" for number in range(2000)).encode()
    with serving_oss({"lines.jsonl": body}) as oss:
        options = {
            "endpoint_url": f"http://127.0.0.1:{oss.port}",
            "region": "cn-hangzhou",
            "credentials": (OSS_KEY.id, OSS_KEY.secret),
        }
        for streaming in (True, False):
            data = datasets.load_dataset(
                "json",
                data_files="fastdl://oss://bucket/lines.jsonl",
                split="train",
                streaming=streaming,
                storage_options=options,
                cache_dir=str(tmp_path / "cache"),
            )
            assert [row["number"] for row in data] == list(range(2000))


def test_a_cached_copy_of_fsspecs_own(shelf: Nginx, tmp_path: Path) -> None:
    """Fastdl stands at the end of a chain too, once it has the scheme."""
    register("http")
    chain = f"filecache::{shelf.url('/table.parquet')}"
    with fsspec.open(chain, filecache={"cache_storage": str(tmp_path / "copies")}) as file:
        assert pd.read_parquet(file).equals(TABLE)
    assert all("fastdl/" in line for line in shelf.access_log)
