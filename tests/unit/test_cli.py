"""The command: every failure is one line and its exit code."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import fastdl
from fastdl.cli import main
from tests.servers.scripted import ranged, serving, status

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = bytes(range(256)) * 40
URL = "http://host/object"


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Undo what the command does to its own process's logging."""
    loggers = [logging.getLogger(name) for name in ("fastdl", "py.warnings")]
    before = [(logger.handlers[:], logger.level) for logger in loggers]
    yield
    for logger, (handlers, level) in zip(loggers, before, strict=True):
        logger.handlers[:] = handlers
        logger.setLevel(level)
    logging.captureWarnings(capture=False)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty directory and without the machine's proxies."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith("OSS_"):
            monkeypatch.delenv(name)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["fastdl", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    code = ended.value.code
    assert isinstance(code, int)
    return code


@pytest.mark.parametrize(
    "arguments",
    [
        ["get"],
        ["-o", "x"],
        [URL, "extra"],
        [URL, "--nonsense"],
        [URL, "-k", "1"],
        [URL, "-p", "0"],
        [URL, "-p", "1.5M"],
        [URL, "-p", "6G"],
        [URL, "-p", "-1"],
        [URL, "-x", "0"],
        [URL, "-x", "many"],
        [URL, "-w", "65"],
        [URL, "-w", "4", "-x", "2"],
        [URL, "--retry", "-1"],
        [URL, "--read-timeout", "0"],
        [URL, "--max-time", "nan"],
        [URL, "--resume", "maybe"],
        [URL, "--checksum", "sha256=abc"],
        [URL, "--checksum", "nonsense=00"],
        [URL, "--proxy", "ftp://proxy"],
        [URL, "-H", "no colon"],
        [URL, "-H", ": no name"],
        [URL, "-H", "Range: bytes=0-1"],
        [URL, "-H", "a b: c"],
        [URL, "-H", "X: a\r\nY: b"],
        [URL, "-o", "out", "--checkpoint", "out"],
        *([URL, flag, ""] for flag in ("-o", "-d", "--checkpoint", "--cacert")),
        ["verify", ""],
        ["http://host/"],
        ["host/object"],
        ["file:///etc/passwd"],
        ["http://host:x/object"],
        ["http://ho\nst/object"],
        ["oss://bucket"],
    ],
)
def test_a_usage_error_is_one_line(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Exit code 2, nothing on standard output, no traceback, and no file was made."""
    assert run(monkeypatch, *arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"fastdl: [^\n]+\n", err)
    assert list(tmp_path.iterdir()) == []


def test_without_arguments_help_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As people read it, with its line breaks, and not as an error's text; yet nothing was done, so it is one."""
    assert run(monkeypatch) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "%0A" not in err
    assert err.startswith("Usage: fastdl")


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["get", "--help"], ["get", "-h"]])
def test_help_is_help(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On standard output, exit code 0."""
    assert run(monkeypatch, *arguments) == 0
    out, err = capsys.readouterr()
    assert out.startswith("Usage: fastdl")
    assert err == ""


def test_the_version_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The package's own."""
    assert run(monkeypatch, "--version") == 0
    assert fastdl.__version__ in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["http://user:s3cr3t@host:x/object"],
        ["user:s3cr3t@host/object"],
        ["ftp://user:s3cr3t@host/object"],
        ["http://host/?token=s3cr3t"],
        [URL, "--proxy", "socks5://user:s3cr3t@proxy"],
        [URL, "-H", "Authorization Bearer s3cr3t"],
        [URL, "-H", "Authorization: Bearer s3cr3t\x01"],
        [URL, "-H", "Authorization Bearer: s3cr3t"],
    ],
)
def test_a_usage_error_shows_no_secret(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was mistyped may be a password."""
    assert run(monkeypatch, *arguments) == 2
    assert "s3cr3t" not in "".join(capsys.readouterr())


@pytest.mark.parametrize("arguments", [[], ["get"]])
def test_a_url_alone_is_a_download(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """`get` may be left out; without a terminal nothing is printed, and nothing but the file is left."""
    with serving(ranged(DATA)) as server:
        assert run(monkeypatch, *arguments, server.url()) == 0
    assert "".join(capsys.readouterr()) == ""
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"object": DATA}


def test_flags_may_come_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`fastdl -o FILE URL` is `fastdl get -o FILE URL`."""
    with serving(ranged(DATA)) as server:
        assert run(monkeypatch, "-q", "-o", "other", server.url()) == 0
    assert (tmp_path / "other").read_bytes() == DATA


def test_headers_are_sent_as_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blanks around are dropped, colons inside stay, empty values too."""
    with serving(ranged(DATA)) as server:
        assert run(monkeypatch, server.url(), "-H", "X-One:  a:b ", "-H", "X-Two:", "-H", "Cookie: c=d") == 0
        headers = server.log[0].headers
    assert (headers["x-one"], headers["x-two"], headers["cookie"]) == ("a:b", "", "c=d")


def test_headers_come_from_files_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A secret on the command line is there for everybody to see; blank lines and line ends of either kind are none."""
    (tmp_path / "secret").write_bytes("X-One: a:b\r\n\nX-Two: caf\xe9\x85!\n".encode("latin-1"))
    with serving(ranged(DATA)) as server:
        assert run(monkeypatch, server.url(), "-H", "@secret", "-H", "X-Three: c") == 0
        headers = server.log[0].headers
    assert (headers["x-one"], headers["x-two"], headers["x-three"]) == ("a:b", "caf\xe9\x85!", "c")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "file of headers secret: No such file or directory"),
        (b"canary\n", "a header is written as in 'Name: value'"),
        (b"X: " + bytes(65536), "file of headers secret: more than 65536 bytes"),
    ],
)
def test_a_file_of_no_headers(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    content: bytes | None,
    text: str,
) -> None:
    """One line, which repeats nothing of what is in it."""
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    assert run(monkeypatch, URL, "-H", "@secret") == 2
    assert capsys.readouterr().err == f"fastdl: {text}\n"


