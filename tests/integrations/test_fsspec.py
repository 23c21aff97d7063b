"""fastdl as a file system of fsspec: the very bytes by every method, Python's own errors, and no secret shown."""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import pickle
import random
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import fsspec
import pytest
from fsspec.callbacks import Callback
from fsspec.registry import _registry

import fastdl
from fastdl.integrations.fsspec import SCHEMES, FastdlFileSystem, register
from fastdl.integrations.fsspec_files import Growing
from tests.e2e.s3 import nobodys_machine
from tests.servers.nginx import serving_nginx
from tests.servers.oss import KEY as OSS_KEY
from tests.servers.oss import serving_oss
from tests.servers.s3 import KEY, REGION, serving_s3
from tests.servers.scripted import chunked, ignores_range, ranged, routes, serving, status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.servers.nginx import Nginx
    from tests.servers.scripted import Exchange

DATA = random.Random(77).randbytes(700_000)
SLICES = [
    (None, None),
    (0, 10),
    (5, 5),
    (9, 3),
    (-7, None),
    (None, -699_990),
    (-20, -10),
    (699_000, 800_000),
    (10**9, None),
]
SLICES += [(10**9, 10**9 + 5), (None, 100), (3, None), (-(10**9), 4)]


@pytest.fixture(autouse=True)
def _registry_as_before() -> Iterator[None]:
    """Leave fsspec as it was; instances go with the settings of a test."""
    before = dict(_registry)
    yield
    _registry.clear()
    _registry.update(before)
    classes: list[type[FastdlFileSystem]] = [FastdlFileSystem, *SCHEMES.values()]
    for each in classes:
        each.clear_instance_cache()


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[tuple[FastdlFileSystem, Nginx]]:
    """Serve one object, with a file system for it."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "object.bin").write_bytes(DATA)
    (root / "lines.txt").write_bytes(b"".join(b"line %d\n" % number for number in range(50_000)))
    with serving_nginx(root) as server:
        yield FastdlFileSystem(), server


def test_the_entry_point_and_what_chains_come_to(shelf: tuple[FastdlFileSystem, Nginx]) -> None:
    """Fsspec finds the class by the package's metadata, by a URL behind ``fastdl://`` and by a chain."""
    server = shelf[1]
    assert fsspec.get_filesystem_class("fastdl") is FastdlFileSystem
    url = server.url("/object.bin")
    for text in (f"fastdl://{url}", f"fastdl::{url}"):
        fs, path = fsspec.url_to_fs(text)
        assert isinstance(fs, FastdlFileSystem)
        assert fs.cat_file(path) == DATA
        assert fs.info(path)["name"] == f"fastdl://{url}"
        with fsspec.open(text) as file:
            assert file.read() == DATA
    opened = fsspec.open_files([f"fastdl::{url}", f"fastdl::{server.url('/lines.txt')}"])
    with opened[0] as first, opened[1] as second:
        assert (first.read(), second.read(6)) == (DATA, b"line 0")


def test_what_an_object_is(shelf: tuple[FastdlFileSystem, Nginx]) -> None:
    """Each object is a file, and nothing else is there."""
    fs, server = shelf
    name, missing = f"fastdl://{server.url('/object.bin')}", server.url("/none")
    told = fs.info(server.url("/object.bin"))
    facts = fastdl.head(server.url("/object.bin"))
    assert told["name"] == name
    assert (told["size"], told["type"], told["etag"]) == (len(DATA), "file", facts.etag)
    assert fs.ls(name) == [told]
    assert fs.ls(name, detail=False) == fs.find(name) == fs.glob(name) == [name]
    assert fs.glob(name, detail=True) == {name: told}
    assert fs.exists(name)
    assert fs.isfile(name)
    assert not fs.isdir(name)
    assert fs.size(name) == len(DATA)
    assert fs.ukey(name) == fs.ukey(name)
    assert not fs.exists(missing)
    assert not fs.isfile(missing)
    assert fs.glob(missing) == []
    with pytest.raises(FileNotFoundError) as caught:
        fs.ls(missing)
    assert isinstance(caught.value.__cause__, fastdl.NotFound)
    with pytest.raises(NotImplementedError, match="name each object"):
        fs.glob(server.url("/*.bin"))


