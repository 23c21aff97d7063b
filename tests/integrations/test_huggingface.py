"""``hf://`` against a hub of the test's own: redirects to another origin, a token that only the hub may see."""

from __future__ import annotations

import hashlib
import random
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

import fastdl
from fastdl.errors import UsageError
from fastdl.sources import huggingface
from tests.e2e.command import names, run
from tests.servers.scripted import Exchange, Server, ranged, serving, truncate_after

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATA = random.Random(5).randbytes(300_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
TOKEN = "hf_CANARYtoken"
LARGE, SMALL, MOVED = (
    "/org/model/resolve/main/a%20b.bin",
    "/org/model/resolve/main/config.json",
    "/org/old/resolve/main/x",
)


@contextmanager
def hub(promise: str = SHA256, *, expires: int = 0) -> Iterator[tuple[Server, Server]]:
    """Serve a hub and the store that it redirects to, which breaks off and then refuses ``expires`` requests."""
    left = [expires]

    def store(exchange: Exchange) -> None:
        exchange.otherwise = ranged(DATA)
        if exchange.request.headers.get("authorization"):
            exchange.reply(400, {"Content-Length": "0"})
        elif left[0] and exchange.request.number > 1:
            left[0] -= 1
            exchange.reply(403, {"Content-Length": "0"})
        elif left[0]:
            truncate_after(100_000)(exchange)
        else:
            exchange.otherwise(exchange)

    def answer(exchange: Exchange) -> None:
        path = exchange.request.target
        if exchange.request.headers.get("authorization") != f"Bearer {TOKEN}":
            fields = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to model org/model is restricted."}
            exchange.reply(401, {**fields, "Content-Length": "0"})
        elif path == MOVED:
            exchange.reply(307, {"Location": LARGE, "Content-Length": "0"})
        elif path == LARGE:
            fields = {"X-Linked-Etag": f'"{promise}"', "X-Linked-Size": str(len(DATA)), "X-Repo-Commit": "1" * 40}
            exchange.reply(302, {"Location": contents.url("/blob?Signature=x"), "Content-Length": "0", **fields})
        elif path == SMALL:
            ranged(DATA[:1000], etag='"6e2f2a6e1f7b5e2f2a6e1f7b5e2f2a6e1f7b5e2f"')(exchange)
        else:
            exchange.reply(
                404, {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found", "Content-Length": "0"}
            )

    with serving(store) as contents, serving(answer) as front:
        yield front, contents


def test_a_large_file_is_proven_and_its_store_never_sees_the_token(tmp_path: Path) -> None:
    """The command follows the hub's redirect; what the hub calls the file, its SHA-256, is compared."""
    with hub() as (front, contents):
        variables = {"HF_ENDPOINT": front.url(""), "HF_TOKEN": TOKEN}
        outcome = run("hf://org/model/a b.bin", cwd=tmp_path, variables=variables)
        assert outcome.code == 0, outcome.message
        assert (outcome.last["url"], outcome.last["integrity"]) == ("hf://org/model/a b.bin", "sha256")
        assert all("authorization" not in seen.headers for seen in contents.log)
    assert (tmp_path / "a b.bin").read_bytes() == DATA
    assert names(tmp_path) == {"a b.bin"}


def test_a_file_under_a_repository_s_old_name(tmp_path: Path) -> None:
    """The hub redirects to the new one first, and only that one tells the digest."""
    with hub() as (front, _):
        run_ok = run("hf://org/old/x", cwd=tmp_path, variables={"HF_ENDPOINT": front.url(""), "HF_TOKEN": TOKEN})
    assert run_ok.last["integrity"] == "sha256"


def test_what_is_not_what_the_hub_promises_is_no_file(tmp_path: Path) -> None:
    """Exit code 8, and nothing under the name."""
    with hub("0" * 64) as (front, _):
        variables = {"HF_ENDPOINT": front.url(""), "HF_TOKEN": TOKEN}
        outcome = run("hf://org/model/a b.bin", "--retry", "0", cwd=tmp_path, variables=variables)
    assert outcome.code == 8
    assert "a b.bin" not in names(tmp_path)


def test_a_small_file_comes_from_the_hub_itself(tmp_path: Path) -> None:
    """Its ETag is a digest of git's and no promise."""
    with hub() as (front, _):
        outcome = run(
            "hf://org/model/config.json", cwd=tmp_path, variables={"HF_ENDPOINT": front.url(""), "HF_TOKEN": TOKEN}
        )
    assert outcome.last["integrity"] == "length"
    assert (tmp_path / "config.json").read_bytes() == DATA[:1000]


@pytest.mark.parametrize(
    ("url", "token", "code", "text"),
    [
        ("hf://org/model/none.bin", TOKEN, 3, "Entry not found"),
        ("hf://org/model/a b.bin", "hf_CANARYother", 4, "Access to model org/model is restricted"),
        ("hf://org/model/a b.bin", None, 4, "Access to model org/model is restricted"),
        ("hf://org/model", TOKEN, 2, "hf://[datasets/]ORG/NAME[@REVISION]/PATH"),
        ("hf://or--g/model/x", TOKEN, 2, "no file of a repository"),
    ],
)
def test_refusals(tmp_path: Path, url: str, token: str | None, code: int, text: str) -> None:
    """Each says in one line what the hub said, and no token."""
    with hub() as (front, _):
        variables = {"HF_ENDPOINT": front.url("")} | ({"HF_TOKEN": token} if token else {})
        outcome = run(url, "-o", "out", cwd=tmp_path, variables=variables)
    assert outcome.code == code
    assert text in outcome.message
    assert "CANARY" not in outcome.stdout + outcome.stderr
    assert names(tmp_path) == set()


def test_a_signature_that_expires_on_the_way_is_renewed_by_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store refuses the second request; the hub is asked once more and sends there again."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with hub(expires=1) as (front, contents):
        url, out = "hf://org/model/a b.bin", tmp_path / "out"
        result = fastdl.download(url, out, endpoint_url=front.url(""), connections=1, workers=1)
        assert [seen.method for seen in front.log].count("GET") == 2
        assert len(contents.log) >= 3
    assert out.read_bytes() == DATA
    assert result.integrity == "sha256"


def test_every_way_to_an_object_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams, ranges and heads too."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with hub() as (front, _):
        url, endpoint = "hf://org/model/a b.bin", front.url("")
        with fastdl.stream(url, endpoint_url=endpoint) as stream:
            assert stream.read() == DATA
        assert fastdl.read_ranges(url, [(5, 10)], endpoint_url=endpoint) == [DATA[5:15]]
        assert fastdl.head(url, endpoint_url=endpoint).integrity == "sha256"


@pytest.mark.parametrize(
    ("url", "page"),
    [
        ("hf://org/m/a/b c.bin", "/org/m/resolve/main/a/b%20c.bin"),
        ("HF://org/m@v1.0/x", "/org/m/resolve/v1.0/x"),
        ("hf://models/org/m/x", "/org/m/resolve/main/x"),
        ("hf://datasets/o/n@refs/convert/parquet/d/x", "/datasets/o/n/resolve/refs%2Fconvert%2Fparquet/d/x"),
        ("hf://spaces/o/n@feature%2Fx/100%25", "/spaces/o/n/resolve/feature%2Fx/100%2525"),
        ("hf://datasets/o/n/what?x=1#y", "/datasets/o/n/resolve/main/what%3Fx%3D1%23y"),
    ],
)
def test_where_a_file_is(url: str, page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kinds, revisions and literal paths; the token goes along only where there is one and it is wanted."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert huggingface.locate(url, endpoint="https://hub.example/")[0] == f"https://hub.example{page}"
    assert huggingface.locate(url)[1] == {"authorization": f"Bearer {TOKEN}"}
    assert huggingface.locate(url, sign=False)[1] == {}


def test_resolve_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """For who fetches by other means."""
    from fastdl.integrations.huggingface import resolve  # noqa: PLC0415

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    url, headers = resolve("hf://org/model/config.json")
    assert url.endswith(SMALL)
    assert headers == {"authorization": f"Bearer {TOKEN}"}
    with pytest.raises(UsageError, match="an hf:// URL is"):
        resolve("hf://model/config.json")
