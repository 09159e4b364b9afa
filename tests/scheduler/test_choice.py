"""Tables: which node is chosen, and what is said when none will do."""

from __future__ import annotations

import random
import time
from typing import Any

import msgspec
import pytest

from knarr.api.core.v1 import Node, Pod
from knarr.api.selectors import Selector, selector_of_labels
from knarr.scheduler.cache import Cache, PodInfo
from knarr.scheduler.choice import Choice
from knarr.scheduler.framework import Unschedulable
from knarr.scheduler.plugins import ALL
from knarr.scheduler.plugins.topology_spread import TopologySpread


def node(name: str, *, cpu: str = "4", memory: str = "8Gi", pods: str = "110", **more: Any) -> Node:
    labels = {"kubernetes.io/hostname": name, **more.pop("labels", {})}
    return msgspec.convert(
        {
            "metadata": {"name": name, "uid": f"node-{name}", "labels": labels},
            "spec": more,
            "status": {"allocatable": {"cpu": cpu, "memory": memory, "pods": pods}},
        },
        Node,
    )


def pod(name: str, *, cpu: str = "", memory: str = "", labels: dict[str, str] | None = None, **spec: Any) -> Pod:
    requests = {key: value for key, value in (("cpu", cpu), ("memory", memory)) if value}
    containers = spec.pop("containers", [{"name": "c", "image": "i", "resources": {"requests": requests}}])
    return msgspec.convert(
        {
            "metadata": {"name": name, "namespace": "default", "uid": f"pod-{name}", "labels": labels or {}},
            "spec": {"containers": containers, **spec},
        },
        Pod,
    )


class World:
    """Nodes, pods on them, and the choice."""

    def __init__(self, *nodes: Node) -> None:
        self.cache = Cache()
        plugins = [plugin(self.cache) for plugin in ALL]
        for plugin in plugins:
            if isinstance(plugin, TopologySpread):
                plugin.group_of = self.group
        self.choice = Choice(self.cache, plugins, random.Random(1))
        for one in nodes:
            self.cache.node_changed(one)

    def group(self, one: Pod) -> Selector | None:
        return selector_of_labels({"app": one.metadata.labels["app"]}) if "app" in one.metadata.labels else None

    def put(self, one: Pod, on: str) -> None:
        assert one.spec is not None
        one.spec.node_name = on
        self.cache.pod_changed(one)

    def place(self, one: Pod) -> str:
        info = PodInfo(one)
        chosen = self.choice.node_for(info)
        self.cache.assume(info, chosen.name)
        return chosen.name

    def why_not(self, one: Pod) -> str:
        with pytest.raises(Unschedulable) as raised:
            self.choice.node_for(PodInfo(one))
        return str(raised.value)


def required(key: str, operator: str, *values: str) -> dict[str, Any]:
    term = {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}


def test_without_nodes_it_says_so() -> None:
    assert World().why_not(pod("p")) == "no nodes available to schedule pods"


def test_insufficient_resources_are_counted_over_all_nodes() -> None:
    world = World(node("a"), node("b"), node("c", memory="1Gi"))
    assert world.why_not(pod("p", cpu="5", memory="2Gi")) == (
        "0/3 nodes are available: 1 Insufficient memory, 3 Insufficient cpu. no new claims to deallocate, "
        "preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
    )


def test_room_that_pods_take_is_told_as_curable() -> None:
    world = World(node("a", cpu="1"))
    world.put(pod("there", cpu="600m"), "a")
    assert world.why_not(pod("p", cpu="500m")) == (
        "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: "
        "0/1 nodes are available: 1 No preemption victims found for incoming pod."
    )


def test_each_reason_is_told_in_upstreams_order() -> None:
    world = World(
        node("a", taints=[{"key": "k", "value": "v", "effect": "NoSchedule"}]),
        node("b", unschedulable=True),
        node("c", labels={"disk": "hdd"}),
        node("d", pods="0", labels={"disk": "ssd"}),
    )
    message = world.why_not(pod("p", nodeSelector={"disk": "ssd"}))
    assert message.startswith(
        "0/4 nodes are available: 1 Too many pods, 1 node(s) didn't match Pod's node affinity/selector, "
        "1 node(s) had untolerated taint(s), 1 node(s) were unschedulable. "
    )


