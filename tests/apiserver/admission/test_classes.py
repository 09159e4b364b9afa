"""Priority and runtime classes: the kinds, and what they make of pods; the taint that nodes are born with."""

from __future__ import annotations

from typing import Any

import pytest

from knarr.client.client import MERGE_PATCH
from tests.apiserver.pipeline.door import PODS, Door, causes, pod

PRIORITIES = "/apis/scheduling.k8s.io/v1/priorityclasses"
RUNTIMES = "/apis/node.k8s.io/v1/runtimeclasses"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


def priority(name: str, value: int | None = None, **fields: Any) -> dict[str, Any]:
    made = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, **fields}
    return made if value is None else made | {"value": value}


def runtime(name: str, handler: str = "runc", **fields: Any) -> dict[str, Any]:
    made = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name}, "handler": handler}
    return made | fields


async def table(door: Door, path: str) -> tuple[list[str], list[Any]]:
    shown = await door.done("GET", path, accept=TABLE)
    return [column["name"] for column in shown["columnDefinitions"]], [row["cells"] for row in shown["rows"]]


async def test_the_classes_of_the_system_are_there_and_stay(door: Door) -> None:
    names, rows = await table(door, PRIORITIES)
    assert names == ["Name", "Value", "Global-Default", "Age", "PreemptionPolicy"]
    assert [[row[index] for index in (0, 1, 2, 4)] for row in rows] == [
        ["system-cluster-critical", 2_000_000_000, False, "PreemptLowerPriority"],
        ["system-node-critical", 2_000_001_000, False, "PreemptLowerPriority"],
    ]
    status, refused = await door("DELETE", f"{PRIORITIES}/system-node-critical")
    assert (status, refused["message"]) == (
        403,
        'priorityclasses.scheduling.k8s.io "system-node-critical" is forbidden: '
        "this is a system priority class and cannot be deleted",
    )


@pytest.mark.parametrize(
    ("body", "field", "detail"),
    [
        (priority("high", 1_000_000_001), "value", "maximum allowed value of a user defined priority is 1000000000"),
        (priority("system-mine", 1), "metadata.name", "system-mine is not a known system priority class"),
        (priority("a", 1, preemptionPolicy="Always"), "preemptionPolicy", "Unsupported value"),
        (priority("a", 1, preemptionPolicy=""), "preemptionPolicy", "Required value"),
        (priority("A_b", 1), "metadata.name", "RFC 1123"),
    ],
)
async def test_what_a_priority_class_may_not_be(door: Door, body: dict[str, Any], field: str, detail: str) -> None:
    status, refused = await door("POST", PRIORITIES, body)
    assert (status, causes(refused)) == (422, [field])
    assert detail in refused["message"]


async def test_a_priority_class_keeps_its_value(door: Door) -> None:
    made = await door.done("POST", PRIORITIES, priority("a"))
    assert (made["value"], made["preemptionPolicy"], made["metadata"]["generation"]) == (0, "PreemptLowerPriority", 1)
    status, refused = await door("PATCH", f"{PRIORITIES}/a", {"value": 1}, content_type=MERGE_PATCH)
    assert (status, refused["message"]) == (
        422,
        'PriorityClass.scheduling.k8s.io "a" is invalid: value: Forbidden: may not be changed in an update.',
    )
    changed = {"preemptionPolicy": "Never"}
    assert (await door("PATCH", f"{PRIORITIES}/a", changed, content_type=MERGE_PATCH))[0] == 422
    await door.done("PATCH", f"{PRIORITIES}/a", {"description": "new"}, content_type=MERGE_PATCH)
    await door.done("DELETE", f"{PRIORITIES}/a")


async def test_there_is_one_default(door: Door) -> None:
    await door.done("POST", PRIORITIES, priority("usual", 7, globalDefault=True, preemptionPolicy="Never"))
    status, refused = await door("POST", PRIORITIES, priority("other", 8, globalDefault=True))
    assert (status, refused["message"]) == (
        403,
        'priorityclasses.scheduling.k8s.io "other" is forbidden: PriorityClass usual is already marked as default. '
        "Only one default can exist",
    )
    await door.done("PATCH", f"{PRIORITIES}/usual", {"description": "still"}, content_type=MERGE_PATCH)
    spec = (await door.done("POST", PODS, pod("a")))["spec"]
    assert (spec["priorityClassName"], spec["priority"], spec["preemptionPolicy"]) == ("usual", 7, "Never")


async def test_a_pods_class_becomes_its_priority(door: Door) -> None:
    await door.done("POST", PRIORITIES, priority("low", -5, preemptionPolicy="Never"))
    spec = (await door.done("POST", PODS, pod("a", priorityClassName="low")))["spec"]
    assert (spec["priority"], spec["preemptionPolicy"]) == (-5, "Never")
    spec = (await door.done("POST", PODS, pod("b")))["spec"]
    assert (spec["priority"], spec["preemptionPolicy"]) == (0, "PreemptLowerPriority")
    assert "priorityClassName" not in spec
    refused = {
        "no PriorityClass with name none was found": {"priorityClassName": "none"},
        "the integer value of priority (3) must not be provided in pod spec; priority admission controller computed -5 "
        "from the given PriorityClass name": {"priorityClassName": "low", "priority": 3},
        "the string value of PreemptionPolicy (PreemptLowerPriority) must not be provided in pod spec; priority "
        "admission controller computed Never from the given PriorityClass name": {
            "priorityClassName": "low",
            "preemptionPolicy": "PreemptLowerPriority",
        },
    }
    for message, more in refused.items():
        status, answer = await door("POST", PODS, pod("c", **more))
        assert (status, answer["message"]) == (403, f'pods "c" is forbidden: {message}')
    generated = pod("") | {"metadata": {"generateName": "web-"}}
    generated["spec"]["priorityClassName"] = "none"
    status, answer = await door("POST", PODS, generated)
    assert answer["message"] == 'pods "web-" is forbidden: no PriorityClass with name none was found'


