"""What an OSS bucket of the tests holds: versions of objects, symlinks, delete markers, archived objects."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING

from fastcrc import crc64

from tests.servers.oss_signature import RefusalError
from tests.servers.scripted import LAST_MODIFIED, Source, as_source, pieces

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_DAYS = 7  # that an archived object stays restored
_DAYS = re.compile(rb"<RestoreRequest>\s*<Days>(\d{1,3})</Days>.*</RestoreRequest>", re.DOTALL)


class Crc(Enum):
    """What ``x-oss-hash-crc64ecma`` says about an object."""

    RIGHT = auto()
    WRONG = auto()
    MISSING = auto()


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """One version of one object; equal to itself alone."""

    body: bytes | Source
    etag: str = '"5B3C1A2E053D763E1B002CC607C5A0FE"'
    last_modified: str = LAST_MODIFIED
    crc: Crc = Crc.RIGHT
    version_id: str | None = None  # None in a bucket without versioning
    archived: bool = False
    symlink: bool = False  # the body is its target's
    public: bool = False  # readable without a signature
    requester_pays: bool = False
    headers: dict[str, str] = field(default_factory=dict)

    def fields(self) -> dict[str, str]:
        """Make the fields that every answer about the object carries."""
        source = as_source(self.body)
        fields = {"ETag": self.etag, "Last-Modified": self.last_modified, "Accept-Ranges": "bytes"}
        fields["Content-Type"] = "application/octet-stream"
        fields["x-oss-object-type"] = "Symlink" if self.symlink else "Normal"
        if self.version_id is not None:
            fields["x-oss-version-id"] = self.version_id
        if self.crc is not Crc.MISSING:
            right = 0
            for piece in pieces(source, 0, source.size):
                right = crc64.xz(piece, right)
            fields["x-oss-hash-crc64ecma"] = str(right ^ (self.crc is Crc.WRONG))
        return fields | {"x-oss-storage-class": "Archive" if self.archived else "Standard"} | self.headers


class Restorations:
    """The archived versions that somebody asked to be restored.

    Each takes as many looks (HEAD) as ``looks`` says: a clock would make tests wait or race.
    """

    def __init__(self) -> None:
        self.looks = 1
        self.days: list[int] = []  # that were asked for
        self._left: dict[Stored, int] = {}

    def ask(self, stored: Stored, body: bytes) -> int:
        """Begin to restore; return the status that tells whether that is news.

        Raises:
            RefusalError: it cannot be restored, or is being restored already.
        """
        found = _DAYS.search(body)
        days = 1 if not body else int(found[1]) if found else 0
        if not 1 <= days <= MOST_DAYS:
            raise RefusalError(400, "MalformedXML", "The XML you provided was not well-formed.", "0016-00000707")
        if not stored.archived:
            message = "The operation is not supported for this resource"
            raise RefusalError(400, "OperationNotSupported", message, "0016-00000702")
        if self._left.get(stored, 0) > 0:
            raise RefusalError(
                409, "RestoreAlreadyInProgress", "The restore operation is in progress.", "0016-00000709"
            )
        self.days.append(days)
        if stored in self._left:
            return 200
        self._left[stored] = self.looks
        return 202

    def readable(self, stored: Stored) -> bool:
        """Tell whether its bytes can be had."""
        return not stored.archived or self._left.get(stored) == 0

    def look(self, stored: Stored) -> Mapping[str, str]:
        """Make the field that tells of a restoration, and let it go on."""
        if stored not in self._left:
            return {}
        left = self._left[stored]
        self._left[stored] = max(0, left - 1)
        if left:
            return {"x-oss-restore": 'ongoing-request="true"'}
        return {"x-oss-restore": 'ongoing-request="false", expiry-date="Sun, 16 Apr 2030 08:12:33 GMT"'}
