"""A pod's way into service and out of it, in virtual time: what the agent waits for, and for how long at most."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from knarr.api.coordination import data_planes
from knarr.api.coordination.v1 import Lease, LeaseSpec
from knarr.api.core.pod_state import IN_SERVICE
from knarr.api.core.v1 import ObjectReference, Pod, PodSpec, Service, ServicePort, ServiceSpec
from knarr.api.discovery.v1 import Endpoint, EndpointConditions, EndpointSlice
from knarr.api.errors import NotFound
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.registry import built_in
from knarr.api.types import replace
from knarr.apiserver.server import APIServer, InProcessTransport
from knarr.client.client import Client
from knarr.client.informer import Informers, version_of
from knarr.client.transport import Answer, Request
from knarr.clock import micro_time
from knarr.controllers.endpointslice import EndpointSlices
from knarr.node.data_planes import revision_of
from knarr.node.in_service import ON_THE_WAY_S, drain_bound_s
from knarr.node.runtime.sim import SimRuntime
from knarr.node.traffic import Traffic
from knarr.simulate.clock import VirtualClock, run
from knarr.store.memory import MemoryStore
from tests.node.cluster import ADMINISTRATOR, NodeCluster, hollow_config

APP = {"app": "web"}
NEVER = 0


class Rig(NodeCluster):
    """A node whose agent sees EndpointSlices, the loop that writes them, and data planes that the test plays."""

    def __init__(self, clock: VirtualClock, tmp_path: Path, drain_s_max: float = 10.0) -> None:
        super().__init__(clock, SimRuntime(clock), replace(hollow_config(tmp_path), drain_s_max=drain_s_max))
        self.informers = Informers(self.client, clock)
        self.slices = EndpointSlices(self.client, self.informers, clock)
        self.silent: set[str] = set()
        """Data planes that renew their leases, but acknowledge nothing more."""
        self.dead: set[str] = set()

    async def plane(self, name: str) -> None:
        """Play a data plane: it acknowledges everything after 50 ms."""
        assert self.informers is not None
        slices = self.informers.of(EndpointSlice)
        applied = NEVER
        while name not in self.dead:
            if name not in self.silent:
                applied = slices.revision
            await self.acknowledge(name, applied)
            await self.clock.sleep(0.05)

    async def acknowledge(self, name: str, revision: int) -> None:
        metadata = ObjectMeta(
            name=name,
            namespace=data_planes.NAMESPACE,
            labels={data_planes.LABEL: "data-plane"},
            annotations={data_planes.APPLIED_REVISION: str(revision)},
        )
        spec = LeaseSpec(holder_identity=name, lease_duration_seconds=15, renew_time=micro_time(self.clock.time_s()))
        try:
            found = await self.client.get(Lease, name, data_planes.NAMESPACE)
        except NotFound:
            await self.client.create(Lease(metadata=metadata, spec=spec))
        else:
            await self.client.update(replace(found, metadata=replace(found.metadata, **_written(metadata)), spec=spec))

    async def service(self, name: str = "web", **spec: Any) -> None:
        wanted = ServiceSpec(selector=APP, ports=[ServicePort(port=80)], ip_families=["IPv4"])
        for key, value in spec.items():
            setattr(wanted, key, value)
        await self.client.create(Service(metadata=ObjectMeta(name=name, namespace="default"), spec=wanted))

    async def web(self, name: str = "web", *, grace_s: int = 30, **metadata: Any) -> Pod:
        """A pod of the Service."""
        return await self.pod(
            name,
            metadata={"labels": {**APP, "sim.knarr.dev/stop-s": "0"}, **metadata},
            terminationGracePeriodSeconds=grace_s,
        )

    def in_service(self, name: str = "web") -> tuple[str, str]:
        return self.condition(name, IN_SERVICE)[:2]

    def states(self, name: str = "web") -> list[tuple[str, str, str]]:
        """Whether it was ready, and in service, as its status told one after the other."""
        told: list[tuple[str, str, str]] = []
        for pod in self.history.get(name, []):
            conditions = {each.type: each for each in pod.status.conditions} if pod.status else {}
            ready, found = conditions.get("Ready"), conditions.get(IN_SERVICE)
            state = (
                ready.status if ready else "",
                found.status if found else "",
                (found.reason or "") if found else "",
            )
            if not told or told[-1] != state:
                told.append(state)
        return told

    async def serving(self, name: str = "web", *, reason: str = "Acknowledged") -> None:
        await self.until(lambda: self.in_service(name) == ("True", reason))

    async def slice_by_hand(self, pod: Pod) -> None:
        """An endpoint that no loop takes away."""
        endpoint = Endpoint(addresses=["10.244.0.9"], target_ref=ObjectReference(kind="Pod", uid=pod.metadata.uid))
        metadata = ObjectMeta(name="by-hand", namespace="default")
        await self.client.create(EndpointSlice(metadata=metadata, address_type="IPv4", endpoints=[endpoint]))
        await self.clock.sleep(0.1)

    async def ends_after_s(self, name: str = "web", grace_s: int | None = None) -> float:
        """Delete a pod; answers after how long its container was told to end."""
        began_s = self.clock.monotonic_s()
        await self.delete(name, grace_s)
        while not [each for each in await self.events(name) if each[0] == "Killing"]:
            await self.clock.sleep(0.01)
        took_s = self.clock.monotonic_s() - began_s
        await self.until(lambda: self.get(name) is None)
        return took_s

    async def reasons(self, name: str = "web") -> list[str]:
        return [reason for reason, _ in await self.events(name) if "Drained" in reason or "InService" in reason]


class SlowLeases:
    """A way to the API server on which leases are late."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig

    async def send(self, request: Request) -> Answer:
        if request.path.endswith("/leases"):
            await self._rig.clock.sleep(0.5)
        return await InProcessTransport(self._rig.server).send(request)

    async def close(self) -> None:
        return None