@pytest.mark.parametrize(
    ("toleration", "fits"),
    [
        ({"key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule"}, True),
        ({"key": "k", "value": "v"}, True),
        ({"key": "k", "operator": "Exists"}, True),
        ({"operator": "Exists"}, True),
        ({"key": "k", "value": "other"}, False),
        ({"key": "other", "operator": "Exists"}, False),
        ({"key": "k", "operator": "Exists", "effect": "NoExecute"}, False),
    ],
)
def test_tolerations(toleration: dict[str, str], fits: bool) -> None:
    world = World(node("a", taints=[{"key": "k", "value": "v", "effect": "NoSchedule"}]))
    one = pod("p", tolerations=[toleration])
    if fits:
        assert world.place(one) == "a"
    else:
        assert "untolerated taint" in world.why_not(one)


def test_a_soft_taint_only_repels() -> None:
    world = World(node("a", taints=[{"key": "k", "effect": "PreferNoSchedule"}]), node("b"))
    assert [world.place(pod(f"p{i}")) for i in range(3)] == ["b", "b", "b"]


@pytest.mark.parametrize(
    ("operator", "values", "wanted"),
    [
        ("In", ["1"], "a"),
        ("NotIn", ["1"], "b"),
        ("Exists", [], "a"),
        ("DoesNotExist", [], "b"),
        ("Gt", ["0"], "a"),
        ("Lt", ["2"], "a"),
    ],
)
def test_required_node_affinity(operator: str, values: list[str], wanted: str) -> None:
    world = World(node("a", labels={"n": "1"}), node("b"))
    assert world.place(pod("p", affinity=required("n", operator, *values))) == wanted


def test_preferred_node_affinity_draws() -> None:
    term = {"weight": 10, "preference": {"matchExpressions": [{"key": "n", "operator": "Exists"}]}}
    affinity = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [term]}}
    world = World(node("a"), node("b", labels={"n": "1"}), node("c"))
    assert world.place(pod("p", affinity=affinity)) == "b"


def test_host_ports_are_exclusive() -> None:
    def with_port(name: str, **port: Any) -> Pod:
        return pod(name, containers=[{"name": "c", "ports": [{"containerPort": 80, **port}]}])

    world = World(node("a"))
    assert world.place(with_port("one", hostPort=80)) == "a"
    assert world.place(with_port("udp", hostPort=80, protocol="UDP")) == "a"
    assert "didn't have free ports" in world.why_not(with_port("two", hostPort=80, hostIP="10.0.0.1"))


def test_init_containers_and_sidecars_count_as_their_peak() -> None:
    def container(name: str, cpu: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "resources": {"requests": {"cpu": cpu}}, **more}

    one = pod(
        "p",
        containers=[container("c", "1")],
        initContainers=[container("i", "2"), container("s", "500m", restartPolicy="Always"), container("j", "2")],
        overhead={"cpu": "100m"},
    )
    assert PodInfo(one).requests == {"cpu": 2600}  # j beside s, and the overhead


def test_pods_of_one_application_are_spread_over_nodes() -> None:
    world = World(*(node(f"n{i}") for i in range(4)))
    places = [world.place(pod(f"p{i}", cpu="10m", labels={"app": "web"})) for i in range(8)]
    assert sorted(places) == ["n0", "n0", "n1", "n1", "n2", "n2", "n3", "n3"]


