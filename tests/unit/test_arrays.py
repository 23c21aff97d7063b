"""Headers that contradict themselves or the object: one line, and no array."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from fastdl.arrays import Tensors, npy
from fastdl.errors import UsageError
from tests.fuzz.targets import Held

ENTRY: dict[str, Any] = {"dtype": "I16", "shape": [2], "data_offsets": [0, 4]}
DEEP = 100_000


def npy_file(header: str, follow: int = 4, version: int = 1, length: int | None = None) -> bytes:
    """Write the head of a file as numpy would, whatever it says."""
    told = (len(header.encode()) if length is None else length).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + told + header.encode() + bytes(follow)


def tensor_file(header: object, follow: int = 4) -> bytes:
    """Write the head of a file as safetensors would, whatever it says."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(follow)


def told(descr: object = "<i2", order: object = False, shape: object = (2,)) -> str:
    """Return a header."""
    return repr({"descr": descr, "fortran_order": order, "shape": shape})


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "begin"),
        (b"\x93NUMPY\x01", "begin"),
        (npy_file(told(), version=4), "begin"),
        (b"\x93NUMPY\x01\x01" + npy_file(told())[8:], "begin"),
        (b"\x93NUMPY\x02\x00\xff", "header of 255 bytes in an object of 9"),
        (npy_file(told(), length=200), "header of 200 bytes"),
        (npy_file(told(), version=2, length=2**32 - 1), "header of 4294967295 bytes"),
        (npy_file("x" * (2**20 + 1), version=2), "header of 1048577 bytes"),
        (npy_file("__import__('os')"), "cannot be read"),
        (npy_file("(" * 60_000), "cannot be read"),
        (npy_file("-" * DEEP + "1", version=2), "cannot be read"),
        (npy_file("1" + "+1" * DEEP, version=2), "cannot be read"),
        (npy_file("1" + "0" * 5000), "cannot be read"),
        (b"\x93NUMPY\x03\x00\x02\x00\x00\x00\xff\xff", "cannot be read"),
        (npy_file("[]"), "does not tell"),
        (npy_file(told()[:-1] + ", 'more': 1}"), "does not tell"),
        (npy_file(told(order=1)), "does not tell"),
        (npy_file(told("nonsense")), "no type 'nonsense'"),
        (npy_file(told([("a", "<i2"), ("a", "<i2")])), "no type"),
        (npy_file(told([("a",)])), "no type"),
        (npy_file(told(3)), "no type 3"),
        (npy_file(told("<i2", shape=[2])), "shape is"),
        (npy_file(told("<i2", shape=(-2,))), "shape is"),
        (npy_file(told("<i2", shape=(True, 2))), "shape is"),
        (npy_file(told("<i2", shape=(1,) * 65)), "shape is"),
        (npy_file("{'descr': '<i2', 'fortran_order': False, 'shape': (0x" + "f" * 9999 + ",)}"), "shape is"),
        (npy_file(told("<i2", shape=(3,))), "are not the 4 bytes"),
        (npy_file(told("<i2", shape=(2**62, 2**62))), "are not the 4 bytes"),
        (npy_file(told(), follow=5), "are not the 5 bytes"),
        (npy_file(told(), follow=3), "are not the 3 bytes"),
        (npy_file(told(shape=(0, 2**62, 2**62)), follow=0), "numpy has no array of shape"),
    ],
)
def test_what_is_no_array(data: bytes, why: str) -> None:
    """The line says what is wrong, shortly."""
    with pytest.raises(UsageError, match=why) as caught:
        npy(memoryview(data))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("descr", ["|O", [("a", "<i2"), ("b", "|O")], [("a", "|O", (2,))], ("|O", (1,))])
def test_objects_are_refused_wherever_they_are(descr: object) -> None:
    """In a field, and in an array in a field."""
    with pytest.raises(UsageError, match="of Python objects"):
        npy(memoryview(npy_file(told(descr), follow=64)))