def _written(metadata: ObjectMeta) -> dict[str, Any]:
    return {"labels": metadata.labels, "annotations": metadata.annotations}


def simulate(
    scenario: Callable[[Rig], Awaitable[None]],
    tmp_path: Path,
    *planes: str,
    drain_s_max: float = 10.0,
    slices_are_written: bool = True,
) -> None:
    async def main(clock: VirtualClock) -> None:
        rig = Rig(clock, tmp_path, drain_s_max)
        assert rig.informers is not None
        tasks = [asyncio.ensure_future(each) for each in (rig.informers.run(),)]
        if slices_are_written:
            tasks.append(asyncio.ensure_future(rig.slices.run()))
        async with rig.running():
            tasks += [asyncio.ensure_future(rig.plane(name)) for name in planes]
            await clock.sleep(0.5)
            await scenario(rig)
            for task in tasks:
                assert not task.done() or task.exception() is None
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    run(main)


def simulated(*planes: str, **how: Any) -> Callable[[Callable[[Rig], Awaitable[None]]], Callable[[Path], None]]:
    """The test that a scenario is, with these data planes."""

    def made(scenario: Callable[[Rig], Awaitable[None]]) -> Callable[[Path], None]:
        def test(tmp_path: Path) -> None:
            simulate(scenario, tmp_path, *planes, **how)

        return test

    return made


# The way out


@simulated("data-plane.one", "data-plane.two")
async def test_a_pod_is_told_to_end_only_when_no_data_plane_leads_to_it_any_more(rig: Rig) -> None:
    await rig.service()
    await rig.web()
    await rig.serving()
    rig.silent.add("data-plane.two")
    await rig.delete("web")
    await rig.until(lambda: rig.in_service() == ("True", "Draining"))
    await rig.clock.sleep(3.0)
    found = await rig.client.list(EndpointSlice, "default")
    [endpoint] = found.items[0].endpoints
    assert endpoint.conditions == EndpointConditions(ready=False, serving=True, terminating=True)
    assert rig.condition("web", IN_SERVICE)[2] == "still led to by data-plane.two"
    assert rig.ready("web")
    assert rig.status("web").state.running is not None  # type: ignore[union-attr]
    assert "Killing" not in [reason for reason, _ in await rig.events("web")]
    rig.silent.clear()
    await rig.until(lambda: rig.get("web") is None, within_s=1.0)
    assert rig.states()[-1][1:] == ("False", "Drained")
    assert await rig.reasons() == ["Drained"]


@simulated("data-plane.one")
async def test_a_connection_that_was_on_its_way_when_all_confirmed_still_meets_a_pod_that_serves(rig: Rig) -> None:
    await rig.service()
    await rig.web()
    await rig.serving()
    rig.silent.add("data-plane.one")
    ends = asyncio.ensure_future(rig.ends_after_s())
    await rig.clock.sleep(2.0)
    [slice_] = (await rig.client.list(EndpointSlice, "default")).items
    await rig.acknowledge("data-plane.one", version_of(slice_))
    assert 2.0 + ON_THE_WAY_S <= await ends < 2.5


