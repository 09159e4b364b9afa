"""Steps of a pod's way to its node: plugins of these tests, as others would write them."""

from __future__ import annotations

import asyncio
import gc
import math
import warnings
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar

import pytest

from knarr.api.core.v1 import Binding, ObjectReference, Pod
from knarr.api.errors import ServiceUnavailable
from knarr.api.meta.v1 import ObjectMeta
from knarr.client.informer import Informer
from knarr.client.transport import Answer, Request
from knarr.scheduler.cache import NodeInfo, PodInfo
from knarr.scheduler.configuration import profiles_of
from knarr.scheduler.framework import Aspect, BindingRefused, Connections, Rejected, Step, Wait
from knarr.scheduler.plugins import ALL
from tests.cluster import Cluster, simulate
from tests.scheduler.test_scheduler import SMALL, node_of, scheduled
from tests.scheduler.test_scheduler import pod as bare_pod

GROUP = "example.com/gang"


class Gang(Step):
    """Pods of a gang are bound when there are nodes for `SIZE` of them, and none of them before."""

    name = "Gang"
    SIZE: ClassVar[int] = 3
    TIMEOUT_S: ClassVar[float] = 10.0

    def connect(self, to: Connections) -> Sequence[Informer[Any]]:
        self._permits = to.permits
        self._reserved: dict[str, set[str]] = {}
        return ()

    def reserve(self, pod: PodInfo, node: NodeInfo) -> None:
        self._reserved.setdefault(gang_of(pod), set()).add(pod.key)

    def unreserve(self, pod: PodInfo) -> None:
        self._reserved.setdefault(gang_of(pod), set()).discard(pod.key)

    def permit(self, pod: PodInfo, node: NodeInfo) -> Wait | None:
        if not gang_of(pod):
            return None
        if len(self._reserved[gang_of(pod)]) < self.SIZE:
            return Wait(self.TIMEOUT_S)
        for held in self._permits.all():
            if gang_of(held.pod) == gang_of(pod):
                held.allow(self.name)
        return None


class Patient(Gang):
    name = "Patient"
    TIMEOUT_S = 10_000.0


class Refusing(Step):
    name = "Refusing"

    def permit(self, pod: PodInfo, node: NodeInfo) -> Wait | None:
        if pod.pod.metadata.labels.get("refused"):
            raise Rejected(self.name, "not today")
        return None


class OwnBinder(Step):
    """Binds the pods that are labelled so, and marks them by the order of all steps; leaves the others alone."""

    name = "Own"
    steps: ClassVar[list[str]] = []

    def connect(self, to: Connections) -> Sequence[Informer[Any]]:
        self._client = to.client
        self.steps.clear()
        return ()

    def admit(self, pod: PodInfo) -> str:
        self.steps.append("preEnqueue")
        return ""

    def reserve(self, pod: PodInfo, node: NodeInfo) -> None:
        self.steps.append("reserve")

    def unreserve(self, pod: PodInfo) -> None:
        self.steps.append("unreserve")

    def permit(self, pod: PodInfo, node: NodeInfo) -> Wait | None:
        self.steps.append("permit")
        return None

    def before_binding(self, pod: PodInfo, node_name: str) -> Callable[[], Awaitable[None]] | None:
        async def ready() -> None:
            self.steps.append("preBind")

        return ready

    async def bind(self, pod: PodInfo, node_name: str) -> bool:
        metadata = pod.pod.metadata
        self.steps.append("bind")
        if "refused" in metadata.labels:
            raise BindingRefused("not here")
        if "own" not in metadata.labels:
            return False
        binding = Binding(
            metadata=ObjectMeta(name=metadata.name, namespace=metadata.namespace, annotations={"bound-by": "own"}),
            target=ObjectReference(kind="Node", name=node_name),
        )
        await self._client.post(Pod, metadata.name or "", metadata.namespace, "binding", binding)
        return True

    def after_binding(self, pod: PodInfo, node_name: str) -> None:
        self.steps.append("postBind")


def gang_of(pod: PodInfo) -> str:
    return pod.pod.metadata.labels.get(GROUP, "")


def nominated(cluster: Cluster, name: str) -> str | None:
    found = cluster.pods.get(f"default/{name}")
    return found.status.nominated_node_name if found and found.status else None


def pod(name: str, cpu: str = "100m", *, labels: dict[str, str] | None = None, **spec: Any) -> Pod:
    made = bare_pod(name, cpu, **spec)
    made.metadata.labels = labels or {}
    return made


