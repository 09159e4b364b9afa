"""IPAddress and ServiceCIDR: which addresses Services have, and from which ranges (KEP-1880)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from knarr.api import names
from knarr.api.core.validate_addresses import validate_cidr
from knarr.api.errors import Cause, invalid, required
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.networking.policies import network
from knarr.api.networking.v1 import IPAddress, IPAddressSpec, ParentReference, ServiceCIDR, ServiceCIDRSpec
from knarr.api.printing import age
from knarr.api.resources import Column, Strategy

CIDR_FINALIZER = "networking.k8s.io/service-cidr-finalizer"
"""Keeps a range as long as addresses in use are in no other."""
DEFAULT_CIDR = "kubernetes"
"""The ServiceCIDR with the ranges that the API server was started with."""
CIDRS_MAX = 2
"""One a family of addresses."""
FAMILY_LABEL, MANAGER_LABEL = "ipaddress.kubernetes.io/ip-family", "ipaddress.kubernetes.io/managed-by"
MANAGER = "ipallocator.k8s.io"


def address_of(address: str, service: ObjectMeta) -> IPAddress:
    """The IPAddress by which a Service holds an address, as it is to be created."""
    family = f"IPv{ipaddress.ip_address(address).version}"
    parent = ParentReference(group="", resource="services", namespace=service.namespace, name=service.name or "")
    metadata = ObjectMeta(name=address, labels={FAMILY_LABEL: family, MANAGER_LABEL: MANAGER})
    return IPAddress(metadata=metadata, spec=IPAddressSpec(parent_ref=parent))


def address_name_faults(name: str) -> list[str]:
    """An IPAddress is called by the address, in its canonical form."""
    try:
        canonical = str(ipaddress.ip_address(name))
    except ValueError:
        return ["must be a valid IP address"]
    return [] if canonical == name else [f'must be in canonical form ("{canonical}")']


class IPAddressRules(Strategy[IPAddress]):
    name_faults = staticmethod(address_name_faults)

    def validate(self, obj: IPAddress) -> Iterable[Cause]:
        parent, path = obj.spec.parent_ref, "spec.parentRef"
        for fault in names.dns1123_subdomain_faults(parent.group) if parent.group else ():
            yield invalid(f"{path}.group", parent.group, fault)
        for field, value in (("resource", parent.resource), ("name", parent.name), ("namespace", parent.namespace)):
            if not value and field != "namespace":
                yield required(f"{path}.{field}")
            for fault in names.path_segment_faults(value or ""):
                yield invalid(f"{path}.{field}", value, fault)

    def validate_update(self, obj: IPAddress, old: IPAddress) -> Iterable[Cause]:
        if obj.spec.parent_ref != old.spec.parent_ref:
            yield invalid("spec.parentRef", obj.spec.parent_ref, "field is immutable")


def _parent(obj: IPAddress) -> str:
    parent = obj.spec.parent_ref
    resource = f"{parent.resource}.{parent.group}" if parent.group else parent.resource
    return "/".join(part for part in (resource, parent.namespace, parent.name) if part)


ADDRESS_COLUMNS = (Column("ParentRef", lambda obj, now_s: _parent(obj)),)


class ServiceCIDRRules(Strategy[ServiceCIDR]):
    has_status = True

    def validate_create(self, obj: ServiceCIDR) -> Iterable[Cause]:
        return _validate_ranges(obj.spec or ServiceCIDRSpec())

    def validate_update(self, obj: ServiceCIDR, old: ServiceCIDR) -> Iterable[Cause]:
        """A range never changes; one of the other family may come to it."""
        spec = obj.spec or ServiceCIDRSpec()
        before, path = old.spec.cidrs if old.spec else [], "spec.cidrs"
        grown = (len(before), len(spec.cidrs)) == (1, CIDRS_MAX)
        if len(spec.cidrs) != len(before) and not grown:
            yield invalid(path, spec.cidrs, "field is immutable")
            return
        for index, (cidr, was) in enumerate(zip(spec.cidrs, before, strict=False)):
            if cidr != was:
                yield invalid(f"{path}[{index}]", cidr, "field is immutable")
        if grown:
            yield from _validate_ranges(spec)


def _validate_ranges(spec: ServiceCIDRSpec) -> Iterable[Cause]:
    path = "spec.cidrs"
    if not spec.cidrs:
        yield required(path, "at least one CIDR required")
        return
    if len(spec.cidrs) > CIDRS_MAX:
        yield invalid(path, spec, "may only hold up to 2 values")
        return
    found = [network(each) for each in spec.cidrs]
    for index, (text, each) in enumerate(zip(spec.cidrs, found, strict=True)):
        faults = list(validate_cidr(text, f"{path}[{index}]"))
        yield from faults
        if not faults and str(each) != text:
            yield invalid(f"{path}[{index}]", text, f'must be in canonical form ("{each}")')
    if len(found) == CIDRS_MAX and found[0] and found[1] and found[0].version == found[1].version:
        detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"
        yield invalid(path, spec.cidrs, detail)


CIDR_COLUMNS = (
    Column("CIDRs", lambda obj, now_s: ",".join(obj.spec.cidrs) if obj.spec else ""),
    Column("Age", lambda obj, now_s: age(obj.metadata.creation_timestamp, now_s)),
)
