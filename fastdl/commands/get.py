"""``fastdl get URL``: the download, as a bar, JSON lines or one line of summary."""

from __future__ import annotations

import gc
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastdl.commands.options import (
    FilePath,
    fetch_options,
    line_options,
    output_options,
    request_options,
    store_options,
)
from fastdl.errors import UsageError
from fastdl.redact import printable
from fastdl.terminal import configure_logging, fill_standard_streams, print_json, stopped_by_signals

if TYPE_CHECKING:
    from fastdl.progress import ProgressEvent
    from fastdl.result import DownloadResult

_JSON_EVERY = 1.0  # seconds between progress lines


@click.command()
@click.argument("url")
@click.option("-o", "--output", type=FilePath(), help="File to make; else the URL's last name.")
@click.option("-d", "--dir", "directory", type=FilePath(), help="Directory to make it in.")
@fetch_options
@click.option("--checkpoint", "checkpoint_path", type=FilePath(), help="Checkpoint file (OUTPUT.cp).")
@click.option("--no-checkpoint", is_flag=True, help="Keep no checkpoint: a killed download starts over.")
@click.option(
    "--resume",
    type=click.Choice(["verify", "trust", "no"]),
    default="verify",
    show_default=True,
    help="Hash the parts of an earlier run before using them, trust them, or start over.",
)
@click.option(
    "--checksum-file", metavar="FILE|URL", help="SHA256SUMS or the like, with a digest of the object by name."
)
@request_options
@line_options
@click.option("-n", "--no-clobber", is_flag=True, help="Fail if the output exists, instead of replacing it.")
@click.option("--fsync", is_flag=True, help="Make the finished file survive power loss.")
@click.option("--keep-records", is_flag=True, help="Leave the checkpoint, complete, beside the output.")
@store_options
@click.option("--traffic-limit", type=int, metavar="BITS", help="oss: bits per second that the store may send in all.")
@click.option("--restore", is_flag=True, help="oss: have an archived object restored.")
@click.option("--wait", is_flag=True, help="oss: wait until it is.")
@click.option("--restore-days", type=int, default=1, show_default=True, help="oss: days it stays restored.")
@output_options
def get(
    url: str,
    output: Path | None,
    directory: Path | None,
    *,
    no_checkpoint: bool,
    no_clobber: bool,
    no_sign_request: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **settings: Any,
) -> None:
    """Download the object at URL: http://, https://, oss://bucket/key, s3://bucket/key or hf://org/model/path.

    Interrupted in whatever way, the same command goes on from the parts that were finished. Exit codes: 0 done and
    verified as far as the result says, 1 unexpected, 2 usage, 3 not found, 4 access denied, 5 network, 6 protocol,
    7 object changed, 8 integrity, 9 disk, 10 busy, 129, 130 and 143 stopped by a signal.
    """
    fill_standard_streams()
    configure_logging(verbose=verbose, quiet=quiet)
    if output == Path("-"):
        raise UsageError("-o -: what has left through a pipe cannot be verified first; name a file")
    if directory is not None and not os.path.isdir(directory):  # noqa: PTH112 - whose like raises for some names
        raise UsageError(f"{printable(str(directory))}: no such directory")
    from fastdl import prefork  # noqa: PLC0415 - --help and usage errors need not wait for urllib3
    from fastdl.api import download  # noqa: PLC0415
    from fastdl.job import concurrency  # noqa: PLC0415

    workers, _ = concurrency(settings["workers"], settings["connections"], settings["traffic_limit"])
    with prefork.prepared(workers), stopped_by_signals():
        gc.enable()  # imports were better off without it
        result = download(
            url,
            (directory or Path()) / (output or ""),
            checkpoint=not no_checkpoint,
            overwrite=not no_clobber,
            sign=not no_sign_request,
            progress=_JsonProgress() if as_json else not quiet,
            **settings,
        )
    if as_json:
        print_json({"event": "done", **_plain(result)})
    elif not quiet and sys.stderr is not None and sys.stderr.isatty():
        click.echo(_summary(result), err=True)


class _JsonProgress:
    """Prints a progress line a second."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, event: ProgressEvent) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _JSON_EVERY
            print_json({"event": "progress", **asdict(event)}, patience=0.0)  # who reads slowly misses some


def _plain(result: DownloadResult) -> dict[str, Any]:
    return {**asdict(result), "path": str(result.path), "crc64": f"{result.crc64:016x}"}


def _summary(result: DownloadResult) -> str:
    speed = result.bytes_fetched / result.seconds / 1e6 if result.seconds else 0.0
    reused = f", {result.reused}" if result.parts_reused or result.parts_damaged or result.parts_repaired else ""
    return f"{result.path}: {result.size:,} bytes in {result.seconds:.1f} s, {speed:,.1f} MB/s{reused}; {result.proof}"
