"""Hints: by which zones (and nodes) an endpoint is meant to be used, so that traffic stays near.

A Service asks for them in one of two ways. Its `trafficDistribution` (KEP-4444, KEP-3015) has each ready endpoint serve
its own zone, with PreferSameNode its own node too. The older annotation service.kubernetes.io/topology-mode: Auto
(KEP-2433) shares endpoints out between the zones in proportion to their CPUs: each zone gets as many as its part, and
no endpoint is to bear more than a fifth above the mean; where that can't be, there are no hints, and an event says why.
The annotation wins.

Plain functions over the slices of one family: those that are written anyway, and those that would stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from msgspec import Struct, field

from knarr.api.core.v1 import Node, Service
from knarr.api.core.validate_services import OLD_HINTS, TOPOLOGY_MODE, TRAFFIC_DISTRIBUTIONS
from knarr.api.discovery.v1 import Endpoint, EndpointHints, EndpointSlice, ForNode, ForZone
from knarr.api.quantity import parse_quantity
from knarr.api.types import Quantity, replace

ZONE = "topology.kubernetes.io/zone"
CONTROL_PLANE = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
OVERLOAD = 0.2
"""How far above the mean an endpoint's part of the traffic may be."""

ENABLED = "Topology Aware Hints has been enabled"
DISABLED = "Topology Aware Hints has been disabled"
NO_NODE_INFORMATION = "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes"
TOO_FEW = "Insufficient number of endpoints"
OVERLOADED = "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold"
NO_ZONE = "One or more endpoints do not have a zone specified"
NO_HINTS = "No hints allocated for zones"

Shares = Mapping[str, float]
"""Of the cluster's CPUs, by zone."""
Hinted = dict[str, int]
"""How many endpoints are hinted for each zone."""


class Slices(Struct):
    """The slices of a Service and family: what is about to be written, and what is not."""

    create: list[EndpointSlice] = field(default_factory=list)
    update: list[EndpointSlice] = field(default_factory=list)
    unchanged: list[EndpointSlice] = field(default_factory=list)


class Share(Struct):
    """Of a zone: how many endpoints it must have, may have, and should have."""

    minimum: int
    maximum: int
    desired: float


def wants_shares(service: Service) -> bool:
    """By the annotation; the older one wins where both are."""
    annotations = service.metadata.annotations
    return annotations.get(OLD_HINTS, annotations.get(TOPOLOGY_MODE, "")) in ("Auto", "auto")


def distribution_of(service: Service) -> str | None:
    wanted = service.spec.traffic_distribution if service.spec else None
    return wanted if wanted in TRAFFIC_DISTRIBUTIONS and not wants_shares(service) else None


def hint_near(slices: Slices, distribution: str | None) -> None:
    """Hints as trafficDistribution asks for them; None takes all away."""
    if distribution is None:
        _rewrite(slices, lambda endpoint: None)
    else:
        to_node = distribution == "PreferSameNode"
        _rewrite(slices, lambda endpoint: _near(endpoint, to_node))


def _rewrite(slices: Slices, hints_for: Callable[[Endpoint], EndpointHints | None]) -> None:
    for slice_ in (*slices.create, *slices.update):
        slice_.endpoints = [_with_hints(each, hints_for(each)) for each in slice_.endpoints]
    stay = []
    for slice_ in slices.unchanged:
        endpoints = [_with_hints(each, hints_for(each)) for each in slice_.endpoints]
        if endpoints == slice_.endpoints:
            stay.append(slice_)
        else:
            slices.update.append(replace(slice_, endpoints=endpoints))
    slices.unchanged = stay


def _with_hints(endpoint: Endpoint, hints: EndpointHints | None) -> Endpoint:
    return endpoint if endpoint.hints == hints else replace(endpoint, hints=hints)


def _near(endpoint: Endpoint, to_node: bool) -> EndpointHints | None:
    if not _is_ready(endpoint):
        return None
    zones = [ForZone(name=endpoint.zone)] if endpoint.zone is not None else []
    nodes = [ForNode(name=endpoint.node_name)] if to_node and endpoint.node_name is not None else []
    return EndpointHints(for_zones=zones, for_nodes=nodes) if zones or nodes else None


# Shares by CPU


def facts_of(node: Node) -> tuple[object, ...]:
    """All of a node that shares depend on."""
    labels = node.metadata.labels
    return labels.get(ZONE), [label in labels for label in CONTROL_PLANE], _node_is_ready(node), _cpu(node)


def shares_of(nodes: Iterable[Node]) -> Shares | None:
    """None when too little is known: a node without a zone or CPUs, or fewer than two zones."""
    cpus: dict[str, int] = {}
    for node in nodes:
        labels = node.metadata.labels
        if any(label in labels for label in CONTROL_PLANE) or not _node_is_ready(node):
            continue
        zone, cpu_m = labels.get(ZONE), _cpu_m(node)
        if not zone or not cpu_m:
            return None
        cpus[zone] = cpus.get(zone, 0) + cpu_m
    whole = sum(cpus.values())
    return {zone: cpu_m / whole for zone, cpu_m in sorted(cpus.items())} if len(cpus) > 1 else None


