"""Arrays and tensors of any shape, and headers with anything in them, against numpy and safetensors themselves."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import safetensors
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.numpy import save

from fastdl.arrays import Tensors, npy
from fastdl.errors import UsageError
from fastdl.tensors import BITS
from tests.fuzz.targets import Held

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
KINDS = ("?", "i1", "u1", "i2", "u2", "f2", "i4", "u4", "f4", "i8", "u8", "f8", "c8")
PLAIN = st.sampled_from([np.dtype(kind) for kind in KINDS])
ANY = PLAIN | arrays.nested_dtypes() | arrays.datetime64_dtypes() | arrays.unicode_string_dtypes()
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
ENTRY = {"dtype": "I16", "shape": [2, 3], "data_offsets": [0, 12]}
NO_LENGTHS: tuple[Any, ...] = (-1, 2**63, 2**64, 10**30, 1.0, True, None, "1", [], {})
LENGTHS: st.SearchStrategy[Any] = st.integers(0, 13) | st.sampled_from(NO_LENGTHS)
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([*BITS, "i2", "C128", "", None, 2, ["I16"]]),
        "shape": st.lists(LENGTHS, max_size=3) | LENGTHS,
        "data_offsets": st.lists(LENGTHS, min_size=1, max_size=3) | st.tuples(st.integers(0, 13), st.integers(0, 13)),
    },
    optional={"more": st.none()},
)


@pytest.mark.filterwarnings("ignore:Stored array in format:UserWarning")
@given(st.data(), ANY, SHAPES, st.sampled_from([np.ascontiguousarray, np.asfortranarray]))
def test_what_numpy_writes_is_read(
    data: st.DataObject, dtype: np.dtype[Any], shape: tuple[int, ...], ordered: Callable[..., np.ndarray[Any, Any]]
) -> None:
    """Type, shape, order and every bit."""
    content = data.draw(st.binary(min_size=dtype.itemsize, max_size=dtype.itemsize))
    array = np.zeros(shape, dtype)
    if dtype.kind in "iufc" and array.size:
        array[...] = np.frombuffer(content, dtype)[0]
    array = ordered(array)
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    got = npy(memoryview(file.getvalue()))
    expected = np.load(io.BytesIO(file.getvalue()))
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    assert got.flags.f_contiguous == expected.flags.f_contiguous
    assert got.tobytes() == array.tobytes()


@given(st.dictionaries(NAMES, st.tuples(PLAIN, SHAPES), max_size=6), st.dictionaries(NAMES, NAMES, max_size=3))
def test_what_safetensors_writes_is_read(
    kinds: dict[str, tuple[np.dtype[Any], tuple[int, ...]]], told: dict[str, str]
) -> None:
    """All of it, whatever the names."""
    kinds.pop("__metadata__", None)
    tensors = {name: np.full(shape, number + 1, dtype) for number, (name, (dtype, shape)) in enumerate(kinds.items())}
    got = Tensors(Held(save(tensors, told or None)))
    assert got.metadata == told
    assert got.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (got[name].dtype, got[name].shape, got.shape(name)) == (tensor.dtype, tensor.shape, tensor.shape)
        assert got[name].tobytes() == tensor.tobytes()


@given(st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]), ENTRIES, max_size=3), st.integers(0, 26))
@example({"a": ENTRY}, 12)
@example({"a": ENTRY, "b": {**ENTRY, "data_offsets": [12, 24]}}, 24)
def test_a_header_is_believed_if_safetensors_believes_it(header: dict[str, Any], room: int) -> None:
    """Lengths, offsets, holes, overlaps: neither more nor less."""
    text = json.dumps(header).encode()
    content = len(text).to_bytes(8, "little") + text + bytes(room)
    try:
        expected = dict(safetensors.deserialize(content))  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError:
        with pytest.raises(UsageError, match=r"no \.safetensors file: ") as caught:
            Tensors(Held(content))
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 300
    else:
        got = Tensors(Held(content))
        assert {name: [got.dtype(name), list(got.shape(name))] for name in got} == {
            name: [entry["dtype"], entry["shape"]] for name, entry in expected.items()
        }
