"""``open``: an object in memory that several processes share, of use while it arrives."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from fastdl import arguments
from fastdl.arrivals import Arrivals
from fastdl.board import SharedBoard, Watcher, open_of, started
from fastdl.errors import DiskError, UsageError, disk_errors
from fastdl.loading import Loading, make_job
from fastdl.memory import Memory
from fastdl.seeking import Seeking

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import DTypeLike

    from fastdl.arrays import Tensors
    from fastdl.pipe import Descriptor
    from fastdl.prepare import Settings
    from fastdl.result import LoadResult

_View = memoryview  # a method has its name


def open(url: str, *, directory: str | os.PathLike[str] | None = None, **settings: Unpack[Settings]) -> Remote:  # noqa: A001 - as of any module that opens something
    """Fetch one object into memory that can be read while the rest of it is on its way.

        with fastdl.open(url) as remote:
            remote.view(0, 8)                  # waits for these bytes alone, and has them fetched first
            array = remote.numpy("float32")    # waits for all, judged; no copy

    Fetching begins at once, in a thread and worker processes of its own, and needs as much memory as the object has
    bytes. Safe in daemonic and forked processes. A ``Remote`` can be pickled: another process of this machine, started
    in whatever way, reads the same memory, as long as the one that opened it has not closed it by then.

    Args:
        url: as of ``download``.
        directory: where to keep the bytes, in a file without a name, if memory is too small for them.
        **settings: as of ``download``.

    Returns:
        A readable binary file that can seek, with views and arrays of its memory.

    Raises:
        UsageError: a setting cannot be meant.
        AccessDenied: credentials are wanted and there are none.
        DiskError: memory or descriptors are short, or the directory takes no file.
    """
    folder = None if directory is None else Path(arguments.existing("directory", directory))
    job = make_job(url, **settings)
    memory = Memory(job.source.shown, directory=folder)
    board = SharedBoard()
    loading = Loading(job, memory, Arrivals(board=board))
    owner = os.getpid(), started(os.getpid())
    return Remote(memory.held, board.held, owner, loading)


class Remote(Seeking):
    """An object in shared memory; ``open`` makes one.

    Bytes are there as the server sent them; whether they are what the store promised is known when all have come:
    ``wait()``, ``numpy`` and ``memoryview`` return after that, or raise. Parts that came wrong are replaced before. All
    methods may be called from several threads; as a file it has one position, as any.
    """

    def __init__(
        self, memory: Descriptor | None, board: Descriptor, owner: tuple[int, int], loading: Loading | None
    ) -> None:
        self._held: tuple[Descriptor, Descriptor] | None = None if memory is None else (memory, board)
        self._owner = owner
        self._loading = loading
        self._watcher: Watcher | None = None
        self._mapping: mmap.mmap | None = None

    def __reduce__(self) -> tuple[Callable[..., Remote], tuple[Any, ...]]:
        """Refer to the memory of the process that opened it, for another one of this machine."""
        fds = tuple(each.fd for each in self._open())
        inodes = tuple((status.st_dev, status.st_ino) for status in map(os.fstat, fds))
        return _attach, (self._owner, fds, inodes)

    @property
    def size(self) -> int:
        """Bytes of the object; waits for the first answer, or for the end where the server does not say.

        Raises:
            FastdlError: it cannot be had.
        """
        size = self._come.until_begun()
        return self._come.until_ended().size if size is None else size

    def wait(self, start: int = 0, stop: int | None = None) -> None:
        """Wait for the bytes ``[start, stop)`` and have them fetched before others; for all, judged, without a stop.

        Raises:
            UsageError: the object has no such bytes.
            FastdlError: they cannot be had; of the whole also if it is not what was promised.
        """
        size = self._come.until_begun()
        if stop is None:
            size = stop = self.result().size
        fits = 0 <= start <= stop and (size is None or stop <= size)
        if not fits or not self._come.until_there(start, stop):
            raise UsageError(f"bytes {start} to {stop}: the object has {self.size}")

    def result(self) -> LoadResult:
        """Wait for all; return what was fetched and what was proven of it.

        Raises:
            FastdlError: it cannot be had, or is not what was promised.
        """
        return self._come.until_ended()

    def view(self, start: int, stop: int) -> _View:
        """Return the bytes ``[start, stop)`` as a read-only view of the memory itself, once they are there.

        Raises:
            UsageError, FastdlError: as of ``wait``.
        """
        self.wait(start, stop)
        return self._view(stop)[start:stop]

    def memoryview(self) -> _View:
        """Return all bytes, judged, as a read-only view of the memory itself.

        Raises:
            FastdlError: they cannot be had, or are not what was promised.
        """
        return self._view(self.result().size)

    def numpy(self, dtype: DTypeLike = "uint8", shape: tuple[int, ...] | None = None) -> np.ndarray[Any, Any]:
        """Return all bytes, judged, as a read-only array over the memory itself.

        ``shape`` defaults to one dimension; it must take exactly the bytes that there are.

        Raises:
            UsageError: items or shape do not fit the object's size.
            FastdlError: as of ``memoryview``.
        """
        import numpy  # noqa: PLC0415, ICN001 - heavy, and the method has the usual name of its alias's package

        whole = self.memoryview()
        try:
            array = numpy.frombuffer(whole, numpy.dtype(dtype)) if whole else numpy.empty(0, dtype)
            return array if shape is None else array.reshape(shape)
        except (TypeError, ValueError) as error:
            raise UsageError(f"{len(whole)} bytes are no array of {dtype} and shape {shape}: {error}") from None

    def npy(self) -> np.ndarray[Any, Any]:
        """Return the array that ``numpy.save`` wrote, judged, as a read-only array over the memory itself.

        Raises:
            UsageError: the object is no ``.npy`` file, or one of Python objects: those would be unpickled.
            FastdlError: as of ``memoryview``.
        """
        from fastdl.arrays import npy  # noqa: PLC0415 - numpy is heavy

        return npy(self.memoryview())

    def safetensors(self) -> Tensors:
        """Return the tensors of a ``.safetensors`` file by their names, each of use when its own bytes are there.

        Waits for the file's header alone. A tensor is a read-only array over the memory itself, as the server sent it:
        ``wait()`` before that if nothing shall be used that was not judged.

        Raises:
            UsageError: the object is no such file.
            FastdlError: its header cannot be had.
        """
        from fastdl.arrays import Tensors  # noqa: PLC0415 - likewise

        return Tensors(self)

    def path(self) -> Path:
        """Return a name of the memory, once all has come and was judged, for who wants a path: np.memmap, safe_open.

        It means the object until this is closed, in processes of the same user.

        Raises:
            FastdlError: as of ``memoryview``.
        """
        self.result()
        return Path(f"/proc/{os.getpid()}/fd/{self._open()[0].fd}")

    def cancel(self) -> None:
        """End the fetching, where it was opened, from whatever thread; whoever waits for bytes gets ``Cancelled``."""
        self._check_open()
        loading = self._loading
        if loading is not None and loading.ours:
            loading.arrivals.cancel()

    def close(self) -> None:
        """End the fetching if it still goes on; views and arrays of the memory stay valid."""
        super().close()  # first: nobody begins anything any more
        loading = getattr(self, "_loading", None)  # there is none if opening failed
        if loading is not None:
            loading.close()
        # Whoever reads at this moment holds what he needs of it for himself.
        self._loading = self._held = self._watcher = self._mapping = None

    @property
    def _come(self) -> Arrivals | Watcher:
        """Who tells what has come: in another process than the one that opened it, the board."""
        self._check_open()
        loading = self._loading  # another thread may close meanwhile
        if loading is not None and loading.ours:
            return loading.arrivals
        if self._watcher is None:
            self._watcher = Watcher(self._open()[1], self._owner)
        return self._watcher

    def _open(self) -> tuple[Descriptor, Descriptor]:
        """Return what memory and board are read by."""
        held = self._held
        if held is None or self.closed:
            raise ValueError("I/O operation on a closed object")
        return held

    def _reach(self, start: int, stop: int) -> int:
        size = self._come.until_begun()
        if size is not None or not self._come.until_there(start, stop):
            stop = min(stop, self.size)
        if start < stop:
            self.wait(start, stop)
        return stop

    def _view(self, stop: int) -> _View:
        """Return a view of at least the bytes before ``stop``, which are there."""
        if stop == 0:
            return memoryview(b"")
        mapping = self._mapping
        if mapping is None or len(mapping) < stop:  # it grows where nobody said how long it will be
            with disk_errors("the memory cannot be mapped"):
                mapping = self._mapping = mmap.mmap(self._open()[0].fd, 0, prot=mmap.PROT_READ)
        return memoryview(mapping)

    def _read(self, view: _View, start: int) -> None:
        held = self._open()[0]
        with disk_errors("the memory cannot be read"):
            while view:
                count = os.preadv(held.fd, [view], start)
                if count == 0:
                    raise DiskError("the memory is shorter than it was")
                start += count
                view = view[count:]


def _attach(owner: tuple[int, int], fds: tuple[int, int], inodes: tuple[tuple[int, int], tuple[int, int]]) -> Remote:
    """Open what another process of this machine has fetched, or is fetching."""
    return Remote(open_of(owner, fds[0], inodes[0]), open_of(owner, fds[1], inodes[1]), owner, None)
