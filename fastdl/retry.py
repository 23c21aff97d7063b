"""Which failure is transient and how long to wait before the next attempt: says how long, never sleeps."""

from __future__ import annotations

import email.utils
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fastdl.errors import NetworkError, ServerBusy

if TYPE_CHECKING:
    import random

RETRY_AFTER_CEILING = 300.0  # seconds; a server that asks for more would look like a hang
_PROBE_ATTEMPTS = 4  # over within seconds
RETRYABLE_STATUS = frozenset((408, 429, 500, 502, 503, 504))


@dataclass(frozen=True, slots=True)
class Backoff:
    """How often one span may fail in a row, and the growth of the waits between, in seconds."""

    attempts: int = 9
    base: float = 0.5
    ceiling: float = 30.0

    @property
    def of_probe(self) -> Backoff:
        """The same for a first request: before anything worked a wrong address is likelier than a bad line."""
        return replace(self, attempts=min(self.attempts, _PROBE_ATTEMPTS))

    def delay(self, failures: int, rng: random.Random) -> float:
        """Return the wait after the ``failures``-th failure in a row (1, 2, …): full jitter.

        Source: Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
        """
        return rng.uniform(0, min(self.ceiling, self.base * 2.0 ** min(failures, 32)))


def is_transient(error: BaseException) -> bool:
    """Tell whether the same request may succeed later; only what is known to be transient is."""
    return isinstance(error, NetworkError)


def wished_delay(error: BaseException) -> float | None:
    """Return how long the server asked everybody to stay away, in seconds, capped; None if it did not."""
    if isinstance(error, ServerBusy) and error.retry_after is not None:
        return min(error.retry_after, RETRY_AFTER_CEILING)
    return None


class Attempts:
    """The failures in a row of one thing that is tried again and again."""

    def __init__(self, policy: Backoff, rng: random.Random) -> None:
        self._policy = policy
        self._rng = rng
        self.failures = 0

    def after(self, error: Exception) -> float:
        """Count a failure and return the wait before the next attempt, in seconds.

        Raises:
            Exception: ``error`` itself, if it is not transient or was one too many.
        """
        self.failures += 1
        if not is_transient(error) or self.failures >= self._policy.attempts:
            raise error
        wish = wished_delay(error)
        return self._policy.delay(self.failures, self._rng) if wish is None else wish


def parse_retry_after(value: str, now: float) -> float | None:
    """Return the seconds that a Retry-After header asks for; 0 for a date gone by, None for junk.

    ``now`` is the time in seconds since the epoch. Source: RFC 9110, 10.2.3.
    """
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        date = email.utils.parsedate_to_datetime(value)
        return max(0.0, date.timestamp() - now)
    except (ValueError, OverflowError):
        return None
