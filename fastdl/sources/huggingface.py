"""Files of repositories on the Hugging Face Hub: ``hf://org/model/path``, ``hf://datasets/org/name@revision/path``.

The hub answers with a redirect to a store of contents, signed and short-lived, which is asked for the bytes; when it
expires the hub is asked again. The token goes to the hub alone.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import unquote, urljoin

from fastdl.connections import patience
from fastdl.digest import Expected
from fastdl.errors import FastdlError, UsageError
from fastdl.redact import printable
from fastdl.sources.base import explain_plainly
from fastdl.sources.http import HttpSource
from fastdl.urls import origin

try:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import build_hf_headers
except ImportError:
    raise UsageError("hf:// URLs need huggingface_hub: pip install huggingface_hub") from None

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastdl.errors import Refused
    from fastdl.http import Transport
    from fastdl.validator import ObjectInfo

# Branches with a slash are written with %2F, but for the two kinds that the hub itself makes.
_URL = re.compile(
    r"hf://(?:(?P<kind>datasets|spaces|models)/)?(?P<repo>[^/@]+/[^/@]+)"
    r"(?:@(?P<revision>refs/(?:convert|pr)/[^/]+|[^/]+))?/(?P<path>.*[^/])",
    re.IGNORECASE | re.DOTALL,
)
_KINDS = {"datasets": "dataset", "spaces": "space", "models": None, "": None}
_SHA256 = re.compile(r'(?:W/)?"?([0-9a-f]{64})"?')
_HOPS = 3  # from an old name of a repository to its new one; more would be a loop


def locate(url: str, *, endpoint: str | None = None, sign: bool = True) -> tuple[str, dict[str, str]]:
    """Return the https URL at which the hub has a file, and the headers that it wants: the token, if there is one.

    Nothing is sent. The token is what ``huggingface_hub`` finds: HF_TOKEN, or what ``hf auth login`` left.

    Args:
        url: ``hf://org/name/path``, with ``datasets/`` or ``spaces/`` before it, with ``@revision`` after the name. The
            path is literal, not percent-encoded.
        endpoint: another hub than that of HF_ENDPOINT.
        sign: False for no token.

    Raises:
        UsageError: it is no such URL.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise UsageError("an hf:// URL is hf://[datasets/]ORG/NAME[@REVISION]/PATH")
    revision = match["revision"]
    try:
        page = hf_hub_url(
            match["repo"],
            match["path"],
            repo_type=_KINDS[(match["kind"] or "").lower()],
            revision=unquote(revision) if revision else None,
            endpoint=endpoint.rstrip("/") if endpoint else None,
        )
    except (HFValidationError, ValueError) as error:
        raise UsageError(f"no file of a repository: {printable(str(error), 300)}") from None
    headers = build_hf_headers(token=None if sign else False)
    return page, {name: value for name, value in headers.items() if name.lower() == "authorization"}


class HubSource(HttpSource):
    """A file of a repository; of large ones the hub promises a SHA-256."""

    def __init__(
        self, url: str, headers: tuple[tuple[str, str], ...] = (), *, endpoint: str | None = None, sign: bool = True
    ) -> None:
        page, own = locate(url, endpoint=endpoint, sign=sign)
        given = {name.lower() for name, _ in headers}
        super().__init__(page, (*headers, *(pair for pair in own.items() if pair[0].lower() not in given)))
        self.shown = printable(url)

    def promises(self, info: ObjectInfo, transport: Transport) -> tuple[Expected, ...]:
        """Ask the hub for what its redirect tells: of a large file the SHA-256, which is its name in the store."""
        found = super().promises(info, transport)
        request = replace(self._first, method="HEAD", follow=False)
        try:
            for _ in range(_HOPS):
                with patience(transport.line.read_timeout):
                    response = transport.open(request)
                response.finish()
                digest = _linked(response.headers, info.size)
                target = urljoin(request.url, response.headers.get("Location", request.url))
                if digest is not None:
                    return (*found, digest)
                if target == request.url or origin(target) != origin(request.url):
                    break
                request = replace(request, url=target)
        except (FastdlError, ValueError):
            pass  # a promise less; the bytes come, or fail, by themselves
        return found

    def explain(self, refused: Refused) -> FastdlError:
        """Add the hub's own words: a repository that is gated, private or not there is told by them alone."""
        return explain_plainly(self.shown, refused, printable(refused.headers.get("x-error-message", ""), 300))


def _linked(headers: Mapping[str, str], size: int | None) -> Expected | None:
    """Read the SHA-256 of the file behind a redirect; None if the hub tells none, or of a file of another size."""
    match = _SHA256.fullmatch(headers.get("X-Linked-Etag", "").strip())
    told = headers.get("X-Linked-Size", "")
    return Expected("sha256", match[1]) if match and (not told or told == str(size)) else None