def test_a_question_mark_belongs_to_the_url(tmp_path: Path) -> None:
    """A query is no pattern: not for one path, not for lists of them, not for what gets files."""
    with serving(ranged(DATA)) as server:
        url = f"fastdl://{server.url('/object?versionId=[7]*')}"
        fs, path = fsspec.url_to_fs(url)
        assert fs.cat(path) == DATA
        assert fs.glob(path) == [url]
        fs.get(path, str(tmp_path / "out"))
        fs.get(path, f"{tmp_path}/new/")
        assert (tmp_path / "out").read_bytes() == (tmp_path / "new" / "object").read_bytes() == DATA
        with fsspec.open_files([url])[0] as file:
            assert file.read(5) == DATA[:5]
        assert {seen.target for seen in server.log} == {"/object?versionId=[7]*"}


@pytest.mark.parametrize(("start", "end"), SLICES)
def test_slices_are_those_of_python(shelf: tuple[FastdlFileSystem, Nginx], start: int | None, end: int | None) -> None:
    """Bounds may be missing, negative, crossed, or beyond the object."""
    fs, server = shelf
    assert fs.cat_file(server.url("/object.bin"), start, end) == DATA[start:end]


def test_many_ranges_of_many_objects(shelf: tuple[FastdlFileSystem, Nginx]) -> None:
    """One call for each object; what is not there is an error in its place, or raised."""
    fs, server = shelf
    url, lines, missing = (server.url(f"/{name}") for name in ("object.bin", "lines.txt", "none"))
    slices = [(start, end) for start, end in SLICES if start is not None and start >= 0 and end is not None]
    got = fs.cat_ranges([url] * len(slices), [start for start, _ in slices], [end for _, end in slices])
    assert got == [DATA[start:end] for start, end in slices]
    mixed = fs.cat_ranges([url, missing, lines, url], [0, 0, 0, -5], [3, 3, 6, None], max_gap=0)
    assert mixed[0] == DATA[:3]
    assert isinstance(mixed[1], FileNotFoundError)
    assert mixed[2:] == [b"line 0", DATA[-5:]]
    assert fs.cat_ranges([url, lines], 0, 4) == [DATA[:4], b"line"]
    assert fs.cat_ranges([], [], []) == []
    with pytest.raises(FileNotFoundError):
        fs.cat_ranges([url, missing], 0, 4, on_error="raise")
    with pytest.raises(ValueError, match="equally many"):
        fs.cat_ranges([url], [0, 1], [1, 2])
    with pytest.raises(TypeError):
        fs.cat_ranges(url, 0, 1)


