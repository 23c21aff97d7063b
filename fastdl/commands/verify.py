"""``fastdl verify PATH [URL]``: whether a file is what it should be, which parts are not, and their repair."""

from __future__ import annotations

import gc
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from fastdl.commands.options import FilePath, Size, line_options, output_options, request_options, store_options
from fastdl.errors import IntegrityError
from fastdl.terminal import configure_logging, fill_standard_streams, print_json, stopped_by_signals
from fastdl.votes import named

if TYPE_CHECKING:
    from pathlib import Path

    from fastdl.result import VerifyResult


@click.command()
@click.argument("path", type=FilePath())
@click.argument("url", required=False)
@click.option("--repair", is_flag=True, help="Fetch bad parts again and overwrite them in place; needs URL.")
@click.option("--checkpoint", "checkpoint_path", type=FilePath(), help="Kept records (PATH.cp).")
@click.option(
    "--checksum", multiple=True, metavar="ALGO=HEX", help="Digest the file must have: sha256=…, crc64=…; repeatable."
)
@click.option("-x", "--connections", type=int, help="Connections of all workers together, at most (128).")
@click.option("-w", "--workers", type=int, help="Worker processes (one for each processor, at most 4).")
@request_options
@click.option("--retry", type=int, default=8, show_default=True, help="Retries in a row of one part.")
@line_options
@click.option("--limit-rate", type=Size(), help="Bytes per second of all connections together: 10M is 10 MiB/s.")
@store_options
@output_options
def verify(
    path: Path,
    url: str | None,
    *,
    no_sign_request: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **settings: Any,
) -> int:
    """Tell whether the file at PATH is what it should be: the object at URL, the records kept, the --checksum.

    Bad parts are named. --repair overwrites them in place: readers may see half of a part meanwhile, and a file whose
    repair was killed is still bad to the next verify. Exit codes: 0 good, or repaired; 8 bad; 3 no such file or object;
    the others as of get.
    """
    fill_standard_streams()
    configure_logging(verbose=verbose)
    from fastdl import prefork  # noqa: PLC0415 - --help and usage errors need not wait for urllib3
    from fastdl.job import concurrency  # noqa: PLC0415
    from fastdl.verification import verify as look  # noqa: PLC0415

    workers, _ = concurrency(settings["workers"], settings["connections"])
    with prefork.prepared(workers), stopped_by_signals():
        gc.enable()  # imports were better off without it
        result = look(path, url, sign=not no_sign_request, progress=not (as_json or quiet), **settings)
    if as_json:
        print_json({"event": "verified", **asdict(result), "path": str(result.path), "crc64": f"{result.crc64:016x}"})
    elif not quiet:
        click.echo(summary(result))
    return 0 if result.good else IntegrityError.exit_code


def summary(result: VerifyResult) -> str:
    """Return the line that people read."""
    if not result.good:
        text = f"{result.path}: bad"
        if result.parts_bad:
            text = f"{result.path}: {len(result.parts_bad)} of {result.parts} parts are bad: {named(result.parts_bad)}"
        if result.parts_repaired:
            text += f"; replaced: {named(result.parts_repaired)}"
        return text + (f"; {result.reason}" if result.reason else "")
    text = f"{result.path}: good, {result.parts} parts, crc64 {result.crc64:016x}, by {result.integrity}"
    if result.parts_repaired:
        text += f"; {len(result.parts_repaired)} were bad and are repaired: {named(result.parts_repaired)}"
    return text
