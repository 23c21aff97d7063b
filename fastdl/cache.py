"""``cached``: the path of a complete copy of an object, fetched once for everybody on this machine."""

from __future__ import annotations

import os
import random
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Unpack

from fastdl import arguments
from fastdl.errors import Busy, DiskError, IntegrityError, NotFound, ObjectChanged, UsageError, disk_errors
from fastdl.flight import Patience, flight
from fastdl.hashers import make_hasher
from fastdl.http import Transport
from fastdl.job import checkpoint_path_of, file_name
from fastdl.labels import key_of, version_of
from fastdl.loading import make_job
from fastdl.names import is_safe_name
from fastdl.prepare import Settings  # noqa: TC001 - typing.get_type_hints looks at it
from fastdl.probe import probe
from fastdl.progress import Teller
from fastdl.result import Fetched
from fastdl.retry import Attempts
from fastdl.sequence import Download
from fastdl.shelf import NEW, Shelf
from fastdl.tending import bound, directory, make_directory, make_room

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fastdl.job import Job
    from fastdl.probe import Probe
    from fastdl.shelf import Copy
    from fastdl.validator import ObjectInfo

_TRIES = 3  # an object that is replaced more often while it is fetched never holds still
_WINDOW = 1024 * 1024  # bytes hashed at a time
_LONGEST_SUFFIX = 16  # characters


def cached(
    url: str,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    max_bytes: int | str | None = None,
    max_age: float = 0.0,
    offline: bool = False,
    **settings: Unpack[Settings],
) -> Path:
    """Return the path of a complete, verified copy of the object, fetched if there is none of its present version.

    Of all processes and threads on this machine that want it at once one fetches, and the others wait for that; if it
    is killed, the next goes on where it stopped. Each call asks the store, by a GET of one byte, whether the copy is
    still the object: right bytes come before fast ones. ``max_age`` spares that. An object without a strong ETag,
    version id or Last-Modified is fetched anew whenever it would be asked for.

    The file is to be read only (mode 0444) and has the URL's last name, so that loaders know its kind. It is never
    changed: another version is another file, and the old one stays until there is no room for it. Under a bound what
    was longest unused is removed, never what is being fetched, nor what this call returns. Who opened a file keeps it;
    who has only its path may find it gone, if the bound is smaller than what is in use.

    Args:
        url: as of ``download``; of signed URLs the signature does not matter.
        cache_dir: by default $FASTDL_CACHE, $XDG_CACHE_HOME/fastdl, or ~/.cache/fastdl.
        max_bytes: what the cache may take, a number or a text as ``500G``; by default $FASTDL_CACHE_MAX, or no bound.
        max_age: seconds for which a copy is believed after the store last had it.
        offline: never ask the store; what is there is returned, however old.
        settings: as of ``download``; ``max_time`` is that of waiting and fetching together. ``checksum``: a copy that
            is there is hashed, once, before it is returned. Headers other than Accept and Accept-Language tell no
            copies apart: within ``max_age``, and offline, a copy that came by others is returned.

    Raises:
        NotFound: there is no such object, or, ``offline``, no copy.
        Busy: another process fetched it for longer than ``max_time``.
        IntegrityError: the object, or ``offline`` the copy, has another ``checksum``.
        FastdlError: as of ``download``; finished parts are kept in the cache, and the next call resumes.
    """
    if not arguments.seconds("max_age", max_age) >= 0:
        raise UsageError(f"max_age {max_age}: must be 0 seconds or more")
    root, most = directory(cache_dir), bound(max_bytes)
    job = make_job(url, **settings)
    shelf = Shelf(root / key_of(job.source, arguments.pairs(settings.get("headers"))))
    patience = Patience(job.source.shown, job.max_time)
    if offline or max_age:
        copy = _right(shelf, shelf.newest())
        age = None if copy is None else (time.time_ns() - copy.checked) / 1e9
        if copy is not None and age is not None and (offline or 0 <= age <= max_age):
            if _has(shelf, copy, job) and shelf.use(copy):
                return copy.path
            if offline:
                raise IntegrityError(f"{copy.path}: the copy of {job.source.shown} has another checksum, or is gone")
        if offline:
            raise NotFound(f"{job.source.shown}: not in the cache {root}, and the store is not to be asked")
    make_directory(root)
    errand = _Errand(job, root, most, shelf, patience, _name_for(url, shelf))
    for _ in range(_TRIES - 1):
        with suppress(ObjectChanged):
            return errand.run().path
    return errand.run().path


