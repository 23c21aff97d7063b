"""``cached``: one fetcher for all who want an object at once, whoever is killed; copies that are complete or absent."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import stat
import sys
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import fastdl
from fastdl.flight import Patience
from fastdl.tending import prune
from tests.e2e.command import Outcome, names, run
from tests.e2e.partial import bits
from tests.e2e.processes import Running, killing_at, program, running, running_any, wait_until
from tests.e2e.s3 import nobodys_machine
from tests.servers import oss as oss_server
from tests.servers import s3 as s3_server
from tests.servers.scripted import Exchange, Handler, Server, chunked, first_of, ranged, routes, serving, stall_after

if TYPE_CHECKING:
    from collections.abc import Iterator

PART = 64 * 1024
DATA = random.Random(51).randbytes(12 * PART + 5)
OTHER = random.Random(52).randbytes(12 * PART + 5)
_CALL = """
import errno, fcntl, os, sys
url, folder, locks = sys.argv[1:]
flock = fcntl.flock
def refused(fd, how):
    if os.readlink(f"/proc/self/fd/{fd}").startswith(folder):
        raise OSError(errno.ENOLCK, "No locks available")
    flock(fd, how)
if locks == "none":
    fcntl.flock = refused
import fastdl
print(fastdl.cached(url, cache_dir=folder, part_size=65536, connections=1, workers=1))
"""
LOCKS = pytest.mark.parametrize("locks", ["flock", "none"])


def fetched(server: Server) -> list[tuple[int, int | None]]:
    """Return the ranges that were asked for to be kept; all others are questions about the object."""
    return [seen.range for seen in server.log if seen.range is not None and seen.range != (0, 1)]


def asked(server: Server) -> int:
    """Count those questions."""
    return sum(seen.range == (0, 1) for seen in server.log)


@contextmanager
def gated() -> Iterator[tuple[Server, threading.Event]]:
    """Serve two parts and a bit of each answer, then nothing before the gate opens."""
    gate, right = threading.Event(), ranged(DATA)

    def halting(exchange: Exchange) -> None:
        exchange.otherwise = right
        stall_after(2 * PART + 5, gate)(exchange)

    with serving(halting) as server:
        yield server, gate


def start(stack: ExitStack, folder: Path, server: Server, locks: str) -> Running:
    """Start a process that wants the object."""
    command = [sys.executable, "-c", _CALL, server.url("/model.bin"), str(folder / "cache"), locks]
    return stack.enter_context(running_any(folder / "logs", command, environment={"TMPDIR": str(folder)}))


def get(server: Server, folder: Path, path: str = "/model.bin", **settings: Any) -> Path:
    """Want the object in this process."""
    return fastdl.cached(server.url(path), cache_dir=folder, **settings)


def marked(folder: Path) -> int:
    """Count the parts that are marked as finished in the one download that goes on."""
    found = list(folder.glob("cache/*/*.new/*.cp"))
    return bits(found[0]) if found else 0


@LOCKS
@pytest.mark.parametrize("count", [8, pytest.param(32, marks=pytest.mark.long)])
def test_processes_that_want_it_at_once_cause_one_download(tmp_path: Path, count: int, locks: str) -> None:
    """Whoever comes first fetches, the others wait for that; all get the same complete file."""
    with gated() as (server, gate), ExitStack() as stack:
        processes = [start(stack, tmp_path, server, locks) for _ in range(count)]
        wait_until(lambda: asked(server) == count, seconds=100)
        gate.set()
        assert [each.wait(100) for each in processes] == [0] * count, processes[0].stderr
        paths = {each.stdout.strip() for each in processes}
        assert sum(start == 0 for start, _ in fetched(server)) == 1
        assert server.sent <= len(DATA) + count
    (path,) = map(Path, paths)
    assert (path.name, path.read_bytes() == DATA) == ("model.bin", True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o444


@LOCKS
def test_another_goes_on_where_one_was_killed(tmp_path: Path, locks: str) -> None:
    """SIGKILL to the fetcher half-way: finished parts are not fetched again."""
    with gated() as (server, gate), ExitStack() as stack:
        first = start(stack, tmp_path, server, locks)
        first.wait_until(lambda: marked(tmp_path) >= 1)
        others = [start(stack, tmp_path, server, locks) for _ in range(7)]
        wait_until(lambda: asked(server) == 8, seconds=100)
        assert not [each for each in others if each.ended]
        first.kill_tree()
        gate.set()
        assert [each.wait(100) for each in others] == [0] * 7, others[0].stderr
        assert sum(start == 0 for start, _ in fetched(server)) == 1  # the first part came once
        paths = {each.stdout.strip() for each in others}
    (path,) = map(Path, paths)
    assert path.read_bytes() == DATA
    assert list(tmp_path.glob("cache/*/*.new")) == []


def test_a_waiting_process_can_be_stopped_and_has_its_time(tmp_path: Path) -> None:
    """Ctrl-C ends the wait, and so does max_time, as Busy."""
    with gated() as (server, gate), ExitStack() as stack:
        first = start(stack, tmp_path, server, "flock")
        first.wait_until(lambda: marked(tmp_path) >= 1)
        second = start(stack, tmp_path, server, "flock")
        wait_until(lambda: asked(server) == 2)
        second.process.send_signal(signal.SIGINT)
        assert second.wait(10) == -signal.SIGINT
        with pytest.raises(fastdl.Busy, match="had not ended within 1 seconds"):
            get(server, tmp_path / "cache", max_time=1)
        gate.set()
        assert first.wait() == 0, first.stderr


def test_threads_share_a_download_too(tmp_path: Path) -> None:
    """Locks are of open files, not of processes."""
    paths: list[Path] = []
    with gated() as (server, gate):
        threads = [
            threading.Thread(target=lambda: paths.append(get(server, tmp_path, connections=1, workers=1)))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        wait_until(lambda: asked(server) == 4)
        gate.set()
        for thread in threads:
            thread.join()
        assert (len(paths), len(set(paths)), sum(start == 0 for start, _ in fetched(server))) == (4, 1, 1)


def test_what_has_no_validator_is_shared_by_those_who_waited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that was fetched while one waited is as new as one's own would be."""
    gate = threading.Event()
    paths: list[Path] = []
    waiting: set[int] = set()
    wait = Patience.wait

    def noted(patience: Patience) -> None:
        waiting.add(threading.get_ident())
        wait(patience)

    def halting(exchange: Exchange) -> None:
        if exchange.request.range != (0, 1):
            exchange.hold(gate)
        chunked(DATA)(exchange)

    monkeypatch.setattr(Patience, "wait", noted)
    with serving(halting) as server:
        threads = [threading.Thread(target=lambda: paths.append(get(server, tmp_path))) for _ in range(3)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(waiting) == 2)
        gate.set()
        for thread in threads:
            thread.join()
        assert (len(paths), len(set(paths)), len(fetched(server))) == (3, 1, 1)


