"""What names an object in a signed URL: the same object under another signature is the same object.

Only the parameters of the one whose signature is there are left out: another's may name content here.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit, urlunsplit


@dataclass(frozen=True, slots=True)
class _Signer:
    """A query that holds one of ``marks`` is signed, and what is named here changes with every signing."""

    marks: frozenset[str]
    names: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()

    def signs(self, name: str) -> bool:
        return name in self.marks or name in self.names or name.startswith(self.prefixes)


def _signer(marks: str, names: str = "", prefixes: tuple[str, ...] = ()) -> _Signer:
    return _Signer(frozenset(marks.split()), frozenset(names.split()), prefixes)


# Source: each maker's reference of presigned URLs; of CDNs that of "URL authentication" or "token authentication".
_SIGNERS = (
    _signer(  # OSS V1 and V4, AWS V2 and V4, Google V2 and V4, OBS, CloudFront
        "signature x-oss-signature x-amz-signature x-goog-signature",
        "ossaccesskeyid awsaccesskeyid googleaccessid accesskeyid expires security-token key-pair-id policy "
        "hash-algorithm",
        ("x-oss-", "x-amz-", "x-goog-", "x-obs-"),
    ),
    _signer(  # Azure's shared access signatures of a service, an account and a user
        "sig",
        "sv st se sr sp spr sip ss srt si sdd ses saoid suoid scid skoid sktid skt ske sks skv skdutid sduoid",
    ),
    _signer(  # Tencent COS
        "q-signature",
        "q-sign-algorithm q-ak q-sign-time q-key-time q-header-list q-url-param-list",
        ("x-cos-",),
    ),
    _signer("auth_key"),  # CDNs of Alibaba, Huawei and others
    _signer("authorization"),  # Backblaze B2
    _signer("hdnea hdnts __token__"),  # Akamai
)
_CONTENT = "x-oss-process"  # has a prefix, yet names other content


def unsigned_url(url: str) -> str:
    """Return ``url`` without userinfo, fragment and signing parameters: the same object under any signature."""
    parts = urlsplit(url)
    pairs = [pair for pair in parts.query.split("&") if pair]
    names = {_name(pair) for pair in pairs}
    signers = [signer for signer in _SIGNERS if signer.marks & names]
    query = "&".join(
        pair for pair in pairs if _name(pair) == _CONTENT or not any(each.signs(_name(pair)) for each in signers)
    )
    return urlunsplit((parts.scheme.lower(), parts.netloc.rpartition("@")[2].lower(), parts.path, query, ""))


def _name(pair: str) -> str:
    return unquote(pair.partition("=")[0]).lower()