class Watching(Callback):  # type: ignore[misc, unused-ignore]
    """Notes what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int | None, int]] = []

    def call(self, *_: Any, **__: Any) -> None:
        """Note how far it is."""
        self.seen.append((self.size, self.value))


def test_getting_files(shelf: tuple[FastdlFileSystem, Nginx], tmp_path: Path) -> None:
    """By ``download``, into directories that are made, with a callback; into open files too."""
    fs, server = shelf
    url, out = server.url("/object.bin"), tmp_path / "new" / "out"
    watching = Watching()
    fs.get_file(url, str(out), callback=watching)
    assert out.read_bytes() == DATA
    assert watching.seen[-1] == (len(DATA), len(DATA))
    buffer, watching = io.BytesIO(), Watching()
    fs.get_file(url, buffer, callback=watching)
    assert buffer.getvalue() == DATA
    assert watching.seen[-1] == (len(DATA), len(DATA))
    fs.get([url, server.url("/lines.txt")], [str(tmp_path / "a"), str(tmp_path / "b")])
    assert (tmp_path / "a").read_bytes() == DATA
    with pytest.raises(FileNotFoundError):
        fs.get_file(server.url("/none"), str(tmp_path / "none"))


def test_a_file_that_is_read_every_way(shelf: tuple[FastdlFileSystem, Nginx]) -> None:
    """Random reads and seeks give what a local file gives; lines too."""
    fs, server = shelf
    rng, local = random.Random(5), io.BytesIO(DATA)
    with fs.open(server.url("/object.bin")) as file:
        for _ in range(60):
            at, count = rng.randrange(-10, len(DATA) + 10), rng.choice((0, 1, 100, 70_000, 300_000))
            if at >= 0:
                assert file.seek(at) == local.seek(at)
            assert file.read(count) == local.read(count)
            assert file.tell() == local.tell()
    lines = [b"line %d\n" % number for number in range(50_000)]
    with fs.open(server.url("/lines.txt")) as file:
        assert list(file) == lines
    with fs.open(server.url("/lines.txt"), "rt") as text:
        assert text.read() == b"".join(lines).decode()
    with fs.open(server.url("/lines.txt"), cache_type="all") as file:
        assert [file.readline(), file.readline(3), file.readline()] == [lines[0], b"lin", b"e 1\n"]


def test_reading_on_fetches_ever_more_and_jumps_fetch_what_they_need() -> None:
    """Runs double while reading goes on; a jump begins anew, and the end of an object is one block."""
    size = 200 * 1024 * 1024
    asked: list[tuple[int, int]] = []

    def fetch(start: int, stop: int) -> bytes:
        asked.append((start, stop))
        return bytes(stop - start)

    cache = Growing(0, fetch, size)
    for at in range(0, size // 2, 1024 * 1024):
        cache._fetch(at, at + 1024 * 1024)
    lengths = [stop - start for start, stop in asked]
    assert asked[0] == (0, 1024 * 1024)
    assert [start for start, _ in asked[1:]] == [stop for _, stop in asked[:-1]]
    assert lengths == sorted(lengths)
    assert max(lengths) == 33 * 1024 * 1024
    assert len(asked) < 10
    asked.clear()
    cache._fetch(size - 8, size)
    cache._fetch(size - 1000, size - 8)
    cache._fetch(5, 6)
    assert asked == [(size - 256 * 1024, size), (5, 5 + 256 * 1024)]


def test_a_stream_for_who_reads_in_order(shelf: tuple[FastdlFileSystem, Nginx]) -> None:
    """Wanted, or because the server serves no ranges or tells no size; it cannot seek."""
    fs, server = shelf
    with fs.open(server.url("/lines.txt"), cache_type="stream") as file:
        assert [file.readline(), file.tell()] == [b"line 0\n", 7]
        assert not file.seekable()
        assert sum(1 for _ in file) == 49_999
    with FastdlFileSystem(cache_type="stream").open(server.url("/object.bin")) as file:
        assert (file.size, file.read()) == (len(DATA), DATA)
    for handler in (ignores_range(DATA), chunked(DATA)):
        with serving(handler) as simple, fs.open(simple.url()) as file:
            assert (file.read(3), file.read()) == (DATA[:3], DATA[3:])
            assert fs.cat_file(simple.url(), -5, -2) == DATA[-5:-2]
    with serving(ranged(b"")) as simple, fs.open(simple.url()) as file:
        assert file.read() == b""


def test_all_bytes_of_a_file_are_of_one_state() -> None:
    """What is replaced while a file is open is told, before and after the file went through a pickle."""
    other = bytes(len(DATA))
    now = [ranged(DATA, '"1"')]

    def handle(exchange: Exchange) -> None:
        now[0](exchange)

    fs = FastdlFileSystem()
    with serving(handle) as server, fs.open(server.url()) as file:
        assert file.read(5) == DATA[:5]
        copy = pickle.loads(pickle.dumps(file))
        assert copy.read(5) == DATA[5:10]
        packed = pickle.dumps(file)
        for replaced in (ranged(other, '"2"'), ranged(other[:9], '"1"')):
            now[0] = replaced
            file.seek(400_000)
            with pytest.raises(fastdl.ObjectChanged, match="replaced"):
                file.read(5)
            file.seek(0)
            with pytest.raises(fastdl.ObjectChanged, match="replaced"):
                file.read()
        with pytest.raises(fastdl.ObjectChanged, match="size was 700000, is 9"):
            pickle.loads(packed)


def test_a_whole_object_is_judged() -> None:
    """Bytes that are not what the store promised are no content of a file."""
    with serving(ranged(DATA, extra_headers={"x-oss-hash-crc64ecma": "5"})) as server:
        fs = FastdlFileSystem(retry=1)
        with pytest.raises(fastdl.IntegrityError):
            fs.cat_file(server.url())
        with fs.open(server.url()) as file, pytest.raises(fastdl.IntegrityError):
            file.read()


@pytest.mark.parametrize(
    "write",
    [
        lambda fs, url: fs.open(url, "wb"),
        lambda fs, url: fs.open(url, "ab"),
        lambda fs, url: fs.write_text(url, "x"),
        lambda fs, url: fs.pipe(url, b"x"),
        lambda fs, url: fs.put_file(__file__, url),
        lambda fs, url: fs.put(__file__, url),
        lambda fs, url: fs.touch(url),
        lambda fs, url: fs.mkdir(url),
        lambda fs, url: fs.makedirs(url),
        lambda fs, url: fs.rmdir(url),
        lambda fs, url: fs.rm(url),
        lambda fs, url: fs.rm_file(url),
        lambda fs, url: fs.copy(url, url + "2"),
        lambda fs, url: fs.mv(url, url + "2"),
    ],
)
def test_nothing_writes(write: Callable[[FastdlFileSystem, str], object]) -> None:
    """Every method that writes says so, and asks no server."""
    with pytest.raises(NotImplementedError, match="only reads"):
        write(FastdlFileSystem(), "https://127.0.0.1:1/object")


def test_pythons_own_errors_and_no_secret() -> None:
    """A refusal is a PermissionError caused by fastdl's; options, files and errors show no secret."""
    secret = "s3cr3t-t0ken"
    with serving(routes({"/no": status(403), "/yes": ranged(DATA)})) as server:
        fs = FastdlFileSystem(headers={"Authorization": f"Bearer {secret}"}, target_options={"headers": {"X": secret}})
        url = server.url(f"/no?signature={secret}")
        calls: list[Callable[[], object]] = [
            lambda: fs.info(url),
            lambda: fs.exists(url),
            lambda: fs.cat_file(url),
            lambda: fs.cat_file(url, 0, 5),
            lambda: fs.open(url),
            lambda: fs.open(url, cache_type="stream").read(),
            lambda: fs.get_file(url, "/dev/null/out"),
        ]
        for call in calls[:-1]:
            with pytest.raises(PermissionError) as caught:
                call()
            assert isinstance(caught.value.__cause__, fastdl.AccessDenied)
            assert secret not in str(caught.value)
        with fs.open(server.url(f"/yes?signature={secret}")) as file:
            assert secret not in repr(file) + str(file)
        texts = (repr(fs), repr(fs.storage_options), fs.to_json(), fs.to_json(include_password=True), fs._fs_token)
        assert not any(secret in text for text in texts)
        assert fsspec.AbstractFileSystem.from_json(fs.to_json()) == FastdlFileSystem()
        assert fs.storage_options["headers"] == {"Authorization": f"Bearer {secret}"}