def _in_a_fork(url: str, folder: Path, results: Any) -> None:
    results.put(str(fastdl.cached(url, cache_dir=folder)))


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_daemonic_forks_of_the_caller(tmp_path: Path) -> None:
    """As data loaders make them."""
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    with serving(ranged(DATA)) as server:
        arguments = (server.url("/model.bin"), tmp_path, results)
        forks = [context.Process(target=_in_a_fork, args=arguments, daemon=True) for _ in range(2)]
        for fork in forks:
            fork.start()
        paths = {results.get() for _ in forks}
        for fork in forks:
            fork.join()
        assert paths == {str(get(server, tmp_path))}


def test_the_store_is_asked_unless_that_is_spared(tmp_path: Path) -> None:
    """Once for each call, by a GET of one byte; max_age and offline ask nothing."""
    with serving(ranged(DATA)) as server:
        path = get(server, tmp_path)
        before = len(server.log)
        assert get(server, tmp_path) == path
        assert [seen.range for seen in server.log[before:]] == [(0, 1)]
        assert get(server, tmp_path, max_age=3600) == get(server, tmp_path, offline=True) == path
        assert len(server.log) == before + 1
        with pytest.raises(fastdl.NotFound, match="not in the cache"):
            get(server, tmp_path, "/another", offline=True)
        url = server.url("/model.bin")
    assert fastdl.cached(url, cache_dir=tmp_path, offline=True) == path
    with pytest.raises(fastdl.NetworkError):
        fastdl.cached(url, cache_dir=tmp_path, retry=0)


def test_an_object_that_was_replaced_is_fetched_anew(tmp_path: Path) -> None:
    """Another version is another file; who has the old one keeps it, and offline means the new one."""
    now: list[Handler] = [ranged(DATA)]
    with serving(first_of(now)) as server:
        old = get(server, tmp_path)
        now[0] = ranged(OTHER, etag='"v2"')
        assert get(server, tmp_path, max_age=3600) == old
        new = get(server, tmp_path)
        assert (old.read_bytes() == DATA, new.read_bytes() == OTHER) == (True, True)
        assert get(server, tmp_path, offline=True) == new
        now[0] = ranged(DATA)
        assert get(server, tmp_path) == old == get(server, tmp_path, offline=True)
        assert sum(start == 0 for start, _ in fetched(server)) == 2


