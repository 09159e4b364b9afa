"""Service rules as one nftables table of our own (`ip knarr`), changed by small transactions (KEP-3866).

A packet finds its service by one lookup in a verdict map, however many services there are:

    prerouting, output ─► services ─► service-ips      address . protocol . port ─► service-… | external-…
                                  └─► service-nodeports           protocol . port ─► external-…
    service-<hash>-<namespace>/<name>/<protocol>/<port>  picks an endpoint  ─► endpoint-…  redirects (dnat)

Endpoints are taken in turn (`numgen inc`): even from the first request on, where a random choice would need thousands
of connections to look even. The counter is the kernel's, shared by all CPUs; it starts again when a service's
endpoints change. Chain names begin as upstream's do.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence

from msgspec import Struct, field

from knarr.clock import Clock
from knarr.network.commands import CommandFailed, run_command
from knarr.network.proxy.mode import MASQUERADE_MARK, Rules, short_hash
from knarr.network.proxy.model import Endpoint, PortRules, Verdict

AFFINITY_CLIENTS_MAX = 65_536
"""Clients remembered for each endpoint; the kernel needs a bound for sets that packets fill."""
NAME_HASH_CHARACTERS = 8

_MAPS = {
    "service-ips": "type ipv4_addr . inet_proto . inet_service : verdict;",
    "service-nodeports": "type inet_proto . inet_service : verdict;",
    "no-endpoint-services": "type ipv4_addr . inet_proto . inet_service : verdict;",
    "no-endpoint-nodeports": "type inet_proto . inet_service : verdict;",
    "firewall-ips": "type ipv4_addr . inet_proto . inet_service : verdict;",
}
_KEY = "ip daddr . meta l4proto . th dport"
_PROTOCOLS = "meta l4proto { tcp, udp, sctp }"


class _Objects(Struct):
    """What one service needs in the table."""

    chains: dict[str, tuple[str, ...]] = field(default_factory=dict)
    affinity_sets: dict[str, int] = field(default_factory=dict)
    """Name to timeout in seconds."""
    elements: dict[tuple[str, str], str] = field(default_factory=dict)
    """(map, key) to verdict."""
    cluster_ip: str = ""


class Nftables:
    """The nftables mode."""

    def __init__(
        self,
        clock: Clock,
        *,
        cluster_cidrs: Sequence[str],
        name: str = "knarr",
        network_namespace: str | None = None,
    ) -> None:
        """`name` is the table's; traffic from `cluster_cidrs` keeps its source address."""
        self._clock = clock
        self._cluster_cidrs = [cidr for cidr in cluster_cidrs if ":" not in cidr]
        self._table = f"ip {name}"
        self._namespace = network_namespace
        self._services: dict[str, _Objects] = {}
        self._claims: dict[tuple[str, str], dict[str, str]] = {}
        """(map, key) to the services that want it and their verdicts: the first by name has it."""

    async def apply(self, rules: Rules, changed: Collection[str] | None) -> int:
        if changed is None:
            await self._rewrite(rules)
            return 1
        wanted = {name: self._render(rules.get(name, ())) for name in changed}
        lines, claims = self._difference(wanted)
        if lines:
            await self._nft("\n".join(lines) + "\n")
        for name, objects in wanted.items():
            if objects.chains or objects.elements:
                self._services[name] = objects
            else:
                self._services.pop(name, None)
        for place, claimants in claims.items():
            if claimants:
                self._claims[place] = claimants
            else:
                self._claims.pop(place, None)
        return 1 if lines else 0

    async def is_there(self) -> bool:
        return f"table {self._table}" in (await self._nft_output("list", "tables")).splitlines()

    async def remove(self) -> None:
        await self._nft(f"add table {self._table}\ndelete table {self._table}\n")
        self._services, self._claims = {}, {}

    # The whole table

    async def _rewrite(self, rules: Rules) -> None:
        """Bring the table into shape whatever it looks like. Clients keep their endpoints: affinity sets stay."""
        services = {name: self._render(of_service) for name, of_service in rules.items()}
        claims: dict[tuple[str, str], dict[str, str]] = {}
        for name, objects in services.items():
            for place, verdict in objects.elements.items():
                claims.setdefault(place, {})[name] = verdict
        text = self._whole_table(services, claims)
        try:
            await self._nft(await self._clearing(services) + text)
        except CommandFailed:
            # Something of ours has another form (another version's table, say): begin with an empty one.
            await self._nft(f"add table {self._table}\ndelete table {self._table}\n{text}")
        self._services, self._claims = services, claims

    async def _clearing(self, services: Mapping[str, _Objects]) -> str:
        """Commands that take everything out of our table but the affinity sets that are still wanted."""
        try:
            listing = await self._nft_output("-j", "-t", "list", "table", *self._table.split())
        except CommandFailed:
            return ""
        wanted_sets = {name for objects in services.values() for name in objects.affinity_sets}
        wanted_chains = {name for objects in services.values() for name in objects.chains}
        flushed, deleted, dropped = [], [], []
        for entry in json.loads(listing)["nftables"]:
            for kind, description in entry.items():
                if kind == "chain":
                    name = description["name"]
                    flushed.append(f"flush chain {self._table} {name}")
                    if name not in wanted_chains and name not in _FIXED_CHAINS:
                        deleted.append(f"delete chain {self._table} {name}")
                elif kind == "map":
                    flushed.append(f"flush map {self._table} {description['name']}")
                elif kind == "set":
                    if description["name"] == "cluster-ips":
                        flushed.append(f"flush set {self._table} cluster-ips")
                    elif description["name"] not in wanted_sets:
                        dropped.append(f"delete set {self._table} {description['name']}")
        return "\n".join([*flushed, *deleted, *dropped, ""])

    def _whole_table(
        self, services: Mapping[str, _Objects], claims: Mapping[tuple[str, str], Mapping[str, str]]
    ) -> str:
        table = self._table
        lines = [f"add table {table}"]
        lines += [f"add map {table} {name} {{ {description} }}" for name, description in _MAPS.items()]
        lines.append(f"add set {table} cluster-ips {{ type ipv4_addr; }}")
        # All chains first, so that rules may refer to any of them.
        for name, (hook, _) in _FIXED_CHAINS.items():
            lines.append(f"add chain {table} {name}" + (f" {{ {hook} }}" if hook else ""))
        for objects in services.values():
            lines += [self._affinity_set(*each) for each in objects.affinity_sets.items()]
            lines += [f"add chain {table} {name}" for name in objects.chains]
        for name, (_, rules) in _FIXED_CHAINS.items():
            lines += [f"add rule {table} {name} {rule}" for rule in rules]
        for objects in services.values():
            for name, chain in objects.chains.items():
                lines += [f"add rule {table} {name} {rule}" for rule in chain]
        by_map: dict[str, list[str]] = {}
        for (name, key), claimants in claims.items():
            by_map.setdefault(name, []).append(f"{key} : {claimants[min(claimants)]}")
        for name, elements in by_map.items():
            lines.append(f"add element {table} {name} {{ {', '.join(elements)} }}")
        addresses = sorted({objects.cluster_ip for objects in services.values() if objects.cluster_ip})
        if addresses:
            lines.append(f"add element {table} cluster-ips {{ {', '.join(addresses)} }}")
        return "\n".join([*lines, ""])

    # Changes

    def _difference(self, wanted: Mapping[str, _Objects]) -> tuple[list[str], dict[tuple[str, str], dict[str, str]]]:
        """The transaction that brings some services from what they have to what they want."""
        table = self._table
        created, filled, unlinked, linked, flushed, deleted = [], [], [], [], [], []
        claims: dict[tuple[str, str], dict[str, str]] = {}
        for service, objects in wanted.items():
            before = self._services.get(service) or _Objects()
            for name, timeout_s in objects.affinity_sets.items():
                if before.affinity_sets.get(name) != timeout_s:
                    created.append(self._affinity_set(name, timeout_s))
            deleted += [f"delete set {table} {name}" for name in before.affinity_sets.keys() - objects.affinity_sets]
            for name, chain in objects.chains.items():
                if before.chains.get(name) == chain:
                    continue
                if name in before.chains:
                    flushed.append(f"flush chain {table} {name}")
                else:
                    created.append(f"add chain {table} {name}")
                filled += [f"add rule {table} {name} {rule}" for rule in chain]
            gone = before.chains.keys() - objects.chains
            flushed += [f"flush chain {table} {name}" for name in gone]
            deleted[:0] = [f"delete chain {table} {name}" for name in gone]
            for place in {*before.elements, *objects.elements}:
                claimants = claims.setdefault(place, dict(self._claims.get(place, {})))
                claimants.pop(service, None)
                if place in objects.elements:
                    claimants[service] = objects.elements[place]
            if before.cluster_ip != objects.cluster_ip:
                if before.cluster_ip:
                    unlinked.append(f"delete element {table} cluster-ips {{ {before.cluster_ip} }}")
                if objects.cluster_ip:
                    linked.append(f"add element {table} cluster-ips {{ {objects.cluster_ip} }}")
        for place, claimants in claims.items():
            earlier = self._claims.get(place, {})
            old = earlier[min(earlier)] if earlier else None
            new = claimants[min(claimants)] if claimants else None
            name, key = place
            if old != new and old is not None:
                unlinked.append(f"delete element {table} {name} {{ {key} }}")
            if old != new and new is not None:
                linked.append(f"add element {table} {name} {{ {key} : {new} }}")
        return [*created, *flushed, *filled, *unlinked, *linked, *deleted], claims

    def _affinity_set(self, name: str, timeout_s: int) -> str:
        return (
            f"add set {self._table} {name} {{ type ipv4_addr; size {AFFINITY_CLIENTS_MAX}; "
            f"flags dynamic,timeout; timeout {timeout_s}s; }}"
        )

    # One service

    def _render(self, rules: Sequence[PortRules]) -> _Objects:
        objects = _Objects(cluster_ip=rules[0].cluster_ip if rules else "")
        for port in rules:
            _PortWriter(port, objects, self._cluster_cidrs).write()
        return objects

    async def _nft(self, text: str) -> None:
        await run_command(self._clock, "nft", "-f", "-", stdin=text, network_namespace=self._namespace)

    async def _nft_output(self, *arguments: str) -> str:
        return await run_command(self._clock, "nft", *arguments, network_namespace=self._namespace)


