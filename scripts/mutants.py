"""Mutants of the modules that must never be wrong: each changed once, in a copy, and tested until a test fails.

Run by ``scripts/mutate``. What survived is printed with its place; ``tests/MUTANTS.md`` says why it may. The tests run
in forks of this process, which has their libraries loaded but nothing of fastdl: that is most of what a run costs.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import resource
import shutil
import signal
import sys
import time
from contextlib import suppress
from difflib import unified_diff
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastcrc  # noqa: F401 - as the others that nothing here uses: loaded once, for every fork
import hypothesis  # noqa: F401
import numpy  # noqa: F401, ICN001
import pytest
import trustme  # noqa: F401
import urllib3  # noqa: F401
import xxhash  # noqa: F401
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import MutationVisitor
from cosmic_ray.operators.operator import Example, Operator
from cosmic_ray.plugins import get_operator, operator_names
from parso.python.tree import Keyword

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Who spins is ended by the processor time it took, who waits by the clock: a busy machine ends no other mutant.
SPINNING = 15  # seconds; the tests of a module take one or two
WAITING = 60  # seconds that one test may take
STUCK = 300  # seconds until one is ended that not even that could end
# The tests that are about a module, the quickest first: the first one that fails ends a mutant.
TESTS = {
    "checkpoint": ("unit/test_checkpoint", "property/test_checkpoint"),
    "output": ("unit/test_output",),
    "http": ("unit/test_urls", "unit/test_http", "unit/test_redirect", "unit/test_tls", "unit/test_slot"),
    "fetch": ("unit/test_fetch", "unit/test_slot", "property/test_digest"),
}
# Of the eleven other operators that could stand in each place two are tried: more would only add what dies at once.
# For == only !=: names, codes and inodes have no order that means anything. Not ^ for |: flags share no bits.
OPERATORS = re.compile(
    r"core/(?:"
    r"ReplaceBinaryOperator_(?:Add_Sub|Add_Mul|Sub_Add|Sub_FloorDiv|Mul_Add|Mul_FloorDiv|FloorDiv_Mul|FloorDiv_Sub"
    r"|Mod_Mul|Mod_FloorDiv|RShift_LShift|RShift_Add|LShift_RShift|LShift_Add|BitOr_BitAnd"
    r"|BitAnd_BitOr|BitAnd_BitXor|BitXor_BitAnd|BitXor_BitOr)"
    r"|ReplaceComparisonOperator_(?:Eq_NotEq|NotEq_Eq|Lt_LtE|Lt_GtE|Lt_NotEq"
    r"|LtE_Lt|LtE_Gt|LtE_Eq|Gt_GtE|Gt_LtE|Gt_NotEq|GtE_Gt|GtE_Lt|GtE_Eq|Is_IsNot|IsNot_Is)"
    r"|ReplaceUnaryOperator_\w+|AddNot|Replace(?:True|False|And|Or|Break|Continue)With\w+|ExceptionReplacer"
    r"|NumberReplacer|RemoveDecorator|ZeroIterationForLoop)"
)
# Why a test fails is nobody's business here, so that no assertion need be rewritten.
_PYTEST = ("-x", "-q", "--assert=plain", "-p", "no:cacheprovider", "-o", f"timeout={WAITING}")
# In the copy only: the same few examples each time, and none made small once it failed.
_PROFILE = """
from hypothesis import Phase
settings.register_profile(
    "mutants",
    settings.get_profile("fastdl"),
    max_examples=25,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
)
settings.load_profile("mutants")
"""


class RemoveStatement(Operator):  # type: ignore[misc]
    """Does nothing where a function called, assigned, returned or raised: cosmic-ray has no such operator."""

    def mutation_positions(self, node: Any) -> Iterable[tuple[tuple[int, int], tuple[int, int]]]:
        """Yield the statements of functions, but neither docstrings nor what does nothing already."""
        if node.type == "simple_stmt" and node.start_pos[1]:
            first = node.children[0]
            if first.type not in ("string", "keyword", "operator", "import_from", "import_name", "annassign"):
                yield first.start_pos, first.end_pos

    def mutate(self, node: Any, _: int) -> Any:
        """Put ``pass`` into its place."""
        first = node.children[0]
        node.children[0] = Keyword("pass", first.start_pos, first.get_first_leaf().prefix)
        return node

    @classmethod
    def examples(cls) -> Iterable[Example]:
        """Show what it does."""
        return (Example("def f():\n    g()", "def f():\n    pass"),)


def main() -> int:
    """Run the mutants of the modules that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of {' '.join(TESTS)}; all of them by default")
    parser.add_argument(
        "--again", action="store_true", help="only those that survived, or were not tried, the last time"
    )
    options = parser.parse_args()
    root = Path(__file__).resolve().parent.parent
    for module in options.modules or TESTS:
        _copy(root, root / ".mutate" / module)
        os.chdir(root / ".mutate" / module)
        source = Path("fastdl", f"{module}.py").read_text()
        mutants = list(_mutants(source))
        kept = root / ".mutate" / f"{module}.json"
        killed = set(map(tuple, json.loads(kept.read_text()))) if options.again else set()
        for mutant in _killed(module, source, [mutant for mutant in mutants if mutant not in killed]):
            killed.add(mutant)
            kept.write_text(json.dumps(sorted(killed)))
        count = len(killed & set(mutants))
        print(f"{module}: {len(mutants)} mutants, {count} killed, {count / len(mutants):.1%}", flush=True)
    return 0


