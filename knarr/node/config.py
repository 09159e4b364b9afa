"""What a node agent is told: its name, its folders, and how its pods find names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct, field

KUBELET_VERSION = "v1.36.0"
"""The API level that the node claims, in nodeInfo.kubeletVersion."""


class NodeConfig(Struct, frozen=True):
    """One node. With `hollow` no file, mount or connection is made for pods: for the simulated runtime."""

    name: str
    root: Path
    """Folder for volumes and the pods' own files, below <root>/pods/<uid>."""
    log_root: Path
    """Folder for container logs, <log_root>/<namespace>_<name>_<uid>/<container>/<restart count>.log."""
    internal_ips: tuple[str, ...]
    """At which others reach it: one, or one of each family."""
    pod_cidrs: tuple[str, ...] = ()
    """Of its pods; likewise."""
    provider_id: str = ""
    """The machine's name at its cloud."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    port: int = 0
    """At which the API server reaches it from elsewhere (kubelet's 10250); 0 where both are one process."""
    cluster_dns: tuple[str, ...] = ()
    cluster_domain: str = "cluster.local"
    resolv_conf: str = "/etc/resolv.conf"
    """The node's own, for dnsPolicy Default, and the upstream of ClusterFirst without a cluster DNS."""
    pods_max: int = 110
    """Pods that the scheduler may put here: upstream's default."""
    labels: Mapping[str, str] = field(default_factory=dict)
    capacity: Mapping[str, str] = field(default_factory=dict)
    """In place of what the machine has (cpu, memory, ephemeral-storage, …)."""
    hollow: bool = False
    drain_s_max: float = 10.0
    """How long a pod's end, or its way into service, waits for data planes; 0: not at all, as upstream."""

    def pod_folder(self, uid: str) -> Path:
        return self.root / "pods" / uid

    def log_folder(self, namespace: str, name: str, uid: str) -> Path:
        return self.log_root / f"{namespace}_{name}_{uid}"
