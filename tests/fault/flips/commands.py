"""The command against a server that flips bits: repaired and exact if one answer is spoilt, refused if all are."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

from fastcrc import crc64

from tests.fault.flips.line import flip
from tests.servers.scripted import Answer, Exchange, ranged, serving

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.nursery import Nursery

PART = 1024  # bytes
_FEW = 4  # parts that one answer gives at most, so that there are several, of several processes
_DATA = random.Random(3).randbytes(11 * PART - 300)
_RIGHT = ranged(_DATA, extra_headers={"x-oss-hash-crc64ecma": str(crc64.xz(_DATA))})


def spoilt_once(bearer: Nursery, folder: Path, seed: int) -> None:
    """One bit of one of the first answers flips: the part is found and replaced, and named.

    Raises:
        AssertionError: it is not.
    """
    rng = random.Random(seed)
    spoilt, flips = rng.randrange(1, 4), list[int]()

    def handle(exchange: Exchange) -> None:
        if exchange.request.number == spoilt:
            start = (exchange.request.range or (0, 0))[0]
            _spoil(exchange, rng, flips)
            flips[:] = [(start + bit // 8) // PART for bit in flips]
        else:
            _answer(exchange)

    with serving(handle) as server:
        born = bearer.run(server.url(), "-o", folder / "out", "-p", PART, "-x", 2, "-w", 1, "--json")
    assert born.code == 0, born.stderr
    assert (folder / "out").read_bytes() == _DATA
    assert [path.name for path in folder.iterdir()] == ["out"]
    assert (born.last["integrity"], born.last["parts_repaired"]) == ("crc64", flips), born.stderr


def spoilt_always(bearer: Nursery, folder: Path, seed: int) -> None:
    """One bit of every answer flips, each time another one: exit code 8, and nothing is left.

    Raises:
        AssertionError: something is, or it was called done.
    """
    rng = random.Random(seed)
    with serving(lambda exchange: _spoil(exchange, rng, [])) as server:
        born = bearer.run(server.url(), "-o", folder / "out", "-p", PART, "-x", 2, "-w", 1, "--json")
    assert born.code == 8, born.stderr
    assert list(folder.iterdir()) == []


def _answer(exchange: Exchange) -> None:
    """Answer rightly, with few parts."""
    start, stop = exchange.request.range or (0, None)
    if stop is None or stop - start > _FEW * PART:
        exchange.request = replace(exchange.request, range=(start, start + _FEW * PART))
    _RIGHT(exchange)


def _spoil(exchange: Exchange, rng: random.Random, flips: list[int]) -> None:
    """Answer so with one flipped bit; note in ``flips`` which one of the body."""

    def once(answer: Answer) -> Answer:
        body = bytearray(answer.content())
        flips.append(rng.randrange(8 * len(body)))
        flip(body, flips[-1])
        return replace(answer, body=bytes(body))

    exchange.spoil = once
    _answer(exchange)
