"""What a machine that joins reads of its cluster: two ConfigMaps.

kube-public/cluster-info   whom to trust and where the API server is, as a kubeconfig without a user; for everybody
                           (kubeadm's; who reads it checks the authority's key by a hash that it was given)
kube-system/knarr-node     the address ranges and names that every node of the cluster must mean alike
"""

from __future__ import annotations

import base64
from collections.abc import Mapping

from msgspec import MsgspecError, Struct, json

from knarr.api.core.v1 import ConfigMap
from knarr.api.meta.v1 import ObjectMeta

PUBLIC = ("kube-public", "cluster-info")
SETTINGS = ("kube-system", "knarr-node")
"""Namespace and name."""
SETTINGS_KEY = "settings.json"


class ClusterSettings(Struct, frozen=True, kw_only=True, rename="camel"):
    """What all nodes of a cluster have in common. Ranges and addresses are one, or one of each family."""

    cluster_cidrs: tuple[str, ...]
    """The ranges of all pods."""
    service_cidrs: tuple[str, ...]
    cluster_dns: tuple[str, ...]
    cluster_domain: str
    dns_forward: tuple[tuple[str, int], ...] = ()
    """Resolvers for names outside of the cluster; none means each machine's own, which may be reached from it alone."""
    dns_stub_domains: dict[str, list[tuple[str, int]]] = {}
    nodeport_addresses: tuple[str, ...] = ()
    """Where node ports are answered; empty for the default."""
    load_balancer: str = "local"
    load_balancer_pools: str = ""
    """Addresses that the nodes answer for on their LAN."""
    drain_timeout: int = 10
    """How long a pod's end waits for data planes at most, in seconds."""


def settings_map(settings: ClusterSettings) -> ConfigMap:
    namespace, name = SETTINGS
    metadata = ObjectMeta(namespace=namespace, name=name)
    return ConfigMap(metadata=metadata, data={SETTINGS_KEY: json.encode(settings).decode()})


def settings_of(data: Mapping[str, str]) -> ClusterSettings:
    """Raises ValueError where they can't be read."""
    try:
        return json.decode(data.get(SETTINGS_KEY, ""), type=ClusterSettings)
    except MsgspecError as error:
        raise ValueError(f"the ConfigMap {'/'.join(SETTINGS)} can't be read: {error}") from None


def public_map(server: str, ca_pem: bytes) -> ConfigMap:
    cluster = {"certificate-authority-data": base64.b64encode(ca_pem).decode(), "server": server}
    kubeconfig = {"apiVersion": "v1", "kind": "Config", "clusters": [{"name": "", "cluster": cluster}]}
    namespace, name = PUBLIC
    # YAML holds JSON: whoever reads kubeconfigs reads this.
    text = json.encode(kubeconfig | {"contexts": None, "users": None, "current-context": "", "preferences": {}})
    return ConfigMap(metadata=ObjectMeta(namespace=namespace, name=name), data={"kubeconfig": text.decode()})
