"""Service rules as nftables tables of our own (`ip knarr`, `ip6 knarr`), changed by small transactions (KEP-3866).

Services are elements of maps (see `nft_table`), so what changes for one of them is as quick with 10,000 others as with
ten: a few elements, sent to the kernel directly. Chains are written by `nft`: those that count whose turn it is, when
more are needed than there are, those of services with session affinity or source ranges, and the whole table at start
and when somebody else has changed the rules. A family whose services are all gone keeps its table until then.

Endpoints are taken in turn (`numgen inc`): even from the first request on, where a random choice would need thousands
of connections to look even. The counter is the kernel's, shared by all CPUs.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from knarr.clock import Clock
from knarr.network import netlink as kernel
from knarr.network.commands import CommandFailed, run_command
from knarr.network.proxy.mode import Rules
from knarr.network.proxy.model import FAMILIES, Family, PortRules, family_of
from knarr.network.proxy.nft_elements import ELEMENTS_MAX, Change, Elements
from knarr.network.proxy.nft_table import AFFINITY_CLIENTS_MAX, Layout, Objects, Place
from knarr.network.proxy.turns import Turns


class Nftables:
    """The nftables mode."""

    def __init__(
        self,
        clock: Clock,
        *,
        cluster_cidrs: Sequence[str],
        service_cidrs: Sequence[str] = (),
        name: str = "knarr",
        network_namespace: str | None = None,
    ) -> None:
        """`name` is the tables'; traffic from `cluster_cidrs` keeps its source address."""
        self._clock = clock
        self._namespace = network_namespace
        self.tables = frozenset({name})
        self._elements: Elements | None = None
        self._tables = {
            family: _Table(
                name,
                Layout(
                    family,
                    [each for each in cluster_cidrs if family_of(each) == family],
                    [each for each in service_cidrs if family_of(each) == family],
                ),
            )
            for family in FAMILIES
        }

    async def apply(self, rules: Rules, changed: Collection[str] | None) -> int:
        if changed is None:
            await self._rewrite(rules)
            return 1
        steps = _Steps()
        for family, table in self._tables.items():
            wanted = {name: _of_family(rules.get(name, ()), family) for name in changed}
            if table.is_there:
                table.change(wanted, steps)
            elif any(wanted.values()):
                steps.created.append(table.whole(wanted))
        commits = 0
        if steps.turns:
            # Apart: nobody is led there yet, and nft takes ten times as long when it is to change elements as well.
            await self._nft("\n".join([*steps.turns, ""]))
            commits += 1
        if not steps.only_elements or len(steps.elements) > ELEMENTS_MAX:
            await self._nft(steps.text())
            commits += 1
        elif steps.elements:
            await asyncio.to_thread(self._change_elements, steps.elements)
            commits += 1
        return commits

    async def is_there(self) -> bool:
        return bool(await self._present())

    async def remove(self) -> None:
        present = await self._present()
        if present:
            await self._nft("".join(f"delete table {each}\n" for each in present))
        for table in self._tables.values():
            table.forget()

    async def close(self) -> None:
        if self._elements is not None:
            self._elements.close()
            self._elements = None

    async def _present(self) -> list[str]:
        """Our tables that are in the kernel."""
        listed = (await self._nft_output("list", "tables")).splitlines()
        return [table.table for table in self._tables.values() if f"table {table.table}" in listed]

    async def _rewrite(self, rules: Rules) -> None:
        """Bring the tables into shape whatever they look like. Clients keep their endpoints: affinity sets stay."""
        present = await self._present()
        kept, anew = [], []
        for family, table in self._tables.items():
            services = {name: _of_family(ports, family) for name, ports in rules.items()}
            services = {name: ports for name, ports in services.items() if ports}
            text = table.whole(services) if services else ""
            there = table.table in present
            if there and services:
                kept.append(table.clearing(await self._listing(table)))
            if there:
                anew.append(f"delete table {table.table}\n")
            if there and not services:
                kept.append(f"delete table {table.table}\n")
            kept.append(text)
            anew.append(text)
        if not any(kept):
            return
        try:
            await self._nft("".join(kept))
        except CommandFailed:
            # Something of ours has another form (another version's table, say): begin with empty ones.
            await self._nft("".join(anew))

    async def _listing(self, table: _Table) -> list[dict[str, Any]]:
        try:
            listing = await self._nft_output("-j", "-t", "list", "table", *table.table.split())
        except CommandFailed:
            return []
        found: list[dict[str, Any]] = json.loads(listing)["nftables"]
        return found

    def _change_elements(self, changes: Sequence[Change]) -> None:
        """Blocks."""
        try:
            if self._elements is None:
                with kernel.entered(self._namespace):
                    self._elements = Elements()
            self._elements.change(changes)
        except OSError as failure:
            raise CommandFailed(f"the kernel refused {len(changes)} changes of map elements: {failure}") from failure

    async def _nft(self, text: str) -> None:
        await run_command(self._clock, "nft", "-f", "-", stdin=text, network_namespace=self._namespace)

    async def _nft_output(self, *arguments: str) -> str:
        return await run_command(self._clock, "nft", *arguments, network_namespace=self._namespace)


