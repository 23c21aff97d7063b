"""``fastdl head URL``: what the store says of an object, and what a download of it would prove."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from fastdl.commands.options import line_options, request_options, store_options
from fastdl.redact import printable
from fastdl.terminal import configure_logging, fill_standard_streams, print_json, stopped_by_signals

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastdl.digest import Expected
    from fastdl.facts import ObjectFacts


@click.command()
@click.argument("url")
@request_options
@line_options
@store_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@click.option("-v", "--verbose", is_flag=True, help="Tell what is going on.")
def head(url: str, *, no_sign_request: bool, as_json: bool, verbose: bool, **settings: Any) -> None:
    """Show what the store says of the object at URL, without fetching it.

    It is asked with a download's first GET, of one byte, so a URL presigned for GET works too. Exit codes as of `get`.
    """
    fill_standard_streams()
    configure_logging(verbose=verbose)
    from fastdl.facts import head as ask  # noqa: PLC0415 - --help need not wait for urllib3

    with stopped_by_signals():
        facts = ask(url, sign=not no_sign_request, **settings)
    if as_json:
        print_json({"event": "done", **asdict(facts)})
    else:
        click.echo("\n".join(_lines(facts)))


def _lines(facts: ObjectFacts) -> Iterator[str]:
    yield facts.url
    rows = (
        ("size", "unknown" if facts.size is None else f"{facts.size:,} bytes"),
        ("ETag", facts.etag),
        ("Last-Modified", facts.last_modified),
        ("version", facts.version_id),
        ("storage class", facts.storage_class),
        ("content type", facts.content_type),
        ("ranges", "served" if facts.ranges else "not served: one stream, and nothing can be resumed"),
        *(("promised", _promise(each)) for each in facts.promises),
        ("proven by a download", facts.integrity),
    )
    for name, value in rows:
        if value:
            yield f"  {name:<20}  {printable(value)}"


def _promise(expected: Expected) -> str:
    parts = f" (of the digests of parts of {expected.part_size:,} bytes)" if expected.part_size else ""
    return f"{expected.algorithm} {expected.hex}{parts}"
