"""The floor: the same bytes into the same kind of file at the lowest cost, with nothing checked, kept or retried.

Forked processes, threads, raw sockets, a hand-written GET; bodies are received straight into a shared mapping of an
allocated file. What fastdl costs above this is HTTP, hashes, checkpoint and bookkeeping. Flags add stages one by one;
``python -m bench.floor --sweep`` prints what each of them costs. Standard library only, unless hashes are asked for.
"""

from __future__ import annotations

import argparse
import mmap
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
_POPULATE_WRITE = 23  # madvise(2), since Linux 5.14; Python has no name for it
_PAGE = mmap.PAGESIZE
_TOKEN = 4  # bytes of a span's number in the pipe; a read of so few is atomic
_VARIANTS = (
    ("2 processes, 1 connection each, mapped", ()),
    ("the same again", ()),
    ("1 process, 1 connection", ("--processes", "1")),
    ("1 process, 2 connections", ("--processes", "1", "--connections", "2")),
    ("2 processes, 4 connections each", ("--connections", "4")),
    ("xxh3 and CRC-64", ("--hash",)),
    ("MADV_POPULATE_WRITE", ("--populate",)),
    ("MADV_HUGEPAGE", ("--huge",)),
    ("both", ("--populate", "--huge")),
    ("both, hashes", ("--populate", "--huge", "--hash")),
    ("no MADV_DONTNEED", ("--forget", "0")),
    ("window 64 KiB", ("--window", "64")),
    ("window 1 MiB", ("--window", "1024")),
    ("pwrite from a buffer", ("--pwrite",)),
    ("pwrite, hashes", ("--pwrite", "--hash")),
    ("received and dropped", ("--drop",)),
)


