"""sig-auth: service accounts, their tokens, and what of them pods are given."""

from __future__ import annotations

from typing import Any

import pytest

from knarr.api.core.v1 import ConfigMap
from tests.apiserver.pipeline.door import PODS, Door, account, pod
from tests.cluster import Cluster, simulate

ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"
MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


async def test_an_account_is_made_watched_patched_listed_and_deleted(door: Door) -> None:
    """[sig-auth] ServiceAccounts should run through the lifecycle of a ServiceAccount"""
    label = "test-serviceaccount-static"
    body = account("testserviceaccount")
    body["metadata"]["labels"] = {label: "true"}
    async with door.watch(ACCOUNTS, labelSelector=f"{label}=true") as events:
        made = await door.done("POST", ACCOUNTS, body)
        assert (await door.done("GET", f"{ACCOUNTS}/testserviceaccount"))["metadata"] == made["metadata"]
        assert await events.take(1) == [("ADDED", "testserviceaccount")]
        patch = {"automountServiceAccountToken": False}
        content_type = "application/strategic-merge-patch+json"
        await door.done("PATCH", f"{ACCOUNTS}/testserviceaccount", patch, content_type=content_type)
        kind, seen = await events.next()
        assert (kind, seen["automountServiceAccountToken"]) == ("MODIFIED", False)
        (found,) = (await door.done("GET", "/api/v1/serviceaccounts", labelSelector=f"{label}=true"))["items"]
        assert found["metadata"]["name"] == "testserviceaccount"
        assert found["automountServiceAccountToken"] is False
        await door.done("DELETE", ACCOUNTS)
        assert await events.take(1) == [("DELETED", "testserviceaccount")]


async def test_an_account_is_updated(door: Door) -> None:
    """[sig-auth] ServiceAccounts should update a ServiceAccount"""
    made = await door.done("POST", ACCOUNTS, account("e2e"))
    assert "automountServiceAccountToken" not in made
    updated = await door.done("PUT", f"{ACCOUNTS}/e2e", made | {"automountServiceAccountToken": True})
    assert updated["automountServiceAccountToken"] is True
    assert updated["metadata"]["uid"] == made["metadata"]["uid"]


@pytest.mark.parametrize("of_pod", [None, True, False])
@pytest.mark.parametrize("of_account", [None, True, False])
async def test_a_token_is_mounted_unless_the_pod_or_else_its_account_says_no(
    door: Door, of_pod: bool | None, of_account: bool | None
) -> None:
    """[sig-auth] ServiceAccounts should allow opting out of API token automount"""
    body = account("mount-test")
    if of_account is not None:
        body["automountServiceAccountToken"] = of_account
    await door.done("POST", ACCOUNTS, body)
    spec: dict[str, Any] = {} if of_pod is None else {"automountServiceAccountToken": of_pod}
    made = await door.done("POST", PODS, pod("p", "a", "b", serviceAccountName="mount-test", **spec))
    wanted = of_pod if of_pod is not None else of_account is not False
    for container in made["spec"]["containers"]:
        mounted = [each["mountPath"] for each in container.get("volumeMounts", ())]
        assert mounted == ([MOUNT] if wanted else [])
    volumes = made["spec"].get("volumes", [])
    assert [set(source) for volume in volumes for source in volume["projected"]["sources"]] == (
        [{"serviceAccountToken"}, {"configMap"}, {"downwardAPI"}] if wanted else []
    )


async def test_a_token_of_an_account_is_reviewed_as_its_own(door: Door) -> None:
    """[sig-auth] ServiceAccounts should create a serviceAccountToken and ensure a successful TokenReview"""
    made = await door.done("POST", ACCOUNTS, account("e2e"))
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {}, "spec": {}}
    token = (await door.done("POST", f"{ACCOUNTS}/e2e/token", request))["status"]["token"]
    assert token
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
    status = (await door.done("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review))["status"]
    assert status["authenticated"] is True
    assert not status.get("error")
    user = status["user"]
    assert (user["username"], user["uid"]) == ("system:serviceaccount:default:e2e", made["metadata"]["uid"])


def test_every_namespace_has_the_root_certificates_whatever_happens_to_them() -> None:
    """[sig-auth] ServiceAccounts should guarantee kube-root-ca.crt exist in any namespace"""
    name = "kube-root-ca.crt"

    async def scenario(cluster: Cluster) -> None:
        maps = cluster.informers.of(ConfigMap)
        there = maps.get

        def uid() -> str:
            found = there(f"default/{name}")
            return (found.metadata.uid or "") if found else ""

        await cluster.until(uid, within_s=10)
        first = uid()
        await cluster.client.delete(ConfigMap, name, "default", grace_period_s=0)
        await cluster.until(lambda: uid() not in ("", first), within_s=10)
        await cluster.patch(ConfigMap, name, {"data": {"ca.crt": ""}})

        def restored() -> bool:
            found = there(f"default/{name}")
            return bool(found and found.data.get("ca.crt", "").startswith("-----BEGIN"))

        await cluster.until(restored, within_s=10)

    simulate(scenario)
