"""Who is tried again when something happens: hints in tables, and that nobody else is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec
import pytest

from knarr.api.core.v1 import Namespace, Node, PersistentVolumeClaim, Pod
from knarr.client.informer import Informer
from knarr.scheduler.cache import Cache, NodeInfo, PodInfo
from knarr.scheduler.framework import Aspect, Connections, Rejected, Step, Wait
from knarr.scheduler.happenings import Happening, Hint, What, node_difference
from knarr.scheduler.plugins.inter_pod_affinity import InterPodAffinity
from knarr.scheduler.plugins.node_affinity import NodeAffinity
from knarr.scheduler.plugins.node_ports import NodePorts
from knarr.scheduler.plugins.node_unschedulable import NodeUnschedulable
from knarr.scheduler.plugins.resources_fit import ResourcesFit
from knarr.scheduler.plugins.taint_toleration import TaintToleration
from knarr.scheduler.plugins.topology_spread import TopologySpread
from tests.cluster import Cluster, simulate
from tests.scheduler.test_choice import node, pod
from tests.scheduler.test_scheduler import SMALL, node_of, scheduled
from tests.scheduler.test_scheduler import pod as cluster_pod
from tests.scheduler.test_steps import with_plugins

HOST = "kubernetes.io/hostname"
NEAR = {"labelSelector": {"matchLabels": {"app": "x"}}, "topologyKey": HOST}
SPREAD = {"labelSelector": {"matchLabels": {"app": "x"}}, "topologyKey": HOST, "maxSkew": 1}


def affinity(kind: str) -> dict[str, Any]:
    return {"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [NEAR]}}}


def spread() -> dict[str, Any]:
    return {"topologySpreadConstraints": [SPREAD | {"whenUnsatisfiable": "DoNotSchedule"}]}


def x(name: str = "other", app: str = "x") -> PodInfo:
    return PodInfo(pod(name, labels={"app": app}))


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        (None, node("a"), What.ADDED),
        (node("a", cpu="1"), node("a", cpu="2"), What.ALLOCATABLE),
        (node("a"), node("a", labels={"k": "v"}), What.LABELS),
        (node("a"), node("a", taints=[{"key": "k", "effect": "NoSchedule"}]), What.TAINTS),
        (node("a"), node("a"), What(0)),
    ],
)
def test_nodes_differ_in_ways(old: Node | None, new: Node, what: What) -> None:
    assert node_difference(old, new) == what


@pytest.mark.parametrize(
    ("kind", "asks", "there", "hint"),
    [
        (ResourcesFit, pod("p", cpu="2"), node("a", cpu="1"), Hint.SKIP),
        (ResourcesFit, pod("p", cpu="2"), node("a", cpu="2"), Hint.QUEUE),
        (NodeAffinity, pod("p", nodeSelector={"k": "v"}), node("a"), Hint.SKIP),
        (NodeAffinity, pod("p", nodeSelector={"k": "v"}), node("a", labels={"k": "v"}), Hint.QUEUE),
        (TaintToleration, pod("p"), node("a", taints=[{"key": "k", "effect": "NoSchedule"}]), Hint.SKIP),
        (TaintToleration, pod("p"), node("a"), Hint.QUEUE),
        (NodeUnschedulable, pod("p"), node("a"), Hint.QUEUE),
        (NodePorts, pod("p"), node("a"), Hint.QUEUE),
    ],
)
def test_a_plugin_about_one_node_wants_that_node_to_do(kind: Any, asks: Pod, there: Node, hint: Hint) -> None:
    info = NodeInfo("a")
    info.set_node(there)
    happening = Happening(Node, What.ADDED, None, there, info)
    assert kind(Cache()).hint(PodInfo(asks), happening) is hint


def moved(kind: type[Any], what: What, old: Any, new: Any) -> Happening:
    return Happening(kind, what, old, new)


@pytest.mark.parametrize(
    ("kind", "spec", "happening", "hint"),
    [
        (InterPodAffinity, affinity("podAffinity"), moved(Pod, What.PLACED, None, x()), Hint.AT_ONCE),
        (InterPodAffinity, affinity("podAffinity"), moved(Pod, What.PLACED, None, x(app="y")), Hint.SKIP),
        (InterPodAffinity, affinity("podAntiAffinity"), moved(Pod, What.PLACED, None, x()), Hint.SKIP),
        (InterPodAffinity, affinity("podAntiAffinity"), moved(Pod, What.LEFT, x(), None), Hint.QUEUE),
        (InterPodAffinity, affinity("podAntiAffinity"), moved(Pod, What.LEFT, x(app="y"), None), Hint.SKIP),
        (InterPodAffinity, affinity("podAntiAffinity"), moved(Pod, What.LABELS, x(), x(app="y")), Hint.QUEUE),
        (InterPodAffinity, affinity("podAffinity"), moved(Namespace, What.CHANGED, None, None), Hint.SKIP),
        (
            InterPodAffinity,
            affinity("podAffinity"),
            moved(Node, What.LABELS, node("a"), node("a", labels={"k": "v"})),
            Hint.SKIP,
        ),
        (
            InterPodAffinity,
            affinity("podAffinity"),
            moved(Node, What.LABELS, node("a"), node("a", labels={HOST: "b"})),
            Hint.QUEUE,
        ),
        (TopologySpread, spread(), moved(Pod, What.PLACED, None, x()), Hint.QUEUE),
        (TopologySpread, spread(), moved(Pod, What.LEFT, x(app="y"), None), Hint.SKIP),
        (TopologySpread, spread(), moved(Node, What.ADDED, None, node("a", labels={HOST: "a"})), Hint.QUEUE),
    ],
)
def test_a_plugin_about_other_pods_wants_them_to_matter(
    kind: Any, spec: dict[str, Any], happening: Happening, hint: Hint
) -> None:
    assert kind(Cache()).hint(PodInfo(pod("p", **spec)), happening) is hint


def attempts(cluster: Cluster, result: str = "unschedulable") -> float:
    figures = {figure.name: figure.values for figure in cluster.scheduler.figures()}
    found: Any = figures["scheduler_schedule_attempts_total"]["default-scheduler", result]
    return float(found)


def test_what_cannot_help_costs_no_attempt_and_nothing_is_missed_for_ever() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(cluster_pod("p", "2"))
        await cluster.until(lambda: scheduled(cluster, "p")[0] == "False")
        before = attempts(cluster)
        for number in range(20):
            await cluster.client.patch(Node, "hollow-0", {"metadata": {"labels": {"n": str(number)}}})
            patch = {"status": {"allocatable": {"cpu": "1", "memory": f"{1000 + number}Mi", "pods": "110"}}}
            await cluster.client.patch(Node, "hollow-1", patch, subresource="status")
            await cluster.clock.sleep(1)
        assert attempts(cluster) == before
        await cluster.clock.sleep(300)
        assert attempts(cluster) == before + 1  # in case something was missed

    simulate(scenario, capacity=SMALL)


def test_a_node_that_lacks_only_what_is_known_to_be_missing_is_left_alone_until_that_is_there() -> None:
    async def scenario(cluster: Cluster) -> None:
        for number in range(2):
            await cluster.create(cluster_pod(f"big-{number}", "900m"))
        await cluster.until(lambda: all(node_of(cluster, f"big-{n}") for n in range(2)))
        await cluster.client.patch(Node, "hollow-0", {"metadata": {"labels": {"disk": "ssd"}}})
        await cluster.clock.sleep(1)
        await cluster.create(cluster_pod("p", "500m", nodeSelector={"disk": "ssd"}))
        await cluster.until(lambda: scheduled(cluster, "p")[0] == "False")
        await cluster.clock.sleep(20)
        before = attempts(cluster)
        await cluster.client.patch(Node, "hollow-1", {"metadata": {"labels": {"disk": "ssd"}}})
        await cluster.clock.sleep(20)
        assert attempts(cluster) == before
        await cluster.client.delete(
            Pod, next(f"big-{n}" for n in range(2) if node_of(cluster, f"big-{n}") == "hollow-1"), "default"
        )
        await cluster.until(lambda: node_of(cluster, "p") == "hollow-1", within_s=1)

    simulate(scenario, nodes=2, capacity=SMALL)


def test_room_that_was_kept_for_a_pod_is_given_to_others_when_it_is_deleted() -> None:
    def nominated(cluster: Cluster) -> object:
        found = cluster.pods.get("default/urgent")
        return found and found.status and found.status.nominated_node_name

    async def scenario(cluster: Cluster) -> None:
        await cluster.create(cluster_pod("low", "600m"))
        await cluster.until(lambda: node_of(cluster, "low"))
        await cluster.create(cluster_pod("urgent", "900m", priorityClassName="system-cluster-critical"))
        await cluster.until(lambda: nominated(cluster), within_s=1)
        await cluster.create(cluster_pod("small", "300m"))
        await cluster.until(lambda: scheduled(cluster, "small")[0] == "False", within_s=1)
        await cluster.client.delete(Pod, "urgent", "default")
        await cluster.until(lambda: node_of(cluster, "small"), within_s=1)
        assert cluster.pods.get("default/low") is not None  # it has not ended yet: there is no other room

    simulate(scenario, nodes=1, capacity=SMALL, stop_s=(20.0, 20.0))


class Parent(Step):
    """A pod goes nowhere before its parent is there."""

    name = "Parent"
    helped_by: ClassVar = {Pod: What.ADDED}
    asked: ClassVar[list[str]] = []

    def connect(self, to: Connections) -> Sequence[Informer[Any]]:
        self._pods = to.informers.of(Pod)
        self.asked.clear()
        return ()

    def hint(self, pod: PodInfo, happening: Happening) -> Hint:
        name = happening.new.pod.metadata.name
        self.asked.append(name)
        return Hint.QUEUE if name == pod.pod.metadata.labels.get("parent") else Hint.SKIP

    def permit(self, pod: PodInfo, node: NodeInfo) -> Wait | None:
        parent = pod.pod.metadata.labels.get("parent")
        if parent and self._pods.get(f"default/{parent}") is None:
            raise Rejected(self.name, "no parent")
        return None


class Doorkeeper(Step):
    """Pods are not even tried before a claim of their name is there."""

    name = "Doorkeeper"
    helped_by: ClassVar = {PersistentVolumeClaim: What.ADDED}

    def connect(self, to: Connections) -> Sequence[Informer[Any]]:
        self._claims = to.informers.of(PersistentVolumeClaim)
        return (self._claims,)

    def admit(self, pod: PodInfo) -> str:
        return "" if self._claims.get(pod.key) else "no claim"


def test_a_pod_whose_permit_was_refused_is_tried_again_for_what_its_plugin_waits_for() -> None:
    async def scenario(cluster: Cluster) -> None:
        child = cluster_pod("child")
        child.metadata.labels = {"parent": "mother"}
        await cluster.create(child)
        await cluster.until(lambda: scheduled(cluster, "child")[0] == "False")
        before = attempts(cluster)
        await cluster.create(cluster_pod("stranger"))
        await cluster.clock.sleep(20)
        assert Parent.asked == ["stranger"]
        assert attempts(cluster) == before
        await cluster.create(cluster_pod("mother"))
        await cluster.until(lambda: node_of(cluster, "child"), within_s=1)

    simulate(scenario, **with_plugins(Parent))


def test_a_pod_that_is_not_admitted_is_gated_until_it_is() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(cluster_pod("p"))
        await cluster.clock.sleep(400)
        assert node_of(cluster, "p") is None
        assert attempts(cluster) == 0
        figures = {figure.name: figure.values for figure in cluster.scheduler.figures()}
        assert figures["scheduler_pending_pods"]["gated",] == 1
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        claim = {"metadata": {"name": "p", "namespace": "default"}, "spec": spec}
        await cluster.create(msgspec.convert(claim, PersistentVolumeClaim))
        await cluster.until(lambda: node_of(cluster, "p"), within_s=1)

    simulate(scenario, **with_plugins(Doorkeeper))


def test_every_plugin_that_filters_names_what_helps() -> None:
    from knarr.scheduler.plugins import ALL

    silent: list[type[Aspect]] = [plugin for plugin in ALL if plugin.filters and not plugin.helped_by]
    assert silent == []
