"""fastdl as a read-only file system of fsspec, which pandas, pyarrow, dask and datasets read through.

    pandas.read_parquet("fastdl://oss://bucket/table.parquet")  # needs no import
    pandas.read_parquet("fastdl::https://example.org/table.parquet")  # a chain, where fsspec knows the second scheme

    from fastdl.integrations.fsspec import register

    register("oss", "s3")  # from now on plain oss:// and s3:// URLs of this process too

An object is a file and there are no directories: nothing is listed, so patterns match nothing but an object of that
very name. ``?`` is part of a URL.
"""

from __future__ import annotations

from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.registry import register_implementation
from fsspec.utils import isfilelike

from fastdl.errors import UsageError
from fastdl.integrations.fsspec_bytes import Bytes, errors_of_python
from fastdl.integrations.fsspec_files import GROWING, OrderedFile, RangedFile
from fastdl.integrations.fsspec_names import KEPT, Names, Options
from fastdl.prepare import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO

    from fastdl.facts import ObjectFacts

STREAM = "stream"
# What fsspec, or who calls through it, gives to every file system.
_OF_FSSPEC = frozenset(("asynchronous", "loop", "use_listings_cache", "listings_expiry_time", "max_paths"))

_OF_DATASETS = {
    "trust_env": True
}  # it tells fsspec's HTTP to ask the environment for a proxy, which fastdl does anyway


