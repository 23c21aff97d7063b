"""Sizes, parts and spans: pure arithmetic on half-open byte ranges, no input or output."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fastdl.errors import UsageError

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

MIN_PART_SIZE = 1
MAX_PART_SIZE = 5 * GIB  # the limit of one multipart upload part in OSS and S3, and of the OSS SDKs' partSize
DEFAULT_PART_SIZE = 8 * MIB  # lost work per killed connection stays small, a report per part costs nothing
LEAST_PART_SIZE = MIB  # of smaller objects, so that many connections have something to share and end together
SHARED_PARTS = 512  # which this many parts allow
DEFAULT_PART_COUNT = 2**17  # beyond 1 TiB the default part grows, so that the checkpoint stays near 2 MiB
MAX_PART_COUNT = 2**24  # a checkpoint of 270 MB; beyond it bookkeeping outgrows the download
MOST_BYTES = MAX_PART_SIZE * MAX_PART_COUNT
LEAST_SPAN = 16 * KIB  # below it the head of an answer is no longer small against its body
MAX_SPAN = 64 * MIB  # long enough that one request's round trip vanishes, short enough that connections end together

_SIZE = re.compile(r"(\d{1,20})\s*(?:([KMGT])(?:i?B)?|B)?", re.IGNORECASE | re.ASCII)
_UNITS = {"K": KIB, "M": MIB, "G": GIB, "T": 1024 * GIB}


def parse_size(text: str) -> int:
    """Return the bytes meant by ``16M``, ``16MiB``, ``512k`` or ``1048576``; every unit is a power of 1024.

    Raises:
        UsageError: ``text`` is no size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is no size; write bytes or a unit, as in 1048576, 512K, 16M, 5G")
    number, unit = match.groups()
    return int(number) * _UNITS.get((unit or "").upper(), 1)


@dataclass(frozen=True, slots=True)
class Part:
    """One half-open byte range ``[start, stop)`` of the object; never empty."""

    index: int
    start: int  # bytes, inclusive
    stop: int  # bytes, exclusive; only range_header() turns it inclusive

    @property
    def nbytes(self) -> int:
        """Length in bytes."""
        return self.stop - self.start


@dataclass(frozen=True)
class Run:
    """Consecutive part indices ``[first, stop)``; never empty."""

    first: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.first


@dataclass(frozen=True)
class Plan:
    """An object of ``size`` bytes cut into parts of ``part_size`` bytes, the last one shorter or equal."""

    size: int
    part_size: int

    @property
    def count(self) -> int:
        """Number of parts; 0 for the empty object."""
        return -(-self.size // self.part_size)

    def part(self, index: int) -> Part:
        """Return part ``index`` of ``range(count)``."""
        start = index * self.part_size
        return Part(index, start, min(start + self.part_size, self.size))

    def bounds(self, run: Run) -> tuple[int, int]:
        """Return the bytes ``[start, stop)`` that the parts of ``run`` cover."""
        return run.first * self.part_size, min(run.stop * self.part_size, self.size)

    def nbytes(self, run: Run) -> int:
        """Return how many bytes the parts of ``run`` hold."""
        start, stop = self.bounds(run)
        return stop - start


NO_PARTS = Plan(0, 1)  # of an object that nothing is known of yet


def check_part_size(part_size: int) -> int:
    """Return ``part_size`` if it is one of the allowed sizes, 1 B to 5 GiB.

    Raises:
        UsageError: it is not.
    """
    if not MIN_PART_SIZE <= part_size <= MAX_PART_SIZE:
        raise UsageError(f"part size {part_size} is outside 1 B to 5 GiB ({MAX_PART_SIZE} bytes)")
    return part_size


def make_plan(size: int, part_size: int | None) -> Plan:
    """Cut an object of ``size`` bytes; None chooses the part size.

    Raises:
        UsageError: the parts would be so many that the checkpoint becomes absurd; names the size to use, if there is
            one.
    """
    plan = make_stream_plan(size, part_size)
    if size > MOST_BYTES:
        raise UsageError(f"an object of {size} bytes: no more than {MOST_BYTES} can be planned")
    if plan.count > MAX_PART_COUNT:
        least = -(-size // MAX_PART_COUNT)
        raise UsageError(
            f"part size {plan.part_size} cuts {size} bytes into {plan.count} parts, more than {MAX_PART_COUNT}; "
            f"use --part-size {least} or more, or leave it out"
        )
    return plan


def make_stream_plan(size: int, part_size: int | None) -> Plan:
    """Cut an object that comes in one stream: into however many parts, because nothing is recorded of them.

    Raises:
        UsageError: the part size is not one of the allowed sizes.
    """
    if part_size is None:
        part_size = DEFAULT_PART_SIZE
        while size < part_size * SHARED_PARTS and part_size > LEAST_PART_SIZE:
            part_size //= 2
        while size > part_size * DEFAULT_PART_COUNT and part_size < MAX_PART_SIZE:
            part_size = min(2 * part_size, MAX_PART_SIZE)
    return Plan(size, check_part_size(part_size))


def probe_length(part_size: int | None) -> int:
    """Return how many bytes the very first request asks for, before the size is known: whole parts, at least one."""
    if part_size is None:
        return DEFAULT_PART_SIZE
    return max(part_size, DEFAULT_PART_SIZE // part_size * part_size)


def span_length(plan: Plan, remaining: int, connections: int, least: int = 1) -> int:
    """Return how many parts the next span should hold: guided self-scheduling between a floor and a ceiling.

    ``remaining`` counts the parts nobody fetches yet. A span is the share of one of ``connections`` in them, so that
    spans shrink towards the end and all connections finish together, but not below the ``least`` bytes that are worth
    a request. Source: Polychronopoulos and Kuck, 1987.
    """
    ceiling = max(1, MAX_SPAN // plan.part_size)
    floor = -(-max(LEAST_SPAN, least) // plan.part_size)
    return max(1, min(remaining, ceiling, max(floor, remaining // connections)))
