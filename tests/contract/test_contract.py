"""The contract: exact bytes or the right error, whatever source meets whatever server."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import fastdl
from fastdl import sources
from fastdl.contract import range_header
from fastdl.http import Transport
from fastdl.messages import Line
from tests.contract import pairs
from tests.contract.pairs import CASES, PAIRS, Pair
from tests.e2e.partial import bits, checkpoint_of, leftovers, marked
from tests.e2e.processes import running

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fastdl import DownloadResult
    from tests.contract.shelves import Shelf, Way

PART = 133_331  # bytes: no round number, so that nothing fits by chance
DATA = random.Random(51).randbytes(70 * PART + 4321)  # more than the first request asks for
OTHER = random.Random(52).randbytes(len(DATA))
QUIET = {"AWS_EC2_METADATA_DISABLED": "true"}

contract = pytest.mark.parametrize("pair", PAIRS, ids=[pair.name for pair in PAIRS])


@pytest.fixture
def shelf(pair: Pair, shelf_of: Callable[[str], Shelf]) -> Shelf:
    """Return the server of a pair."""
    return shelf_of(pair.server)


def fetch(way: Way, folder: Path, **settings: Any) -> DownloadResult:
    """Download in this process."""
    given = {"part_size": PART, "workers": 1, "connections": 3, **way.settings, **settings}
    return fastdl.download(way.url, folder / "out", **given)


def key_of(pair: Pair, case: str) -> str:
    """Name an object that no other test touches."""
    return f"{case}-{pair.source}"


def killed(way: Way, folder: Path) -> int:
    """Run the command until some parts are marked, kill it with all its processes; return how many were."""
    out = folder / "out"
    arguments = (way.url, "-o", out, "-p", PART, "-x", 2, "-w", 1, "--limit-rate", 12_000_000, *way.arguments)
    with running(folder / "logs", *arguments, environment=QUIET | way.variables) as command:
        command.wait_until(lambda: bits(checkpoint_of(out)) >= 5)
        command.kill_tree()
        command.wait_gone()
    plan, found = marked(checkpoint_of(out))
    assert plan is not None
    assert 5 <= len(found) < plan.count
    return len(found)


def ask(source: sources.Source, *headers: tuple[str, str]) -> tuple[int, Mapping[str, str], bytes]:
    """Send one request of the source's own with other headers; return status, head and body."""
    transport = Transport(Line(5.0, 5.0), 1)
    try:
        response = transport.open(source.request(None), headers)
        return response.status, response.headers, response.excerpt()
    finally:
        transport.close()


@contract
def test_a_whole_object(pair: Pair, shelf: Shelf, tmp_path: Path) -> None:
    """Exact, proven as far as the server promises anything, nothing left beside it."""
    shelf.put(key_of(pair, "whole"), DATA)
    result = fetch(shelf.way(pair.source, key_of(pair, "whole")), tmp_path)
    assert (tmp_path / "out").read_bytes() == DATA
    assert leftovers(tmp_path) == ["out"]
    assert (result.size, result.parts, result.integrity) == (len(DATA), 71, pair.integrity)


@contract
def test_sizes_at_the_edges(pair: Pair, shelf: Shelf, tmp_path: Path) -> None:
    """Nothing, one byte, a part, a byte more or less; parts of seven bytes."""
    key = key_of(pair, "edges")
    for size, part_size in ((0, PART), (1, PART), (PART - 1, PART), (PART, PART), (PART + 1, PART), (50, 7)):
        shelf.put(key, DATA[:size])
        result = fetch(shelf.way(pair.source, key), tmp_path, part_size=part_size)
        assert (tmp_path / "out").read_bytes() == DATA[:size]
        assert result.size == size


@contract
def test_resumed_after_a_kill(pair: Pair, shelf: Shelf, tmp_path: Path) -> None:
    """What was marked is used and not fetched again."""
    shelf.put(key_of(pair, "resumed"), DATA)
    way = shelf.way(pair.source, key_of(pair, "resumed"))
    found = killed(way, tmp_path)
    result = fetch(way, tmp_path)
    assert (tmp_path / "out").read_bytes() == DATA
    assert (result.parts_reused, result.started_over, result.integrity) == (found, "", pair.integrity)
    assert result.bytes_fetched <= len(DATA) - (found - 1) * PART


