"""In which order groups and versions are listed, which decides what a name means that several groups have.

Of the groups that knarr serves itself: the same numbers as upstream's, which each group's APIService carries as
groupPriorityMinimum and versionPriority. The group of APIServices itself stands before all others.
"""

from __future__ import annotations

from collections.abc import Iterable
from re import fullmatch

FIRST = "apiregistration.k8s.io"
GROUPS = {
    "": 18000,
    "apps": 17800,
    "events.k8s.io": 17750,
    "authentication.k8s.io": 17700,
    "authorization.k8s.io": 17600,
    "autoscaling": 17500,
    "batch": 17400,
    "certificates.k8s.io": 17300,
    "networking.k8s.io": 17200,
    "policy": 17100,
    "rbac.authorization.k8s.io": 17000,
    "storage.k8s.io": 16800,
    "admissionregistration.k8s.io": 16700,
    "apiextensions.k8s.io": 16700,
    "scheduling.k8s.io": 16600,
    "coordination.k8s.io": 16500,
    "node.k8s.io": 16300,
    "discovery.k8s.io": 16200,
    "resource.k8s.io": 16200,
    "flowcontrol.apiserver.k8s.io": 16100,
    "metrics.k8s.io": 100,  # As upstream's metrics-server registers it.
}
GROUP_OTHERS = 1000
VERSION_STABLE = 15
VERSIONS = {
    ("", "v1"): 1,
    ("autoscaling", "v2"): 30,
    ("flowcontrol.apiserver.k8s.io", "v1"): 21,
    ("metrics.k8s.io", "v1beta1"): 100,
    ("resource.k8s.io", "v1"): 20,
}
"""Where it is not VERSION_STABLE."""


def group_priority(group: str) -> int:
    """Of a group that knarr serves itself."""
    return GROUPS.get(group, GROUP_OTHERS)


def version_priority(group: str, version: str) -> int:
    return VERSIONS.get((group, version), VERSION_STABLE)


def in_order(group_versions: Iterable[tuple[str, str, int, int]]) -> list[tuple[str, list[str]]]:
    """Groups, and their versions, the first first; of (group, version, groupPriorityMinimum, versionPriority).

    A group stands where the highest of its priorities puts it; equal ones are sorted by name.
    """
    known = sorted(group_versions, key=lambda each: (each[0] != FIRST, -each[2], f"{each[1]}.{each[0]}"))
    found: dict[str, list[tuple[int, str]]] = {}
    for group, version, _, priority in known:
        found.setdefault(group, []).append((priority, version))
    return [
        (group, [version for _, version in sorted(versions, key=lambda each: (-each[0], _age(each[1])))])
        for group, versions in found.items()
    ]


def _age(version: str) -> tuple[int, int, int, str]:
    """Sorts versions by name, the newest first: v2, v1, v1beta2, v1beta1, v1alpha1, and then whatever else."""
    parts = fullmatch(r"v([1-9][0-9]{0,8})(?:(alpha|beta)([1-9][0-9]{0,8}))?", version)
    if parts is None:
        return 3, 0, 0, version
    stage = {None: 0, "beta": 1, "alpha": 2}[parts[2]]
    return stage, -int(parts[1]), -int(parts[3] or 0), ""
