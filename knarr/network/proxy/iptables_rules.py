"""How services are written as iptables chains, for one address family: which chains and lines a service port needs, and
the chains that all share. The names are upstream's (see `iptables`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct, field

from knarr.network.proxy.mode import MASQUERADE_MARK, short_hash
from knarr.network.proxy.model import ANY_ADDRESS, Endpoint, Family, PortRules, Verdict

Chains = dict[str, tuple[str, ...]]

_MARK = f"{MASQUERADE_MARK:#x}"


class Dialect(Struct, frozen=True):
    """What differs between the families."""

    family: Family
    save: str
    restore: str
    host: str
    """Prefix length of a single address."""
    unreachable: str
    local: str
    """Destinations that are this node's own, where node ports are answered at every address."""


DIALECTS = (
    Dialect("IPv4", "iptables-save", "iptables-restore", "32", "icmp-port-unreachable", "-m addrtype --dst-type LOCAL"),
    # There is no way to lead a connection from ::1 elsewhere.
    Dialect(
        "IPv6",
        "ip6tables-save",
        "ip6tables-restore",
        "128",
        "icmp6-port-unreachable",
        "! -d ::1/128 -m addrtype --dst-type LOCAL",
    ),
)


class ServiceLines(Struct):
    """What one service adds: its own chains (nat), and its lines in the chains that all share, by (table, chain)."""

    chains: Chains = field(default_factory=dict)
    shared: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    node_addresses: tuple[str, ...] = ()


def render(dialect: Dialect, rules: Iterable[PortRules], cluster_cidrs: Sequence[str]) -> ServiceLines:
    """What a service needs, given its ports."""
    lines = ServiceLines()
    for port in rules:
        _PortWriter(dialect, port, lines, cluster_cidrs).write()
        lines.node_addresses = lines.node_addresses or port.node_addresses
    return lines


def node_port_lines(dialect: Dialect, addresses: Iterable[str]) -> list[str]:
    """Jumps to the node ports. They are last, so that a cluster IP or external address is never taken for a node's."""
    label = comment("service nodeports; last in this chain")
    chosen = sorted(set(addresses))
    if ANY_ADDRESS[dialect.family] in chosen:
        return [f"{label} {dialect.local} -j KUBE-NODEPORTS"]
    return [f"-d {each}/{dialect.host} {label} -j KUBE-NODEPORTS" for each in chosen]


