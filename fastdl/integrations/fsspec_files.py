"""What ``open`` of the file system gives: a file that fetches ranges, or one that is read once, in order."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from fsspec.caching import BaseCache, register_cache
from fsspec.spec import AbstractBufferedFile

from fastdl.errors import ObjectChanged
from fastdl.integrations.fsspec_bytes import errors_of_python
from fastdl.reading import BLOCK
from fastdl.redact import redacted_url

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import WriteableBuffer

    from fastdl.facts import ObjectFacts
    from fastdl.integrations.fsspec import FastdlFileSystem
    from fastdl.reading import Stream

GROWING = "growing"
_LEAST = 256 * 1024  # bytes fetched at least: a request costs more than these
_FIRST, _MOST = 1024 * 1024, 32 * 1024 * 1024  # bytes fetched ahead of who reads on: at first, and in the end
_LINE = 64 * 1024  # bytes looked through at once for the end of a line


class Growing(BaseCache):  # type: ignore[misc, unused-ignore]
    """Holds the bytes fetched last; fetches what is asked for, and twice as far ahead each time that reading goes on.

    A parquet file is read by jumps, of which each fetches its own bytes only, and a text in order, by ever longer runs
    that many connections share.
    """

    name = GROWING

    def __init__(self, blocksize: int, fetcher: Callable[[int, int], bytes], size: int) -> None:
        super().__init__(blocksize, fetcher, size)
        self._held, self._start, self._ahead = b"", 0, 0

    def _fetch(self, start: int | None, stop: int | None) -> bytes:
        start = 0 if start is None else start
        stop = self.size if stop is None else min(stop, self.size)
        if start >= stop:
            return b""
        end = self._start + len(self._held)
        if self._start <= start and stop <= end:
            self.hit_count += 1
            return self._held[start - self._start : stop - self._start]
        self.miss_count += 1
        goes_on = self._start <= start <= end and end > 0
        ahead = min(max(2 * self._ahead, _FIRST), _MOST) if goes_on else 0
        before = self._held[start - self._start :] if goes_on else b""
        begin = end if goes_on else max(0, min(start, self.size - _LEAST))  # at its end an object is read backwards
        until = min(self.size, max(stop + ahead, begin + _LEAST))
        self.total_requested_bytes += until - begin
        self._held, self._start, self._ahead = self.fetcher(begin, until), begin, ahead
        return before + self._held[max(0, start - begin) : stop - begin]


register_cache(Growing, clobber=True)


class RangedFile(AbstractBufferedFile):  # type: ignore[misc, unused-ignore]
    """An object as a file that can seek; all its bytes are of the state that it had when it was opened.

    Raises:
        ObjectChanged: another one is there by now, or, unpickled, one of another size.
    """

    def __init__(
        self, fs: FastdlFileSystem, path: str, url: str, facts: ObjectFacts, *, size: int | None = None, **how: Any
    ) -> None:
        if size not in (None, facts.size):
            raise ObjectChanged(f"{facts.url}: size was {size}, is {facts.size}")
        self._url, self._facts = url, facts
        super().__init__(fs, path, "rb", size=facts.size, **how)

    @property
    def details(self) -> dict[str, Any]:
        """What ``info`` told when it was opened."""
        told: dict[str, Any] = self.fs.told(self.path, self._facts)
        return told

    def readline(self, size: int | None = -1, /) -> bytes:
        """Return what is left up to the end of the line, that included, and no more than ``size`` bytes."""
        if size is not None and size >= 0:
            return io.IOBase.readline(self, size)
        line: bytes = self.readuntil(b"\n", blocks=_LINE)
        return line

    def _fetch_range(self, start: int, end: int) -> bytes:
        """Fetch bytes; all at once only judged as a whole, where its state can be told by what that tells."""
        whole = (start, end) == (0, self.size) and self._facts.etag
        with errors_of_python():
            if whole:
                return self.fs.bytes.whole(self._url, self._facts)  # type: ignore[no-any-return]
            return self.fs.bytes.ranges(self._url, [(start, end - start)], state=self._facts)[0]  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {redacted_url(self._url)}>"

    __str__ = __repr__


class OrderedFile(io.BufferedReader):
    """An object as a file that is read once, from its first byte to its last; its end is told when all was judged."""

    def __init__(self, fs: FastdlFileSystem, stream: Stream, url: str) -> None:
        super().__init__(_Ordered(stream), BLOCK)
        self._fs = fs  # with which its connections would go
        self._stream, self._url = stream, url

    @property
    def size(self) -> int | None:
        """Bytes of the object; None if the server does not say."""
        with errors_of_python():
            return self._stream.size

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {redacted_url(self._url)}>"


class _Ordered(io.RawIOBase):
    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        with errors_of_python():
            return self._stream.readinto1(buffer)

    def readall(self) -> bytes:
        with errors_of_python():
            return self._stream.read()

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._stream.tell()

    def close(self) -> None:
        self._stream.close()
        super().close()
