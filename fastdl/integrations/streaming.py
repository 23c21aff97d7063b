"""mosaicml-streaming fetches its shards by ``fastdl.download``: ``register()`` once, then data sets as ever.

    from streaming import StreamingDataset
    from fastdl.integrations.streaming import register

    register("oss", endpoint_url="internal", region="cn-hangzhou")
    data = StreamingDataset(remote="oss://bucket/train", local="/data/train")

A worker that is spawned is a new interpreter: there the call must stand where it is imported again, and not behind
``if __name__ == "__main__"``.
"""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

from streaming.base.storage.download import DOWNLOADER_MAPPINGS, CloudDownloader

from fastdl.api import download
from fastdl.errors import UsageError
from fastdl.prepare import Settings  # noqa: TC001 - typing.get_type_hints looks at it

SCHEMES = ("oss", "s3", "http", "https", "hf")


def register(*schemes: str, **settings: Unpack[Settings]) -> None:
    """Let streaming fetch URLs of these schemes, by default of all of ``SCHEMES``, in this process and its forks.

    Args:
        *schemes: without ``://``.
        **settings: as of ``fastdl.download``; ``max_time`` is at most what streaming calls ``download_timeout``.

    Raises:
        UsageError: a scheme is none that fastdl knows.
    """
    unknown = set(schemes) - {*SCHEMES}
    if unknown:
        raise UsageError(f"scheme {min(unknown)!r} is none of {', '.join(SCHEMES)}")
    for scheme in schemes or SCHEMES:
        DOWNLOADER_MAPPINGS[scheme] = type(
            f"Fastdl{scheme.title()}", (Shards,), {"scheme": scheme, "settings": settings}
        )


class Shards(CloudDownloader):  # type: ignore[misc, unused-ignore]
    """Fetches one file at a time, resumable and judged; streaming makes one for each process and retries it."""

    scheme: ClassVar[str]
    settings: ClassVar[dict[str, Any]]

    @classmethod
    def _client_identifier(cls) -> str:
        """Tell which URLs are meant, to the check of the base class."""
        return getattr(cls, "scheme", "")

    def clean_up(self) -> None:
        """Do nothing: there is no client."""

    def _download_file_impl(self, remote: str, local: str, timeout: float) -> None:
        """Fetch ``remote`` into ``local`` within ``timeout`` seconds.

        Raises:
            FastdlError: as of ``fastdl.download``; what was fetched stays for the next try.
        """
        most = self.settings.get("max_time")
        download(remote, local, **{**self.settings, "max_time": timeout if most is None else min(timeout, most)})
