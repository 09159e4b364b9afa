"""What a cluster has from the first moment: namespaces, roles, default classes, Services of API and DNS."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Sequence

from knarr.api.core.v1 import (
    EndpointAddress,
    EndpointPort,
    Endpoints,
    EndpointSubset,
    Namespace,
    Service,
    ServicePort,
    ServiceSpec,
)
from knarr.api.core.volume_matching import DEFAULT_CLASS, LOCAL
from knarr.api.discovery.v1 import Endpoint, EndpointConditions, EndpointSlice
from knarr.api.discovery.v1 import EndpointPort as SlicePort
from knarr.api.errors import AlreadyExists, NotFound
from knarr.api.flowcontrol.defaults import LEVELS, SCHEMAS
from knarr.api.flowcontrol.v1 import FlowSchema, PriorityLevelConfiguration
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.networking.ingresses import DEFAULT_INGRESS_CLASS, INGRESS_CONTROLLER
from knarr.api.networking.v1 import IngressClass, IngressClassSpec
from knarr.api.scheduling.resources import DESCRIPTIONS, SYSTEM
from knarr.api.scheduling.v1 import PriorityClass
from knarr.api.storage.v1 import StorageClass
from knarr.apiserver.default_range import ensure_default_range
from knarr.apiserver.health import Health
from knarr.apiserver.local_services import register_local
from knarr.apiserver.reconcile_roles import reconcile_roles
from knarr.client.client import Client

NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")


async def bootstrap(
    client: Client,
    service_cidrs: Sequence[str],
    cluster_dns: Sequence[str],
    address: str,
    port: int,
    health: Health | None = None,
    *,
    ingress_class: str = "none",
) -> None:
    """Make what is missing, and let the `kubernetes` Service point at `address`:`port`. May be repeated.

    `ingress_class` says what becomes of our own: the `default` one, one to be `named`, or `none`.
    Of `service_cidrs` and `cluster_dns` there is one, or one of each family of addresses.
    `health` tells what is not made yet, under upstream's names. What doesn't need each other is written at once: then
    the writes share their way to the disk.
    """
    health = health or Health()
    roles = health.hook("rbac/bootstrap-roles")
    classes = health.hook("scheduling/bootstrap-system-priority-classes")
    flow = health.hook("priority-and-fairness-config-producer")
    service_range = health.hook("start-kubernetes-service-cidr-controller")
    registration = health.hook("kube-apiserver-autoregistration")
    namespaces = health.hook("start-system-namespaces-controller")
    if not await _is_there(client, Namespace, NAMESPACES[0]):
        # Only at first: whoever doesn't want them removes them for good.
        await local_class(client)
        if ingress_class != "none":
            await own_ingress_class(client, default=ingress_class == "default")
    await asyncio.gather(*(_ensure(client, Namespace(metadata=ObjectMeta(name=name))) for name in NAMESPACES))
    namespaces()
    await asyncio.gather(
        _then(roles, reconcile_roles(client)),
        _then(classes, priority_classes(client)),
        _then(flow, *(_ensure(client, each) for each in (*LEVELS, *SCHEMAS))),
        _then(registration, register_local(client)),
        _then(service_range, ensure_default_range(client, service_cidrs)),
        _api_service(client, service_cidrs[0], address, port),
        _ensure(client, _dns_service(cluster_dns)),
    )


async def _then(finished: Callable[[], None], *work: Awaitable[None]) -> None:
    """Do all of it, then say so."""
    await asyncio.gather(*work)
    finished()


async def _api_service(client: Client, service_cidr: str, address: str, port: int) -> None:
    """The Service `kubernetes`, and where it leads; of one family, as upstream's."""
    first = str(ipaddress.ip_network(service_cidr)[1])
    labels = {"component": "apiserver", "provider": "kubernetes"}
    metadata = ObjectMeta(name="kubernetes", namespace="default", labels=labels)
    ports = [ServicePort(name="https", port=443, protocol="TCP", target_port=port)]
    await _ensure(client, Service(metadata=metadata, spec=ServiceSpec(cluster_ip=first, ports=ports)))
    if not ipaddress.ip_address(address).is_loopback:  # Where no pod could reach it, nothing leads there.
        await _publish(client, address, port)


