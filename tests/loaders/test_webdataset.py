"""webdataset reads its shards by ``fastdl.stream``, in workers of any kind, and is told of shards that are wrong."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import threading
from typing import TYPE_CHECKING

import pytest
import webdataset
from webdataset.gopen import gopen, gopen_schemes

import fastdl
from fastdl.integrations.webdataset import SCHEMES, register
from tests.integrations.script import PATIENCE, run_script
from tests.integrations.shards import by_key, write_shards
from tests.servers.nginx import serving_nginx
from tests.servers.oss import KEY, serving_oss
from tests.servers.scripted import ranged, serving, status

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integrations.shards import Sample

CALLER = """
import hashlib, json, sys
import webdataset
from fastdl.integrations.webdataset import register

register("http")  # up here, where spawned workers come by

if __name__ == "__main__":
    method, workers, *urls = sys.argv[1:]
    data = webdataset.WebDataset(urls, shardshuffle=False)
    options = {"multiprocessing_context": method} if workers != "0" else {}
    loader = webdataset.WebLoader(data, batch_size=None, num_workers=int(workers), **options)
    for sample in loader:
        break
    print(json.dumps([(each["__key__"], hashlib.sha256(each["bin"] + each["cls"]).hexdigest()) for each in loader]))
"""


@pytest.fixture(autouse=True)
def _registry() -> Iterator[None]:
    """Leave webdataset as it was."""
    before = dict(gopen_schemes)
    yield
    gopen_schemes.clear()
    gopen_schemes.update(before)


@pytest.fixture
def shards(tmp_path: Path) -> tuple[list[Sample], Path]:
    """Write five shards; with what is in them and where they are."""
    root = tmp_path / "root"
    root.mkdir()
    return write_shards(root), root


def fields(samples: list[Sample]) -> list[Sample]:
    """Leave out what webdataset says about the shard."""
    return by_key([{key: value for key, value in each.items() if key in ("__key__", "bin", "cls")} for each in samples])


@pytest.mark.timeout(2 * PATIENCE)
@pytest.mark.parametrize(("method", "workers"), [("fork", 0), ("fork", 2), ("spawn", 2)])
def test_under_a_data_loader(tmp_path: Path, shards: tuple[list[Sample], Path], method: str, workers: int) -> None:
    """Each sample comes once; an early end leaves nobody behind."""
    written, root = shards
    with serving_nginx(root) as server:
        urls = [server.url(f"/{number:04}.tar") for number in range(5)]
        (printed,) = run_script(tmp_path, CALLER, method, str(workers), *urls).splitlines()
    want = [[each["__key__"], hashlib.sha256(each["bin"] + each["cls"]).hexdigest()] for each in written]  # type: ignore[operator]
    assert sorted(json.loads(printed)) == sorted(want)


def test_settings_go_with_the_scheme(shards: tuple[list[Sample], Path]) -> None:
    """Stores that need an endpoint and a key get them."""
    written, root = shards
    objects = {path.name: path.read_bytes() for path in root.iterdir()}
    with serving_oss(objects) as server:
        endpoint, key = server.url(""), (KEY.id, KEY.secret)
        register("oss", window=1 << 20, endpoint_url=endpoint, region="cn-hangzhou", credentials=key)
        data = webdataset.WebDataset("oss://bucket/{0000..0004}.tar", shardshuffle=False)
        assert fields(list(data)) == by_key(written)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("fastdl")]


def test_a_shard_is_judged_before_its_last_byte_is_used(shards: tuple[list[Sample], Path]) -> None:
    """Tarfile never asks for the end of the file, where it would be told."""
    body = (shards[1] / "0000.tar").read_bytes()
    wrong = base64.b64encode(hashlib.sha256(body + b"x").digest()).decode()
    register("http")
    with (
        serving(ranged(body, extra_headers={"Repr-Digest": f"sha-256=:{wrong}:"})) as server,
        pytest.raises(fastdl.IntegrityError),
    ):
        list(webdataset.WebDataset(server.url("/a.tar"), shardshuffle=False))


def test_a_handler_may_go_on_without_a_shard() -> None:
    """Errors are webdataset's to handle, as those of its own openers are."""
    register("http")
    with serving(status(404)) as server:
        url = server.url("/a.tar")
        with pytest.raises(fastdl.NotFound):
            list(webdataset.WebDataset(url, shardshuffle=False))
        with pytest.warns(UserWarning, match="nothing is there"):
            assert (
                list(
                    webdataset.WebDataset(
                        url, shardshuffle=False, empty_check=False, handler=webdataset.warn_and_continue
                    )
                )
                == []
            )


def test_which_schemes() -> None:
    """All by default, none that is not known; and nothing is written."""
    with pytest.raises(fastdl.UsageError, match="scheme 'ftp' is none of"):
        register("http", "ftp")
    register()
    openers = {gopen_schemes[scheme].func for scheme in SCHEMES}
    assert len(openers) == 1
    with pytest.raises(fastdl.UsageError, match="only reads"):
        gopen("http://127.0.0.1/a.tar", "wb")


def test_the_command_in_a_pipe(shards: tuple[list[Sample], Path]) -> None:
    """Without a registration ``fastdl cat`` does it."""
    written, root = shards
    with serving_nginx(root) as server:
        url = f"pipe:{sys.executable} -m fastdl cat {server.url('/0000.tar')}"
        assert fields(list(webdataset.WebDataset(url, shardshuffle=False))) == by_key(written[:6])
