"""What a file system is asked for, by the calls of a ``Client``: whole objects, ranges, slices of many objects."""

from __future__ import annotations

import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from fastdl.client import Client
from fastdl.errors import AccessDenied, NotFound, ObjectChanged, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fastdl.facts import ObjectFacts

    Slice = tuple[int | None, int | None]

_AT_ONCE = 8  # objects of which ranges are fetched at a time


@contextmanager
def errors_of_python() -> Iterator[None]:
    """Let who looks for Python's own errors find them; fastdl's is the cause.

    Raises:
        FileNotFoundError: there is no such object.
        PermissionError: the store refused.
        FastdlError: anything else, as it is.
    """
    try:
        yield
    except NotFound as error:
        raise FileNotFoundError(str(error)) from error
    except AccessDenied as error:
        raise PermissionError(str(error)) from error


class Bytes:
    """The bytes of objects, reached with the same settings; its connections end with the last reference to it."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.client = Client(**settings)
        weakref.finalize(self, self.client.close)

    def whole(self, url: str, facts: ObjectFacts | None = None) -> bytes:
        """Return a whole object, judged; where ``facts`` are told, of that state.

        Raises:
            ObjectChanged: it has another one.
        """
        with self.client.stream(url) as stream:
            data = stream.read()
            if facts is not None and (stream.result().etag, len(data)) != (facts.etag, facts.size):
                raise ObjectChanged(f"{facts.url}: the object was replaced")
            return data

    def ranges(self, url: str, spans: Sequence[tuple[int, int]], **more: Any) -> list[bytes]:
        """Return ranges, given by offset and length, all inside the object."""
        got: list[bytes] = self.client.read_ranges(url, spans, **more)  # type: ignore[assignment]
        return got

    def slices(self, url: str, slices: Sequence[Slice], **more: Any) -> list[bytes]:
        """Return slices, as Python has them: ends may be missing, negative, or beyond the object."""
        spans = [(start, max(0, stop - start)) for start, stop in slices if _plain(start) and _plain(stop)]  # type: ignore[operator]
        if len(spans) == len(slices):
            with suppress(UsageError):  # one of them may end beyond the object
                return self.ranges(url, spans, **more)  # type: ignore[arg-type]
        facts = self.client.head(url)
        if facts.size is None:
            data = self.whole(url)
            return [data[start:stop] for start, stop in slices]
        inside = [range(facts.size)[start:stop] for start, stop in slices]
        return self.ranges(url, [(each.start, len(each)) for each in inside], state=facts, **more)

    def of_many(self, wanted: Sequence[tuple[str, Slice]], *, fail: bool, **more: Any) -> list[Any]:
        """Return slices of many objects, each object's by one call; what cannot be had is raised, or an error in it."""
        numbers: dict[str, list[int]] = {}
        for number, (url, _) in enumerate(wanted):
            numbers.setdefault(url, []).append(number)
        out: list[Any] = [None] * len(wanted)

        def read(url: str) -> None:
            got: Sequence[Any]
            try:
                with errors_of_python():
                    got = self.slices(url, [wanted[number][1] for number in numbers[url]], **more)
            except Exception as error:
                if fail:
                    raise
                got = [error] * len(numbers[url])
            for number, data in zip(numbers[url], got, strict=True):
                out[number] = data

        with ThreadPoolExecutor(min(_AT_ONCE, max(1, len(numbers)))) as threads:
            list(threads.map(read, numbers))
        return out


def _plain(bound: int | None) -> bool:
    return bound is not None and bound >= 0
