"""Services of type LoadBalancer get their load balancer, by whichever provider is configured.

As upstream's service controller (cloud-provider): the finalizer is there before anything is made, and goes after all is
removed, so a Service can't be gone while something of it costs money; a change of what a load balancer is made of makes
it anew, a change of the nodes alone changes only its targets; each step is an event on the Service. Nodes are taken by
what stays true (not being deleted, not excluded by a label): which of them are ready, the load balancer finds out by
its health checks (KEP-3458). Services of another spec.loadBalancerClass are left alone (KEP-1959).

Nothing is asked of a provider unless what it was told last has changed. What it fails at is tried again after 5 s,
10 s, and so on up to 5 minutes.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from knarr.api.core.node_addresses import ip_addresses
from knarr.api.core.v1 import LoadBalancerIngress, Node, Service, ServiceSpec
from knarr.api.errors import APIError, NotFound
from knarr.client.client import Client
from knarr.client.controller import Controller
from knarr.client.informer import Informers, key_of
from knarr.clock import Clock
from knarr.edge.providers.contract import (
    ADDRESSES,
    Ingress,
    LoadBalancer,
    Port,
    Provider,
    ProviderFailure,
    Target,
    without_secrets,
)

FINALIZER = "service.kubernetes.io/load-balancer-cleanup"
EXCLUDED = "node.kubernetes.io/exclude-from-external-load-balancers"
TO_BE_DELETED = "ToBeDeletedByClusterAutoscaler"
"""Taint of a node that the cluster autoscaler is about to remove."""

RETRY_MIN_S, RETRY_MAX_S = 5.0, 300.0
PENDING_S = 10.0
"""Until a load balancer without an address is asked for it again."""
NODE_NAMES_MAX = 20
"""Named in an event."""
CLUSTER_NAME = "kubernetes"
"""Upstream's default."""


class _Synced(Struct):
    """What the provider was told last about a Service, and what it answered."""

    service: Service
    balancer: LoadBalancer
    nodes: tuple[Target, ...]
    ingress: Ingress


class _Trouble(Struct):
    """A Service with which the provider has failed, perhaps more than once in a row."""

    about: object
    """What it was to do: another wish is tried at once."""
    failures: int
    due_s: float


