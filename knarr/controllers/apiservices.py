"""APIServices: whether the Services that serve parts of the API can be used, in the condition Available.

A backend must have a Service with the port, an endpoint that is ready, and must answer what it serves when it is asked.
That is looked at when one of them changes, and again and again, since a network has no events. As upstream's remote
and local availability controllers. Metrics, which this API server serves unless somebody else does, fall back to it
when their APIService is removed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence

from knarr.api.apiregistration.services import (
    AVAILABLE,
    METRICS,
    is_available,
    local_condition,
    local_service,
    with_condition,
)
from knarr.api.apiregistration.v1 import APIService, APIServiceCondition, ServiceReference
from knarr.api.core.v1 import Service
from knarr.api.discovery.v1 import EndpointSlice
from knarr.api.errors import AlreadyExists
from knarr.client.client import Client
from knarr.client.controller import Controller
from knarr.client.informer import Informers, key_of
from knarr.clock import Clock, utc
from knarr.figures import Figure

LOOK_AGAIN_S = 30.0
"""A backend that is fine is asked so often, as upstream does."""
FIRST_RETRY_S = 0.1
"""One that does not answer is asked again after this, then after twice as long, up to LOOK_AGAIN_S."""
SERVICE_NAME = "kubernetes.io/service-name"

Look = Callable[[APIService], Awaitable[str]]
"""look(service): ask a backend what it serves; what is wrong, empty when nothing is."""
Fault = tuple[str, str]
"""Reason and message."""


class APIServices(Controller):
    """The condition Available of each."""

    name = "available-condition-controller"
    needs = (APIService, Service, EndpointSlice)

    def __init__(self, client: Client, informers: Informers, clock: Clock, look: Look) -> None:
        self._look = look
        self._failures: dict[str, int] = {}
        """Looks in a row that found nobody, by key."""
        super().__init__(client, informers, clock)

    def watch(self) -> None:
        self.api_services = self.informer(APIService)
        self.services = self.informer(Service)
        self.slices = self.informer(EndpointSlice)
        self._served_by: dict[str, set[str]] = {}
        """Key of a Service → the APIServices that name it."""
        self.on_change(self.api_services, self._key_of_change)
        self.on(self.services, lambda service: self._served_by.get(key_of(service)))
        self.on(self.slices, lambda piece: self._served_by.get(_service_of(piece)))

    async def reconcile(self, key: str) -> float | None:
        service = self.api_services.get(key)
        if service is None:
            self._failures.pop(key, None)
            await self._fall_back(key)
            return None
        now = utc(self.clock.time_s())
        if service.spec is None or service.spec.service is None:
            await self._report(service, local_condition(now))
            return None
        fault = self._fault(service.spec.service)
        answered = fault is None
        if answered and (text := await self._look(service)):
            fault = "FailedDiscoveryCheck", text
        reason, message = fault or ("Passed", "all checks passed")
        condition = APIServiceCondition(
            type=AVAILABLE,
            status="False" if fault else "True",
            reason=reason,
            message=message,
            last_transition_time=now,
        )
        await self._report(service, condition)
        return self._again_s(key, failed=answered and fault is not None)

    def _again_s(self, key: str, *, failed: bool) -> float:
        if not failed:
            self._failures.pop(key, None)
            return LOOK_AGAIN_S
        count = self._failures[key] = self._failures.get(key, 0) + 1
        return min(LOOK_AGAIN_S, FIRST_RETRY_S * 2.0 ** min(count - 1, 16))

    def _fault(self, reference: ServiceReference) -> Fault | None:
        key = f"{reference.namespace}/{reference.name}"
        pieces = [piece for piece in self.slices.all(reference.namespace or "") if _service_of(piece) == key]
        return fault_of(reference, self.services.get(key), pieces)

    async def _report(self, service: APIService, condition: APIServiceCondition) -> None:
        reported = with_condition(service, condition)
        if reported.status != service.status:
            await self.client.update_status(reported)

    async def _fall_back(self, key: str) -> None:
        version, _, group = key.partition(".")
        if group != METRICS or not any(
            each.group == METRICS and each.version == version for each in self.client.registry
        ):
            return
        try:
            await self.client.create(local_service(group, version))
        except AlreadyExists:
            pass

    def _key_of_change(self, old: APIService | None, new: APIService | None) -> str | None:
        """Status is this loop's own."""
        if old is not None and new is not None and old.metadata.uid == new.metadata.uid and old.spec == new.spec:
            return None
        for service, add in ((old, False), (new, True)):
            if service is not None and service.spec and service.spec.service:
                backend = f"{service.spec.service.namespace}/{service.spec.service.name}"
                names = self._served_by.setdefault(backend, set())
                (names.add if add else names.discard)(service.metadata.name or "")
                if not names:
                    del self._served_by[backend]
        changed = new or old
        return changed.metadata.name if changed else None

    def figures(self) -> Iterable[Figure]:
        unavailable = {(each.metadata.name or "",): float(not is_available(each)) for each in self.api_services.all()}
        text = "Whether an APIService can not be used (1) or can (0)."
        yield Figure("gauge", "aggregator_unavailable_apiservice", text, ("name",), unavailable)


def fault_of(reference: ServiceReference, service: Service | None, pieces: Sequence[EndpointSlice]) -> Fault | None:
    """Why nobody can be asked behind a Service."""
    named = f'service/{reference.name} in "{reference.namespace}"'
    if service is None or service.spec is None:
        return "ServiceNotFound", f"{named} is not present"
    if (service.spec.type or "ClusterIP") != "ClusterIP":
        return None
    port = next((each for each in service.spec.ports if each.port == reference.port), None)
    if port is None:
        return "ServicePortError", f"{named} is not listening on port {reference.port}"
    if not pieces:
        return "EndpointsNotFound", f"cannot find endpointslices for {named}"
    name = port.name or ""
    if not any(_has_endpoint(piece, name) for piece in pieces):
        return "MissingEndpoints", f'endpointslices for {named} have no addresses with port name "{name}"'
    return None


def _has_endpoint(piece: EndpointSlice, port_name: str) -> bool:
    ready = any(each.conditions is None or each.conditions.ready is not False for each in piece.endpoints)
    return ready and any((each.name or "") == port_name and each.port is not None for each in piece.ports)


def _service_of(piece: EndpointSlice) -> str:
    return f"{piece.metadata.namespace}/{piece.metadata.labels.get(SERVICE_NAME, '')}"
