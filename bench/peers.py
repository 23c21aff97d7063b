"""What fastdl is measured against: every tool with its defaults, and with its best documented flags.

A command is a template; ``bench.run`` fills in ``{url}``, ``{endpoint}``, ``{bucket}``, ``{key}``, ``{out}``,
``{folder}`` and ``{name}`` of the output, ``{ca}``, and where tools are: ``{python}``, ``{tools}``, ``{root}``. Results
record the templates: they are the exact commands but for temporary names.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench.measure import KEPT, ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

TOOLS = KEPT / "venv" / "bin"
CORES = frozenset({"plain", "tls"})  # scenarios where processors are the limit
LINE = frozenset({"capped", "busy", "stalls"})  # where a connection has a limit of its own
DEFAULTS = frozenset({"plain", "tls", "capped"})  # where tools are measured as they come out of the box

_NOBODY = {
    "AWS_ACCESS_KEY_ID": "nobody",
    "AWS_SECRET_ACCESS_KEY": "nothing",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/dev/null",
}
_GO_TRUST = {"SSL_CERT_FILE": "{ca}"}  # Go and OpenSSL alike
_S3 = ("--endpoint", "{endpoint}", "--bucket", "{bucket}", "--key", "{key}", "--output", "{out}")
_CA = ("--ca", "{ca}")
_ARIA2 = ("aria2c", "--quiet", "--allow-overwrite=true", "--dir={folder}", "--out={name}", "{url}")
_RCLONE_S3 = (
    *("{tools}/rclone", "--config=/dev/null", "copyto", ":s3:{bucket}/{key}", "{out}"),
    *("--s3-provider=Other", "--s3-endpoint={endpoint}", "--s3-force-path-style", "--multi-thread-cutoff=1M"),
)
_S5CMD = ("{tools}/s5cmd", "--endpoint-url", "{endpoint}", "--no-sign-request", "cp")
_S5CMD_OBJECT = ("s3://{bucket}/{key}", "{out}")


@dataclass(frozen=True, slots=True)
class Peer:
    """One tool with one set of flags."""

    name: str
    scenarios: frozenset[str]
    command: tuple[str, ...]
    version: tuple[str, ...]  # a command; the first line that it prints is recorded
    tls: tuple[str, ...] = ()  # appended over TLS
    environment: Mapping[str, str] = field(default_factory=dict)
    tls_environment: Mapping[str, str] = field(default_factory=dict)


def _client(module: str, package: str, name: str, scenarios: frozenset[str], *flags: str) -> Peer:
    """Describe a program of ``bench.clients``."""
    version = ("{tools}/python", "-c", f"from importlib.metadata import version; print(version({package!r}))")
    command = ("{tools}/python", "-m", f"bench.clients.{module}", *_S3, *flags)
    return Peer(name, scenarios, command, version, _CA, _NOBODY, _GO_TRUST)


def _aria2(name: str, scenarios: frozenset[str], *flags: str) -> Peer:
    return Peer(name, scenarios, (*_ARIA2, *flags), ("aria2c", "--version"), ("--ca-certificate={ca}",))


def _axel(name: str, scenarios: frozenset[str], *flags: str) -> Peer:
    command = ("axel", "--quiet", "--output={out}", *flags, "{url}")
    return Peer(name, scenarios, command, ("axel", "--version"), ("--insecure",))


def _wget2(name: str, scenarios: frozenset[str]) -> Peer:
    command = ("wget2", "--quiet", "--output-document={out}", "{url}")
    return Peer(name, scenarios, command, ("wget2", "--version"), ("--ca-certificate={ca}",))


def _rclone(name: str, scenarios: frozenset[str], *command: str) -> Peer:
    return Peer(name, scenarios, command, ("{tools}/rclone", "version"), (), _NOBODY, _GO_TRUST)


def _s5cmd(name: str, scenarios: frozenset[str], *flags: str) -> Peer:
    command = (*_S5CMD, *flags, *_S5CMD_OBJECT)
    return Peer(name, scenarios, command, ("{tools}/s5cmd", "version"), (), _NOBODY, {"AWS_CA_BUNDLE": "{ca}"})


def _curl(name: str, scenarios: frozenset[str]) -> Peer:
    command = ("curl", "--silent", "--show-error", "--fail", "--output", "{out}", "{url}")
    return Peer(name, scenarios, command, ("curl", "--version"), ("--cacert", "{ca}"))


PEERS = (
    _curl("curl", DEFAULTS),
    _curl("curl again", CORES),
    _wget2("wget2", DEFAULTS),  # not tuned: with --chunk-size and --max-threads its chunks come one after another
    _aria2("aria2c", DEFAULTS),
    _aria2("aria2c tuned", CORES, "-x4", "-s4", "--file-allocation=falloc"),
    _aria2("aria2c tuned", LINE, "-x16", "-s16", "-k1M", "--file-allocation=falloc"),
    _axel("axel", DEFAULTS),
    _axel("axel tuned", CORES, "-n2"),
    _axel("axel tuned", LINE, "-n64"),
    _rclone("rclone", DEFAULTS, "{tools}/rclone", "--config=/dev/null", "copyurl", "{url}", "{out}"),
    _rclone("rclone tuned", CORES, *_RCLONE_S3, "--multi-thread-streams=2", "--multi-thread-chunk-size=64M"),
    _rclone("rclone tuned", LINE, *_RCLONE_S3, "--multi-thread-streams=64", "--multi-thread-chunk-size=8M"),
    _s5cmd("s5cmd", DEFAULTS),
    _s5cmd("s5cmd tuned", CORES, "--concurrency", "2", "--part-size", "64"),
    _s5cmd("s5cmd tuned", LINE, "--concurrency", "64", "--part-size", "8"),
    _client("obstore", "obstore", "obstore", DEFAULTS),
    _client("obstore", "obstore", "obstore tuned", CORES, "--concurrency", "4", "--part", "16"),
    _client("obstore", "obstore", "obstore tuned", LINE, "--concurrency", "64", "--part", "8"),
    _client("awscrt", "awscrt", "awscrt", DEFAULTS),
    _client("awscrt", "awscrt", "awscrt tuned", CORES, "--concurrency", "5", "--part", "16"),
    _client("awscrt", "awscrt", "awscrt tuned", LINE, "--concurrency", "50", "--part", "8"),
    _client("hf_transfer", "hf_transfer", "hf_transfer", DEFAULTS),
    _client("hf_transfer", "hf_transfer", "hf_transfer tuned", CORES, "--concurrency", "4", "--part", "64"),
    _client("hf_transfer", "hf_transfer", "hf_transfer tuned", LINE, "--concurrency", "64", "--part", "8"),
    _client("boto3", "boto3", "boto3", DEFAULTS),
    _client("boto3", "boto3", "boto3 tuned", CORES, "--concurrency", "4", "--part", "64"),
    _client("boto3", "boto3", "boto3 tuned", LINE, "--concurrency", "64", "--part", "8"),
    _client("oss", "alibabacloud-oss-v2", "oss-v2", DEFAULTS),
    _client("oss", "alibabacloud-oss-v2", "oss-v2 tuned", LINE, "--concurrency", "64", "--part", "8"),
)


def filled(command: tuple[str, ...], values: Mapping[str, str]) -> list[str]:
    """Put values into a template."""
    places = {"tools": str(TOOLS), "root": str(ROOT), **values}
    return [word.format(**places) for word in command]


def version_of(command: tuple[str, ...], values: Mapping[str, str]) -> str:
    """Return the first line that a version command prints; how it fails if it does."""
    try:
        done = subprocess.run(filled(command, values), capture_output=True, text=True, check=True, cwd=ROOT)
    except (OSError, subprocess.CalledProcessError) as error:
        return f"unknown: {error}"
    return (done.stdout.strip().splitlines() or [""])[0]
