"""``fastdl cache``: copies of objects that several processes share; ``get`` prints the path of one."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING, Any

import click

from fastdl.commands.options import FilePath, Size, fetch_options, line_options, request_options, several, store_options
from fastdl.errors import NotFound, UsageError
from fastdl.redact import printable
from fastdl.terminal import configure_logging, fill_standard_streams, print_json, stopped_by_signals

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fastdl.tending import Item

_directory = click.option(
    "--cache-dir", type=FilePath(), help="The cache ($FASTDL_CACHE, $XDG_CACHE_HOME/fastdl, ~/.cache/fastdl)."
)
_bound = click.option("--max-bytes", type=Size(), help="What the cache may take, as 500G ($FASTDL_CACHE_MAX).")
_json = click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")


@click.group(no_args_is_help=False)
def cache() -> None:
    """Copies of objects that processes of this machine share: fetched once, whoever asks for them at once.

    `fastdl.cached(url)` and `fastdl cache get URL` return a copy's path.
    """
    fill_standard_streams()


@cache.command()
@click.argument("url")
@several(_directory, _bound)
@click.option("--max-age", type=float, default=0.0, metavar="SECONDS", help="Believe a copy so long without asking.")
@click.option("--offline", is_flag=True, help="Never ask the store: a copy that is there, or exit code 3.")
@fetch_options
@request_options
@line_options
@store_options
@_json
@click.option("-v", "--verbose", is_flag=True, help="Tell what is going on.")
def get(url: str, *, no_sign_request: bool, as_json: bool, verbose: bool, **settings: Any) -> None:
    """Print the path of a complete copy of the object at URL, fetched if the present version is not there.

    The store is asked each time, by a GET of one byte, unless --max-age or --offline spare it. Exit codes as of `get`.
    """
    configure_logging(verbose=verbose)
    from fastdl import prefork  # noqa: PLC0415 - --help need not wait for urllib3
    from fastdl.cache import cached  # noqa: PLC0415
    from fastdl.job import concurrency  # noqa: PLC0415

    workers, _ = concurrency(settings["workers"], settings["connections"])
    with prefork.prepared(workers), stopped_by_signals():
        gc.enable()  # imports were better off without it
        path = cached(url, sign=not no_sign_request, **settings)
    if as_json:
        print_json({"event": "done", "path": str(path)})
    else:
        click.echo(path)


@cache.command()
@several(_directory, _json)
def ls(cache_dir: Path | None, *, as_json: bool) -> None:
    """List the copies, the longest unused first, and what was not finished."""
    configure_logging(verbose=False)
    from fastdl.tending import directory, items  # noqa: PLC0415 - --help need not wait

    _tell(items(directory(cache_dir)), as_json=as_json)


@cache.command()
@click.argument("url", required=False)
@click.option("--all", "everything", is_flag=True, help="Remove everything.")
@several(_directory, _json)
def rm(url: str | None, cache_dir: Path | None, *, everything: bool, as_json: bool) -> None:
    """Remove the copies of URL, of whatever endpoint, and what was not finished of it."""
    configure_logging(verbose=False)
    from fastdl.tending import directory, remove_all  # noqa: PLC0415 - --help need not wait

    if everything == (url is not None):
        raise UsageError("give either a URL or --all")
    root = directory(cache_dir)
    with stopped_by_signals():
        gone = remove_all(root, url)
    if not gone and not everything:
        raise NotFound(f"nothing of that URL is in {printable(str(root))}")
    _tell(gone, as_json=as_json)


@cache.command()
@several(_directory, _bound)
@click.option(
    "--days", type=click.FloatRange(0), default=7.0, show_default=True, help="Rest of what is unfinished until it goes."
)
@_json
def prune(cache_dir: Path | None, max_bytes: int | None, days: float, *, as_json: bool) -> None:
    """Remove what was not finished and has rested for --days, then what was longest unused beyond --max-bytes."""
    configure_logging(verbose=False)
    from fastdl import tending  # noqa: PLC0415 - --help need not wait

    root, most = tending.directory(cache_dir), tending.bound(max_bytes)
    with stopped_by_signals():
        gone = tending.prune(root, most, days)
    _tell(gone, as_json=as_json)


def _tell(items: Sequence[Item], *, as_json: bool) -> None:
    """Print what is there, or was until it was removed."""
    rows = [
        {
            "url": item.url,
            "path": str(item.path),
            "complete": item.complete,
            "bytes": item.size,
            "used": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(item.used // 10**9)),
        }
        for item in items
    ]
    if as_json:
        print_json({"event": "done", "bytes": sum(item.size for item in items), "items": rows})
        return
    for row in rows:
        state = "complete" if row["complete"] else "unfinished"
        path = printable(str(row["path"]), 2000)
        click.echo(f"{row['bytes']:>16,}  {row['used']}  {state:<10}  {row['url']}  {path}")
