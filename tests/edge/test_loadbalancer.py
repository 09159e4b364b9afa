"""The loop over a cloud in memory: what it makes, changes, removes and tells, and what it leaves alone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from knarr.api.core.v1 import Event, Node, Service
from knarr.api.errors import NotFound
from knarr.edge.loadbalancer import EXCLUDED, FINALIZER, LoadBalancers, described, target_of
from knarr.edge.providers.contract import ProviderFailure
from tests.controllers.loops import Loops, play
from tests.edge.fake import Cloud, FakeProvider


def service(name: str = "web", metadata: dict[str, Any] | None = None, **spec: Any) -> Service:
    return msgspec.convert(
        {
            "metadata": {"name": name, "namespace": "default", **(metadata or {})},
            "spec": {"type": "LoadBalancer", "selector": {"app": name}, "ports": [{"port": 80}], **spec},
        },
        Service,
    )


def node(name: str, **more: Any) -> Node:
    return msgspec.convert({"metadata": {"name": name, "labels": {}}, **more}, Node)


class Play:
    """A loop over a cloud of its own."""

    def __init__(self, loops: Loops, cloud: Cloud) -> None:
        self.loops, self.cloud, self.client = loops, cloud, loops.client

    async def service(self, name: str = "web") -> Service | None:
        try:
            return await self.client.get(Service, name, "default")
        except NotFound:
            return None

    async def patch(self, patch: dict[str, Any], name: str = "web") -> Service:
        return await self.client.patch(Service, name, patch, "default")

    async def until(self, holds: Callable[[], Any]) -> Any:
        async def look() -> Any:
            return holds()

        return await self.loops.until(look)

    async def balanced(self, name: str = "web") -> Service:
        """Wait until it has an address."""

        async def look() -> Any:
            found = await self.service(name)
            return found if found and ingress(found) else None

        found: Service = await self.loops.until(look)
        return found

    async def events(self) -> list[tuple[str, str]]:
        await self.loops.clock.sleep(1)
        found = (await self.client.list(Event, "default")).items
        found.sort(key=lambda event: (event.metadata.name or "").rpartition(".")[2])
        return [(event.reason or "", event.message or "") for event in found]

    def parts(self, kind: str) -> list[Any]:
        return [value for (each, _), value in self.cloud.parts.items() if each == kind]


def ingress(service: Service) -> list[str]:
    status = service.status.load_balancer if service.status else None
    return [each.ip or "" for each in (status.ingress if status else [])]


def playing(scenario: Callable[[Play], Awaitable[None]], nodes: int = 2) -> None:
    cloud = Cloud()

    async def main(loops: Loops) -> None:
        for number in range(nodes):
            await loops.client.create(node(f"n{number}"))
        await scenario(Play(loops, cloud))

    def make(loops: Loops) -> list[LoadBalancers]:
        account = loops.account("service-controller")
        return [LoadBalancers(account, loops.informers, loops.clock, FakeProvider(cloud))]

    play(make, main)


def test_a_service_gets_its_load_balancer_with_the_rights_of_upstreams_role() -> None:
    async def scenario(play: Play) -> None:
        await play.client.create(service())
        found = await play.balanced()
        assert found.status
        assert found.status.load_balancer
        (only,) = found.status.load_balancer.ingress
        assert (only.ip, only.ip_mode) == ("203.0.113.1", "VIP")
        assert found.metadata.finalizers == [FINALIZER]
        assert play.parts("targets") == [("n0", "n1")]
        assert await play.events() == [
            ("EnsuringLoadBalancer", "Ensuring load balancer"),
            ("EnsuredLoadBalancer", "Ensured load balancer"),
        ]

    playing(scenario)


def test_nothing_is_asked_twice_while_nothing_changes() -> None:
    async def scenario(play: Play) -> None:
        await play.client.create(service())
        await play.balanced()
        await play.loops.clock.sleep(1)
        before = list(play.cloud.log)
        await play.patch({"metadata": {"labels": {"a": "b"}}})
        await play.client.patch(Node, "n0", {"metadata": {"annotations": {"seen": "now"}}})
        await play.loops.clock.sleep(600)
        assert play.cloud.log == before

    playing(scenario)


def test_a_deleted_service_goes_only_after_its_load_balancer() -> None:
    async def scenario(play: Play) -> None:
        await play.client.create(service())
        await play.balanced()
        play.cloud.faults.error = lambda: ProviderFailure("the cloud is closed")
        play.cloud.faults.reset(at=1)
        await play.client.delete(Service, "web", "default")
        await play.loops.clock.sleep(2)
        assert await play.service() is not None
        assert play.cloud.parts
        await play.loops.clock.sleep(RETRY_SEEN_S)
        assert await play.service() is None
        assert play.cloud.parts == {}
        told = await play.events()
        failed = "Error syncing load balancer: failed to delete load balancer: the cloud is closed"
        assert ("SyncLoadBalancerFailed", failed) in told
        assert told[-1] == ("DeletedLoadBalancer", "Deleted load balancer")

    playing(scenario)


RETRY_SEEN_S = 6.0


def test_a_service_that_becomes_another_type_loses_it() -> None:
    async def scenario(play: Play) -> None:
        await play.client.create(service())
        await play.balanced()
        await play.patch({"spec": {"type": "ClusterIP"}})
        await play.until(lambda: play.cloud.parts == {})
        await play.loops.clock.sleep(1)
        found = await play.service()
        assert found
        assert found.metadata.finalizers == []
        assert ingress(found) == []
        reasons = await play.events()
        assert ("Type", "LoadBalancer -> ClusterIP") in reasons
        assert [reason for reason, _ in reasons][-2:] == ["DeletingLoadBalancer", "DeletedLoadBalancer"]
        await play.patch({"spec": {"type": "LoadBalancer"}})
        assert ingress(await play.balanced()) == ["203.0.113.2"]

    playing(scenario)


def test_what_a_load_balancer_is_made_of_makes_it_anew() -> None:
    async def scenario(play: Play) -> None:
        await play.client.create(service(loadBalancerSourceRanges=["10.0.0.0/8"]))
        await play.balanced()
        await play.patch({"spec": {"loadBalancerSourceRanges": ["1.2.3.0/24", "5.6.7.0/24"]}})
        await play.until(lambda: play.parts("ranges") == [("1.2.3.0/24", "5.6.7.0/24")])
        await play.patch(
            {"spec": {"ports": [{"port": 53, "protocol": "UDP", "name": "dns"}, {"port": 80, "name": "w"}]}}
        )
        await play.until(lambda: sorted(port.protocol for port in play.parts("ports")[0]) == ["TCP", "UDP"])
        await play.patch({"spec": {"externalTrafficPolicy": "Local"}})
        told = await play.events()
        assert ("LoadBalancerSourceRanges", "[10.0.0.0/8] -> [1.2.3.0/24 5.6.7.0/24]") in told
        assert ("ExternalTrafficPolicy", "Cluster -> Local") in told

    playing(scenario)


def test_nodes_that_come_and_go_become_targets_and_are_none_any_more() -> None:
    async def scenario(play: Play) -> None:
        await play.client.create(service())
        await play.balanced()
        await play.client.create(node("n9"))
        await play.until(lambda: play.parts("targets") == [("n0", "n1", "n9")])
        await play.client.patch(Node, "n0", {"metadata": {"labels": {EXCLUDED: ""}}})
        await play.until(lambda: play.parts("targets") == [("n1", "n9")])
        taint = {"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}
        await play.client.patch(Node, "n1", {"spec": {"taints": [taint]}})
        await play.until(lambda: play.parts("targets") == [("n9",)])
        await play.client.delete(Node, "n9")
        await play.until(lambda: play.parts("targets") == [()])
        told = await play.events()
        assert ("UpdatedLoadBalancer", "Updated load balancer with new hosts") in told
        assert told[-1] == ("UnAvailableLoadBalancer", "There are no available nodes for LoadBalancer")

    playing(scenario)


def test_readiness_of_a_node_is_not_told_to_a_cloud() -> None:
    """KEP-3458: its health checks see that sooner, and a node that flaps costs no call."""
    ready = node("n", status={"conditions": [{"type": "Ready", "status": "True"}]})
    lost = node("n", status={"conditions": [{"type": "Ready", "status": "Unknown"}]})
    assert target_of(ready, with_readiness=False) == target_of(lost, with_readiness=False)
    assert target_of(ready, with_readiness=True) != target_of(lost, with_readiness=True)


@pytest.mark.parametrize("class_", ["example.org/other", "knarr.dev/local"])
def test_services_of_another_class_are_left_alone(class_: str) -> None:
    async def scenario(play: Play) -> None:
        finalizers = {"finalizers": [FINALIZER]}
        await play.client.create(service(metadata=finalizers, loadBalancerClass=class_))
        await play.client.create(service("ours", loadBalancerClass="example.com/fake"))
        await play.balanced("ours")
        await play.client.delete(Service, "web", "default")
        await play.loops.clock.sleep(60)
        theirs = await play.service()
        assert theirs
        assert theirs.metadata.finalizers == [FINALIZER]
        assert ingress(theirs) == []
        assert len(play.parts("address")) == 1

    playing(scenario)


def test_what_fails_is_tried_again_later_and_later() -> None:
    async def scenario(play: Play) -> None:
        times: list[float] = []

        def refused() -> ProviderFailure:
            times.append(play.loops.clock.monotonic_s())
            play.cloud.faults.reset(at=1)
            return ProviderFailure("no quota")

        play.cloud.faults.error = refused
        play.cloud.faults.reset(at=1)
        await play.client.create(service())
        await play.loops.clock.sleep(2000)
        waits = [round(after - before) for before, after in pairwise(times)]
        assert waits[:8] == [5, 10, 20, 40, 80, 160, 300, 300]
        play.cloud.faults.error = Exception
        play.cloud.faults.reset()
        await play.balanced()
        assert len(await play.events()) < 30

    playing(scenario)


def test_a_finalizer_that_was_taken_away_by_force_leaves_nothing_behind() -> None:
    async def scenario(play: Play) -> None:
        await play.client.create(service())
        await play.balanced()
        play.cloud.faults.error = lambda: ProviderFailure("not now")
        play.cloud.faults.reset(at=1)
        await play.client.delete(Service, "web", "default")
        await play.loops.clock.sleep(1)
        await play.patch({"metadata": {"$patch": "merge", "finalizers": None}})
        await play.until(lambda: play.cloud.parts == {})
        await play.client.create(service())
        assert ingress(await play.balanced()) == ["203.0.113.2"]

    playing(scenario)


def test_a_loop_that_starts_again_finds_what_was_deleted_meanwhile() -> None:
    cloud = Cloud()

    def make(loops: Loops) -> list[LoadBalancers]:
        return [LoadBalancers(loops.account("service-controller"), loops.informers, loops.clock, FakeProvider(cloud))]

    async def scenario(loops: Loops) -> None:
        await loops.client.create(service(metadata={"finalizers": [FINALIZER]}, type="ClusterIP"))
        balancer = described(await loops.client.get(Service, "web", "default"))
        await FakeProvider(cloud).ensure(balancer, ())
        await loops.clock.sleep(1)
        (loop,) = make(loops)

        task = asyncio.create_task(loop.run())
        await loops.clock.sleep(1)
        assert cloud.parts == {}
        assert (await loops.client.get(Service, "web", "default")).metadata.finalizers == []
        task.cancel()

    play(lambda loops: [], scenario)


SECRETS = {
    "Zx8~odd~form": "login with Zx8~odd~form failed",
    "AKIAIOSFODNN7EXAMPLE": "user AKIAIOSFODNN7EXAMPLE may not do that",
    "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY": "signed with wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "hunter22": "login failed: password=hunter22, retry",
    "eyJhbGciOi.eyJzdWIiOi.c2lnbmF0": "Authorization: Bearer eyJhbGciOiJSUzI1.eyJzdWIiOiIxMjM0.c2lnbmF0dXJl",
    "s3cr3t~Value": '{"client_secret": "s3cr3t~Value", "tenant": "t"}',
    "MIIEvQIBADAN": "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADAN\n-----END PRIVATE KEY----- is wrong",
    "ya29.a0Af": "token ya29.a0AfH6SMBx-1 has expired",
    "sv=2020&sig=abc": "https://x.blob.core.windows.net/?sv=2020&sig=abc%2Fdef",
}


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("kind", [ProviderFailure, RuntimeError])
def test_a_credential_in_a_message_of_the_cloud_is_in_no_event_object_or_log(
    secret: str, kind: type[Exception], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "Zx8~odd~form")  # of no form that tells what it is

    async def scenario(play: Play) -> None:
        play.cloud.faults.error = lambda: kind(SECRETS[secret])
        play.cloud.faults.reset(at=1)
        await play.client.create(service())
        found = await play.balanced()
        told = await play.events()
        assert any(reason == "SyncLoadBalancerFailed" for reason, _ in told)
        events = msgspec.json.encode((await play.client.list(Event)).items).decode()
        for text in (events, msgspec.json.encode(found).decode(), caplog.text):
            assert secret not in text

    playing(scenario)
    assert "failed to ensure load balancer" in caplog.text
