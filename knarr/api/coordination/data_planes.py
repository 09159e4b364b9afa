"""How a data plane says how far it has come: a Lease of its own, in kube-system.

    data-plane.<node>   the service rules of a node
    edge.<node>         the node's Envoy

Its annotation names the newest revision of EndpointSlices that the data plane is known to show, its renewTime is the
heartbeat: a lease that isn't renewed for its duration belongs to one that is dead, and nobody waits for it.
"""

from __future__ import annotations

NAMESPACE = "kube-system"
APPLIED_REVISION = "knarr.dev/applied-revision"
"""Annotation: everything up to this revision of EndpointSlices is in force."""
LABEL = "knarr.dev/data-plane"
"""On the Lease of every data plane; its value says which kind it is."""
SERVICE_RULES = "data-plane"
EDGE = "edge"
KINDS = (SERVICE_RULES, EDGE)


def lease_name(kind: str, node: str) -> str:
    return f"{kind}.{node}"


def leases_of(node: str) -> tuple[str, ...]:
    """Those that are the node's own to write."""
    return tuple(lease_name(kind, node) for kind in KINDS)
