"""Users of other issuers: known by their tokens, and by nothing that only looks like one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from knarr.api.errors import Unauthorized
from knarr.apiserver.authenticate import Authenticator
from knarr.apiserver.authentication_config import AuthenticationConfigError, read_authentication_config
from knarr.apiserver.oidc import KEYS_ASKED_AGAIN_S, Claim, IssuerSettings, OIDCIssuer
from knarr.client.transport import User
from knarr.clock import SystemClock
from tests.apiserver.issuer import TestIssuer


class LaterClock(SystemClock):
    """Time that a test moves on."""

    later_s = 0.0

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self.later_s

    def time_s(self) -> float:
        return super().time_s() + self.later_s


@pytest.fixture
async def issuer() -> AsyncIterator[TestIssuer]:
    async with TestIssuer().served() as served:
        yield served


def trusting(issuer: TestIssuer, clock: SystemClock | None = None, **more: Any) -> OIDCIssuer:
    settings = {
        "url": issuer.url,
        "audiences": ("cluster", "other"),
        "username": Claim("sub", "oidc:"),
        "groups": Claim("groups", "oidc:"),
        "authorities": issuer.authority,
    }
    return OIDCIssuer(IssuerSettings(**(settings | more)), clock or SystemClock(1))  # type: ignore[arg-type]


async def user(trusted: OIDCIssuer, token: str) -> User:
    """By way of the authenticator, as a request comes in."""
    authenticator = Authenticator(issuers=[trusted])
    try:
        return await authenticator.user({"authorization": f"Bearer {token}"})
    finally:
        await authenticator.close()


async def test_claims_become_a_user(issuer: TestIssuer) -> None:
    found = await user(trusting(issuer, uid="oid"), issuer.token(groups=["devs", "ops"], oid="7", jti="j"))
    assert found == User(
        "oidc:ann",
        ("oidc:devs", "oidc:ops", "system:authenticated"),
        "7",
        {"authentication.kubernetes.io/credential-id": ("JTI=j",)},
    )


async def test_one_group_may_be_a_text_and_none_is_none(issuer: TestIssuer) -> None:
    assert (await user(trusting(issuer), issuer.token(groups="devs"))).groups == ("oidc:devs", "system:authenticated")
    assert (await user(trusting(issuer), issuer.token())).groups == ("system:authenticated",)


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": 1},
        {"exp": None},
        {"exp": "tomorrow"},
        {"nbf": 10**12},
        {"aud": "elsewhere"},
        {"aud": None},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"groups": {"a": "b"}},
        {"groups": [1]},
    ],
)
async def test_a_token_that_is_wrong_in_one_point_is_refused(issuer: TestIssuer, claims: dict[str, Any]) -> None:
    with pytest.raises(Unauthorized) as refused:
        await user(trusting(issuer), issuer.token(**claims))
    assert refused.value.message == "Unauthorized"


async def test_a_forged_token_is_refused(issuer: TestIssuer) -> None:
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    trusted = trusting(issuer)
    forged = [
        issuer.token(key=other),
        issuer.token(key="a secret that is long enough for HMAC", algorithm="HS256"),
        issuer.token(key_id="nobody's", key=other),
        issuer.token()[:-4] + "AAAA",
    ]
    for token in forged:
        with pytest.raises(Unauthorized):
            await user(trusted, token)


async def test_a_token_of_another_issuer_is_refused(issuer: TestIssuer) -> None:
    with pytest.raises(Unauthorized):
        await user(trusting(issuer), issuer.token(iss="https://elsewhere.example.com"))


async def test_an_issuer_that_says_it_is_another_is_not_believed(issuer: TestIssuer) -> None:
    issuer.named = "https://elsewhere.example.com"
    with pytest.raises(Unauthorized):
        await user(trusting(issuer), issuer.token())


async def test_an_issuer_with_an_unknown_certificate_is_not_believed(issuer: TestIssuer) -> None:
    with pytest.raises(Unauthorized):
        await user(trusting(issuer, authorities=""), issuer.token())


async def test_required_claims_and_unverified_addresses(issuer: TestIssuer) -> None:
    required = trusting(issuer, required={"hd": "example.com"})
    assert (await user(required, issuer.token(hd="example.com"))).name == "oidc:ann"
    with pytest.raises(Unauthorized):
        await user(required, issuer.token(hd="example.org"))
    by_email = trusting(issuer, username=Claim("email"))
    assert (await user(by_email, issuer.token(email="a@example.com"))).name == "a@example.com"
    with pytest.raises(Unauthorized):
        await user(by_email, issuer.token(email="a@example.com", email_verified=False))


async def test_keys_are_fetched_once_and_again_when_they_change(issuer: TestIssuer) -> None:
    clock = LaterClock(1)
    trusted = trusting(issuer, clock)
    for _ in range(3):
        await trusted.user_of(issuer.token())
    assert issuer.asked == ["discovery", "keys"]
    issuer.add_key("two")
    with pytest.raises(Unauthorized):
        await trusted.user_of(issuer.token("two"))
    assert len(issuer.asked) == 2  # not again so soon
    clock.later_s += KEYS_ASKED_AGAIN_S + 1
    assert (await trusted.user_of(issuer.token("two"))).name == "oidc:ann"
    assert len(issuer.asked) == 4
    await trusted.close()


CONFIGURATION = """
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer:
    url: https://login.example.com
    audiences: [a, b]
    audienceMatchPolicy: MatchAny
  claimMappings:
    username: {claim: email, prefix: ""}
    groups: {claim: roles, prefix: "x:"}
    uid: {claim: oid}
  claimValidationRules:
  - {claim: hd, requiredValue: example.com}
"""


def test_the_configuration_is_upstreams(tmp_path: Path) -> None:
    path = tmp_path / "issuers.yaml"
    path.write_text(CONFIGURATION)
    assert read_authentication_config(path) == [
        IssuerSettings(
            url="https://login.example.com",
            audiences=("a", "b"),
            username=Claim("email"),
            groups=Claim("roles", "x:"),
            uid="oid",
            required={"hd": "example.com"},
        )
    ]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("https://", "http://", "jwt[0].issuer.url: URL scheme must be https"),
        ("[a, b]", "[]", "jwt[0].issuer.audiences: at least one jwt[*].issuer.audiences is required"),
        ("    audienceMatchPolicy: MatchAny\n", "", "must be MatchAny for multiple audiences"),
        (', prefix: ""', "", "jwt[0].claimMappings.username.prefix: must be set"),
        ("claim: email,", "expression: claims.email,", "unknown field `expression`"),
        ("kind: Auth", "kind: Other", "must be an AuthenticationConfiguration"),
        ("    url:", "    certificateAuthority: x\n    url:", "no certificates in PEM"),
        ("jwt:", "jwt: [", "not YAML"),
        ("kind: AuthenticationConfiguration", "kind: 2026-13-45", "not YAML"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused(tmp_path: Path, old: str, new: str, problem: str) -> None:
    path = tmp_path / "issuers.yaml"
    path.write_text(CONFIGURATION.replace(old, new, 1))
    with pytest.raises(AuthenticationConfigError) as refused:
        read_authentication_config(path)
    assert problem in str(refused.value)
