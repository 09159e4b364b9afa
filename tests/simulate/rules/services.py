"""Endpoints lead to pods that are there; an address is one Service's."""

from __future__ import annotations

from typing import Any

from knarr.api.core.v1 import Pod, Service
from knarr.api.discovery.v1 import EndpointSlice
from knarr.api.networking.v1 import IPAddress
from tests.simulate.objects import is_going, is_ready
from tests.simulate.rules.rule import Broken, Rule
from tests.simulate.world import Change

LOOP = "endpointslice-controller"
LINGER_MAX_S = 10.0
"""An address stays no longer after its pod is gone, beside what the weather takes: retries wait longer each time."""


class Endpoints(Rule):
    kinds = (EndpointSlice, Pod, Service)

    def check(self, change: Change) -> None:
        if change.kind is EndpointSlice and change.new is not None and change.part == LOOP:
            self._written(change)
        for each in self.state.all(EndpointSlice):
            if each.metadata.labels.get("endpointslice.kubernetes.io/managed-by") == f"{LOOP}.k8s.io":
                self._lingering(each, change.now_s)

    def _written(self, change: Change) -> None:
        before = {_of(each): each for each in change.old.endpoints} if change.old else {}
        for endpoint in change.new.endpoints:
            uid = _of(endpoint)
            pod = self.state.by_uid.get(uid)
            if pod is None:
                gone_s = change.now_s - self.past.gone_s.get(uid, -1e9)
                if gone_s > self.past.slack_s + self.past.flight_s and uid not in before:
                    raise Broken(f"{endpoint.addresses} is of a pod that is gone for {gone_s:.1f} s")
                continue
            if endpoint.conditions.ready and not self._publishes(change):
                known = list(self.past.known(pod, change.now_s))
                if not any(is_ready(each) and not is_going(each) for each in known):
                    raise Broken(f"{endpoint.addresses} is ready, {pod.metadata.name} is not")

    def _publishes(self, change: Change) -> bool:
        service = self._service(change.new)
        return service is None or any(
            each.spec.publish_not_ready_addresses for each in self.past.known(service, change.now_s)
        )

    def _service(self, slice_: Any) -> Any | None:
        key = f"{slice_.metadata.namespace}/{slice_.metadata.labels.get('kubernetes.io/service-name')}"
        return self.state.get(Service, key)

    def _lingering(self, slice_: Any, now_s: float) -> None:
        service = self._service(slice_)
        if service is None or is_going(service) or is_going(slice_):
            return
        owner = slice_.metadata.owner_references
        if owner and owner[0].uid != service.metadata.uid:
            return  # of a Service that is gone: it is collected
        for endpoint in slice_.endpoints:
            gone_s = now_s - self.past.gone_s.get(_of(endpoint), now_s)
            if gone_s > self.past.slack_s + self.past.flight_s + LINGER_MAX_S:
                whose = f"{slice_.metadata.name} leads to {endpoint.addresses}"
                raise Broken(f"{whose}, whose pod is gone for {gone_s:.0f} s")


class Addresses(Rule):
    kinds = (Service, IPAddress)

    def check(self, change: Change) -> None:
        if change.kind is Service and change.new is not None:
            self._service(change.new)
        elif change.kind is IPAddress and change.new is None and change.part == "service-ip-repair-controller":
            self._freed(change)

    def _service(self, service: Any) -> None:
        for other in self.state.all(Service):
            both = {*_held(other)}.intersection(_held(service))
            if both and other.metadata.uid != service.metadata.uid:
                raise Broken(f"{sorted(both)} are of {other.metadata.name} too")

    def _freed(self, change: Change) -> None:
        """A Service that is there has kept its address for longer than anybody can be behind."""
        for service in self.state.all(Service):
            known = self.past.known(service, change.now_s)
            if all(change.key in _held(each) for each in known):
                raise Broken(f"freed, and {service.metadata.name} has it")


def _of(endpoint: Any) -> str:
    return (endpoint.target_ref.uid if endpoint.target_ref else None) or ""


def _held(service: Any) -> list[str]:
    return [each for each in service.spec.cluster_ips if each not in ("", "None")]