class _Steps(Struct):
    """A transaction, in the order that lets every step find what it needs."""

    turns: list[str] = field(default_factory=list)
    """What makes chains that are needed from now on: before the transaction."""
    created: list[str] = field(default_factory=list)
    filled: list[str] = field(default_factory=list)
    elements: list[Change] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)

    @property
    def only_elements(self) -> bool:
        return not (self.created or self.filled or self.deleted)

    def text(self) -> str:
        """For nft."""
        gone = [each for each in self.elements if not each.added]
        new = [each for each in self.elements if each.added]
        elements = [_element_line(each) for each in (*gone, *new)]
        return "\n".join([*self.created, *self.filled, *elements, *self.deleted, ""])


class _Table:
    """One family's table as it is in the kernel after the last transaction. One that failed is followed by a whole
    one, which begins with nothing known."""

    def __init__(self, name: str, layout: Layout) -> None:
        self.name = name
        self.layout = layout
        self.table = f"{layout.ip} {name}"
        self.forget()

    def forget(self) -> None:
        self.is_there = False
        self._services: dict[str, Objects] = {}
        self._claims: dict[Place, tuple[str, ...]] = {}
        """The services that want an element, the first by name has it."""
        self._turns = Turns()

    # The whole table

    def whole(self, services: Mapping[str, tuple[PortRules, ...]]) -> str:
        """Commands that write all of it into an empty or cleared table."""
        self.forget()
        self.is_there = True
        for name, ports in sorted(services.items()):
            objects = self._services[name] = self.layout.render(ports, self._turns)
            for place in objects.elements:
                self._claims[place] = (*self._claims.get(place, ()), name)
        self._turns.prepare()
        table, layout = self.table, self.layout
        lines = [f"add table {table}"]
        lines += [f"add map {table} {name} {{ {description}; }}" for name, description in layout.maps.items()]
        lines += [f"add set {table} {name} {{ {description}; }}" for name, description in layout.sets.items()]
        # All chains first, so that rules may refer to any of them.
        for name, (hook, _) in layout.chains.items():
            lines.append(f"add chain {table} {name}" + (f" {{ {hook} }}" if hook else ""))
        for objects in self._services.values():
            lines += [self._affinity_set(*each) for each in objects.affinity_sets.items()]
            lines += [f"add chain {table} {name}" for name in objects.chains]
        for name, (_, rules) in layout.chains.items():
            lines += self._rules(name, rules)
        lines += self._new_turns()
        for objects in self._services.values():
            for name, rules in objects.chains.items():
                lines += self._rules(name, rules)
        by_name: dict[str, list[str]] = {}
        for (name, key), claimants in self._claims.items():
            value = self._services[claimants[0]].elements[name, key]
            by_name.setdefault(name, []).append(f"{key} : {value}" if value else key)
        for name, elements in by_name.items():
            lines.append(f"add element {table} {name} {{ {', '.join(elements)} }}")
        return "\n".join([*lines, ""])

    def clearing(self, listing: Iterable[Mapping[str, Any]]) -> str:
        """Commands that take everything out of the table in the kernel but the affinity sets that are still wanted."""
        wanted_sets = {name for objects in self._services.values() for name in objects.affinity_sets}
        flushed, deleted, dropped = [], [], []
        for entry in listing:
            for kind, description in entry.items():
                name = description.get("name", "")
                if kind == "chain":
                    flushed.append(f"flush chain {self.table} {name}")
                    if name not in self.layout.chains:
                        deleted.append(f"delete chain {self.table} {name}")
                elif kind in ("map", "set") and name in {**self.layout.maps, **self.layout.sets}:
                    flushed.append(f"flush {kind} {self.table} {name}")
                elif kind == "map" or (kind == "set" and name not in wanted_sets):
                    dropped.append(f"delete {kind} {self.table} {name}")
        return "\n".join([*flushed, *deleted, *dropped, ""])

    # Changes

    def change(self, wanted: Mapping[str, tuple[PortRules, ...]], steps: _Steps) -> None:
        """Add what brings some services from what they have to what they want."""
        rendered = {name: self.layout.render(ports, self._turns) for name, ports in wanted.items()}
        touched: dict[Place, str | None] = {}
        """Elements that may change, with their values so far."""
        for name, objects in rendered.items():
            before = self._services.get(name) or Objects()
            for borrower in before.borrowed - objects.borrowed:
                self._turns.give_back(borrower)
            self._change_chains(before, objects, steps)
            for place in before.elements.keys() | objects.elements.keys():
                if before.elements.get(place) != objects.elements.get(place):
                    touched.setdefault(place, self._value(place))
        for name, objects in rendered.items():
            self._claim(name, objects)
        for (name, key), old in touched.items():
            new = self._value((name, key))
            if old == new:
                continue
            if old is not None:
                steps.elements.append(Change(False, self.layout.ip, self.name, name, key))
            if new is not None:
                steps.elements.append(Change(True, self.layout.ip, self.name, name, key, new))
        steps.turns += self._new_turns()

    def _value(self, place: Place) -> str | None:
        """Of an element; None when nobody wants it."""
        claimants = self._claims.get(place)
        return self._services[claimants[0]].elements[place] if claimants else None

    def _claim(self, name: str, objects: Objects) -> None:
        before = self._services.pop(name, None) or Objects()
        for place in before.elements.keys() - objects.elements.keys():
            others = tuple(each for each in self._claims[place] if each != name)
            if others:
                self._claims[place] = others
            else:
                del self._claims[place]
        for place in objects.elements.keys() - before.elements.keys():
            others = self._claims.get(place, ())
            self._claims[place] = tuple(sorted((*others, name))) if others else (name,)
        if objects.elements:
            self._services[name] = objects

    def _change_chains(self, before: Objects, objects: Objects, steps: _Steps) -> None:
        table = self.table
        for name, timeout_s in objects.affinity_sets.items():
            if name not in before.affinity_sets:
                steps.created.append(self._affinity_set(name, timeout_s))
        for name, chain in objects.chains.items():
            if before.chains.get(name) == chain:
                continue
            if name in before.chains:
                steps.created.append(f"flush chain {table} {name}")
            else:
                steps.created.append(f"add chain {table} {name}")
            steps.filled += self._rules(name, chain)
        gone = before.chains.keys() - objects.chains
        steps.created += [f"flush chain {table} {name}" for name in gone]
        steps.deleted += [f"delete chain {table} {name}" for name in gone]
        steps.deleted += [f"delete set {table} {name}" for name in before.affinity_sets.keys() - objects.affinity_sets]

    def _new_turns(self) -> list[str]:
        new = self._turns.new_chains()
        lines = [f"add chain {self.table} {chain.name}" for chain in new]
        return lines + [line for chain in new for line in self._rules(chain.name, self.layout.turn_rules(chain))]

    def _rules(self, chain: str, rules: Iterable[str]) -> list[str]:
        return [f"add rule {self.table} {chain} {rule}" for rule in rules]

    def _affinity_set(self, name: str, timeout_s: int) -> str:
        address = self.layout.sets["cluster-ips"]
        return (
            f"add set {self.table} {name} {{ {address}; size {AFFINITY_CLIENTS_MAX}; "
            f"flags dynamic,timeout; timeout {timeout_s}s; }}"
        )


def _of_family(ports: Iterable[PortRules], family: Family) -> tuple[PortRules, ...]:
    return tuple(each for each in ports if each.family == family)


def _element_line(change: Change) -> str:
    what = f"{change.key} : {change.value}" if change.added and change.value else change.key
    return f"{'add' if change.added else 'delete'} element {change.family} {change.table} {change.name} {{ {what} }}"
