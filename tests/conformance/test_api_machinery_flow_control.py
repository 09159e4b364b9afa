"""sig-api-machinery: flow schemas and priority levels are objects with every operation and a status of their own."""

from __future__ import annotations

from typing import Any

from tests.apiserver.pipeline.door import Door
from tests.conformance.operations import MERGE, conditions, deletions, discovered, main_operations

GROUP = "flowcontrol.apiserver.k8s.io"
LABEL = {"e2e-label": "x"}
SELECTOR = {"labelSelector": "e2e-label=x"}


async def operations(
    door: Door, kind: str, plural: str, spec: dict[str, Any], changed: dict[str, Any], shown: dict[str, Any]
) -> None:
    """`changed` is a patch of the spec, and `shown` the spec that it makes, but for defaults."""
    await discovered(door, GROUP, "v1", plural, "status")
    path = f"/apis/{GROUP}/v1/{plural}"
    template = {
        "apiVersion": f"{GROUP}/v1",
        "kind": kind,
        "metadata": {"generateName": "e2e-example-", "labels": LABEL},
        "spec": spec,
    }
    made = await main_operations(door, path, template, SELECTOR)
    one = f"{path}/{made['metadata']['name']}"
    patched = await door.done("PATCH", one, {"spec": changed}, content_type=MERGE)
    assert patched["spec"] == made["spec"] | shown
    assert patched["metadata"]["generation"] == made["metadata"]["generation"] + 1
    await conditions(door, f"{one}/status", made["metadata"]["uid"])
    await deletions(door, path, made["metadata"]["name"], SELECTOR)


async def test_flow_schemas_offer_every_operation(door: Door) -> None:
    """[sig-api-machinery] API priority and fairness should support FlowSchema API operations"""
    rule = {
        "subjects": [{"kind": "User", "user": {"name": "example-e2e-non-existent-user"}}],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    }
    spec = {
        "matchingPrecedence": 10000,
        "priorityLevelConfiguration": {"name": "global-default"},
        "distinguisherMethod": {"type": "ByUser"},
        "rules": [rule],
    }
    changed = {"matchingPrecedence": 9999}
    await operations(door, "FlowSchema", "flowschemas", spec, changed, changed)


async def test_priority_levels_offer_every_operation(door: Door) -> None:
    """[sig-api-machinery] API priority and fairness should support PriorityLevelConfiguration API operations"""
    limited = {"nominalConcurrencyShares": 2, "limitResponse": {"type": "Reject"}}
    shown = {"limited": limited | {"nominalConcurrencyShares": 4, "lendablePercent": 0}}
    changed = {"limited": {"nominalConcurrencyShares": 4}}
    spec = {"type": "Limited", "limited": limited}
    await operations(door, "PriorityLevelConfiguration", "prioritylevelconfigurations", spec, changed, shown)
