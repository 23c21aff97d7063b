"""``npy`` and ``safetensors`` of an object in memory, held against the real ``numpy.save`` and the real safetensors."""

from __future__ import annotations

import hashlib
import io
import pickle
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save

import fastdl
from tests.servers.nginx import serving_nginx
from tests.servers.scripted import by_offset, chunked, flipped, no_length, ranged, serving

if TYPE_CHECKING:
    from collections.abc import Mapping

KIB = 1024
PART = 64 * KIB
RNG = np.random.default_rng(5)
ARRAYS: dict[str, np.ndarray[Any, Any]] = {
    "one dimension": RNG.random(40_000),
    "Fortran order": np.asfortranarray(RNG.integers(0, 9, (7, 11, 13), dtype=np.int16)),
    "a scalar": np.array(3 + 4j),
    "nothing": np.empty((5, 0, 2), np.float32),
    "big-endian": np.arange(1000, dtype=">u4"),
    "times": np.arange("2026-01-01", "2027-01-01", dtype="datetime64[D]"),
    "texts": np.array(["a", "\N{SNOWMAN}", ""]),
    "records": np.zeros(9, [("a", "<i2"), ("b", "<f8", (2, 3)), ("c", [("d", "S3"), ("e", "?")])]),
    "records, aligned": np.zeros(9, np.dtype([("a", "i1"), ("b", "<f8")], align=True)),
    "names of version 3": np.ones(3, [("\N{SNOWMAN}", "<i4")]),
    "a long header": np.ones(2, [(f"field {number:>60}", "i1") for number in range(1000)]),
}
TENSORS: dict[str, np.ndarray[Any, Any]] = {
    "a": RNG.random((30, PART), dtype=np.float32),
    "half": RNG.random((3, 5)).astype(np.float16),
    "brain": RNG.random(PART).astype(ml_dtypes.bfloat16),
    "eight": RNG.random(7).astype(ml_dtypes.float8_e4m3fn),
    "eight, wider": RNG.random(7).astype(ml_dtypes.float8_e5m2),
    "yes": np.array([True, False]),
    "\N{SNOWMAN}": np.arange(6, dtype=np.int64).reshape(2, 3),
    "nothing": np.empty((0, 4), np.uint8),
    "a scalar": np.array(2.5),
}


def npy_of(array: np.ndarray[Any, Any], version: tuple[int, int] | None = None) -> bytes:
    """Write an array as numpy does."""
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version)
    return file.getvalue()


