"""fastdl moves one very large object from a web server or object store onto a machine: fast, resumable, never wrong.

    import fastdl

    result = fastdl.download("https://example.org/model.bin", "model.bin")

Everything public is handed out lazily (PEP 562): importing the package is cheap, the first use pays for the rest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastdl.api import download
    from fastdl.cache import cached
    from fastdl.client import Client
    from fastdl.errors import (
        AccessDenied,
        Archived,
        Busy,
        Cancelled,
        DiskError,
        FastdlError,
        IntegrityError,
        NetworkError,
        NotFound,
        ObjectChanged,
        ProtocolError,
        UsageError,
    )
    from fastdl.facts import ObjectFacts, head
    from fastdl.progress import ProgressEvent
    from fastdl.ranges import read_ranges
    from fastdl.reading import Stream, stream
    from fastdl.remote import Remote, open  # noqa: A004
    from fastdl.result import DownloadResult, LoadResult, VerifyResult
    from fastdl.verification import verify

__version__ = "0.1.0"
__all__ = [
    "AccessDenied",
    "Archived",
    "Busy",
    "Cancelled",
    "Client",
    "DiskError",
    "DownloadResult",
    "FastdlError",
    "IntegrityError",
    "LoadResult",
    "NetworkError",
    "NotFound",
    "ObjectChanged",
    "ObjectFacts",
    "ProgressEvent",
    "ProtocolError",
    "Remote",
    "Stream",
    "UsageError",
    "VerifyResult",
    "cached",
    "download",
    "head",
    "open",
    "read_ranges",
    "stream",
    "verify",
]
_HOMES = {
    "Client": "client",
    "DownloadResult": "result",
    "LoadResult": "result",
    "ObjectFacts": "facts",
    "ProgressEvent": "progress",
    "Remote": "remote",
    "Stream": "reading",
    "VerifyResult": "result",
    "cached": "cache",
    "download": "api",
    "head": "facts",
    "open": "remote",
    "read_ranges": "ranges",
    "stream": "reading",
    "verify": "verification",
}


def __dir__() -> list[str]:
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value