@contract
def test_replaced_in_between(pair: Pair, shelf: Shelf, tmp_path: Path) -> None:
    """Another object of the same size: no old byte is kept, and the result says why."""
    shelf.put(key_of(pair, "replaced"), DATA)
    way = shelf.way(pair.source, key_of(pair, "replaced"))
    killed(way, tmp_path)
    shelf.put(key_of(pair, "replaced"), OTHER)
    result = fetch(way, tmp_path)
    assert (tmp_path / "out").read_bytes() == OTHER
    assert "the object was replaced" in result.started_over
    assert result.parts_reused == 0


@contract
def test_how_ranges_are_answered(pair: Pair, shelf: Shelf) -> None:
    """The bytes asked for, clipped at the end, nothing of an empty object; where a server lies the table says so."""
    key = key_of(pair, "ranges")
    shelf.put(key, DATA)
    way = shelf.way(pair.source, key)
    source = sources.resolve(way.url, **way.settings)
    status, headers, body = ask(source, range_header(1000, 1010))
    assert (status, body) == (pair.range_status, DATA[1000:1010])
    assert headers["Content-Range"] == f"bytes 1000-1009/{len(DATA)}"
    status, headers, body = ask(source, range_header(len(DATA) - 5, len(DATA) + 5))
    if pair.clips:
        assert (status, body) == (pair.range_status, DATA[-5:])
        assert headers["Content-Range"] == f"bytes {len(DATA) - 5}-{len(DATA) - 1}/{len(DATA)}"
    else:
        assert (status, int(headers["Content-Length"])) == (200, len(DATA))
    status, _, _ = ask(source, range_header(0, 1), ("If-Match", '"another"'))
    assert status == pair.mismatch_status
    shelf.put(key, b"")
    assert ask(source, range_header(0, 1))[0] == pair.empty_status


@contract
def test_missing(pair: Pair, shelf: Shelf, tmp_path: Path) -> None:
    """Exit code 3, no file."""
    with pytest.raises(fastdl.NotFound):
        fetch(shelf.way(pair.source, "nowhere"), tmp_path)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    "pair",
    [pair for pair in PAIRS if pair.wrong_secret is not None],
    ids=[pair.name for pair in PAIRS if pair.wrong_secret is not None],
)
def test_a_wrong_secret(pair: Pair, shelf: Shelf, tmp_path: Path) -> None:
    """Exit code 4 where signatures are checked."""
    shelf.put(key_of(pair, "secret"), DATA[:100])
    way = shelf.way(pair.source, key_of(pair, "secret"), wrong_secret=True)
    if pair.wrong_secret == 0:
        assert fetch(way, tmp_path).size == 100
    else:
        with pytest.raises(fastdl.AccessDenied) as caught:
            fetch(way, tmp_path)
        assert caught.value.exit_code == pair.wrong_secret
        assert leftovers(tmp_path) == []


@contract
def test_the_facts(pair: Pair, shelf: Shelf, tmp_path: Path) -> None:
    """What head tells is what a download then finds."""
    shelf.put(key_of(pair, "facts"), DATA)
    way = shelf.way(pair.source, key_of(pair, "facts"))
    facts = fastdl.head(way.url, **way.settings)
    result = fetch(way, tmp_path)
    assert (facts.size, facts.ranges) == (len(DATA), True)
    assert (facts.url, facts.etag, facts.integrity) == (result.url, result.etag, result.integrity)


def test_the_table_is_true() -> None:
    """README.md shows the pairs as they are tested, and names every test of the contract."""
    tests = {name for name in globals() if name.startswith("test_")} - {"test_the_table_is_true"}
    assert tests == {name for name, _ in CASES}
    assert pairs.table() in Path(__file__).with_name("README.md").read_text("utf-8")
