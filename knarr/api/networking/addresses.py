"""IPAddress and ServiceCIDR: which addresses Services have, and from which ranges (KEP-1880)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from knarr.api.errors import Cause, invalid, required
from knarr.api.networking.policies import CIDR_FAULT, network
from knarr.api.networking.v1 import IPAddress, ServiceCIDR
from knarr.api.printing import age
from knarr.api.resources import Column, Strategy

CIDR_FINALIZER = "networking.k8s.io/service-cidr-finalizer"
"""Keeps a range as long as addresses in use are in no other."""
CIDRS_MAX = 2
"""One a family of addresses."""


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
        parent = obj.spec.parent_ref
        if not parent.resource:
            yield required("spec.parentRef.resource")
        if not parent.name:
            yield required("spec.parentRef.name")

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

    def validate(self, obj: ServiceCIDR) -> Iterable[Cause]:
        written = obj.spec.cidrs if obj.spec else []
        if not written:
            yield required("spec.cidrs", "at least one CIDR required")
        elif len(written) > CIDRS_MAX:
            yield invalid("spec", obj.spec, "may only hold up to 2 values")
        found = [network(each) for each in written]
        for index, (text, each) in enumerate(zip(written, found, strict=True)):
            if each is None:
                yield invalid(f"spec.cidrs[{index}]", text, CIDR_FAULT)
            elif str(each) != text:
                yield invalid(f"spec.cidrs[{index}]", text, f'must be in canonical form ("{each}")')
        if len(found) == CIDRS_MAX and found[0] and found[1] and found[0].version == found[1].version:
            yield invalid("spec", obj.spec, "may specify no more than one IP for each IP family")

    def validate_update(self, obj: ServiceCIDR, old: ServiceCIDR) -> Iterable[Cause]:
        if old.spec and old.spec.cidrs and (obj.spec is None or obj.spec.cidrs != old.spec.cidrs):
            yield invalid("spec.cidrs", obj.spec.cidrs if obj.spec else [], "field is immutable")


CIDR_COLUMNS = (
    Column("CIDRs", lambda obj, now_s: ",".join(obj.spec.cidrs) if obj.spec else ""),
    Column("Age", lambda obj, now_s: age(obj.metadata.creation_timestamp, now_s)),
)
