"""Samples out of tar shards: files that follow one another and share a name up to its first dot."""

from __future__ import annotations

import re
import tarfile
from typing import TYPE_CHECKING, Any

from fastdl.errors import ProtocolError
from fastdl.reading import stream
from fastdl.redact import redacted_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import IO

# Directories may have dots; of "a/b.c.jpg" the key is "a/b" and the rest, "c.jpg", names the field.
_MEMBER = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)
# Bytes that tarfile asks for at once. It copies what is left of them at each member, so more costs more where members
# are small, and fewer mean more calls where they are large.
_BLOCK = 64 * 1024

Sample = dict[str, Any]


def samples(url: str, settings: dict[str, Any]) -> Iterator[Sample]:
    """Yield the samples of one shard while it arrives, ``{"__key__": ..., "jpg": bytes, ...}``.

    Nothing of the shard is kept but the sample at hand and what ``fastdl.stream`` holds ready. The end is reached only
    if the whole object is what the store promised.

    Raises:
        ProtocolError: it is no tar archive, or one sample has two fields of one name.
        FastdlError: as of ``fastdl.stream``.
    """
    with stream(url, **settings) as shard:
        try:
            with tarfile.open(fileobj=shard, mode="r|*", bufsize=_BLOCK) as archive:
                yield from grouped(_files(archive))
        except (tarfile.TarError, ValueError, EOFError) as error:
            raise ProtocolError(f"{redacted_url(url)}: cannot be read as a tar archive of samples: {error}") from None
        shard.result()


def grouped(files: Iterable[tuple[str, bytes]]) -> Iterator[Sample]:
    """Join files that follow one another into samples; names without a dot are left out.

    Raises:
        ValueError: a sample has two fields of one name.
    """
    sample: Sample = {}
    for name, data in files:
        match = _MEMBER.fullmatch(name)
        if match is None:
            continue
        key, field = match[1], match[2].lower()
        if sample.get("__key__") != key:
            if sample:
                yield sample
            sample = {"__key__": key}
        if field in sample:
            raise ValueError(f"two files {field!r} of the sample {key!r}")
        sample[field] = data
    if sample:
        yield sample


def _files(archive: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    for member in archive:
        if member.isreg():
            body: IO[bytes] | None = archive.extractfile(member)
            if body is not None:
                yield member.name, body.read()
        archive.members.clear()  # type: ignore[attr-defined]  # tarfile keeps them all, for ever
