"""pooch fetches by fastdl: hand a ``Downloader`` to ``pooch.retrieve`` or to ``Pooch.fetch``.

import pooch
from fastdl.integrations.pooch import Downloader

path = pooch.retrieve(url, known_hash="sha256:...", downloader=Downloader(progressbar=True))
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Unpack

from fastdl.api import download
from fastdl.errors import AccessDenied, NotFound
from fastdl.facts import head
from fastdl.prepare import Options
from fastdl.reading import stream

if TYPE_CHECKING:
    from typing import IO

    from fastdl.prepare import Settings

_OF_HEAD = frozenset(Options.__annotations__) - {"retry"}


class Downloader:
    """What pooch calls with a URL and a file; of any URL that fastdl knows, in ``base_url`` and registries too.

    pooch gives each attempt a file of its own, so a download that failed begins anew; what passes within one is
    retried here. The known hash is pooch's to compare; what the store promises is compared before.

    Args:
        progressbar: True for fastdl's bar, on a terminal and of files by path only; or an object with ``total``,
            ``update`` and ``close``, as pooch's own downloaders take it.
        **settings: as of ``fastdl.download``.
    """

    def __init__(self, progressbar: Any = False, **settings: Unpack[Settings]) -> None:
        self.progressbar = progressbar
        self.settings = settings

    def __call__(
        self, url: str, output_file: str | os.PathLike[str] | IO[bytes], pooch: Any, check_only: bool = False
    ) -> bool | None:  # the names are pooch's
        """Fetch ``url`` into a path or a file open for writing; with ``check_only`` tell whether it is there.

        Raises:
            FastdlError: it cannot be had; the path is then what it was.
        """
        del pooch  # everything there is to know stands in the URL
        if check_only:
            return self._is_there(url)
        if isinstance(output_file, str | os.PathLike):
            download(url, output_file, checkpoint=False, progress=self.progressbar, **self.settings)
        else:
            self._write(url, output_file)
        if hasattr(self.progressbar, "close"):
            self.progressbar.close()
        return None

    def _write(self, url: str, file: IO[bytes]) -> None:
        bar = self.progressbar if hasattr(self.progressbar, "update") else None
        with stream(url, **self.settings) as body:
            if bar is not None:
                bar.total = body.size
            for block in body:
                file.write(block)
                if bar is not None:
                    bar.update(len(block))

    def _is_there(self, url: str) -> bool:
        ways: Any = {name: value for name, value in self.settings.items() if name in _OF_HEAD}
        try:
            head(url, **ways)
        except (NotFound, AccessDenied):
            return False
        return True
