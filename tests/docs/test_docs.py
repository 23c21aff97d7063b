"""Every program that the documentation shows is run, as it stands there but for the address of its objects."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.docs.objects import write_objects
from tests.e2e.processes import running_any
from tests.servers.nginx import serving_nginx

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = Path(__file__).parents[2] / "docs"
BASE = "https://example.org/data/"
PATIENCE = 90.0  # seconds; some programs import torch
# What they import is installed for the long tests only, see scripts/test.
_HEAVY = re.compile(
    r"^\s*(?:import|from) (?:fastdl\.integrations\.)?(?:torch|webdataset|litdata|streaming|datasets|pandas|pyarrow)\b",
    re.MULTILINE,
)
_BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Example:
    """One program of a page: Python, or lines for a shell that begin with ``fastdl``."""

    page: str
    line: int
    language: str
    text: str


def examples() -> list[Example]:
    """Find them all."""
    return [
        Example(path.name, path.read_text()[: match.start()].count("\n") + 1, match[1], match[2])
        for path in sorted(DOCS.glob("*.md"))
        for match in _BLOCK.finditer(path.read_text())
        if match[1] == "python" or match[2].startswith("fastdl ")
    ]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve what the examples fetch."""
    root = tmp_path_factory.mktemp("docs")
    write_objects(root / "data")
    with serving_nginx(root) as server:
        yield server.url("/data/")


@pytest.mark.timeout(2 * PATIENCE)
@pytest.mark.parametrize(
    "example",
    [pytest.param(each, marks=[pytest.mark.long] if _HEAVY.search(each.text) else []) for each in examples()],
    ids=lambda example: f"{example.page}:{example.line}",
)
def test_what_the_documentation_shows(example: Example, base: str, tmp_path: Path) -> None:
    """It runs in an empty directory, ends well, without a warning, and leaves no process."""
    text = example.text.replace(BASE, base)
    assert "example.org" not in text, f"only {BASE} is served"
    folder = tmp_path / "empty"
    folder.mkdir()
    program = tmp_path / "example"
    program.write_text(text)
    command = (
        [sys.executable, "-W", "error", str(program)] if example.language == "python" else ["bash", "-e", str(program)]
    )
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with running_any(
        tmp_path / "logs", command, cwd=folder, environment={"HOME": str(folder), "PATH": path}
    ) as running:
        assert running.wait(PATIENCE) == 0, running.stderr
        assert "Traceback" not in running.stderr
        running.wait_gone(PATIENCE)


def test_every_link_between_pages_leads_somewhere() -> None:
    """A page that was renamed is found by all others."""
    for path in DOCS.glob("*.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"
