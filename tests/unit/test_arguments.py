"""Arguments of a wrong type: one line that names the argument, of fastdl's own tree, before anything is touched."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

import fastdl
from fastdl import arguments
from fastdl.errors import UsageError

URL = "http://127.0.0.1:9/object"  # never asked
NO_NUMBERS: tuple[Any, ...] = ("2", 2.0, [2], True)
NO_SECONDS: tuple[Any, ...] = ("10", [1], True, 1j)
VALUES: dict[str, tuple[Any, ...]] = {
    "part_size": ("16X", "", 1.5, [1], True, b"16M"),
    "limit_rate": ("fast", 1e6, [1], True, {}),
    "workers": NO_NUMBERS,
    "connections": NO_NUMBERS,
    "retry": (*NO_NUMBERS, None),
    "traffic_limit": ("819200", 819200.0),
    "restore_days": ("1", None),
    "connect_timeout": (*NO_SECONDS, None),
    "read_timeout": (*NO_SECONDS, None),
    "max_time": NO_SECONDS,
    "headers": ([("A", "b")], "A: b", b"A: b", 5, {"A": 5}, {"A": None}, {5: "b"}, {"A": b"b"}),
    "checksum": (5, b"md5=00", ["sha256=00", 5], [None], {"sha256": "00"}, object()),
    "checkpoint_path": (5, ["a"], 1.5),
    "checksum_file": (5, ["a"], 1.5),
    "cacert": (5, ["a"], 1.5, "a\0b", "\ud800"),
    "proxy": (5, b"http://host", Path("http:")),
    "endpoint_url": (5,),
    "region": (5,),
    "version_id": (5,),
    "profile": (5,),
    "request_payer": (5,),
    "resume": (5, None),
    "addressing": (5, None),
    "progress": (5, "bar"),
}
WRONG = [(name, value) for name, values in VALUES.items() for value in values]
WITHOUT_FILE = {"checkpoint_path", "checksum_file", "traffic_limit", "resume", "restore_days", "progress"}


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_type_is_told_by_its_name(tmp_path: Path, name: str, value: Any) -> None:
    """Of ``download``: a UsageError, which is a ValueError too, and no file."""
    with pytest.raises(UsageError) as caught:
        fastdl.download(URL, tmp_path / "out", **{name: value})
    assert name.removesuffix("s").replace("_", " ") in str(caught.value).replace("_", " ")
    assert str(caught.value).isprintable()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "value"), [each for each in WRONG if each[0] not in WITHOUT_FILE])
def test_the_other_ways_to_an_object_say_the_same(name: str, value: Any) -> None:
    """What is read into memory is asked for by the same arguments."""
    with pytest.raises(UsageError):
        fastdl.stream(URL, **{name: value})


@pytest.mark.parametrize("window", [None, 1.5, True, b"16M", [1], "16X", "", "1M", -1, 0])
def test_a_window_must_be_a_size(window: Any) -> None:
    """Of two parts at least; nothing is sent."""
    with pytest.raises(UsageError, match="window") as caught:
        fastdl.stream(URL, window=window, part_size="1M")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("directory", [5, ["a"], 1.5, object(), "", "a\0b", b"a\0b", "\ud800"])
def test_a_directory_must_be_a_path(directory: Any) -> None:
    """One that can be there; nothing is sent."""
    with pytest.raises(UsageError, match="directory: ") as caught:
        fastdl.open(URL, directory=directory)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("path", [None, 5, ["a"], 1.5, object()])
def test_a_path_must_be_one(path: Any) -> None:
    """Of a download, and of a file to verify."""
    with pytest.raises(UsageError, match="path: want a path, got"):
        fastdl.download(URL, path)
    with pytest.raises(UsageError, match="path: want a path, got"):
        fastdl.verify(path, URL)


@pytest.mark.parametrize("url", [None, 5, b"http://host/object", Path("object"), ["http://host/object"]])
def test_a_url_must_be_a_text(tmp_path: Path, url: Any) -> None:
    """Everywhere."""
    for call in (lambda: fastdl.download(url, tmp_path / "out"), lambda: fastdl.head(url), lambda: fastdl.stream(url)):
        with pytest.raises(UsageError, match="url: want a text, got"):
            call()


@pytest.mark.parametrize(
    ("value", "number"), [("16M", 1 << 24), ("1048576", 1 << 20), (" 512 k ", 1 << 19), (4096, 4096), ("5GiB", 5 << 30)]
)
def test_sizes_may_be_written_as_for_the_command(value: str | int, number: int) -> None:
    """Units are powers of 1024."""
    assert arguments.nbytes("part_size", value) == number


class Indexed:
    """A whole number of another library, as numpy's are."""

    def __index__(self) -> int:
        """Return it."""
        return 7


def test_numbers_of_other_libraries_are_numbers() -> None:
    """Whoever says that it is a whole number, or a real one, is believed."""
    assert (arguments.whole("workers", Indexed()), arguments.nbytes("part_size", Indexed())) == (7, 7)
    assert arguments.seconds("max time", Fraction(1, 2)) == 0.5


def test_several_checksums_of_any_kind_of_list() -> None:
    """A tuple, a set and a generator are as good as a list; a text is one checksum and not its letters."""
    assert arguments.texts("checksum", None) == ()
    assert arguments.texts("checksum", "a=1") == ("a=1",)
    assert arguments.texts("checksum", (each for each in ("a=1", "b=2"))) == ("a=1", "b=2")