def with_plugins(*kinds: type[Aspect], **plugins: Any) -> dict[str, Any]:
    """What a cluster needs to have these plugins, enabled at all their points."""
    said = {"multiPoint": {"enabled": [{"name": kind.name} for kind in kinds]}, **plugins}
    written = {"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration"}
    there = (*ALL, *kinds)
    return {"profiles": profiles_of(written | {"profiles": [{"plugins": said}]}, there), "plugins": there}


def test_a_gang_is_bound_when_there_is_a_place_for_all_of_it() -> None:
    async def scenario(cluster: Cluster) -> None:
        for number in range(2):
            await cluster.create(pod(f"g{number}", labels={GROUP: "a"}))
        await cluster.create(pod("other"))
        await cluster.until(lambda: node_of(cluster, "other"), within_s=1)
        await cluster.clock.sleep(5)
        assert not any(node_of(cluster, f"g{number}") for number in range(2))
        await cluster.create(pod("g2", labels={GROUP: "a"}))
        await cluster.until(lambda: all(node_of(cluster, f"g{number}") for number in range(3)), within_s=1)

    simulate(scenario, **with_plugins(Gang))


def test_who_waits_keeps_its_place_and_gives_it_back_when_its_time_is_over() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(pod("g0", "900m", labels={GROUP: "a"}))
        await cluster.clock.sleep(1)
        await cluster.create(pod("other", "900m"))
        await cluster.clock.sleep(8)
        assert nominated(cluster, "g0") == "hollow-0"
        assert node_of(cluster, "other") is None
        assert "Insufficient cpu" in (scheduled(cluster, "other")[2] or "")
        await cluster.until(lambda: node_of(cluster, "other") == "hollow-0", within_s=2)
        message = "0/1 nodes are available: 1 rejected due to timeout after waiting 10s at plugin Gang."
        await cluster.until(lambda: scheduled(cluster, "g0") == ("False", "Unschedulable", message), within_s=1)
        assert message in await cluster.events("FailedScheduling")
        assert node_of(cluster, "g0") is None
        assert nominated(cluster, "g0") is None

    simulate(scenario, nodes=1, capacity=SMALL, **with_plugins(Gang))


def test_nobody_waits_longer_than_fifteen_minutes() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(pod("g0", labels={GROUP: "a"}))
        await cluster.clock.sleep(899)
        assert scheduled(cluster, "g0") == ("", None, None)
        await cluster.clock.sleep(2)
        message = "0/1 nodes are available: 1 rejected due to timeout after waiting 15m0s at plugin Patient."
        assert scheduled(cluster, "g0")[2] == message

    simulate(scenario, nodes=1, **with_plugins(Patient))


def test_a_pod_that_is_deleted_while_it_waits_gives_its_place_back_at_once() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(pod("g0", "900m", labels={GROUP: "a"}))
        await cluster.clock.sleep(1)
        await cluster.create(pod("other", "900m"))
        await cluster.until(lambda: scheduled(cluster, "other")[0] == "False")
        await cluster.client.delete(Pod, "g0", "default")
        await cluster.until(lambda: node_of(cluster, "other") == "hollow-0", within_s=1)

    simulate(scenario, nodes=1, capacity=SMALL, **with_plugins(Patient))


def test_a_permit_that_is_refused_is_told_and_frees_the_node() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(pod("p", "900m", labels={"refused": "yes"}))
        await cluster.until(lambda: scheduled(cluster, "p")[0] == "False", within_s=1)
        assert scheduled(cluster, "p") == ("False", "Unschedulable", "0/1 nodes are available: 1 not today.")
        await cluster.create(pod("other", "900m"))
        await cluster.until(lambda: node_of(cluster, "other"), within_s=1)
        figures = {figure.name: figure.values for figure in cluster.scheduler.figures()}
        assert figures["scheduler_schedule_attempts_total"]["default-scheduler", "unschedulable"] == 1

    simulate(scenario, nodes=1, capacity=SMALL, **with_plugins(Refusing))


def test_a_binder_of_ones_own_takes_the_pods_that_it_wants_and_steps_come_in_order() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(pod("mine", labels={"own": "yes"}))
        await cluster.until(lambda: node_of(cluster, "mine"), within_s=1)
        await cluster.clock.sleep(0.1)
        assert OwnBinder.steps == ["preEnqueue", "reserve", "permit", "preBind", "bind", "postBind"]
        bound = cluster.pods.get("default/mine")
        assert bound is not None
        assert bound.metadata.annotations == {"bound-by": "own"}
        await cluster.create(pod("theirs"))
        await cluster.until(lambda: node_of(cluster, "theirs"), within_s=1)
        other = cluster.pods.get("default/theirs")
        assert other is not None
        assert other.metadata.annotations == {}

    binders = {"disabled": [{"name": "DefaultBinder"}], "enabled": [{"name": "Own"}, {"name": "DefaultBinder"}]}
    simulate(scenario, **with_plugins(OwnBinder, bind=binders))


