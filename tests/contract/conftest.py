"""The servers of the contract, each started once and only if a test wants it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.contract.shelves import SERVERS, Bucket, Shelf, moto
from tests.e2e.s3 import nobodys_machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def shelf_of() -> Iterator[Callable[[str], Shelf]]:
    """Return what starts a server by its name, or finds it running."""
    with ExitStack() as stack:
        running: dict[str, Shelf] = {}

        def find(name: str) -> Shelf:
            if name not in running:
                running[name] = stack.enter_context(SERVERS[name]())
            return running[name]

        yield find


@pytest.fixture(scope="session")
def moto_bucket() -> Iterator[Bucket]:
    """Return moto's bucket for uploads of all kinds."""
    with moto() as bucket:
        yield bucket


@pytest.fixture(autouse=True)
def _nobodys_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobodys_machine(tmp_path, monkeypatch)