def test_a_hard_spread_constraint_holds() -> None:
    constraint = {
        "maxSkew": 1,
        "topologyKey": "zone",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}},
    }
    world = World(node("a", labels={"zone": "1"}), node("b", labels={"zone": "2"}, cpu="1", memory="1Gi"), node("c"))
    placed = [
        world.place(pod(f"p{i}", cpu="400m", labels={"app": "web"}, topologySpreadConstraints=[constraint]))
        for i in range(4)
    ]
    assert sorted(placed) == ["a", "a", "b", "b"]
    extra = pod("p4", cpu="400m", labels={"app": "web"}, topologySpreadConstraints=[constraint])
    assert world.place(extra) == "a"
    message = world.why_not(pod("p5", cpu="400m", labels={"app": "web"}, topologySpreadConstraints=[constraint]))
    assert "1 node(s) didn't match pod topology spread constraints," in message
    assert "1 node(s) didn't match pod topology spread constraints (missing required label)" in message
    assert "1 Insufficient cpu" in message


def test_a_pod_that_ends_gives_its_room_back() -> None:
    world = World(node("a", cpu="1"))
    first = pod("first", cpu="1")
    world.put(first, "a")
    assert "Insufficient cpu" in world.why_not(pod("p", cpu="1"))
    world.cache.pod_changed(msgspec.convert({**msgspec.to_builtins(first), "status": {"phase": "Succeeded"}}, Pod))
    assert world.place(pod("p", cpu="1")) == "a"


def test_a_failed_binding_gives_its_room_back() -> None:
    world = World(node("a", cpu="1"))
    info = PodInfo(pod("p", cpu="1"))
    world.cache.assume(info, "a")
    assert "Insufficient cpu" in world.why_not(pod("q", cpu="1"))
    world.cache.forget(info)
    assert world.place(pod("q", cpu="1")) == "a"


def test_capacity_is_never_exceeded_and_all_of_it_is_used() -> None:
    world = World(*(node(f"n{i}", cpu="1", pods="4") for i in range(10)))
    for number in range(40):
        world.place(pod(f"p{number}", cpu="250m", labels={"app": "web"}))
    assert [len(info.pods) for info in world.cache.nodes] == [4] * 10
    assert "Too many pods" in world.why_not(pod("more"))


def test_hundreds_of_pods_are_placed_in_a_moment() -> None:
    world = World(*(node(f"n{i}", cpu="32", memory="64Gi") for i in range(100)))
    began_s = time.process_time()
    for number in range(500):
        world.place(pod(f"p{number}", cpu="100m", memory="64Mi", labels={"app": "web"}))
    assert time.process_time() - began_s < 2  # 0.1 s here
    assert {len(info.pods) for info in world.cache.nodes} == {5}


def test_nodes_without_the_label_are_the_last_where_a_pod_asks_to_be_spread() -> None:
    constraint = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}
    constraint["labelSelector"] = {"matchLabels": {"app": "web"}}
    world = World(node("a", labels={"zone": "1"}), node("b", labels={"zone": "2"}), node("c"))
    placed = [
        world.place(pod(f"p{i}", cpu="10m", labels={"app": "web"}, topologySpreadConstraints=[constraint]))
        for i in range(6)
    ]
    assert sorted(placed) == ["a", "a", "a", "b", "b", "b"]


def test_a_node_without_all_keys_of_the_hard_constraints_makes_no_domain() -> None:
    constraints = [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": "web"}},
        }
        for key in ("zone", "rack")
    ]
    world = World(node("a", labels={"zone": "1", "rack": "1"}), node("b", labels={"zone": "2"}))
    for number in range(3):
        one = pod(f"p{number}", cpu="10m", labels={"app": "web"}, topologySpreadConstraints=constraints)
        assert world.place(one) == "a"


def test_what_is_remembered_of_nodes_follows_those_that_go() -> None:
    world = World(*(node(f"n{i}", cpu="1") for i in range(4)))
    for number in range(3):
        world.put(pod(f"full-{number}", cpu="1"), f"n{number}")
    assert world.place(pod("first", cpu="600m")) == "n3"
    world.cache.node_gone("n1")
    assert "3 Insufficient cpu" in world.why_not(pod("second", cpu="600m"))
    world.cache.pod_gone("default/full-2")
    assert world.place(pod("third", cpu="600m")) == "n2"