def test_an_array_is_read_only_and_no_copy() -> None:
    """Though the memory under it may be written by who fetches."""
    data = bytearray(npy_file(told()))
    array = npy(memoryview(data).toreadonly())
    data[-1] = 1
    assert array.tolist() == [0, 256]
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "header of 0 bytes in an object of 0"),
        (b"1234567", "in an object of 7"),
        (tensor_file({}, 0)[:-1], "header of 2 bytes in an object of 9"),
        ((2**64 - 1).to_bytes(8, "little") + b"{}", "header of 18446744073709551615 bytes"),
        (tensor_file(b"", 0), "does not begin with {"),
        (tensor_file(b" {}", 0), "does not begin with {"),
        (tensor_file("{}".encode("utf-16"), 0), "does not begin with {"),
        (tensor_file(b"{", 0), "no JSON"),
        (tensor_file(b'{"\xff": 1}', 0), "no JSON"),
        (tensor_file(b'{"a":' * DEEP, 0), "no JSON"),
        (tensor_file(b'{"a":1' + b"0" * 5000 + b"}", 0), "no JSON"),
        (tensor_file(b'{"\\ud800":{}}', 0), "no JSON"),
        (tensor_file(b'{"a":NaN}', 0), "says NaN"),
        (tensor_file(b'{"__metadata__":{},"__metadata__":{}}', 0), "a name twice"),
        (tensor_file({"__metadata__": []}, 0), "metadata"),
        (tensor_file({"__metadata__": {"a": 1}}, 0), "metadata"),
        (tensor_file({"a": []}), "lacks one of"),
        (tensor_file({"a\n" * 99: {"dtype": "I16"}}), "lacks one of"),
        (tensor_file({"a": {**ENTRY, "dtype": "I17"}}), "of type 'I17'"),
        (tensor_file({"a": {**ENTRY, "dtype": ["I16"]}}), "of type"),
        (tensor_file({"a": {**ENTRY, "shape": [1] * 65}}), "of shape"),
        (tensor_file({"a": {**ENTRY, "shape": [-2]}}), "of shape"),
        (tensor_file({"a": {**ENTRY, "shape": [True, 2]}}), "of shape"),
        (tensor_file({"a": {**ENTRY, "shape": [3]}}), "in 4 bytes"),
        (tensor_file({"a": {**ENTRY, "shape": [2**62, 2**62]}}), "in 4 bytes"),
        (tensor_file({"a": {**ENTRY, "data_offsets": [4, 0]}}), "in -4 bytes"),
        (tensor_file({"a": {**ENTRY, "data_offsets": [0]}}), "offsets"),
        (tensor_file({"a": {**ENTRY, "data_offsets": [-4, 0]}}), "offsets"),
        (tensor_file({"a": {**ENTRY, "data_offsets": [2, 6]}}, 6), "begins at byte 2, what is before it ends at 0"),
        (tensor_file({"a": ENTRY, "b": ENTRY}), "begins at byte 0, what is before it ends at 4"),
        (tensor_file({"a": ENTRY, "b": {**ENTRY, "data_offsets": [3, 7]}}, 7), "begins at byte 3"),
        (tensor_file({"a": ENTRY}, 3), "have 4 bytes, 3 follow"),
        (tensor_file({"a": ENTRY}, 5), "have 4 bytes, 5 follow"),
        (tensor_file({}, 1), "have 0 bytes, 1 follow"),
    ],
)
def test_what_are_no_tensors(data: bytes, why: str) -> None:
    """The line says what is wrong, shortly."""
    with pytest.raises(UsageError, match=why) as caught:
        Tensors(Held(data))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_a_header_of_more_than_a_hundred_megabytes_is_not_read() -> None:
    """Nor waited for."""

    class Large(Held):
        size = 2**40

        def __init__(self) -> None:
            self._data = (100_000_001).to_bytes(8, "little")

    with pytest.raises(UsageError, match="header of 100000001 bytes"):
        Tensors(Large())


def test_types_smaller_than_a_byte_are_told_but_no_arrays() -> None:
    """Others of the same file can be used."""
    tensors = Tensors(Held(tensor_file({"a": {"dtype": "F4", "shape": [4], "data_offsets": [4, 6]}, "b": ENTRY}, 6)))
    assert list(tensors) == ["b", "a"]
    assert (tensors.dtype("a"), tensors.shape("a")) == ("F4", (4,))
    with pytest.raises(UsageError, match="tensor 'a': numpy has no array of F4"):
        tensors["a"]
    assert tensors["b"].dtype == np.int16
