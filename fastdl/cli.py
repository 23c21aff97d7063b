"""The command: flags, bar, JSON lines, signals, exit codes; everything else is the library's."""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from fastdl import __version__
from fastdl.errors import FastdlError, UsageError
from fastdl.plan import parse_size
from fastdl.redact import printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from fastdl.progress import ProgressEvent
    from fastdl.result import DownloadResult

_PROOF = {
    "length": "length verified, the server promises no checksum",
    "none": "nothing to verify it by: the server promised not even a length",
}
_JSON_EVERY = 1.0  # seconds between progress lines
_STDERR = 2
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Stopped(BaseException):
    """A signal asked for the end; not an Exception, so that nothing on the way takes it for a failure."""

    def __init__(self, number: int) -> None:
        self.number = number


class _DefaultGet(click.Group):
    """A group whose first argument may be a URL or a flag of ``get``: ``fastdl URL`` is ``fastdl get URL``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the ``get`` in that the user left out."""
        if not args:
            args = ["--help"]
        if args[0] not in self.commands and args[0] not in ("-h", "--help", "--version"):
            args = ["get", *args]
        return super().parse_args(ctx, args)


class _Size(click.ParamType[int]):
    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return value if isinstance(value, int) else parse_size(value)
        except UsageError as error:
            self.fail(str(error), param, ctx)


@click.group(cls=_DefaultGet, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="fastdl")
def cli() -> None:
    """Move one very large object onto this machine: fast, resumable after any crash, never wrong.

    `fastdl URL` is short for `fastdl get URL`.
    """


@cli.command()
@click.argument("url")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to make; else the URL's last name.")
@click.option("-d", "--dir", "directory", type=click.Path(path_type=Path), help="Directory to make it in.")
@click.option("-x", "--connections", type=int, help="Connections of all workers together, at most (128).")
@click.option("-w", "--workers", type=int, help="Worker processes (one for each processor, at most 4).")
@click.option(
    "-p", "--part-size", type=_Size(), help="Unit of checkpoint, check and refetch: 1 to 5G, 8M is 8 MiB (chosen)."
)
@click.option("--checkpoint", "checkpoint_path", type=click.Path(path_type=Path), help="Checkpoint file (OUTPUT.cp).")
@click.option("--no-checkpoint", is_flag=True, help="Keep no checkpoint: a killed download starts over.")
@click.option(
    "--resume",
    type=click.Choice(["verify", "trust", "no"]),
    default="verify",
    show_default=True,
    help="Hash the parts of an earlier run before using them, trust them, or start over.",
)
@click.option("--checksum", metavar="ALGO=HEX", help="Digest the object must have: sha256=…, crc64=…, xxh3=….")
@click.option("-H", "--header", "headers", multiple=True, metavar="NAME: VALUE", help="Header to send; repeatable.")
@click.option("--retry", type=int, default=8, show_default=True, help="Retries in a row of one part.")
@click.option("--connect-timeout", type=float, default=10.0, show_default=True, metavar="SECONDS")
@click.option(
    "--read-timeout",
    type=float,
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="Longest time a connection may go without progress.",
)
@click.option("--max-time", type=float, metavar="SECONDS", help="Longest time for everything.")
@click.option("--limit-rate", type=_Size(), help="Bytes per second of all connections together: 10M is 10 MiB/s.")
@click.option("--proxy", metavar="URL", help="HTTP proxy; '' for none (environment).")
@click.option("--cacert", type=click.Path(path_type=Path), help="CA certificates to trust instead of the system's.")
@click.option("--insecure", is_flag=True, help="Do not verify TLS certificates.")
@click.option("-n", "--no-clobber", is_flag=True, help="Fail if the output exists, instead of replacing it.")
@click.option("--fsync", is_flag=True, help="Make the finished file survive power loss.")
@click.option("--endpoint-url", metavar="URL", help="oss: endpoint (OSS_ENDPOINT).")
@click.option("--region", help="oss: region, as in cn-hangzhou (OSS_REGION).")
@click.option(
    "--addressing",
    type=click.Choice(["auto", "virtual", "path", "cname"]),
    default="auto",
    help="oss: how the endpoint names the bucket.",
)
@click.option("--no-sign-request", is_flag=True, help="oss: send no credentials, for public objects.")
@click.option("--version-id", help="oss: version of the object.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line on standard output.")
@click.option("-q", "--quiet", is_flag=True, help="No bar and no summary at a terminal.")
@click.option("-v", "--verbose", is_flag=True, help="Tell what is going on.")
def get(
    url: str,
    output: Path | None,
    directory: Path | None,
    headers: tuple[str, ...],
    *,
    no_checkpoint: bool,
    no_clobber: bool,
    no_sign_request: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **settings: Any,
) -> None:
    """Download the object at URL: http://, https:// or oss://bucket/key.

    Interrupted in whatever way, the same command goes on from the parts that were finished. Exit codes: 0 done and
    verified as far as the result says, 1 unexpected, 2 usage, 3 not found, 4 access denied, 5 network, 6 protocol,
    7 object changed, 8 integrity, 9 disk, 10 busy, 129, 130 and 143 stopped by a signal.
    """
    _fill_standard_streams()
    _configure_logging(verbose=verbose)
    if output == Path("-"):
        raise UsageError("-o -: what has left through a pipe cannot be verified first; name a file")
    if directory is not None and not directory.is_dir():
        raise UsageError(f"{directory}: no such directory")
    from fastdl import prefork  # noqa: PLC0415 - --help and usage errors need not wait for urllib3
    from fastdl.api import download  # noqa: PLC0415
    from fastdl.job import concurrency  # noqa: PLC0415

    workers, _ = concurrency(settings["workers"], settings["connections"])
    with prefork.prepared(workers), _stopped_by_signals():
        gc.enable()  # imports were better off without it
        result = download(
            url,
            (directory or Path()) / (output or ""),
            headers=_parse_headers(headers),
            checkpoint=not no_checkpoint,
            overwrite=not no_clobber,
            sign=not no_sign_request,
            progress=_JsonProgress() if as_json else not quiet,
            **settings,
        )
    if as_json:
        _print_json({"event": "done", **_plain(result)})
    elif not quiet and sys.stderr is not None and sys.stderr.isatty():
        click.echo(_summary(result), err=True)


