"""The exception tree crosses processes and has fixed exit codes."""

from __future__ import annotations

import pickle

import pytest

import fastdl
from fastdl import errors
from fastdl.errors import FastdlError, Refused, ServerBusy

EXIT_CODES = {
    "FastdlError": 1,
    "UsageError": 2,
    "NotFound": 3,
    "AccessDenied": 4,
    "Archived": 4,
    "NetworkError": 5,
    "Truncated": 5,
    "ServerBusy": 5,
    "ProtocolError": 6,
    "RangeMismatch": 6,
    "ObjectChanged": 7,
    "IntegrityError": 8,
    "DiskError": 9,
    "Busy": 10,
    "Cancelled": 130,
}
TREE = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, FastdlError)}
REFUSED = Refused("host answered 404", 404, {"x-oss-ec": "1"}, b"<Error/>")


def example(kind: type[FastdlError]) -> FastdlError:
    """Make an error of this kind, with every attribute set."""
    if kind is Refused:
        return REFUSED
    return ServerBusy("what; where; next", 429, 2.5) if kind is ServerBusy else kind("what; where; next")


def test_every_error_is_known_here() -> None:
    """A new error gets an exit code and a test."""
    assert set(TREE) == {*EXIT_CODES, "Refused"}


@pytest.mark.parametrize(("name", "code"), EXIT_CODES.items())
def test_exit_codes_are_fixed(name: str, code: int) -> None:
    """Scripts rely on the numbers."""
    assert TREE[name].exit_code == code


@pytest.mark.parametrize("kind", TREE.values(), ids=TREE)
@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
def test_errors_survive_pickling(kind: type[FastdlError], protocol: int) -> None:
    """Born in a worker, an error arrives with its class, text and attributes."""
    error = example(kind)
    copy = pickle.loads(pickle.dumps(error, protocol))
    assert (type(copy), str(copy), copy.args, vars(copy)) == (kind, str(error), error.args, vars(error))


@pytest.mark.parametrize("kind", TREE.values(), ids=TREE)
def test_the_text_of_an_error_is_its_message(kind: type[FastdlError]) -> None:
    """No class shows its attributes as a tuple."""
    assert str(example(kind)) in ("what; where; next", "host answered 404")


@pytest.mark.parametrize("name", [name for name in fastdl.__all__ if name in TREE])
def test_public_errors_are_the_ones_raised(name: str) -> None:
    """What the package hands out can be caught."""
    assert getattr(fastdl, name) is TREE[name]


def test_a_usage_error_is_a_value_error() -> None:
    """Library users may catch it as such."""
    assert issubclass(errors.UsageError, ValueError)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """The lazy package behaves as an eager one."""
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = fastdl.nonsense


def test_the_package_shows_what_it_offers() -> None:
    """And nothing else, though hardly anything of it is imported yet."""
    assert dir(fastdl) == sorted(fastdl.__all__)
    assert all(getattr(fastdl, name) is not None for name in fastdl.__all__)
