"""pooch fetches by fastdl: into its cache, with its own check of hashes and its own progress bars."""

from __future__ import annotations

import hashlib
import io
import random
from pathlib import Path

import pooch
import pytest

import fastdl
from fastdl.integrations.pooch import Downloader
from tests.servers.oss import KEY, serving_oss
from tests.servers.scripted import ranged, routes, serving, status

DATA = random.Random(8).randbytes(300_000)
KNOWN = f"sha256:{hashlib.sha256(DATA).hexdigest()}"


class Bar:
    """A progress bar of a user's, as pooch documents it."""

    total: int | None = None

    def __init__(self) -> None:
        self.done = 0
        self.closed = False

    def update(self, count: int) -> None:
        """Take so many bytes more."""
        self.done += count

    def reset(self) -> None:
        """Begin anew."""
        self.done = 0

    def close(self) -> None:
        """Be done."""
        self.closed = True


def test_a_file_in_the_cache(tmp_path: Path) -> None:
    """It is there under pooch's name, checked by pooch, and nothing else is left."""
    bar = Bar()
    with serving(ranged(DATA)) as server:
        url = server.url("/a.bin")
        path = pooch.retrieve(url, KNOWN, fname="a.bin", path=tmp_path, downloader=Downloader(progressbar=bar))
        asked = len(server.log)
        assert pooch.retrieve(url, KNOWN, fname="a.bin", path=tmp_path, downloader=Downloader()) == path
        assert len(server.log) == asked
    assert [each.name for each in tmp_path.iterdir()] == ["a.bin"]
    assert (tmp_path / "a.bin").read_bytes() == DATA
    assert (bar.total, bar.done, bar.closed) == (len(DATA), len(DATA), True)


@pytest.mark.parametrize("progressbar", [False, True])
def test_a_registry_whose_base_is_a_store(tmp_path: Path, progressbar: bool) -> None:
    """Pooch itself knows no such URLs; the downloader does, and says what is there."""
    with serving_oss({"data/a.bin": DATA}) as server:
        fetcher = Downloader(
            progressbar, endpoint_url=server.url(""), region="cn-hangzhou", credentials=(KEY.id, KEY.secret)
        )
        shelf = pooch.create(tmp_path, "oss://bucket/data/", registry={"a.bin": KNOWN, "b.bin": None})
        assert Path(shelf.fetch("a.bin", downloader=fetcher)).read_bytes() == DATA
        assert shelf.is_available("a.bin", downloader=fetcher)
        assert not shelf.is_available("b.bin", downloader=fetcher)


def test_a_file_that_is_open() -> None:
    """Pooch hands in files too."""
    body, bar = io.BytesIO(), Bar()
    with serving(ranged(DATA)) as server:
        Downloader(progressbar=bar, retry=1)(server.url("/a"), body, None)
        Downloader()(server.url("/a"), body, None)
    assert body.getvalue() == DATA + DATA
    assert (bar.total, bar.done, bar.closed) == (len(DATA), len(DATA), True)


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    """Neither under the name nor beside it, whoever found it wrong."""
    with serving(routes({"/a": ranged(DATA), "/b": status(403)})) as server:
        with pytest.raises(ValueError, match="hash"):
            pooch.retrieve(server.url("/a"), "sha256:" + "0" * 64, fname="a", path=tmp_path, downloader=Downloader())
        with pytest.raises(fastdl.AccessDenied):
            pooch.retrieve(server.url("/b"), None, fname="b", path=tmp_path, downloader=Downloader())
        assert not Downloader(retry=0)(server.url("/b"), "unused", None, check_only=True)
    assert list(tmp_path.iterdir()) == []
