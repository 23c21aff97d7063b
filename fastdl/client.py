"""``Client``: settings said once, workers and connections that stay warm, and calls that can be taken back."""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import os
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from fastdl import api, facts, ranges, reading, remote
from fastdl.cancellation import Cancellation, cancelled_by, current
from fastdl.errors import Cancelled, UsageError
from fastdl.prepare import Options, Settings
from fastdl.reuse import Reuse, reusing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

    from fastdl.facts import ObjectFacts
    from fastdl.reading import Stream
    from fastdl.remote import Remote
    from fastdl.result import DownloadResult

_PATIENCE = 3.0  # seconds that calls get to end after they were taken back
_NAP = 0.05
_THREADS = 32  # of async forms; each waits for a call
_open: weakref.WeakSet[Client] = weakref.WeakSet()
T = TypeVar("T")


class Client:
    """Many calls with the same settings, for one process.

        with fastdl.Client(endpoint_url="https://oss-cn-hangzhou.aliyuncs.com", connections=64) as client:
            client.download("oss://bucket/shard-00000.tar", "shard-00000.tar")
            client.download("oss://bucket/shard-00001.tar", "shard-00001.tar")

    ``settings`` are those of ``download``; each call takes more of them, and those count. Workers are started by the
    first download that needs some and used by all that follow; connections of this process stay open too. Several
    threads may call at once: each has workers of its own for as long. In a fork a client begins anew. Pickled, it is
    its settings. Methods whose names begin with ``a`` are for asyncio; a task that is cancelled takes its call back.
    """

    def __init__(self, **settings: Unpack[Settings]) -> None:
        unknown = settings.keys() - Settings.__annotations__.keys()
        if unknown:
            raise UsageError(f"{', '.join(sorted(unknown))}: no setting of a client")
        self._settings: dict[str, Any] = dict(settings)
        self._begin()
        _open.add(self)

    def __reduce__(self) -> tuple[Callable[..., Client], tuple[dict[str, Any]]]:
        """Be the settings in another process, with nothing that is going on."""
        return _with_settings, (self._settings,)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def download(self, url: str, path: str | os.PathLike[str], **more: Any) -> DownloadResult:
        """Download one object to a file, as ``fastdl.download`` does.

        Raises:
            Cancelled: ``cancel`` was called; what is finished stays, and the next call resumes.
            FastdlError: as of ``fastdl.download``.
        """
        return self._call(api.download, url, path, **self._settings | more)

    def head(self, url: str, **more: Any) -> ObjectFacts:
        """Ask what an object is, as ``fastdl.head`` does."""
        return self._call(facts.head, url, **self._reaching | more)

    def read_ranges(self, url: str, spans: Iterable[tuple[int, int]], **more: Any) -> list[bytes] | list[memoryview]:
        """Read many small ranges of one object, as ``fastdl.read_ranges`` does."""
        return self._call(ranges.read_ranges, url, spans, **self._reaching | more)

    def stream(self, url: str, **more: Any) -> Stream:
        """Read an object in order, as ``fastdl.stream`` does; ``cancel`` ends it too."""
        return self._opened(self._call(reading.stream, url, **self._settings | more))

    def open(self, url: str, **more: Any) -> Remote:
        """Fetch an object into shared memory, as ``fastdl.open`` does; ``cancel`` ends it too."""
        return self._opened(self._call(remote.open, url, **self._settings | more))

    async def adownload(self, url: str, path: str | os.PathLike[str], **more: Any) -> DownloadResult:
        """Await ``download``."""
        return await self._await(self.download, url, path, **more)

    async def ahead(self, url: str, **more: Any) -> ObjectFacts:
        """Await ``head``."""
        return await self._await(self.head, url, **more)

    async def aread_ranges(
        self, url: str, spans: Iterable[tuple[int, int]], **more: Any
    ) -> list[bytes] | list[memoryview]:
        """Await ``read_ranges``."""
        return await self._await(self.read_ranges, url, spans, **more)

    async def astream(self, url: str, **more: Any) -> AsyncIterator[bytes]:
        """Iterate asynchronously over blocks of an object, in order."""
        stream = await self._await(self.stream, url, **more)
        try:
            while block := await self._await(stream.read1, ending=stream.cancel):
                yield block
        finally:
            stream.close()

    def cancel(self) -> None:
        """Take back every call that goes on, from whatever thread, and wait a moment until they have ended.

        Each of them raises ``Cancelled``; so does who reads a stream or an object in memory that was opened here. The
        client is of use afterwards.
        """
        for opened in list(self._streams):
            if not opened.closed:
                opened.cancel()
        deadline = time.monotonic() + _PATIENCE
        calls = dict(self._calls)
        while calls and time.monotonic() < deadline:
            for cancellation in calls:
                cancellation.cancel()
            calls = {each: at for each, at in calls.items() if each in self._calls and at != threading.get_ident()}
            time.sleep(_NAP if calls else 0)

    def close(self) -> None:
        """Take back what goes on, stop the workers and close the connections; nothing can be called any more."""
        if os.getpid() == self._owner:
            self._over = True
            self.cancel()
            if self._threads is not None:
                self._threads.shutdown(wait=False)
        self._reuse.close()
        _open.discard(self)

    def _begin(self) -> None:
        self._owner = os.getpid()
        self._over = False
        self._reuse = Reuse()
        self._calls: dict[Cancellation, int] = {}  # and their threads
        self._streams: weakref.WeakSet[Stream | Remote] = weakref.WeakSet()
        self._threads: ThreadPoolExecutor | None = None

    def _call(self, function: Callable[..., T], *args: Any, **settings: Any) -> T:
        self._check_open()
        with self._going_on() as cancellation, reusing(self._reuse), cancelled_by(cancellation):
            try:
                return function(*args, **settings)
            except Exception as error:
                if cancellation.wanted and not isinstance(error, Cancelled):
                    raise Cancelled(f"cancelled: {error}") from None
                raise

    def _check_open(self) -> None:
        if os.getpid() != self._owner:  # what goes on in the parent is not ours
            over, reuse = self._over, self._reuse
            self._begin()
            self._over, self._reuse = over, reuse  # which looks after itself
        if self._over:
            raise UsageError("the client is closed")

    @contextmanager
    def _going_on(self) -> Iterator[Cancellation]:
        cancellation = current()  # of the task that awaits this, or one of its own
        self._calls[cancellation] = threading.get_ident()
        try:
            yield cancellation
        finally:
            del self._calls[cancellation]

    def _opened(self, opened: T) -> T:
        self._streams.add(opened)  # type: ignore[arg-type]
        return opened

    @property
    def _reaching(self) -> dict[str, Any]:
        """Those of the settings that say how an object is reached."""
        return {name: value for name, value in self._settings.items() if name in Options.__annotations__}

    async def _await(
        self, function: Callable[..., T], *args: Any, ending: Callable[[], None] = lambda: None, **more: Any
    ) -> T:
        """Run ``function`` in a thread; a task that is cancelled takes it back, by ``ending`` too, and waits for it."""
        self._check_open()
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, "fastdl-client")
        cancellation = Cancellation()
        with cancelled_by(cancellation):
            around = contextvars.copy_context()
        future = self._threads.submit(around.run, function, *args, **more)
        waited = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(waited)
        except asyncio.CancelledError:
            if not future.cancel():  # it has begun
                cancellation.cancel()
                ending()
                await asyncio.wait([waited])
                waited.exception()  # it was asked for, and is no news
            raise


def _with_settings(settings: dict[str, Any]) -> Client:
    return Client(**settings)


@atexit.register
def _close_all() -> None:
    """Let an interpreter that ends leave no worker behind."""
    for client in list(_open):
        client.close()
