"""The file that says whose tokens are accepted: upstream's AuthenticationConfiguration (apiserver.config.k8s.io).

    apiVersion: apiserver.config.k8s.io/v1
    kind: AuthenticationConfiguration
    jwt:
    - issuer:
        url: https://example.com
        audiences: [my-cluster]
        certificateAuthority: <PEM>
      claimMappings:
        username: {claim: sub, prefix: "example:"}
        groups: {claim: groups, prefix: "example:"}

Expressions (CEL) are not known yet: who uses them is told so at start.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from knarr.apiserver.oidc import Claim, IssuerSettings

FILE_BYTES_MAX = 1 << 20
ISSUERS_MAX = 64
VERSIONS = ("apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1")


class _Strict(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """Whatever isn't known is refused: a rule that is overlooked would let somebody in."""


class _Issuer(_Strict):
    url: str
    audiences: list[str]
    certificate_authority: str = ""
    audience_match_policy: str = ""
    discovery_url: str = msgspec.field(default="", name="discoveryURL")


class _Mapping(_Strict):
    claim: str
    prefix: str | None = None


class _Uid(_Strict):
    claim: str


class _Mappings(_Strict):
    username: _Mapping
    groups: _Mapping | None = None
    uid: _Uid | None = None


class _Rule(_Strict):
    claim: str
    required_value: str


class _Jwt(_Strict):
    issuer: _Issuer
    claim_mappings: _Mappings
    claim_validation_rules: list[_Rule] = []


class _Configuration(_Strict):
    api_version: str
    kind: str
    jwt: list[_Jwt] = []


class AuthenticationConfigError(Exception):
    """A configuration that can't be used; `problems` says what is wrong."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def read_authentication_config(path: Path) -> list[IssuerSettings]:
    """Raises AuthenticationConfigError."""
    import yaml  # only who configures issuers pays for it

    try:
        content = path.read_bytes()
    except OSError as error:
        raise AuthenticationConfigError([f"{path}: {error.strerror}"]) from None
    if len(content) > FILE_BYTES_MAX:
        raise AuthenticationConfigError([f"{path}: larger than {FILE_BYTES_MAX} bytes"])
    try:
        found = msgspec.convert(yaml.safe_load(content), _Configuration)
    except msgspec.ValidationError as error:
        raise AuthenticationConfigError([f"{path}: {error}"]) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that is none
        raise AuthenticationConfigError([f"{path}: not YAML: {error}"]) from None
    if problems := [f"{path}: {problem}" for problem in _problems(found)]:
        raise AuthenticationConfigError(problems)
    return [_settings(each) for each in found.jwt]


def _problems(found: _Configuration) -> Iterator[str]:
    if found.api_version not in VERSIONS or found.kind != "AuthenticationConfiguration":
        yield f"must be an AuthenticationConfiguration of {VERSIONS[0]}"
    if len(found.jwt) > ISSUERS_MAX:
        yield f"jwt: must have at most {ISSUERS_MAX} items"
    for index, each in enumerate(found.jwt):
        place = f"jwt[{index}]"
        issuer = each.issuer
        if not issuer.url.startswith("https://"):
            yield f"{place}.issuer.url: URL scheme must be https"
        if issuer.url in (other.issuer.url for other in found.jwt[:index]):
            yield f"{place}.issuer.url: Duplicate value: {issuer.url}"
        if issuer.discovery_url and not issuer.discovery_url.startswith("https://"):
            yield f"{place}.issuer.discoveryURL: URL scheme must be https"
        if not issuer.audiences:
            yield f"{place}.issuer.audiences: at least one jwt[*].issuer.audiences is required"
        if len(issuer.audiences) > 1 and issuer.audience_match_policy != "MatchAny":
            yield f"{place}.issuer.audienceMatchPolicy: must be MatchAny for multiple audiences"
        yield from _authority_problems(issuer.certificate_authority, f"{place}.issuer.certificateAuthority")
        mappings = each.claim_mappings
        for name, mapping in (("username", mappings.username), ("groups", mappings.groups)):
            if mapping is None:
                continue
            if not mapping.claim:
                yield f"{place}.claimMappings.{name}.claim: must be set"
            if mapping.prefix is None:
                yield f"{place}.claimMappings.{name}.prefix: must be set when claim is; it may be empty"


def _authority_problems(pem: str, place: str) -> Iterator[str]:
    if not pem:
        return
    from cryptography import x509

    try:
        x509.load_pem_x509_certificates(pem.encode())
    except ValueError as error:
        yield f"{place}: no certificates in PEM: {error}"


def _settings(each: _Jwt) -> IssuerSettings:
    mappings = each.claim_mappings
    return IssuerSettings(
        url=each.issuer.url,
        audiences=tuple(each.issuer.audiences),
        username=_claim(mappings.username),
        groups=_claim(mappings.groups) if mappings.groups else None,
        uid=mappings.uid.claim if mappings.uid else "",
        required={rule.claim: rule.required_value for rule in each.claim_validation_rules},
        discovery_url=each.issuer.discovery_url,
        authorities=each.issuer.certificate_authority,
    )


def _claim(mapping: Any) -> Claim:
    return Claim(mapping.claim, mapping.prefix or "")
