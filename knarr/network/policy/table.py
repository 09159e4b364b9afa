"""NetworkPolicies as an nftables table.

    forward (and, to the cluster's DNS, input) ─► egress   a pod's address ─► egress-<its policies> ─► policy-… ─► drop
    forward                                    ─► ingress  a pod's address ─► ingress-<its policies> ─► policy-… ─► drop

A policy is a chain of lines that accept; the pods of this node that the same policies select share a chain that asks
them in turn and drops the rest. Peers are sets of addresses: when a pod comes or goes only elements change. Packets are
looked at after the service rules have chosen a pod, and before anything is masqueraded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec import Struct, field

from knarr.network.policy.membership import Membership
from knarr.network.policy.model import EGRESS, INGRESS, Block, Pods, PodView, Policy, Ports, Rule

FAMILIES = {"4": "ip", "6": "ip6"}
TYPES = {"4": "ipv4_addr", "6": "ipv6_addr"}
NAME_CHARACTERS_MAX = 200
"""The kernel's limit is 255. The digest in front keeps names apart."""
DIGEST_CHARACTERS = 12


class Table(Struct, frozen=True):
    """What is in the table."""

    sets: dict[str, tuple[str, frozenset[str]]] = field(default_factory=dict)
    """Type and elements, by name."""
    maps: dict[str, tuple[str, dict[str, str]]] = field(default_factory=dict)
    """Type, and verdicts by key, by name."""
    chains: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    """Hook and rules, by name."""

    def closes(self, direction: str, address: str) -> bool:
        """Whether what comes to an address (goes from it) is asked for policies."""
        return address in self.maps[f"{direction.lower()}-{'6' if ':' in address else '4'}"][1]


class Renderer:
    """Writes tables, and remembers what it wrote for what hasn't changed."""

    def __init__(self, dns_addresses: Sequence[str]) -> None:
        """`dns_addresses` are those of the cluster's DNS, which each node answers itself."""
        self._dns_addresses = dns_addresses
        self._sets: dict[Pods | tuple[Pods, str, str], dict[str, tuple[str, frozenset[str]]]] = {}
        self._chains: dict[tuple[str, Policy], tuple[str, tuple[str, ...]]] = {}

    def table(self, policies: Mapping[str, Sequence[Policy]], membership: Membership) -> Table:
        """What should be there, given policies by direction. Takes note of what has changed in `membership`."""
        for selector in [each for each in self._sets if _pods_of(each) in membership.changed]:
            del self._sets[selector]
        membership.changed.clear()
        table = Table(chains=dict(self._hooks()))
        for each in ("4", "6"):
            table.sets[f"self-{each}"] = (
                f"type {TYPES[each]} . {TYPES[each]}",
                frozenset(self._selves(policies, membership, each)),
            )
        used: set[Pods | tuple[Pods, str, str]] = set()
        for direction in (INGRESS, EGRESS):
            self._add_pods(table, direction, policies.get(direction, ()), membership)
            for policy in policies.get(direction, ()):
                name, rules = self._policy_chain(direction, policy)
                table.chains[name] = ("", rules)
                used |= set(_selectors(direction, policy))
        self._sets = {each: self._sets.get(each) or self._rendered(each, membership) for each in used}
        self._chains = {key: value for key, value in self._chains.items() if value[0] in table.chains}
        for rendered in self._sets.values():
            table.sets.update(rendered)
        return table

    def _hooks(self) -> Iterator[tuple[str, tuple[str, tuple[str, ...]]]]:
        known = "ct state { established, related } accept"
        selves = [f"{ip} saddr . {ip} daddr @self-{each} accept" for each, ip in FAMILIES.items()]
        egress = [f"{ip} saddr vmap @egress-{each}" for each, ip in FAMILIES.items()]
        ingress = [f"{ip} daddr vmap @ingress-{each}" for each, ip in FAMILIES.items()]
        to_dns = [
            f"{ip} daddr {{ {', '.join(own)} }} {rule}"
            for (each, ip), rule in zip(FAMILIES.items(), egress, strict=True)
            if (own := _of_family(each, self._dns_addresses))
        ]
        # Two chains, since to accept ends one: first whether it may go, then whether it may come.
        forward = "type filter hook forward priority filter"
        yield "egress", (f"{forward} + 1; policy accept;", (known, *selves, *egress))
        yield "ingress", (f"{forward} + 2; policy accept;", (known, *selves, *ingress))
        yield "egress-dns", ("type filter hook input priority filter + 1; policy accept;", (known, *to_dns))

    def _selves(self, policies: Mapping[str, Sequence[Policy]], membership: Membership, family: str) -> Iterator[str]:
        for listed in policies.values():
            for policy in listed:
                for pod in membership.of(policy.selects).values():
                    if pod.is_local:
                        yield from (f"{each} . {each}" for each in _of_family(family, pod.addresses))

    def _add_pods(self, table: Table, direction: str, policies: Sequence[Policy], membership: Membership) -> None:
        """This node's pods that some policy selects, and the chain of each combination of policies."""
        selecting: dict[str, list[Policy]] = {}
        views: dict[str, PodView] = {}
        for policy in sorted(policies, key=lambda each: each.name):
            for key, pod in membership.of(policy.selects).items():
                if pod.is_local:
                    selecting.setdefault(key, []).append(policy)
                    views[key] = pod
        verdicts: dict[str, dict[str, str]] = {each: {} for each in FAMILIES}
        for key, listed in selecting.items():
            names = [self._policy_chain(direction, each)[0] for each in listed]
            chain = f"{direction.lower()}-{_digest(*names)}"
            if chain not in table.chains:
                table.chains[chain] = ("", (*(f"jump {name}" for name in names), "drop"))
            for family, found in verdicts.items():
                found.update(dict.fromkeys(_of_family(family, views[key].addresses), f"goto {chain}"))
        for family, found in verdicts.items():
            table.maps[f"{direction.lower()}-{family}"] = (f"type {TYPES[family]} : verdict", found)

    def _policy_chain(self, direction: str, policy: Policy) -> tuple[str, tuple[str, ...]]:
        found = self._chains.get((direction, policy))
        if found is None:
            name = f"policy-{_digest(direction, policy.name)}-{direction.lower()}-{policy.name}"[:NAME_CHARACTERS_MAX]
            lines = tuple(line for rule in policy.rules for line in _lines(direction, policy, rule))
            found = self._chains[direction, policy] = (name, lines)
        return found

    def _rendered(
        self, selector: Pods | tuple[Pods, str, str], membership: Membership
    ) -> dict[str, tuple[str, frozenset[str]]]:
        """The sets of a selector's addresses, or with their ports of a name and protocol."""
        members = membership.of(_pods_of(selector)).values()
        found = {}
        for family in FAMILIES:
            name, kind = f"{_set_name(selector)}-{family}", f"type {TYPES[family]}"
            if isinstance(selector, Pods):
                elements = frozenset(each for pod in members for each in _of_family(family, pod.addresses))
            else:
                _, protocol, port_name = selector
                kind += " . inet_proto . inet_service"
                elements = frozenset(
                    f"{address} . {protocol} . {port}"
                    for pod in members
                    for port in pod.ports.get((port_name, protocol), ())
                    for address in _of_family(family, pod.addresses)
                )
            found[name] = (kind, elements)
        return found