@dataclass(frozen=True, slots=True)
class _Errand:
    """One call that has to ask the store."""

    job: Job
    root: Path
    most: int | None
    shelf: Shelf
    patience: Patience
    name: str

    def run(self) -> Copy:
        """Return the copy of the version that the store has now.

        Raises:
            ObjectChanged: it has another one by the time that it is fetched.
        """
        shelf, before = self.shelf, self.shelf.newest()
        asked = time.time_ns()
        found = self._ask()
        version = version_of(found.info)

        def landed(waited: bool) -> Copy | None:
            copy = _right(shelf, shelf.copy(version) if version else shelf.newest() if waited else None)
            # Where nothing tells versions apart a copy counts if it was fetched while this call waited.
            if copy is None or (not version and before is not None and copy.version == before.version):
                return None
            return copy if _has(shelf, copy, self.job) and shelf.use(copy, asked if version else None) else None

        copy = landed(False)  # noqa: FBT003 - nobody was waited for yet
        if copy is not None:
            return copy
        with flight(shelf, self.job.source.shown, self.patience, landed) as there:
            return self._fetch(found, version or os.urandom(16).hex(), asked) if there is None else there

    def _ask(self) -> Probe:
        job = self.job
        transport = Transport(job.line, 1)
        teller = Teller(None, job.source.shown, self.patience.left, Fetched())
        try:
            found = probe(job.source, transport, 0, 1, Attempts(job.backoff.of_probe, random.Random()), teller.sleep)
            found.close()
            return found
        finally:
            transport.close()

    def _fetch(self, found: Probe, version: str, asked: int) -> Copy:
        """Download what was ``found``, locked, and put it on its shelf."""
        shelf, shown = self.shelf, self.job.source.shown
        wanted = version_of(found.info)

        def accept(info: ObjectInfo) -> None:
            if version_of(info) != wanted:
                raise ObjectChanged(f"{shown}: the object was replaced just now")

        shelf.sweep(version + NEW)  # other versions' beginnings too, which the store has no more
        new = shelf.folder / (version + NEW)
        with disk_errors(new):
            new.mkdir(0o700, exist_ok=True)
        if self.most is not None:
            make_room(self.root, self.most, found.info.size or 0, shelf, {version, new.name})
        job = replace(
            self.job,
            path=new / self.name,
            checkpoint_path=checkpoint_path_of(new / self.name, None),
            resume="verify",
            overwrite=True,
            fsync=True,  # copies are believed for months, and not hashed: they must survive what the machine does not
            keep_records=found.ranged,  # until the copy has its place, so that who dies in between loses nothing
        )
        while True:
            try:
                result = Download(replace(job, max_time=self.patience.left), None, accept).run()
                break
            except Busy:  # workers outlive a killed process for an instant
                self.patience.wait()
        copy = shelf.put(version, self.name, asked, f"{result.crc64:016x}", _texts(self.job))
        if self.most is not None:
            make_room(self.root, self.most, copy.size, shelf, {version})
        return copy


def _right(shelf: Shelf, copy: Copy | None) -> Copy | None:
    """Return ``copy``, unless it is another file than the one that was put there, and of another CRC-64."""
    if copy is None or not copy.moved:
        return copy
    return copy if _proves(shelf, copy, [f"crc64={copy.crc64}"]) else None


def _has(shelf: Shelf, copy: Copy, job: Job) -> bool:
    """Tell whether a copy has the checksums that the caller wants."""
    return _proves(shelf, copy, [text for text in _texts(job) if text not in copy.proven])


def _proves(shelf: Shelf, copy: Copy, texts: Sequence[str]) -> bool:
    """Hash a copy and tell whether it has the digests ``texts``; that is noted, so that it is hashed once.

    Raises:
        DiskError: it cannot be read.
    """
    hashers = {text: make_hasher(text.partition("=")[0]) for text in texts}
    if not hashers:
        return True
    buffer = memoryview(bytearray(_WINDOW))
    try:
        with copy.path.open("rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            while count := file.readinto(buffer):
                for hasher in hashers.values():
                    hasher.update(buffer[:count])
    except FileNotFoundError:
        return False
    except OSError as error:
        raise DiskError(f"{copy.path}: cannot be read: {error.strerror}") from None
    if any(text.partition("=")[2] != hasher.hexdigest() for text, hasher in hashers.items()):
        return False
    shelf.prove(copy, status, hashers)
    return True


def _texts(job: Job) -> list[str]:
    return [f"{each.algorithm}={each.hex}" for each in job.checksums]


def _name_for(url: str, shelf: Shelf) -> str:
    """Return the URL's last name, or one made up with its suffix where that is none that a file may have."""
    try:
        return file_name(url)
    except UsageError:
        suffix = url.partition("?")[0].rpartition("/")[2].rpartition(".")[2]
        name = f"object-{shelf.folder.name[:8]}"
        fits = 0 < len(suffix) <= _LONGEST_SUFFIX and suffix.isascii() and suffix.isalnum() and "." in url
        return f"{name}.{suffix}" if fits and is_safe_name(f"{name}.{suffix}") else name
