"""The loops around what others serve: whether they can be used, and how they know who asks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import pytest

from knarr.api.apiregistration.services import availability, local_service
from knarr.api.apiregistration.v1 import APIService, APIServiceSpec, ServiceReference
from knarr.api.core.v1 import ConfigMap, Service
from knarr.api.discovery.v1 import EndpointSlice
from knarr.api.errors import NotFound
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.registry import with_metrics
from knarr.api.types import replace
from knarr.client.client import Client
from knarr.client.controller import Controller
from knarr.controllers import authentication_trust
from knarr.controllers.apiservices import LOOK_AGAIN_S, APIServices, fault_of
from knarr.controllers.authentication_trust import AuthenticationTrust, trust
from knarr.simulate.clock import run
from tests.controllers.loops import Loops

HERE = ServiceReference(name="adapter", namespace="metrics", port=443)


def service(**spec: Any) -> Service:
    ports = [{"name": "https", "port": 443}]
    return msgspec.convert({"metadata": {"name": "adapter"}, "spec": {"ports": ports, **spec}}, Service)


def piece(*ready: bool | None, port: Any = 8443, name: str | None = "https") -> EndpointSlice:
    endpoints = [
        {"addresses": ["10.0.0.1"], "conditions": {"ready": each} if each is not None else {}} for each in ready
    ]
    ports = [{"port": port, "name": name}]
    return msgspec.convert({"addressType": "IPv4", "endpoints": endpoints, "ports": ports}, EndpointSlice)


@pytest.mark.parametrize(
    ("there", "pieces", "reason"),
    [
        (None, [], "ServiceNotFound"),
        (service(ports=[{"port": 80}]), [], "ServicePortError"),
        (service(), [], "EndpointsNotFound"),
        (service(), [piece()], "MissingEndpoints"),
        (service(), [piece(False)], "MissingEndpoints"),
        (service(), [piece(True, name="other")], "MissingEndpoints"),
        (service(), [piece(True, port=None)], "MissingEndpoints"),
        (service(), [piece(False), piece(False, True)], ""),
        (service(), [piece(None)], ""),
        (service(ports=[{"port": 443}]), [piece(True, name=None)], ""),
        (service(type="ExternalName", externalName="elsewhere.example"), [], ""),  # Whoever asks will see.
        (service(type="NodePort", ports=[]), [], ""),
    ],
)
def test_why_nobody_can_be_asked(there: Service | None, pieces: list[EndpointSlice], reason: str) -> None:
    fault = fault_of(HERE, there, pieces)
    assert (fault[0] if fault else "") == reason


class Backend:
    """Says what is wrong, and notes when it was asked."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        self.asked_s: list[float] = []

    async def look(self, service: APIService) -> str:
        self.asked_s.append(asyncio.get_running_loop().time())
        return self.fault


def simulated(scenario: Callable[[Loops], Awaitable[None]], make: Callable[[Loops], Sequence[Controller]]) -> None:
    async def main(clock: Any) -> None:
        await Loops(clock, make).run(scenario)

    run(main)


def availabilities(backend: Backend) -> Callable[[Loops], Sequence[Controller]]:
    """The loop, of a server that has metrics of its own."""

    def make(loops: Loops) -> Sequence[Controller]:
        assert loops.client.user
        client = Client(loops.client.transport, with_metrics(), loops.client.user)
        return [APIServices(client, loops.informers, loops.clock, backend.look)]

    return make


def registered(version: str = "v1beta2", group: str = "custom.metrics.k8s.io") -> APIService:
    spec = APIServiceSpec(group=group, version=version, group_priority_minimum=100, version_priority=100)
    spec.service = ServiceReference(name="adapter", namespace="default")
    return APIService(metadata=ObjectMeta(name=f"{version}.{group}"), spec=spec)


async def reachable(loops: Loops) -> None:
    metadata = ObjectMeta(name="adapter", namespace="default", labels={"kubernetes.io/service-name": "adapter"})
    await loops.client.create(replace(service(), metadata=metadata))
    await loops.client.create(replace(piece(True), metadata=metadata))


async def reason(loops: Loops, name: str) -> str | None:
    condition = availability(await loops.client.get(APIService, name))
    return condition.reason if condition else None


