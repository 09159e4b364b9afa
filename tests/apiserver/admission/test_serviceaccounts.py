"""ServiceAccount: what a pod inherits of its account, and accounts that limit which secrets are mounted."""

from __future__ import annotations

from typing import Any

import pytest

from tests.apiserver.pipeline.door import PODS, Door, account, pod

ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"


async def test_pull_secrets_are_inherited_unless_the_pod_has_its_own(door: Door) -> None:
    await door.done("POST", ACCOUNTS, account("puller") | {"imagePullSecrets": [{"name": "registry"}]})
    made = await door.done("POST", PODS, pod("a", serviceAccountName="puller"))
    assert made["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    own = [{"name": "own"}]
    made = await door.done("POST", PODS, pod("b", serviceAccountName="puller", imagePullSecrets=own))
    assert made["spec"]["imagePullSecrets"] == own


async def test_a_refusal_names_what_the_pods_name_is_made_of(door: Door) -> None:
    body = pod("", serviceAccountName="nobody") | {"metadata": {"generateName": "web-"}}
    status, refused = await door("POST", PODS, body)
    assert (status, refused["message"]) == (
        403,
        'pods "web-" is forbidden: error looking up service account default/nobody: serviceaccount "nobody" not found',
    )


MIRRORS: list[tuple[dict[str, Any], str]] = [
    ({"serviceAccountName": "default"}, "a mirror pod may not reference service accounts"),
    ({"volumes": [{"name": "s", "secret": {"secretName": "s"}}]}, "a mirror pod may not reference secrets"),
    (
        {"volumes": [{"name": "s", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}]},
        "a mirror pod may not use ServiceAccountToken volume projections",
    ),
]


@pytest.mark.parametrize("number", range(len(MIRRORS)))
async def test_a_mirror_pod_gets_nothing_that_the_server_keeps(door: Door, number: int) -> None:
    spec, message = MIRRORS[number]
    body = pod("a", **spec)
    body["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}
    status, refused = await door("POST", PODS, body)
    assert (status, refused["message"]) == (403, f'pods "a" is forbidden: {message}')
    body = pod("a")
    body["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}
    made = await door.done("POST", PODS, body)
    assert "volumes" not in made["spec"]


def with_variable(secret: str) -> dict[str, Any]:
    body = pod("a")
    reference = {"secretKeyRef": {"name": secret, "key": "k"}}
    body["spec"]["containers"][0]["env"] = [{"name": "V", "valueFrom": reference}]
    return body


def with_all(secret: str) -> dict[str, Any]:
    body = pod("a")
    body["spec"]["containers"][0]["envFrom"] = [{"secretRef": {"name": secret}}]
    return body


SECRETS: list[tuple[Any, str]] = [
    (
        lambda name: pod("a", volumes=[{"name": "v", "secret": {"secretName": name}}]),
        'volume with secret.secretName="other" is not allowed',
    ),
    (with_variable, 'container c with envVar V referencing secret.secretName="other" is not allowed'),
    (with_all, 'container c with envFrom referencing secret.secretName="other" is not allowed'),
    (lambda name: pod("a", imagePullSecrets=[{"name": name}]), 'imagePullSecrets[0].name="other" is not allowed'),
]


@pytest.mark.parametrize("number", range(len(SECRETS)))
async def test_an_account_may_be_limited_to_its_own_secrets(door: Door, number: int) -> None:
    make, message = SECRETS[number]
    limited = account("limited") | {"secrets": [{"name": "own"}], "imagePullSecrets": [{"name": "own"}]}
    limited["metadata"] = {"name": "limited", "annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}}
    await door.done("POST", ACCOUNTS, limited)
    for name, expected in (("other", 403), ("own", 201)):
        body = make(name)
        body["spec"]["serviceAccountName"] = "limited"
        status, answer = await door("POST", PODS, body)
        assert status == expected, answer
        if status == 403:
            assert answer["message"].startswith(f'pods "a" is forbidden: {message}')
            assert "because service account limited does not reference that" in answer["message"]
