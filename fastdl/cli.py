"""The command: its subcommands, and how every failure ends; everything else is the library's."""

from __future__ import annotations

import importlib
import logging
import signal
import sys
from typing import NoReturn

import click

from fastdl import __version__
from fastdl.errors import DiskError, FastdlError, UsageError
from fastdl.redact import printable
from fastdl.terminal import LAST_WORDS, Stopped, print_json, write_line

_COMMANDS = ("get", "cat", "head", "verify", "cache")  # each the function of its name in the module of its name


class _DefaultGet(click.Group):
    """A group whose first argument may be a URL or a flag of ``get``: ``fastdl URL`` is ``fastdl get URL``.

    A command is imported when it is asked for: a small download would pay for the others.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        """Name the commands."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's
        """Import a command."""
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"fastdl.commands.{cmd_name}"), cmd_name)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the ``get`` in that the user left out."""
        if not args:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(UsageError.exit_code)
        if args[0] not in (*_COMMANDS, "-h", "--help", "--version"):
            args = ["get", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_DefaultGet, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="fastdl")
def cli() -> None:
    """Move one very large object onto this machine: fast, resumable after any crash, never wrong.

    `fastdl URL` is short for `fastdl get URL`.
    """


def main() -> NoReturn:
    """Run the command; every failure is one line and its exit code."""
    as_json = "--json" in sys.argv
    try:
        code = cli.main(prog_name="fastdl", standalone_mode=False) or 0  # what the command returned
    except Stopped as stopped:
        name = signal.Signals(stopped.number).name
        what_next = "" if sys.argv[1] in _COMMANDS[1:] else "; run again to resume"
        code = _fail(as_json, name, 128 + stopped.number, f"stopped by {name}{what_next}")
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
        if isinstance(error, OSError) and _printing(error):
            code = _fail(as_json, "DiskError", DiskError.exit_code, f"standard output: {error.strerror}")
        else:
            logging.getLogger("fastdl").debug("unexpected", exc_info=True)
            text = f"unexpected {type(error).__name__}: {error}; run with -v for the traceback, and please report it"
            code = _fail(as_json, type(error).__name__, FastdlError.exit_code, text)
    sys.exit(code)


def _printing(error: OSError) -> bool:
    """Tell whether it was printing what failed, by who raised it."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    return last is not None and str(last.tb_frame.f_globals.get("__name__")).startswith("click.")


def _fail(as_json: bool, kind: str, code: int, text: str) -> int:
    text = printable(text, 2000)
    if as_json:
        print_json({"event": "error", "type": kind, "exit_code": code, "message": text}, patience=LAST_WORDS)
    write_line(f"fastdl: {text}", error=True)  # whoever cannot be told gets the exit code
    return code
