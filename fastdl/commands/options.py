"""The flags that several commands take: how to reach a server, how to speak to a store, what to print."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from fastdl.errors import UsageError
from fastdl.plan import parse_size
from fastdl.redact import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    Option: TypeAlias = Callable[[Any], Any]

_MOST_HEADERS = 64 * 1024  # bytes of one file; no server takes more


class Size(click.ParamType[int]):
    """Bytes, as in 8M."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read a number of bytes."""
        try:
            return value if isinstance(value, int) else parse_size(value)
        except UsageError as error:
            self.fail(str(error), param, ctx)


class FilePath(click.Path):
    """A path that names something: an empty one, of a variable that is not set, would mean the directory one is in."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read a path."""
        if value in ("", b""):
            self.fail("the path is empty", param, ctx)
        if os.fsdecode(value).endswith("/") and not os.path.isdir(value):  # noqa: PTH112 - whose like may raise
            self.fail(f"{printable(os.fsdecode(value))}: no such directory", param, ctx)
        return super().convert(value, param, ctx)


def several(*options: Option) -> Option:
    """Make one decorator of several options; ``--help`` lists them in this order."""

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def parse_headers(_ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """Read what came with ``-H``: headers, and files of headers, whose values nobody sees who lists processes.

    Raises:
        UsageError: one has no colon or no name, or a file cannot be read.
    """
    headers: dict[str, str] = {}
    for line in itertools.chain.from_iterable(map(_header_lines, given)):
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise UsageError("a header is written as in 'Name: value'")
        headers[name.strip()] = value.strip()
    return headers


def _header_lines(given: str) -> list[str]:
    """Return one header, or all of a file named as ``@FILE``, ``@-`` being standard input."""
    if not given.startswith("@"):
        return [given]
    try:
        with click.open_file(given[1:], encoding="latin-1") as file:  # what any bytes of a header are
            text = file.read(_MOST_HEADERS + 1)
    except OSError as error:
        raise UsageError(f"file of headers {printable(given[1:])}: {error.strerror}") from None
    if len(text) > _MOST_HEADERS:
        raise UsageError(f"file of headers {printable(given[1:])}: more than {_MOST_HEADERS} bytes")
    return [line for line in text.split("\n") if line.strip()]


request_options = several(
    click.option(
        *("-H", "--header", "headers"),
        multiple=True,
        metavar="NAME: VALUE|@FILE",
        callback=parse_headers,
        help="Header to send, or a file with one a line (@- is standard input); repeatable.",
    ),
)
fetch_options = several(
    click.option("-x", "--connections", type=int, help="Connections of all workers together, at most (128)."),
    click.option("-w", "--workers", type=int, help="Worker processes (one for each processor, at most 4)."),
    click.option(
        "-p", "--part-size", type=Size(), help="Unit of checkpoint, check and refetch: 1 to 5G, 8M is 8 MiB (chosen)."
    ),
    click.option(
        "--checksum",
        multiple=True,
        metavar="ALGO=HEX",
        help="Digest the object must have: sha256=…, crc64=…; repeatable.",
    ),
    click.option("--retry", type=int, default=8, show_default=True, help="Retries in a row of one part."),
    click.option("--limit-rate", type=Size(), help="Bytes per second of all connections together: 10M is 10 MiB/s."),
)
line_options = several(
    click.option("--connect-timeout", type=float, default=10.0, show_default=True, metavar="SECONDS"),
    click.option(
        "--read-timeout",
        type=float,
        default=30.0,
        show_default=True,
        metavar="SECONDS",
        help="Longest time a connection may go without progress.",
    ),
    click.option("--max-time", type=float, metavar="SECONDS", help="Longest time for everything."),
    click.option("--proxy", metavar="URL", help="HTTP proxy; '' for none (environment)."),
    click.option("--cacert", type=FilePath(), help="CA certificates to trust instead of the system's."),
    click.option("--insecure", is_flag=True, help="Do not verify TLS certificates."),
)
store_options = several(
    click.option(
        "--endpoint-url",
        metavar="URL",
        help="oss, s3: endpoint (OSS_ENDPOINT, AWS_ENDPOINT_URL_S3); oss: or internal, dual-stack, accelerate, "
        "accelerate-overseas.",
    ),
    click.option("--region", help="oss, s3: region, as in cn-hangzhou (OSS_REGION, AWS_REGION)."),
    click.option(
        "--addressing",
        type=click.Choice(["auto", "virtual", "path", "cname"]),
        default="auto",
        help="oss, s3: how the endpoint names the bucket; cname: oss.",
    ),
    click.option("--no-sign-request", is_flag=True, help="oss, s3, hf: send no credentials, for public objects."),
    click.option("--version-id", help="oss, s3: version of the object."),
    click.option(
        "--profile", help="oss: of ~/.ossutilconfig (OSSUTIL_PROFILE); s3: of AWS's shared files (AWS_PROFILE)."
    ),
    click.option("--request-payer", type=click.Choice(["requester"]), help="oss, s3: pay for the transfer."),
)
output_options = several(
    click.option("--json", "as_json", is_flag=True, help="One JSON object per line on standard output."),
    click.option("-q", "--quiet", is_flag=True, help="No bar, no summary and no advice."),
    click.option("-v", "--verbose", is_flag=True, help="Tell what is going on."),
)
