"""What a user can set: one `Config`, filled from defaults, then from a YAML file, then from flags.

Each field is `camelCase` in the file and `--kebab-case` on the command line, with the same meaning; the
description beside the field is what `knarr up --help` prints, and docs/configuration.md lists them all.
Whatever is unknown, of a wrong type or impossible is refused before anything starts, with the field's path.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

NODE_PORTS_MIN, NODE_PORTS_MAX = 1, 65535
INTERFACE_NAME_LENGTH_MAX = 15
"""IFNAMSIZ of the kernel, less the closing NUL."""
SIM_NODES_MAX = 5000
"""What upstream supports in one cluster; hollow nodes above that measure nothing that exists."""
NODE_PREFIX_LENGTHS = {4: 24, 6: 64}
"""Of a node's range of pod addresses by family, as upstream's --node-cidr-mask-size-ipv4 and -ipv6."""
SERVICE_PREFIX_LENGTHS = {4: (12, 28), 6: (64, 124)}
"""The largest and the smallest range of cluster IPs by family; IPv6 as KEP-1880 has it."""
FAMILIES_MAX = 2
DNS_PORT = 53
EXAMPLE = {4: "10.96.0.0/16", 6: "fd00:96::/112"}
DRAIN_TIMEOUT_S_MAX = 300
OPTIONAL_ADMISSION_PLUGINS = ("OwnerReferencesPermissionEnforcement",)
DISPENSABLE_ADMISSION_PLUGINS = ("DenyServiceExternalIPs",)
"""On by default, and may be switched off."""
FILES = ("kubeconfig", "token_auth_file", "authentication_config", "scheduler_config", "cloud_config")
"""Settings that name a file. Who runs in the background is in another folder than who started it."""
CONFIG_FILE_BYTES_MAX = 1 << 20
NOT_EXCLUDED = "!node.kubernetes.io/exclude-from-external-load-balancers"
"""Upstream's label says that nobody from outside is to be led to a node."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class ConfigError(Exception):
    """A configuration that can't be used; `problems` says what is wrong, one line a field."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def default_data_dir() -> str:
    """/var/lib/knarr for root; below the user's XDG data folder otherwise."""
    if os.geteuid() == 0:
        return "/var/lib/knarr"
    return str(Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "knarr")


def default_node_name() -> str:
    """The host's name in lower case, as the kubelet registers itself."""
    return socket.gethostname().lower()