def _copy(root: Path, to: Path) -> None:
    shutil.rmtree(to, ignore_errors=True)
    for name in ("fastdl", "tests"):
        shutil.copytree(root / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "pyproject.toml", to)
    with (to / "tests/conftest.py").open("a") as file:
        file.write(_PROFILE)


def _mutants(source: str) -> Iterator[tuple[str, int]]:
    """Yield the name of an operator and which of its places, for all that can change what runs."""
    mute = set(_never_run(ast.parse(source)))
    nodes = list(ast_nodes(get_ast(source)))
    names = [name for name in operator_names() if OPERATORS.fullmatch(name)]
    for name in [*names, ""]:
        operator = _operator(name)
        places = [start for node in nodes for start, _ in operator.mutation_positions(node)]
        for number, place in enumerate(places):
            with suppress(AttributeError):  # cosmic-ray cannot replace an exception with a dotted name
                if tuple(place) not in mute and _mutated(source, name, number):
                    yield name, number


def _killed(module: str, source: str, mutants: list[tuple[str, int]]) -> Iterator[tuple[str, int]]:
    """Yield the mutants that a test kills, and print those that none does."""
    path = Path("fastdl", f"{module}.py")
    sys.dont_write_bytecode = False
    if not _passes(module):
        sys.exit(f"the tests of {module} fail without any mutant")
    # What is compiled now is used from here on. Mutants are not kept: two may be equal in length and time.
    sys.dont_write_bytecode = True
    for count, (name, number) in enumerate(mutants, start=1):
        mutated = _mutated(source, name, number)
        path.write_text(mutated)
        if not _passes(module):
            yield name, number
        else:
            print(f"{count}/{len(mutants)} {name or 'RemoveStatement'}\n{_changed(source, mutated)}", flush=True)


def _passes(module: str) -> bool:
    """Tell whether every test of ``module`` passes on the tree as it is; False too if they hang."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(nowhere, number)
        sys.path.insert(0, str(Path.cwd()))
        resource.setrlimit(resource.RLIMIT_CPU, (SPINNING, SPINNING))
        os._exit(pytest.main([*_PYTEST, *(f"tests/{name}.py" for name in TESTS[module])]))
    deadline = time.monotonic() + STUCK
    while (ended := os.waitpid(pid, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.01)
    with suppress(ProcessLookupError):  # what a mutant left running too
        os.killpg(pid, signal.SIGKILL)
    if ended == (0, 0):
        os.waitpid(pid, 0)
    return ended == (pid, 0)


def _mutated(source: str, name: str, number: int) -> str:
    text: str = MutationVisitor.mutate_code(source, _operator(name), number)
    return text


def _operator(name: str) -> Operator:
    return get_operator(name)() if name else RemoveStatement()


def _never_run(tree: ast.Module) -> Iterator[tuple[int, int]]:
    """Yield every place that is for type checkers only: annotations, and what stands under TYPE_CHECKING."""
    for node in ast.walk(tree):
        mute: list[ast.expr | ast.stmt | None] = []
        if isinstance(node, ast.FunctionDef):
            mute = [node.returns]
        elif isinstance(node, ast.arg | ast.AnnAssign):
            mute = [node.annotation]
        elif isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            mute = [node]
        for part in filter(None, mute):
            for line in range(part.lineno, (part.end_lineno or 0) + 1):
                first = part.col_offset if line == part.lineno else 0
                last = part.end_col_offset if line == part.end_lineno else 200
                yield from ((line, column) for column in range(first, last or 0))


def _changed(before: str, after: str) -> str:
    """Return what tells a mutant: the place, the line as it was and as it became."""
    lines = unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    return "\n".join(line for line in lines if not line.startswith(("---", "+++")))


if __name__ == "__main__":
    sys.exit(main())