def test_one_that_does_not_answer_is_asked_less_and_less_often_and_one_that_does_every_so_often() -> None:
    backend = Backend("nobody there")

    async def scenario(loops: Loops) -> None:
        await reachable(loops)
        made = await loops.client.create(registered())
        assert made.spec
        assert made.spec.service
        assert made.spec.service.port == 443
        await loops.clock.sleep(200)
        assert await reason(loops, "v1beta2.custom.metrics.k8s.io") == "FailedDiscoveryCheck"
        waits = [later - earlier for earlier, later in zip(backend.asked_s, backend.asked_s[1:], strict=False)]
        assert waits[:3] == pytest.approx([0.1, 0.2, 0.4], abs=0.02)
        assert max(waits) == pytest.approx(LOOK_AGAIN_S, abs=0.1)
        assert len(waits) < 20
        backend.fault = ""
        await loops.clock.sleep(LOOK_AGAIN_S + 1)
        assert await reason(loops, "v1beta2.custom.metrics.k8s.io") == "Passed"
        before = len(backend.asked_s)
        await loops.clock.sleep(10 * LOOK_AGAIN_S)
        assert len(backend.asked_s) - before in (9, 10)

    simulated(scenario, availabilities(backend))


def test_metrics_come_back_to_this_server_when_nobody_else_has_them() -> None:
    async def scenario(loops: Loops) -> None:
        await reachable(loops)
        name = "v1beta1.metrics.k8s.io"
        await loops.client.create(registered("v1beta1", "metrics.k8s.io"))
        await loops.until(lambda: _is(loops, name, "Passed"))
        await loops.client.delete(APIService, name)
        await loops.until(lambda: _is(loops, name, "Local"))
        other = "v1beta2.custom.metrics.k8s.io"
        await loops.client.create(registered())
        await loops.until(lambda: _is(loops, other, "Passed"))
        await loops.client.delete(APIService, other)
        await loops.clock.sleep(60)
        with pytest.raises(NotFound):
            await loops.client.get(APIService, other)

    simulated(scenario, availabilities(Backend()))


def test_what_becomes_local_is_available_at_once() -> None:
    async def scenario(loops: Loops) -> None:
        made = await loops.client.create(registered("v1", "batch"))
        await loops.until(lambda: _is(loops, "v1.batch", "ServiceNotFound"))
        now = await loops.client.get(APIService, made.metadata.name or "")
        await loops.client.update(replace(now, spec=local_service("batch", "v1").spec))
        await loops.until(lambda: _is(loops, "v1.batch", "Local"))

    simulated(scenario, availabilities(Backend()))


async def _is(loops: Loops, name: str, wanted: str) -> bool:
    try:
        return await reason(loops, name) == wanted
    except NotFound:
        return False


def test_what_servers_know_the_api_server_by_is_published_and_stays_so() -> None:
    data = trust("CLIENTS", "FRONT", "front-proxy-client")
    assert data == {
        "client-ca-file": "CLIENTS",
        "requestheader-allowed-names": '["front-proxy-client"]',
        "requestheader-client-ca-file": "FRONT",
        "requestheader-extra-headers-prefix": '["X-Remote-Extra-"]',
        "requestheader-group-headers": '["X-Remote-Group"]',
        "requestheader-uid-headers": '["X-Remote-Uid"]',
        "requestheader-username-headers": '["X-Remote-User"]',
    }

    async def scenario(loops: Loops) -> None:
        async def published() -> bool:
            try:
                found = await loops.client.get(ConfigMap, authentication_trust.NAME, authentication_trust.NAMESPACE)
            except NotFound:
                return False
            return found.data == data

        await loops.until(published)
        await loops.client.patch(
            ConfigMap, authentication_trust.NAME, {"data": {"client-ca-file": "FORGED"}}, authentication_trust.NAMESPACE
        )
        await loops.until(published)
        await loops.client.delete(ConfigMap, authentication_trust.NAME, authentication_trust.NAMESPACE)
        await loops.until(published)

    simulated(scenario, lambda loops: [AuthenticationTrust(loops.client, loops.informers, loops.clock, data)])
