"""Service rules as iptables chains, with the names that users look for (kube-proxy's iptables mode).

    PREROUTING, OUTPUT ─► KUBE-SERVICES ─► KUBE-SVC-… (cluster IP) or KUBE-EXT-… (external addresses)
                                       └─► KUBE-NODEPORTS ─► KUBE-EXT-…
    KUBE-SVC-… / KUBE-SVL-… (all / this node's endpoints) ─► KUBE-SEP-…  redirects (DNAT)

Every change is one `iptables-restore --noflush`, which the kernel takes wholly or not at all, and it names only the
chains that differ. Endpoints are taken in turn (`statistic --mode nth`): even from the first request on. The
counters are the kernel's; those of a chain start again when that chain is rewritten.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from msgspec import Struct, field

from knarr.clock import Clock
from knarr.network.commands import run_command
from knarr.network.proxy.mode import MASQUERADE_MARK, Rules, short_hash
from knarr.network.proxy.model import Endpoint, PortRules, Verdict

WAIT_FOR_LOCK_S = 5
"""How long to wait for other users of iptables (only the legacy variant has a lock)."""

_MARK = f"{MASQUERADE_MARK:#x}"

_JUMPS: tuple[tuple[str, str, str, str], ...] = (
    ("nat", "PREROUTING", "", "KUBE-SERVICES"),
    ("nat", "OUTPUT", "", "KUBE-SERVICES"),
    ("nat", "POSTROUTING", "", "KUBE-POSTROUTING"),
    ("filter", "INPUT", "-m conntrack --ctstate NEW", "KUBE-PROXY-FIREWALL"),
    ("filter", "INPUT", "-m conntrack --ctstate NEW", "KUBE-EXTERNAL-SERVICES"),
    ("filter", "FORWARD", "-m conntrack --ctstate NEW", "KUBE-PROXY-FIREWALL"),
    ("filter", "FORWARD", "", "KUBE-FORWARD"),
    ("filter", "FORWARD", "-m conntrack --ctstate NEW", "KUBE-SERVICES"),
    ("filter", "FORWARD", "-m conntrack --ctstate NEW", "KUBE-EXTERNAL-SERVICES"),
    ("filter", "OUTPUT", "-m conntrack --ctstate NEW", "KUBE-PROXY-FIREWALL"),
    ("filter", "OUTPUT", "-m conntrack --ctstate NEW", "KUBE-SERVICES"),
)
"""From the kernel's own chains into ours: (table, chain, match, ours). The only rules of ours in others' chains."""

_OURS = "knarr service portals"
"""The comment of our jumps: upstream's kube-proxy has chains of the same names."""

_OWN_CHAINS = {
    "nat": ("KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ"),
    "filter": ("KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-FORWARD", "KUBE-PROXY-FIREWALL"),
}
_OWN_PREFIXES = ("KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-FW-", "KUBE-SEP-")

_Chains = dict[str, tuple[str, ...]]
_Tables = dict[str, _Chains]


class _ServiceLines(Struct):
    """What one service adds: its own chains (nat), and its lines in the chains that all share."""

    chains: _Chains = field(default_factory=dict)
    shared: dict[tuple[str, str], list[str]] = field(default_factory=dict)


