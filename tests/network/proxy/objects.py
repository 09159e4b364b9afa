"""Services and EndpointSlices as short as tests like them."""

from __future__ import annotations

from typing import Any

from knarr.api.core.v1 import (
    LoadBalancerIngress,
    LoadBalancerStatus,
    Node,
    NodeAddress,
    NodeStatus,
    Service,
    ServicePort,
    ServiceSpec,
    ServiceStatus,
)
from knarr.api.discovery.v1 import Endpoint, EndpointConditions, EndpointPort, EndpointSlice
from knarr.api.meta.v1 import ObjectMeta

NODE = "node-1"
ELSEWHERE = "node-2"


def service(
    name: str = "web",
    cluster_ip: str = "10.96.0.20",
    *,
    port: int = 80,
    protocol: str = "TCP",
    node_port: int | None = None,
    port_name: str | None = None,
    namespace: str = "default",
    **spec: Any,
) -> Service:
    """`cluster_ip` may name one of each family, separated by a comma."""
    spec.setdefault("type", "NodePort" if node_port else "ClusterIP")
    addresses = cluster_ip.split(",")
    return Service(
        metadata=ObjectMeta(name=name, namespace=namespace),
        spec=ServiceSpec(
            cluster_ip=addresses[0],
            cluster_ips=addresses,
            ports=[ServicePort(name=port_name, port=port, protocol=protocol, node_port=node_port)],
            **spec,
        ),
    )


def endpoint(address: str, *, node: str = NODE, **conditions: bool) -> Endpoint:
    return Endpoint(
        addresses=[address],
        node_name=node,
        conditions=EndpointConditions(**{"ready": True, "serving": True, "terminating": False, **conditions}),
    )


def endpoint_slice(
    *endpoints: Endpoint,
    service: str = "web",
    name: str = "web-1",
    port: int = 8080,
    protocol: str = "TCP",
    port_name: str | None = None,
    namespace: str = "default",
) -> EndpointSlice:
    return EndpointSlice(
        metadata=ObjectMeta(name=name, namespace=namespace, labels={"kubernetes.io/service-name": service}),
        address_type="IPv6" if any(":" in each.addresses[0] for each in endpoints) else "IPv4",
        endpoints=list(endpoints),
        ports=[EndpointPort(name=port_name or "", port=port, protocol=protocol)],
    )


def balanced(made: Service, *addresses: str, ip_mode: str | None = None) -> Service:
    """A Service whose load balancer has these addresses."""
    assert made.spec
    made.spec.type = "LoadBalancer"
    ingress = [LoadBalancerIngress(ip=each, ip_mode=ip_mode) for each in addresses]
    made.status = ServiceStatus(load_balancer=LoadBalancerStatus(ingress=ingress))
    return made


def node(name: str, *addresses: str) -> Node:
    return Node(
        metadata=ObjectMeta(name=name),
        status=NodeStatus(addresses=[NodeAddress(type="InternalIP", address=each) for each in addresses]),
    )
