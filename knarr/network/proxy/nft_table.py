"""What stands in the nftables table of one address family: the chains that are always there, the maps, and what one
service adds to them.

    prerouting, output ─► services ─► local-service-ips   address . protocol . port ─► local-turn-…  (from outside)
                                  └─► service-ips         address . protocol . port ─► turn-…
    turn-tcp-<n>-<…>  the next number of n ─► endpoints-tcp           address . port . number ─► dnat
    affinity-…        a service with session affinity: which endpoint a client had ─► endpoint-…  redirects (dnat)

Addresses are cluster IPs, external ones, those of load balancers, and the node's own with node ports. So a service is a
handful of elements, and a packet finds its endpoint by two lookups however many services there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct, field

from knarr.network.proxy.mode import MASQUERADE_MARK, short_hash
from knarr.network.proxy.model import PROTOCOLS, Endpoint, Family, PortRules, Verdict
from knarr.network.proxy.turns import SHARED, Borrower, Chain, Turns

AFFINITY_CLIENTS_MAX = 65_536
"""Clients remembered for each endpoint; the kernel needs a bound for sets that packets fill."""
NAME_HASH_CHARACTERS = 8
CHAIN_NAME_CHARACTERS_MAX = 240
"""The kernel's limit is 255, and sets of affinity get a longer beginning. The hash in front keeps names apart."""
VERSIONS: Mapping[Family, str] = {"IPv4": "ip", "IPv6": "ip6"}

Place = tuple[str, str]
"""A map or set, and a key in it."""

_ANY_PROTOCOL = "meta l4proto { tcp, udp, sctp }"


class Objects(Struct):
    """What one service needs in the table."""

    chains: dict[str, tuple[str, ...]] = field(default_factory=dict)
    affinity_sets: dict[str, int] = field(default_factory=dict)
    """Name to timeout in seconds."""
    elements: dict[Place, str] = field(default_factory=dict)
    """Values; empty in sets."""
    borrowed: set[Borrower] = field(default_factory=set)
    """Chains of `turns` that it has."""


