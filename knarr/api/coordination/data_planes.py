"""How a data plane says how far it has come: a Lease of its own, in kube-system.

    data-plane.<node>   the service rules of a node
    edge.<node>         the node's Envoy
    announcer.<node>    who answers on the LAN for load balancers' addresses (`knarr.edge.announcer`)

The annotation of the first two names the newest revision of EndpointSlices that the data plane is known to show;
renewTime is the heartbeat: a lease that isn't renewed for its duration belongs to one that is dead, for which nobody
waits.
"""

from __future__ import annotations

NAMESPACE = "kube-system"
APPLIED_REVISION = "knarr.dev/applied-revision"
"""Annotation: everything up to this revision of EndpointSlices is in force."""
SERVED_PORTS = "knarr.dev/served-ports"
"""Annotation of an Envoy's: where it listens for Ingress, separated by commas; empty for nowhere."""
LABEL = "knarr.dev/data-plane"
"""On the Lease of every data plane; its value says which kind it is."""
SERVICE_RULES = "data-plane"
EDGE = "edge"
ANNOUNCER = "announcer"
ANNOUNCER_LABEL = "knarr.dev/announcer"
"""On the Lease of every announcer. It leads no connection to a pod, so nobody waits for it."""
KINDS = (SERVICE_RULES, EDGE, ANNOUNCER)


def lease_name(kind: str, node: str) -> str:
    return f"{kind}.{node}"


def leases_of(node: str) -> tuple[str, ...]:
    """Those that are the node's own to write."""
    return tuple(lease_name(kind, node) for kind in KINDS)