class LoadBalancers(Controller):
    """core/v1 Service, of type LoadBalancer."""

    name = "service-controller"

    def __init__(
        self, client: Client, informers: Informers, clock: Clock, provider: Provider, cluster: str = CLUSTER_NAME
    ) -> None:
        self.provider = provider
        self._cluster = cluster
        self._synced: dict[str, _Synced] = {}
        self._touched: set[str] = set()
        """Those at which the provider wants to look again."""
        self._trouble: dict[str, _Trouble] = {}
        super().__init__(client, informers, clock)

    def watch(self) -> None:
        self.services = self.informer(Service)
        self.nodes = self.informer(Node)
        self.on_change(self.services, self._service_changed)
        self.on_change(self.nodes, self._node_changed)
        self.provider.begin(self._touch, self._note)

    async def reconcile(self, key: str) -> float | None:
        service = self.services.get(key)
        about = (self._targets(), wish_of(service, self._cluster))
        trouble = self._trouble.get(key)
        if trouble is not None and trouble.about == about and key not in self._touched:
            wait_s = trouble.due_s - self.clock.monotonic_s()
            if wait_s > 0:
                return wait_s
        try:
            again_s = await self._reconcile_service(key, service)
        except _Failed as failed:
            return self._backed_off(key, failed, about)
        self._trouble.pop(key, None)
        return again_s

    async def _reconcile_service(self, key: str, service: Service | None) -> float | None:
        synced = self._synced.get(key)
        if synced is not None and (service is None or service.metadata.uid != synced.balancer.uid):
            await self._remove_what_was_gone_by_force(key, synced)
        if service is None or not self._is_ours(service):
            return None
        if wants_one(service) and service.metadata.deletion_timestamp is None:
            return await self._sync(key, service)
        if FINALIZER in service.metadata.finalizers:
            await self._clean_up(key, service)
        return None

    # Make it as it is wanted

    async def _sync(self, key: str, service: Service) -> float | None:
        balancer, nodes = described(service, self._cluster), self._targets()
        synced = self._synced.get(key)
        touched = key in self._touched
        self._touched.discard(key)
        if synced is None or synced.balancer != balancer or FINALIZER not in service.metadata.finalizers:
            ingress = await self._ensure(service, balancer, nodes)
        elif synced.nodes != nodes:
            ingress = await self._update_nodes(service, balancer, nodes)
        elif touched:
            ingress = await self._look_again(service, balancer, nodes)
        else:
            ingress = synced.ingress
        self._synced[key] = _Synced(service, balancer, nodes, ingress)
        await self._report(service, ingress)
        if not ingress:
            self._touched.add(key)
            return PENDING_S
        return None

    async def _ensure(self, service: Service, balancer: LoadBalancer, nodes: tuple[Target, ...]) -> Ingress:
        self._synced.pop(balancer.key, None)
        self.events.normal(service, "EnsuringLoadBalancer", "Ensuring load balancer")
        if FINALIZER not in service.metadata.finalizers:
            await self._patch(service, {"metadata": {"finalizers": [FINALIZER]}})
        if not nodes:
            self._tell_that_no_node_is_there(service)
        try:
            ingress = await self.provider.ensure(balancer, nodes)
        except Exception as error:
            raise _Failed(service, error, "failed to ensure load balancer") from None
        self.events.normal(service, "EnsuredLoadBalancer", "Ensured load balancer")
        return ingress

    async def _update_nodes(self, service: Service, balancer: LoadBalancer, nodes: tuple[Target, ...]) -> Ingress:
        try:
            ingress = await self.provider.update_nodes(balancer, nodes)
        except Exception as error:
            raise _Failed(service, error, nodes=nodes) from None
        if nodes:
            self.events.normal(service, "UpdatedLoadBalancer", "Updated load balancer with new hosts")
        else:
            self._tell_that_no_node_is_there(service)
        return ingress

    async def _look_again(self, service: Service, balancer: LoadBalancer, nodes: tuple[Target, ...]) -> Ingress:
        try:
            return await self.provider.update_nodes(balancer, nodes)
        except Exception as error:
            self._synced.pop(balancer.key, None)
            raise _Failed(service, error, "failed to ensure load balancer") from None

    async def _report(self, service: Service, ingress: Ingress) -> None:
        if current_ingress(service) == list(ingress):
            return
        # The list is replaced as a whole: by a merge patch, since a strategic one has keys to merge by in the future.
        await self._patch(service, {"status": {"loadBalancer": {"ingress": list(ingress)}}}, whole_lists=True)

    # Remove it

    async def _clean_up(self, key: str, service: Service) -> None:
        """The Service is being deleted, or is of another type by now."""
        balancer = described(service, self._cluster)
        try:
            there = await self.provider.status(balancer)
        except Exception as error:
            raise _Failed(service, error, "failed to check if load balancer exists before cleanup") from None
        if there is not None:
            self.events.normal(service, "DeletingLoadBalancer", "Deleting load balancer")
            try:
                await self.provider.delete(balancer)
            except Exception as error:
                raise _Failed(service, error, "failed to delete load balancer") from None
        self._forget(key)
        try:
            await self._report(service, ())
            await self._patch(service, {"metadata": {"$deleteFromPrimitiveList/finalizers": [FINALIZER]}})
        except NotFound:
            return  # it was gone as soon as its last finalizer was
        finally:
            self.events.normal(service, "DeletedLoadBalancer", "Deleted load balancer")

    async def _remove_what_was_gone_by_force(self, key: str, synced: _Synced) -> None:
        """Somebody took the finalizer away: only this loop still knows that there is something to remove."""
        self.events.normal(synced.service, "DeletingLoadBalancer", "Deleting load balancer")
        try:
            await self.provider.delete(synced.balancer)
        except Exception as error:
            raise _Failed(synced.service, error, reason="DeleteLoadBalancerFailed") from None
        self.events.normal(synced.service, "DeletedLoadBalancer", "Deleted load balancer")
        self._forget(key)

    def _forget(self, key: str) -> None:
        self._synced.pop(key, None)
        self._touched.discard(key)

    # What goes wrong

    def _backed_off(self, key: str, failed: _Failed, about: object) -> float:
        """Tell of it; answers when to try again. What the provider said is shown without what may be a credential."""
        text, reason, message = _shown(failed.error), failed.reason, f"Error syncing load balancer: {failed.doing}: "
        if failed.nodes is not None:
            reason = "UpdateLoadBalancerFailed"
            names = " ".join(sorted(node.name for node in failed.nodes)[:NODE_NAMES_MAX])
            limited = f"[node names limited, total number of nodes: {len(failed.nodes)}]"
            message = f"Error updating load balancer with new hosts [{names}] {limited}: "
        elif reason == "DeleteLoadBalancerFailed":
            message = "Error deleting load balancer: "
        self.events.warning(failed.service, reason, f"{message}{text}")
        before = self._trouble.get(key)
        failures = before.failures + 1 if before and before.about == about else 1
        delay_s: float = min(RETRY_MIN_S * 2.0 ** min(failures - 1, 10), RETRY_MAX_S)
        self._trouble[key] = _Trouble(about, failures, self.clock.monotonic_s() + delay_s)
        self.log.warning("%s: %s%s; again in %.0f s", key, message, text, delay_s)
        if not isinstance(failed.error, ProviderFailure):
            # Where it came from, without values: an exception's text may hold what nobody should read.
            self.log.info("%s: %s at\n%s", key, type(failed.error).__name__, _frames(failed.error))
        return delay_s

    def _note(self, key: str, reason: str, message: str) -> None:
        service = self.services.get(key)
        if service is not None:
            self.events.warning(service, reason, message)

    def _tell_that_no_node_is_there(self, service: Service) -> None:
        message = "There are no available nodes for LoadBalancer"
        self.events.warning(service, "UnAvailableLoadBalancer", message)

    # What wakes a Service

    def _service_changed(self, old: Service | None, new: Service | None) -> str | None:
        service = new or old
        assert service is not None
        if old is not None and new is not None:
            self._tell_changes(old, new)
        concerned = any(
            each and (self._wants_ours(each) or FINALIZER in each.metadata.finalizers) for each in (old, new)
        )
        return key_of(service) if concerned or key_of(service) in self._synced else None

    def _node_changed(self, old: Node | None, new: Node | None) -> Iterable[str]:
        before = self._target(old) if old else None
        return list(self._synced) if before != (self._target(new) if new else None) else ()

    def _touch(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._touched.add(key)
            self.queue.add(key)

    def _tell_changes(self, old: Service, new: Service) -> None:
        """What is changed of a load balancer, as upstream tells it."""
        before, after = old.spec or ServiceSpec(), new.spec or ServiceSpec()
        if self._wants_ours(old) != self._wants_ours(new):
            if before.type != after.type:
                self.events.normal(new, "Type", f"{before.type} -> {after.type}")
            return
        if not self._wants_ours(new):
            return
        for reason, was, now in (
            ("LoadBalancerSourceRanges", before.load_balancer_source_ranges, after.load_balancer_source_ranges),
            ("LoadbalancerIP", before.load_balancer_ip, after.load_balancer_ip),
            ("ExternalTrafficPolicy", before.external_traffic_policy, after.external_traffic_policy),
            ("HealthCheckNodePort", before.health_check_node_port or 0, after.health_check_node_port or 0),
        ):
            if was != now:
                self.events.normal(new, reason, f"{_in_go(was)} -> {_in_go(now)}")
        if len(before.external_ips) != len(after.external_ips):
            message = f"Count: {len(before.external_ips)} -> {len(after.external_ips)}"
            self.events.normal(new, "ExternalIP", message)
        elif before.external_ips != after.external_ips:
            added = next(now for was, now in zip(before.external_ips, after.external_ips, strict=True) if was != now)
            self.events.normal(new, "ExternalIP", f"Added: {added}")

    # What is ours, and what there is

    def _is_ours(self, service: Service) -> bool:
        """Its class is ours, or none."""
        class_ = service.spec.load_balancer_class if service.spec else None
        return class_ in (None, self.provider.load_balancer_class)

    def _wants_ours(self, service: Service) -> bool:
        return wants_one(service) and self._is_ours(service)

    def _targets(self) -> tuple[Target, ...]:
        found = (self._target(node) for node in self.nodes.all())
        return tuple(sorted((each for each in found if each is not None), key=lambda target: target.name))

    def _target(self, node: Node) -> Target | None:
        return target_of(node, with_readiness=self.provider.sees_readiness)

    async def _patch(self, service: Service, patch: dict[str, Any], *, whole_lists: bool = False) -> None:
        """By the status subresource, which is what upstream's role lets a service controller write."""
        metadata = service.metadata
        named = {**patch, "metadata": {**patch.get("metadata", {}), "uid": metadata.uid}}
        how = {"content_type": "application/merge-patch+json"} if whole_lists else {}
        await self.client.patch(Service, metadata.name or "", named, metadata.namespace, subresource="status", **how)


class _Failed(Exception):
    """The provider failed while something was done for a Service."""

    def __init__(
        self,
        service: Service,
        error: Exception,
        doing: str = "",
        *,
        reason: str = "SyncLoadBalancerFailed",
        nodes: tuple[Target, ...] | None = None,
    ) -> None:
        super().__init__(doing)
        self.service, self.error, self.doing, self.reason, self.nodes = service, error, doing, reason, nodes


def wants_one(service: Service) -> bool:
    """It is of type LoadBalancer, whoever is to make it."""
    return service.spec is not None and service.spec.type == "LoadBalancer"


def current_ingress(service: Service) -> list[LoadBalancerIngress]:
    status = service.status.load_balancer if service.status else None
    return status.ingress if status else []


def described(service: Service, cluster: str = CLUSTER_NAME) -> LoadBalancer:
    """What a provider is told of a Service."""
    metadata, spec = service.metadata, service.spec or ServiceSpec()
    asked = metadata.annotations.get(ADDRESSES) or spec.load_balancer_ip or ""
    affinity = spec.session_affinity_config.client_ip if spec.session_affinity_config else None
    return LoadBalancer(
        cluster=cluster,
        namespace=metadata.namespace or "",
        name=metadata.name or "",
        uid=metadata.uid or "",
        ports=tuple(
            Port(port.name or "", port.protocol or "TCP", port.port, port.node_port or 0) for port in spec.ports
        ),
        families=tuple(spec.ip_families) or ("IPv4",),
        both_families=spec.ip_family_policy == "RequireDualStack",
        requested=tuple(each.strip() for each in asked.split(",") if each.strip()),
        source_ranges=tuple(each.strip() for each in spec.load_balancer_source_ranges),
        local_only=spec.external_traffic_policy == "Local",
        health_check_port=spec.health_check_node_port or 0,
        affinity_s=(affinity.timeout_seconds or 0) if affinity else 0,
        annotations=dict(metadata.annotations),
    )


def wish_of(service: Service | None, cluster: str) -> object:
    """All of a Service by which it is decided what to do."""
    if service is None:
        return None
    metadata = service.metadata
    return described(service, cluster), wants_one(service), metadata.deletion_timestamp


def target_of(node: Node, *, with_readiness: bool) -> Target | None:
    """A node as a target; None where load balancers are not to use it."""
    if node.metadata.deletion_timestamp is not None or EXCLUDED in node.metadata.labels:
        return None
    if node.spec and any(taint.key == TO_BE_DELETED for taint in node.spec.taints):
        return None
    return Target(
        node.metadata.name or "",
        tuple(ip_addresses(node)),
        tuple(ip_addresses(node, "ExternalIP")),
        (node.spec.provider_id if node.spec else None) or "",
        ready=not with_readiness or is_ready(node),
    )


def is_ready(node: Node) -> bool:
    conditions = node.status.conditions if node.status else []
    return any(condition.type == "Ready" and condition.status == "True" for condition in conditions)


def _shown(error: Exception) -> str:
    if isinstance(error, (ProviderFailure, APIError)):
        return without_secrets(str(error))
    return without_secrets(f"{type(error).__name__}: {error}")


def _frames(error: Exception) -> str:
    return "".join(traceback.format_tb(error.__traceback__))


def _in_go(value: object) -> str:
    """As Go's %v prints it."""
    if isinstance(value, list):
        return f"[{' '.join(value)}]"
    return "" if value is None else str(value)