class Layout:
    """The table's fixed part, and how services are written, for one family."""

    def __init__(self, family: Family, cluster_cidrs: Sequence[str], service_cidrs: Sequence[str]) -> None:
        """Traffic from `cluster_cidrs` keeps its source address; `service_cidrs` hold cluster IPs only."""
        self.ip = ip = VERSIONS[family]
        self.not_from_pods = f"{ip} saddr != {_set(cluster_cidrs)}" if cluster_cidrs else ""
        self.key = f"{ip} daddr . meta l4proto . th dport"
        address = "ipv4_addr" if ip == "ip" else "ipv6_addr"
        frontend = f"type {address} . inet_proto . inet_service"
        self.maps = {
            "service-ips": f"{frontend} : verdict",
            "local-service-ips": f"{frontend} : verdict",
            "no-endpoint-services": f"{frontend} : verdict",
            "firewall-ips": f"{frontend} : verdict",
        }
        for protocol in PROTOCOLS:
            # One for each protocol, since nft knows no neutral way to name the type of such a map's values.
            backend = f"typeof {ip} daddr . {protocol} dport . numgen inc mod 2 : {ip} daddr . {protocol} dport"
            self.maps |= {f"endpoints-{protocol}": backend, f"local-endpoints-{protocol}": backend}
        self.sets = {
            "cluster-ips": f"type {address}",
            "masquerade-ips": frontend,
            "local-policy-ips": frontend,
            "hairpin": f"type {address} . {address}",
        }
        self.chains = self._fixed_chains(service_cidrs)

    def turn_rules(self, chain: Chain) -> tuple[str, ...]:
        """The next endpoint; the first where a transaction has just taken away the one whose turn it is. (A packet that
        is in a chain while a transaction happens sees the chain's old rules, but the maps' new elements.)"""
        key = f"{self.ip} daddr . {chain.protocol} dport"
        name = _endpoints_map(chain.protocol, local=chain.local)
        how = "random" if chain.number == SHARED else "inc"
        rule = f"dnat {self.ip} to {key} . numgen {how} mod {chain.endpoints} map @{name}"
        return (rule,) if chain.endpoints == 1 else (rule, f"goto {chain.first.name}")

    def render(self, rules: Sequence[PortRules], turns: Turns) -> Objects:
        """What a service needs, given its ports."""
        objects = Objects()
        for port in rules:
            _PortWriter(self, port, objects, turns).write()
        return objects

    def _fixed_chains(self, service_cidrs: Sequence[str]) -> dict[str, tuple[str, tuple[str, ...]]]:
        """By name: (hook, rules)."""
        ip, key = self.ip, self.key
        outside = f"{self.not_from_pods} fib saddr type != local".strip()
        services = [
            f"{_ANY_PROTOCOL} {key} @masquerade-ips jump mark-for-masquerade",
            f"{_ANY_PROTOCOL} {key} @local-policy-ips fib saddr type local jump mark-for-masquerade",
            # Pods and this node itself have no client address to keep: they may use endpoints anywhere.
            f"{outside} {_ANY_PROTOCOL} {key} vmap @local-service-ips",
            f"{_ANY_PROTOCOL} {key} vmap @service-ips",
        ]
        if self.not_from_pods:
            services.insert(0, f"{self.not_from_pods} {ip} daddr @cluster-ips jump mark-for-masquerade")
        cluster_ips = [
            "fib daddr type local return",
            # A port of a cluster IP that its service doesn't have: nobody will ever answer, so say so.
            f"{ip} daddr @cluster-ips goto reject-chain",
        ]
        if service_cidrs:
            # Nobody's yet, or nobody's any more.
            cluster_ips.append(f"{ip} daddr {_set(service_cidrs)} drop")
        check = "ct state new jump service-endpoints-check"
        input_rules = [check]
        if ip == "ip":
            # route_localnet, which node ports at 127.0.0.1 need, must not open loopback to the network (CVE-2020-8558).
            input_rules.append(
                'iifname != "lo" ip daddr 127.0.0.0/8 ip saddr != 127.0.0.0/8 ct status & dnat == 0 '
                "ct state != { established, related } drop"
            )
        return {
            "mark-for-masquerade": ("", (f"meta mark set mark or {MASQUERADE_MARK:#x}",)),
            "masquerading": (
                "",
                (
                    # A pod that reaches itself must see another source address, or it would answer itself directly.
                    f"ct status dnat {ip} saddr . {ip} daddr @hairpin masquerade fully-random",
                    f"meta mark & {MASQUERADE_MARK:#x} == 0 return",
                    f"meta mark set mark xor {MASQUERADE_MARK:#x}",
                    "masquerade fully-random",
                ),
            ),
            "reject-chain": ("", ("meta l4proto tcp reject with tcp reset", "reject")),
            "services": ("", tuple(services)),
            "service-endpoints-check": ("", (f"{_ANY_PROTOCOL} {key} vmap @no-endpoint-services",)),
            "cluster-ips-check": ("", tuple(cluster_ips)),
            "firewall-check": ("", (f"ct state new {_ANY_PROTOCOL} {key} vmap @firewall-ips",)),
            "firewall-prerouting": (
                "type filter hook prerouting priority dstnat - 10; policy accept;",
                ("jump firewall-check",),
            ),
            "firewall-output": ("type filter hook output priority -110; policy accept;", ("jump firewall-check",)),
            "nat-prerouting": ("type nat hook prerouting priority dstnat; policy accept;", ("jump services",)),
            "nat-output": ("type nat hook output priority -100; policy accept;", ("jump services",)),
            "nat-postrouting": ("type nat hook postrouting priority srcnat; policy accept;", ("jump masquerading",)),
            "filter-input": ("type filter hook input priority filter - 1; policy accept;", tuple(input_rules)),
            "filter-forward": (
                "type filter hook forward priority filter - 1; policy accept;",
                (check, "ct state new jump cluster-ips-check"),
            ),
            "filter-output": (
                "type filter hook output priority filter - 1; policy accept;",
                (check, "ct state new jump cluster-ips-check"),
            ),
        }