class Iptables:
    """The iptables mode."""

    def __init__(self, clock: Clock, *, cluster_cidrs: Sequence[str], network_namespace: str | None = None) -> None:
        """Traffic from `cluster_cidrs` keeps its source address."""
        self._clock = clock
        self._cluster_cidrs = tuple(cidr for cidr in cluster_cidrs if ":" not in cidr)
        self._namespace = network_namespace
        self._services: dict[str, _ServiceLines] = {}
        self._written: _Tables = {"nat": {}, "filter": {}}

    async def apply(self, rules: Rules, changed: Collection[str] | None) -> int:
        names = rules.keys() if changed is None else changed
        services = {} if changed is None else dict(self._services)
        for name in names:
            if rules.get(name):
                services[name] = self._render(rules[name])
            else:
                services.pop(name, None)
        wanted = self._tables(services)
        if changed is None:
            saved = {table: _saved(await self._save(table)) for table in wanted}
            before: _Tables = {table: dict.fromkeys(_ours(saved[table]), ()) for table in wanted}
            text = _transaction(wanted, before, saved)
        else:
            text = _transaction(wanted, self._written, None)
        if text:
            await self._restore(text)
        self._services, self._written = services, wanted
        return text.count("\nCOMMIT\n")

    async def is_there(self) -> bool:
        return _OURS in await self._save("nat")

    async def remove(self) -> None:
        parts = []
        for table, own in _OWN_CHAINS.items():
            saved = _saved(await self._save(table))
            present = [chain for chain in saved if chain in own or chain.startswith(_OWN_PREFIXES)]
            jumps = [f"-D {chain} {rule}" for chain, rule in _our_jumps(table, saved)]
            if present:
                emptied = [f":{chain} - [0:0]" for chain in present]
                removed = [f"-X {chain}" for chain in present]
                parts += [f"*{table}", *emptied, *jumps, *removed, "COMMIT"]
        if parts:
            await self._restore("\n".join([*parts, ""]))
        self._services, self._written = {}, {"nat": {}, "filter": {}}

    def _render(self, rules: Sequence[PortRules]) -> _ServiceLines:
        lines = _ServiceLines()
        for port in rules:
            _PortWriter(port, lines, self._cluster_cidrs).write()
        return lines

    def _tables(self, services: Mapping[str, _ServiceLines]) -> _Tables:
        shared = _shared_chains()
        nat: _Chains = {}
        for name in sorted(services):
            nat.update(services[name].chains)
            for (table, chain), lines in services[name].shared.items():
                shared[table][chain] += lines
        # Last, so that a cluster IP or external address is never taken for a node's own.
        shared["nat"]["KUBE-SERVICES"].append(
            f"{_comment('service nodeports; last in this chain')} -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS"
        )
        nat.update({chain: tuple(lines) for chain, lines in shared["nat"].items()})
        return {"nat": nat, "filter": {chain: tuple(lines) for chain, lines in shared["filter"].items()}}

    async def _save(self, table: str) -> str:
        return await run_command(self._clock, "iptables-save", "-t", table, network_namespace=self._namespace)

    async def _restore(self, text: str) -> None:
        await run_command(
            self._clock,
            "iptables-restore",
            "--noflush",
            "-w",
            str(WAIT_FOR_LOCK_S),
            stdin=text,
            network_namespace=self._namespace,
        )


def _transaction(wanted: _Tables, before: _Tables, saved: _Tables | None) -> str:
    """The iptables-restore input that makes `before` into `wanted`; with `saved`, the jumps into ours as well."""
    parts: list[str] = []
    for table, chains in wanted.items():
        rewritten = [chain for chain, lines in chains.items() if saved or before[table].get(chain) != lines]
        gone = [chain for chain in before[table] if chain not in chains]
        jumps = _missing_jumps(table, saved[table]) if saved else []
        if not rewritten and not gone and not jumps:
            continue
        parts.append(f"*{table}")
        # Naming a chain makes it, or empties it.
        parts += [f":{chain} - [0:0]" for chain in (*rewritten, *gone)]
        for chain in rewritten:
            parts += [f"-A {chain} {line}" for line in chains[chain]]
        parts += jumps
        parts += [f"-X {chain}" for chain in gone]
        parts.append("COMMIT")
    return "\n".join([*parts, ""]) if parts else ""


def _saved(text: str) -> _Chains:
    """iptables-save's output as chains and their rules."""
    chains: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith(":"):
            chains[line[1:].split(" ", 1)[0]] = []
        elif line.startswith("-A "):
            _, chain, rule = line.split(" ", 2)
            chains.setdefault(chain, []).append(rule)
    return {chain: tuple(rules) for chain, rules in chains.items()}


def _ours(saved: Mapping[str, Sequence[str]]) -> list[str]:
    return [chain for chain in saved if chain.startswith(_OWN_PREFIXES)]