class _PortWriter:
    """Writes the chains and map elements of one service port."""

    def __init__(self, rules: PortRules, objects: _Objects, cluster_cidrs: Sequence[str]) -> None:
        self.rules = rules
        self.objects = objects
        self.from_pods = cluster_cidrs[0] if len(cluster_cidrs) == 1 else f"{{ {', '.join(cluster_cidrs)} }}"
        service, _, port = rules.name.partition(":")
        self.path = f"{service}/{rules.protocol}/{port}"
        digest = short_hash(rules.name, rules.protocol)[:NAME_HASH_CHARACTERS]
        self.cluster_chain = f"service-{digest}-{self.path}"
        self.local_chain = f"local-{digest}-{self.path}"
        self.external_chain = f"external-{digest}-{self.path}"
        self.firewall_chain = f"firewall-{digest}-{self.path}"

    def write(self) -> None:
        rules, chains = self.rules, self.objects.chains
        internal_chain = self.local_chain if rules.internal_local else self.cluster_chain
        if rules.uses_cluster and rules.cluster_endpoints:
            chains[self.cluster_chain] = self._choice(rules.cluster_endpoints, internal_chain)
        if rules.uses_local and rules.local_endpoints:
            chains[self.local_chain] = self._choice(rules.local_endpoints, internal_chain)
        for endpoint in rules.endpoints:
            chains[self._endpoint_chain(endpoint)] = self._redirect(endpoint)
        self._cluster_ip(internal_chain)
        if rules.is_external:
            self._external()

    def _cluster_ip(self, chain: str) -> None:
        key = f"{self.rules.cluster_ip} . {self.rules.protocol} . {self.rules.port}"
        if self.rules.internal is Verdict.FORWARD:
            self._element("service-ips", key, f"goto {chain}")
        else:
            self._element("no-endpoint-services", key, _refusal(self.rules.internal))

    def _external(self) -> None:
        rules = self.rules
        keys = [
            f"{address} . {rules.protocol} . {rules.port}"
            for address in (*rules.external_ips, *rules.load_balancer_ips)
        ]
        node_port = f"{rules.protocol} . {rules.node_port}" if rules.node_port else None
        lines = self._external_lines()
        if lines:
            self.objects.chains[self.external_chain] = lines
            for key in keys:
                self._element("service-ips", key, f"goto {self.external_chain}")
            if node_port:
                self._element("service-nodeports", node_port, f"goto {self.external_chain}")
        if rules.external is not Verdict.FORWARD:
            for key in keys:
                self._element("no-endpoint-services", key, _refusal(rules.external))
            if node_port:
                self._element("no-endpoint-nodeports", node_port, _refusal(rules.external))
        if rules.source_ranges and rules.load_balancer_ips:
            allowed = ", ".join(rules.source_ranges)
            self.objects.chains[self.firewall_chain] = (f"ip saddr != {{ {allowed} }} drop",)
            for address in rules.load_balancer_ips:
                key = f"{address} . {rules.protocol} . {rules.port}"
                self._element("firewall-ips", key, f"goto {self.firewall_chain}")

    def _external_lines(self) -> tuple[str, ...]:
        rules, lines = self.rules, []
        if not rules.external_local:
            if not rules.cluster_endpoints:
                return ()
            return ("jump mark-for-masquerade", f"goto {self.cluster_chain}")
        if rules.cluster_endpoints:
            # Pods and this node itself have no client address to keep: they may use endpoints anywhere.
            lines.append(f"ip saddr {self.from_pods} goto {self.cluster_chain}")
            lines.append("fib saddr type local jump mark-for-masquerade")
            lines.append(f"fib saddr type local goto {self.cluster_chain}")
        if rules.local_endpoints:
            lines.append(f"goto {self.local_chain}")
        return tuple(lines)

    def _choice(self, endpoints: Sequence[Endpoint], internal_chain: str) -> tuple[str, ...]:
        """Pick an endpoint: the one that a client had before, else the next in turn."""
        rules = self.rules
        lines = []
        chain = self.local_chain if endpoints is rules.local_endpoints else self.cluster_chain
        if chain == internal_chain:
            lines.append(
                f"ip daddr {rules.cluster_ip} {rules.protocol} dport {rules.port} "
                f"ip saddr != {self.from_pods} jump mark-for-masquerade"
            )
        if rules.affinity_timeout_s:
            lines += [f"ip saddr @{self._affinity_set(each)} goto {self._endpoint_chain(each)}" for each in endpoints]
        verdicts = ", ".join(f"{number} : goto {self._endpoint_chain(each)}" for number, each in enumerate(endpoints))
        if len(endpoints) > 1:
            lines.append(f"numgen inc mod {len(endpoints)} vmap {{ {verdicts} }}")
        # A packet that is in this chain while a transaction replaces it still sees these rules, but no longer the
        # elements of their maps (the kernel looks at the generation anew for each lookup). It must not fall through.
        lines.append(f"goto {self._endpoint_chain(endpoints[0])}")
        return tuple(lines)

    def _redirect(self, endpoint: Endpoint) -> tuple[str, ...]:
        rules = self.rules
        # A pod that reaches itself must see another source address, or it would answer itself directly.
        lines = [f"ip saddr {endpoint.address} jump mark-for-masquerade"]
        if rules.affinity_timeout_s:
            name = self._affinity_set(endpoint)
            self.objects.affinity_sets[name] = rules.affinity_timeout_s
            lines.append(f"update @{name} {{ ip saddr }}")
        lines.append(f"meta l4proto {rules.protocol} dnat to {endpoint}")
        return tuple(lines)

    def _endpoint_chain(self, endpoint: Endpoint) -> str:
        digest = short_hash(self.rules.name, self.rules.protocol, str(endpoint))[:NAME_HASH_CHARACTERS]
        return f"endpoint-{digest}-{self.path}__{endpoint.address}/{endpoint.port}"

    def _affinity_set(self, endpoint: Endpoint) -> str:
        # The timeout is part of the name: the kernel can't change that of a set that is there.
        name = self._endpoint_chain(endpoint).removeprefix("endpoint-")
        return f"affinity-{self.rules.affinity_timeout_s}s-{name}"

    def _element(self, name: str, key: str, verdict: str) -> None:
        self.objects.elements[name, key] = verdict


