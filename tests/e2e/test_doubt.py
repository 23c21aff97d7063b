"""What one odd answer may not cost: a run that resumes asks again before it gives up what an earlier one left."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING

import pytest

import fastdl
from fastdl.retry import Backoff
from tests.e2e.command import names, run
from tests.servers import scripted
from tests.servers.scripted import Handler, Server, ignores_range, ranged, script, serving, status

if TYPE_CHECKING:
    from pathlib import Path

PART = 16 * 1024
DATA, OTHER = random.Random(1).randbytes(20 * PART + 5), random.Random(2).randbytes(20 * PART + 5)
RIGHT = ranged(DATA)
PAGE = b"<html>Please log in</html>"
login = status(200, {"Content-Type": "text/html; charset=utf-8"}, PAGE)
download = partial(fastdl.download, part_size=PART, connections=1, workers=1)

ODD: dict[str, Handler] = {
    "a login page": login,
    "a page of unknown length": scripted.chunked(PAGE, fields={"Content-Type": "text/html"}),
    "no ranges": ignores_range(DATA),
    "another ETag": ranged(DATA, etag='"v2"'),
    "another size": ranged(DATA[:-1]),
    "shorter than what is asked for": ranged(DATA[:PART]),
    "no validator": ranged(DATA, etag=None, last_modified=None),
}


@pytest.fixture(autouse=True)
def _quick_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process wait for milliseconds."""
    monkeypatch.setattr("fastdl.api.make_backoff", lambda retry: Backoff(attempts=retry + 1, base=0.01))


def then(*odd: Handler, otherwise: Handler = RIGHT) -> Handler:
    """Give ten parts of twenty, refuse, and answer the next run by ``odd`` and then by ``otherwise``."""
    faults: dict[int, Handler] = {1: scripted.short_206(10 * PART), 2: status(403)}
    opening = script(faults | dict(enumerate(odd, 3)), otherwise=RIGHT)
    return scripted.from_request(3 + len(odd), otherwise, opening)


def begin(server: Server, folder: Path) -> None:
    """Run into the refusal."""
    with pytest.raises(fastdl.AccessDenied):
        download(server.url(), folder / "out")
    assert names(folder) == {"out.part", "out.cp"}
    assert len(server.log) == 2


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("times", [1, 2])
def test_odd_answers_cost_nothing_where_a_later_one_is_right(tmp_path: Path, name: str, times: int) -> None:
    """A machine behind the same name that is not like the others: asked again, the ten parts are used."""
    odd = [ODD[name], *[ODD["no ranges"]] * (times - 1)]
    with serving(then(*odd)) as server:
        begin(server, tmp_path)
        result = download(server.url(), tmp_path / "out")
        assert len(server.log) == 2 + times + 1
    assert (tmp_path / "out").read_bytes() == DATA
    assert (result.parts_reused, result.started_over) == (10, "")
    assert result.bytes_fetched == len(DATA) - 10 * PART


@pytest.mark.parametrize("name", ["a login page", "a page of unknown length"])
def test_a_page_never_replaces_what_was_fetched(tmp_path: Path, name: str) -> None:
    """However often it comes: exit code 4, ten parts kept for the run that logs in, and a way out for who wants it."""
    with serving(then(otherwise=ODD[name])) as server:
        begin(server, tmp_path)
        outcome = run(server.url(), "-o", "out", "-p", "16K", cwd=tmp_path)
        assert (outcome.code, len(server.log)) == (4, 5)
        assert "page of HTML" in outcome.message
        assert names(tmp_path) == {"out.part", "out.cp"}
        assert run(server.url(), "-o", "out", "-p", "16K", "--resume", "no", cwd=tmp_path).code == 0
    assert (tmp_path / "out").read_bytes() == PAGE


@pytest.mark.parametrize("name", ["no ranges", "another ETag", "another size", "shorter than what is asked for"])
def test_answers_that_agree_are_believed(tmp_path: Path, name: str) -> None:
    """An object that was replaced, or lost its ranges, starts over, and the result says why."""
    with serving(then(otherwise=ODD[name])) as server:
        begin(server, tmp_path)
        result = download(server.url(), tmp_path / "out")
    assert (result.parts_reused, bool(result.started_over)) == (0, True)
    assert DATA.startswith((tmp_path / "out").read_bytes())


def test_answers_that_contradict_one_another_cost_nothing(tmp_path: Path) -> None:
    """Three answers, three objects: nobody knows which, so what is there stays."""
    with serving(then(ODD["another ETag"], ODD["another size"], login)) as server:
        begin(server, tmp_path)
        with pytest.raises(fastdl.FastdlError, match="what was fetched is kept"):
            download(server.url(), tmp_path / "out")
        result = download(server.url(), tmp_path / "out")
    assert (result.parts_reused, result.started_over) == (10, "")


def test_contradictions_are_told_as_the_servers(tmp_path: Path) -> None:
    """Exit code 6, in one line that says what was odd."""
    odd = (ODD["another ETag"], ODD["another size"], ranged(OTHER, etag='"v3"'))
    with serving(then(*odd)) as server:
        begin(server, tmp_path)
        outcome = run(server.url(), "-o", "out", "-p", "16K", cwd=tmp_path)
    assert (outcome.code, names(tmp_path)) == (6, {"out.part", "out.cp"})
    assert "contradict" in outcome.message


def test_verbose_tells_what_was_reused_and_what_was_proven(tmp_path: Path) -> None:
    """One line for each, also where nobody sees a summary; without -v success is silent."""
    with serving(then()) as server:
        begin(server, tmp_path)
        outcome = run(server.url(), "-o", "out", "-p", "16K", "-v", cwd=tmp_path, as_json=False)
        lines = outcome.stderr.splitlines()
        assert sum(line.endswith("out: 10 of 21 parts reused") for line in lines) == 1
        assert sum("out: length verified, the server promises no checksum; CRC-64 is " in line for line in lines) == 1
        again = run(server.url(), "-o", "out", cwd=tmp_path, as_json=False)
    assert (outcome.code, again.code, again.stderr) == (0, 0, "")
