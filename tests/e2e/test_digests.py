"""Each digest that a server promises or a user expects is really compared, whichever way the bytes came."""

from __future__ import annotations

import base64
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

import fastdl
from fastdl.hashers import make_hasher
from tests.e2e.command import left_to_workers, names, run
from tests.servers.scripted import (
    Exchange,
    Handler,
    Pattern,
    chunked,
    ignores_range,
    ranged,
    script,
    serving,
    short_206,
    status,
)

if TYPE_CHECKING:
    from pathlib import Path

PART = 64 * 1024
SIZE = 20 * PART + 5
DATA = bytes(Pattern(SIZE).read(0, SIZE))
LARGE = bytes(Pattern(200 * PART + 5).read(0, 200 * PART + 5))  # more than the first request asks for
WRONG = DATA[:-1] + b"?"
ON_RANGES = ("sha256", "sha512", "md5", "sha1", "goog crc32c", "goog md5")
ON_WHOLES = (
    *("content sha256", "content md5", "amz crc64nvme", "amz crc32c", "amz crc32", "amz sha256", "amz sha1"),
    "amz untyped sha256",
)
ORDERED = {
    "200": lambda data, fields: ignores_range(data, extra_headers=fields),
    "chunked": lambda data, fields: chunked(data, fields=fields),
}


def hexdigest(algorithm: str, data: bytes) -> str:
    """Hash in one go."""
    hasher = make_hasher(algorithm)
    hasher.update(memoryview(data))
    return hasher.hexdigest()


def fields_of(promise: str, data: bytes) -> dict[str, str]:
    """Make the header fields that promise ``data`` in the way that is named; the algorithm is the last word."""
    algorithm = promise.rpartition(" ")[2]
    coded = base64.b64encode(bytes.fromhex(hexdigest(algorithm, data))).decode()
    names = {"sha256": "sha-256", "sha512": "sha-512", "sha1": "sha", "md5": "md5"}
    if promise.startswith("goog"):
        return {"x-goog-hash": f"{algorithm}={coded}"}
    if promise.startswith("amz"):
        kind = {} if "untyped" in promise else {"x-amz-checksum-type": "FULL_OBJECT"}
        return {f"x-amz-checksum-{algorithm}": coded, **kind}
    if promise == "content md5":
        return {"Content-MD5": coded}
    name = "Content-Digest" if promise.startswith("content") else "Repr-Digest"
    return {name: f"{names[algorithm]}=:{coded}:"}


def fetch(handler: Handler, folder: Path, **settings: Any) -> fastdl.DownloadResult:
    """Download in this process."""
    with serving(handler) as server:
        return fastdl.download(server.url(), folder / "out", **{"part_size": PART, "workers": 1, **settings})


@pytest.mark.parametrize("promise", ON_RANGES + ON_WHOLES)
def test_a_promise_is_what_a_ranged_download_proves(tmp_path: Path, promise: str) -> None:
    """The first answer covers the object here, so every header speaks of all of it."""
    result = fetch(ranged(DATA, extra_headers=fields_of(promise, DATA)), tmp_path)
    assert (result.integrity, result.parts) == (promise.rpartition(" ")[2], 21)
    assert (tmp_path / "out").read_bytes() == DATA


@pytest.mark.parametrize("promise", ON_RANGES + ON_WHOLES)
def test_a_broken_promise_is_never_published(tmp_path: Path, promise: str) -> None:
    """Both digests are in the text, nothing is left."""
    algorithm = promise.rpartition(" ")[2]
    with pytest.raises(fastdl.IntegrityError) as caught:
        fetch(ranged(DATA, extra_headers=fields_of(promise, WRONG)), tmp_path)
    assert hexdigest(algorithm, DATA) in str(caught.value)
    assert f"the store promised {hexdigest(algorithm, WRONG)}" in str(caught.value)
    assert names(tmp_path) == set()


@pytest.mark.parametrize("promise", ON_RANGES)
def test_these_are_promised_on_ranges_too(tmp_path: Path, promise: str) -> None:
    """The first answer carries two parts of the object, its head speaks of the whole."""
    for data in (DATA, WRONG):
        handler = ranged(DATA, extra_headers=fields_of(promise, data))
        handler = script({1: short_206(2 * PART)}, handler)
        if data is DATA:
            assert fetch(handler, tmp_path).integrity == promise.rpartition(" ")[2]
        else:
            with pytest.raises(fastdl.IntegrityError):
                fetch(handler, tmp_path)


