"""Users of Services: their endpoints and their addresses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from knarr.api.apps.v1 import Deployment
from knarr.api.core.v1 import Endpoints, Service
from knarr.api.discovery.v1 import EndpointSlice
from knarr.api.errors import NotFound
from knarr.api.networking.addresses import DEFAULT_CIDR
from knarr.api.networking.v1 import IPAddress, ServiceCIDR
from tests.simulate.objects import is_going, is_ready
from tests.simulate.stories.workloads import DeploymentStory

OF_SERVICE = "kubernetes.io/service-name"


class ServiceStory(DeploymentStory):
    """A Service of a Deployment, and one whose endpoints a user writes; users also delete what loops make for them."""

    kinds = (Deployment, Service, Endpoints, EndpointSlice, IPAddress, ServiceCIDR)

    async def play(self) -> None:
        chance = self.chance
        self.replicas, self.image, self.there, self.orphans = chance.randint(1, 4), "one", True, False
        self.manual = f"{self.name}-manual"
        self.selected = True
        self.written: list[str] = []
        await self._create()
        await self._make_service()
        spec = {"ports": [{"port": 80}], "clusterIP": chance.choice(("None", ""))}
        await self.create(Service, {"metadata": {"name": self.manual}, "spec": spec})
        await self._write_endpoints(first=True)
        steps = (
            self._scale,
            self._roll,
            self.trouble_a_pod,
            self._select,
            self._ports,
            self._publish,
            self._write_endpoints,
            self._lose_slice,
            self._lose_endpoints,
            self._lose_address,
            self._again,
            self._range,
        )
        for _ in range(chance.randint(2, 7)):
            await self.rest()
            await chance.choice(steps)()

    async def _make_service(self) -> None:
        self.selected = True
        spec: dict[str, Any] = {"selector": {"app": self.name}, "ports": [{"port": 80}]}
        if self.chance.random() < 0.3:
            spec["clusterIP"] = "None"
        await self.create(Service, {"spec": spec})

    async def _select(self) -> None:
        """Other pods, that are not there; or its own again."""
        self.selected = not self.selected
        await self.patch(Service, {"spec": {"selector": {"not": None if self.selected else "there"}}})

    async def _ports(self) -> None:
        ports = [{"name": f"p{number}", "port": number} for number in self.chance.sample((80, 81, 82), 2)]
        await self.patch(Service, {"spec": {"ports": ports}})

    async def _publish(self) -> None:
        await self.patch(Service, {"spec": {"publishNotReadyAddresses": self.chance.random() < 0.5}})

    async def _again(self) -> None:
        await self.delete(Service)
        await self.gone(Service)
        await self._make_service()

    async def _write_endpoints(self, *, first: bool = False) -> None:
        numbers = self.chance.sample(range(1, 9), self.chance.randint(1, 3))
        self.written = sorted(f"192.0.2.{number}" for number in numbers)
        port = self.chance.choice((8080, 8080, 9090))
        subsets = [{"addresses": [{"ip": each} for each in self.written], "ports": [{"port": port}]}]
        if first:
            await self.create(Endpoints, {"metadata": {"name": self.manual}, "subsets": subsets})
        else:
            await self.patch(Endpoints, {"subsets": subsets}, self.manual)

    async def _lose_slice(self) -> None:
        slices = sorted(each.metadata.name for each in self._slices(self.name) + self._slices(self.manual))
        if slices:
            await self.delete(EndpointSlice, name=self.chance.choice(slices))

    async def _lose_endpoints(self) -> None:
        await self.delete(Endpoints)

    async def _lose_address(self) -> None:
        for service in self._services():
            for address in _addresses(service):
                self.tell(f"delete the IPAddress {address}")
                try:
                    await self.world.client.delete(IPAddress, address)
                except NotFound:
                    pass

    async def _range(self) -> None:
        """A range of addresses comes, and goes."""
        metadata = {"name": self.fresh(), "namespace": None}
        await self.create(ServiceCIDR, {"metadata": metadata, "spec": {"cidrs": ["10.77.0.0/24"]}})
        await self.rest()
        for each in self._ranges():
            try:
                await self.world.client.delete(ServiceCIDR, each.metadata.name)
            except NotFound:
                pass

    def _ranges(self) -> list[Any]:
        """Those of users: the server's own stays."""
        return [each for each in self.world.state.all(ServiceCIDR) if each.metadata.name != DEFAULT_CIDR]

    def _services(self) -> list[Any]:
        found = (self.world.state.get(Service, f"{self.namespace}/{name}") for name in (self.name, self.manual))
        return [each for each in found if each is not None]

    def _slices(self, service: str) -> list[Any]:
        found = self.world.state.all(EndpointSlice, self.namespace)
        return [each for each in found if each.metadata.labels.get(OF_SERVICE) == service]

    def wrong(self) -> Iterator[str]:
        yield from super().wrong()
        pods = [pod for pod in self.pods() if is_ready(pod)] if self.selected else []
        wanted = sorted(pod.status.pod_ip for pod in pods)
        told = sorted(
            address
            for each in self._slices(self.name)
            for endpoint in each.endpoints
            for address in endpoint.addresses
            if endpoint.conditions.ready and not is_going(each)
        )
        if told != wanted:
            yield f"the slices of {self.name} say {told}, not {wanted}"
        endpoints = self.get(Endpoints)
        told = _written_in(endpoints)
        if endpoints is None or told != wanted:
            yield f"the Endpoints of {self.name} say {told}, not {wanted}"
        told = sorted(a for each in self._slices(self.manual) for one in each.endpoints for a in one.addresses)
        if told != self.written:
            yield f"the slices of {self.manual} say {told}, not {self.written}"
        held = {address for service in self._services() for address in _addresses(service)}
        there = {each.metadata.name for each in self.world.state.all(IPAddress)}
        if held - there:
            yield f"{sorted(held - there)} have no IPAddress"
        if there - held:
            yield f"the IPAddresses {sorted(there - held)} have no Service"
        for each in self._ranges():
            yield f"ServiceCIDR {each.metadata.name} is left"


def _addresses(service: Any) -> list[str]:
    return [each for each in service.spec.cluster_ips if each not in ("", "None")]


def _written_in(endpoints: Any) -> list[str]:
    subsets = endpoints.subsets if endpoints is not None else ()
    return sorted({address.ip for subset in subsets for address in subset.addresses})
