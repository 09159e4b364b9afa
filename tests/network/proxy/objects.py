"""Services and EndpointSlices as short as tests like them."""

from __future__ import annotations

from typing import Any

from knarr.api.core.v1 import Service, ServicePort, ServiceSpec
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
    spec.setdefault("type", "NodePort" if node_port else "ClusterIP")
    return Service(
        metadata=ObjectMeta(name=name, namespace=namespace),
        spec=ServiceSpec(
            cluster_ip=cluster_ip,
            cluster_ips=[cluster_ip],
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
        address_type="IPv4",
        endpoints=list(endpoints),
        ports=[EndpointPort(name=port_name or "", port=port, protocol=protocol)],
    )
