"""What a refusal in the middle of a download calls for: another signature, other credentials, or the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastdl.errors import AccessDenied, Archived, FastdlError, Refused

if TYPE_CHECKING:
    from fastdl.sources import Source

_GONE = 410


class Renewal:
    """Credentials are renewed once for all orders that carry the old ones; orders are numbered as they are given."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._renewed_after = 0  # orders up to this number carry credentials that were replaced since
        self._proven = True  # the newest credentials, or the first ones, were accepted

    def accepted(self, number: int) -> None:
        """Take note that order ``number`` was answered."""
        self._proven |= number > self._renewed_after

    def judge(self, number: int, error: FastdlError, newest: int) -> tuple[FastdlError, bool]:
        """Return the error that people see, and whether what order ``number`` left undone can be asked for at once.

        ``newest`` is the highest number that was given: orders up to it were made before anything is renewed now.
        """
        if not isinstance(error, Refused):
            explained, learnt = error, False
        else:
            learnt = self._source.adapt(error)
            explained = self._source.explain(error)
        if learnt:
            self._renewed_after = newest
        denied = isinstance(explained, AccessDenied) and not isinstance(explained, Archived)
        # Where a redirect led may be gone for good, while the redirect by now leads elsewhere.
        denied |= isinstance(error, Refused) and error.status == _GONE
        return explained, learnt or (denied and self._renewed(number, newest))

    def _renewed(self, number: int, newest: int) -> bool:
        """Renew credentials unless that was done since; False if the new ones are refused as well."""
        if number <= self._renewed_after:
            return True
        if not self._proven or not self._source.renew():
            return False
        self._proven = False
        self._renewed_after = newest
        return True
