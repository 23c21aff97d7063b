"""Objects on plain web servers, and behind presigned URLs of any store."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fastdl.messages import Request
from fastdl.redact import keep_secrets, redacted_url
from fastdl.signatures import unsigned_url
from fastdl.sources.base import check_headers, describe_plainly, explain_plainly
from fastdl.sources.oss_errors import said
from fastdl.urls import basic_login, split_url, without_login

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fastdl.digest import Expected
    from fastdl.errors import Archived, FastdlError, Refused
    from fastdl.http import Transport
    from fastdl.validator import ObjectInfo


class HttpSource:
    """A URL as it is: nothing is added to it, because a signature may cover what we cannot see.

    Conditions are not sent but judged: each answer's validators are compared with the first one's.
    """

    several = True

    def __init__(self, url: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        check_headers(headers)
        parts = split_url(url)
        self.identity = self.address = unsigned_url(url)
        self.shown = redacted_url(url)
        if parts.username is not None and not any(name.lower() == "authorization" for name, _ in headers):
            headers = (*headers, ("Authorization", basic_login(parts)))
        keep_secrets(url=url, headers=headers, given=True)
        self._first = self._now = Request(without_login(parts._replace(fragment="")), headers)

    def request(self, info: ObjectInfo | None) -> Request:  # noqa: ARG002 - nothing is conditional here
        """Return the user's own URL, or where its redirects led."""
        return self._now

    def pin(self, request: Request) -> None:
        """Remember where redirects led."""
        self._now = request

    def thaw(self, archived: Archived, transport: Transport, sleep: Callable[[float], None]) -> None:  # noqa: ARG002
        """Do nothing: a URL that somebody signed is good for reading only."""
        raise archived

    def adapt(self, refused: Refused) -> bool:  # noqa: ARG002 - no refusal teaches anything here
        """Learn nothing."""
        return False

    def renew(self) -> bool:
        """Go back to the user's own URL: the target of its redirect may have expired."""
        moved = self._now is not self._first
        self._now = self._first
        return moved

    def describe(self, headers: Mapping[str, str], size: int | None) -> ObjectInfo:
        """Read size, validators and digests; those of OSS do not cover what ``x-oss-process`` makes."""
        info = describe_plainly(headers, size)
        if "x-oss-process=" in urlsplit(self._first.url).query.lower():
            return type(info)(info.size, info.validator)
        return info

    def promises(self, info: ObjectInfo, transport: Transport) -> tuple[Expected, ...]:  # noqa: ARG002 - nothing is asked
        """Return what the first answer's head told."""
        return info.promises

    def explain(self, refused: Refused) -> FastdlError:
        """Give the status its plain meaning, and on presigned URLs of OSS its own words."""
        detail = str(said(refused)) if "x-oss-request-id" in refused.headers else ""
        return explain_plainly(self.shown, refused, detail)