def _refusal(verdict: Verdict) -> str:
    return "goto reject-chain" if verdict is Verdict.REJECT else "drop"


_CHECK_ENDPOINTS = "ct state new jump service-endpoints-check"

_FIXED_CHAINS: dict[str, tuple[str, tuple[str, ...]]] = {
    "mark-for-masquerade": ("", (f"meta mark set mark or {MASQUERADE_MARK:#x}",)),
    "masquerading": (
        "",
        (
            f"meta mark & {MASQUERADE_MARK:#x} == 0 return",
            f"meta mark set mark xor {MASQUERADE_MARK:#x}",
            "masquerade fully-random",
        ),
    ),
    "reject-chain": ("", ("meta l4proto tcp reject with tcp reset", "reject")),
    "services": (
        "",
        (
            f"{_PROTOCOLS} {_KEY} vmap @service-ips",
            f"{_PROTOCOLS} fib daddr type local meta l4proto . th dport vmap @service-nodeports",
        ),
    ),
    "service-endpoints-check": (
        "",
        (
            f"{_PROTOCOLS} {_KEY} vmap @no-endpoint-services",
            f"{_PROTOCOLS} fib daddr type local meta l4proto . th dport vmap @no-endpoint-nodeports",
        ),
    ),
    # A port of a cluster IP that its service doesn't have: nobody will ever answer, so say so.
    "cluster-ips-check": ("", ("ip daddr @cluster-ips goto reject-chain",)),
    "firewall-check": ("", (f"ct state new {_PROTOCOLS} {_KEY} vmap @firewall-ips",)),
    "firewall-prerouting": (
        "type filter hook prerouting priority dstnat - 10; policy accept;",
        ("jump firewall-check",),
    ),
    "firewall-output": ("type filter hook output priority -110; policy accept;", ("jump firewall-check",)),
    "nat-prerouting": ("type nat hook prerouting priority dstnat; policy accept;", ("jump services",)),
    "nat-output": ("type nat hook output priority -100; policy accept;", ("jump services",)),
    "nat-postrouting": ("type nat hook postrouting priority srcnat; policy accept;", ("jump masquerading",)),
    "filter-input": ("type filter hook input priority filter - 1; policy accept;", (_CHECK_ENDPOINTS,)),
    "filter-forward": (
        "type filter hook forward priority filter - 1; policy accept;",
        (_CHECK_ENDPOINTS, "ct state new jump cluster-ips-check"),
    ),
    "filter-output": (
        "type filter hook output priority filter - 1; policy accept;",
        (_CHECK_ENDPOINTS, "ct state new jump cluster-ips-check"),
    ),
}
"""Chains that don't depend on any service: (hook, rules)."""
