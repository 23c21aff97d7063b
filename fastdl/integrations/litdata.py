"""litdata fetches its chunks by ``fastdl.download``: ``register()`` once, then data sets as ever.

    from litdata import StreamingDataset
    from litdata.streaming.resolver import Dir
    from fastdl.integrations.litdata import register

    register("oss")
    data = StreamingDataset(Dir(url="oss://bucket/train"))

litdata takes ``s3://`` URLs as plain texts, others only as a ``Dir``. A worker that is spawned is a new interpreter:
there the call must stand where it is imported again, and not behind ``if __name__ == "__main__"``.
"""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock
from litdata.streaming.downloader import Downloader, register_downloader

from fastdl.api import download
from fastdl.errors import UsageError
from fastdl.ranges import read_ranges

SCHEMES = ("oss", "s3", "http", "https")


class Chunks(Downloader):  # type: ignore[misc, unused-ignore]
    """Fetches chunks and the index; what litdata knows as ``storage_options`` are settings of ``fastdl.download``."""

    def download_file(self, remote_chunkpath: str, local_chunkpath: str) -> None:
        """Fetch one file, unless it is there; who comes while another process fetches it waits for that one.

        Raises:
            FastdlError: as of ``fastdl.download``; what was fetched stays for the next try.
        """
        path = Path(local_chunkpath)
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not path.exists():
                download(remote_chunkpath, path, **self._storage_options)

    def download_bytes(self, remote_chunkpath: str, offset: int, length: int, local_chunkpath: str) -> bytes:  # noqa: ARG002 - of downloaders that keep a file
        """Return some bytes of one file; nothing is kept.

        Raises:
            FastdlError: as of ``fastdl.read_ranges``.
        """
        (data,) = read_ranges(remote_chunkpath, [(offset, length)], **self._storage_options)
        return data


def register(*schemes: str) -> None:
    """Let litdata fetch URLs of these schemes, by default of all of ``SCHEMES``, in this process and its forks.

    Raises:
        UsageError: a scheme is none that fastdl knows.
    """
    unknown = set(schemes) - {*SCHEMES}
    if unknown:
        raise UsageError(f"scheme {min(unknown)!r} is none of {', '.join(SCHEMES)}")
    for scheme in schemes or SCHEMES:
        register_downloader(f"{scheme}://", Chunks, overwrite=True)
