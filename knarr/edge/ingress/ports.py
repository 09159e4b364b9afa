"""Which of the ports that are wanted can be had.

Envoy shares a port with whoever lets it, so it is looked up before whether one is free. And the kernel's rules lead a
port elsewhere, before Envoy would see anything, where a Service of type LoadBalancer has this machine's address and it.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterable, Sequence

from msgspec.structs import replace

from knarr.api.core.v1 import Service
from knarr.client.informer import Informer, key_of
from knarr.edge.ingress.envoy import HTTP, HTTPS, METRICS, Serving

log = logging.getLogger(__name__)

SERVICES_BY_BALANCED_PORT = "address and port of a load balancer"


class Ports:
    """Of one Envoy."""

    def __init__(self, serving: Serving, addresses: Sequence[str], services: Informer[Service]) -> None:
        """`addresses` are this machine's."""
        self.wanted = serving
        self._addresses = tuple(addresses)
        self._services = services
        self._taken: dict[str, str] = {}
        """Listeners that can't be, and why."""
        services.add_index(SERVICES_BY_BALANCED_PORT, balanced_ports)

    def free(self, is_listening: Callable[[str], bool]) -> Serving:
        """Where to listen: without the ports that somebody else has. Where it listens already it may go on."""
        for name, port in self._ports().items():
            if port and (name in self._taken or self._led_away(name) or not is_listening(name)):
                self._taken.pop(name, None)
                if fault := self._fault(name):
                    self._taken[name] = fault
                    log.warning("Ingress can't listen for %s on port %d: %s", name, port, fault)
        return replace(self.wanted, **{f"{name}_port": 0 for name in self._taken})

    def problem(self) -> str:
        """In words, for people who have an Ingress; empty for none."""
        ports = self._ports()
        return ", ".join(f"port {ports[name]}: {self._taken[name]}" for name in (HTTP, HTTPS) if name in self._taken)

    def any_freed(self) -> bool:
        """One that was taken can be had now."""
        return any(not self._fault(name) for name in self._taken)

    def concerned_by(self, *services: Service) -> bool:
        """Whether the load balancer of one of these has, or had, a port of ours."""
        balanced = {place for each in services for place in balanced_ports(each)}
        return bool(balanced.intersection(self._places(HTTP) + self._places(HTTPS)))

    def _ports(self) -> dict[str, int]:
        wanted = self.wanted
        return {HTTP: wanted.http_port, HTTPS: wanted.https_port, METRICS: wanted.metrics_port}

    def _fault(self, name: str) -> str:
        """Why a port can't be had; empty when it can."""
        address = "127.0.0.1" if name == METRICS else self.wanted.address
        return self._led_away(name) or fault_of(address, self._ports()[name])

    def _led_away(self, name: str) -> str:
        """Rules of the kernel that lead a port of ours elsewhere, in words; empty where there are none."""
        for place in self._places(name):
            for service in self._services.by_index(SERVICES_BY_BALANCED_PORT, place):
                return f"it leads to the Service {key_of(service)} (type LoadBalancer) at {place.partition(' ')[0]}"
        return ""

    def _places(self, name: str) -> list[str]:
        """Address and port of each place where others meet a listener."""
        if name == METRICS:
            return []
        return [f"{address} {self._ports()[name]}" for address in self._addresses]


def balanced_ports(service: Service) -> Iterable[str]:
    """What the rules of its load balancer take away from whoever listens there."""
    spec, balancer = service.spec, service.status.load_balancer if service.status else None
    if spec is None or spec.type != "LoadBalancer" or balancer is None:
        return ()
    ports = [port.port for port in spec.ports if (port.protocol or "TCP") == "TCP"]
    return [f"{ingress.ip} {port}" for ingress in balancer.ingress if ingress.ip for port in ports]


def fault_of(address: str, port: int) -> str:
    """Why a port can't be listened on; empty when it can."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError as error:
            return os.strerror(error.errno or 0)
    return ""


def every_address() -> str:
    """All addresses of this machine, of both families where it has both."""
    return "::" if os.path.exists("/proc/net/if_inet6") and _has_ipv6() else "0.0.0.0"


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            probe.bind(("::", 0))
    except OSError:
        return False
    return True