def test_an_object_replaced_between_question_and_download(tmp_path: Path) -> None:
    """What is fetched is what the path's version says."""
    handlers = [ranged(DATA), ranged(OTHER, etag='"v2"')]

    def turning(exchange: Exchange) -> None:
        handlers[exchange.request.number > 1](exchange)

    with serving(turning) as server:
        path = get(server, tmp_path)
        assert path.read_bytes() == OTHER
        assert get(server, tmp_path) == path
        assert asked(server) == 3


def test_what_has_no_validator_is_fetched_each_time(tmp_path: Path) -> None:
    """Nobody can tell whether it is the same; max_age says that it may be believed."""
    with serving(chunked(DATA)) as server:
        first = get(server, tmp_path)
        assert get(server, tmp_path, max_age=3600) == first
        second = get(server, tmp_path)
        assert second != first
        assert first.read_bytes() == second.read_bytes() == DATA


def _pipe_instead(record: Path, _: Path) -> None:
    record.unlink()
    os.mkfifo(record)


@pytest.mark.parametrize(
    "harm",
    [
        lambda record, _: record.write_bytes(b"\xff\0{"),
        lambda record, _: record.write_bytes(b"[" * 60_000),
        lambda record, _: record.write_text('{"fastdl": 1, "name": "../../x", "size": "5", "proven": 7}'),
        lambda record, _: record.unlink(),
        lambda record, _: (record.unlink(), record.mkdir()),
        _pipe_instead,
        lambda _, copy: copy.unlink(),
        lambda _, copy: (copy.unlink(), copy.mkdir(), (copy / "x").touch()),
        lambda _, copy: (copy.unlink(), copy.symlink_to("/etc/passwd")),
        lambda _, copy: (copy.chmod(0o644), copy.write_bytes(DATA[:-1])),
        lambda _, copy: (copy.chmod(0o644), copy.write_bytes(OTHER)),
        lambda _, copy: (copy.unlink(), copy.parent.rmdir(), copy.parent.write_bytes(b"")),
    ],
)
def test_what_is_damaged_is_not_there(tmp_path: Path, harm: Any) -> None:
    """Records and copies of any kind: fetched again, to the same path."""
    with serving(ranged(DATA)) as server:
        path = get(server, tmp_path)
        harm(path.parent.with_name(path.parent.name + ".json"), path)
        with pytest.raises(fastdl.NotFound):
            get(server, tmp_path, offline=True)
        assert get(server, tmp_path) == path
        assert path.read_bytes() == DATA
        assert get(server, tmp_path, offline=True) == path


def test_a_checksum_is_compared_with_what_is_there(tmp_path: Path) -> None:
    """Hashed once and remembered; a wrong one fetches, fails, and leaves the copy."""
    right = f"sha256={hashlib.sha256(DATA).hexdigest()}"
    with serving(ranged(DATA)) as server:
        path = get(server, tmp_path)
        record = path.parent.with_name(path.parent.name + ".json")
        assert json.loads(record.read_text())["proven"] == []
        assert get(server, tmp_path, checksum=right, offline=True) == path
        assert json.loads(record.read_text())["proven"] == [right]
        with pytest.raises(fastdl.IntegrityError):
            get(server, tmp_path, checksum="md5=" + "0" * 32, offline=True)
        with pytest.raises(fastdl.IntegrityError):
            get(server, tmp_path, checksum="md5=" + "0" * 32)
        assert get(server, tmp_path, offline=True) == path
        assert path.read_bytes() == DATA
        before = path.stat()
        path.chmod(0o644)
        path.write_bytes(OTHER)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # so only hashing could tell
        assert get(server, tmp_path, checksum=right, offline=True) == path


def test_who_dies_while_a_copy_gets_its_name_loses_nothing(tmp_path: Path) -> None:
    """The name is not there, and the next call finds all parts right: it fetches none again."""
    with serving(ranged(DATA)) as server:
        path = get(server, tmp_path / "cache")
        run("cache", "rm", "--all", "--cache-dir", tmp_path / "cache", cwd=tmp_path)
        prefix = killing_at(path.parent.with_name(path.parent.name + ".new") / path.name, "rename,renameat,renameat2")
        command = ("cache", "get", server.url("/model.bin"), "--cache-dir", tmp_path / "cache")
        with running(tmp_path / "logs", *command, prefix=prefix) as killed:
            killed.wait()
            killed.kill_tree()
            assert (killed.stdout, path.exists()) == ("", False)
        before = fetched(server)
        assert get(server, tmp_path / "cache") == path
        assert (fetched(server), path.read_bytes() == DATA) == (before, True)