def hint_shares(slices: Slices, shares: Shares | None) -> tuple[Hinted, str]:
    """Hints in proportion; answers how many each zone has, or why there are none."""
    ready = sum(_is_ready(each) for slice_ in _all(slices) for each in slice_.endpoints)
    zones, fault = shared_out(shares, ready)
    if zones is None:
        hint_near(slices, None)
        return {}, fault
    hinted = _take_over(slices, zones)
    written = [*slices.create, *slices.update]
    if any(_is_ready(each) and not each.zone for slice_ in written for each in slice_.endpoints):
        hint_near(slices, None)
        return {}, NO_ZONE
    for slice_ in written:
        slice_.endpoints = [_with_hints(each, _near(each, to_node=False)) for each in slice_.endpoints]
        for each in slice_.endpoints:
            if _is_ready(each):
                hinted[each.zone or ""] = hinted.get(each.zone or "", 0) + 1
    _move(written, *_gifts(zones, hinted), hinted)
    if not hinted:
        hint_near(slices, None)
        return {}, NO_HINTS
    return hinted, ""


def shared_out(shares: Shares | None, endpoints: int) -> tuple[dict[str, Share] | None, str]:
    """How many endpoints each zone gets; None with the reason when some would bear too much."""
    if shares is None:
        return None, NO_NODE_INFORMATION
    counts = f" ({endpoints} endpoints, {len(shares)} zones)"
    if len(shares) > endpoints:
        return None, TOO_FEW + counts
    zones, left = {}, endpoints
    for zone, share in shares.items():
        desired = share * endpoints
        minimum = math.ceil(desired * (1 / (1 + OVERLOAD)))
        zones[zone] = Share(minimum, 0, max(desired, float(minimum)))
        left -= minimum
        if left < 0:
            return None, OVERLOADED + counts
    for each in zones.values():
        each.maximum = each.minimum + left
    return zones, ""


def is_overloaded(hinted: Hinted, shares: Shares | None) -> bool:
    """Whether the zones, as they are now, would want other hints than a Service has."""
    if not hinted:
        return False
    if not shares:
        return True
    total = sum(hinted.values())
    return any(hinted.get(zone, 0) < math.ceil(total * share * (1 / (1 + OVERLOAD))) for zone, share in shares.items())


def _take_over(slices: Slices, zones: Mapping[str, Share]) -> Hinted:
    """What the slices that stay have given to whom; those whose hints don't fit any more are to be written."""
    hinted: Hinted = {}
    stay = []
    for slice_ in slices.unchanged:
        inside = _hinted_in(slice_, hinted, zones)
        if inside is None:
            slices.update.append(replace(slice_, endpoints=list(slice_.endpoints)))
            continue
        stay.append(slice_)
        for zone, count in inside.items():
            hinted[zone] = hinted.get(zone, 0) + count
    slices.unchanged = stay
    return hinted


def _hinted_in(slice_: EndpointSlice, hinted: Hinted, zones: Mapping[str, Share]) -> Hinted | None:
    found: Hinted = {}
    for endpoint in slice_.endpoints:
        if not _is_ready(endpoint):
            continue
        names = [zone.name for zone in endpoint.hints.for_zones] if endpoint.hints else []
        if not names or any(name not in zones for name in names):
            return None
        for name in names:
            found[name] = found.get(name, 0) + 1
    if any(count + hinted.get(zone, 0) > zones[zone].maximum for zone, count in found.items()):
        return None
    return found


def _gifts(zones: Mapping[str, Share], hinted: Hinted) -> tuple[Hinted, Hinted]:
    """How many endpoints zones give away, and how many they get: whole ones, most to where most is missing."""
    giving = {zone: hinted.get(zone, 0) - share.desired for zone, share in zones.items()}
    wanting = {zone: -surplus for zone, surplus in giving.items()}
    gives, gets = Hinted(), Hinted()
    while True:
        giver, surplus = max(giving.items(), key=lambda item: item[1])
        taker, lack = max(wanting.items(), key=lambda item: item[1])
        if (surplus < 1 and lack < 1) or surplus < 0.5 or lack < 0.5:
            return gives, gets
        gives[giver], gets[taker] = gives.get(giver, 0) + 1, gets.get(taker, 0) + 1
        giving[giver], wanting[taker] = surplus - 1, lack - 1


def _move(slices: Sequence[EndpointSlice], gives: Hinted, gets: Hinted, hinted: Hinted) -> None:
    for slice_ in slices:
        for index, endpoint in enumerate(slice_.endpoints):
            giver = endpoint.zone or ""
            taker = next((zone for zone, count in gets.items() if count), None)
            if taker is None or not _is_ready(endpoint) or not gives.get(giver):
                continue
            slice_.endpoints[index] = replace(endpoint, hints=EndpointHints(for_zones=[ForZone(name=taker)]))
            gives[giver] -= 1
            gets[taker] -= 1
            hinted[giver] -= 1
            hinted[taker] = hinted.get(taker, 0) + 1


def _all(slices: Slices) -> list[EndpointSlice]:
    return [*slices.create, *slices.update, *slices.unchanged]


def _is_ready(endpoint: Endpoint) -> bool:
    return bool(endpoint.conditions and endpoint.conditions.ready)


def _node_is_ready(node: Node) -> bool:
    conditions = node.status.conditions if node.status else []
    return any(each.type == "Ready" and each.status == "True" for each in conditions)


def _cpu(node: Node) -> Quantity | None:
    return node.status.allocatable.get("cpu") if node.status else None


def _cpu_m(node: Node) -> int:
    amount = _cpu(node)
    return int(parse_quantity(amount) * 1000) if amount else 0
