"""webdataset reads its shards by ``fastdl.stream``: ``register()`` once, then URLs as ever.

    import webdataset
    from fastdl.integrations.webdataset import register

    register("oss", "s3", "https")
    for sample in webdataset.WebDataset("oss://bucket/train-{000000..000099}.tar", shardshuffle=False): ...

A worker that is spawned is a new interpreter: there the call must stand where it is imported again, at the top of a
module and not behind ``if __name__ == "__main__"``. Without any of this, ``pipe:fastdl cat URL`` does the same by the
command: one process more for each shard, and its exit code judges.
"""

from __future__ import annotations

import functools
import io
from typing import TYPE_CHECKING, Any, Unpack

from webdataset.gopen import gopen_schemes

from fastdl.errors import UsageError
from fastdl.reading import Stream, stream

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from fastdl.prepare import Settings

SCHEMES = ("oss", "s3", "http", "https")


def register(*schemes: str, window: int | None = None, **settings: Unpack[Settings]) -> None:
    """Let webdataset open URLs of these schemes, by default of all of ``SCHEMES``, by ``fastdl.stream``.

    Holds for this process and its forks. A later call for the same scheme replaces an earlier one.

    Args:
        *schemes: without ``://``.
        window: as of ``fastdl.stream``, for each shard that is open.
        **settings: as of ``fastdl.stream``.

    Raises:
        UsageError: a scheme is none that fastdl knows.
    """
    unknown = set(schemes) - {*SCHEMES}
    if unknown:
        raise UsageError(f"scheme {min(unknown)!r} is none of {', '.join(SCHEMES)}")
    chosen = dict(settings) if window is None else {"window": window, **settings}
    for scheme in schemes or SCHEMES:
        gopen_schemes[scheme] = functools.partial(_open, settings=chosen)


class Shard(io.RawIOBase):
    """A stream whose last byte is handed out only when the whole was judged.

    Whoever reads a tar archive stops at its end and never asks for what follows, so that the end of the file would
    come too late to tell.
    """

    def __init__(self, shard: Stream) -> None:
        self._shard = shard

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill ``buffer``; return how many bytes it holds now, fewer than its length only at the end.

        Raises:
            FastdlError: they cannot be had; with the last one also if the whole is not what was promised.
        """
        count = self._shard.readinto(buffer)
        if self._shard.tell() == self._shard.size:
            self._shard.result()
        return count

    def close(self) -> None:
        """End the download if it still goes on."""
        if not self.closed:
            self._shard.close()
        super().close()


def _open(url: str, mode: str = "rb", bufsize: int = 8192, *, settings: dict[str, Any], **options: Any) -> Shard:  # noqa: ARG001 - webdataset hands it in
    """Open one shard; ``options`` are what was handed to ``gopen``, and win."""
    if mode[:1] != "r":
        raise UsageError("fastdl only reads: write shards by another scheme")
    return Shard(stream(url, **{**settings, **options}))