def main() -> NoReturn:
    """Run the command; every failure is one line and its exit code."""
    as_json = "--json" in sys.argv
    try:
        cli.main(prog_name="fastdl", standalone_mode=False)
        code = 0
    except _Stopped as stopped:
        name = signal.Signals(stopped.number).name
        code = _fail(as_json, name, 128 + stopped.number, f"stopped by {name}; run again to resume")
    except FastdlError as error:
        code = _fail(as_json, type(error).__name__, error.exit_code, str(error))
    except click.ClickException as error:
        text = error.format_message()
        if text.startswith("Got unexpected extra argument"):  # click would repeat it, and it may be half a secret
            text = "one URL at a time; quote whatever holds spaces or &"
        code = _fail(as_json, "UsageError", UsageError.exit_code, text)
    except click.exceptions.Exit as done:
        code = done.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = _fail(as_json, "SIGINT", 128 + signal.SIGINT, "stopped")
    except Exception as error:
        logging.getLogger("fastdl").debug("unexpected", exc_info=True)
        text = f"unexpected {type(error).__name__}: {error}; run with -v for the traceback, and please report it"
        code = _fail(as_json, type(error).__name__, FastdlError.exit_code, text)
    sys.exit(code)


def _fail(as_json: bool, kind: str, code: int, text: str) -> int:
    text = printable(text, 2000)
    if as_json:
        _print_json({"event": "error", "type": kind, "exit_code": code, "message": text})
    with suppress(OSError):  # whoever cannot be told gets the exit code
        click.echo(f"fastdl: {text}", err=True)
    return code


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Turn the first SIGINT, SIGTERM or SIGHUP into one clean stop; a second one ends at once."""

    def stop(number: int, _: FrameType | None) -> None:
        for each in _SIGNALS:
            signal.signal(each, lambda number, _: os._exit(128 + number))
        raise _Stopped(number)

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number in _SIGNALS:
        if before[number] is not signal.SIG_IGN:  # nohup
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _JsonProgress:
    """Prints a progress line a second."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, event: ProgressEvent) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _JSON_EVERY
            _print_json({"event": "progress", **asdict(event)})


def _parse_headers(lines: tuple[str, ...]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise UsageError("a header is written as in 'Name: value'")
        headers[name.strip()] = value.strip()
    return headers


def _fill_standard_streams() -> None:
    """Let nothing of ours get the number of a standard stream that the caller closed."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(number, True)  # noqa: FBT003 - as those of others are
    os.close(number)


def _configure_logging(*, verbose: bool) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("fastdl: %(message)s"))
    logger = logging.getLogger("fastdl")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if verbose else logging.WARNING)
    logging.captureWarnings(capture=True)  # urllib3 warns of each unverified request; --insecure asked for it
    logging.getLogger("py.warnings").addHandler(logging.NullHandler())


def _print_json(message: dict[str, Any]) -> None:
    try:
        click.echo(json.dumps(message))
    except OSError:  # whoever read the lines is gone, or their disk is full; that stops no download
        with suppress(OSError), Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _plain(result: DownloadResult) -> dict[str, Any]:
    return {**asdict(result), "path": str(result.path), "crc64": f"{result.crc64:016x}"}


def _summary(result: DownloadResult) -> str:
    speed = result.bytes_fetched / result.seconds / 1e6 if result.seconds else 0.0
    kept = f", {result.parts_reused} of {result.parts} parts reused" if result.parts_reused else ""
    repaired = f", {len(result.parts_damaged)} damaged ones fetched again" if result.parts_damaged else ""
    return (
        f"{result.path}: {result.size:,} bytes in {result.seconds:.1f} s, {speed:,.1f} MB/s{kept}{repaired}; "
        f"{_PROOF.get(result.integrity, f'{result.integrity} verified')}; CRC-64 is {result.crc64:016x}"
    )