def test_a_binder_that_refuses_is_told_and_what_was_reserved_is_let_go() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(pod("p", labels={"refused": "yes"}))
        await cluster.until(lambda: scheduled(cluster, "p")[0] == "False", within_s=1)
        message = 'running Bind plugin "Own": not here'
        assert scheduled(cluster, "p") == ("False", "SchedulerError", message)
        assert message in await cluster.events("FailedScheduling")
        assert OwnBinder.steps[-2:] == ["bind", "unreserve"]
        begun = OwnBinder.steps.count("bind")
        await cluster.clock.sleep(30)
        assert OwnBinder.steps.count("bind") > begun  # it is tried again

    binders = {"disabled": [{"name": "DefaultBinder"}], "enabled": [{"name": "Own"}, {"name": "DefaultBinder"}]}
    simulate(scenario, nodes=1, **with_plugins(OwnBinder, bind=binders))


class Slow(Step):
    """Says when a pod has come so far, and then takes its time to make ready what it needs."""

    name = "Slow"
    reached: ClassVar[asyncio.Event]

    def permit(self, pod: PodInfo, node: NodeInfo) -> Wait | None:
        self.reached.set()
        return None

    def before_binding(self, pod: PodInfo, node_name: str) -> Callable[[], Awaitable[None]] | None:
        async def ready() -> None:
            await asyncio.Event().wait()

        return ready


@pytest.mark.parametrize("moments", range(10))
def test_the_scheduler_ends_cleanly_whatever_a_pod_waits_for(moments: int) -> None:
    async def scenario(cluster: Cluster) -> None:
        Slow.reached = asyncio.Event()
        await cluster.create(pod("p"))
        await Slow.reached.wait()
        for _ in range(moments):
            await asyncio.sleep(0)

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        simulate(scenario, **with_plugins(Slow))
        gc.collect()
    assert told == []


# A binding whose answer is lost


class Lossy:
    """The scheduler's way to the API server: the first binding fails, and then nothing can be read for a while."""

    def __init__(self, cluster: Cluster, *, took_effect: bool, unreachable_s: float = 0.0) -> None:
        self._clock = cluster.clock
        self._inner = cluster.scheduler._client.transport
        self._took_effect = took_effect
        self._unreachable_s = unreachable_s
        self.lost_s: float | None = None
        cluster.scheduler._client.transport = self

    async def send(self, request: Request) -> Answer:
        if request.method == "POST" and request.path.endswith("/binding") and self.lost_s is None:
            self.lost_s = self._clock.monotonic_s()
            if self._took_effect:
                await self._inner.send(request)
            raise ServiceUnavailable("connection lost")
        away_s = self._clock.monotonic_s() - self.lost_s if self.lost_s is not None else math.inf
        if request.method == "GET" and away_s < self._unreachable_s:
            raise ServiceUnavailable("connection refused")
        return await self._inner.send(request)

    async def close(self) -> None:
        await self._inner.close()


def test_a_binding_that_took_effect_is_no_failure_though_its_answer_is_lost() -> None:
    async def scenario(cluster: Cluster) -> None:
        lossy = Lossy(cluster, took_effect=True)
        await cluster.create(pod("p"))
        await cluster.until(lambda: node_of(cluster, "p"), within_s=1)
        await cluster.clock.sleep(5)
        assert lossy.lost_s is not None
        assert len(await cluster.events("Scheduled")) == 1
        assert await cluster.events("FailedScheduling") == []
        assert scheduled(cluster, "p")[0] == "True"

    simulate(scenario)


def test_a_pod_keeps_its_place_until_it_is_known_that_it_was_not_bound() -> None:
    async def scenario(cluster: Cluster) -> None:
        lossy = Lossy(cluster, took_effect=False, unreachable_s=5.0)
        await cluster.create(pod("p", "900m"))
        await cluster.until(lambda: lossy.lost_s is not None, within_s=1)
        await cluster.create(pod("other", "900m"))
        await cluster.clock.sleep(4)
        assert node_of(cluster, "other") is None
        await cluster.until(lambda: node_of(cluster, "other") or node_of(cluster, "p"), within_s=10)
        assert 'running Bind plugin "DefaultBinder": connection lost' in await cluster.events("FailedScheduling")

    simulate(scenario, nodes=1, capacity=SMALL)
