"""Library peers as small programs: one object, its bytes to one file. They run in the peers' environment, not fastdl's.

``python -m bench.clients.NAME --endpoint http://127.0.0.1:PORT --bucket B --key K --output FILE [--ca PEM]``; without
``--concurrency`` and ``--part`` each uses the library's defaults.
"""

from __future__ import annotations

import argparse


def arguments() -> argparse.Namespace:
    """Read what all clients have in common; ``part`` is in bytes."""
    parser = argparse.ArgumentParser()
    for name in ("--endpoint", "--bucket", "--key", "--output"):
        parser.add_argument(name, required=True)
    parser.add_argument("--ca", help="PEM file to trust")
    parser.add_argument("--concurrency", type=int, help="requests at once, or what the library has instead")
    parser.add_argument("--part", type=lambda text: int(text) << 20, metavar="MIB", help="size of one request")
    return parser.parse_args()
