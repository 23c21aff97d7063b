"""boto3's ``download_file``, which is s3transfer. Source: boto3's guide, "File transfer configuration"."""

from __future__ import annotations

import boto3
from boto3.s3.transfer import TransferConfig
from botocore import UNSIGNED
from botocore.config import Config

from bench.clients import arguments


def main() -> None:
    """Fetch one object."""
    options = arguments()
    client = boto3.client(
        "s3",
        endpoint_url=options.endpoint,
        region_name="us-east-1",
        verify=options.ca,
        config=Config(
            signature_version=UNSIGNED,
            s3={"addressing_style": "path"},
            max_pool_connections=max(10, options.concurrency or 0),
        ),
    )
    transfer = TransferConfig()
    if options.concurrency:
        transfer = TransferConfig(max_concurrency=options.concurrency, multipart_chunksize=options.part)
    client.download_file(options.bucket, options.key, options.output, Config=transfer)


if __name__ == "__main__":
    main()
