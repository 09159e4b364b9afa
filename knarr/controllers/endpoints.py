"""Endpoints: the older list of a Service's addresses, one object of the Service's name, for those who still read it.

Deprecated by EndpointSlices, but kubectl, Helm charts and older clients look here. At most ADDRESSES_MAX addresses.
"""

from __future__ import annotations

from collections.abc import Sequence

from knarr.api.core.endpoint_subsets import repacked
from knarr.api.core.pod_state import is_ready
from knarr.api.core.service_selection import has_pods, selects
from knarr.api.core.services import MANAGED_BY, MANAGER
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
from knarr.controllers.trigger_times import TriggerTimes, with_trigger_time

ADDRESSES_MAX = 1000
HOLD_PER_POD_S = 200e-6
"""Each change writes all addresses again: large Services are written less often."""
OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"


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
        self._times = TriggerTimes()

    async def reconcile(self, key: str) -> None:
        service = self.services.get(key)
        current = self.endpoints.get(key)
        if service is None:
            self._times.forget(key)
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
        time = self._times.look(key, service, pods)
        self.queue.hold(key, HOLD_PER_POD_S * len(pods))
        wanted = endpoints_of(service, pods, current)
        if wanted == current:
            return
        annotations = with_trigger_time(wanted.metadata.annotations, time)
        wanted = replace(wanted, metadata=replace(wanted.metadata, annotations=annotations))
        if current is None:
            await self.client.create(wanted)
        else:
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
    counting = [pod for pod in pods if counts(service, pod, terminating=publish) and _ip(service, pod)]
    ready = {id(pod): publish or is_ready(pod) for pod in counting}
    counting.sort(key=lambda pod: (not ready[id(pod)], _ip(service, pod), pod.metadata.uid or ""))
    single = [
        EndpointSubset(
            addresses=[_address(service, pod)] if ready[id(pod)] else [],
            not_ready_addresses=[] if ready[id(pod)] else [_address(service, pod)],
            ports=ports,
        )
        for pod in counting[:ADDRESSES_MAX]
        if (ports := _ports(service, pod)) or (not service.spec.ports and is_headless(service))
    ]
    return repacked(single), len(counting) > ADDRESSES_MAX


def _ports(service: Service, pod: Pod) -> list[EndpointPort]:
    assert service.spec is not None
    return [
        EndpointPort(
            name=port.name or None, port=number, protocol=port.protocol or "TCP", app_protocol=port.app_protocol
        )
        for port in service.spec.ports
        if (number := target_port(pod, port)) is not None
    ]


def _address(service: Service, pod: Pod) -> EndpointAddress:
    return EndpointAddress(
        ip=_ip(service, pod),
        node_name=(pod.spec.node_name if pod.spec else None) or None,
        hostname=hostname_for(service, pod),
        target_ref=reference_to(pod),
    )


def _ip(service: Service, pod: Pod) -> str:
    """Of the first of the Service's families: Endpoints know only one."""
    if pod.status is None:
        return ""
    version6 = bool(service.spec and service.spec.ip_families[:1] == ["IPv6"])
    listed = [each.ip for each in pod.status.pod_ips] or [pod.status.pod_ip or ""]
    return next((ip for ip in listed if (":" in ip) == version6), "")


def _is_ours(endpoints: Endpoints) -> bool:
    return endpoints.metadata.labels.get(MANAGED_BY) == MANAGER
