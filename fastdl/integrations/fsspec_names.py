"""What a file system calls its objects, that there is nothing else under their names, and nothing to be written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.implementations.chained import ChainedFileSystem
from fsspec.utils import stringify_path

OWN = "fastdl"
KEPT = frozenset(("headers", "credentials", "proxy", "target_options"))  # may hold secrets


class Options(dict[str, Any]):
    """Options as they were given, which show no secret."""

    def __repr__(self) -> str:
        return repr({name: "***" if name in KEPT else value for name, value in self.items()})


class Names(ChainedFileSystem):  # type: ignore[misc, unused-ignore]
    """A file system without directories, whose names are URLs; ``scheme`` is put before names that have none."""

    protocol: ClassVar[str] = OWN
    scheme: str | None = None

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        """Return the names that paths have here: URLs, behind ``fastdl://`` if they are not of a registered scheme."""
        if isinstance(path, list):
            return [cls._strip_protocol(each) for each in path]
        head = f"{cls.protocol}://"
        rest = stringify_path(path).removeprefix(f"{cls.protocol}::").removeprefix(head)
        bare = cls.protocol == OWN and "://" not in rest
        return head + rest if rest and not bare else rest

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """Return the object itself, the only thing under its name.

        Raises:
            FileNotFoundError: there is none.
        """
        found = self.info(path)
        return [found if detail else found["name"]]

    def exists(self, path: str, **_: Any) -> bool:
        """Tell whether there is such an object.

        Raises:
            PermissionError, FastdlError: that cannot be known.
        """
        try:
            self.info(path)
        except FileNotFoundError:
            return False
        return True

    def isfile(self, path: str) -> bool:
        """Tell the same: every object is a file."""
        return self.exists(path)

    def glob(self, path: str, maxdepth: int | None = None, **kwargs: Any) -> Any:  # noqa: ARG002
        """Return the object of that very name, if there is one.

        Raises:
            NotImplementedError: there is none, and the name is a pattern, whose matches nobody can list.
        """
        name = self._name(path)
        try:
            found = {name: self.info(name)}
        except FileNotFoundError:
            if any(each in name for each in "*["):
                message = "fastdl lists no objects, so it cannot match a pattern: name each object"
                raise NotImplementedError(message) from None
            found = {}
        return found if kwargs.get("detail") else list(found)

    def isdir(self, path: str) -> bool:  # noqa: ARG002
        """Tell that there are no directories."""
        return False

    def expand_path(self, path: Any, recursive: bool = False, maxdepth: int | None = None, **_: Any) -> list[str]:  # noqa: ARG002
        """Return the names of objects, which may have any character."""
        paths = [path] if isinstance(path, str | os.PathLike) else path
        return sorted({self._strip_protocol(each) for each in paths})

    def get(self, rpath: Any, lpath: Any, *args: Any, callback: Any = DEFAULT_CALLBACK, **kwargs: Any) -> None:
        """Download an object to a file or, under the URL's last name, into a directory; or several objects.

        fsspec alone would take a query for a pattern, and what it is to be called for a directory.
        """
        if isinstance(rpath, list | tuple) or isinstance(lpath, list | tuple):
            super().get(rpath, lpath, *args, callback=callback, **kwargs)
            return
        target = os.fspath(lpath)
        if target.endswith("/"):
            Path(target).mkdir(parents=True, exist_ok=True)
        callback.set_size(1)
        for path in callback.wrap([stringify_path(rpath)]):
            with callback.branched(path, target) as child:
                self.get_file(path, target, callback=child)

    def _url(self, path: str) -> str:
        """Return the URL that a name stands for, the scheme of a chain put before names that have none."""
        name: str = self._strip_protocol(path)
        url = name.removeprefix(f"{OWN}://")
        return url if "://" in url or not self.scheme else f"{self.scheme}://{url}"

    def _name(self, path: str) -> str:
        name: str = self._strip_protocol(self._url(path))
        return name

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse to write.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("fastdl only reads")

    mkdir = makedirs = rmdir = touch = pipe_file = put_file = cp_file = rm_file = rm = _rm = mv = _refuse
