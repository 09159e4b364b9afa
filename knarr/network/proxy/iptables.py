"""Service rules as iptables chains, with the names that users look for (kube-proxy's iptables mode).

    PREROUTING, OUTPUT ─► KUBE-SERVICES ─► KUBE-SVC-… (cluster IP) or KUBE-EXT-… (external addresses)
                                       └─► KUBE-NODEPORTS ─► KUBE-EXT-…
    KUBE-SVC-… / KUBE-SVL-… (all / this node's endpoints) ─► KUBE-SEP-…  redirects (DNAT)

Every change is one `iptables-restore --noflush`, and one `ip6tables-restore` where services have IPv6 addresses. The
kernel takes each wholly or not at all, and it names only the chains that differ. Endpoints are taken in turn
(`statistic --mode nth`): even from the first request on. The counters are the kernel's; those of a chain start again
when that chain is rewritten.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from knarr.clock import Clock
from knarr.network.commands import CommandFailed, run_command
from knarr.network.proxy.iptables_rules import (
    DIALECTS,
    Chains,
    Dialect,
    ServiceLines,
    comment,
    node_port_lines,
    render,
    shared_chains,
)
from knarr.network.proxy.mode import Rules
from knarr.network.proxy.model import family_of

WAIT_FOR_LOCK_S = 5
"""How long to wait for other users of iptables (only the legacy variant has a lock)."""

CHAINS_AT_ONCE_MAX = 2000
_FROM_THE_END = ("KUBE-SEP", "KUBE-SVC", "KUBE-SVL", "KUBE-EXT", "KUBE-FW-")
"""A chain leads only to those of kinds before its own."""

TABLES = ("nat", "filter")
_JUMPS: tuple[tuple[str, str, str, str], ...] = (
    ("nat", "PREROUTING", "", "KUBE-SERVICES"),
    ("nat", "OUTPUT", "", "KUBE-SERVICES"),
    ("nat", "POSTROUTING", "", "KUBE-POSTROUTING"),
    ("filter", "INPUT", "", "KUBE-FIREWALL"),
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
    "filter": ("KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-FORWARD", "KUBE-PROXY-FIREWALL", "KUBE-FIREWALL"),
}
_OWN_PREFIXES = ("KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-FW-", "KUBE-SEP-")


class Iptables:
    """The iptables mode."""

    def __init__(self, clock: Clock, *, cluster_cidrs: Sequence[str], network_namespace: str | None = None) -> None:
        """Traffic from `cluster_cidrs` keeps its source address."""
        self.tables = frozenset(TABLES)
        self._families = [
            _Rules(
                clock, dialect, [each for each in cluster_cidrs if family_of(each) == dialect.family], network_namespace
            )
            for dialect in DIALECTS
        ]

    async def apply(self, rules: Rules, changed: Collection[str] | None) -> int:
        return sum([await family.apply(rules, changed) for family in self._families])

    async def is_there(self) -> bool:
        return any([await family.is_there() for family in self._families])

    async def remove(self) -> None:
        for family in self._families:
            if await family.is_there():
                await family.remove()

    async def close(self) -> None:
        return


class _Rules:
    """One family's chains."""

    def __init__(
        self, clock: Clock, dialect: Dialect, cluster_cidrs: Sequence[str], network_namespace: str | None
    ) -> None:
        self._clock = clock
        self._dialect = dialect
        self._cluster_cidrs = cluster_cidrs
        self._namespace = network_namespace
        self._services: dict[str, ServiceLines] = {}
        """As the kernel has them after the last transaction. One that failed is followed by one that rewrites all."""
        self._there = False

    async def apply(self, rules: Rules, changed: Collection[str] | None) -> int:
        """Answers how many commits it took."""
        new: dict[str, ServiceLines] = {}
        for name in rules.keys() if changed is None else changed:
            ports = [each for each in rules.get(name, ()) if each.family == self._dialect.family]
            new[name] = render(self._dialect, ports, self._cluster_cidrs)
        if changed is None or (not self._there and any(lines.shared for lines in new.values())):
            return await self._rewrite({name: lines for name, lines in new.items() if lines.shared})
        if not self._there:
            return 0
        before = {name: self._services.get(name) or ServiceLines() for name in new}
        self._services |= new
        for name in [name for name, lines in new.items() if not lines.shared]:
            del self._services[name]
        return await self._write(self._difference(before, new))

    async def is_there(self) -> bool:
        try:
            return _OURS in await self._save("nat")
        except CommandFailed:
            if self._dialect.family == "IPv4":
                raise
            return False  # a machine without IPv6

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
        self._services, self._there = {}, False

    async def _rewrite(self, services: dict[str, ServiceLines]) -> int:
        """Everything, whatever is there; nothing at all for a family without services."""
        if not services:
            if await self.is_there():
                await self.remove()
                return 2
            return 0
        saved = {table: _saved(await self._save(table)) for table in TABLES}
        self._services, self._there = services, True
        chains = {chain: lines for each in services.values() for chain, lines in each.chains.items()}
        touched: dict[str, dict[str, Sequence[str] | None]] = {
            table: {
                **dict.fromkeys(_ours(saved[table])),
                **(chains if table == "nat" else {}),
                **{chain: self._shared(table, chain) for chain in _OWN_CHAINS[table]},
            }
            for table in TABLES
        }
        commits = await self._write_ahead(chains)
        for chain in chains if commits else ():
            del touched["nat"][chain]
        return commits + await self._write(touched, {table: _missing_jumps(table, saved[table]) for table in TABLES})

    async def _write_ahead(self, chains: Chains) -> int:
        """Very many chains a few at a time, those first that others lead to: iptables takes the square of their number.
        What leads to them so far goes on as it is until the shared chains are written. Answers how many commits."""
        if len(chains) <= CHAINS_AT_ONCE_MAX:
            return 0
        ordered = sorted(chains, key=lambda chain: (_FROM_THE_END.index(chain[: len("KUBE-SEP")]), chain))
        starts = range(0, len(ordered), CHAINS_AT_ONCE_MAX)
        parts = [{chain: chains[chain] for chain in ordered[start : start + CHAINS_AT_ONCE_MAX]} for start in starts]
        parts[0]["KUBE-MARK-MASQ"] = self._shared("nat", "KUBE-MARK-MASQ")
        return sum([await self._write({"nat": part}) for part in parts])

    def _difference(
        self, before: Mapping[str, ServiceLines], new: Mapping[str, ServiceLines]
    ) -> dict[str, dict[str, Sequence[str] | None]]:
        """Chains that change, by table; None for those that are no more."""
        touched: dict[str, dict[str, Sequence[str] | None]] = {table: {} for table in TABLES}
        shared: set[tuple[str, str]] = set()
        for name, lines in new.items():
            old = before[name]
            touched["nat"] |= dict.fromkeys(old.chains.keys() - lines.chains)
            touched["nat"] |= {chain: rules for chain, rules in lines.chains.items() if old.chains.get(chain) != rules}
            places = old.shared.keys() | lines.shared.keys()
            shared |= {place for place in places if old.shared.get(place) != lines.shared.get(place)}
            if old.node_addresses != lines.node_addresses:
                shared.add(("nat", "KUBE-SERVICES"))
        for table, chain in shared:
            touched[table][chain] = self._shared(table, chain)
        return touched

    def _shared(self, table: str, chain: str) -> tuple[str, ...]:
        """A chain that all services add their lines to."""
        lines = list(shared_chains(self._dialect)[table][chain])
        for name in sorted(self._services):
            lines += self._services[name].shared.get((table, chain), ())
        if (table, chain) == ("nat", "KUBE-SERVICES"):
            lines += node_port_lines(
                self._dialect, {address for each in self._services.values() for address in each.node_addresses}
            )
        return tuple(lines)

    async def _save(self, table: str) -> str:
        return await run_command(self._clock, self._dialect.save, "-t", table, network_namespace=self._namespace)

    async def _write(
        self,
        touched: Mapping[str, Mapping[str, Sequence[str] | None]],
        jumps: Mapping[str, Sequence[str]] | None = None,
    ) -> int:
        """One transaction for each table; answers how many."""
        parts: list[str] = []
        for table, chains in touched.items():
            missing = jumps[table] if jumps else ()
            if not chains and not missing:
                continue
            parts.append(f"*{table}")
            # Naming a chain makes it, or empties it.
            parts += [f":{chain} - [0:0]" for chain in chains]
            parts += [f"-A {chain} {line}" for chain, lines in chains.items() for line in lines or ()]
            parts += missing
            parts += [f"-X {chain}" for chain, lines in chains.items() if lines is None]
            parts.append("COMMIT")
        if parts:
            await self._restore("\n".join([*parts, ""]))
        return parts.count("COMMIT")

    async def _restore(self, text: str) -> None:
        await run_command(
            self._clock,
            self._dialect.restore,
            "--noflush",
            "-w",
            str(WAIT_FOR_LOCK_S),
            stdin=text,
            network_namespace=self._namespace,
        )


def _saved(text: str) -> Chains:
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
        f"-I {chain} 1 {match} {comment(_OURS)} -j {own}"
        for in_table, chain, match, own in _JUMPS
        if in_table == table and (chain, own) not in present
    ]
    return missing[::-1]
