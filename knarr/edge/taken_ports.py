"""Ports of the nodes' own addresses that load balancers are not to take over: something of the machine has them.

Without pools a Service of type LoadBalancer is reached at ports of the machines themselves. Its rules would win over
whatever listens there, so somebody's `port: 22` would end the administrator's way in. Each node says in an annotation
of its Node which of the ports that Services ask for are taken (`knarr.edge.port_watch`);
`knarr.edge.providers.local` gives out the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from knarr.api.core.v1 import Node, Service

ANNOTATION = "knarr.dev/taken-ports"
PORTS_MAX = 1000
"""That are looked at, so that the annotation stays small; further ones are given out unseen."""

PortKey = tuple[int, str]
"""A port and its protocol."""
Report = Mapping[str, Mapping[str, str]]
"""What a node says: "22/TCP" → address (or any) → who has it there; nothing where it is free."""


def ports_of(service: Service) -> frozenset[PortKey]:
    """Those that it asks for."""
    return frozenset((port.port, port.protocol or "TCP") for port in (service.spec.ports if service.spec else ()))


def name_of(port: PortKey) -> str:
    return f"{port[0]}/{port[1]}"


def report_of(node: Node | None) -> Report | None:
    """None for a node that doesn't tell: one on which nothing really runs, or of another make."""
    text = node.metadata.annotations.get(ANNOTATION) if node else None
    try:
        return None if text is None else msgspec.json.decode(text, type=dict[str, dict[str, str]])
    except msgspec.MsgspecError:
        return None


def was_looked_at(report: Report | None, ports: Iterable[PortKey]) -> bool:
    return report is None or len(report) >= PORTS_MAX or all(name_of(each) in report for each in ports)


def holder(report: Report | None, port: PortKey, address: str) -> str:
    """Who has a port at an address of the node; empty where nobody is known to."""
    there = (report or {}).get(name_of(port), {})
    return there.get(address) or there.get("::" if ":" in address else "0.0.0.0") or ""


def changed(before: Report | None, after: Report | None) -> set[str]:
    """The names of ports of which a node says something else."""
    old, new = before or {}, after or {}
    return {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
