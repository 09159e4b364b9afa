"""The loop: what the API server shows → one picture → Envoy; and back: what Envoy confirmed, and what people are told.

A change of endpoints touches only the endpoints of that Service, everything else makes the picture anew.

`synced(revision)` waits until Envoy uses what the EndpointSlices say at that revision: then no new request goes to an
endpoint that had left by then. Whoever stops a pod can wait for it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from msgspec.structs import replace

from knarr.api.core.v1 import Secret, Service
from knarr.api.discovery.v1 import EndpointSlice
from knarr.api.networking.v1 import Ingress, IngressClass
from knarr.client.client import Client
from knarr.client.informer import Informers, key_of
from knarr.clock import Clock
from knarr.edge.ingress.access_log import keep_short
from knarr.edge.ingress.backends import SERVICE_NAME_LABEL, endpoints_of
from knarr.edge.ingress.child import XDS_SOCKET, Envoy
from knarr.edge.ingress.classes import is_ours
from knarr.edge.ingress.envoy import HTTP, HTTPS, Resources, Serving, endpoint_resources, resources
from knarr.edge.ingress.model import Backend, Certificate, Endpoint, Picture, Problem, Routing
from knarr.edge.ingress.names import ExternalNames, Resolve, by_host
from knarr.edge.ingress.picture import Objects, picture
from knarr.edge.ingress.ports import Ports
from knarr.edge.ingress.report import Reports
from knarr.edge.ingress.trial import Trial
from knarr.edge.ingress.xds import ENDPOINTS, LISTENER, ROUTES, SECRET, Rejection, XdsServer
from knarr.figures import Figure
from knarr.network.in_force import InForce

log = logging.getLogger(__name__)

SLICES_BY_SERVICE = "service of an Ingress"
MIN_INTERVAL_S = 0.02
"""Between two pictures: a burst of changes is taken together, the first is not delayed."""
PORT_RETRY_S = 5.0
"""A port that is taken is tried again."""
UNUSED_S = 5.0
"""So long without any Ingress, and the ports are let go: who replaces the last one interrupts nothing."""
TAKE_OVER_S = 0.01
"""From Envoy's yes until its worker threads have what it said yes to: they take it at their next turn."""
AWAY_S_MAX = 10.0
"""An Envoy that is started again sooner was never away, as far as others are told."""
CONCURRENCY_MAX = 8


class Secrets(Protocol):
    """Where certificates come from: an informer, or what a node is handed."""

    @property
    def synced(self) -> asyncio.Event: ...

    def get(self, key: str, /) -> Secret | None: ...

    def add_handler(self, handler: Callable[[Secret | None, Secret | None], None], /) -> None: ...


