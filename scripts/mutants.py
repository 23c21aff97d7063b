"""Mutants of the modules that must never be wrong: each changed once, in a copy, and tested until a test fails.

Run by ``scripts/mutate``. What survived is printed with its place; ``tests/MUTANTS.md`` says why it may.

Most of what a run of tests costs is what comes before them. So pytest collects once, and each mutant is a fork that
gives the changed function its new code and runs the tests. What is changed outside of functions needs an import of its
own: there the fork happens before anything of fastdl is loaded.
"""

from __future__ import annotations

import argparse
import ast
import itertools
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
from types import FunctionType
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
    from collections.abc import Callable, Iterable, Iterator
    from types import ModuleType

    Mutant = tuple[str, int]  # the name of an operator, and which of its places

# Who spins is ended by the processor time it took, who waits by the clock: a busy machine ends no other mutant.
SPINNING = 6  # seconds; the tests of a module take one or two
WAITING = 60  # seconds that one test may take
STUCK = 300  # seconds until one is ended that not even that could end
# The tests that are about a module, the quickest first: the first one that fails ends a mutant.
TESTS = {
    "checkpoint": ("unit/test_checkpoint", "property/test_checkpoint"),
    "marks": ("unit/test_marks",),
    "disk": ("unit/test_disk", "unit/test_output"),
    "output": ("unit/test_output",),
    "http": ("unit/test_http", "unit/test_redirect", "unit/test_tls", "unit/test_slot", "unit/test_secrets_kept"),
    "urls": ("unit/test_urls", "unit/test_redirect"),
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
        mutants = dict(_mutants(source))
        kept = root / ".mutate" / f"{module}.json"
        killed = set(map(tuple, json.loads(kept.read_text()))) if options.again else set()
        texts = {mutant: text for mutant, text in mutants.items() if mutant not in killed}
        for mutant in _killed(module, source, texts):
            killed.add(mutant)
            kept.write_text(json.dumps(sorted(killed)))
        count = len(killed & mutants.keys())
        print(f"{module}: {len(mutants)} mutants, {count} killed, {count / len(mutants):.1%}", flush=True)
    return 0


def _copy(root: Path, to: Path) -> None:
    shutil.rmtree(to, ignore_errors=True)
    for name in ("fastdl", "tests"):
        shutil.copytree(root / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "pyproject.toml", to)
    with (to / "tests/conftest.py").open("a") as file:
        file.write(_PROFILE)


def _mutants(source: str) -> Iterator[tuple[Mutant, str]]:
    """Yield every mutant of what can run, and its text."""
    mute = set(_never_run(ast.parse(source)))
    nodes = list(ast_nodes(get_ast(source)))
    names = [name for name in operator_names() if OPERATORS.fullmatch(name)]
    for name in [*names, ""]:
        operator = _operator(name)
        places = [start for node in nodes for start, _ in operator.mutation_positions(node)]
        for number, place in enumerate(places):
            with suppress(AttributeError):  # cosmic-ray cannot replace an exception with a dotted name
                if tuple(place) not in mute:
                    yield (name, number), MutationVisitor.mutate_code(source, operator, number)


def _killed(module: str, source: str, texts: dict[Mutant, str]) -> Iterator[Mutant]:
    """Yield the mutants that a test kills, and print those that none does."""
    path, lines = Path("fastdl", f"{module}.py"), _lines_of_bodies(ast.parse(source))
    quick = [mutant for mutant in texts if _first_change(source, texts[mutant]) in lines]
    sys.dont_write_bytecode = False
    if not _passes(module, _run):
        sys.exit(f"the tests of {module} fail without any mutant")
    # What is compiled now is used from here on. Mutants are not kept: two may be equal in length and time.
    sys.dont_write_bytecode = True
    outcomes = itertools.chain(
        zip(quick, _quickly(module, [source, *(texts[mutant] for mutant in quick)]), strict=True),
        ((mutant, None) for mutant in texts if mutant not in quick),
    )
    for mutant, outcome in outcomes:
        passed = outcome
        if passed is None:
            path.write_text(texts[mutant])
            passed = _passes(module, _run)
        if passed:
            print(f"{mutant[0] or 'RemoveStatement'} {mutant[1]}\n{_changed(source, texts[mutant])}", flush=True)
        else:
            yield mutant


def _passes(module: str, run: Callable[[str], int]) -> bool:
    """Tell whether ``run`` returns 0 in a process of its own; False too if it hangs."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CPU, (SPINNING, SPINNING))
        code = 1
        try:
            code = run(module)
        finally:
            os._exit(code)
    deadline = time.monotonic() + STUCK
    while (ended := os.waitpid(pid, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.01)
    with suppress(ProcessLookupError):  # what a mutant left running too
        os.killpg(pid, signal.SIGKILL)
    if ended == (0, 0):
        os.waitpid(pid, 0)
    return ended == (pid, 0)


def _run(module: str, *plugins: object) -> int:
    """Run the tests of ``module``, without a word."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nowhere, number)
    sys.path.insert(0, str(Path.cwd()))
    arguments = [*_PYTEST, f"--basetemp=../{module}.tmp", *(f"tests/{name}.py" for name in TESTS[module])]
    return int(pytest.main(arguments, plugins=plugins))


class _Trials:
    """Instead of running the collected tests once: runs them for every text of a module, and sends what came of it."""

    def __init__(self, module: str, texts: list[str], out: int) -> None:
        self._module, self._texts, self._out = module, texts, out

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        for text in self._texts:

            def run(_: str, text: str = text) -> int:
                try:
                    _transplant(sys.modules[f"fastdl.{self._module}"], text)
                except ValueError:  # a closure of another shape: it has not been tried
                    return 0
                for item, after in itertools.pairwise([*session.items, None]):
                    item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
                    if session.testsfailed:
                        return 1
                return 0

            os.write(self._out, b"1" if _passes(self._module, run) else b"0")
        return True


def _quickly(module: str, texts: list[str]) -> Iterator[bool]:
    """Yield for each text but the first whether the tests pass with its functions; with the first they must."""
    receiving, sending = os.pipe()
    pid = os.fork()
    if pid == 0:
        os._exit(_run(module, _Trials(module, texts, sending)))
    os.close(sending)
    for number, _ in enumerate(texts):
        answer = os.read(receiving, 1)
        if not answer or (number == 0 and answer != b"1"):
            sys.exit(f"the tests of {module} cannot be run in a fork")
        if number:
            yield answer == b"1"
    os.waitpid(pid, 0)
    os.close(receiving)


def _transplant(module: ModuleType, text: str) -> None:
    """Give the functions of a module that is in use already the code of ``text``."""
    new: dict[str, Any] = {"__name__": module.__name__, "__file__": module.__file__}
    exec(compile(text, str(module.__file__), "exec"), new)  # our own
    for name, changed in new.items():
        _replace_code(getattr(module, name, None), changed, module.__name__)


def _replace_code(old: Any, new: Any, home: str) -> None:
    for inner in ("__wrapped__", "fget", "func"):  # of context managers, properties, cached ones
        old, new = getattr(old, inner, old), getattr(new, inner, new)
    if isinstance(old, FunctionType) and old.__module__ == home:
        old.__code__ = new.__code__
    elif isinstance(old, type) and old.__module__ == home:
        for name, changed in vars(new).items():
            if not isinstance(changed, type):
                _replace_code(vars(old).get(name), changed, home)


def _lines_of_bodies(tree: ast.Module) -> set[int]:
    """Return the lines inside functions, without what is evaluated when they are made."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return {line for node in functions for line in range(node.body[0].lineno, (node.end_lineno or 0) + 1)}


def _first_change(before: str, after: str) -> int:
    lines = zip(before.splitlines(), after.splitlines(), strict=False)
    return next(number for number, (old, new) in enumerate(lines, 1) if old != new)


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