def _our_jumps(table: str, saved: Mapping[str, Sequence[str]]) -> Iterable[tuple[str, str]]:
    """Rules in others' chains that lead into ours."""
    own = {chain for _, _, _, chain in _JUMPS}
    for chain in {chain for in_table, chain, _, _ in _JUMPS if in_table == table}:
        for rule in saved.get(chain, ()):
            if rule.rpartition("-j ")[2] in own:
                yield chain, rule


def _missing_jumps(table: str, saved: Mapping[str, Sequence[str]]) -> list[str]:
    """Commands that put our jumps first in the kernel's chains, in the order of _JUMPS, where they're missing."""
    present = {(chain, rule.rpartition("-j ")[2]) for chain, rule in _our_jumps(table, saved)}
    missing = [
        f"-I {chain} 1 {match} {_comment(_OURS)} -j {own}"
        for in_table, chain, match, own in _JUMPS
        if in_table == table and (chain, own) not in present
    ]
    return missing[::-1]


def _shared_chains() -> dict[str, dict[str, list[str]]]:
    """The chains that every service adds lines to, and those that are always the same."""
    return {
        "nat": {
            "KUBE-SERVICES": [],
            "KUBE-NODEPORTS": [],
            "KUBE-POSTROUTING": [
                f"-m mark ! --mark {_MARK}/{_MARK} -j RETURN",
                f"-j MARK --xor-mark {_MARK}",
                f"{_comment('kubernetes service traffic requiring SNAT')} -j MASQUERADE --random-fully",
            ],
            "KUBE-MARK-MASQ": [f"-j MARK --or-mark {_MARK}"],
        },
        "filter": {
            "KUBE-SERVICES": [],
            "KUBE-EXTERNAL-SERVICES": [],
            "KUBE-FORWARD": [
                "-m conntrack --ctstate INVALID -j DROP",
                f"{_comment('kubernetes forwarding rules')} -m mark --mark {_MARK}/{_MARK} -j ACCEPT",
                f"{_comment('kubernetes forwarding conntrack rule')} "
                "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            ],
            "KUBE-PROXY-FIREWALL": [],
        },
    }


class _PortWriter:
    """Writes the chains and lines of one service port."""

    def __init__(self, rules: PortRules, lines: _ServiceLines, cluster_cidrs: Sequence[str]) -> None:
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
        target = f"-d {rules.cluster_ip}/32 {self.match} --dport {rules.port}"
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
        target = f"-d {address}/32 {self.match} --dport {rules.port}"
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
        target = f"-d {address}/32 {self.match} --dport {rules.port}"
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
            target = f"-d {rules.cluster_ip}/32 {self.match} --dport {rules.port}"
            label = self._label("cluster IP")
            if len(self.cluster_cidrs) == 1:
                lines.append(f"! -s {self.cluster_cidrs[0]} {target} {label} -j KUBE-MARK-MASQ")
            else:
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
            f"-s {endpoint.address}/32 {self._label()} -j KUBE-MARK-MASQ",
            f"{self.match} {self._label()} {remembered}-j DNAT --to-destination {endpoint}",
        )

    def _refusals(self, verdict: Verdict, target: str) -> Iterable[str]:
        label = self._label("has no endpoints" if verdict is Verdict.REJECT else "has no local endpoints")
        if verdict is Verdict.DROP:
            return (f"{target} {label} -j DROP",)
        how = "tcp-reset" if self.rules.protocol == "tcp" else "icmp-port-unreachable"
        return (f"{target} {label} -j REJECT --reject-with {how}",)

    def _endpoint_chain(self, endpoint: Endpoint) -> str:
        return f"KUBE-SEP-{short_hash(self.rules.name, self.rules.protocol, str(endpoint))}"

    def _label(self, text: str = "") -> str:
        return _comment(f"{self.rules.name} {text}".strip())

    def _share(self, table: str, chain: str, line: str) -> None:
        self.lines.shared.setdefault((table, chain), []).append(line)


def _comment(text: str) -> str:
    return f'-m comment --comment "{text}"'
