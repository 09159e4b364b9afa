"""Endpoints: the older list of a Service's addresses, one object of the Service's name, for those who still read it.

Deprecated by EndpointSlices, but kubectl, Helm charts and older clients look here. At most ADDRESSES_MAX addresses.
"""

from __future__ import annotations

from collections.abc import Sequence

from knarr.api.core.pod_state import is_ready
from knarr.api.core.service_selection import has_pods, selects
from knarr.api.core.v1 import EndpointAddress, EndpointPort, Endpoints, EndpointSubset, Pod, Service
from knarr.api.errors import NotFound
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.types import replace
from knarr.client.controller import Controller
from knarr.client.informer import key_of
from knarr.controllers.service_pods import (
    HEADLESS,
    counts,
    hostname_for,
    is_headless,
    reference_to,
    services_woken,
    target_port,
)

ADDRESSES_MAX = 1000
HOLD_PER_POD_S = 200e-6
"""Each change writes all addresses again: large Services are written less often."""
OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"
MANAGED_BY = "endpoints.kubernetes.io/managed-by"
MANAGER = "endpoint-controller"

Port = tuple[str, int, str, str | None]
"""Name, number, protocol, application protocol."""


class EndpointsOfServices(Controller):
    """v1 Endpoints, for Services with a selector."""

    name = "endpoint-controller"
    min_interval_s = 0.05

    def watch(self) -> None:
        self.services = self.informer(Service)
        self.pods = self.informer(Pod)
        self.endpoints = self.informer(Endpoints)
        self.on(self.services, key_of)
        self.on(self.endpoints, lambda endpoints: key_of(endpoints) if _is_ours(endpoints) else None)
        self.on_change(self.pods, lambda old, new: services_woken(self.services, old, new))

    async def reconcile(self, key: str) -> None:
        service = self.services.get(key)
        current = self.endpoints.get(key)
        if service is None:
            if current and _is_ours(current):
                await self._delete(current)
            return
        if not has_pods(service) or service.metadata.deletion_timestamp is not None:
            return
        pods = [
            pod
            for pod in self.pods.by_index("namespace", service.metadata.namespace or "")
            if selects(service, pod.metadata.labels)
        ]
        self.queue.hold(key, HOLD_PER_POD_S * len(pods))
        wanted = endpoints_of(service, pods, current)
        if current is None:
            await self.client.create(wanted)
        elif wanted != current:
            await self.client.update(wanted)

    async def _delete(self, endpoints: Endpoints) -> None:
        try:
            await self.client.delete(Endpoints, endpoints.metadata.name or "", endpoints.metadata.namespace)
        except NotFound:
            pass


def endpoints_of(service: Service, pods: Sequence[Pod], current: Endpoints | None) -> Endpoints:
    """The Endpoints that these pods make; equal to `current` when nothing changed."""
    labels = {key: value for key, value in service.metadata.labels.items() if key != HEADLESS}
    labels[MANAGED_BY] = MANAGER
    if is_headless(service):
        labels[HEADLESS] = ""
    subsets, truncated = subsets_of(service, pods)
    before = (
        current.metadata if current else ObjectMeta(name=service.metadata.name, namespace=service.metadata.namespace)
    )
    annotations = {key: value for key, value in before.annotations.items() if key != OVER_CAPACITY}
    if truncated:
        annotations[OVER_CAPACITY] = "truncated"
    return Endpoints(metadata=replace(before, labels=labels, annotations=annotations), subsets=subsets)


def subsets_of(service: Service, pods: Sequence[Pod]) -> tuple[list[EndpointSubset], bool]:
    """Ports that the same addresses offer are one subset; the answer says too whether addresses were left out."""
    assert service.spec is not None
    publish = bool(service.spec.publish_not_ready_addresses)
    counting = [pod for pod in pods if counts(service, pod, terminating=publish)]
    ready = {id(pod): publish or is_ready(pod) for pod in counting}
    counting.sort(key=lambda pod: (not ready[id(pod)], _ip(pod), pod.metadata.uid or ""))
    offers: dict[Port | None, list[Pod]] = {}
    for pod in counting[:ADDRESSES_MAX]:
        if not service.spec.ports and is_headless(service):
            offers.setdefault(None, []).append(pod)
        for port in service.spec.ports:
            number = target_port(pod, port)
            if number is not None:
                named = (port.name or "", number, port.protocol or "TCP", port.app_protocol)
                offers.setdefault(named, []).append(pod)

    grouped: dict[tuple[int, ...], tuple[list[Port], list[Pod]]] = {}
    for offered, offering in offers.items():
        ports, _ = grouped.setdefault(tuple(map(id, offering)), ([], offering))
        if offered is not None:
            ports.append(offered)
    subsets = [
        EndpointSubset(
            addresses=[_address(service, pod) for pod in offering if ready[id(pod)]],
            not_ready_addresses=[_address(service, pod) for pod in offering if not ready[id(pod)]],
            ports=[
                EndpointPort(name=name or None, port=number, protocol=protocol, app_protocol=application)
                for name, number, protocol, application in ports
            ],
        )
        for ports, offering in grouped.values()
    ]
    return subsets, len(counting) > ADDRESSES_MAX


def _address(service: Service, pod: Pod) -> EndpointAddress:
    return EndpointAddress(
        ip=_ip(pod),
        node_name=(pod.spec.node_name if pod.spec else None) or None,
        hostname=hostname_for(service, pod),
        target_ref=reference_to(pod),
    )


def _ip(pod: Pod) -> str:
    return (pod.status.pod_ip if pod.status else None) or ""


def _is_ours(endpoints: Endpoints) -> bool:
    return endpoints.metadata.labels.get(MANAGED_BY) == MANAGER