class FastdlFileSystem(Names):  # type: ignore[misc, unused-ignore]
    """Objects behind ``fastdl://URL``, or ``fastdl::URL``.

    Instances hold settings and warm connections; they may be pickled, and used in forks and by several threads.
    ``open`` gives a file that fetches ranges and can seek: as many bytes as are asked for where it is read by jumps,
    and up to 32 MiB ahead, by many connections, where it is read in order. ``cache_type="stream"`` gives a file that
    is fetched while it is read, once and in order, as ``fastdl.stream`` does; so does an object whose server tells no
    size or serves no ranges.

    Args:
        target_protocol: the scheme of names that have none, which fsspec gives for a chain.
        target_options: settings given for that scheme; those that fastdl does not know are for others.
        fo: the object of a chain, which fsspec tells here and in the names too.
        cache_type: ``growing``, ``stream``, or any of fsspec's.
        block_size: bytes, for fsspec's.
        cache_options: likewise.
        anon: True is ``sign=False``, as s3fs calls it.
        **settings: as of ``fastdl.download``: headers, endpoint_url, region, credentials and the like.

    Raises:
        UsageError: there is no such setting.
    """

    _strip_tokenize_options = ("fo",)

    def __init__(
        self,
        *,
        target_protocol: str | None = None,
        target_options: dict[str, Any] | None = None,
        fo: str | None = None,  # noqa: ARG002
        cache_type: str = GROWING,
        block_size: int | None = None,
        cache_options: dict[str, Any] | None = None,
        anon: bool | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        if settings.get("client_kwargs") == _OF_DATASETS:
            del settings["client_kwargs"]
        unknown = settings.keys() - Settings.__annotations__.keys() - _OF_FSSPEC
        if unknown:
            raise UsageError(f"{', '.join(sorted(unknown))}: no setting of fastdl")
        chosen = {**(target_options or {}), **({} if anon is None else {"sign": not anon}), **settings}
        self.scheme = target_protocol
        self._how = {"cache_type": cache_type, "block_size": block_size, "cache_options": cache_options}
        self.bytes = Bytes({name: chosen[name] for name in Settings.__annotations__ if name in chosen})

    @property
    def storage_options(self) -> dict[str, Any]:
        """What the instance was made with; shows no secret."""
        return self._options

    @storage_options.setter
    def storage_options(self, options: dict[str, Any]) -> None:
        self._options = Options(options)

    def to_dict(self, *, include_password: bool = False) -> dict[str, Any]:
        """Describe the instance without headers, credentials and whatever else may be secret, whoever asks."""
        told: dict[str, Any] = super().to_dict(include_password=include_password)
        return {name: value for name, value in told.items() if name not in KEPT}

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Ask what an object is: size, etag, last_modified, mtime, version_id and content_type, where they are told.

        Raises:
            FileNotFoundError: there is none.
        """
        return self.told(path, self._head(path))

    def told(self, path: str, facts: ObjectFacts) -> dict[str, Any]:
        """Return facts as fsspec has them."""
        told: dict[str, Any] = {"name": self._name(path), "size": facts.size, "type": "file"}
        rest = {name: getattr(facts, name) for name in ("etag", "last_modified", "version_id", "content_type")}
        told |= {name: text for name, text in rest.items() if text}
        with suppress(ValueError):
            told["mtime"] = parsedate_to_datetime(facts.last_modified).timestamp()
        return told

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """Return the bytes from ``start`` to ``end``, counted as in a slice; a whole object is judged as a whole."""
        with errors_of_python():
            url = self._url(path)
            return self.bytes.whole(url) if start is None and end is None else self.bytes.slices(url, [(start, end)])[0]

    def cat_ranges(
        self,
        paths: Sequence[str],
        starts: Any,
        ends: Any,
        max_gap: int | None = None,
        on_error: str = "return",
        **_: Any,
    ) -> list[Any]:
        """Return many slices, those of one object by one ``read_ranges``; they may be an error, unless that is raised.

        ``max_gap`` is the ``gap`` of ``read_ranges``.
        """
        if not isinstance(paths, list):
            raise TypeError(f"paths: want a list, got {type(paths).__name__}")
        firsts, lasts = (each if isinstance(each, list) else [each] * len(paths) for each in (starts, ends))
        if not len(paths) == len(firsts) == len(lasts):
            raise ValueError("paths, starts and ends must be equally many")
        more = {} if max_gap is None else {"gap": max_gap}
        places = [(self._url(path), (first, last)) for path, first, last in zip(paths, firsts, lasts, strict=True)]
        return self.bytes.of_many(places, fail=on_error != "return", **more)

    def get_file(
        self, rpath: str, lpath: Any = None, callback: Any = DEFAULT_CALLBACK, outfile: BinaryIO | None = None, **_: Any
    ) -> None:
        """Download an object to a file, as ``fastdl.download`` does: resumed, judged, and there when it is whole."""
        outfile = lpath if outfile is None and isfilelike(lpath) else outfile
        with errors_of_python():
            if outfile is None:
                path = Path(lpath)
                path.parent.mkdir(parents=True, exist_ok=True)
                self.bytes.client.download(self._url(rpath), path, progress=callback)
                return
            with self.bytes.client.stream(self._url(rpath)) as stream:
                callback.set_size(stream.size)
                for block in stream:
                    outfile.write(block)
                    callback.relative_update(len(block))

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        cache_options: dict[str, Any] | None = None,
        cache_type: str | None = None,
        size: int | None = None,
        **_: Any,
    ) -> RangedFile | OrderedFile:
        if mode != "rb":
            self._refuse()
        url, kind = self._url(path), cache_type or self._how["cache_type"]
        with errors_of_python():
            if kind != STREAM:
                facts = self._head(path)
                if (facts.ranges and facts.size is not None) or facts.size == 0:
                    return RangedFile(
                        self,
                        self._name(path),
                        url,
                        facts,
                        size=size,
                        block_size=block_size or self._how["block_size"],
                        cache_type=kind,
                        cache_options=cache_options or self._how["cache_options"],
                    )
            return OrderedFile(self, self.bytes.client.stream(url), url)

    def _head(self, path: str) -> ObjectFacts:
        with errors_of_python():
            return self.bytes.client.head(self._url(path))


class OssFileSystem(FastdlFileSystem):
    """Objects behind ``oss://``, once registered."""

    protocol = "oss"


class S3FileSystem(FastdlFileSystem):
    """Objects behind ``s3://``, once registered."""

    protocol = "s3"


class HttpFileSystem(FastdlFileSystem):
    """Objects behind ``http://``, once registered."""

    protocol = "http"


class HttpsFileSystem(FastdlFileSystem):
    """Objects behind ``https://``, once registered."""

    protocol = "https"


SCHEMES: dict[str, type[FastdlFileSystem]] = {
    each.protocol: each for each in (OssFileSystem, S3FileSystem, HttpFileSystem, HttpsFileSystem)
}


def register(*schemes: str) -> None:
    """Let fsspec open URLs of these schemes, by default of all of ``SCHEMES``, by fastdl.

    Holds for this process and its forks; a process that is spawned must call it again. File systems that were made
    before stay what they are.

    Raises:
        UsageError: a scheme is none that fastdl knows.
    """
    unknown = set(schemes) - SCHEMES.keys()
    if unknown:
        raise UsageError(f"scheme {min(unknown)!r} is none of {', '.join(SCHEMES)}")
    for scheme in schemes or SCHEMES:
        register_implementation(scheme, SCHEMES[scheme], clobber=True)