class _PortWriter:
    """Writes the elements, and where they are needed the chains, of one service port."""

    def __init__(self, layout: Layout, rules: PortRules, objects: Objects, turns: Turns) -> None:
        self.layout = layout
        self.rules = rules
        self.objects = objects
        self.turns = turns
        service, _, port = rules.name.partition(":")
        self.path = f"{service}/{rules.protocol}/{port}"
        self.digest = short_hash(rules.name, rules.protocol)[:NAME_HASH_CHARACTERS]

    def write(self) -> None:
        rules = self.rules
        cluster_key = f"{rules.cluster_ip} . {rules.protocol} . {rules.port}"
        self._element("cluster-ips", rules.cluster_ip)
        everywhere, here = [], []
        """Addresses that lead to all endpoints, and those that lead to this node's."""
        if rules.internal is not Verdict.FORWARD:
            self._element("no-endpoint-services", cluster_key, _refusal(rules.internal))
        elif rules.internal_local:
            # It is in service-ips for everyone: whoever asks, only this node's endpoints are meant.
            self._link("service-ips", [cluster_key], rules.local_endpoints, local=True)
        else:
            everywhere.append(cluster_key)
        external = [
            *(f"{each} . {rules.protocol} . {rules.port}" for each in (*rules.external_ips, *rules.load_balancer_ips)),
            *(f"{each} . {rules.protocol} . {rules.node_port}" for each in rules.node_addresses),
        ]
        if rules.cluster_endpoints:
            everywhere += external
        for key in external:
            self._element("local-policy-ips" if rules.external_local else "masquerade-ips", key)
            if rules.external is not Verdict.FORWARD:
                self._element("no-endpoint-services", key, _refusal(rules.external))
        if rules.external_local:
            here = external
        self._link("service-ips", everywhere, rules.cluster_endpoints, local=False)
        self._link("local-service-ips", here, rules.local_endpoints, local=True)
        for endpoint in rules.endpoints:
            self._element("hairpin", f"{endpoint.address} . {endpoint.address}")
        self._firewall()

    def _link(self, name: str, keys: Sequence[str], endpoints: Sequence[Endpoint], *, local: bool) -> None:
        """Have addresses lead to endpoints."""
        if not keys:
            return
        if not endpoints:
            verdict = "return"  # and be dropped by service-endpoints-check
        elif self.rules.affinity_timeout_s:
            verdict = f"goto {self._affinity_chain(endpoints, local=local)}"
        else:
            borrower = (self.rules.name, self.rules.protocol, local)
            self.objects.borrowed.add(borrower)
            verdict = f"goto {self.turns.chain(borrower, len(endpoints)).name}"
            place = _endpoints_map(self.rules.protocol, local=local)
            for key in keys:
                address, _, port = key.split(" . ")
                for number, endpoint in enumerate(endpoints):
                    self._element(place, f"{address} . {port} . {number}", f"{endpoint.address} . {endpoint.port}")
        for key in keys:
            self._element(name, key, verdict)

    def _firewall(self) -> None:
        rules = self.rules
        if not rules.source_ranges or not rules.load_balancer_ips:
            return
        chain = f"firewall-{self.digest}-{self.path}"
        self.objects.chains[chain] = (f"{self.layout.ip} saddr != {_set(rules.source_ranges)} drop",)
        for address in rules.load_balancer_ips:
            self._element("firewall-ips", f"{address} . {rules.protocol} . {rules.port}", f"goto {chain}")

    def _affinity_chain(self, endpoints: Sequence[Endpoint], *, local: bool) -> str:
        """A chain that finds the endpoint that a client had before, else the next in turn."""
        ip = self.layout.ip
        lines = [f"{ip} saddr @{self._affinity_set(each)} goto {self._endpoint_chain(each)}" for each in endpoints]
        for number, endpoint in enumerate(endpoints):
            # Counted by each rule: of n connections that come here, it takes the first.
            left = len(endpoints) - number
            turn = f"numgen inc mod {left} 0 " if left > 1 else ""
            lines.append(f"{turn}goto {self._endpoint_chain(endpoint)}")
            self.objects.chains[self._endpoint_chain(endpoint)] = self._redirect(endpoint)
        chain = f"{'local-' if local else ''}affinity-{self.digest}-{self.path}"
        self.objects.chains[chain] = tuple(lines)
        return chain

    def _redirect(self, endpoint: Endpoint) -> tuple[str, ...]:
        rules, name = self.rules, self._affinity_set(endpoint)
        self.objects.affinity_sets[name] = rules.affinity_timeout_s
        return (
            f"update @{name} {{ {self.layout.ip} saddr }}",
            f"meta l4proto {rules.protocol} dnat to {endpoint}",
        )

    def _endpoint_chain(self, endpoint: Endpoint) -> str:
        digest = short_hash(self.rules.name, self.rules.protocol, str(endpoint))[:NAME_HASH_CHARACTERS]
        name = f"endpoint-{digest}-{self.path}__{endpoint.address.replace(':', '.')}/{endpoint.port}"
        return name[:CHAIN_NAME_CHARACTERS_MAX]

    def _affinity_set(self, endpoint: Endpoint) -> str:
        # The timeout is part of the name: the kernel can't change that of a set that is there.
        name = self._endpoint_chain(endpoint).removeprefix("endpoint-")
        return f"affinity-{self.rules.affinity_timeout_s}s-{name}"

    def _element(self, name: str, key: str, value: str = "") -> None:
        self.objects.elements[name, key] = value


def _endpoints_map(protocol: str, *, local: bool) -> str:
    return f"local-endpoints-{protocol}" if local else f"endpoints-{protocol}"


def _set(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{{ {', '.join(parts)} }}"


def _refusal(verdict: Verdict) -> str:
    return "goto reject-chain" if verdict is Verdict.REJECT else "drop"
