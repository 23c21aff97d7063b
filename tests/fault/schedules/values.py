"""A schedule as a value: an object, and runs of the command with what happens to server, processes and files."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Thing:
    """The object and how it is served.

    ``validator``: strong (ETag), weak, date (Last-Modified alone), none. ``promise``: none, crc64, sha256, told with
    every answer. ``serving``: ranges, whole (200 to everything), chunked, endless (HTTP/1.0, no length).
    """

    size: int  # bytes, of its first version
    validator: str = "strong"
    promise: str = "none"
    serving: str = "ranges"


@dataclass(frozen=True, slots=True)
class Flags:
    """Those of one run; ``part_size`` 0 leaves the choice to the command."""

    part_size: int = 4096
    workers: int = 1
    connections: int = 4
    resume: str = "verify"
    retry: int = 3
    read_timeout: float = 6.0  # seconds; less only where something stalls: a busy machine stalls too
    limit_rate: int = 0
    fsync: bool = False
    keep_records: bool = False
    no_checkpoint: bool = False
    no_clobber: bool = False
    json: bool = True


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with the answer to the ``at``-th request of a run, from 1; ``amount`` as the kind wants it."""

    kind: str
    at: int
    amount: int = 0


@dataclass(frozen=True, slots=True)
class Blow:
    """What is done to the processes of a run, or to its files, once ``count`` of ``event`` are there.

    Events: requests (seen by the server), sent (bytes of bodies), marks (in the checkpoint), moment (milliseconds
    after the first request).
    """

    kind: str
    event: str
    count: int
    amount: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """One run of ``verb``: get, verify, repair, records (a verify that asks no server).

    ``first`` is how many bytes the first answer has at most and ``each`` how many the others, 0 for all: one answer
    would else be all of a small object. ``held`` is the number of the request whose answer waits, after its first byte,
    until every blow was struck. With ``crowd`` the first answer waits for the second request, so that workers are up.
    """

    flags: Flags = Flags()
    verb: str = "get"
    faults: tuple[Fault, ...] = ()
    blows: tuple[Blow, ...] = ()
    first: int = 0
    each: int = 0
    held: int = 0
    crowd: bool = False


@dataclass(frozen=True, slots=True)
class Damage:
    """What happens between two runs to ``what`` (part, cp, out).

    ``how``: flip, cut, extend, delete, junk, swap (another file of the same size), older (as it was before the last
    run). ``amount`` is where, in thousandths of the file.
    """

    what: str
    how: str
    amount: int = 0


@dataclass(frozen=True, slots=True)
class Replacement:
    """The object is replaced by another one of ``size`` bytes between two runs."""

    size: int


Step: TypeAlias = Run | Damage | Replacement


@dataclass(frozen=True, slots=True)
class Schedule:
    """``steps``, then runs of ``last`` with no fault until the download is done.

    ``checksum``: none, sha256, crc64; what every run is told of the object there is at its start.
    """

    seed: int
    thing: Thing
    steps: tuple[Step, ...]
    last: Flags = Flags()
    checksum: str = "none"

    @property
    def proven(self) -> bool:
        """Whether something is known of the object that a wrong byte contradicts."""
        return self.thing.promise != "none" or self.checksum != "none"


def shown(value: object, indent: str = "") -> str:
    """Write a schedule as the Python that makes it, without what is left at its default."""
    deeper = indent + "    "
    if isinstance(value, tuple):
        return "(\n" + "".join(f"{deeper}{shown(item, deeper)},\n" for item in value) + indent + ")" if value else "()"
    if not is_dataclass(value):
        return repr(value)
    arguments = []
    for field in fields(value):
        now = getattr(value, field.name)
        if field.default is MISSING:
            arguments.append(shown(now, deeper))
        elif now != field.default:
            arguments.append(f"{field.name}={shown(now, deeper)}")
    if isinstance(value, Schedule):
        return "Schedule(\n" + "".join(f"{deeper}{each},\n" for each in arguments) + indent + ")"
    return f"{type(value).__name__}({', '.join(arguments)})"