def test_options_that_nobody_knows() -> None:
    """A setting that is none is told; those of a chain's second scheme may be meant for others."""
    with pytest.raises(fastdl.UsageError, match="colour"):
        FastdlFileSystem(colour="red")
    with pytest.raises(fastdl.UsageError, match="ftp"):
        register("ftp")
    with serving(ranged(DATA)) as server:
        chain = f"fastdl::{server.url()}"
        with fsspec.open(chain, http={"client_kwargs": {}, "headers": {"X-A": "1"}}, connections=2) as file:
            assert file.read() == DATA
        assert {seen.headers.get("x-a") for seen in server.log} == {"1"}


def test_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OSS and S3 by ``fastdl://``, by their own schemes once registered, and then by chains."""
    nobodys_machine(tmp_path, monkeypatch)
    with serving_oss({"a/key": DATA}) as oss, serving_s3({"a/key": DATA}) as s3:
        settings: dict[str, dict[str, Any]] = {
            "oss": {
                "endpoint_url": f"http://127.0.0.1:{oss.port}",
                "region": "cn-hangzhou",
                "credentials": (OSS_KEY.id, OSS_KEY.secret),
            },
            "s3": {"endpoint_url": s3.url(""), "region": REGION, "credentials": KEY},
        }
        for scheme, options in settings.items():
            with fsspec.open(f"fastdl://{scheme}://bucket/a/key", **options) as file:
                assert file.read() == DATA
        register("oss", "s3")
        for scheme, options in settings.items():
            for url in (f"{scheme}://bucket/a/key", f"fastdl::{scheme}://bucket/a/key"):
                with fsspec.open(url, **options) as file:
                    assert file.read() == DATA
            fs = fsspec.filesystem(scheme, **options)
            assert fs.info("bucket/a/key")["name"] == f"{scheme}://bucket/a/key"
            assert fs.cat_ranges([f"{scheme}://bucket/a/key"] * 2, [0, -3], [4, None]) == [DATA[:4], DATA[-3:]]
            assert not fs.exists(f"{scheme}://bucket/none")
            other = fsspec.filesystem("fastdl", target_protocol=scheme, **options)
            assert other.cat_file("bucket/a/key", 5, 9) == DATA[5:9]
            assert other.glob("bucket/a/key") == [f"fastdl://{scheme}://bucket/a/key"]


