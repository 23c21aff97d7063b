"""Whose name requests to OSS are signed in: where credentials are looked for, and how long they are used.

Asked for in the caller's process only, and once for all workers: they are kept until shortly before they expire, or
until the store refuses them.
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from alibabacloud_oss_v2.types import Credentials

from fastdl.errors import AccessDenied, FastdlError, UsageError
from fastdl.redact import keep_secrets, printable
from fastdl.sources import oss_roles

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fastdl.sources.ossutil import Profile

    Provider: TypeAlias = Callable[[], Credentials]

_MARGIN = 300.0  # seconds before they expire that credentials are replaced, if they live for ...
_SHARE = 4  # ... so many times as long; else this share of their life before
_NAP = 1.0  # seconds at least from a failed renewal to the next: the download waits for each
_MOST = 4  # values of a tuple: id, secret, token, expiry
log = logging.getLogger("fastdl")


class Login:
    """The credentials in use; ``provider`` makes new ones, ``clock`` tells seconds since the epoch."""

    def __init__(self, provider: Provider, clock: Callable[[], float] = time.time) -> None:
        self._provider = provider
        self._clock = clock
        self._kept: Credentials | None = None
        self._renew_at = self._expires_at = float("inf")

    def credentials(self) -> Credentials:
        """Return credentials that hold for a while.

        Raises:
            AccessDenied: the provider has nothing to offer, or nothing that can be sent.
            FastdlError: it cannot be asked.
        """
        now = self._clock()
        if self._kept is None or now >= self._renew_at:
            try:
                self._keep(self._fresh(), now)
            except FastdlError as error:
                left = self._expires_at - self._clock()
                if self._kept is None or left <= 0:
                    raise
                log.warning("%s; the old credentials hold on for %.0f s", error, left)
                self._renew_at = self._expires_at - left + max(_NAP, left / _SHARE)
        return self._kept

    def drop(self) -> None:
        """Forget the credentials: they were refused."""
        self._kept = None

    def _keep(self, fresh: Credentials, now: float) -> None:
        self._kept = fresh
        self._renew_at = self._expires_at = float("inf")
        left = 0.0 if fresh.expiration is None else fresh.expiration.timestamp() - now
        if left > 0:  # what comes expired tells that a clock is wrong: the store will say what holds
            self._expires_at, self._renew_at = now + left, now + left - min(_MARGIN, left / _SHARE)

    def _fresh(self) -> Credentials:
        failure = ""
        try:
            fresh = self._provider()
        except FastdlError:
            raise
        except Exception as error:  # noqa: BLE001 - providers raise anything, and the text may hold a secret
            failure = type(error).__name__
        if failure:  # said out here, where what was raised is no error's context either
            raise AccessDenied(f"the credential provider failed: {failure}")
        texts = fresh.access_key_id, fresh.access_key_secret, fresh.security_token or ""
        if not all(isinstance(text, str) and text.isascii() and text.isprintable() for text in texts):
            raise AccessDenied("the credentials hold characters that no key has")
        if not fresh.has_keys():
            raise AccessDenied("the credential provider gave no key")
        keep_secrets(fresh.access_key_secret, fresh.security_token or "", given=True)
        return fresh


def find_provider(given: Any, profile: Profile, environment: Mapping[str, str]) -> Provider | None:
    """Return what makes credentials: what the caller gave, the environment, the profile, a role that is configured.

    ``given`` is a provider or Credentials of the SDK, a tuple, or a callable that returns one of the last two. The
    metadata service is asked only where ECS roles are configured. None: the profile wants requests unsigned.

    Raises:
        UsageError: what was given or is configured cannot be meant.
        AccessDenied: there is nothing.
    """
    if given is not None:
        return _given(given)
    key_id, secret = environment.get("OSS_ACCESS_KEY_ID"), environment.get("OSS_ACCESS_KEY_SECRET")
    if key_id and secret:
        static = Credentials(key_id, secret, environment.get("OSS_SESSION_TOKEN") or None)
        return lambda: static
    if profile.mode == "anonymous":
        return None
    provider = _of_profile(profile, environment) or _of_role(environment)
    if provider is None:
        raise AccessDenied(
            "no OSS credentials: set OSS_ACCESS_KEY_ID and OSS_ACCESS_KEY_SECRET, name a --profile of ossutil, "
            "or use --no-sign-request for a public object"
        )
    return provider


def _given(given: Any) -> Provider:
    ask = getattr(given, "get_credentials", None)
    if callable(ask):
        return lambda: _credentials(ask())
    if isinstance(given, Credentials | tuple):
        static = _credentials(given)
        return lambda: static
    if callable(given):
        return lambda: _credentials(given())
    raise UsageError(
        "credentials: give a CredentialsProvider or Credentials of alibabacloud-oss-v2, a tuple of key id, secret and "
        "perhaps token and expiry, or a callable that returns one"
    )


def _credentials(found: Any) -> Credentials:
    """Read what a provider gave.

    Raises:
        UsageError: it is neither Credentials nor (key id, secret[, token[, expiry]]).
    """
    if isinstance(found, tuple) and 2 <= len(found) <= _MOST:  # noqa: PLR2004 - a key has two parts
        key_id, secret, token, expiry = (*found, None, None)[:_MOST]
    else:
        names = ("access_key_id", "access_key_secret", "security_token", "expiration")
        key_id, secret, token, expiry = (getattr(found, name, None) for name in names)
    if isinstance(expiry, int | float):
        expiry = datetime.fromtimestamp(expiry, UTC)
    if not isinstance(key_id, str) or not isinstance(secret, str) or not isinstance(expiry, datetime | None):
        raise UsageError("credentials are (key id, secret[, token[, expiry]]), or have the fields of the SDK's")
    if expiry is not None and expiry.tzinfo is None:
        expiry = expiry.replace(tzinfo=UTC)
    return Credentials(key_id, secret, token or None, expiry)


def _of_profile(profile: Profile, environment: Mapping[str, str]) -> Provider | None:
    key = Credentials(profile.access_key_id, profile.access_key_secret, profile.sts_token or None)
    mode = profile.mode or ("ecsramrole" if profile.role and not key.has_keys() else "ak")
    if mode == "ecsramrole":
        return _ecs(profile.role, environment)
    if mode not in ("ak", "ststoken", "ramrolearn"):
        raise UsageError(
            f"the profile's mode {printable(profile.mode, 40)!r} is not known here: it may be AK, StsToken, "
            "RamRoleArn, EcsRamRole or Anonymous"
        )
    missing = not key.has_keys() or (mode == "ststoken" and not key.security_token)
    if missing and profile.mode:
        raise UsageError(
            f"the profile's mode {printable(profile.mode, 40)!r} needs keys that the profile does not have"
        )
    if mode == "ramrolearn":
        if not profile.role_arn:
            raise UsageError("the profile's mode RamRoleArn needs ramRoleArn")
        return partial(oss_roles.assumed_role, key, profile.role_arn, profile.session_name, _sts(environment))
    return None if missing else lambda: key


def _of_role(environment: Mapping[str, str]) -> Provider | None:
    names = ("ALIBABA_CLOUD_ROLE_ARN", "ALIBABA_CLOUD_OIDC_PROVIDER_ARN", "ALIBABA_CLOUD_OIDC_TOKEN_FILE")
    oidc = [environment.get(name, "") for name in names]
    if all(oidc):
        session = environment.get("ALIBABA_CLOUD_ROLE_SESSION_NAME", "")
        return partial(oss_roles.oidc_role, oidc[0], oidc[1], oidc[2], session, _sts(environment))
    if address := environment.get("ALIBABA_CLOUD_CREDENTIALS_URI"):
        return partial(oss_roles.from_address, address)
    if role := environment.get("ALIBABA_CLOUD_ECS_METADATA"):
        return _ecs(role, environment)
    return None


def _ecs(role: str, environment: Mapping[str, str]) -> Provider:
    if _is_true(environment.get("ALIBABA_CLOUD_ECS_METADATA_DISABLED")):
        raise UsageError("an ECS role is configured, and ALIBABA_CLOUD_ECS_METADATA_DISABLED forbids to ask for it")
    return partial(oss_roles.ecs_role, role, only_v2=_is_true(environment.get("ALIBABA_CLOUD_IMDSV1_DISABLED")))


def _sts(environment: Mapping[str, str]) -> str:
    """Return where STS is asked; empty for its central endpoint."""
    region = environment.get("ALIBABA_CLOUD_STS_REGION", "")
    inside = "-vpc" if _is_true(environment.get("ALIBABA_CLOUD_VPC_ENDPOINT_ENABLED")) else ""
    return f"https://sts{inside}.{region}.aliyuncs.com" if region else ""


def _is_true(value: str | None) -> bool:
    return (value or "").lower() in ("1", "true")
