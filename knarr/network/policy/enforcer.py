"""NetworkPolicies of this node's pods, in the kernel: kept in step with policies, pods and namespaces.

It reacts to the first change at once; what changes while a transaction runs goes into the next one. The table is
looked at before every write and every `resync_period_s`, and written whole again if anyone else has touched it. The
rules stay when the process ends, so pods stay as closed as they were.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from knarr.api.core.v1 import Namespace, Pod
from knarr.api.networking.v1 import NetworkPolicy
from knarr.client.informer import Informer, Informers
from knarr.clock import Clock
from knarr.network.commands import run_command
from knarr.network.in_force import InForce, keep_in_step
from knarr.network.policy.membership import Membership
from knarr.network.policy.model import EGRESS, INGRESS, PodView, Policy, pod_view, policies_of
from knarr.network.policy.table import Renderer, Table, changes, selectors_of, whole
from knarr.network.rule_watch import RuleWatch

log = logging.getLogger(__name__)

MINIMUM_INTERVAL_S = 0.01
"""Between two transactions: what changes within it shares one."""
RESYNC_PERIOD_S = 30.0
DNS_NAMESPACE, DNS_LABELS = "kube-system", {"k8s-app": "kube-dns"}
"""Whom policies name that let pods ask for names. No pod here has these labels: each node answers itself."""
DNS_PORTS = {
    ("dns", "udp"): frozenset({53}),
    ("dns-tcp", "tcp"): frozenset({53}),
    ("metrics", "tcp"): frozenset({9153}),
}


class PolicyEnforcer:
    """The policies of one node. `run` until cancelled, then `close`."""

    name = "network policy"

    def __init__(
        self,
        informers: Informers,
        clock: Clock,
        *,
        node_name: str,
        dns_addresses: Sequence[str] = (),
        table: str = "knarr-policies",
        network_namespace: str | None = None,
        minimum_interval_s: float = MINIMUM_INTERVAL_S,
        resync_period_s: float = RESYNC_PERIOD_S,
    ) -> None:
        """`dns_addresses` are the cluster's DNS, which policies know as a pod of kube-system labelled k8s-app=kube-dns.

        `table` names the nftables table.
        """
        self.informers = informers
        self._clock = clock
        self._node_name = node_name
        self._name = table
        self._namespace = network_namespace
        self._minimum_interval_s = minimum_interval_s
        self._resync_period_s = resync_period_s
        self._policies: Informer[NetworkPolicy] = informers.of(NetworkPolicy)
        self._pods: Informer[Pod] = informers.of(Pod)
        self._namespaces: Informer[Namespace] = informers.of(Namespace)
        self._membership = Membership()
        self._early: dict[str, tuple[str, Sequence[str]]] = {}
        """Pods (by key, with their uid) whose addresses are known before their status tells them."""
        self._compiled: dict[str, dict[str, Policy]] = {}
        self._renderer = Renderer(dns_addresses)
        self._table: Table | None = None
        """What the kernel has; None when that isn't known."""
        self._watch = RuleWatch(network_namespace)
        self._wake = asyncio.Event()
        informed: dict[type[Any], Informer[Any]] = {
            NetworkPolicy: self._policies,
            Pod: self._pods,
            Namespace: self._namespaces,
        }
        self._in_force = InForce(informed, self._wake)
        self._written = asyncio.Event()
        """Set, and another one put in its place, whenever the rules show more."""
        self._writing = asyncio.Lock()
        self.transactions = 0
        """How often rules were written."""
        if dns_addresses:
            dns = PodView(DNS_NAMESPACE, DNS_LABELS, tuple(dns_addresses), DNS_PORTS, is_local=False)
            self._membership.put_pod("", dns)
        self._policies.add_handler(self._policy_changed)
        self._pods.add_handler(self._pod_changed)
        self._namespaces.add_handler(self._namespace_changed)

    async def synced(self, revision: int, kind: type[Any] = NetworkPolicy) -> None:
        """Wait until the rules show `revision`: that of a write to a NetworkPolicy (or, by `kind`, Pod, Namespace)."""
        await self._in_force.reached(revision, kind)

    async def isolate(self, pod: Pod, addresses: Sequence[str]) -> None:
        """Close a pod that is about to start on this node, if policies select it; answers once it is closed.

        Whom it is open to may follow a moment later.
        """
        for informer in (self._policies, self._pods, self._namespaces):
            await informer.synced.wait()
        view = pod_view(pod, self._node_name, addresses)
        if view is None:
            return
        key = f"{pod.metadata.namespace}/{pod.metadata.name}"
        self._early[key] = (pod.metadata.uid or "", view.addresses)
        self._membership.put_pod(key, view)
        while not self._is_closed(view):
            self._wake.set()
            await self._written.wait()

    def _is_closed(self, view: PodView) -> bool:
        """Whether the rules close a pod in each direction in which a policy selects it."""
        wanted = {
            direction
            for policies in self._compiled.values()
            for direction, policy in policies.items()
            if self._membership.selects(policy.selects, view)
        }
        table = self._table
        return not wanted or (
            table is not None and all(table.closes(each, address) for each in wanted for address in view.addresses)
        )

    async def run(self) -> None:
        """Keep the rules right until cancelled. They stay when it ends."""
        for informer in (self._policies, self._pods, self._namespaces):
            await informer.synced.wait()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep_synced(), name="network policy sync")
                group.create_task(self._check_periodically(), name="network policy check")
        finally:
            self._watch.close()

    async def remove(self) -> None:
        """After `run` has ended: leave nothing in the kernel. Idempotent."""
        await remove_policies(self._clock, self._name, self._namespace)

    # What changed

    def _policy_changed(self, old: NetworkPolicy | None, new: NetworkPolicy | None) -> None:
        policy = new or old
        assert policy is not None
        key = f"{policy.metadata.namespace}/{policy.metadata.name}"
        if new is None:
            self._compiled.pop(key, None)
        else:
            self._compiled[key] = policies_of(new)
        self._wake.set()

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        pod = new or old
        assert pod is not None
        key = f"{pod.metadata.namespace}/{pod.metadata.name}"
        uid, early = self._early.get(key, ("", ()))
        if new is None or new.metadata.uid != uid or (new.status and new.status.pod_ip):
            self._early.pop(key, None)
            early = ()
        self._membership.put_pod(key, pod_view(new, self._node_name, early) if new is not None else None)
        if self._membership.changed:
            self._wake.set()

    def _namespace_changed(self, old: Namespace | None, new: Namespace | None) -> None:
        namespace = new or old
        assert namespace is not None
        self._membership.put_namespace(namespace.metadata.name or "", None if new is None else new.metadata.labels)
        if self._membership.changed:
            self._wake.set()

    # The loop

    async def _keep_synced(self) -> None:
        interval_s = self._minimum_interval_s
        await keep_in_step(self._sync, self._wake, self._clock, what="network policies", minimum_interval_s=interval_s)

    async def _sync(self) -> None:
        """One transaction that brings the rules to what the informers show now."""
        self._wake.clear()
        shown = self._in_force.seen()
        policies = {
            direction: [each[direction] for each in self._compiled.values() if direction in each]
            for direction in (INGRESS, EGRESS)
        }
        self._membership.use(selectors_of(policies))
        wanted = self._renderer.table(policies, self._membership)
        async with self._writing:
            before = self._table if await self._is_intact() else None
            self._table = None  # until the kernel has said yes
            text = whole(self._name, wanted) if before is None else changes(self._name, before, wanted)
            if text:
                await asyncio.to_thread(self._watch.begin, [self._name])
                await self._nft("-f", "-", stdin=text)
                await asyncio.to_thread(self._watch.end, [self._name], 1, whole=before is None)
                self.transactions += 1
            self._table = wanted
        self._in_force.show(shown)
        self._written.set()
        self._written = asyncio.Event()

    async def _check_periodically(self) -> None:
        while True:
            await self._clock.sleep(self._resync_period_s)
            async with self._writing:
                if not await self._is_intact():
                    log.info("the rules of network policies are written again")
                    self._wake.set()

    async def _is_intact(self) -> bool:
        return await asyncio.to_thread(self._watch.intact, [self._name])

    async def _nft(self, *arguments: str, stdin: str = "") -> str:
        return await run_command(self._clock, "nft", *arguments, stdin=stdin, network_namespace=self._namespace)


async def remove_policies(clock: Clock, table: str, network_namespace: str | None = None) -> None:
    """Leave no rule of a node's policies in the kernel. Idempotent."""
    text = f"add table inet {table}\ndelete table inet {table}\n"
    await run_command(clock, "nft", "-f", "-", stdin=text, network_namespace=network_namespace)
