"""EndpointSlice mirroring: Endpoints that somebody writes for a Service without a selector show as slices too.

Proxies and DNS read slices only (KEP-752). Endpoints with the label skip-mirror, those of leader elections, and those
without a Service are left alone, as upstream's controller does.
"""

from __future__ import annotations

from ipaddress import ip_address

from knarr.api.core.v1 import EndpointAddress, Endpoints, EndpointSubset, Service
from knarr.api.discovery.v1 import Endpoint, EndpointConditions, EndpointPort, EndpointSlice
from knarr.api.errors import NotFound
from knarr.api.meta.owners import owner_reference
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.types import replace
from knarr.client.controller import Controller
from knarr.client.informer import key_of
from knarr.controllers.endpointslice import MANAGED_BY, SERVICE_NAME, service_key
from knarr.controllers.together import together
from knarr.controllers.trigger_times import ANNOTATION as TRIGGER_TIME

MANAGER = "endpointslicemirroring-controller.k8s.io"
SKIP = "endpointslice.kubernetes.io/skip-mirror"
LEADER = "control-plane.alpha.kubernetes.io/leader"
NOT_COPIED = ("kubectl.kubernetes.io/last-applied-configuration", TRIGGER_TIME)
ADDRESSES_MAX = 1000
"""Addresses mirrored of one subset; those beyond are left out, and an event says so."""


class EndpointSliceMirroring(Controller):
    """v1 Endpoints, as discovery.k8s.io/v1 EndpointSlices."""

    name = "endpointslice-mirroring-controller"
    event_source = "endpoint-slice-mirroring-controller"

    def watch(self) -> None:
        self.endpoints = self.informer(Endpoints)
        self.services = self.informer(Service)
        self.slices = self.informer(EndpointSlice)
        key_of_slice = service_key(MANAGER)
        self.slices.add_index("mirrored", lambda slice_: filter(None, (key_of_slice(slice_),)))
        self.on(self.endpoints, key_of)
        self.on(self.services, key_of)
        self.on(self.slices, key_of_slice)

    async def reconcile(self, key: str) -> None:
        endpoints, service = self.endpoints.get(key), self.services.get(key)
        existing = self.slices.by_index("mirrored", key)
        wanted = mirrored(endpoints) if endpoints and is_mirrored(endpoints, service) else []
        skipped = sum(max(_count(subset) - ADDRESSES_MAX, 0) for subset in endpoints.subsets) if endpoints else 0
        if endpoints and skipped and wanted:
            message = f"A max of {ADDRESSES_MAX} addresses can be mirrored to EndpointSlices per Endpoints subset. "
            message += f"{skipped} addresses were skipped"
            self.events.warning(endpoints, "TooManyAddressesToMirror", message)
        # Slices stay with the ports and family that they have; what changes is written into them.
        free = {_shape(slice_): slice_ for slice_ in existing}
        kept = set()
        for slice_ in wanted:
            there = free.pop(_shape(slice_), None)
            if there is None:
                await self.client.create(slice_)
                continue
            kept.add(there.metadata.uid)
            labels, annotations = slice_.metadata.labels, slice_.metadata.annotations
            metadata = replace(there.metadata, labels=labels, annotations=annotations)
            changed = replace(slice_, metadata=metadata)
            if changed != there:
                await self.client.update(changed)
        await together(self._delete(slice_) for slice_ in existing if slice_.metadata.uid not in kept)

    async def _delete(self, slice_: EndpointSlice) -> None:
        try:
            await self.client.delete(EndpointSlice, slice_.metadata.name or "", slice_.metadata.namespace)
        except NotFound:
            pass


def is_mirrored(endpoints: Endpoints, service: Service | None) -> bool:
    metadata = endpoints.metadata
    if metadata.labels.get(SKIP) == "true" or LEADER in metadata.annotations or metadata.deletion_timestamp:
        return False
    return bool(service and service.spec and not service.spec.selector)


def mirrored(endpoints: Endpoints) -> list[EndpointSlice]:
    """The slices of Endpoints: one for each list of ports and address family."""
    found: dict[tuple[object, ...], EndpointSlice] = {}
    for subset in endpoints.subsets:
        ports = [
            EndpointPort(
                name=port.name or "", port=port.port, protocol=port.protocol or "TCP", app_protocol=port.app_protocol
            )
            for port in subset.ports
        ]
        both = [(address, True) for address in subset.addresses]
        both += [(address, False) for address in subset.not_ready_addresses]
        for address, ready in both[:ADDRESSES_MAX]:
            family = _family(address.ip)
            if family is None:
                continue
            slice_ = _slice(endpoints, family, ports)
            found.setdefault(_shape(slice_), slice_).endpoints.append(_endpoint(address, ready))
    return list(found.values())


def _slice(endpoints: Endpoints, family: str, ports: list[EndpointPort]) -> EndpointSlice:
    metadata = endpoints.metadata
    own = {SERVICE_NAME: metadata.name or "", MANAGED_BY: MANAGER}
    return EndpointSlice(
        metadata=ObjectMeta(
            generate_name=f"{metadata.name}-",
            namespace=metadata.namespace,
            labels={**metadata.labels, **own},
            annotations={key: value for key, value in metadata.annotations.items() if key not in NOT_COPIED},
            owner_references=[owner_reference(endpoints)],
        ),
        address_type=family,
        endpoints=[],
        ports=ports,
    )


def _endpoint(address: EndpointAddress, ready: bool) -> Endpoint:
    return Endpoint(
        addresses=[address.ip],
        conditions=EndpointConditions(ready=ready),
        hostname=address.hostname or None,
        node_name=address.node_name,
        target_ref=address.target_ref,
    )


def _family(address: str) -> str | None:
    try:
        return "IPv6" if ip_address(address).version == 6 else "IPv4"
    except ValueError:
        return None


def _shape(slice_: EndpointSlice) -> tuple[object, ...]:
    ports = sorted((port.name or "", port.port or 0, port.protocol or "") for port in slice_.ports)
    return slice_.address_type, *ports


def _count(subset: EndpointSubset) -> int:
    return len(subset.addresses) + len(subset.not_ready_addresses)
