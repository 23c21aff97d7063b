"""hf_transfer, by default with the numbers that huggingface_hub passes to it: 100 files of 10 MiB."""

from __future__ import annotations

import hf_transfer

from bench.clients import arguments


def main() -> None:
    """Fetch one object."""
    options = arguments()
    hf_transfer.download(
        url=f"{options.endpoint}/{options.bucket}/{options.key}",
        filename=options.output,
        max_files=options.concurrency or 100,
        chunk_size=options.part or 10 * 1024 * 1024,
        parallel_failures=3,
        max_retries=5,
    )


if __name__ == "__main__":
    main()
