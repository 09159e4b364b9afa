"""Cluster roles that collect others, and Secrets that are given tokens."""

from __future__ import annotations

from typing import Any

from knarr.api.core.v1 import Secret, ServiceAccount
from knarr.api.errors import NotFound
from knarr.api.meta.v1 import LabelSelector, ObjectMeta
from knarr.api.rbac.v1 import AggregationRule, ClusterRole, PolicyRule
from knarr.controllers.clusterrole_aggregation import ClusterRoleAggregation
from knarr.controllers.token_secrets import NAME, TYPE, UID, TokenSecrets
from tests.controllers.loops import Loops, play

VIEW = "rbac.authorization.k8s.io/aggregate-to-view"


def crontabs(*verbs: str) -> PolicyRule:
    return PolicyRule(verbs=list(verbs), api_groups=["example.com"], resources=["crontabs"])


def test_view_edit_and_admin_grow_with_what_is_labelled_for_them() -> None:
    async def scenario(parts: Loops) -> None:
        before = {name: await parts.client.get(ClusterRole, name) for name in ("view", "edit", "admin")}
        more = ClusterRole(metadata=ObjectMeta(name="crontabs", labels={VIEW: "true"}), rules=[crontabs("get")])
        await parts.client.create(more)

        async def rules(name: str) -> list[PolicyRule]:
            return (await parts.client.get(ClusterRole, name)).rules

        async def grown() -> bool:
            return all([crontabs("get") in await rules(name) for name in before])

        await parts.until(grown)
        for name, role in before.items():
            assert [rule for rule in await rules(name) if rule != crontabs("get")] == role.rules

        await parts.client.delete(ClusterRole, "crontabs")

        async def shrunk() -> bool:
            return all([await rules(name) == role.rules for name, role in before.items()])

        await parts.until(shrunk)

    play(lambda parts: [_aggregation(parts)], scenario)


def test_what_is_there_already_is_not_written_again() -> None:
    async def scenario(parts: Loops) -> None:
        await parts.clock.sleep(5)
        revision = parts.server.store.revision
        labels = LabelSelector(match_labels={"a": "b"})
        rule = AggregationRule(cluster_role_selectors=[labels, labels])
        await parts.client.create(ClusterRole(metadata=ObjectMeta(name="c"), aggregation_rule=rule))
        await parts.clock.sleep(5)
        assert parts.server.store.revision == revision + 1

    play(lambda parts: [_aggregation(parts)], scenario)


def _aggregation(parts: Loops) -> ClusterRoleAggregation:
    account = parts.account("clusterrole-aggregation-controller")
    return ClusterRoleAggregation(account, parts.informers, parts.clock)


def test_a_secret_made_for_a_token_gets_one_and_goes_with_its_account() -> None:
    async def scenario(parts: Loops) -> None:
        account = await parts.client.create(ServiceAccount(metadata=ObjectMeta(name="robot", namespace="default")))
        metadata = ObjectMeta(name="robot-token", namespace="default", annotations={NAME: "robot"})
        await parts.client.create(Secret(metadata=metadata, type=TYPE))

        async def filled() -> Any:
            secret = await parts.client.get(Secret, "robot-token", "default")
            return secret if secret.data.get("token") else None

        secret = await parts.until(filled)
        assert secret.data == {
            "ca.crt": b"the CA",
            "namespace": b"default",
            "token": f"default/robot/{account.metadata.uid}/robot-token".encode(),
        }
        assert secret.metadata.annotations[UID] == account.metadata.uid
        await parts.client.delete(ServiceAccount, "robot", "default")

        async def gone() -> bool:
            try:
                await parts.client.get(Secret, "robot-token", "default")
            except NotFound:
                return True
            return False

        await parts.until(gone)

    play(_token_secrets, scenario)


def test_other_secrets_are_left_alone() -> None:
    async def scenario(parts: Loops) -> None:
        await parts.client.create(
            Secret(metadata=ObjectMeta(name="mine", namespace="default", annotations={NAME: "x"}))
        )
        await parts.clock.sleep(5)
        assert (await parts.client.get(Secret, "mine", "default")).data == {}

    play(_token_secrets, scenario)


def _token_secrets(parts: Loops) -> list[TokenSecrets]:
    manager = parts.client_as("system:kube-controller-manager", "system:authenticated")
    return [TokenSecrets(manager, parts.informers, parts.clock, lambda *parts: "/".join(parts), "the CA")]
