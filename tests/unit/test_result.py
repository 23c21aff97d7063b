"""What is said of results is what they hold."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from fastdl.result import DownloadResult

README = Path(__file__).parents[2] / "README.md"


def test_the_readme_names_every_field_of_a_result() -> None:
    """Each once, and no other."""
    section = README.read_text("utf-8").partition("### What a download says")[2].partition("\n###")[0]
    rows = [row.split("|")[1] for row in section.splitlines() if row.startswith("| `")]
    names = re.findall("`(.+?)`", " ".join(rows))
    assert sorted(names) == sorted(field.name for field in fields(DownloadResult))
