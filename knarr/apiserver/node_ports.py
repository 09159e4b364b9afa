"""The node ports of Services: chosen or given, each to one Service (the health-check port of a balancer too).

Those that nobody chose come from the upper part of the range first, so that whoever chooses from the lower part
seldom finds one taken (KEP-3668). Of a new Service, its ports of the same number share one: TCP and UDP 53 are reached
at one node port.
"""

from __future__ import annotations

from collections.abc import Iterator

from knarr.api.core.v1 import Service, ServiceSpec
from knarr.api.core.validate_services import needs_health_check_port
from knarr.api.errors import Cause, InternalError, Invalid, invalid
from knarr.clock import Clock
from knarr.store.contract import Store

PORTS = "ranges/nodeports//"
"""Keys of ports in use."""
WITH_NODE_PORTS = ("NodePort", "LoadBalancer")
CHOSEN_MIN, CHOSEN_MAX, CHOSEN_SHARE = 16, 128, 32
"""How many ports at the start of the range are left to those who choose: a 32nd of it, within these bounds."""


class NodePorts:
    """Gives a Service its node ports."""

    def __init__(self, store: Store, clock: Clock, first: int, last: int) -> None:
        self._store = store
        self._clock = clock
        self._first = first
        self._last = last

    async def settle(self, service: Service, spec: ServiceSpec, old: ServiceSpec | None) -> None:
        """Check the ports that were chosen, fill in the others. Raises Invalid, InternalError (none is left)."""
        taking = _Taking(service.metadata.name or "", _ports(old) if old else set())
        if spec.type in WITH_NODE_PORTS:
            if old is None:
                await self._first_ports(spec, taking)
            else:
                await self._changed_ports(spec, taking)
        if needs_health_check_port(spec) and not (old and needs_health_check_port(old)):
            await self._health_check_port(spec, taking)

    async def _first_ports(self, spec: ServiceSpec, taking: _Taking) -> None:
        shared: dict[int, int] = {}
        for index, port in enumerate(spec.ports):
            if not port.node_port and not _gives_ports(spec):
                continue
            if port.port not in shared:
                chosen = next((each.node_port for each in spec.ports if each.port == port.port and each.node_port), 0)
                if chosen:
                    await self._claim(chosen, f"spec.ports[{index}].nodePort", taking)
                shared[port.port] = port.node_port = chosen or await self._free(taking)
            elif not port.node_port:
                port.node_port = shared[port.port]
            elif port.node_port != shared[port.port]:
                await self._claim(port.node_port, f"spec.ports[{index}].nodePort", taking)

    async def _changed_ports(self, spec: ServiceSpec, taking: _Taking) -> None:
        for index, port in enumerate(spec.ports):
            if port.node_port:
                if port.node_port not in taking.held | taking.taken:
                    await self._claim(port.node_port, f"spec.ports[{index}].nodePort", taking)
            elif _gives_ports(spec):
                port.node_port = await self._free(taking)

    async def _health_check_port(self, spec: ServiceSpec, taking: _Taking) -> None:
        if not (chosen := spec.health_check_node_port):
            spec.health_check_node_port = await self._free(taking)
            return
        # Upstream answers 500 here, for what is the client's mistake.
        prefix = f"failed to allocate requested HealthCheck NodePort {chosen}: "
        await self._claim(chosen, "spec.healthCheckNodePort", taking, prefix)

    async def _claim(self, port: int, path: str, taking: _Taking, prefix: str = "") -> None:
        if not self._first <= port <= self._last:
            detail = "provided port is not in the valid range. The range of valid ports is "
            raise taking.refused(invalid(path, port, f"{prefix}{detail}{self._first}-{self._last}"))
        if port in taking.taken or await self._store.get(f"{PORTS}{port}"):
            raise taking.refused(invalid(path, port, f"{prefix}provided port is already allocated"))
        taking.taken.add(port)

    async def _free(self, taking: _Taking) -> int:
        for port in self._tried():
            if port not in taking.held | taking.taken and not await self._store.get(f"{PORTS}{port}"):
                taking.taken.add(port)
                return port
        raise InternalError("Internal error occurred: failed to allocate a nodePort: range is full")

    def _tried(self) -> Iterator[int]:
        """The upper part from somewhere on, round once; then the lower part."""
        start = self._first + left_to_choosers(self._last - self._first + 1)
        for first, last in ((start, self._last), (self._first, start - 1)):
            if first <= last:
                begin: int = self._clock.random.randrange(first, last + 1)
                yield from range(begin, last + 1)
                yield from range(first, begin)


class _Taking:
    """What one write holds, and takes besides."""

    def __init__(self, name: str, held: set[int]) -> None:
        self._name = name
        self.held = held
        self.taken: set[int] = set()

    def refused(self, cause: Cause) -> Invalid:
        return Invalid.of("", "Service", self._name, [cause])


def left_to_choosers(size: int) -> int:
    """Ports at the start of a range of that size that are given out last."""
    return 0 if size <= CHOSEN_MIN else min(max(size // CHOSEN_SHARE, CHOSEN_MIN), CHOSEN_MAX)


def held_ports(spec: ServiceSpec) -> set[int]:
    """All ports of the nodes that a Service has taken."""
    ports = _ports(spec)
    if needs_health_check_port(spec) and spec.health_check_node_port:
        ports.add(spec.health_check_node_port)
    return ports


def _ports(spec: ServiceSpec) -> set[int]:
    return {port.node_port for port in spec.ports if port.node_port} if spec.type in WITH_NODE_PORTS else set()


def _gives_ports(spec: ServiceSpec) -> bool:
    return spec.type == "NodePort" or spec.allocate_load_balancer_node_ports is not False
