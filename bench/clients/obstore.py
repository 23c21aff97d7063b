"""obstore: by default one stream, written as it comes; with ``--concurrency`` ranges, each written in place."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import obstore
from obstore.store import S3Store

from bench.clients import arguments


def main() -> None:
    """Fetch one object."""
    options = arguments()
    trust: Any = {"root_certificate": Path(options.ca).read_text()} if options.ca else {"allow_http": True}
    store = S3Store(
        options.bucket,
        endpoint=options.endpoint,
        region="us-east-1",
        skip_signature=True,
        virtual_hosted_style_request=False,
        client_options=trust | {"timeout": "600s"},  # the default of 30 s is for a whole answer
    )
    if not options.concurrency:
        with open(options.output, "wb") as file:  # noqa: PTH123 - as obstore's guide writes it
            file.writelines(obstore.get(store, options.key).stream())
        return
    size = obstore.head(store, options.key)["size"]
    target = os.open(options.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.posix_fallocate(target, 0, size)

    def fetch(start: int) -> None:
        body = obstore.get_range(store, options.key, start=start, end=min(start + options.part, size))
        os.pwrite(target, body, start)

    with ThreadPoolExecutor(options.concurrency) as pool:
        list(pool.map(fetch, range(0, size, options.part)))


if __name__ == "__main__":
    main()
