"""The table of faults in tests/README.md: every row is there, and every test that it names."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ROWS = {"N": 40, "D": 7, "F": 16, "P": 13, "I": 8, "S": 10}  # network, data, files, processes, inputs, security
_ROW = re.compile(r"^\| ([NDFPIS]\d+) \|(.*)\|$", re.MULTILINE)
_TEST = re.compile(r"`([\w/]+\.py)::(\w+)`")


def test_every_fault_has_a_row() -> None:
    """In order, and once."""
    assert list(_rows()) == [f"{letter}{number}" for letter, count in ROWS.items() for number in range(1, count + 1)]


def test_every_row_names_tests_that_exist() -> None:
    """A row without a test says why in words, and refuses nothing silently."""
    missing = {}
    for row, text in _rows().items():
        named = _TEST.findall(text)
        missing[row] = [f"{path}::{name}" for path, name in named if name not in _functions(path)]
        if not named:
            missing[row].append("no test")
    assert {row: tests for row, tests in missing.items() if tests} == {}


def _rows() -> dict[str, str]:
    found = _ROW.findall((TESTS / "README.md").read_text("utf-8"))
    assert len(dict(found)) == len(found), "a row stands there twice"
    return dict(found)


@functools.cache
def _functions(path: str) -> set[str]:
    """Name the tests of a file: functions, methods, and hypothesis' machines by the name of their class."""
    if not (TESTS / path).exists():
        return set()
    tree = ast.parse((TESTS / path).read_text("utf-8"))
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    return functions | {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
