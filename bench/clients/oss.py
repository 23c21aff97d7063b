"""alibabacloud-oss-v2's Downloader, anonymous, path style."""

from __future__ import annotations

import alibabacloud_oss_v2 as oss

from bench.clients import arguments


def main() -> None:
    """Fetch one object."""
    options = arguments()
    client = oss.Client(
        oss.Config(
            region="cn-hangzhou",
            endpoint=options.endpoint,
            credentials_provider=oss.credentials.AnonymousCredentialsProvider(),
            use_path_style=True,
            insecure_skip_verify=bool(options.ca),  # the SDK takes no certificate of an authority
        )
    )
    settings = {"part_size": options.part, "parallel_num": options.concurrency} if options.concurrency else {}
    downloader = client.downloader(**settings)
    downloader.download_file(oss.GetObjectRequest(options.bucket, options.key), options.output)


if __name__ == "__main__":
    main()