@pytest.mark.parametrize("promise", ON_WHOLES)
def test_these_are_not(tmp_path: Path, promise: str) -> None:
    """On a range they are of the range: a wrong one says nothing of the object."""
    handler = script({1: short_206(2 * PART)}, ranged(DATA, extra_headers=fields_of(promise, WRONG)))
    assert fetch(handler, tmp_path).integrity == "length"


@pytest.mark.parametrize("framing", ORDERED)
@pytest.mark.parametrize("promise", ON_RANGES + ON_WHOLES)
def test_a_promise_is_what_an_ordered_stream_proves(tmp_path: Path, framing: str, promise: str) -> None:
    """Whether or not its length is known."""
    assert fetch(ORDERED[framing](DATA, fields_of(promise, DATA)), tmp_path).integrity == promise.rpartition(" ")[2]
    assert (tmp_path / "out").read_bytes() == DATA
    with pytest.raises(fastdl.IntegrityError):
        fetch(ORDERED[framing](DATA, fields_of(promise, WRONG)), tmp_path)
    assert names(tmp_path) == {"out"}, "the older file stays, nothing else does"


@pytest.mark.parametrize("framing", ORDERED)
def test_a_stream_that_begins_again_is_hashed_again(tmp_path: Path, framing: str) -> None:
    """What a broken answer brought is not part of the digest."""
    fields = fields_of("sha256", DATA)

    def broken(exchange: Exchange) -> None:
        exchange.break_body(SIZE // 2, exchange.close)
        ORDERED[framing](WRONG[::-1], fields)(exchange)

    result = fetch(script({1: broken}, ORDERED[framing](DATA, fields)), tmp_path)
    assert (result.integrity, result.retries) == ("sha256", 1)
    assert (tmp_path / "out").read_bytes() == DATA


@pytest.mark.parametrize("data", [b"", b"x"])
def test_the_smallest_objects_are_proven(tmp_path: Path, data: bytes) -> None:
    """The digest of nothing is a digest."""
    handler = ignores_range(data, extra_headers=fields_of("sha256", data))
    assert fetch(handler, tmp_path).integrity == "sha256"
    with pytest.raises(fastdl.IntegrityError):
        fetch(ignores_range(data, extra_headers=fields_of("sha256", b"y")), tmp_path)


def test_an_error_page_promises_nothing(tmp_path: Path) -> None:
    """A 416 tells that the object is empty; its digest is of the page that says so."""
    page = status(416, {"Content-Range": "bytes */0", **fields_of("sha256", b"sorry")}, b"sorry")
    assert fetch(page, tmp_path).integrity == "length"
    assert (tmp_path / "out").read_bytes() == b""


class Recovering:
    """Answers the first request only, until it is ``healthy``."""

    def __init__(self, handler: Handler) -> None:
        self.healthy = False
        self._handler = handler

    def __call__(self, exchange: Exchange) -> None:
        """Answer."""
        exchange.otherwise = self._handler
        (self._handler if self.healthy or exchange.request.number == 1 else status(404))(exchange)


def resumed(folder: Path, promised: bytes, resume: str, *, flip: bool = False) -> fastdl.DownloadResult:
    """Download the larger object in two runs, perhaps with a byte flipped on the disk between them."""
    handler = Recovering(ranged(LARGE, extra_headers=fields_of("sha256", promised)))
    settings: dict[str, Any] = {"part_size": PART, "workers": 1, "connections": 1}
    with serving(handler) as server:
        with pytest.raises(fastdl.NotFound):
            fastdl.download(server.url(), folder / "out", **settings)
        if flip:
            with (folder / "out.part").open("r+b") as file:
                file.write(bytes([LARGE[0] ^ 1]))
        handler.healthy = True
        return fastdl.download(server.url(), folder / "out", resume=resume, **settings)


@pytest.mark.parametrize("resume", ["verify", "trust"])
def test_a_resumed_download_proves_the_parts_it_kept_as_well(tmp_path: Path, resume: str) -> None:
    """They are read for the digest, trusted or not."""
    result = resumed(tmp_path, LARGE, resume)
    assert (result.integrity, result.parts_reused > 100) == ("sha256", True)
    assert (tmp_path / "out").read_bytes() == LARGE


@pytest.mark.parametrize("resume", ["verify", "trust"])
def test_a_resumed_download_with_a_broken_promise_is_never_published(tmp_path: Path, resume: str) -> None:
    """Nothing is left of it."""
    with pytest.raises(fastdl.IntegrityError):
        resumed(tmp_path, LARGE[:-1], resume)
    assert names(tmp_path) == set()


@pytest.mark.parametrize("resume", ["verify", "trust"])
def test_a_part_that_changed_on_the_disk_is_not_in_the_digest(tmp_path: Path, resume: str) -> None:
    """Hashing waits for the judgement of the part; where parts are trusted the digest finds it, and it is mended."""
    result = resumed(tmp_path, LARGE, resume, flip=True)
    assert (result.integrity, result.parts_damaged) == ("sha256", (0,))
    assert result.bytes_fetched < len(LARGE), "hashed before it was judged, so that everything was fetched again"
    assert (tmp_path / "out").read_bytes() == LARGE


@pytest.mark.parametrize(("promised", "code"), [(LARGE, 0), (LARGE[:-1], 8)])
def test_parts_of_several_workers_are_hashed_in_order(tmp_path: Path, promised: bytes, code: int) -> None:
    """They finish in any order; each is read once all before it are there."""
    fields = fields_of("sha256", promised)
    with serving(script(left_to_workers(PART, 6), ranged(LARGE, extra_headers=fields))) as server:
        outcome = run(server.url(), "-o", "out", "-p", str(PART), "-x", "8", "-w", "2", cwd=tmp_path)
        assert len({seen.connection for seen in server.log}) >= 4
    assert outcome.code == code, outcome.message
    assert names(tmp_path) == ({"out"} if code == 0 else set())
    if code == 0:
        assert outcome.last["integrity"] == "sha256"
        assert (tmp_path / "out").read_bytes() == LARGE


def test_a_file_truncated_behind_the_frontier_is_a_disk_error(tmp_path: Path) -> None:
    """Exit code 9 and no digest of less; the file is cut while the second answer is waited for."""
    cut = threading.Event()

    def truncate(exchange: Exchange) -> None:
        os.truncate(tmp_path / "out.part", PART)
        cut.set()
        exchange.otherwise(exchange)

    with serving(script({2: truncate}, ranged(LARGE, extra_headers=fields_of("sha256", LARGE)))) as server:
        outcome = run(server.url(), "-o", "out", "-p", str(PART), "-x", "1", "-w", "1", cwd=tmp_path)
    assert cut.is_set()
    assert outcome.code == 9
    assert "another process truncated" in outcome.message


def test_all_that_users_expect_is_compared(tmp_path: Path) -> None:
    """Several digests of one object; the strongest is named, each wrong one is an error."""
    right = [f"{name}={hexdigest(name, DATA)}" for name in ("md5", "sha256", "crc32c", "crc64nvme")]
    assert fetch(ranged(DATA), tmp_path, checksum=right).integrity == "sha256"
    for index, checksum in enumerate(right):
        name, _, digest = checksum.partition("=")
        spoilt = [*right[:index], f"{name}={digest[::-1]}", *right[index + 1 :]]
        with pytest.raises(fastdl.IntegrityError, match=f"{name} is {digest}, expected"):
            fetch(ranged(DATA), tmp_path, checksum=spoilt)


def test_several_checksums_by_the_command(tmp_path: Path) -> None:
    """--checksum may be repeated."""
    flags = [f"--checksum={name}={hexdigest(name, DATA)}" for name in ("sha1", "crc64")]
    with serving(ranged(DATA)) as server:
        outcome = run(server.url(), "-o", "out", *flags, cwd=tmp_path)
        assert (outcome.code, outcome.last["integrity"]) == (0, "crc64")
        outcome = run(server.url(), "-o", "out", *flags, "--checksum=crc32=00000000", cwd=tmp_path)
        assert outcome.code == 8


def test_a_broken_promise_by_the_command(tmp_path: Path) -> None:
    """Exit code 8, one line, no file."""
    with serving(ranged(DATA, extra_headers=fields_of("sha256", WRONG))) as server:
        outcome = run(server.url(), "-o", "out", "-p", str(PART), cwd=tmp_path)
    assert outcome.code == 8
    assert names(tmp_path) == set()


def test_a_store_that_contradicts_itself_proves_nothing(tmp_path: Path) -> None:
    """One of two values is wrong, whichever."""
    fields = fields_of("sha256", WRONG) | fields_of("content sha256", DATA)
    with pytest.raises(fastdl.IntegrityError):
        fetch(ranged(DATA, extra_headers=fields), tmp_path)