@simulated("data-plane.one", "data-plane.two")
async def test_one_that_never_acknowledges_holds_up_a_pod_for_the_bound_and_no_longer(rig: Rig) -> None:
    await rig.service()
    for name, grace_s, expected_s in (("a", 60, 10.0), ("b", 8, 4.0), ("c", 1, 0.5)):
        await rig.web(name, grace_s=grace_s)
        await rig.serving(name)
        rig.silent.add("data-plane.two")
        took_s = await rig.ends_after_s(name)
        assert expected_s <= took_s < expected_s + 0.3
        assert (await rig.reasons(name)) == ["NotDrained"]
        texts = dict(await rig.events(name))
        assert texts["NotDrained"].endswith(f"not confirmed within {expected_s:g} s by data-plane.two")
        assert rig.states(name)[-1][1:] == ("False", "NotAcknowledged")
        rig.silent.clear()


@simulated("data-plane.one", "data-plane.two")
async def test_one_that_dies_is_not_waited_for_once_its_lease_is_over(rig: Rig) -> None:
    await rig.service()
    for name in ("a", "b"):
        await rig.web(name)
        await rig.serving(name)
    rig.dead.add("data-plane.two")
    await rig.clock.sleep(12.0)
    # Its lease of 15 s ends in 3 s, before the bound of 10 s.
    assert 2.5 < await rig.ends_after_s("a") < 3.5
    assert await rig.ends_after_s("b") < 0.3
    assert [await rig.reasons(name) for name in ("a", "b")] == [["Drained"], ["Drained"]]


@simulated("data-plane.one", "data-plane.two")
async def test_one_that_restarts_with_an_old_revision_is_waited_for_until_it_has_caught_up(rig: Rig) -> None:
    await rig.service()
    await rig.web()
    await rig.serving()
    rig.dead.add("data-plane.two")
    await rig.clock.sleep(1.0)
    await rig.acknowledge("data-plane.two", NEVER)
    ends = asyncio.ensure_future(rig.ends_after_s())
    await rig.clock.sleep(2.0)
    assert not ends.done()
    await rig.acknowledge("data-plane.two", 10**9)
    assert 2.0 <= await ends < 2.2


@simulated("data-plane.one", "data-plane.two")
async def test_a_lease_that_is_taken_away_is_not_waited_for(rig: Rig) -> None:
    await rig.service()
    await rig.web()
    await rig.serving()
    rig.silent.add("data-plane.two")
    ends = asyncio.ensure_future(rig.ends_after_s())
    await rig.clock.sleep(1.0)
    rig.dead.add("data-plane.two")
    await rig.clock.sleep(0.2)
    await rig.client.delete(Lease, "data-plane.two", data_planes.NAMESPACE)
    assert await ends < 1.5


@simulated("data-plane.one")
async def test_slices_that_nobody_changes_hold_up_a_pod_for_the_bound_and_no_longer(rig: Rig) -> None:
    pod = await rig.web()
    await rig.until(lambda: rig.ready("web"))
    await rig.slice_by_hand(pod)
    assert 10.0 <= await rig.ends_after_s() < 10.3
    assert "by the EndpointSlices" in dict(await rig.events("web"))["NotDrained"]


@simulated("data-plane.one")
async def test_a_slice_that_is_deleted_counts_as_left_from_its_deletion_on(rig: Rig) -> None:
    pod = await rig.web()
    await rig.until(lambda: rig.ready("web"))
    await rig.slice_by_hand(pod)
    ends = asyncio.ensure_future(rig.ends_after_s())
    await rig.clock.sleep(1.0)
    rig.silent.add("data-plane.one")
    await rig.client.delete(EndpointSlice, "by-hand", "default")
    await rig.clock.sleep(1.0)
    assert not ends.done()
    rig.silent.clear()
    assert 2.0 < await ends < 2.3


@pytest.mark.parametrize("how", ["switched off", "by annotation", "no service", "no data plane", "published anyway"])
def test_who_need_not_wait_ends_at_once_and_shows_no_condition(tmp_path: Path, how: str) -> None:
    async def scenario(rig: Rig) -> None:
        if how != "no service":
            await rig.service(publish_not_ready_addresses=how == "published anyway")
        annotations = {"knarr.dev/acknowledged-drain": "false"} if how == "by annotation" else {}
        await rig.web(annotations=annotations)
        await rig.until(lambda: rig.ready("web"))
        await rig.clock.sleep(0.5)
        if how == "published anyway":
            # Its slices go on to say ready; it is terminating, and that is what counts.
            assert rig.in_service() == ("True", "Acknowledged")
            assert await rig.ends_after_s() < 0.3
            return
        assert rig.in_service() == ("", "")
        rig.silent.add("data-plane.one")
        assert await rig.ends_after_s() < 0.05
        assert {state[1:] for state in rig.states()} == {("", "")}
        assert await rig.reasons() == []

    planes = () if how == "no data plane" else ("data-plane.one",)
    simulate(scenario, tmp_path, *planes, drain_s_max=0.0 if how == "switched off" else 10.0)


