"""Give out pod addresses from the node's ranges, and remember them over restarts.

The record is one small JSON file, replaced atomically with every change, so no address is ever given out twice,
whenever the agent dies. Addresses are taken round robin: one that was just freed is the last to come again, since
other nodes, caches and tracked connections may still mean its former holder.
"""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Sequence
from pathlib import Path

RESERVED_AT_START = 2
"""The network address and the node's own (the pods' gateway)."""


class NoAddressLeft(Exception):
    """Every address of the node's range is taken."""


class AddressPool:
    """The addresses of one node's pods, one of each of `ranges` for each holder."""

    def __init__(self, ranges: Sequence[str], record: Path) -> None:
        self._ranges = [ipaddress.ip_network(text) for text in ranges]
        self._record = record
        self._holders: dict[str, tuple[str, ...]] = {}
        self._next = [RESERVED_AT_START] * len(ranges)
        self._load()

    def holders(self) -> list[str]:
        return list(self._holders)

    def held(self, holder: str) -> tuple[str, ...] | None:
        return self._holders.get(holder)

    def take(self, holder: str) -> tuple[str, ...]:
        """Addresses for `holder`: those that it has, else new ones. Recorded before they are answered."""
        held = self._holders.get(holder)
        if held is not None:
            return held
        taken = {address for addresses in self._holders.values() for address in addresses}
        chosen = tuple(self._choose(position, taken) for position in range(len(self._ranges)))
        self._holders[holder] = chosen
        self._save()
        return chosen

    def free(self, holder: str) -> tuple[str, ...]:
        """Take a holder's addresses back; answers them, none when it held none."""
        addresses = self._holders.pop(holder, ())
        if addresses:
            self._save()
        return addresses

    def _choose(self, position: int, taken: set[str]) -> str:
        network = self._ranges[position]
        last = network.num_addresses - (2 if network.version == 4 else 1)
        count = last - RESERVED_AT_START + 1
        for step in range(min(count, len(taken) + 1)):
            offset = RESERVED_AT_START + (self._next[position] - RESERVED_AT_START + step) % count
            address = str(network[offset])
            if address not in taken:
                self._next[position] = RESERVED_AT_START + (offset + 1 - RESERVED_AT_START) % count
                return address
        raise NoAddressLeft(f"no address left in {network}: {len(self._holders)} pods hold one")

    def _load(self) -> None:
        if not self._record.exists():
            return
        record = json.loads(self._record.read_text())
        for holder, addresses in record["addresses"].items():
            self._holders[holder] = tuple(addresses)
        if record["ranges"] == [str(network) for network in self._ranges]:
            self._next = record["next"]

    def _save(self) -> None:
        record = {
            "ranges": [str(network) for network in self._ranges],
            "next": self._next,
            "addresses": {holder: list(addresses) for holder, addresses in self._holders.items()},
        }
        self._record.parent.mkdir(parents=True, exist_ok=True)
        written = self._record.with_suffix(".new")
        written.write_text(json.dumps(record))
        os.replace(written, self._record)
