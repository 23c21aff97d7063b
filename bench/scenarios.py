"""What is measured: scenarios where many tools fetch one object. ``alone`` has those that look at fastdl by itself.

A scenario yields contenders; ``bench.run`` runs them in turn, each after ``prepare``, and judges each by ``verify``.
"""

from __future__ import annotations

import filecmp
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench.measure import workspace
from bench.peers import PEERS, Peer
from bench.servers import RATE, bytes_sent, capped_line, forget
from tests.servers.nginx import serving_nginx
from tests.servers.tls import certificate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from bench.measure import Sample
    from tests.servers.nginx import Nginx

FASTDL = ("{python}", "-m", "fastdl", "{url}", "-o", "{out}")
_BUSY = 8  # connections that the busy server answers at a time
_VERSION = ("{python}", "-m", "fastdl", "--version")


@dataclass(frozen=True, slots=True)
class Contender:
    """One command of a scenario; ``size`` is how many bytes it moves, ``values`` what its template needs besides."""

    name: str
    command: tuple[str, ...]
    size: int
    environment: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)
    version: tuple[str, ...] = _VERSION


@dataclass(frozen=True, slots=True)
class Scenario:
    """A running scenario; ``values`` fill the templates of all contenders."""

    contenders: tuple[Contender, ...]
    values: Mapping[str, str]
    prepare: Callable[[Contender], None]  # before each run: nothing of the run before may be left
    verify: Callable[[Contender], bool]  # after each run: whether the bytes are right
    derive: Callable[[Contender, Sample], Sample] = lambda _, __: {}  # figures to add to a sample
    repeat: int = 1  # runs of each contender in a round: more for what takes milliseconds
    watch_memory: bool = False


@contextmanager
def plain(folder: Path | None, size: int) -> Iterator[Scenario]:
    """Yield ``curl -o output http://127.0.0.1/object``: nginx with sendfile, loopback, a fresh file on the disk."""
    with workspace(folder, size) as (original, output), serving_nginx(original.parents[1]) as server:
        floor = Contender("floor", ("{python}", "-I", "-S", "{root}/bench/floor.py", "{url}", "{out}"), size)
        yield _race("plain", server, original, output, _fastdl(size), floor)


@contextmanager
def tls(folder: Path | None, size: int) -> Iterator[Scenario]:
    """Yield the same over TLS; axel and oss-v2 run with the flag that skips verification."""
    with ExitStack() as stack:
        original, output = stack.enter_context(workspace(folder, size))
        own = stack.enter_context(certificate())
        server = stack.enter_context(serving_nginx(original.parents[1], tls=own))
        yield _race("tls", server, original, output, _fastdl(size, "--cacert", "{ca}"))


@contextmanager
def capped(folder: Path | None, size: int) -> Iterator[Scenario]:
    """Yield a line of 10 MB/s for each connection and 50 ms to the first byte, as object stores have them."""
    with workspace(folder, size) as (original, output), capped_line(original.parents[1]) as server:
        again = _fastdl(size, name="fastdl again")
        yield _race("capped", server, original, output, _fastdl(size), again, _fastdl(size, "-x", "64"))


@contextmanager
def busy(folder: Path | None, size: int) -> Iterator[Scenario]:
    """Yield the capped line with 503 for whoever comes while eight connections are busy; ``share`` of their rate."""
    with ExitStack() as stack:
        original, output = stack.enter_context(workspace(folder, size))
        server = stack.enter_context(capped_line(original.parents[1], limit_conn=_BUSY))
        scenario = _race("busy", server, original, output, _fastdl(size), _fastdl(size, "-x", "32"))
        yield _deriving(scenario, lambda _, sample: {"share": size / sample["wall"] / (_BUSY * RATE)})


@contextmanager
def stalls(folder: Path | None, size: int) -> Iterator[Scenario]:
    """Yield the capped line where the third connection stalls and the fifth crawls at 10 KB/s; ``extra`` bytes sent.

    ``undisturbed`` is fastdl on the same line without them.
    """
    with ExitStack() as stack:
        original, output = stack.enter_context(workspace(folder, size))
        calm = stack.enter_context(capped_line(original.parents[1]))
        wild = stack.enter_context(capped_line(original.parents[1], misbehaving=True))
        values = {"calm": calm.url("/bench/object")}
        undisturbed = ("{python}", "-m", "fastdl", "{calm}", "-o", "{out}", "-x", "16")
        scenario = _race(
            "stalls",
            wild,
            original,
            output,
            Contender("fastdl -x 16 undisturbed", undisturbed, size, values=values),
            _fastdl(size, "-x", "16"),
        )

        def prepare(contender: Contender) -> None:
            scenario.prepare(contender)
            forget(wild)

        def derive(contender: Contender, _: Sample) -> Sample:
            return {} if contender.values else {"extra": bytes_sent(wild) - size}

        yield _deriving(scenario, derive, prepare)


def _fastdl(size: int, *flags: str, name: str = "") -> Contender:
    shown = " ".join(flag for flag in flags if not flag.startswith(("--cacert", "{")))
    return Contender(name or f"fastdl {shown}".strip(), (*FASTDL, *flags), size)


def _race(scenario: str, server: Nginx, original: Path, output: Path, *own: Contender) -> Scenario:
    """Put the peers that take part behind our own contenders; the output must equal the original."""
    size = original.stat().st_size
    peers = tuple(_contender(peer, size, tls=server.ca is not None) for peer in PEERS if scenario in peer.scenarios)
    values = {
        "url": server.url("/bench/object"),
        "endpoint": server.url("").rstrip("/"),
        "bucket": "bench",
        "key": "object",
        "out": str(output),
        "folder": str(output.parent),
        "name": output.name,
        "ca": str(server.ca),
    }

    def prepare(_: Contender) -> None:
        for left in output.parent.iterdir():  # some tools leave state beside their output when they fail
            left.unlink()

    def verify(_: Contender) -> bool:
        return filecmp.cmp(original, output, shallow=False)

    return Scenario((*own, *peers), values, prepare, verify)


def _contender(peer: Peer, size: int, *, tls: bool) -> Contender:
    command = (*peer.command, *peer.tls) if tls else peer.command
    environment = {**peer.environment, **peer.tls_environment} if tls else peer.environment
    return Contender(peer.name, command, size, environment, version=peer.version)


def _deriving(
    scenario: Scenario,
    derive: Callable[[Contender, Sample], Sample],
    prepare: Callable[[Contender], None] | None = None,
) -> Scenario:
    return Scenario(
        scenario.contenders, scenario.values, prepare or scenario.prepare, scenario.verify, derive, scenario.repeat
    )