EVERY_POD = Pods()


def selectors_of(policies: Mapping[str, Sequence[Policy]]) -> set[Pods]:
    """All that must be known of pods to write some policies' table."""
    found = {policy.selects for listed in policies.values() for policy in listed}
    for direction, listed in policies.items():
        found |= {_pods_of(each) for policy in listed for each in _selectors(direction, policy)}
    return found


def _selectors(direction: str, policy: Policy) -> Iterator[Pods | tuple[Pods, str, str]]:
    """Those that a policy's chain has sets of."""
    for rule in policy.rules:
        named = [ports for ports in rule.ports or () if ports.name]
        peers = [peer for peer in rule.peers or () if isinstance(peer, Pods)]
        if rule.ports is None or len(named) < len(rule.ports) or direction == INGRESS:
            yield from peers
        for ports in named:
            for target in _targets(direction, policy, rule):
                yield target, ports.protocol, ports.name


def _targets(direction: str, policy: Policy, rule: Rule) -> Iterable[Pods]:
    """Whose ports a name is about: those of whoever is connected to. Addresses of a range have no names."""
    if direction == INGRESS:
        return (policy.selects,)
    return (EVERY_POD,) if rule.peers is None else [peer for peer in rule.peers if isinstance(peer, Pods)]


def _lines(direction: str, policy: Policy, rule: Rule) -> Iterator[str]:
    """What accepts, for one rule."""
    named = [ports for ports in rule.ports or () if ports.name]
    numbered = [ports for ports in rule.ports or () if not ports.name]
    if rule.ports is None or numbered:
        for peer in _peer_matches(direction, rule):
            yield from (f"{peer}{ports}accept" for ports in _port_matches(rule.ports and numbered))
    for ports in named:
        if direction == INGRESS:
            # Who may come, and the port by which this very pod calls it.
            for family, ip in FAMILIES.items():
                name = _set_name((policy.selects, ports.protocol, ports.name))
                where = f"{ip} daddr . meta l4proto . th dport @{name}-{family} accept"
                yield from (f"{peer}{where}" for peer in _peer_matches(direction, rule, [family]))
        else:
            for target in _targets(direction, policy, rule):
                name = _set_name((target, ports.protocol, ports.name))
                for family, ip in FAMILIES.items():
                    yield f"{ip} daddr . meta l4proto . th dport @{name}-{family} accept"