@simulated("data-plane.one")
async def test_a_forced_deletion_waits_for_nothing(rig: Rig) -> None:
    await rig.service()
    await rig.web()
    await rig.serving()
    rig.silent.add("data-plane.one")
    container = await rig.container_id("web")
    await rig.delete("web", 0)
    await rig.clock.sleep(2.5)
    assert await rig.runtime.container(container) is None


@simulated("data-plane.one")
async def test_a_second_deletion_with_less_time_shortens_the_wait(rig: Rig) -> None:
    await rig.service()
    await rig.web(grace_s=60)
    await rig.serving()
    rig.silent.add("data-plane.one")
    ends = asyncio.ensure_future(rig.ends_after_s())
    await rig.clock.sleep(1.0)
    await rig.delete("web", 2)
    assert 1.9 < await ends < 2.3


@simulated("data-plane.one")
async def test_a_pod_that_is_not_ready_has_left_already(rig: Rig) -> None:
    await rig.service()
    probe = {"exec": {"command": ["true"]}, "periodSeconds": 1}
    await rig.pod("web", {"readinessProbe": probe}, metadata={"labels": {**APP, "sim.knarr.dev/ready": "false"}})
    await rig.until(lambda: rig.phase("web") == "Running")
    await rig.clock.sleep(2.0)
    assert rig.in_service() == ("", "")
    assert await rig.ends_after_s() < 0.2
    assert await rig.reasons() == []


@simulated("data-plane.one")
async def test_a_restarted_agent_goes_on_with_the_wait(rig: Rig) -> None:
    await rig.service()
    await rig.web()
    await rig.serving()
    rig.silent.add("data-plane.one")
    await rig.delete("web")
    await rig.until(lambda: rig.in_service() == ("True", "Draining"))
    await rig.stop_agent()
    # Of another process, that has seen nothing yet.
    rig.informers = Informers(Client(SlowLeases(rig), built_in(), ADMINISTRATOR), rig.clock)
    task = asyncio.ensure_future(rig.informers.run())
    rig.start_agent()
    await rig.clock.sleep(3.0)
    assert "Killing" not in [reason for reason, _ in await rig.events("web")]
    rig.silent.clear()
    await rig.until(lambda: rig.get("web") is None, within_s=1.0)
    task.cancel()


@simulated("data-plane.one")
async def test_changes_of_other_endpoints_do_not_prolong_the_wait(rig: Rig) -> None:
    await rig.service()
    await rig.web()
    await rig.serving()
    rig.silent.add("data-plane.one")
    ends = asyncio.ensure_future(rig.ends_after_s())
    await rig.clock.sleep(0.5)
    [slice_] = (await rig.client.list(EndpointSlice, "default")).items
    for number in range(5):
        await rig.web(f"other-{number}")
        await rig.clock.sleep(0.5)
    await rig.acknowledge("data-plane.one", version_of(slice_))
    assert await ends < 3.2


@pytest.mark.parametrize(
    ("grace_s", "hook", "expected_s"),
    [
        (30.0, None, 10.0),
        (12.0, None, 6.0),
        (1.0, None, 0.5),
        (30.0, {"sleep": {"seconds": 5}}, 10.0),
        (30.0, {"sleep": {"seconds": 20}}, 8.0),
        (30.0, {"sleep": {"seconds": 29}}, 0.0),
        (30.0, {"exec": {"command": ["true"]}}, 10.0),
    ],
)
def test_the_bound_leaves_what_the_end_itself_needs(grace_s: float, hook: Any, expected_s: float) -> None:
    container = {"name": "main", "lifecycle": {"preStop": hook}} if hook else {"name": "main"}
    assert drain_bound_s(10.0, grace_s, msgspec.convert({"containers": [container]}, PodSpec)) == expected_s


# The way in


@simulated("data-plane.one", "data-plane.two")
async def test_a_ready_pod_is_in_service_once_every_data_plane_leads_to_it(rig: Rig) -> None:
    await rig.service()
    rig.silent.add("data-plane.two")
    await rig.web()
    await rig.until(lambda: rig.ready("web"))
    # In the same write: nobody ever sees it ready and takes it for available.
    assert rig.in_service() == ("False", "WaitingForDataPlanes")
    await rig.clock.sleep(2.0)
    assert rig.condition("web", IN_SERVICE)[2] == "not yet led to by data-plane.two"
    rig.silent.clear()
    await rig.serving()
    states = [state for state in rig.states() if state[0] == "True"]
    assert states == [("True", "False", "WaitingForDataPlanes"), ("True", "True", "Acknowledged")]
    assert await rig.reasons() == []


