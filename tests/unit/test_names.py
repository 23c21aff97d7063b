"""A name out of foreign text is that of one file, here and on any other system, or it is none."""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdl.names import is_safe_name

SAFE = (
    *("a", "model.safetensors", ".hidden", "a b", " leading", "a..b", "100%25", "-rf", "日本.bin", "e\u0301", "~"),
    *("CONSOLE", "console.log", "nul_", "COM", "COM10", "LPT", "com1x.txt", "a.con", "x" * 250, "日" * 83),
)
UNSAFE = {
    "nothing": ["", ".", "..", "...", " ", ". ."],
    "separators and drives": ["a/b", "/", "a\\b", "\\\\host\\share", "C:", "a:b", "C:x", "file::$DATA"],
    "what Windows drops": ["a.", "a ", "a. .", "CON.", "a.\u00a0"],
    "devices": [
        *("CON", "con", "Con.txt", "NUL", "nul.tar.gz", "AUX.h", "prn ", "COM1", "com1.log", "LPT9.x", "COM0"),
        *("COM\xb9", "LPT\xb3.txt", "CONIN$", "conout$.txt", "NUL .txt"),
    ],
    "wildcards": ["a?b", "a*", '"a"', "<a>", "a|b"],
    "control characters": ["a\0b", "a\nb", "a\rb", "\x1b[2J", "a\x7fb", "a\x85b", "a\u2028b"],
    "what turns the writing": ["a\u202ebin.exe", "a\u2066b", "a\u200fb", "\ufeffa"],
    "no characters": ["a\ud800b", "\udcff"],
    "too long": ["x" * 251, "日" * 84],
}


@pytest.mark.parametrize("name", SAFE)
def test_an_ordinary_name_is_taken(name: str) -> None:
    """Whatever its script; a dot, a dash or a space in front is the user's business."""
    assert is_safe_name(name)


@pytest.mark.parametrize("name", [name for names in UNSAFE.values() for name in names], ids=ascii)
def test_an_unsafe_name_is_not(name: str) -> None:
    """Whatever system it is unsafe on."""
    assert not is_safe_name(name)


@given(st.text(max_size=300) | st.text(st.sampled_from("./\\:CONULcon1 \0\u202e"), max_size=8))
def test_what_is_taken_is_one_plain_segment_everywhere(name: str) -> None:
    """Joined to a directory it lies in that directory, under that very name."""
    if is_safe_name(name):
        for directory in (PurePosixPath("/safe"), PureWindowsPath("C:/safe")):
            joined = directory / name
            assert (joined.parent, joined.name) == (directory, name)
        assert not any(unicodedata.category(char) in ("Cc", "Cf", "Cs") for char in name)
        assert len(f"{name}.part".encode()) <= 255