def shared_chains(dialect: Dialect) -> dict[str, dict[str, list[str]]]:
    """The chains that every service adds lines to, and those that are always the same."""
    firewall = []
    if dialect.family == "IPv4":
        # route_localnet, which node ports at 127.0.0.1 need, must not open loopback to the network (CVE-2020-8558).
        firewall.append(
            f"! -s 127.0.0.0/8 -d 127.0.0.0/8 {comment('block incoming localnet connections')} "
            "-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP"
        )
    return {
        "nat": {
            "KUBE-SERVICES": [],
            "KUBE-NODEPORTS": [],
            "KUBE-POSTROUTING": [
                f"-m mark ! --mark {_MARK}/{_MARK} -j RETURN",
                f"-j MARK --xor-mark {_MARK}",
                f"{comment('kubernetes service traffic requiring SNAT')} -j MASQUERADE --random-fully",
            ],
            "KUBE-MARK-MASQ": [f"-j MARK --or-mark {_MARK}"],
        },
        "filter": {
            "KUBE-SERVICES": [],
            "KUBE-EXTERNAL-SERVICES": [],
            "KUBE-FORWARD": [
                "-m conntrack --ctstate INVALID -j DROP",
                f"{comment('kubernetes forwarding rules')} -m mark --mark {_MARK}/{_MARK} -j ACCEPT",
                f"{comment('kubernetes forwarding conntrack rule')} "
                "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            ],
            "KUBE-PROXY-FIREWALL": [],
            "KUBE-FIREWALL": firewall,
        },
    }


class _PortWriter:
    """Writes the chains and lines of one service port."""

    def __init__(self, dialect: Dialect, rules: PortRules, lines: ServiceLines, cluster_cidrs: Sequence[str]) -> None:
        self.dialect = dialect
        self.rules = rules
        self.lines = lines
        self.cluster_cidrs = cluster_cidrs
        digest = short_hash(rules.name, rules.protocol)
        self.cluster_chain = f"KUBE-SVC-{digest}"
        self.local_chain = f"KUBE-SVL-{digest}"
        self.external_chain = f"KUBE-EXT-{digest}"
        self.firewall_chain = f"KUBE-FW-{digest}"
        self.match = f"-p {rules.protocol} -m {rules.protocol}"

    def write(self) -> None:
        rules, chains = self.rules, self.lines.chains
        internal_chain = self.local_chain if rules.internal_local else self.cluster_chain
        if rules.uses_cluster and rules.cluster_endpoints:
            chains[self.cluster_chain] = self._choice(rules.cluster_endpoints, self.cluster_chain, internal_chain)
        if rules.uses_local and rules.local_endpoints:
            chains[self.local_chain] = self._choice(rules.local_endpoints, self.local_chain, internal_chain)
        for endpoint in rules.endpoints:
            chains[self._endpoint_chain(endpoint)] = self._redirect(endpoint)
        self._cluster_ip(internal_chain)
        if rules.is_external:
            self._external()

    def _cluster_ip(self, chain: str) -> None:
        rules = self.rules
        target = f"-d {rules.cluster_ip}/{self.dialect.host} {self.match} --dport {rules.port}"
        if rules.internal is Verdict.FORWARD:
            self._share("nat", "KUBE-SERVICES", f"{target} {self._label('cluster IP')} -j {chain}")
        else:
            for line in self._refusals(rules.internal, target):
                self._share("filter", "KUBE-SERVICES", line)

    def _external(self) -> None:
        rules = self.rules
        lines = self._external_lines()
        if lines:
            self.lines.chains[self.external_chain] = lines
        for address in rules.external_ips:
            self._external_address(address, "external IP", self.external_chain)
        for address in rules.load_balancer_ips:
            self._load_balancer(address)
        if rules.node_port:
            target = f"{self.match} --dport {rules.node_port}"
            if lines:
                self._share("nat", "KUBE-NODEPORTS", f"{target} {self._label()} -j {self.external_chain}")
            if rules.external is not Verdict.FORWARD:
                for line in self._refusals(rules.external, f"-m addrtype --dst-type LOCAL {target}"):
                    self._share("filter", "KUBE-EXTERNAL-SERVICES", line)

    def _external_address(self, address: str, kind: str, chain: str) -> None:
        rules = self.rules
        target = f"-d {address}/{self.dialect.host} {self.match} --dport {rules.port}"
        if self.external_chain in self.lines.chains:
            self._share("nat", "KUBE-SERVICES", f"{target} {self._label(kind)} -j {chain}")
        if rules.external is not Verdict.FORWARD:
            for line in self._refusals(rules.external, target):
                self._share("filter", "KUBE-EXTERNAL-SERVICES", line)

    def _load_balancer(self, address: str) -> None:
        rules = self.rules
        if not rules.source_ranges:
            self._external_address(address, "loadbalancer IP", self.external_chain)
            return
        self.lines.chains[self.firewall_chain] = tuple(
            f"-s {source} {self._label('loadbalancer IP')} -j {self.external_chain}"
            for source in rules.source_ranges
            if self.external_chain in self.lines.chains
        )
        self._external_address(address, "loadbalancer IP", self.firewall_chain)
        # What KUBE-FW let through was redirected, so it no longer has this address.
        target = f"-d {address}/{self.dialect.host} {self.match} --dport {rules.port}"
        label = self._label("traffic not accepted by " + self.firewall_chain)
        self._share("filter", "KUBE-PROXY-FIREWALL", f"{target} {label} -j DROP")

    def _external_lines(self) -> tuple[str, ...]:
        rules, lines = self.rules, []
        if not rules.external_local:
            if not rules.cluster_endpoints:
                return ()
            return (f"{self._label('external')} -j KUBE-MARK-MASQ", f"-j {self.cluster_chain}")
        if rules.cluster_endpoints:
            # Pods and this node itself have no client address to keep: they may use endpoints anywhere.
            lines += [f"-s {cidr} -j {self.cluster_chain}" for cidr in self.cluster_cidrs]
            lines.append("-m addrtype --src-type LOCAL -j KUBE-MARK-MASQ")
            lines.append(f"-m addrtype --src-type LOCAL -j {self.cluster_chain}")
        if rules.local_endpoints:
            lines.append(f"-j {self.local_chain}")
        return tuple(lines)

    def _choice(self, endpoints: Sequence[Endpoint], chain: str, internal_chain: str) -> tuple[str, ...]:
        """Pick an endpoint: the one that a client had before, else the next in turn."""
        rules, lines = self.rules, []
        if chain == internal_chain:
            target = f"-d {rules.cluster_ip}/{self.dialect.host} {self.match} --dport {rules.port}"
            label = self._label("cluster IP")
            if len(self.cluster_cidrs) == 1:
                lines.append(f"! -s {self.cluster_cidrs[0]} {target} {label} -j KUBE-MARK-MASQ")
            elif self.cluster_cidrs:
                # iptables can't say "from none of these" in one rule; a masquerade too many only hides an address.
                lines.append(f"{target} {label} -j KUBE-MARK-MASQ")
        if rules.affinity_timeout_s:
            for endpoint in endpoints:
                sep = self._endpoint_chain(endpoint)
                lines.append(
                    f"-m recent --name {sep} --rcheck --seconds {rules.affinity_timeout_s} --reap --rsource -j {sep}"
                )
        for number, endpoint in enumerate(endpoints):
            remaining = len(endpoints) - number
            turn = f"-m statistic --mode nth --every {remaining} --packet 0 " if remaining > 1 else ""
            lines.append(f"{self._label(f'-> {endpoint}')} {turn}-j {self._endpoint_chain(endpoint)}")
        return tuple(lines)

    def _redirect(self, endpoint: Endpoint) -> tuple[str, ...]:
        rules = self.rules
        remembered = ""
        if rules.affinity_timeout_s:
            remembered = f"-m recent --name {self._endpoint_chain(endpoint)} --set --rsource "
        return (
            # A pod that reaches itself must see another source address, or it would answer itself directly.
            f"-s {endpoint.address}/{self.dialect.host} {self._label()} -j KUBE-MARK-MASQ",
            f"{self.match} {self._label()} {remembered}-j DNAT --to-destination {endpoint}",
        )

    def _refusals(self, verdict: Verdict, target: str) -> Iterable[str]:
        label = self._label("has no endpoints" if verdict is Verdict.REJECT else "has no local endpoints")
        if verdict is Verdict.DROP:
            return (f"{target} {label} -j DROP",)
        how = "tcp-reset" if self.rules.protocol == "tcp" else self.dialect.unreachable
        return (f"{target} {label} -j REJECT --reject-with {how}",)

    def _endpoint_chain(self, endpoint: Endpoint) -> str:
        return f"KUBE-SEP-{short_hash(self.rules.name, self.rules.protocol, str(endpoint))}"

    def _label(self, text: str = "") -> str:
        return comment(f"{self.rules.name} {text}".strip())

    def _share(self, table: str, chain: str, line: str) -> None:
        self.lines.shared.setdefault((table, chain), []).append(line)


def comment(text: str) -> str:
    return f'-m comment --comment "{text}"'
