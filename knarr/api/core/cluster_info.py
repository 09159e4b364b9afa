"""What a machine that joins reads of its cluster: two ConfigMaps.

kube-public/cluster-info   whom to trust and where the API server is, as a kubeconfig without a user; for everybody
                           (kubeadm's; who reads it checks the authority's key by a hash that it was given)
kube-system/knarr-node     the address ranges and names that every node of the cluster must mean alike
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from msgspec import Struct, json

from knarr.api.core.v1 import ConfigMap
from knarr.api.meta.v1 import ObjectMeta

PUBLIC = ("kube-public", "cluster-info")
SETTINGS = ("kube-system", "knarr-node")
"""Namespace and name."""


class ClusterSettings(Struct, frozen=True, kw_only=True):
    """What all nodes of a cluster have in common. Ranges and addresses are one, or one of each family."""

    cluster_cidrs: tuple[str, ...]
    service_cidrs: tuple[str, ...]
    cluster_dns: tuple[str, ...]
    cluster_domain: str
    load_balancer_pools: str = ""
    """Addresses that the nodes answer for on their LAN."""


_LISTS = {"clusterCIDR": "cluster_cidrs", "serviceCIDR": "service_cidrs", "clusterDNS": "cluster_dns"}


def settings_map(settings: ClusterSettings) -> ConfigMap:
    data = {key: ",".join(getattr(settings, name)) for key, name in _LISTS.items()}
    namespace, name = SETTINGS
    metadata = ObjectMeta(namespace=namespace, name=name)
    data |= {"clusterDomain": settings.cluster_domain, "loadBalancerPools": settings.load_balancer_pools}
    return ConfigMap(metadata=metadata, data=data)


def settings_of(data: Mapping[str, str]) -> ClusterSettings:
    """Raises ValueError where something is missing."""
    missing = [key for key in (*_LISTS, "clusterDomain") if not data.get(key)]
    if missing:
        raise ValueError(f"the ConfigMap {'/'.join(SETTINGS)} lacks {', '.join(missing)}")
    lists: dict[str, Any] = {name: tuple(data[key].split(",")) for key, name in _LISTS.items()}
    pools = data.get("loadBalancerPools", "")
    return ClusterSettings(**lists, cluster_domain=data["clusterDomain"], load_balancer_pools=pools)


def public_map(server: str, ca_pem: bytes) -> ConfigMap:
    cluster = {"certificate-authority-data": base64.b64encode(ca_pem).decode(), "server": server}
    kubeconfig = {"apiVersion": "v1", "kind": "Config", "clusters": [{"name": "", "cluster": cluster}]}
    namespace, name = PUBLIC
    # YAML holds JSON: whoever reads kubeconfigs reads this.
    text = json.encode(kubeconfig | {"contexts": None, "users": None, "current-context": "", "preferences": {}})
    return ConfigMap(metadata=ObjectMeta(namespace=namespace, name=name), data={"kubeconfig": text.decode()})