def test_a_directory_takes_the_urls_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With -d the file is made in it."""
    (tmp_path / "d").mkdir()
    with serving(ranged(DATA)) as server:
        assert run(monkeypatch, server.url(), "-d", "d") == 0
    assert (tmp_path / "d" / "object").read_bytes() == DATA


def test_a_missing_directory_is_never_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What was called a directory does not become a file of that name."""
    with serving(ranged(DATA)) as server:
        run(monkeypatch, server.url(), "-d", "missing")
    assert not (tmp_path / "missing").is_file()


def test_an_existing_output_is_kept_if_told_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """With -n nothing is asked of the network."""
    (tmp_path / "object").write_bytes(b"old")
    with serving(ranged(DATA)) as server:
        assert run(monkeypatch, server.url(), "-n") == 2
        assert server.log == ()
    assert "exists; not replaced" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["object"]


@pytest.mark.parametrize(("answer", "code"), [(404, 3), (403, 4), (400, 6)])
def test_a_refusal_ends_with_its_exit_code(
    answer: int, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """One line that names the URL without its secrets; nothing is left behind."""
    with serving(status(answer)) as server:
        assert run(monkeypatch, server.url("/object?token=s3cr3t")) == code
    out, err = capsys.readouterr()
    assert re.fullmatch(rf"fastdl: http://127\.0\.0\.1:\d+/object\?token=\*\*\*: status {answer}[^\n]*\n", err)
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_json_is_one_object_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Progress and result, for programs."""
    with serving(ranged(DATA)) as server:
        assert run(monkeypatch, server.url(), "--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["event"] for line in lines} <= {"progress", "done"}
    last = lines[-1]
    assert (last["event"], last["path"], last["size"]) == ("done", str(tmp_path / "object"), len(DATA))
    assert re.fullmatch(r"[0-9a-f]{16}", last["crc64"])


@pytest.mark.parametrize(("arguments", "code", "kind"), [(["x"], 2, "UsageError"), ([URL, "-p", "z"], 2, "UsageError")])
def test_json_tells_errors_too(
    arguments: list[str],
    code: int,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On standard output as an object, on standard error as a line."""
    assert run(monkeypatch, *arguments, "--json") == code
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert (told["event"], told["type"], told["exit_code"]) == ("error", kind, code)
    assert err == f"fastdl: {told['message']}\n"


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), (["nonsense"], 2), ([URL, "--nonsense"], 2)])
def test_as_a_program_it_ends_without_traceback(arguments: list[str], code: int, tmp_path: Path) -> None:
    """`python -m fastdl`, in a process of its own."""
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "fastdl", *arguments],
        capture_output=True,
        check=False,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == bool(code)
