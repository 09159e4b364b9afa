"""What a user has configured about load balancers, read into the loop and its provider."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

import msgspec

from knarr.api.core.node_agents import KUBELET_PORT
from knarr.api.networking.v1 import Ingress, IngressClass
from knarr.cli.machine import NodeSettings
from knarr.client.client import Client
from knarr.client.controller import Controller
from knarr.client.informer import Informers
from knarr.clock import Clock
from knarr.config import Config, ConfigError, read_yaml
from knarr.edge.ingress.classes import is_ours
from knarr.edge.loadbalancer import LoadBalancers
from knarr.edge.providers.contract import Provider
from knarr.edge.providers.local import Held, Local, Pool, parse_pools

if TYPE_CHECKING:
    from knarr.edge.announcer import Announcer
    from knarr.edge.port_watch import PortWatch


def load_balancers(
    config: Config, client_of: Callable[[str], Client], informers: Informers, clock: Clock
) -> list[Controller]:
    """The loop; none where no load balancers are wanted. Raises ConfigError."""
    provider = provider_of(config, informers, clock)
    if provider is None:
        return []
    return [LoadBalancers(client_of(LoadBalancers.name), informers, clock, provider, config.cluster_name)]


def provider_of(config: Config, informers: Informers, clock: Clock) -> Provider | None:
    """The provider that is configured. A cloud's is imported only where it is used."""
    if config.load_balancer == "none":
        return None
    if config.load_balancer == "local":
        reserved = {(config.listen_port, "TCP"), (KUBELET_PORT, "TCP")}
        local = Local(informers, clock, pools(config), reserved, held(config, informers))
        informers.of(Ingress).add_handler(lambda old, new: local.retry())
        return local
    return CLOUDS[config.load_balancer].provider(cloud_settings(config))


class Cloud(msgspec.Struct, frozen=True):
    """Where a cloud's provider is, which library it needs, and what it is called there."""

    module: str
    name: str
    library: str

    @property
    def settings(self) -> type[msgspec.Struct]:
        kind: type[msgspec.Struct] = getattr(import_module(self.module), f"{self.name}Settings")
        return kind

    def provider(self, settings: msgspec.Struct) -> Provider:
        made: Provider = getattr(import_module(self.module), self.name)(settings)
        return made


CLOUDS = {
    "aws": Cloud("knarr.edge.providers.aws", "Aws", "boto3"),
    "gcp": Cloud("knarr.edge.providers.gcp", "Gcp", "google.cloud.compute_v1"),
    "azure": Cloud("knarr.edge.providers.azure", "Azure", "azure.mgmt.network"),
}
"""A new cloud gets a line here."""


def held(config: Config, informers: Informers) -> Held:
    """Ingress has its ports as soon as there is one to serve; a Service that had them before keeps them."""
    ports = {port for port in (config.ingress_http_port, config.ingress_https_port) if port}
    ingresses, classes = informers.of(Ingress), informers.of(IngressClass)

    def holder(port: int, protocol: str) -> str:
        if protocol != "TCP" or port not in ports or config.ingress_class == "none":
            return ""
        return "that of Ingress" if any(is_ours(each, classes) for each in ingresses.all()) else ""

    return holder


def announcer(settings: NodeSettings, client: Client, informers: Informers, clock: Clock) -> Announcer | None:
    """The node's; none where there are no pools."""
    if not settings.load_balancer_pools:
        return None
    from knarr.edge.announcer import Announcer

    return Announcer(
        client,
        informers,
        clock,
        node_name=settings.name,
        pools=parse_pools(settings.load_balancer_pools),
        record=settings.balancer_record,
    )


def port_watch(settings: NodeSettings, client: Client, informers: Informers, clock: Clock) -> PortWatch | None:
    """The node's; none where Services are not at the nodes' own ports."""
    if settings.load_balancer != "local" or settings.load_balancer_pools:
        return None
    from knarr.edge.port_watch import PortWatch

    return PortWatch(client, informers, clock, node_name=settings.name)


def cloud_settings(config: Config) -> msgspec.Struct:
    """What is set up for the cloud that is configured. Raises ConfigError."""
    cloud = CLOUDS[config.load_balancer]
    if not _is_there(cloud.library):
        wanted = f"pip install 'knarr[{config.load_balancer}]'"
        raise ConfigError([f"loadBalancer: {config.load_balancer} needs {cloud.library}: {wanted}"])
    try:
        return msgspec.convert(read_yaml(config.cloud_config) if config.cloud_config else {}, cloud.settings)
    except ConfigError as error:
        raise ConfigError([f"cloudConfig: {problem}" for problem in error.problems]) from None
    except msgspec.ValidationError as error:
        raise ConfigError([f"cloudConfig: {config.cloud_config}: {error}"]) from None


def pools(config: Config) -> tuple[Pool, ...]:
    """Raises ConfigError."""
    try:
        found = parse_pools(config.load_balancer_pools)
    except ValueError as error:
        raise ConfigError([f"loadBalancerPools: {error}"]) from None
    for cidr in (*config.cluster_cidrs, *config.service_cidrs):
        network = ipaddress.ip_network(cidr)
        for pool in found:
            if network.network_address in pool or pool.first in network:
                raise ConfigError([f"loadBalancerPools: {pool} overlaps {cidr}, the range of pods or Services"])
    return found


def check(config: Config) -> None:
    """Tell what is wrong before anything starts. Raises ConfigError."""
    pools(config)
    if config.load_balancer not in ("local", "none"):
        cloud_settings(config)


def _is_there(library: str) -> bool:
    """It is installed; nothing of it is run but the packages that it is in."""
    try:
        return find_spec(library) is not None
    except ModuleNotFoundError:
        return False
