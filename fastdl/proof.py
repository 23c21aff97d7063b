"""What is to be proven of a whole object, and the judgement: digests that users expect and that stores promise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastdl.digest import Expected
from fastdl.errors import IntegrityError
from fastdl.hashers import is_known

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from fastdl.follower import Follower
    from fastdl.result import Fetched

CRC64 = "crc64", None  # the one that the records of parts combine to
_Kind = tuple[str, int | None]  # algorithm, and part size of a composite


@dataclass(frozen=True, slots=True)
class Claims:
    """The digests that the object is compared with: all of ``expected`` (by the user), and ``promised`` (by the store).

    ``trusted``: parts of an earlier run are used unread, so that their records prove nothing about the file.
    """

    expected: tuple[Expected, ...]
    promised: tuple[Expected, ...]
    trusted: bool = False

    @property
    def kinds(self) -> tuple[_Kind, ...]:
        """What must be computed from the file's bytes; all but the CRC-64 of bytes that were hashed anyway."""
        kinds = [kind_of(each) for each in self.expected if self.trusted or kind_of(each) != CRC64]
        kinds += [kind_of(each) for each in self.promised if kind_of(each) != CRC64]
        return tuple(dict.fromkeys(kinds))

    def judge(self, shown: str, digests: Mapping[_Kind, str]) -> str:
        """Compare everything; return the algorithm that proves the most, the user's own first, empty if none does.

        Raises:
            IntegrityError: something is not what was promised or expected.
        """
        for each, verb in [(each, "the store promised") for each in self.promised] + [
            (each, "expected") for each in self.expected
        ]:
            actual = digests[kind_of(each)]
            if actual != each.hex:
                raise IntegrityError(f"{shown}: {each.algorithm} is {actual}, {verb} {each.hex}")
        proven = [each for each in self.promised if not (self.trusted and kind_of(each) == CRC64)]
        best = max(self.expected or proven, key=lambda each: each.worth, default=None)
        return "" if best is None else best.algorithm


def verify(
    shown: str, claims: Claims, follower: Follower, fetched: Fetched, watch: Callable[[], None], *, sized: bool
) -> str:
    """Compare the whole object with every claim about it; return what was proven, as the result's ``integrity``.

    ``watch`` is called several times a second while the last bytes are hashed. ``sized``: the server told the size.

    Raises:
        IntegrityError: it is not what was promised.
    """
    digests = {CRC64: f"{fetched.crc64:016x}", **follower.finish(fetched.size or 0, watch)}
    return claims.judge(shown, digests) or ("length" if sized else "none")


def kind_of(expected: Expected) -> _Kind:
    """Return what has to be computed."""
    return expected.algorithm, expected.part_size


def worth_comparing(promises: Iterable[Expected], crc64: int | None) -> tuple[Expected, ...]:
    """Choose among a store's promises: the strongest, and every CRC; those cost next to nothing.

    If one algorithm is promised twice with two values both are kept, and one of them fails: a store that
    contradicts itself proves nothing. What cannot be computed here is left out.
    """
    known = [each for each in promises if is_known(each.algorithm)]
    if crc64 is not None:
        known.append(Expected("crc64", f"{crc64:016x}"))
    best = max((each.worth for each in known), default=0)
    return tuple(dict.fromkeys(each for each in known if each.worth == best or each.algorithm.startswith("crc")))
