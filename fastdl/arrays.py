"""Arrays that lie in an object's memory as numpy and safetensors wrote them: headers are judged, bytes never copied.

What a header says is held against the bytes that there are before an array is made of them. Source: numpy.lib.format.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Protocol

import numpy as np
from numpy.lib.format import descr_to_dtype

from fastdl.errors import UsageError
from fastdl.tensors import BITS, MOST_HEADER, is_shape, parse_header, refuse, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAGIC = b"\x93NUMPY"
_LENGTH = {1: 2, 2: 4, 3: 4}  # bytes that tell how long the header is, by version
_UTF8 = 3  # the version whose header is
_PREFIX = 8  # bytes of magic and version; of the length of a safetensors header too
_MOST_LITERAL = 1 << 20  # bytes; numpy.load takes 10,000, which a type of a thousand fields exceeds
_KEYS = {"descr", "fortran_order", "shape"}
# What a literal, and a type, can raise that somebody made up.
_NO_LITERAL = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)
_NO_TYPE = (*_NO_LITERAL, LookupError, OverflowError, AttributeError)

_CODES = {"BOOL": "?", "U8": "u1", "I8": "i1", "C64": "<c8"} | {
    f"{kind}{bits}": f"<{kind.lower()}{bits // 8}" for kind in "UIF" for bits in (16, 32, 64)
}
_EXTENDED = {  # what numpy lacks, as ml_dtypes calls it
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
}


class Source(Protocol):
    """An object whose bytes may still be on their way."""

    @property
    def size(self) -> int:
        """Bytes of it."""

    def view(self, start: int, stop: int, /) -> memoryview:
        """Wait for the bytes ``[start, stop)``, brought forward; return them, read-only."""


def npy(data: memoryview) -> np.ndarray[Any, Any]:
    """Return the array that all of ``data`` is, in numpy's format 1.0 to 3.0, over the memory itself.

    Raises:
        UsageError: it is none, or one of Python objects, which would have to be unpickled.
    """
    if len(data) < _PREFIX or data[:6] != _MAGIC or data[6] not in _LENGTH or data[7]:
        _refuse("it does not begin as one of version 1.0, 2.0 or 3.0")
    start = _PREFIX + _LENGTH[data[6]]
    length = int.from_bytes(data[_PREFIX:start], "little")
    if length > _MOST_LITERAL or start + length > len(data):
        _refuse(f"a header of {length} bytes in an object of {len(data)}")
    try:
        header = ast.literal_eval(str(data[start : start + length], "utf-8" if data[6] == _UTF8 else "latin-1"))
    except _NO_LITERAL as error:
        _refuse(f"its header cannot be read ({type(error).__name__})")
    if not isinstance(header, dict) or header.keys() != _KEYS or not isinstance(header["fortran_order"], bool):
        _refuse("its header does not tell descr, fortran_order and shape")
    try:
        dtype = descr_to_dtype(header["descr"])
    except _NO_TYPE:
        _refuse(f"numpy has no type {shown(header['descr'])}")
    if dtype.hasobject:
        raise UsageError("a .npy file of Python objects: they would be unpickled, which runs whatever is in them")
    shape, follow = header["shape"], len(data) - start - length
    if not is_shape(shape, tuple):
        _refuse(f"its shape is {shown(shape)}")
    if math.prod(shape) * dtype.itemsize != follow:
        _refuse(f"{shown(shape)} items of {dtype.itemsize} bytes are not the {follow} bytes behind its header")
    return _array(data[start + length :], dtype, shape, order="F" if header["fortran_order"] else "C")


class Tensors(Mapping[str, np.ndarray[Any, Any]]):
    """The tensors of a ``.safetensors`` file by their names, in the order of their bytes.

    Made when the header is there. A tensor waits for its own bytes, which are fetched before others, and is a read-only
    array over the memory itself. Types that numpy lacks are ml_dtypes' if that is installed, else unsigned integers of
    their length; ``dtype`` tells which they are.

    Raises:
        UsageError: it is no such file.
        FastdlError: its header cannot be had.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        size = source.size
        length = int.from_bytes(source.view(0, _PREFIX), "little") if size >= _PREFIX else 0
        if length > MOST_HEADER or _PREFIX + length > size:
            refuse(f"a header of {length} bytes in an object of {size}")
        self._start = _PREFIX + length
        self._tensors, self._metadata = parse_header(bytes(source.view(_PREFIX, self._start)), size - self._start)

    @property
    def metadata(self) -> dict[str, str]:
        """What the file says of itself; a copy."""
        return dict(self._metadata)

    def dtype(self, name: str) -> str:
        """Return the type of a tensor as the format calls it: ``F32``, ``BF16``."""
        return self._tensors[name].dtype

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the lengths of a tensor's dimensions."""
        return self._tensors[name].shape

    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        tensor = self._tensors[name]
        dtype = _dtype(tensor.dtype)
        if dtype is None:
            raise UsageError(f"tensor {shown(name)}: numpy has no array of {tensor.dtype}, smaller than a byte")
        return _array(self._source.view(self._start + tensor.start, self._start + tensor.stop), dtype, tensor.shape)

    def __contains__(self, name: object) -> bool:  # Mapping's would fetch the tensor
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _dtype(name: str) -> np.dtype[Any] | None:
    """Return numpy's type for the format's; None if there is none."""
    if name not in _EXTENDED:
        return np.dtype(_CODES[name]) if name in _CODES else None
    with suppress(ImportError, AttributeError):  # it need not be installed, and an old one lacks the newest types
        import ml_dtypes  # noqa: PLC0415

        extended: np.dtype[Any] = np.dtype(getattr(ml_dtypes, _EXTENDED[name]))
        return extended
    return np.dtype(f"<u{BITS[name] // 8}")


def _array(
    data: memoryview, dtype: np.dtype[Any], shape: tuple[int, ...], order: Literal["C", "F"] = "C"
) -> np.ndarray[Any, Any]:
    """Return ``data`` as an array, read-only because ``data`` is; items need not be aligned."""
    try:
        return np.ndarray(shape, dtype, buffer=data, order=order)
    except (ValueError, TypeError) as error:  # nothing in one dimension and absurdly much in others
        raise UsageError(f"numpy has no array of shape {shown(shape)}: {error}") from None


def _refuse(why: str) -> NoReturn:
    raise UsageError(f"no .npy file: {why}") from None
