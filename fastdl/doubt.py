"""Whether an object really is another one than an earlier run began: one odd answer must not cost what is there.

Behind one name there may be many machines, a page that asks for a login, a cache that knows no ranges. What an earlier
run left is given up only when answers after one another agree that it is worth nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastdl.errors import AccessDenied, NotFound, ObjectChanged, ProtocolError
from fastdl.probe import why_not_same
from fastdl.redact import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastdl.header import Stored
    from fastdl.probe import Probe

_ANSWERS = 3  # asked for at most
_AGREEING = 2  # in a row, of another object; that ranges are gone takes all: it is what the odd machine says
_KEPT = "what was fetched is kept; --resume no starts over"


def find_again(
    stored: Stored, ask: Callable[[], Probe], pause: Callable[[int], None], shown: str, *, kept: bool
) -> Probe | str:
    """Return the answer of the object that ``stored`` is about, or why its parts cannot be used.

    ``pause`` waits after the first odd answer, the second one, ... One answer is enough where
    nothing is ``kept``, or none could prove anything.

    Raises:
        AccessDenied: what answers is a page and not an object.
        ProtocolError: the answers contradict one another.
        FastdlError: nothing answers. In every case what is there is left as it is.
    """
    validator = stored.validator
    worth_asking = kept and (validator.strong or bool(validator.last_modified))
    answers: list[tuple[object, ...]] = []
    agreed = False
    for failures in range(_ANSWERS):
        if failures:
            pause(failures)
        found, needed = None, _AGREEING
        try:
            found = ask()
        except (ObjectChanged, NotFound) as error:
            if isinstance(error, NotFound) and not validator.version_to_name:
                raise
            why = str(error)
            answers.append((type(error),))
        else:
            why = why_not_same(stored, found)
            if not why:
                return found
            found.close()
            answers.append((why, found.ranged, found.info.validator.etag, found.info.validator.version_id))
            needed = _AGREEING if found.ranged else _ANSWERS
        agreed = not worth_asking or (len(answers) >= needed and len(set(answers[-needed:])) == 1)
        if agreed:
            break
    if found is not None and kept:
        check_no_page(found, shown)
    if not agreed:
        raise ProtocolError(f"{shown}: its answers contradict one another: {printable(why, 200)}; {_KEPT}")
    return why


def check_no_page(found: Probe, shown: str) -> None:
    """Refuse to replace by a page of HTML, as logins and failures come with status 200, what an earlier run left.

    Raises:
        AccessDenied: the answer is one: whole, of unknown state.
    """
    if found.ranged or found.response is None or found.info.validator.etag:
        return
    kind = found.response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind in ("text/html", "application/xhtml+xml"):
        raise AccessDenied(f"{shown}: answers with a page of HTML, perhaps a login, where an object was; {_KEPT}")