@simulated("data-plane.one", slices_are_written=False)
async def test_a_pod_of_two_services_is_in_service_once_both_have_it(rig: Rig) -> None:
    await rig.service("web")
    await rig.service("other")
    pod = await rig.web()
    await rig.until(lambda: rig.ready("web"))
    endpoint = Endpoint(addresses=["10.244.0.9"], target_ref=ObjectReference(kind="Pod", uid=pod.metadata.uid))
    for name in ("web", "other"):
        await rig.clock.sleep(0.5)
        assert rig.in_service() == ("False", "WaitingForDataPlanes")
        metadata = ObjectMeta(name=name, namespace="default", labels={"kubernetes.io/service-name": name})
        await rig.client.create(EndpointSlice(metadata=metadata, address_type="IPv4", endpoints=[endpoint]))
    await rig.serving()


@simulated("data-plane.one", "data-plane.two")
async def test_one_that_never_acknowledges_keeps_a_pod_out_for_the_bound_and_no_longer(rig: Rig) -> None:
    await rig.service()
    rig.silent.add("data-plane.two")
    await rig.web()
    await rig.until(lambda: rig.ready("web"))
    began_s = rig.clock.monotonic_s()
    await rig.serving(reason="NotAcknowledged")
    assert 9.9 < rig.clock.monotonic_s() - began_s < 10.3
    assert await rig.reasons() == ["NotInService"]


@pytest.mark.parametrize(
    ("service", "becomes"),
    [
        ({"selector": APP, "ipFamilies": ["IPv4"]}, True),
        ({"selector": APP, "ipFamilies": ["IPv6", "IPv4"]}, True),
        ({"selector": APP}, True),
        ({"selector": APP, "ipFamilies": ["IPv6"]}, False),
        ({"selector": {"app": "other"}}, False),
        ({"ipFamilies": ["IPv4"]}, False),
        ({"selector": APP, "type": "ExternalName", "externalName": "example.com"}, False),
    ],
)
def test_which_services_a_pod_becomes_an_endpoint_of(service: dict[str, Any], becomes: bool) -> None:
    made = msgspec.convert({"metadata": {"name": "web", "namespace": "default"}, "spec": service}, Service)
    pod = msgspec.convert({"metadata": {"name": "a", "namespace": "default", "labels": APP}}, Pod)

    async def main(clock: VirtualClock) -> None:
        informers = Informers(
            Client(InProcessTransport(APIServer(MemoryStore(), built_in(), clock)), built_in()), clock
        )
        traffic = Traffic(informers, clock, lambda namespace: [made], lambda uid: None, 10.0)
        assert bool(traffic.services_of(pod, ["10.244.0.9"])) is becomes

    run(main)


@simulated("data-plane.one")
async def test_a_service_that_goes_meanwhile_keeps_nobody_out(rig: Rig) -> None:
    await rig.service()
    rig.silent.add("data-plane.one")
    await rig.web()
    await rig.until(lambda: rig.ready("web"))
    await rig.client.delete(Service, "web", "default")
    await rig.clock.sleep(0.5)
    rig.silent.clear()
    await rig.until(lambda: rig.in_service() == ("", ""))
    assert await rig.reasons() == []


@simulated("data-plane.one")
async def test_a_new_service_takes_no_pod_out_of_service(rig: Rig) -> None:
    await rig.web()
    await rig.until(lambda: rig.ready("web"))
    rig.silent.add("data-plane.one")
    await rig.service()
    await rig.clock.sleep(1.0)
    assert rig.in_service() == ("", "")


@simulated("data-plane.one")
async def test_a_pod_that_is_deleted_the_moment_that_it_is_ready_waits_for_its_endpoint_to_leave(rig: Rig) -> None:
    await rig.service()
    rig.silent.add("data-plane.one")
    await rig.web()
    await rig.until(lambda: rig.ready("web"))
    ends = asyncio.ensure_future(rig.ends_after_s())
    await rig.clock.sleep(3.0)
    assert not ends.done()
    rig.silent.clear()
    await ends


def test_a_lease_that_can_not_be_read_has_acknowledged_nothing() -> None:
    for written in ("", "soon", "-1", "1.5", "9" * 30, "٣"):
        metadata = ObjectMeta(annotations={data_planes.APPLIED_REVISION: written})
        assert revision_of(Lease(metadata=metadata)) == 0
