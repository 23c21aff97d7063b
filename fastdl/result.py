"""What a download hands back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003 - dataclass fields are looked at when unpickled

from fastdl.limit import Level  # noqa: TC001

_PROOF = {
    "length": "length verified, the server promises no checksum",
    "none": "nothing to verify it by: the server promised not even a length",
}


@dataclass(slots=True)
class Fetched:
    """The counts of one run while it goes on, and the whole object's CRC-64 at its end; ``size`` once it is known."""

    size: int | None = None  # bytes
    crc64: int = 0
    parts_reused: int = 0
    parts_damaged: list[int] = field(default_factory=list)
    parts_repaired: tuple[int, ...] = ()
    bytes_fetched: int = 0
    requests: int = 0
    retries: int = 0
    connections: int = 0  # the most that delivered at once
    levels: tuple[Level, ...] = ()
    bottleneck: str = ""


@dataclass(frozen=True, slots=True)
class DownloadResult:
    """What was downloaded, and what was proven of it.

    Attributes:
        path: where the object is, under its final name.
        url: where it came from, redacted.
        size: bytes.
        etag: the server's ETag as it wrote it, empty if it gave none.
        crc64: CRC-64/XZ of the whole object, as computed here from the received bytes.
        integrity: the strongest digest that the bytes were compared with: of those of ``checksum`` if there were any,
            else of those that the store promised (``sha256``, ``crc64``, ...); ``length`` (the promised size only;
            also where parts were trusted unread), ``none`` (the server promised not even a size).
        part_size: bytes.
        parts: how many parts the object has; 0 for an empty one or a single ordered stream.
        parts_reused: parts kept from an earlier run, after their bytes were compared with their records.
        parts_damaged: indices of parts that an earlier run had finished, whose bytes or records were found changed on
            the disk, and which were fetched again.
        parts_repaired: indices of parts that came wrong in this run, as the whole object's digest told, and were
            replaced after further answers agreed.
        bytes_fetched: bytes of body received in this run.
        requests: requests sent in this run.
        retries: how many of them repeated a failed one.
        seconds: wall time.
        connections: the most that delivered at once.
        levels: how many connections were allowed from when on, and what they had brought until then.
        bottleneck: what kept it from being faster: ``line``, ``server`` (it refused more connections), ``connections``
            (each is capped, and all that were allowed are used), ``processors``, ``disk``, ``limit rate``, or nothing
            if it was over too soon to tell.
        started_over: why bytes of an earlier run were thrown away; empty if there was no reason to.
    """

    path: Path
    url: str
    size: int
    etag: str
    crc64: int
    integrity: str
    part_size: int
    parts: int
    parts_reused: int
    parts_damaged: tuple[int, ...]
    bytes_fetched: int
    requests: int
    retries: int
    seconds: float
    connections: int
    levels: tuple[Level, ...] = ()
    bottleneck: str = ""
    started_over: str = ""
    parts_repaired: tuple[int, ...] = ()

    @property
    def reused(self) -> str:
        """For people: what of an earlier run was used, and what came wrong."""
        told = f"{self.parts_reused} of {self.parts} parts reused" if self.parts_reused else "nothing reused"
        told += f", {len(self.parts_damaged)} damaged ones fetched again" if self.parts_damaged else ""
        return told + (f", {len(self.parts_repaired)} that came wrong repaired" if self.parts_repaired else "")

    @property
    def proof(self) -> str:
        """For people: what was proven of the bytes."""
        return f"{_PROOF.get(self.integrity, f'{self.integrity} verified')}; CRC-64 is {self.crc64:016x}"


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What was fetched into memory, and what was proven of it; the fields mean what those of ``DownloadResult`` do."""

    url: str
    size: int
    etag: str
    crc64: int
    integrity: str
    part_size: int
    parts: int
    parts_repaired: tuple[int, ...]
    bytes_fetched: int
    requests: int
    retries: int
    seconds: float
    connections: int
    bottleneck: str


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """What was found of a file that is there.

    Attributes:
        path: the file.
        url: what it was held against, redacted; empty if no store was asked.
        size: bytes of the file.
        good: whether it is what it should be, perhaps after a repair.
        reason: why the whole is not, if that can be said; bad parts may be known besides, or not.
        crc64: CRC-64/XZ of the file; 0 if it was not hashed, or holds parts that could not be repaired.
        integrity: what it was compared with: a digest that the store promised or the caller gave (``crc64``,
            ``sha256``), ``records`` kept by the download, ``bytes`` of a second copy that was fetched and not stored,
            ``length`` if there was nothing else.
        part_size: bytes.
        parts: how many parts it has.
        parts_bad: indices of parts that are wrong, and still are after a repair.
        parts_repaired: indices of parts that were wrong and were overwritten by right ones.
        bytes_fetched: bytes of body received.
        requests: requests sent.
        seconds: wall time.
    """

    path: Path
    url: str
    size: int
    good: bool
    reason: str
    crc64: int
    integrity: str
    part_size: int
    parts: int
    parts_bad: tuple[int, ...]
    parts_repaired: tuple[int, ...]
    bytes_fetched: int
    requests: int
    seconds: float