def assert_same(got: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> None:
    """Type, shape and every bit; and that nobody can change it."""
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    assert got.tobytes() == expected.tobytes()
    assert not got.flags.writeable


@pytest.mark.filterwarnings("ignore:Stored array in format:UserWarning")
@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_what_numpy_saved_is_what_is_loaded(array: np.ndarray[Any, Any]) -> None:
    """Whatever its type, shape and order; it is the memory itself."""
    with serving(ranged(npy_of(array))) as server, fastdl.open(server.url(), part_size=PART) as remote:
        got = remote.npy()
        assert_same(got, array)
        assert got.flags.f_contiguous == array.flags.f_contiguous
        assert np.may_share_memory(got, remote.numpy()) == bool(array.size)
    assert_same(got, array)  # it outlives the object


@pytest.mark.filterwarnings("ignore:Stored array in format:UserWarning")
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_the_format(version: tuple[int, int]) -> None:
    """They differ in the length of the header's length, and in its letters."""
    array = ARRAYS["records"]
    with serving(ranged(npy_of(array, version))) as server, fastdl.open(server.url()) as remote:
        assert_same(remote.npy(), array)


def test_an_array_of_objects_is_not_unpickled() -> None:
    """Whoever can change the object could run anything."""
    data = npy_of(np.array([{"a": 1}, Path("x")], dtype=object))
    with (
        serving(ranged(data)) as server,
        fastdl.open(server.url()) as remote,
        pytest.raises(fastdl.UsageError, match="of Python objects: they would be unpickled"),
    ):
        remote.npy()


def test_an_array_is_judged_whole() -> None:
    """What came wrong is replaced before there is an array; what is not what was promised is none."""
    array = ARRAYS["one dimension"]
    data = npy_of(array)
    digest = f"sha256={hashlib.sha256(data).hexdigest()}"
    wrong = by_offset({2 * PART: flipped(100)}, ranged(data))
    with serving(wrong) as server, fastdl.open(server.url(), part_size=PART, checksum=digest) as remote:
        assert_same(remote.npy(), array)
    with (
        serving(ranged(data)) as server,
        fastdl.open(server.url(), part_size=PART, checksum=f"sha256={'0' * 64}") as remote,
        pytest.raises(fastdl.IntegrityError),
    ):
        remote.npy()


def test_numpy_maps_the_object_by_its_path() -> None:
    """``np.memmap`` and ``np.load`` take the name of the memory for a file's."""
    array = ARRAYS["one dimension"]
    with serving(ranged(npy_of(array))) as server, fastdl.open(server.url()) as remote:
        mapped = np.memmap(remote.path(), np.float64, "r", offset=128)
        assert_same(mapped, array)
        assert_same(np.load(remote.path(), mmap_mode="r"), array)
        del mapped


def assert_tensors(got: Mapping[str, np.ndarray[Any, Any]], expected: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Hold all of them against each other."""
    assert set(got) == set(expected)
    assert len(got) == len(expected)
    for name, tensor in got.items():
        assert_same(tensor, expected[name])


def test_what_safetensors_saved_is_what_is_loaded() -> None:
    """Every type, and what the file says of itself."""
    data = save(TENSORS, {"format": "np", "who": "\N{SNOWMAN}"})
    with serving(ranged(data)) as server, fastdl.open(server.url(), part_size=PART) as remote:
        tensors = remote.safetensors()
        assert_tensors(tensors, TENSORS)
        assert tensors.metadata == {"format": "np", "who": "\N{SNOWMAN}"}
        assert (tensors.dtype("brain"), tensors.shape("brain")) == ("BF16", (PART,))
        assert "half" in tensors
        assert "neither" not in tensors
        with pytest.raises(KeyError, match="neither"):
            tensors["neither"]
        assert np.may_share_memory(tensors["half"], remote.numpy())


@pytest.mark.parametrize("handler", [chunked(save(TENSORS)), no_length(save(TENSORS))], ids=["chunked", "no length"])
def test_tensors_of_a_server_that_does_not_say_how_much_comes(handler: Any) -> None:
    """They wait for the end, because only there it is known whether the header fits the file."""
    with serving(handler) as server, fastdl.open(server.url()) as remote:
        assert_tensors(remote.safetensors(), TENSORS)


def test_without_ml_dtypes_its_types_are_unsigned_integers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of their length and with their bits; the format's name tells what they are."""
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with serving(ranged(save(TENSORS))) as server, fastdl.open(server.url()) as remote:
        tensors = remote.safetensors()
        for name, dtype, told in (("brain", np.uint16, "BF16"), ("eight", np.uint8, "F8_E4M3")):
            assert_same(tensors[name], TENSORS[name].view(dtype))
            assert tensors.dtype(name) == told


def test_safetensors_opens_the_object_by_its_path() -> None:
    """``safe_open`` takes the name of the memory for a file's."""
    with (
        serving(ranged(save(TENSORS))) as server,
        fastdl.open(server.url()) as remote,
        safe_open(remote.path(), framework="np") as file,
    ):
        assert set(file.keys()) == set(TENSORS)
        assert file.get_tensor("a").tobytes() == TENSORS["a"].tobytes()


def test_a_tensor_waits_for_its_own_bytes_alone(tmp_path: Path) -> None:
    """The last of a file comes before those in between, on a line that would take much longer for all."""
    tensors = {f"{number:02}": RNG.random(PART // 4, dtype=np.float32) for number in range(40)}
    (tmp_path / "f").write_bytes(save(tensors))
    with (
        serving_nginx(tmp_path, rate=4 * PART) as server,
        fastdl.open(server.url("/f"), part_size=PART, connections=1, workers=1) as remote,
    ):
        got = remote.safetensors()
        assert list(got) == sorted(tensors)
        assert_same(got["39"], tensors["39"])
        assert remote._loading is not None
        there = remote._loading.arrivals._there
        assert sum(there) < len(there) // 2


def test_another_process_has_the_same_tensors() -> None:
    """By a reference to the object, out of the same memory."""
    with (
        serving(ranged(save(TENSORS))) as server,
        fastdl.open(server.url(), part_size=PART) as remote,
        pickle.loads(pickle.dumps(remote)) as other,
    ):
        assert_tensors(other.safetensors(), TENSORS)


@pytest.mark.parametrize("data", [b"", b"1234567", random.Random(3).randbytes(5000), save(TENSORS)[:-1]])
def test_objects_that_are_neither(data: bytes) -> None:
    """One line each, and no array."""
    with serving(ranged(data)) as server, fastdl.open(server.url()) as remote:
        for read, kind in ((remote.npy, ".npy"), (remote.safetensors, ".safetensors")):
            with pytest.raises(fastdl.UsageError, match=f"no {kind} file: ") as caught:
                read()
            assert str(caught.value).isprintable()
