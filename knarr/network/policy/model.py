"""What NetworkPolicies mean for the pods of one node: who may open a connection to them, and to whom they may.

A pod that no policy selects is open. One that a policy selects is closed in the policy's directions but for what the
rules of all its policies together allow; both ends must allow a connection. Answers to an allowed connection pass; a
pod always reaches itself, and its own node always reaches it
(https://kubernetes.io/docs/concepts/services-networking/network-policies/).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from knarr.api.core.v1 import Pod
from knarr.api.networking.v1 import (
    NetworkPolicy,
    NetworkPolicyPeer,
    NetworkPolicyPort,
    NetworkPolicySpec,
)
from knarr.api.selectors import EVERYTHING, Selector, selector_of

INGRESS, EGRESS = "Ingress", "Egress"
FINISHED = ("Succeeded", "Failed")


class PodView(Struct, frozen=True):
    """A pod as policies see it."""

    namespace: str
    labels: Mapping[str, str]
    addresses: tuple[str, ...]
    ports: Mapping[tuple[str, str], frozenset[int]]
    """Numbers by name and protocol (tcp, udp, sctp)."""
    is_local: bool
    """It runs on this node, which therefore enforces what is said of it."""


class Pods(Struct, frozen=True):
    """Pods by namespace and labels. The peer of a rule, or what a policy selects."""

    pods: Selector = EVERYTHING
    namespace: str = ""
    """In this one only; else in those that `namespaces` selects."""
    namespaces: Selector = EVERYTHING

    def matches(self, pod: PodView, labels_of_namespace: Mapping[str, str] | None) -> bool:
        if self.namespace:
            return pod.namespace == self.namespace and self.pods.matches(pod.labels)
        return (
            labels_of_namespace is not None
            and self.namespaces.matches(labels_of_namespace)
            and self.pods.matches(pod.labels)
        )


class Block(Struct, frozen=True):
    """Addresses of a range, less some."""

    cidr: str
    excepted: tuple[str, ...] = ()


class Ports(Struct, frozen=True):
    """Ports of a protocol: a range, or by the name that pods have for one. Neither means all."""

    protocol: str
    """tcp, udp or sctp."""
    first: int = 0
    last: int = 0
    name: str = ""


class Rule(Struct, frozen=True):
    """Allows what comes from (goes to) any of `peers` by any of `ports`; None means whoever, whatever."""

    peers: tuple[Pods | Block, ...] | None
    ports: tuple[Ports, ...] | None


class Policy(Struct, frozen=True):
    """One NetworkPolicy in one direction."""

    name: str
    """namespace/name."""
    selects: Pods
    rules: tuple[Rule, ...]


def policies_of(policy: NetworkPolicy) -> dict[str, Policy]:
    """A NetworkPolicy by direction."""
    spec = policy.spec or NetworkPolicySpec()
    namespace = policy.metadata.namespace or ""
    name = f"{namespace}/{policy.metadata.name}"
    selects = Pods(selector_of(spec.pod_selector) or EVERYTHING, namespace)
    found = {}
    if INGRESS in spec.policy_types:
        rules = tuple(_rule(rule.from_, rule.ports, namespace) for rule in spec.ingress)
        found[INGRESS] = Policy(name, selects, rules)
    if EGRESS in spec.policy_types:
        rules = tuple(_rule(rule.to, rule.ports, namespace) for rule in spec.egress)
        found[EGRESS] = Policy(name, selects, rules)
    return found


def pod_view(pod: Pod, node_name: str, early: Sequence[str] = ()) -> PodView | None:
    """None for pods that policies don't concern: without address, ended, or in the node's own network.

    `early` are the addresses of one that has them, but has not told yet.
    """
    spec, status = pod.spec, pod.status
    if spec is None or spec.host_network or (status and status.phase in FINISHED):
        return None
    told = [each.ip for each in status.pod_ips if each.ip] if status else []
    if not told and status and status.pod_ip:
        told = [status.pod_ip]
    addresses = tuple(told or early)
    if not addresses:
        return None
    ports: dict[tuple[str, str], frozenset[int]] = {}
    sidecars = [each for each in spec.init_containers if each.restart_policy == "Always"]
    for container in (*spec.containers, *sidecars):
        for port in container.ports:
            if port.name:
                key = (port.name, (port.protocol or "TCP").lower())
                ports[key] = ports.get(key, frozenset()) | {port.container_port}
    return PodView(
        pod.metadata.namespace or "", pod.metadata.labels, addresses, ports, is_local=spec.node_name == node_name
    )


def _rule(peers: Iterable[NetworkPolicyPeer], ports: Iterable[NetworkPolicyPort], namespace: str) -> Rule:
    return Rule(
        tuple(_peer(each, namespace) for each in peers) or None,
        tuple(_ports(each) for each in ports) or None,
    )


def _peer(peer: NetworkPolicyPeer, namespace: str) -> Pods | Block:
    if peer.ip_block is not None:
        # Written as the kernel wants it: validation lets host bits pass.
        excepted = tuple(str(ipaddress.ip_network(each, strict=False)) for each in peer.ip_block.except_)
        return Block(str(ipaddress.ip_network(peer.ip_block.cidr or "", strict=False)), excepted)
    pods = selector_of(peer.pod_selector) or EVERYTHING
    namespaces = selector_of(peer.namespace_selector)
    return Pods(pods, namespace) if namespaces is None else Pods(pods, namespaces=namespaces)


def _ports(port: NetworkPolicyPort) -> Ports:
    protocol = (port.protocol or "TCP").lower()
    if port.port is None:
        return Ports(protocol)
    if isinstance(port.port, str):
        return Ports(protocol, name=port.port)
    return Ports(protocol, port.port, port.end_port or port.port)