def test_a_full_disk(tmp_path: Path) -> None:
    """An error of the disk, and nothing is returned."""
    limit = [program("prlimit", "util-linux"), f"--fsize={5 * PART}"]
    with serving(ranged(DATA)) as server:
        command = ("cache", "get", server.url("/model.bin"), "--cache-dir", tmp_path / "cache")
        with running(tmp_path / "logs", *command, prefix=limit) as limited:
            assert limited.wait() == 9, limited.stderr
            assert (limited.stdout, len(limited.stderr.splitlines())) == ("", 1)
        assert get(server, tmp_path / "cache").read_bytes() == DATA


def test_what_is_nothing_is_swept_away(tmp_path: Path) -> None:
    """What died while it wrote a record, a damaged copy, and a directory of which nothing is left."""
    with serving(ranged(DATA)) as server:
        path = get(server, tmp_path)
        shelf = path.parents[1]
        before = names(shelf)
        (shelf / f"{path.parent.name}.json.0123456789abcdef").touch()
        (shelf / ("f" * 32)).mkdir()
        assert (prune(tmp_path, None, 7), names(shelf)) == ([], before)
        path.unlink()
        assert (prune(tmp_path, None, 7), names(tmp_path)) == ([], set())


def test_a_cache_that_was_moved(tmp_path: Path) -> None:
    """Into an image, as archives do it, with times cut to seconds: hashed once, then believed."""
    with serving(ranged(DATA)) as server:
        path = get(server, tmp_path / "one")
        before = fetched(server)
        other = tmp_path / "two" / path.relative_to(tmp_path / "one")
        shutil.copytree(tmp_path / "one", tmp_path / "two")
        os.utime(other, (10**9, 10**9))
        record = other.parent.with_name(other.parent.name + ".json")
        assert get(server, tmp_path / "two", offline=True) == other
        assert json.loads(record.read_text())["inode"] == other.stat().st_ino
        assert get(server, tmp_path / "two") == other
        assert fetched(server) == before


def test_a_bound_removes_what_was_longest_unused(tmp_path: Path) -> None:
    """Never what the call returns."""
    targets = [f"/{letter}" for letter in "abcd"]
    with serving(routes(dict.fromkeys(targets, ranged(DATA)))) as server:
        paths = [get(server, tmp_path, name) for name in targets[:3]]
        for age, path in enumerate(paths):
            os.utime(path.parent, (10**9 + age, 10**9 + age))
        assert get(server, tmp_path, "/a") == paths[0]  # used just now
        last = get(server, tmp_path, "/d", max_bytes=3 * len(DATA))
        assert [path.exists() for path in (*paths, last)] == [True, False, True, True]
        only = get(server, tmp_path, "/b", max_bytes="1K")
        assert [path.exists() for path in (*paths, last)] == [False, True, False, False]
        assert (only, len(list(tmp_path.iterdir()))) == (paths[1], 1)


def test_names_that_no_file_may_have(tmp_path: Path) -> None:
    """A substitute with the suffix, so that loaders still know the kind."""
    targets = {"/x/": "", f"/{'n' * 300}.npy": ".npy", "/a%2Fb:c.csv": ".csv", "/": ""}
    with serving(ranged(DATA)) as server:
        for target, suffix in targets.items():
            path = get(server, tmp_path, target)
            assert (path.name.startswith("object-"), path.suffix) == (True, suffix)


def test_signatures_do_not_matter_and_stand_nowhere(tmp_path: Path) -> None:
    """One copy for all signatures of a URL; no secret in a name or a record."""
    with serving(ranged(DATA, etag='"s3cr3t-tag"')) as server:
        signed = "/model.bin?id=5&X-Amz-Signature={}&X-Amz-Credential=AKIAsecret"
        paths = {get(server, tmp_path, signed.format(f"s3cr3t{number}")) for number in range(2)}
        paths.add(get(server, tmp_path, signed.format("s3cr3t9"), headers={"Authorization": "Bearer s3cr3t"}))
        assert len(paths) == 1
        assert get(server, tmp_path, "/model.bin?id=6") not in paths
        assert get(server, tmp_path, "/model.bin?id=5", headers={"Accept": "text/html"}) not in paths
    for path in tmp_path.rglob("*"):
        assert "s3cr3t" not in path.name
        assert not path.is_file() or path.name == "model.bin" or b"s3cr3t" not in path.read_bytes()