async def test_a_runtime_class_is_checked_and_keeps_its_handler(door: Door) -> None:
    bad = runtime("a", "Not A Handler", overhead={"podFixed": {"cpu": "-1"}})
    bad["scheduling"] = {"nodeSelector": {"a/b/c": "d"}, "tolerations": [{"operator": "Equal"}]}
    status, refused = await door("POST", RUNTIMES, bad)
    assert status == 422
    assert sorted(set(causes(refused))) == [
        "handler",
        "overhead.limits[cpu]",
        "scheduling.nodeSelector",
        "scheduling.tolerations[0].operator",
    ]
    await door.done("POST", RUNTIMES, runtime("a"))
    status, refused = await door("PATCH", f"{RUNTIMES}/a", {"handler": "other"}, content_type=MERGE_PATCH)
    assert (status, refused["message"]) == (
        422,
        'RuntimeClass.node.k8s.io "a" is invalid: handler: Invalid value: "other": field is immutable',
    )
    names, rows = await table(door, RUNTIMES)
    assert (names, rows[0][:2]) == (["Name", "Handler", "Age"], ["a", "runc"])


async def test_a_pod_pays_for_its_runtime_and_goes_where_it_is(door: Door) -> None:
    tolerations = [
        {"key": "gvisor", "operator": "Exists"},
        {"key": "node.kubernetes.io/not-ready", "operator": "Exists"},
    ]
    scheduling = {"nodeSelector": {"runtime": "gvisor"}, "tolerations": tolerations}
    overhead = {"podFixed": {"cpu": "0.25", "memory": "64Mi"}}
    await door.done("POST", RUNTIMES, runtime("gvisor", overhead=overhead, scheduling=scheduling))
    spec = (await door.done("POST", PODS, pod("a", runtimeClassName="gvisor", nodeSelector={"disk": "fast"})))["spec"]
    assert spec["overhead"] == {"cpu": "250m", "memory": "64Mi"}
    assert spec["nodeSelector"] == {"disk": "fast", "runtime": "gvisor"}
    keys = [(each["key"], each.get("effect")) for each in spec["tolerations"]]
    # What the class tolerates for good takes the place of what is tolerated for 300 s.
    assert keys == [
        ("node.kubernetes.io/unreachable", "NoExecute"),
        ("gvisor", None),
        ("node.kubernetes.io/not-ready", None),
    ]
    refused = {
        'pod rejected: RuntimeClass "kata" not found': {"runtimeClassName": "kata"},
        "conflict: runtimeClass.scheduling.nodeSelector[runtime] = gvisor; pod.spec.nodeSelector[runtime] = runc": {
            "runtimeClassName": "gvisor",
            "nodeSelector": {"runtime": "runc"},
        },
        "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead": {
            "runtimeClassName": "gvisor",
            "overhead": {"cpu": "1"},
        },
        "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead": {
            "overhead": {"cpu": "1"}
        },
    }
    for message, more in refused.items():
        status, answer = await door("POST", PODS, pod("b", **more))
        assert (status, answer["message"]) == (403, f'pods "b" is forbidden: {message}')
    same = {"cpu": "250m", "memory": "65536Ki"}
    await door.done("POST", PODS, pod("b", runtimeClassName="gvisor", overhead=same))


async def test_a_pod_learns_where_it_runs(door: Door) -> None:
    there = {"topology.kubernetes.io/zone": "a", "topology.kubernetes.io/region": "north"}
    node = {"metadata": {"name": "n1", "labels": there | {"other": "x"}}}
    await door.done("POST", "/api/v1/nodes", node)
    await door.done("POST", PODS, pod("bound") | {"metadata": {"name": "bound", "labels": {"app": "web"}}})
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "bound"}, "target": {"name": "n1"}}
    await door.done("POST", f"{PODS}/bound/binding", binding)
    assert (await door.done("GET", f"{PODS}/bound"))["metadata"]["labels"] == there | {"app": "web"}
    made = await door.done("POST", PODS, pod("placed", nodeName="n1"))
    assert made["metadata"]["labels"] == there
    assert "labels" not in (await door.done("POST", PODS, pod("free")))["metadata"]


async def test_a_node_is_born_with_the_taint_that_keeps_pods_off(door: Door) -> None:
    node: dict[str, Any] = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}
    made = await door.done("POST", "/api/v1/nodes", node)
    taint = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
    assert made["spec"]["taints"] == [taint]
    node = {"metadata": {"name": "n2"}, "spec": {"taints": [taint, {"key": "own", "effect": "NoExecute"}]}}
    made = await door.done("POST", "/api/v1/nodes", node)
    assert made["spec"]["taints"] == node["spec"]["taints"]
    made["spec"]["taints"] = []
    assert "taints" not in (await door.done("PUT", "/api/v1/nodes/n2", made))["spec"]
