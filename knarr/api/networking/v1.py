"""The types of the API group networking, v1; knarr.api.types tells how to read a field."""

from __future__ import annotations

from typing import Annotated

from knarr.api.core.v1 import TypedLocalObjectReference
from knarr.api.meta.v1 import Condition, LabelSelector, ObjectMeta
from knarr.api.types import Int32, IntOrString, Merge, Struct, always


class IngressBackend(Struct):
    resource: TypedLocalObjectReference | None = None
    service: IngressServiceBackend | None = None


class HTTPIngressPath(Struct):
    backend: IngressBackend = always(IngressBackend)
    path: str | None = None
    path_type: str = always("")


class HTTPIngressRuleValue(Struct):
    paths: list[HTTPIngressPath] = always([])


class ParentReference(Struct):
    group: str | None = None
    name: str = always("")
    namespace: str | None = None
    resource: str = always("")


class IPAddressSpec(Struct):
    parent_ref: ParentReference = always(ParentReference)


class IPAddress(Struct):
    api_version: str = always("networking.k8s.io/v1")
    kind: str = always("IPAddress")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: IPAddressSpec = always(IPAddressSpec)


class IPBlock(Struct):
    cidr: str = always("")
    except_: list[str] = []


class Ingress(Struct):
    api_version: str = always("networking.k8s.io/v1")
    kind: str = always("Ingress")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: IngressSpec | None = None
    status: IngressStatus | None = None


class IngressClass(Struct):
    api_version: str = always("networking.k8s.io/v1")
    kind: str = always("IngressClass")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: IngressClassSpec | None = None


class IngressClassParametersReference(Struct):
    api_group: str | None = None
    kind: str = always("")
    name: str = always("")
    namespace: str | None = None
    scope: str | None = None


class IngressClassSpec(Struct):
    controller: str | None = None
    parameters: IngressClassParametersReference | None = None


class IngressLoadBalancerIngress(Struct):
    hostname: str | None = None
    ip: str | None = None
    ports: list[IngressPortStatus] = []


class IngressLoadBalancerStatus(Struct):
    ingress: list[IngressLoadBalancerIngress] = []


class IngressPortStatus(Struct):
    error: str | None = None
    port: Int32 = always(0)
    protocol: str = always("")


class IngressRule(Struct):
    host: str | None = None
    http: HTTPIngressRuleValue | None = None


class IngressServiceBackend(Struct):
    name: str = always("")
    port: ServiceBackendPort | None = None


class IngressSpec(Struct):
    default_backend: IngressBackend | None = None
    ingress_class_name: str | None = None
    rules: list[IngressRule] = []
    tls: list[IngressTLS] = []


class IngressStatus(Struct):
    load_balancer: IngressLoadBalancerStatus | None = None


class IngressTLS(Struct):
    hosts: list[str] = []
    secret_name: str | None = None


class NetworkPolicy(Struct):
    api_version: str = always("networking.k8s.io/v1")
    kind: str = always("NetworkPolicy")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: NetworkPolicySpec | None = None


class NetworkPolicyEgressRule(Struct):
    ports: list[NetworkPolicyPort] = []
    to: list[NetworkPolicyPeer] = []


class NetworkPolicyIngressRule(Struct):
    from_: list[NetworkPolicyPeer] = []
    ports: list[NetworkPolicyPort] = []


class NetworkPolicyPeer(Struct):
    ip_block: IPBlock | None = None
    namespace_selector: LabelSelector | None = None
    pod_selector: LabelSelector | None = None


class NetworkPolicyPort(Struct):
    end_port: Int32 | None = None
    port: IntOrString | None = None
    protocol: str | None = None


class NetworkPolicySpec(Struct):
    egress: list[NetworkPolicyEgressRule] = []
    ingress: list[NetworkPolicyIngressRule] = []
    pod_selector: LabelSelector | None = None
    policy_types: list[str] = []


class ServiceBackendPort(Struct):
    atomic = True

    name: str | None = None
    number: Int32 | None = None


class ServiceCIDR(Struct):
    api_version: str = always("networking.k8s.io/v1")
    kind: str = always("ServiceCIDR")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: ServiceCIDRSpec | None = None
    status: ServiceCIDRStatus | None = None


class ServiceCIDRSpec(Struct):
    cidrs: list[str] = []


class ServiceCIDRStatus(Struct):
    conditions: Annotated[list[Condition], Merge("map", keys=("type",), patch_key="type", strategy=("merge",))] = []
