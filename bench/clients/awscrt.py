"""awscrt's S3Client writing the file itself; ``--concurrency`` is its target in gigabits per second.

Source: awscrt's documentation of ``S3Client``, ``throughput_target_gbps`` and ``part_size``.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from awscrt.http import HttpHeaders, HttpRequest
from awscrt.io import ClientTlsContext, TlsContextOptions
from awscrt.s3 import S3Client, S3RequestTlsMode, S3RequestType

from bench.clients import arguments


def main() -> None:
    """Fetch one object."""
    options = arguments()
    tls = None
    if options.ca:
        trust = TlsContextOptions()
        trust.override_default_trust_store_from_path(None, options.ca)
        tls = ClientTlsContext(trust).new_connection_options()
    client = S3Client(
        region="us-east-1",
        tls_mode=S3RequestTlsMode.ENABLED if tls else S3RequestTlsMode.DISABLED,
        tls_connection_options=tls,
        part_size=options.part,
        throughput_target_gbps=options.concurrency,
    )
    headers = HttpHeaders([("Host", urlsplit(options.endpoint).netloc)])
    request = HttpRequest("GET", f"/{options.bucket}/{options.key}", headers)
    client.make_request(
        type=S3RequestType.GET_OBJECT, request=request, recv_filepath=options.output
    ).finished_future.result()


if __name__ == "__main__":
    main()
