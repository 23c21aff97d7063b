"""The header of a ``.safetensors`` file: nothing is believed of it that contradicts itself or the file.

Refused is what safetensors itself refuses, and names that come twice, which its format forbids too. Source: the section
"Format" of its README.
"""

from __future__ import annotations

import json
import math
import reprlib
from dataclasses import dataclass
from typing import Any, NoReturn

from fastdl.errors import UsageError
from fastdl.redact import printable

MOST_HEADER = 100_000_000  # bytes, as the format says
BITS = {  # of an item
    "F4": 4,
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}
_ENTRY = ("dtype", "shape", "data_offsets")
_MOST_DIMENSIONS = 64  # that numpy has
_SHOWN = 60  # letters of a foreign value that messages show


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where a tensor lies, in bytes ``[start, stop)`` from the header's end, and what it is."""

    start: int
    stop: int
    dtype: str
    shape: tuple[int, ...]


def parse_header(header: bytes, room: int) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors in the order of their bytes, which fill the ``room`` behind the header, and the metadata.

    Raises:
        UsageError: they do not fill it, overlap or leave a hole, or it is no header.
    """
    if not header.startswith(b"{"):
        refuse("its header does not begin with {")
    try:
        found = json.loads(header.decode(), object_pairs_hook=_unique, parse_constant=_no_number)
    except UsageError:
        raise
    except (ValueError, RecursionError) as error:
        refuse(f"its header is no JSON ({type(error).__name__})")
    metadata = found.pop("__metadata__", None)
    metadata = {} if metadata is None else metadata
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        refuse("its metadata are not names and texts")
    tensors = {name: _tensor(name, entry) for name, entry in found.items()}
    tensors = dict(sorted(tensors.items(), key=lambda each: (each[1].start, each[1].stop)))
    before = 0
    for name, tensor in tensors.items():
        if tensor.start != before:
            refuse(f"tensor {shown(name)} begins at byte {tensor.start}, what is before it ends at {before}")
        before = tensor.stop
    if before != room:
        refuse(f"its tensors have {before} bytes, {room} follow its header")
    return tensors, metadata


def refuse(why: str) -> NoReturn:
    """Say why the object is no such file."""
    raise UsageError(f"no .safetensors file: {why}") from None


def is_shape(value: object, kind: type[list[Any] | tuple[Any, ...]]) -> bool:
    """Tell whether ``value`` is a list, or a tuple, of lengths that the dimensions of an array can have."""
    return isinstance(value, kind) and len(value) <= _MOST_DIMENSIONS and all(map(_is_length, value))


def shown(value: object) -> str:
    """Return a foreign value as a short text."""
    try:
        return printable(reprlib.repr(value), _SHOWN)
    except ValueError:  # more digits than Python writes
        return "of absurd numbers"


def _tensor(name: str, entry: Any) -> Tensor:
    if not isinstance(entry, dict) or not entry.keys() >= set(_ENTRY):
        refuse(f"tensor {shown(name)} lacks one of {', '.join(_ENTRY)}")
    dtype, shape, offsets = (entry[key] for key in _ENTRY)
    if not isinstance(dtype, str) or dtype not in BITS:
        refuse(f"tensor {shown(name)} is of type {shown(dtype)}, which is not known")
    if not is_shape(shape, list):
        refuse(f"tensor {shown(name)} is of shape {shown(shape)}, which is none")
    if not is_shape(offsets, list) or len(offsets) != 2:  # noqa: PLR2004 - where it begins and where it ends
        refuse(f"tensor {shown(name)} has offsets {shown(offsets)}, which are none")
    start, stop = offsets
    if (stop - start) * 8 != math.prod(shape) * BITS[dtype]:
        refuse(f"tensor {shown(name)} is {dtype} of shape {shown(shape)} in {stop - start} bytes")
    return Tensor(start, stop, dtype, tuple(shape))


def _is_length(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _no_number(word: str) -> NoReturn:
    refuse(f"its header says {word}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dictionary of a JSON object whose names are distinct and can be encoded."""
    found = dict(pairs)
    if len(found) != len(pairs):
        refuse("its header has a name twice")
    for name, value in pairs:
        f"{name}{value if isinstance(value, str) else ''}".encode()  # half a surrogate pair is a ValueError
    return found
