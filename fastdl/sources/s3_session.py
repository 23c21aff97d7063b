"""What botocore knows and we ask it for: where a bucket is, and who may read it. It sends none of our requests.

Endpoints, regions and addressing come from its own rules, and so from its variables and files; credentials from its
chain: environment, shared files, SSO, processes, web identity, container and instance metadata.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fastdl.errors import AccessDenied, UsageError
from fastdl.redact import keep_secrets, printable
from fastdl.urls import split_url

try:
    import botocore
    from botocore.auth import SIGV4_TIMESTAMP, S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError
    from botocore.session import Session
except ImportError:
    raise UsageError("s3:// URLs need botocore: pip install botocore") from None

if TYPE_CHECKING:
    from collections.abc import Mapping

ADDRESSING = ("auto", "virtual", "path")
_OK = 200


@dataclass(frozen=True, slots=True)
class Place:
    """An object's URL without a query, and the region that its requests are signed for."""

    url: str
    region: str


class S3Session:
    """One user's view of S3: profile, endpoint, region and addressing as given, the rest as botocore finds it."""

    def __init__(
        self, *, profile: str | None, endpoint_url: str | None, region: str | None, addressing: str, sign: bool
    ) -> None:
        if addressing not in ADDRESSING:
            raise UsageError(f"addressing {printable(addressing, 20)!r} is none of {', '.join(ADDRESSING)} for s3://")
        self._profile = profile or None
        self._endpoint_url = _checked(endpoint_url)
        self._region = region or os.environ.get("AWS_REGION") or None
        self._addressing = addressing
        self.sign = sign
        self._session = Session(profile=self._profile)  # reads no file yet

    def place(self, bucket: str, key: str, region: str | None = None) -> Place:
        """Return where an object is; ``region`` is one that the store named.

        Raises:
            UsageError: profile, endpoint, region or bucket cannot be meant.
        """
        try:
            return self._place(bucket, key, region or self._region)
        except (BotoCoreError, ValueError) as error:
            raise UsageError(f"s3://{bucket}: {printable(str(error))}") from None

    def credentials(self) -> Any:
        """Return botocore's credentials, which refresh themselves; called again they are looked for anew.

        Raises:
            AccessDenied: there are none, or they could not be had.
        """
        try:
            found = Session(profile=self._profile).get_credentials()
        except (BotoCoreError, ValueError, OSError) as error:
            # What a credential process or a metadata service said may hold a secret.
            raise AccessDenied(f"no AWS credentials: {type(error).__name__}") from None
        if found is None:
            raise AccessDenied(
                "no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a profile with --profile, "
                "or use --no-sign-request for a public object"
            )
        return found

    def _place(self, bucket: str, key: str, region: str | None) -> Place:
        client = self._client(region, None if self._addressing == "auto" else self._addressing)
        style = (client.meta.config.s3 or {}).get("addressing_style")
        if self._addressing == "auto" and style in (None, "auto"):
            # Few stores but Amazon's have a name for each bucket, and no certificate covers one with dots.
            named = _is_amazon(client.meta.endpoint_url) and "." not in bucket
            client = self._client(region, "virtual" if named else "path")
        found: dict[str, Any] = {}

        def look(params: Mapping[str, Any], **_: Any) -> tuple[_Answer, dict[str, Any]]:
            found.update(params)
            return _Answer(), {}  # whoever answers here keeps botocore from sending

        client.meta.events.register("before-call.s3.GetObject", look)
        client.get_object(Bucket=bucket, Key=key)
        signing = found["context"].get("signing") or {}
        url = str(found["url"]).partition("?")[0]
        return Place(url, str(signing.get("region") or client.meta.region_name or "us-east-1"))

    def _client(self, region: str | None, addressing: str | None) -> Any:
        unsigned = {} if self.sign else {"signature_version": botocore.UNSIGNED}
        style = {} if addressing is None else {"s3": {"addressing_style": addressing}}
        config = Config(**unsigned, **style)
        # Any will do where nothing is sent: without, botocore would ask its whole chain, instance metadata included.
        nobody = {"aws_access_key_id": "nobody", "aws_secret_access_key": "nothing"}
        return self._session.create_client(
            "s3", region_name=region, endpoint_url=self._endpoint_url, config=config, **nobody
        )


def signed(
    method: str, url: str, headers: Mapping[str, str], credentials: Any, region: str, clock_offset: float
) -> tuple[tuple[str, str], ...]:
    """Return ``headers`` and what signing adds; ``clock_offset`` is how many seconds the store's clock is ahead.

    Raises:
        AccessDenied: they hold characters that no header can carry.
        Exception: the credentials, which refresh themselves when they are due, could not; the text may hold a secret.
    """
    request = AWSRequest(method, url, dict(headers))
    frozen = credentials.get_frozen_credentials()
    texts = frozen.access_key, frozen.secret_key, frozen.token or ""
    if not all(isinstance(text, str) and text.isascii() and text.isprintable() for text in texts):
        raise AccessDenied("the AWS credentials hold characters that no key has")
    keep_secrets(*texts[1:], given=True)
    signer = _Signer(frozen, "s3", region)
    signer.offset = timedelta(seconds=clock_offset)
    signer.add_auth(request)
    return tuple((str(name), str(value)) for name, value in request.headers.items())


class _Signer(S3SigV4Auth):  # type: ignore[misc]
    """botocore's signer, by the store's clock."""

    offset = timedelta(0)

    def _modify_request_before_signing(self, request: Any) -> None:
        now = datetime.strptime(request.context["timestamp"], SIGV4_TIMESTAMP)  # noqa: DTZ007 - UTC both times
        request.context["timestamp"] = (now + self.offset).strftime(SIGV4_TIMESTAMP)
        super()._modify_request_before_signing(request)


class _Answer:
    """What botocore takes for an HTTP response when nothing was sent."""

    status_code = _OK


def _checked(endpoint_url: str | None) -> str | None:
    """Return the endpoint with a scheme.

    Raises:
        UsageError: it is more than scheme, host, port and path.
    """
    if not endpoint_url:
        return None
    url = endpoint_url if "://" in endpoint_url else f"https://{endpoint_url}"
    parts = split_url(url)
    if parts.query or parts.fragment or parts.username:
        raise UsageError("the endpoint must be scheme, host and port only")
    return url


def _is_amazon(endpoint_url: str) -> bool:
    host = urlsplit(endpoint_url).hostname or ""
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws"))
