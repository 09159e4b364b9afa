"""The addresses behind a Service, for what goes through the API server to one of them."""

from __future__ import annotations

from knarr.api.core.v1 import Service
from knarr.api.decode import decoder
from knarr.api.discovery.v1 import EndpointSlice
from knarr.api.errors import ServiceUnavailable
from knarr.api.resources import Registry
from knarr.clock import Clock
from knarr.store.contract import Store


class ServiceEndpoints:
    """Read from the store at each question: what has just gone is not led to."""

    def __init__(self, registry: Registry, store: Store, clock: Clock) -> None:
        self._registry = registry
        self._store = store
        self._clock = clock

    async def one(self, service: Service, port: str) -> tuple[str, int]:
        """A ready endpoint of a Service's port (a name, a number, or nothing where there is one port only), by chance.

        Raises ServiceUnavailable.
        """
        name = service.metadata.name or ""
        ports = service.spec.ports if service.spec else []
        found = [each for each in ports if not port or port in (each.name, str(each.port))]
        if not found or (not port and len(ports) > 1):
            raise ServiceUnavailable(f'no service port "{port}" found for service "{name}"')
        endpoints: list[tuple[str, int]] = []
        for piece in await self._slices(service):
            numbers = [each.port for each in piece.ports if (each.name or "") == (found[0].name or "") and each.port]
            ready = [each for each in piece.endpoints if each.conditions is None or each.conditions.ready is not False]
            endpoints += [(each.addresses[0], number) for each in ready for number in numbers]
        if not endpoints:
            raise ServiceUnavailable(f'no endpoints available for service "{name}"')
        return self._clock.random.choice(sorted(endpoints))

    async def _slices(self, service: Service) -> list[EndpointSlice]:
        resource = self._registry.of(EndpointSlice)
        found = await self._store.range(f"{resource.qualified}/{service.metadata.namespace}/")
        decode = decoder(EndpointSlice).decode
        needle = f'"kubernetes.io/service-name":"{service.metadata.name}"'.encode()
        return [decode(record.value) for record in found.records if needle in record.value]
