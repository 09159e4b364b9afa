"""Topology hints: near endpoints for those who ask, in proportion (KEP-2433) or as trafficDistribution says."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest

from knarr.api.apps.v1 import Deployment
from knarr.api.core.v1 import Event, Node, Pod, Service
from knarr.api.discovery.v1 import Endpoint, EndpointSlice
from knarr.controllers.topology_hints import (
    NO_NODE_INFORMATION,
    NO_ZONE,
    Slices,
    distribution_of,
    hint_near,
    hint_shares,
    is_overloaded,
    shared_out,
    shares_of,
    wants_shares,
)
from tests.cluster import Cluster, deployment, simulate

EVEN = {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}
AUTO = {"service.kubernetes.io/topology-mode": "Auto"}


def node(name: str, zone: str | None, cpu: str = "4", *, ready: bool = True, **labels: str) -> Node:
    if zone is not None:
        labels["topology.kubernetes.io/zone"] = zone
    status = {
        "allocatable": {"cpu": cpu} if cpu else {},
        "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
    }
    return msgspec.convert({"metadata": {"name": name, "labels": labels}, "status": status}, Node)


def endpoint(zone: str | None, *, ready: bool = True, hint: str | None = None, number: int = 1) -> Endpoint:
    data: dict[str, Any] = {
        "addresses": [f"10.0.0.{number}"],
        "conditions": {"ready": ready},
        "nodeName": f"node-{zone}",
        "zone": zone,
    }
    if hint:
        data["hints"] = {"forZones": [{"name": hint}]}
    return msgspec.convert(data, Endpoint)


def is_ready(one: Endpoint) -> bool:
    return bool(one.conditions and one.conditions.ready)


def slice_of(*zones: str | None, hinted: bool = False) -> EndpointSlice:
    return EndpointSlice(endpoints=[endpoint(zone, hint=zone if hinted else None) for zone in zones])


def hints(*slices: EndpointSlice) -> dict[str, int]:
    zones = [
        zone.name for one in slices for each in one.endpoints for zone in (each.hints.for_zones if each.hints else [])
    ]
    return dict(Counter(zones))


def service(annotations: dict[str, str] | None = None, **spec: Any) -> Service:
    return msgspec.convert({"metadata": {"name": "web", "annotations": annotations or {}}, "spec": spec}, Service)


# Who asks for what


@pytest.mark.parametrize(
    ("annotations", "wanted"),
    [
        ({}, False),
        (AUTO, True),
        ({"service.kubernetes.io/topology-mode": "auto"}, True),
        ({"service.kubernetes.io/topology-mode": "Disabled"}, False),
        ({"service.kubernetes.io/topology-aware-hints": "Auto"}, True),
        ({**AUTO, "service.kubernetes.io/topology-aware-hints": "Disabled"}, False),
    ],
)
def test_the_annotation_asks_for_shares_and_wins(annotations: dict[str, str], wanted: bool) -> None:
    one = service(annotations, trafficDistribution="PreferSameZone")
    assert (wants_shares(one), distribution_of(one)) == (wanted, None if wanted else "PreferSameZone")


def test_no_distribution_that_is_not_known() -> None:
    assert distribution_of(service()) is None
    assert distribution_of(service(trafficDistribution="PreferFar")) is None


# trafficDistribution


def test_a_ready_endpoint_is_for_its_own_zone() -> None:
    made = EndpointSlice(endpoints=[endpoint("a"), endpoint("b", ready=False), endpoint(None)])
    for distribution in ("PreferClose", "PreferSameZone"):
        hint_near(Slices(create=[made]), distribution)
        assert [msgspec.to_builtins(each.hints) for each in made.endpoints] == [
            {"forZones": [{"name": "a"}]},
            None,
            None,
        ]


def test_prefer_same_node_names_the_node_and_the_zone() -> None:
    made = slice_of("a", None)
    hint_near(Slices(create=[made]), "PreferSameNode")
    assert [msgspec.to_builtins(each.hints) for each in made.endpoints] == [
        {"forZones": [{"name": "a"}], "forNodes": [{"name": "node-a"}]},
        {"forNodes": [{"name": "node-None"}]},
    ]


def test_a_slice_is_written_for_its_hints_only_when_they_are_wrong() -> None:
    right, wrong, old = slice_of("a", hinted=True), slice_of("b"), EndpointSlice(endpoints=[endpoint("c", hint="a")])
    slices = Slices(unchanged=[right, wrong, old])
    hint_near(slices, "PreferSameZone")
    assert slices.unchanged == [right]
    assert [hints(each) for each in slices.update] == [{"b": 1}, {"c": 1}]
    assert [hints(each) for each in (wrong, old)] == [{}, {"a": 1}], "what is in the cache is not changed"


def test_hints_go_when_nobody_asks_for_them_any_more() -> None:
    slices = Slices(create=[slice_of("a", hinted=True)], unchanged=[slice_of("a"), slice_of("a", hinted=True)])
    hint_near(slices, None)
    assert len(slices.unchanged) == 1
    assert hints(*slices.create, *slices.update) == {}


# Shares by CPU


@pytest.mark.parametrize(
    ("nodes", "wanted"),
    [
        ([node("1", "a"), node("2", "b"), node("3", "b", "8")], {"a": 0.25, "b": 0.75}),
        ([node("1", "a", "500m"), node("2", "b", "1500m")], {"a": 0.25, "b": 0.75}),
        ([node("1", "a"), node("2", "b"), node("3", "c", ready=False)], {"a": 0.5, "b": 0.5}),
        (
            [node("1", "a"), node("2", "b"), node("3", None, **{"node-role.kubernetes.io/control-plane": ""})],
            {"a": 0.5, "b": 0.5},
        ),
        ([node("1", "a"), node("2", "a")], None),
        ([node("1", "a"), node("2", "b"), node("3", None)], None),
        ([node("1", "a"), node("2", "b", "")], None),
        ([], None),
    ],
)
def test_the_share_of_a_zone_is_its_part_of_the_cpus(nodes: list[Node], wanted: dict[str, float] | None) -> None:
    assert shares_of(nodes) == wanted


@pytest.mark.parametrize(
    ("shares", "endpoints", "wanted"),
    [
        (EVEN, 3, {"a": (1, 1), "b": (1, 1), "c": (1, 1)}),
        (EVEN, 6, {"a": (2, 2), "b": (2, 2), "c": (2, 2)}),
        (EVEN, 10, {"a": (3, 4), "b": (3, 4), "c": (3, 4)}),
        ({"a": 0.5, "b": 0.25, "c": 0.25}, 20, {"a": (9, 11), "b": (5, 6), "c": (5, 6)}),
    ],
)
def test_each_zone_has_a_least_and_a_most(
    shares: dict[str, float], endpoints: int, wanted: dict[str, tuple[int, int]]
) -> None:
    zones, fault = shared_out(shares, endpoints)
    assert zones is not None
    assert fault == ""
    assert {zone: (share.minimum, share.maximum) for zone, share in zones.items()} == {
        zone: (least, endpoints - sum(other[0] for name, other in wanted.items() if name != zone))
        for zone, (least, _) in wanted.items()
    }


@pytest.mark.parametrize(
    ("shares", "endpoints", "wanted"),
    [
        (None, 3, "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes"),
        (EVEN, 2, "Insufficient number of endpoints (2 endpoints, 3 zones)"),
        (
            EVEN,
            4,
            "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold "
            "(4 endpoints, 3 zones)",
        ),
    ],
)
def test_there_are_no_hints_where_some_would_bear_too_much(
    shares: dict[str, float] | None, endpoints: int, wanted: str
) -> None:
    assert shared_out(shares, endpoints) == (None, wanted)


def test_endpoints_of_a_zone_with_too_many_are_lent_to_others() -> None:
    slices = Slices(create=[slice_of("a", "a", "a", "b", "b", "c")])
    hinted, fault = hint_shares(slices, EVEN)
    assert (hinted, fault) == ({"a": 2, "b": 2, "c": 2}, "")
    assert hints(*slices.create) == hinted


def test_an_endpoint_of_a_place_without_a_zone_stops_hints_for_all() -> None:
    slices = Slices(create=[slice_of("a", "b", None)], unchanged=[slice_of("a", hinted=True)])
    assert hint_shares(slices, {"a": 0.5, "b": 0.5}) == ({}, NO_ZONE)
    assert hints(*slices.create, *slices.update, *slices.unchanged) == {}


def test_slices_whose_hints_still_fit_are_not_written() -> None:
    stays = slice_of("a", "b", "c", hinted=True)
    slices = Slices(create=[slice_of("a", "b", "c")], unchanged=[stays])
    assert hint_shares(slices, EVEN) == ({"a": 2, "b": 2, "c": 2}, "")
    assert (slices.unchanged, slices.update) == ([stays], [])


def test_slices_whose_hints_do_not_fit_any_more_are() -> None:
    for wrong in (slice_of("a", "b", "c"), slice_of("a", "a", "a", "b", "c", "d", hinted=True)):
        slices = Slices(unchanged=[wrong])
        hint_shares(slices, EVEN)
        assert (slices.unchanged, len(slices.update)) == ([], 1)


def test_only_ready_endpoints_count() -> None:
    slices = Slices(create=[EndpointSlice(endpoints=[endpoint("a"), endpoint("b"), endpoint("b", ready=False)])])
    assert hint_shares(slices, {"a": 0.5, "b": 0.5}) == ({"a": 1, "b": 1}, "")
    assert slices.create[0].endpoints[2].hints is None


def test_without_shares_hints_go() -> None:
    slices = Slices(unchanged=[slice_of("a", "b", hinted=True)])
    assert hint_shares(slices, None) == ({}, NO_NODE_INFORMATION)
    assert hints(*slices.update) == {}


def test_a_service_is_looked_at_again_when_a_zone_would_bear_too_much() -> None:
    assert not is_overloaded({"a": 3, "b": 3}, {"a": 0.5, "b": 0.5})
    assert is_overloaded({"a": 3, "b": 3}, {"a": 0.8, "b": 0.2})
    assert is_overloaded({"a": 3, "b": 3}, {"a": 0.4, "b": 0.4, "c": 0.2})
    assert is_overloaded({"a": 3, "b": 3}, None)
    assert not is_overloaded({}, {"a": 0.5, "b": 0.5})


# In a cluster


def zone_nodes(zones: dict[str, str]) -> Any:
    async def label(cluster: Cluster) -> None:
        for name, zone in zip(sorted(cluster.nodes.names), zones.values(), strict=True):
            labels = {"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}}
            await cluster.client.patch(Node, name, labels)

    return label


def web(annotations: dict[str, str], **spec: Any) -> Service:
    data = {
        "metadata": {"name": "web", "namespace": "default", "annotations": annotations},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}], **spec},
    }
    return msgspec.convert(data, Service)


def of_web(cluster: Cluster) -> list[EndpointSlice]:
    return cluster.informers.of(EndpointSlice).all("default")


def told(cluster: Cluster) -> list[tuple[str, str]]:
    events = cluster.informers.of(Event).all("default")
    return [
        (each.reason or "", each.message or "")
        for each in events
        if each.source and each.source.component == "endpoint-slice-controller"
    ]


def test_a_service_with_shares_tells_when_it_has_hints_and_when_not() -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.informers.of(Event)
        await zone_nodes({"1": "a", "2": "b", "3": "c"})(cluster)
        await cluster.create(web(AUTO))
        await cluster.create(deployment(replicas=3))
        await cluster.until(lambda: hints(*of_web(cluster)) == {"a": 1, "b": 1, "c": 1})
        enabled = ("TopologyAwareHintsEnabled", "Topology Aware Hints has been enabled, addressType: IPv4")
        await cluster.until(lambda: enabled in told(cluster))
        await cluster.patch(Deployment, "web", {"spec": {"replicas": 2}})
        few = "Insufficient number of endpoints (2 endpoints, 3 zones), addressType: IPv4"
        await cluster.until(lambda: ("TopologyAwareHintsDisabled", few) in told(cluster))
        assert hints(*of_web(cluster)) == {}
        await cluster.patch(Deployment, "web", {"spec": {"replicas": 3}})
        await cluster.until(lambda: sum(hints(*of_web(cluster)).values()) == 3)
        await cluster.patch(Service, "web", {"metadata": {"annotations": {next(iter(AUTO)): None}}})
        await cluster.until(lambda: hints(*of_web(cluster)) == {})
        disabled = ("TopologyAwareHintsDisabled", "Topology Aware Hints has been disabled, addressType: IPv4")
        await cluster.until(lambda: disabled in told(cluster))

    simulate(scenario, nodes=3)


def test_traffic_distribution_gives_hints_and_takes_them_away() -> None:
    async def scenario(cluster: Cluster) -> None:
        await zone_nodes({"1": "a", "2": "b", "3": "c"})(cluster)
        await cluster.create(web({}, trafficDistribution="PreferSameNode"))
        await cluster.create(deployment(replicas=3))
        await cluster.until(lambda: sum(hints(*of_web(cluster)).values()) == 3)
        for each in of_web(cluster)[0].endpoints:
            assert each.hints is not None
            assert [zone.name for zone in each.hints.for_zones] == [each.zone]
            assert [node.name for node in each.hints.for_nodes] == [each.node_name]
        await cluster.patch(Service, "web", {"spec": {"trafficDistribution": None}})
        await cluster.until(lambda: hints(*of_web(cluster)) == {})

    simulate(scenario, nodes=3)


def test_pods_of_a_node_that_is_gone_are_no_endpoints_unless_the_service_wants_all() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(web({}))
        placed = {"spec": {"nodeName": "ghost", "containers": [{"name": "c", "image": "i"}]}}
        pod = msgspec.convert(
            {"metadata": {"name": "p", "namespace": "default", "labels": {"app": "web"}}, **placed}, Pod
        )
        made = await cluster.client.create(pod)
        status = {"phase": "Running", "podIP": "10.0.0.9", "podIPs": [{"ip": "10.0.0.9"}]}
        ready = {**status, "conditions": [{"type": "Ready", "status": "True"}]}
        await cluster.client.patch(Pod, "p", {"status": ready}, "default", subresource="status")
        assert made
        await cluster.clock.sleep(1)
        assert [each for one in of_web(cluster) for each in one.endpoints] == []
        await cluster.client.create(node("ghost", "a"))
        await cluster.until(lambda: [each.zone for one in of_web(cluster) for each in one.endpoints] == ["a"])

    simulate(scenario)


def test_slices_say_when_what_changed_them_came_to_pass() -> None:
    key = "endpoints.kubernetes.io/last-change-trigger-time"

    async def scenario(cluster: Cluster) -> None:
        made = await cluster.create(web({}))
        await cluster.until(lambda: of_web(cluster))
        (empty,) = of_web(cluster)
        created = made.metadata.creation_timestamp
        assert created is not None
        assert empty.metadata.annotations == {key: f"{created:%Y-%m-%dT%H:%M:%SZ}"}
        await cluster.create(deployment(replicas=1))
        await cluster.until(lambda: [each for one in of_web(cluster) for each in one.endpoints if is_ready(each)])
        await cluster.clock.sleep(1)
        (pod,) = cluster.pods.all()
        (ready,) = [each for each in (pod.status.conditions if pod.status else []) if each.type == "Ready"]
        assert ready.last_transition_time is not None
        assert of_web(cluster)[0].metadata.annotations == {key: f"{ready.last_transition_time:%Y-%m-%dT%H:%M:%SZ}"}
        # What no pod and no Service's birth has caused has no such time.
        await cluster.patch(Service, "web", {"metadata": {"labels": {"team": "x"}}})
        await cluster.until(lambda: of_web(cluster)[0].metadata.labels.get("team") == "x")
        assert of_web(cluster)[0].metadata.annotations == {}

    simulate(scenario)