def main() -> None:
    """Fetch once, or print the table of stages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?", help="http://ADDRESS:PORT/PATH")
    parser.add_argument("output", nargs="?")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--connections", type=int, default=1, help="of each process")
    parser.add_argument("--window", type=int, default=256, help="KiB received, hashed and written at a time")
    parser.add_argument("--span", type=int, default=16, help="MiB of one request")
    parser.add_argument("--forget", type=int, default=4, help="MiB after which MADV_DONTNEED lets go; 0 never does")
    parser.add_argument("--hash", action="store_true", help="xxh3-64 and CRC-64 of every window")
    parser.add_argument("--populate", action="store_true", help="MADV_POPULATE_WRITE, 4 MiB at a time")
    parser.add_argument("--huge", action="store_true", help="MADV_HUGEPAGE")
    parser.add_argument("--pwrite", action="store_true", help="receive into a buffer and pwrite it")
    parser.add_argument("--drop", action="store_true", help="receive into a buffer and write nothing")
    parser.add_argument("--sweep", action="store_true", help="measure each stage against a server of its own")
    parser.add_argument("--size", type=int, default=2048, help="MiB of the object of --sweep")
    parser.add_argument("--rounds", type=int, default=3, help="of --sweep")
    options = parser.parse_args()
    if options.sweep:
        sweep(options.size * MIB, options.rounds)
    elif options.url is None or options.output is None:
        parser.error("URL and OUTPUT, or --sweep")
    else:
        fetch(options)


def fetch(options: argparse.Namespace) -> None:
    """Fetch ``options.url`` into ``options.output``; every process takes spans from one pipe until it is empty."""
    host, _, path = options.url.removeprefix("http://").partition("/")
    address, _, port = host.partition(":")
    peer = (address, int(port or 80))
    ask = f"GET /{path} HTTP/1.1\r\nHost: {host}\r\nRange: bytes=%d-%d\r\n\r\n".encode()
    with socket.create_connection(peer) as conn:
        conn.sendall(ask % (0, 0))
        head = conn.recv(64 * KIB)
    size = int(head.lower().partition(b"content-range: bytes 0-0/")[2].split()[0])
    fd = os.open(options.output, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    os.posix_fallocate(fd, 0, size)
    tokens, given = os.pipe()
    children = []
    for _ in range(options.processes):
        if child := os.fork():
            children.append(child)
            continue
        os.close(given)
        _run(options, peer, ask, fd, size, tokens)
        os._exit(0)
    for number in range(-(-size // (options.span * MIB))):
        os.write(given, number.to_bytes(_TOKEN, "little"))
    os.close(given)
    if any(os.waitpid(child, 0)[1] for child in children):
        raise SystemExit("a process of the floor failed")


def _run(options: argparse.Namespace, peer: tuple[str, int], ask: bytes, fd: int, size: int, tokens: int) -> None:
    """Run the connections of one process; an error in one ends the process with 1."""
    target = None if options.pwrite or options.drop else mmap.mmap(fd, size)
    if target is not None and options.huge:
        target.madvise(mmap.MADV_HUGEPAGE)

    def connection() -> None:
        try:
            store = _stage(options, fd, target)
            with socket.create_connection(peer) as conn:
                while token := os.read(tokens, _TOKEN):
                    start = int.from_bytes(token, "little") * options.span * MIB
                    stop = min(start + options.span * MIB, size)
                    conn.sendall(ask % (start, stop - 1))
                    _skip_head(conn)
                    store(conn, start, stop)
        except (OSError, RuntimeError) as error:  # in a thread it would end nothing but the thread
            print(error, file=sys.stderr)
            os._exit(1)

    threads = [threading.Thread(target=connection) for _ in range(options.connections - 1)]
    for thread in threads:
        thread.start()
    connection()
    for thread in threads:
        thread.join()


def _skip_head(conn: socket.socket) -> None:
    """Take the head, and no byte of the body, from the socket."""
    head = conn.recv(4 * KIB, socket.MSG_PEEK)
    while b"\r\n\r\n" not in head:
        head = conn.recv(4 * KIB, socket.MSG_PEEK)
    if not head.startswith(b"HTTP/1.1 206"):
        raise RuntimeError(head.decode("latin-1"))
    conn.recv(head.index(b"\r\n\r\n") + 4)


def _stage(options: argparse.Namespace, fd: int, target: mmap.mmap | None) -> Callable[[socket.socket, int, int], None]:
    """Make the function that moves the body of one span from a socket into the file, with the stages asked for."""
    window, behind, piece = options.window * KIB, options.forget * MIB, 4 * MIB
    view = memoryview(target) if target is not None else None
    scratch = memoryview(bytearray(window))
    update = _hasher() if options.hash else None

    def store(conn: socket.socket, start: int, stop: int) -> None:
        at = forgotten = populated = start
        while at < stop:
            if target is not None and options.populate and at >= populated:
                length = min(piece, stop - populated)
                target.madvise(_POPULATE_WRITE, populated, length)
                populated += length
            wanted = min(window, stop - at)
            into = scratch[:wanted] if view is None else view[at : at + wanted]
            filled = 0
            while filled < wanted:
                count = conn.recv_into(into[filled:])
                if count == 0:
                    raise RuntimeError("the server broke off")
                filled += count
            if update is not None:
                update(into)
            if options.pwrite:
                os.pwrite(fd, into, at)
            at += wanted
            if target is not None and behind and (at - forgotten >= behind or at == stop):
                target.madvise(mmap.MADV_DONTNEED, forgotten, -(-(at - forgotten) // _PAGE) * _PAGE)
                forgotten = at

    return store


def _hasher() -> Callable[[memoryview], None]:
    import xxhash  # noqa: PLC0415 - the floor itself runs without third-party packages
    from fastcrc import crc64  # noqa: PLC0415

    xxh3, crc = xxhash.xxh3_64(), [0]

    def update(window: memoryview) -> None:
        xxh3.update(window)
        crc[0] = crc64.xz(window, crc[0])

    return update


def sweep(size: int, rounds: int) -> None:
    """Print wall and CPU seconds per GiB of each variant: the medians of ``rounds`` interleaved runs."""
    from statistics import median  # noqa: PLC0415 - a floor that is measured must not pay for these imports

    from bench.measure import workspace  # noqa: PLC0415
    from bench.warmth import warm  # noqa: PLC0415
    from tests.servers.nginx import serving_nginx  # noqa: PLC0415

    samples: dict[str, list[tuple[float, float]]] = {name: [] for name, _ in _VARIANTS}
    with workspace(None, size) as (original, output), serving_nginx(original.parents[1]) as server, warm():
        for name, flags in _VARIANTS * rounds:
            before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            command = [sys.executable, "-I", __file__, server.url("/bench/object"), str(output), *flags]
            subprocess.run(command, check=True)
            wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
            samples[name].append((wall / size * GIB, cpu / size * GIB))
            output.unlink()
    print(f"{'stage':<40} wall s/GiB  CPU s/GiB  (medians of {rounds})")
    for name, runs in samples.items():
        walls, cpus = zip(*runs, strict=True)
        print(f"{name:<40} {median(walls):>10.3f} {median(cpus):>10.3f}")


if __name__ == "__main__":
    main()