class IngressEdge:
    """Serves Ingress objects between `run` and `close`."""

    name = "ingress"

    def __init__(
        self,
        client: Client,
        informers: Informers,
        clock: Clock,
        *,
        folder: Path,
        serving: Serving,
        addresses: Sequence[str],
        refuse: Callable[[Endpoint], bool],
        resolve: Resolve = by_host,
        concurrency: int = 0,
        node_name: str = "",
        reports: Reports | None = None,
        secrets: Secrets | None = None,
        serves: Callable[[], bool] = lambda: True,
        beside: Callable[[IngressEdge], Sequence[Callable[[], Awaitable[None]]]] = lambda edge: (),
    ) -> None:
        """`folder` is Envoy's own; `addresses` are this machine's; `refuse` says which endpoints are none.

        `serves` says whether this node is to serve; if not, `reports` tell what is wrong all the same. `beside` is run
        too, from when Envoy is.
        """
        self._clock = clock
        self._node_name = node_name
        self._serves = serves
        self._beside = beside
        self._refuse = refuse
        self._ingresses = informers.of(Ingress)
        self._classes = informers.of(IngressClass)
        self._services = informers.of(Service)
        self._slices = informers.of(EndpointSlice)
        self._secrets: Secrets = informers.of(Secret) if secrets is None else secrets
        self._ports = Ports(serving, addresses, self._services)
        self._addresses = tuple(addresses)
        self._reports = reports or Reports(client, self._ingresses, clock, self._served_here)
        self._names = ExternalNames(clock, resolve, self._name_changed)
        concurrency = concurrency or min(os.cpu_count() or 1, CONCURRENCY_MAX)
        self._envoy = Envoy(folder, clock, concurrency=concurrency, told=self._logged, ended=self._envoy_ended)
        self._server = XdsServer(self._rejected, self._settled)
        self._trial = Trial()
        self._refused_secrets: dict[str, tuple[str, str]] = {}
        """Version and reason."""
        self._picture = Picture(picture(self._objects([]), refuse).routing)
        self._sent: Resources = {}
        self._default: Certificate | None = None
        self._all_dirty = True
        self._dirty: set[str] = set()
        """Services whose endpoints changed."""
        self._used: set[str] = set()
        """Services and Secrets that Ingress objects of ours name."""
        self._serving = asyncio.Event()
        """From when this node is to serve for the first time."""
        self._well_until_s: float | None = 0.0
        """None while Envoy is well."""
        self._unused_from_s: float | None = None
        """Since when there is no Ingress of ours; None while there is."""
        self._told_ports: tuple[int, ...] = ()
        self._ports_handlers: list[Callable[[], None]] = []
        self._wake = asyncio.Event()
        self._settling = asyncio.Event()
        self._settled_generation = 0
        self._under_way: deque[tuple[int, int]] = deque()
        """Generations that Envoy has not confirmed, and what they show: revisions of EndpointSlices."""
        self._in_force = InForce({EndpointSlice: self._slices}, self._wake)
        self._slices.add_index(SLICES_BY_SERVICE, _service_of)
        self._ingresses.add_handler(self._ingress_changed)
        self._classes.add_handler(lambda old, new: self._mark_all())
        self._services.add_handler(self._used_changed)
        self._secrets.add_handler(self._used_changed)
        self._slices.add_handler(self._slice_changed)

    # What others may know

    @property
    def applied_revision(self) -> int:
        """The newest revision of EndpointSlices that Envoy is known to use."""
        return self._in_force.of(EndpointSlice)

    async def synced(self, revision: int) -> None:
        """Wait until Envoy uses what the EndpointSlices say at `revision`, a write's, or needs nothing of it."""
        await self._in_force.reached(revision, EndpointSlice)

    @property
    def envoy_pid(self) -> int | None:
        return self._envoy.pid

    def figures(self) -> Iterable[Figure]:
        """For /metrics; those of the traffic are Envoy's own."""
        sent, starts = self._server.messages_sent, self._envoy.starts
        text = "Messages of configuration sent to Envoy."
        yield Figure("counter", "knarr_ingress_configuration_messages_total", text, (), {(): float(sent)})
        text = "Resources that Envoy refuses at present."
        yield Figure("gauge", "knarr_ingress_refused_resources", text, (), {(): float(len(self._server.refused))})
        yield Figure("counter", "knarr_ingress_envoy_starts_total", "Starts of Envoy.", (), {(): float(starts)})

    # Life

    async def run(self) -> None:
        """Serve until cancelled."""
        for informer in (self._ingresses, self._classes, self._services, self._slices, self._secrets):
            await informer.synced.wait()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._reports.run(), name="ingress reports")
            group.create_task(self._names.run(), name="ingress external names")
            group.create_task(self._acknowledge(), name="ingress acknowledgement")
            try:
                self._envoy.prepare()
            except (RuntimeError, OSError) as error:
                await self._without_envoy(str(error))
            socket = self._envoy.place(XDS_SOCKET)
            await self._server.start(socket)
            self._envoy.give(socket)
            group.create_task(self._keep(), name="ingress configuration")
            await self._serving.wait()
            group.create_task(self._envoy.run(), name="Envoy")
            for loop in self._beside(self):
                group.create_task(_running(loop), name="beside ingress")
            group.create_task(keep_short(self._envoy, self._clock), name="ingress log")
            group.create_task(self._look_at_ports(), name="ingress ports")

    async def close(self) -> None:
        """After `run` has ended: requests under way finish, Envoy ends. Idempotent."""
        await self._envoy.drain()
        await self._server.close()
        self._envoy.close()

    async def _without_envoy(self, why: str) -> None:
        """Nothing can be served, which is no reason for anything else to end."""
        log.error("Ingress can't be served: %s", why)
        for ingress in self._ingresses.all():
            if is_ours(ingress, self._classes):
                self._reports.warning(ingress, "EnvoyUnavailable", why)
        await asyncio.Event().wait()

    async def _keep(self) -> None:
        """Let Envoy have what the objects say, for ever."""
        while True:
            self._wake.clear()
            revision = self._slices.revision
            whole, self._all_dirty = self._all_dirty, False
            dirty, self._dirty = self._dirty, set()
            try:
                wanted = self._everything() if whole else self._endpoints_only(dirty)
            except Exception:  # a picture that can't be made must not end what is served
                log.exception("the Ingress objects could not be put together; Envoy keeps what it has")
                wanted = self._sent
            if wanted is not self._sent:
                self._sent = wanted
                self._under_way.append((self._server.want(wanted), revision))
            elif self._under_way:
                self._under_way[-1] = (self._under_way[-1][0], revision)
            else:
                self._show(revision)
            if self._envoy.has_died:
                self._envoy_ended()
            if whole:
                await self._clock.sleep(MIN_INTERVAL_S)
            await self._wake.wait()

    def _everything(self) -> Resources:
        if self._default is None:
            from knarr.edge.ingress.certificates import self_signed

            self._default = self_signed(self._clock.time_s())
        ours = [each for each in self._ingresses.all() if is_ours(each, self._classes)]
        if ours:
            self._unused_from_s = None
        elif self._unused_from_s is None:
            self._unused_from_s = self._clock.monotonic_s()
        self._used = set(_named(ours))
        objects = self._objects(self._trial.included(ours))
        now_s, https = self._clock.time_s(), bool(self._ports.wanted.https_port)
        self._picture = picture(objects, self._refuse, https=https, now_s=now_s)
        self._names.want({each.external_name for each in self._backends() if each.external_name})
        wanted = self._wanted(self._default)
        of_cluster = self._picture.problems if self._reports.of_cluster else ()
        self._reports.problems((*of_cluster, *self._port_problems()), {key_of(each): each for each in ours})
        same = self._sent and all(
            {name: each.version for name, each in wanted[kind].items()}
            == {name: each.version for name, each in self._sent[kind].items()}
            for kind in wanted
        )
        return self._sent if same else wanted

    def _wanted(self, default: Certificate) -> Resources:
        """What Envoy is to have; nothing at all where this node is not to serve, or there is nothing to serve."""
        if not self._serves() or self._unused():
            self._reports.served(self._picture.served, self._picture.refused)
            self._picture = replace(self._picture, routing=Routing())
            return resources(Routing(), Serving(http_port=0, https_port=0), default)
        self._serving.set()
        serving = replace(self._ports.free(self._is_listening), access_log=self._envoy.access_log)
        return resources(self._picture.routing, serving, default)

    def _endpoints_only(self, services: set[str]) -> Resources:
        """With new endpoints for some Services, and everything else as it was."""
        routing = self._picture.routing
        changed = {}
        for backend in routing.backends.values():
            if backend.service in services:
                slices = self._slices.by_index(SLICES_BY_SERVICE, backend.service)
                now = endpoints_of(backend, slices, self._names.addresses, self._refuse)
                if now != routing.endpoints[backend.name]:
                    changed[backend.name] = now
        if not changed:
            return self._sent
        endpoints = {**routing.endpoints, **changed}
        self._picture = replace(self._picture, routing=replace(routing, endpoints=endpoints))
        return {**self._sent, ENDPOINTS: {**self._sent[ENDPOINTS], **endpoint_resources(changed)}}

    def _objects(self, ingresses: Iterable[Ingress]) -> Objects:
        return Objects(
            ingresses=ingresses,
            classes=self._classes,
            services=self._services,
            secrets=self._secrets,
            slices=lambda service: self._slices.by_index(SLICES_BY_SERVICE, service),
            resolved=self._names.addresses,
            refused_secrets=self._refused_now(),
        )

    def _refused_now(self) -> dict[str, str]:
        """Secrets that still are what Envoy did not take."""
        there = {name: self._secrets.get(name) for name in self._refused_secrets}
        self._refused_secrets = {
            name: (version, reason)
            for name, (version, reason) in self._refused_secrets.items()
            if (secret := there[name]) is not None and secret.metadata.resource_version == version
        }
        return {name: reason for name, (_, reason) in self._refused_secrets.items()}

    # Ports

    @property
    def served_ports(self) -> tuple[int, ...]:
        """Where it listens; nowhere once Envoy has been away for long."""
        now_s = self._clock.monotonic_s()
        if self._well_until_s is not None and self._well_until_s <= now_s:
            return ()
        wanted = self._ports.wanted
        ports = {HTTP: wanted.http_port, HTTPS: wanted.https_port}
        return tuple(port for name, port in ports.items() if self._is_listening(name))

    def _served_here(self) -> Sequence[str]:
        return self._addresses if self.served_ports else ()

    def add_ports_handler(self, changed: Callable[[], None]) -> None:
        """Call it when Envoy listens elsewhere."""
        self._ports_handlers.append(changed)

    def serve_at(self, serving: Serving) -> None:
        """On other ports from now on."""
        self._ports.wanted = serving
        self.look_again()

    def look_again(self) -> None:
        """Something outside of the objects is otherwise: which endpoints are none, whether this node is to serve."""
        self._mark_all()

    def _port_problems(self) -> Iterable[Problem]:
        problem = self._ports.problem()
        where = f"node {self._node_name}, " if self._node_name else ""
        for key in self._picture.served if problem else ():
            yield Problem(key, "PortUnavailable", f"{where}{problem}; it is tried again")

    async def _look_at_ports(self) -> None:
        while True:
            await self._clock.sleep(PORT_RETRY_S)
            refused = [name for kind, name in self._server.refused if kind == LISTENER]
            if refused:
                self._server.again(LISTENER, refused)
            if self._ports.any_freed() or (self._unused() and self._sent.get(LISTENER)):
                self._mark_all()

    def _unused(self) -> bool:
        """For so long that the ports are not ours any more."""
        return self._unused_from_s is not None and self._clock.monotonic_s() - self._unused_from_s >= UNUSED_S

    def _is_listening(self, name: str) -> bool:
        """Envoy was told to, and did not refuse."""
        return name in self._sent.get(LISTENER, {}) and (LISTENER, name) not in self._server.refused

    # What changed

    def _ingress_changed(self, old: Ingress | None, new: Ingress | None) -> None:
        """Its status and who manages it change nothing."""
        if old is not None and new is not None and old.metadata.uid == new.metadata.uid:
            before, after = old.metadata, new.metadata
            same = old.spec == new.spec and before.annotations == after.annotations
            if same and before.deletion_timestamp == after.deletion_timestamp:
                return
        self._mark_all()

    def _used_changed(self, old: Service | Secret | None, new: Service | Secret | None) -> None:
        either = new or old
        assert either is not None
        if self._ports.concerned_by(*(each for each in (old, new) if isinstance(each, Service))):
            self._mark_all()
        if f"{either.kind}/{key_of(either)}" in self._used:
            self._mark_all()

    def _slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        for each in (old, new):
            for service in _service_of(each) if each is not None else ():
                if f"Service/{service}" in self._used:
                    self._dirty.add(service)
                    self._wake.set()

    def _name_changed(self, name: str) -> None:
        self._dirty |= {each.service for each in self._backends() if each.external_name == name}
        self._wake.set()

    def _backends(self) -> Iterable[Backend]:
        return self._picture.routing.backends.values()

    def _mark_all(self) -> None:
        self._all_dirty = True
        self._wake.set()

    # What Envoy says

    def _rejected(self, rejection: Rejection) -> None:
        if rejection.kind == SECRET:
            for name in rejection.names:
                secret = self._secrets.get(name)
                if secret is not None:
                    self._refused_secrets[name] = secret.metadata.resource_version or "", rejection.reason
            self._mark_all()
        if rejection.kind != ROUTES or not any(kind == ROUTES for kind, _ in self._server.refused):
            return
        if not self._trial.has_suspects:
            log.error("Envoy keeps its old routes, and no Ingress has changed: %s", rejection.reason)
            return
        guilty = self._trial.refused()
        if guilty is not None:
            message = f"Envoy refused it, and goes on with what it was before: {rejection.reason}"
            self._reports.warning(guilty, "ConfigurationRejected", message)
        self._mark_all()

    def _settled(self, generation: int) -> None:
        self._well_until_s = None
        self._settled_generation = generation
        self._settling.set()

    async def _acknowledge(self) -> None:
        """Tell those who wait, once Envoy's workers have it too."""
        while True:
            await self._settling.wait()
            self._settling.clear()
            generation = self._settled_generation
            await self._clock.sleep(TAKE_OVER_S)
            refused = {kind for kind, _ in self._server.refused}
            if generation == self._server.generation:
                self._taken_over(refused)
            confirmed = self.applied_revision
            while self._under_way and self._under_way[0][0] <= generation:
                confirmed = self._under_way.popleft()[1]
            if ENDPOINTS not in refused:
                self._show(confirmed)
            if self.served_ports != self._told_ports:
                self._told_ports = self.served_ports
                for changed in self._ports_handlers:
                    changed()

    def _taken_over(self, refused: set[str]) -> None:
        """Envoy has the newest picture, but for what it refused."""
        if ROUTES in refused:
            return
        if self._trial.accepted():
            self._mark_all()
        self._reports.served(self._picture.served, self._picture.refused)

    def _show(self, revision: int) -> None:
        self._in_force.show({EndpointSlice: revision})

    def _envoy_ended(self) -> None:
        """An Envoy that isn't there uses nothing, and the next one begins with what is wanted by then."""
        if self._well_until_s is None:
            self._well_until_s = self._clock.monotonic_s() + AWAY_S_MAX
        if self._under_way:
            revision = self._under_way[-1][1]
            self._under_way.clear()
            self._show(revision)

    def _logged(self, line: str) -> None:
        log.warning("Envoy: %s", line)


async def _running(loop: Callable[[], Awaitable[None]]) -> None:
    await loop()


def _service_of(each: EndpointSlice) -> tuple[str, ...]:
    name = each.metadata.labels.get(SERVICE_NAME_LABEL)
    return (f"{each.metadata.namespace}/{name}",) if name else ()


def _named(ingresses: Iterable[Ingress]) -> Iterable[str]:
    """The Services and Secrets that Ingress objects name, by kind/namespace/name."""
    for ingress in ingresses:
        spec, namespace = ingress.spec, ingress.metadata.namespace
        if spec is None:
            continue
        paths = [path.backend for rule in spec.rules if rule.http for path in rule.http.paths]
        for backend in (*paths, spec.default_backend):
            if backend is not None and backend.service is not None:
                yield f"Service/{namespace}/{backend.service.name}"
        for tls in spec.tls:
            if tls.secret_name:
                yield f"Secret/{namespace}/{tls.secret_name}"