def test_stores_and_endpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket of the same name at another endpoint is another one, even where nobody is asked."""
    nobodys_machine(tmp_path, monkeypatch)
    cache = tmp_path / "cache"
    s3: dict[str, Any] = {"region": s3_server.REGION, "credentials": s3_server.KEY, "cache_dir": cache}
    key = oss_server.KEY
    oss: dict[str, Any] = {"region": "cn-hangzhou", "credentials": (key.id, key.secret), "cache_dir": cache}
    with (
        s3_server.serving_s3({"key": s3_server.Stored(DATA)}) as one,
        s3_server.serving_s3({"key": s3_server.Stored(OTHER)}) as two,
        oss_server.serving_oss({"key": oss_server.Stored(DATA, crc=oss_server.Crc.RIGHT)}) as three,
    ):
        for _ in range(2):
            found = [
                fastdl.cached("s3://bucket/key", endpoint_url=one.url(""), max_age=60, **s3),
                fastdl.cached("s3://bucket/key", endpoint_url=two.url(""), max_age=60, **s3),
                fastdl.cached("oss://bucket/key", endpoint_url=three.url(""), max_age=60, **oss),
            ]
        assert [path.read_bytes() for path in found] == [DATA, OTHER, DATA]
    assert run("cache", "rm", "s3://bucket/key", "--cache-dir", cache, cwd=tmp_path).code == 0
    assert [path.exists() for path in found] == [False, False, True]


def test_a_directory_that_cannot_be_a_cache(tmp_path: Path) -> None:
    """Said in one line, as an error of the disk, before anything is fetched."""
    (tmp_path / "file").touch()
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with serving(ranged(DATA)) as server:
        for name in ("file", "file/below", "open"):
            outcome = run("cache", "get", server.url(), "--cache-dir", tmp_path / name, cwd=tmp_path, as_json=False)
            assert (outcome.code, len(outcome.stderr.splitlines())) == (9, 1), outcome.stderr
        assert not server.log


def test_the_commands(tmp_path: Path) -> None:
    """``get`` prints the path, ``ls`` lists, ``prune`` and ``rm`` remove and tell."""
    where = {"FASTDL_CACHE": str(tmp_path / "cache")}

    def cache(*arguments: str, code: int = 0, as_json: bool = True) -> Outcome:
        outcome = run("cache", *arguments, cwd=tmp_path, variables=where, as_json=as_json)
        assert outcome.code == code, outcome.stderr
        return outcome

    def items(*arguments: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = cache(*arguments).last["items"]
        return found

    with serving(ranged(DATA)) as server:
        url, shown = server.url("/model.bin?token=s3cr3t"), server.url("/model.bin?token=***")
        path = Path(cache("get", url, as_json=False).stdout.strip())
        assert cache("get", url).last == {"event": "done", "path": str(path)}
        assert path.read_bytes() == DATA
        assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700
        (listed,) = items("ls")
        assert listed.pop("used").startswith("20")
        assert listed == {"url": shown, "path": str(path), "complete": True, "bytes": len(DATA)}
        assert shown in cache("ls", as_json=False).stdout
        left = path.parents[1] / ("f" * 32 + ".new")
        left.mkdir()
        (left / "model.bin.part").write_bytes(DATA)
        os.utime(left / "model.bin.part", (10**9, 10**9))
        assert [each["complete"] for each in items("ls")] == [False, True]
        (pruned,) = items("prune")
        assert (pruned["path"], left.exists(), path.exists()) == (str(left), False, True)
        assert cache("rm", server.url("/another"), code=3).last["type"] == "NotFound"
        for wrong in ((), ("rm",), ("rm", url, "--all"), ("get", "--max-age", "-1", url), ("prune", "--days", "-1")):
            assert len(cache(*wrong, code=2, as_json=False).stderr.splitlines()) == 1
        (removed,) = items("rm", url)
        assert (removed["url"], removed["path"], names(tmp_path / "cache")) == (shown, str(path), set())
        cache("get", url)
        (pruned,) = items("prune", "--max-bytes", "0")
        assert pruned["url"] == shown
        assert items("rm", "--all") == items("ls") == []


def test_what_is_fetched_is_not_removed(tmp_path: Path) -> None:
    """``rm`` says so with exit code 10, ``prune`` leaves it."""
    with gated() as (server, gate), ExitStack() as stack:
        first = start(stack, tmp_path, server, "flock")
        first.wait_until(lambda: marked(tmp_path) >= 1)
        where = ("--cache-dir", tmp_path / "cache")
        assert run("cache", "rm", "--all", *where, cwd=tmp_path).code == 10
        assert run("cache", "prune", "--days", "0", "--max-bytes", "0", *where, cwd=tmp_path).last["items"] == []
        gate.set()
        assert first.wait() == 0, first.stderr
