"""What leads connections to the pods of a node (Services, EndpointSlices, data planes), and who waits for a change."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from ipaddress import ip_address

from knarr.api.core.service_selection import has_pods, selects
from knarr.api.core.v1 import Pod, Service
from knarr.client.informer import Informers
from knarr.clock import Clock
from knarr.node.data_planes import DataPlanes
from knarr.node.endpoints import Endpoints, Standing

SWITCH = "knarr.dev/acknowledged-drain"
"""Annotation of a pod: "false" for upstream's behaviour."""


SYNC_S_MAX = 2.0


class Traffic:
    """What leads connections to the pods of a node, and who waits for a change of it."""

    def __init__(
        self,
        informers: Informers,
        clock: Clock,
        services: Callable[[str], Iterable[Service]],
        wake: Callable[[str], None],
        bound_s: float,
    ) -> None:
        """`services` answers those of a namespace; `wake` has the pod of a uid look again."""
        self.clock = clock
        self.bound_s = bound_s
        self._services = services
        self._wake = wake
        self._waiting: dict[str, int] = {}
        """Pods that wait, by uid, and the revision that is to be acknowledged; 0 while that isn't known."""
        self.data_planes = DataPlanes(informers, clock, self._acknowledged)
        self.endpoints = Endpoints(informers, wake)

    async def synced(self) -> None:
        """Wait until slices and data planes are known; who may not read them goes on without."""
        with suppress(TimeoutError):
            async with self.clock.timeout(SYNC_S_MAX):
                await self.data_planes.synced.wait()
                await self.endpoints.synced.wait()

    def concerns(self, pod: Pod) -> bool:
        """Whether anybody could be waited for."""
        wanted = self.bound_s > 0 and pod.metadata.annotations.get(SWITCH) != "false"
        return wanted and self.data_planes.any()

    def services_of(self, pod: Pod, addresses: Collection[str]) -> frozenset[str]:
        """The names of the Services of which a pod with these addresses becomes an endpoint."""
        families = {f"IPv{ip_address(address).version}" for address in addresses}
        return frozenset(
            service.metadata.name or ""
            for service in self._services(pod.metadata.namespace or "")
            if service.metadata.namespace == pod.metadata.namespace
            and has_pods(service)
            and selects(service, pod.metadata.labels)
            and families & set((service.spec and service.spec.ip_families) or families)
        )

    def standing(self, pod: Pod, revision: int) -> Standing:
        """Of a pod that waits for `revision`: it is woken when that, or the standing, changes."""
        uid = pod.metadata.uid or ""
        self._waiting[uid] = revision
        return self.endpoints.follow(uid, pod.metadata.namespace or "")

    def release(self, uid: str) -> None:
        """It waits no more."""
        self._waiting.pop(uid, None)
        self.endpoints.forget(uid)

    def _acknowledged(self) -> None:
        for uid, revision in list(self._waiting.items()):
            if revision and not self.data_planes.lagging(revision):
                self._wake(uid)
