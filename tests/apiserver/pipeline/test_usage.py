"""metrics.k8s.io: what clients see of what nodes measure."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from knarr.api.core.v1 import Node
from knarr.api.durations import go_duration
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.metrics.resources import RESOURCES
from knarr.client.nodes import NodeUsage, PodUsage, Usage
from tests.apiserver.pipeline.door import PODS, Door, open_door, pod
from tests.apiserver.pipeline.echo_node import EchoNode

METRICS = "/apis/metrics.k8s.io/v1beta1"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


def used(nano_cores: int, memory_bytes: int, window_s: float = 15.0) -> Usage:
    return Usage(1_800_000_000.0, window_s, nano_cores, 10**10, memory_bytes)


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    """A node with two pods that have been measured, one of which only just now."""
    echo = EchoNode()
    async with open_door(echo) as door:
        for resource in RESOURCES:
            door.server.registry.add(resource)
        await door.client.create(Node(metadata=ObjectMeta(name="n1", labels={"zone": "a"})))
        uids = {}
        for name, labels in (("web", {"app": "web"}), ("young", {"app": "young"}), ("elsewhere", {})):
            made = pod(name)
            made["metadata"]["labels"] = labels
            made["spec"]["nodeName"] = "n1"
            answer = await door.ask("POST", PODS, made)
            assert answer.status == 201, answer.body
            uids[name] = json.loads(answer.body)["metadata"]["uid"]
        containers = {"main": used(250_000_000, 64 << 20), "side": used(1_000, 5_000)}
        echo.used = NodeUsage(
            used(500_000_000, 1 << 30),
            (
                PodUsage("default", "web", uids["web"], 0.0, containers),
                PodUsage("default", "young", uids["young"], 0.0, {"main": used(0, 1, window_s=0.0)}),
                PodUsage("default", "gone", "another-uid", 0.0, containers),
            ),
        )
        yield door


async def ask(door: Door, path: str, **options: Any) -> Any:
    answer = await door.ask("GET", METRICS + path, **options)
    return json.loads(answer.body) | {"_status": answer.status}


async def test_pods_that_have_been_measured_are_listed(door: Door) -> None:
    found = await ask(door, "/namespaces/default/pods")
    assert (found["kind"], found["metadata"]) == ("PodMetricsList", {})
    [item] = found["items"]
    assert item["metadata"]["name"] == "web"
    assert item["metadata"]["labels"] == {"app": "web"}
    assert (item["timestamp"], item["window"]) == ("2027-01-15T08:00:00Z", "15s")
    assert item["containers"] == [
        {"name": "main", "usage": {"cpu": "250000000n", "memory": "65536Ki"}},
        {"name": "side", "usage": {"cpu": "1000n", "memory": "4Ki"}},
    ]


async def test_they_are_selected_by_namespace_label_and_name(door: Door) -> None:
    async def names(path: str, **query: str) -> list[str]:
        return [each["metadata"]["name"] for each in (await ask(door, path, **query))["items"]]

    assert await names("/pods") == ["web"]
    assert await names("/namespaces/other/pods") == []
    assert await names("/pods", labelSelector="app=web") == ["web"]
    assert await names("/pods", labelSelector="app!=web") == []
    assert await names("/pods", fieldSelector="metadata.name=web") == ["web"]
    assert await names("/nodes", labelSelector="zone=a") == ["n1"]
    assert await names("/nodes", labelSelector="zone=b") == []


async def test_one_that_is_not_measured_is_not_found(door: Door) -> None:
    assert (await ask(door, "/namespaces/default/pods/web"))["kind"] == "PodMetrics"
    for name in ("young", "elsewhere", "nobody"):
        found = await ask(door, f"/namespaces/default/pods/{name}")
        assert (found["code"], found["message"]) == (404, f'podmetrics.metrics.k8s.io "default/{name}" not found')
    found = await ask(door, "/nodes/n2")
    assert (found["code"], found["message"]) == (404, 'nodemetrics.metrics.k8s.io "n2" not found')


async def test_tables_have_the_columns_of_upstreams(door: Door) -> None:
    found = await ask(door, "/namespaces/default/pods", accept=TABLE)
    assert [each["name"].upper() for each in found["columnDefinitions"]] == ["NAME", "CPU", "MEMORY", "WINDOW"]
    assert [row["cells"] for row in found["rows"]] == [["web", "250001u", "65540Ki", "15s"]]
    node = await ask(door, "/nodes/n1", accept=TABLE)
    assert [row["cells"] for row in node["rows"]] == [["n1", "500m", "1Gi", "15s"]]


async def test_they_can_neither_be_watched_nor_written(door: Door) -> None:
    assert (await ask(door, "/pods", watch="true"))["code"] == 405
    for method, path in (("POST", "/namespaces/default/pods"), ("DELETE", "/namespaces/default/pods/web")):
        assert (await door.ask(method, METRICS + path, {})).status == 405
    assert (await ask(door, "/pods", labelSelector="a b c"))["code"] == 400


async def test_a_server_without_nodes_knows_of_no_usage() -> None:
    async with open_door() as door:
        for resource in RESOURCES:
            door.server.registry.add(resource)
        assert (await ask(door, "/nodes"))["items"] == []


async def test_the_kubelets_pages_are_at_the_nodes_proxy(door: Door) -> None:
    for name in ("n1", "n1:10250", "https:n1:10250"):
        answer = await door.ask("GET", f"/api/v1/nodes/{name}/proxy/stats/summary")
        assert answer.body.decode() == "n1 at stats/summary"
    assert (await door.ask("GET", "/api/v1/nodes/nobody/proxy/healthz")).status == 404


@pytest.mark.parametrize(
    ("seconds", "text"), [(15.0, "15s"), (10.0623, "10.062s"), (60, "1m0s"), (3725.5, "1h2m5.5s"), (0, "0s")]
)
def test_windows_are_written_as_go_does(seconds: float, text: str) -> None:
    assert go_duration(seconds) == text