class Config(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Everything that `knarr up` can be told."""

    data_dir: Annotated[str, Meta(description="folder for the store, certificates, images, containers and logs")] = (
        msgspec.field(default_factory=default_data_dir)
    )
    kubeconfig: Annotated[
        str,
        Meta(
            description="file that gets the context 'knarr'; default: $KUBECONFIG, else ~/.kube/config",
        ),
    ] = ""
    listen: Annotated[str, Meta(description="address and port of the API server; port 0 takes a free one")] = (
        "0.0.0.0:6443"
    )
    advertise_address: Annotated[
        str,
        Meta(description="address at which pods reach the API server; default: of the default route"),
    ] = ""
    runtime: Annotated[
        Literal["oci", "sim"],
        Meta(description="oci runs containers; sim runs hollow nodes on which nothing really runs"),
    ] = "oci"
    sim_nodes: Annotated[int, Meta(description="how many hollow nodes the sim runtime plays")] = 1
    proxy_mode: Annotated[
        Literal["auto", "nftables", "iptables"],
        Meta(description="kernel interface for service rules; auto takes nftables where nft is installed"),
    ] = "auto"
    node_name: Annotated[str, Meta(description="name of this machine's node; default: the host name")] = msgspec.field(
        default_factory=default_node_name
    )
    provider_id: Annotated[
        str, Meta(description="this machine's name at its cloud, such as aws:///eu-west-1a/i-0123 (spec.providerID)")
    ] = ""
    cluster_cidr: Annotated[
        str, Meta(description="address range of pods; for dual-stack one of each family, separated by a comma")
    ] = "10.244.0.0/16"
    service_cidr: Annotated[
        str, Meta(description="address range of services; of the families of clusterCidr, in the same order")
    ] = "10.96.0.0/16"
    cluster_dns: Annotated[
        str,
        Meta(description="address of the cluster's DNS service, inside the service range; one, or one of each family"),
    ] = "10.96.0.10"
    cluster_domain: Annotated[str, Meta(description="domain that names in the cluster end in")] = "cluster.local"
    dns_forward: Annotated[
        str,
        Meta(description="resolvers for names outside of the cluster, separated by commas; default: this machine's"),
    ] = ""
    dns_stub_domains: Annotated[
        str,
        Meta(description="domains with resolvers of their own: corp.example=10.0.0.53+10.0.0.54:5353,acme.test=…"),
    ] = ""
    node_port_range: Annotated[str, Meta(description="ports for NodePort services, first-last")] = "30000-32767"
    nodeport_addresses: Annotated[
        str,
        Meta(
            description="where node ports are answered: primary (the node's own addresses) and ranges, separated by "
            "commas; default: primary,127.0.0.0/8 with nftables, everywhere with iptables"
        ),
    ] = ""
    bridge_name: Annotated[str, Meta(description="network interface that joins the pods of this machine")] = "knarr0"
    drain_timeout: Annotated[
        int,
        Meta(description="seconds that pods wait for data planes at most, before their end and into service; 0: none"),
    ] = 10
    token_auth_file: Annotated[
        str, Meta(description='file of static tokens, lines of token,user,uid,"group1,group2"')
    ] = ""
    authentication_config: Annotated[
        str, Meta(description="file that names OIDC issuers (AuthenticationConfiguration of apiserver.config.k8s.io)")
    ] = ""
    enable_admission_plugins: Annotated[
        str,
        Meta(description="admission plugins to be on besides the default ones, separated by commas"),
    ] = ""
    disable_admission_plugins: Annotated[
        str,
        Meta(description="default admission plugins to be off, separated by commas"),
    ] = ""
    scheduler_config: Annotated[
        str,
        Meta(description="file that sets up the scheduler (KubeSchedulerConfiguration of kubescheduler.config.k8s.io)"),
    ] = ""
    load_balancer: Annotated[
        Literal["local", "none", "aws", "gcp", "azure"],
        Meta(description="who gives Services of type LoadBalancer their load balancer"),
    ] = "local"
    load_balancer_pools: Annotated[
        str,
        Meta(description="addresses that the local load balancer gives to Services, ranges separated by commas"),
    ] = ""
    cloud_config: Annotated[str, Meta(description="file that sets up the load balancers of a cloud")] = ""
    cluster_name: Annotated[str, Meta(description="name of the cluster, on what is made for it in a cloud")] = (
        "kubernetes"
    )
    ingress_class: Annotated[
        Literal["default", "named", "none"],
        Meta(description="the IngressClass knarr: the default one, one to be named, or no Ingress served at all"),
    ] = "default"
    ingress_http_port: Annotated[int, Meta(description="port for Ingress over HTTP; 0: none")] = 80
    ingress_https_port: Annotated[int, Meta(description="port for Ingress over HTTPS; 0: none")] = 443
    ingress_metrics_port: Annotated[int, Meta(description="port on loopback for Envoy's metrics; 0: none")] = 0
    ingress_nodes: Annotated[
        str, Meta(description="label selector of the nodes that serve Ingress; empty: all of them")
    ] = NOT_EXCLUDED
    verbosity: Annotated[int, Meta(description="0 says what a user needs, 2 each step, 4 each request")] = 0

    @property
    def listen_host(self) -> str:
        return split_address(self.listen)[0]

    @property
    def listen_port(self) -> int:
        return split_address(self.listen)[1]

    @property
    def node_ports(self) -> tuple[int, int]:
        """First and last port for NodePort services."""
        first, last = self.node_port_range.split("-")
        return int(first), int(last)

    @property
    def cluster_cidrs(self) -> list[str]:
        """The pods' ranges: one, or one of each family. The first family is the cluster's own."""
        return [_canonical(each, ipaddress.ip_network) for each in _listed(self.cluster_cidr)]

    @property
    def service_cidrs(self) -> list[str]:
        """The Services' ranges, family by family as the pods'."""
        return [_canonical(each, ipaddress.ip_network) for each in _listed(self.service_cidr)]

    @property
    def cluster_dns_addresses(self) -> list[str]:
        return [_canonical(each, ipaddress.ip_address) for each in _listed(self.cluster_dns)]

    @property
    def node_port_addresses(self) -> list[str]:
        """Where node ports are answered; empty for the mode's default."""
        return _listed(self.nodeport_addresses)

    @property
    def dns_resolvers(self) -> list[tuple[str, int]]:
        """Address and port of each resolver that is set; none means those of this machine."""
        return [resolver(each) for each in _listed(self.dns_forward)]

    @property
    def dns_stub_resolvers(self) -> dict[str, list[tuple[str, int]]]:
        """By domain. ValueError when that isn't what is set."""
        found = {}
        for each in _listed(self.dns_stub_domains):
            domain, separator, resolvers = each.partition("=")
            if not separator or not _is_dns_name(domain):
                raise ValueError(f"must be domain=address, not {each!r}")
            found[domain] = [resolver(address) for address in resolvers.split("+")]
        return found

    @property
    def api_service_ip(self) -> str:
        """The `kubernetes` Service's address: the first of the (first) service range, as upstream has it."""
        return str(ipaddress.ip_network(self.service_cidrs[0])[1])

    @property
    def admission_plugins(self) -> list[str]:
        """Those to be on besides the default ones."""
        return _listed(self.enable_admission_plugins)

    @property
    def disabled_admission_plugins(self) -> list[str]:
        return _listed(self.disable_admission_plugins)

    @property
    def data_path(self) -> Path:
        return Path(self.data_dir)

    @property
    def node_ranges(self) -> list[list[str]]:
        """For each node its ranges of pod addresses, one of each family: a /24 or /64, smaller where many must fit."""
        families = [self._cut(ipaddress.ip_network(each)) for each in self.cluster_cidrs]
        return [[str(next(cut)) for cut in families] for _ in range(self.sim_nodes)]

    def _cut(self, cluster: Network) -> Iterator[Network]:
        wanted, needed = NODE_PREFIX_LENGTHS[cluster.version], cluster.prefixlen + (self.sim_nodes - 1).bit_length()
        return cluster.subnets(new_prefix=max(wanted, needed))


def load(file: str | None, flags: Mapping[str, object]) -> Config:
    """The configuration from a YAML file (None for none) with flags, by Python names, laid over it."""
    settings: dict[str, object] = dict(read_yaml(file)) if file is not None else {}
    names = {field.name: field.encode_name for field in msgspec.structs.fields(Config)}
    settings.update({names[name]: value for name, value in flags.items()})
    try:
        config = msgspec.convert(settings, Config)
    except msgspec.ValidationError as error:
        raise ConfigError([_readable(str(error))]) from None
    if problems := list(problems_of(config)):
        raise ConfigError(problems)
    named = {name: getattr(config, name) for name in FILES}
    return msgspec.structs.replace(config, **{name: os.path.abspath(path) for name, path in named.items() if path})


def problems_of(config: Config) -> Iterator[str]:
    """What a type can't say: ranges, formats, and fields that don't fit each other."""
    if not os.path.isabs(config.data_dir):
        yield f"dataDir: must be an absolute path, not {config.data_dir!r}"
    try:
        split_address(config.listen)
    except ValueError as error:
        yield f"listen: {error}"
    if config.advertise_address and not _is_address(config.advertise_address):
        yield f"advertiseAddress: must be an IP address, not {config.advertise_address!r}"
    if not 1 <= config.sim_nodes <= SIM_NODES_MAX:
        yield f"simNodes: must be 1 to {SIM_NODES_MAX}, not {config.sim_nodes}"
    if config.sim_nodes != 1 and config.runtime != "sim":
        yield "simNodes: only the sim runtime plays more than one node (runtime: sim)"
    if not _is_dns_name(config.node_name):
        yield f"nodeName: must be a DNS-1123 name, not {config.node_name!r}"
    if not _is_dns_name(config.cluster_domain):
        yield f"clusterDomain: must be a DNS-1123 name, not {config.cluster_domain!r}"
    yield from _range_problems(config)
    yield from _resolver_problems(config)
    yield from _node_port_problems(config.node_port_range)
    for each in config.node_port_addresses:
        if each != "primary" and not _parses(each, ipaddress.ip_network):
            yield f"nodeportAddresses: must be primary or ranges such as 192.168.0.0/16, not {each!r}"
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", config.bridge_name) or len(config.bridge_name) > INTERFACE_NAME_LENGTH_MAX:
        yield (
            f"bridgeName: must be an interface name of at most {INTERFACE_NAME_LENGTH_MAX} characters,"
            f" not {config.bridge_name!r}"
        )
    if not 0 <= config.drain_timeout <= DRAIN_TIMEOUT_S_MAX:
        yield f"drainTimeout: must be 0 to {DRAIN_TIMEOUT_S_MAX}, not {config.drain_timeout}"
    for name in config.admission_plugins:
        if name not in OPTIONAL_ADMISSION_PLUGINS:
            there = ", ".join(OPTIONAL_ADMISSION_PLUGINS)
            yield f"enableAdmissionPlugins: there is no plugin {name!r} that is off by default; there is {there}"
    for name in config.disabled_admission_plugins:
        if name not in DISPENSABLE_ADMISSION_PLUGINS:
            there = ", ".join(DISPENSABLE_ADMISSION_PLUGINS)
            yield f"disableAdmissionPlugins: there is no plugin {name!r} that can be switched off; there is {there}"
    if not re.fullmatch(r"[A-Za-z0-9]([-.A-Za-z0-9]{0,61}[A-Za-z0-9])?", config.cluster_name):
        yield f"clusterName: must be at most 63 letters, digits, '-' and '.', not {config.cluster_name!r}"
    if config.load_balancer_pools and config.load_balancer != "local":
        yield f"loadBalancerPools: only the local load balancer has pools, not {config.load_balancer}"
    if config.cloud_config and config.load_balancer in ("local", "none"):
        yield f"cloudConfig: only a load balancer of a cloud is set up by it, not {config.load_balancer}"
    yield from _ingress_problems(config)
    if not 0 <= config.verbosity <= 10:
        yield f"verbosity: must be 0 to 10, not {config.verbosity}"


def _ingress_problems(config: Config) -> Iterator[str]:
    ports = {
        "ingressHttpPort": config.ingress_http_port,
        "ingressHttpsPort": config.ingress_https_port,
        "ingressMetricsPort": config.ingress_metrics_port,
    }
    taken: dict[int, str] = {}
    for name, port in ports.items():
        if not 0 <= port <= 65535:
            yield f"{name}: must be 0 to 65535, not {port}"
        elif port and port in taken:
            yield f"{name}: {port} is the port of {taken[port]} already"
        taken[port] = name


def _range_problems(config: Config) -> Iterator[str]:
    ranges: dict[str, list[Network]] = {}
    for name, listed in (("clusterCidr", config.cluster_cidrs), ("serviceCidr", config.service_cidrs)):
        try:
            ranges[name] = [ipaddress.ip_network(text) for text in listed]
        except ValueError as error:
            yield f"{name}: must be a range such as {EXAMPLE[4]}, or one of each family: {error}"
            continue
        versions = [each.version for each in ranges[name]]
        if not 1 <= len(set(versions)) == len(versions) <= FAMILIES_MAX:
            yield f"{name}: must be one range, or one of each family such as {EXAMPLE[4]},{EXAMPLE[6]}, not {listed}"
            del ranges[name]
    pods, services = ranges.get("clusterCidr"), ranges.get("serviceCidr")
    for cluster in pods or ():
        if cluster.prefixlen > NODE_PREFIX_LENGTHS[cluster.version]:
            share = NODE_PREFIX_LENGTHS[cluster.version]
            yield f"clusterCidr: must be /{share} or larger, a node's share, not /{cluster.prefixlen}"
    for service in services or ():
        first, last = SERVICE_PREFIX_LENGTHS[service.version]
        if not first <= service.prefixlen <= last:
            yield f"serviceCidr: must be between /{first} and /{last}, not /{service.prefixlen}"
        for cluster in pods or ():
            if cluster.version == service.version and cluster.overlaps(service):
                yield f"serviceCidr: {service} overlaps clusterCidr {cluster}"
    if pods and services and [each.version for each in pods] != [each.version for each in services]:
        yield (
            f"serviceCidr: {config.service_cidr} must have the families of clusterCidr {config.cluster_cidr},"
            " in the same order"
        )
    yield from _dns_problems(config.cluster_dns_addresses, services)


def _dns_problems(listed: list[str], services: list[Network] | None) -> Iterator[str]:
    wrong = [each for each in listed if not _is_address(each)]
    for each in wrong:
        yield f"clusterDns: must be an IP address, not {each!r}"
    addresses = [ipaddress.ip_address(each) for each in listed if each not in wrong]
    versions = [each.version for each in addresses]
    if not wrong and not 1 <= len(set(versions)) == len(versions):
        yield f"clusterDns: must be one address, or one of each family, not {listed}"
        return
    for address in addresses if services else ():
        service = next((each for each in services or () if address in each), None)
        if service is None:
            yield f"clusterDns: {address} is not in serviceCidr {','.join(map(str, services or ()))}"
        elif address in (service[0], service[1], service[-1]):
            yield f"clusterDns: {address} is the range's own or the API server's address"


def _resolver_problems(config: Config) -> Iterator[str]:
    try:
        _ = config.dns_resolvers
    except ValueError as error:
        yield f"dnsForward: {error}"
    try:
        stubs = config.dns_stub_resolvers
    except ValueError as error:
        yield f"dnsStubDomains: {error}"
        return
    if config.cluster_domain in stubs:
        yield f"dnsStubDomains: {config.cluster_domain} is the cluster's own domain"


def _node_port_problems(text: str) -> Iterator[str]:
    match = re.fullmatch(r"(\d{1,5})-(\d{1,5})", text)
    if match is None:
        yield f"nodePortRange: must be first-last such as 30000-32767, not {text!r}"
        return
    first, last = int(match[1]), int(match[2])
    if not NODE_PORTS_MIN <= first <= last <= NODE_PORTS_MAX:
        yield f"nodePortRange: ports must rise and lie in {NODE_PORTS_MIN} to {NODE_PORTS_MAX}, not {text}"


def resolver(text: str) -> tuple[str, int]:
    """Address and port of a DNS resolver, "10.0.0.53", "10.0.0.53:5353", "fd00::53" or "[fd00::53]:5353"."""
    if _is_address(text):
        return text, DNS_PORT
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not _is_address(host) or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ValueError(f"must be an IP address, with or without a port, not {text!r}")
    return host, int(port)


def split_address(text: str) -> tuple[str, int]:
    """Host and port of "host:port", "[v6]:port" or ":port" (every address)."""
    host, separator, port = text.rpartition(":")
    if not separator or not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise ValueError(f"must be address:port, not {text!r}")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if host and not _is_address(host):
        raise ValueError(f"must have an IP address before the port, not {host!r}")
    return host or "0.0.0.0", int(port)


def joined_address(host: str, port: int) -> str:
    """Host and port as a URL has them: an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def read_yaml(path: str) -> dict[str, object]:
    """A file of settings. Raises ConfigError."""
    import yaml  # only a start with --config pays for it

    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from None
    if len(text) > CONFIG_FILE_BYTES_MAX:
        raise ConfigError([f"{path}: larger than {CONFIG_FILE_BYTES_MAX} bytes"])
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that is none
        raise ConfigError([f"{path}: not YAML: {error}"]) from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError([f"{path}: must be a mapping of settings"])
    return document


def _readable(message: str) -> str:
    """msgspec's "… - at `$.listen`" as "listen: …"; an unknown field as it names it."""
    text, _, path = message.partition(" - at `$")
    path = path.rstrip("`").lstrip(".")
    if match := re.fullmatch(r"Object contains unknown field `(.*)`", text):
        known = ", ".join(field.encode_name for field in msgspec.structs.fields(Config))
        return f"{match[1]}: unknown setting; there are {known}"
    return f"{path}: {text}" if path else text


def _listed(text: str) -> list[str]:
    """What a setting names, separated by commas."""
    return [each.strip() for each in text.split(",") if each.strip()]


def _canonical(text: str, parse: Callable[[str], object]) -> str:
    """As the API has it: IPv6 may be written in many ways (RFC 5952). What it can't be is for others to say."""
    try:
        return str(parse(text))
    except ValueError:
        return text


def _parses(text: str, parse: Callable[[str], object]) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


def _is_address(text: str) -> bool:
    return _parses(text, ipaddress.ip_address)


def _is_dns_name(text: str) -> bool:
    return len(text) <= 253 and all(_DNS_LABEL.fullmatch(label) for label in text.split("."))
