"""Which families of addresses a Service has: one or both, and in which order (KEP-563, dual-stack).

What the user left out follows from what they said: the families from the addresses, the policy from how the Service
was, everything else from the cluster, whose first family is the default. A Service never becomes dual-stack or stops
being so unless it is asked for: by another policy, or by a second address or family that comes or goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from knarr.api.core.v1 import ServiceSpec
from knarr.api.core.validate_addresses import parsed
from knarr.api.core.validate_services import validate_cluster_ips
from knarr.api.errors import Cause, invalid

POLICY = "spec.ipFamilyPolicy"
OTHER = {"IPv4": "IPv6", "IPv6": "IPv4"}


def keeps_its_families(spec: ServiceSpec, old: ServiceSpec | None) -> bool:
    """A Service that prefers both and changes nothing about it stays as it is, whatever became of the cluster."""
    return (
        old is not None
        and spec.type == old.type != "ExternalName"
        and spec.ip_family_policy == "PreferDualStack"
        and old.ip_family_policy in (None, "PreferDualStack")
        and (spec.cluster_ips, spec.ip_families) == (old.cluster_ips, old.ip_families)
    )


def settle_families(spec: ServiceSpec, old: ServiceSpec | None, configured: Sequence[str]) -> list[Cause]:
    """Fill in ipFamilyPolicy and ipFamilies; answers what can't be. `configured`: the cluster's, its own first."""
    if spec.type == "ExternalName" or keeps_its_families(spec, old):
        return []
    headless_by_hand = spec.cluster_ip == "None" and not spec.selector
    if spec.ip_family_policy is None:
        before = old.ip_family_policy if old else None
        # Whoever lists the addresses of a headless Service may list both kinds, also where the cluster has one.
        spec.ip_family_policy = before or ("RequireDualStack" if headless_by_hand else "SingleStack")
    if causes := list(validate_cluster_ips(spec)):
        return causes
    causes = [*_settle_change(spec, old), *_check_policy(spec), *_infer_from_addresses(spec, configured)]
    if causes:
        return causes
    if not headless_by_hand and (causes := list(_check_cluster(spec, configured))):
        return causes
    spec.ip_families = spec.ip_families or [configured[0]]
    wants_both = spec.ip_family_policy != "SingleStack" and (headless_by_hand or len(configured) > 1)
    if wants_both and len(spec.ip_families) == 1:
        spec.ip_families = [*spec.ip_families, OTHER[spec.ip_families[0]]]
    return []


def _settle_change(spec: ServiceSpec, old: ServiceSpec | None) -> Iterable[Cause]:
    """SingleStack lets the second address go; any other policy holds on to it."""
    if old is None:
        return
    if spec.ip_family_policy == "SingleStack":
        if spec.cluster_ips == old.cluster_ips:
            spec.cluster_ips = spec.cluster_ips[:1]
        if spec.ip_families == old.ip_families:
            spec.ip_families = spec.ip_families[:1]
        return
    if 0 < len(spec.cluster_ips) < len(old.cluster_ips):
        yield invalid(POLICY, spec.ip_family_policy, "must be 'SingleStack' to release the secondary cluster IP")
    if 0 < len(spec.ip_families) < len(old.ip_families):
        yield invalid(POLICY, spec.ip_family_policy, "must be 'SingleStack' to release the secondary IP family")


def _check_policy(spec: ServiceSpec) -> Iterable[Cause]:
    if spec.ip_family_policy != "SingleStack":
        return
    for found, what in ((spec.cluster_ips, "cluster IPs"), (spec.ip_families, "IP families")):
        if len(found) == 2:
            detail = f"must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified"
            yield invalid(POLICY, spec.ip_family_policy, detail)


def _infer_from_addresses(spec: ServiceSpec, configured: Sequence[str]) -> Iterable[Cause]:
    for index, text in enumerate(spec.cluster_ips):
        address = parsed(text)
        if address is None:
            return  # Headless.
        family = f"IPv{address.version}"
        if index < len(spec.ip_families):
            continue
        if family in configured:
            spec.ip_families = [*spec.ip_families, family]
        else:
            yield invalid(f"spec.clusterIPs[{index}]", spec.cluster_ips, f"{family} is not configured on this cluster")


def _check_cluster(spec: ServiceSpec, configured: Sequence[str]) -> Iterable[Cause]:
    if spec.ip_family_policy == "RequireDualStack" and len(configured) < 2:
        yield invalid(POLICY, spec.ip_family_policy, "this cluster is not configured for dual-stack services")
    for index, family in enumerate(spec.ip_families):
        if family not in configured:
            yield invalid(f"spec.ipFamilies[{index}]", family, "not configured on this cluster")