async def local_class(client: Client) -> None:
    """The class of claims that name none: folders of the node on which their first pod runs."""
    metadata = ObjectMeta(name="local", annotations={DEFAULT_CLASS[0]: "true"})
    await _ensure(
        client,
        StorageClass(
            metadata=metadata,
            provisioner=LOCAL,
            reclaim_policy="Delete",
            volume_binding_mode="WaitForFirstConsumer",
            allow_volume_expansion=True,
        ),
    )


async def own_ingress_class(client: Client, *, default: bool) -> None:
    """The class of Ingress objects that knarr serves itself."""
    metadata = ObjectMeta(name="knarr", annotations={DEFAULT_INGRESS_CLASS: "true"} if default else {})
    await _ensure(client, IngressClass(metadata=metadata, spec=IngressClassSpec(controller=INGRESS_CONTROLLER)))


async def _is_there(client: Client, kind: type[Namespace], name: str) -> bool:
    try:
        await client.get(kind, name)
    except NotFound:
        return False
    return True


async def priority_classes(client: Client) -> None:
    """Those that every cluster has."""
    for name, value in SYSTEM.items():
        metadata = ObjectMeta(name=name)
        await _ensure(client, PriorityClass(metadata=metadata, value=value, description=DESCRIPTIONS[name]))


def _dns_service(cluster_dns: Sequence[str]) -> Service:
    labels = {"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"}
    ports = [
        ServicePort(name="dns", port=53, protocol="UDP", target_port=53),
        ServicePort(name="dns-tcp", port=53, protocol="TCP", target_port=53),
        ServicePort(name="metrics", port=9153, protocol="TCP", target_port=9153),
    ]
    return Service(
        metadata=ObjectMeta(name="kube-dns", namespace="kube-system", labels=labels),
        spec=ServiceSpec(
            cluster_ip=cluster_dns[0],
            cluster_ips=list(cluster_dns),
            ip_family_policy="RequireDualStack" if len(cluster_dns) > 1 else None,
            ports=ports,
        ),
    )


async def _publish(client: Client, address: str, port: int) -> None:
    """Endpoints and EndpointSlice of the API server itself."""
    endpoints = Endpoints(
        metadata=ObjectMeta(
            name="kubernetes", namespace="default", labels={"endpointslice.kubernetes.io/skip-mirror": "true"}
        ),
        subsets=[
            EndpointSubset(
                addresses=[EndpointAddress(ip=address)],
                ports=[EndpointPort(name="https", port=port, protocol="TCP")],
            )
        ],
    )
    piece = EndpointSlice(
        metadata=ObjectMeta(
            name="kubernetes", namespace="default", labels={"kubernetes.io/service-name": "kubernetes"}
        ),
        address_type=f"IPv{ipaddress.ip_address(address).version}",
        endpoints=[Endpoint(addresses=[address], conditions=EndpointConditions(ready=True))],
        ports=[SlicePort(name="https", port=port, protocol="TCP")],
    )
    for obj in (endpoints, piece):
        await _ensure(client, obj, keep=False)


async def _ensure(
    client: Client,
    obj: Namespace
    | PriorityClass
    | Service
    | Endpoints
    | EndpointSlice
    | FlowSchema
    | PriorityLevelConfiguration
    | StorageClass
    | IngressClass,
    *,
    keep: bool = True,
) -> None:
    metadata = obj.metadata
    try:
        found = await client.get(type(obj), metadata.name or "", metadata.namespace)
    except NotFound:
        try:
            await client.create(obj)
        except AlreadyExists:
            return
        return
    if not keep and not _same(found, obj):
        await client.update(obj)


def _same(found: object, wanted: object) -> bool:
    names = [name for name in type(wanted).__struct_fields__ if name != "metadata"]  # type: ignore[attr-defined]
    return all(getattr(found, name) == getattr(wanted, name) for name in names)
