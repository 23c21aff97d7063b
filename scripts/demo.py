"""The demo behind ``./scripts/demo``: download 1 GiB, kill the whole process tree half-way, resume, verify."""

from __future__ import annotations

import filecmp
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from fastcrc import crc64

ROOT = Path(__file__).resolve().parent.parent
SIZE = 1024 * 1024 * 1024
BLOCK = 8 * 1024 * 1024
RATE = 128 * 1024 * 1024  # bytes per second of the run that is killed: eight seconds for all, a progress line a second
HALF = 0.5


def main() -> int:
    """Run the demo; 0 if every byte came through."""
    with tempfile.TemporaryDirectory(prefix="fastdl-demo-") as name:
        folder = Path(name)
        (folder / "store").mkdir()
        original = folder / "store" / "object"
        say("object", f"{SIZE // 2**20} MiB of random bytes, served by a local object server")
        promised = generate(original)
        with serve(original.parent) as server:
            url = server.stdout.readline().decode().strip() + original.name  # type: ignore[union-attr]
            output = folder / "object"
            killed = run_until(HALF, url, output)
            say(
                "run 1",
                f"SIGKILL to the command and its workers at {killed:.0%}; {output.name} exists: {output.exists()}",
            )
            result = run(url, output)
            server.stdin.close()  # type: ignore[union-attr]  # its signal to stop
    reused, parts = result["parts_reused"], result["parts"]
    say("run 2", f"{reused} of {parts} parts reused after hashing them on the disk, {parts - reused} fetched")
    matches = result["crc64"] == f"{promised:016x}" and result["integrity"] == "crc64"
    say("verified", f"CRC-64 {result['crc64']} {'matches' if matches else 'DIFFERS FROM'} the server's; "
        f"bytes {'equal' if result['equal'] else 'DIFFER FROM'} the original's")  # fmt: skip
    return 0 if matches and result["equal"] and 0 < reused < parts else 1


def say(what: str, text: str) -> None:
    """Print one line of the story."""
    print(f"{what:<9} {text}", flush=True)


def generate(path: Path) -> int:
    """Write the object and the CRC-64 the server is to promise for it; return that."""
    crc = 0
    with path.open("wb") as file:
        for _ in range(SIZE // BLOCK):
            block = os.urandom(BLOCK)
            crc = crc64.xz(block, crc)
            file.write(block)
    path.with_name(path.name + ".crc64").write_text(str(crc))
    return crc


def serve(folder: Path) -> subprocess.Popen[bytes]:
    """Start the object server; it prints its URL and ends with its standard input."""
    command = [sys.executable, "-m", "tests.servers.objects", str(folder), "--port", "0"]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def command(url: str, output: Path) -> list[str]:
    """Return the command a user would type, with JSON lines."""
    return [sys.executable, "-m", "fastdl", url, "-o", str(output), "--json"]


def run_until(share: float, url: str, output: Path) -> float:
    """Start a download and SIGKILL its whole process group once ``share`` of it is done; return how much was."""
    limited = [*command(url, output), "--limit-rate", str(RATE)]
    with subprocess.Popen(limited, stdout=subprocess.PIPE, start_new_session=True) as process:
        for line in process.stdout:  # type: ignore[union-attr]
            event = json.loads(line)
            if event["event"] == "progress" and event["done"] >= share * SIZE:
                os.killpg(process.pid, signal.SIGKILL)
                return float(event["done"] / SIZE)
    raise SystemExit("the download ended before it could be killed")


def run(url: str, output: Path) -> dict[str, Any]:
    """Run the same command to its end; return its result and whether the bytes are the original's."""
    done = subprocess.run(command(url, output), stdout=subprocess.PIPE, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    result["equal"] = filecmp.cmp(output, output.parent / "store" / "object", shallow=False)
    return result


if __name__ == "__main__":
    sys.exit(main())