def read_part(fs: FastdlFileSystem, url: str) -> str:
    """Read in another process."""
    return hashlib.sha256(fs.cat_file(url) + fs.open(url).read(1000)).hexdigest()


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_processes(shelf: tuple[FastdlFileSystem, Nginx], method: str) -> None:
    """An instance that was used goes to forks and through pickles."""
    fs, server = shelf
    url = server.url("/object.bin")
    assert fs.cat_file(url, 0, 3) == DATA[:3]
    with multiprocessing.get_context(method).Pool(2) as pool:
        expected = hashlib.sha256(DATA + DATA[:1000]).hexdigest()
        assert pool.starmap(read_part, [(fs, url)] * 3) == [expected] * 3
    assert pickle.loads(pickle.dumps(fs)) == fs
    assert fs.cat_file(url, 0, 3) == DATA[:3]


def test_importing_fastdl_imports_no_fsspec() -> None:
    """The integration is paid for by who uses it; fsspec in turn imports it only then."""
    script = "import sys, fastdl, fastdl.api\nprint('fsspec' in sys.modules)\n"
    script += "import fsspec\nprint('fastdl.integrations.fsspec' in sys.modules)\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_a_chain_remembers_nothing_of_another_object(shelf: tuple[FastdlFileSystem, Nginx]) -> None:
    """Instances of equal settings are one, whatever object a chain named."""
    server = shelf[1]
    first = fsspec.url_to_fs(f"fastdl::{server.url('/object.bin')}")
    second = fsspec.url_to_fs(f"fastdl::{server.url('/lines.txt')}")
    assert first[0] is second[0]
    assert (first[0].cat_file(first[1], 0, 4), second[0].cat_file(second[1], 0, 4)) == (DATA[:4], b"line")
    assert json.loads(first[0].to_json())["protocol"] == "fastdl"
