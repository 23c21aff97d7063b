"""Which source meets which server, and what each server does of its own: the table of the contract.

``python -m tests.contract.pairs`` prints it; it is part of README.md, and a test compares the two.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pair:
    """A source, a server, and how the server answers where servers differ."""

    source: str
    server: str
    integrity: str  # what a download proves of an ordinary object
    range_status: int = 206  # of an answer to a range
    clips: bool = True  # a range that ends behind the end is answered up to it, and not with the whole object
    empty_status: int = 416  # of an answer to the first byte of an empty object
    mismatch_status: int = 412  # of an answer to If-Match with another ETag
    wrong_secret: int | None = 4  # exit code with a wrong secret; None where there is none

    @property
    def name(self) -> str:
        """What tests and table call it."""
        return f"{self.source} on {self.server}"


PAIRS = (
    Pair("http", "nginx", "length", empty_status=200, wrong_secret=None),
    Pair("http", "lighttpd", "length", empty_status=200, mismatch_status=206, wrong_secret=None),
    Pair("http", "rclone serve s3", "length", range_status=200, mismatch_status=200),
    Pair("http", "moto", "length", wrong_secret=0),
    Pair("http", "our OSS endpoint", "crc64", clips=False, empty_status=200),
    Pair("s3", "rclone serve s3", "md5", range_status=200, mismatch_status=200),
    Pair("s3", "moto", "md5", wrong_secret=0),
    Pair("s3", "our S3 endpoint", "crc64nvme"),
    Pair("oss", "our OSS endpoint", "crc64"),
)
CASES = (  # test function -> what the table calls it
    ("test_a_whole_object", "whole"),
    ("test_sizes_at_the_edges", "0, 1, odd sizes"),
    ("test_resumed_after_a_kill", "resumed"),
    ("test_replaced_in_between", "replaced"),
    ("test_how_ranges_are_answered", "ranges"),
    ("test_missing", "missing"),
    ("test_a_wrong_secret", "wrong secret"),
    ("test_the_facts", "head"),
)


def table() -> str:
    """Make the table in Markdown."""
    lines = [
        "| source on server | "
        + " | ".join(title for _, title in CASES)
        + " | proven | where the server is peculiar |",
        "|---" * (len(CASES) + 3) + "|",
    ]
    for pair in PAIRS:
        secret = {None: "none there", 0: "believed", 4: "exit 4"}[pair.wrong_secret]
        cells = {"test_replaced_in_between": "starts over", "test_missing": "exit 3", "test_a_wrong_secret": secret}
        row = [pair.name, *(cells.get(test, "exact") for test, _ in CASES), pair.integrity, _peculiar(pair)]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def _peculiar(pair: Pair) -> str:
    notes = []
    if pair.range_status != 206:
        notes.append(f"answers a range with {pair.range_status} and a Content-Range")
    if not pair.clips:
        notes.append("answers a range that ends behind the end with the whole object")
    if pair.empty_status != 416:
        notes.append("answers any range of an empty object with 200")
    if pair.mismatch_status != 412:
        notes.append("ignores If-Match")
    if pair.wrong_secret == 0:
        notes.append("checks no signature")
    return "; ".join(notes)


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