def _peer_matches(direction: str, rule: Rule, families: Iterable[str] = tuple(FAMILIES)) -> Iterator[str]:
    """Each way to be one of the rule's peers."""
    if rule.peers is None:
        yield ""
        return
    end = "saddr" if direction == INGRESS else "daddr"
    for peer in rule.peers:
        if isinstance(peer, Block):
            family = "6" if ":" in peer.cidr else "4"
            if family in families:
                ip = FAMILIES[family]
                excepted = f"{ip} {end} != {{ {', '.join(peer.excepted)} }} " if peer.excepted else ""
                yield f"{ip} {end} {peer.cidr} {excepted}"
        else:
            yield from (f"{FAMILIES[each]} {end} @{_set_name(peer)}-{each} " for each in families)


def _port_matches(ports: Sequence[Ports] | None) -> Iterator[str]:
    if ports is None:
        yield ""
        return
    for protocol in dict.fromkeys(each.protocol for each in ports):
        ranges = [(each.first, each.last) for each in ports if each.protocol == protocol]
        if (0, 0) in ranges:
            yield f"meta l4proto {protocol} "
        else:
            written = (str(first) if first == last else f"{first}-{last}" for first, last in _joined(ranges))
            yield f"meta l4proto {protocol} th dport {{ {', '.join(written)} }} "


def _joined(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Ranges that don't overlap: the kernel refuses others."""
    last: tuple[int, int] | None = None
    for first, end in sorted(ranges):
        if last is not None and first <= last[1] + 1:
            last = (last[0], max(last[1], end))
            continue
        if last is not None:
            yield last
        last = (first, end)
    if last is not None:
        yield last


def _pods_of(selector: Pods | tuple[Pods, str, str]) -> Pods:
    return selector if isinstance(selector, Pods) else selector[0]


def _set_name(selector: Pods | tuple[Pods, str, str]) -> str:
    pods = _pods_of(selector)
    parts = [str(pods.pods), pods.namespace, str(pods.namespaces)]
    if isinstance(selector, Pods):
        return f"pods-{_digest(*parts)}"
    _, protocol, name = selector
    return f"ports-{_digest(*parts, protocol, name)}"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:DIGEST_CHARACTERS]


def _of_family(family: str, addresses: Iterable[str]) -> list[str]:
    return [each for each in addresses if (":" in each) == (family == "6")]


# Transactions


def whole(name: str, table: Table) -> str:
    """The transaction that puts `table` in the place of whatever is there."""
    return "\n".join(
        [f"add table inet {name}", f"delete table inet {name}", f"add table inet {name}", changes(name, Table(), table)]
    )


def changes(name: str, before: Table, wanted: Table) -> str:
    """The transaction that makes one table of another; empty when there is nothing to do."""
    where = f"inet {name}"
    made, flushed, unlinked, filled, linked, deleted = [], [], [], [], [], []
    for kind, old, new in (("set", before.sets, wanted.sets), ("map", before.maps, wanted.maps)):
        made += [f"add {kind} {where} {each} {{ {new[each][0]}; }}" for each in new.keys() - old.keys()]
        deleted += [f"delete {kind} {where} {each}" for each in old.keys() - new.keys()]
    for each, (_, elements) in wanted.sets.items():
        had = before.sets.get(each, ("", frozenset[str]()))[1]
        if had is not elements:
            unlinked += _elements("delete", where, each, had - elements)
            linked += _elements("add", where, each, elements - had)
    for each, (_, verdicts) in wanted.maps.items():
        there = before.maps.get(each, ("", {}))[1]
        changed = {key for key in {*there, *verdicts} if there.get(key) != verdicts.get(key)}
        unlinked += _elements("delete", where, each, changed & there.keys())
        linked += _elements("add", where, each, (f"{key} : {verdicts[key]}" for key in changed & verdicts.keys()))
    for each, (hook, rules) in wanted.chains.items():
        chain_before = before.chains.get(each)
        if chain_before == (hook, rules):
            continue
        if chain_before is None:
            made.append(f"add chain {where} {each}" + (f" {{ {hook} }}" if hook else ""))
        else:
            flushed.append(f"flush chain {where} {each}")
        filled += [f"add rule {where} {each} {rule}" for rule in rules]
    gone = before.chains.keys() - wanted.chains.keys()
    flushed += [f"flush chain {where} {each}" for each in gone]
    deleted[:0] = [f"delete chain {where} {each}" for each in gone]
    lines = [*made, *unlinked, *flushed, *filled, *linked, *deleted]
    return "\n".join([*lines, ""]) if lines else ""


def _elements(verb: str, where: str, name: str, elements: Iterable[str]) -> list[str]:
    listed = sorted(elements)
    return [f"{verb} element {where} {name} {{ {', '.join(listed)} }}"] if listed else []
