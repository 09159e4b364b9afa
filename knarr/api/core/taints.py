"""Taints that the cluster itself sets on nodes, and whether a toleration lets a pod bear a taint."""

from __future__ import annotations

from knarr.api.core.v1 import Taint, Toleration

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
PRESSURE = {
    "MemoryPressure": "node.kubernetes.io/memory-pressure",
    "DiskPressure": "node.kubernetes.io/disk-pressure",
    "PIDPressure": "node.kubernetes.io/pid-pressure",
    "NetworkUnavailable": "node.kubernetes.io/network-unavailable",
}
"""Node condition → taint."""


def tolerates(toleration: Toleration, taint: Taint) -> bool:
    """An empty effect or key of the toleration means any; an empty key needs the operator Exists."""
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    match toleration.operator or "Equal":
        case "Equal":
            return bool(toleration.key) and (toleration.value or "") == (taint.value or "")
        case "Exists":
            return True
        case "Lt" | "Gt":
            return _compares(toleration, taint)
    return False


def _compares(toleration: Toleration, taint: Taint) -> bool:
    """KEP-5471: the taint's value lies below (Lt) or above (Gt) the toleration's."""
    try:
        limit, value = int(toleration.value or ""), int(taint.value or "")
    except ValueError:
        return False
    return value < limit if toleration.operator == "Lt" else value > limit
