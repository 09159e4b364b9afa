"""Standard Load Balancers of Azure, by azure-mgmt-network and azure-identity (`pip install knarr[azure]`).

A virtual machine can be behind one public and one internal load balancer, so all Services of a cluster share these two:
`<cluster>` and `<cluster>-internal`. A Service has a frontend, probes and rules in one of them, a public address of its
own, and rules in the nodes' network security group; all are named by its uid. The backend pool holds the addresses of
all nodes. Packets come to the nodes with the load balancer's address (floating IP), so it is the service rules that
take them (ipMode VIP); node ports only serve probes.

A load balancer is written as a whole, and only where nobody has changed it meanwhile (etag). The SDK blocks: each call
of the contract runs in a thread of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from knarr.api.core.node_agents import KUBELET_PORT
from knarr.api.core.v1 import LoadBalancerIngress
from knarr.edge.providers.blocking import BlockingProvider, T
from knarr.edge.providers.contract import (
    Ingress,
    LoadBalancer,
    Port,
    ProviderFailure,
    Target,
    quiet,
    without_secrets,
)

ANNOTATION = "service.beta.kubernetes.io/azure-"
SERVICE_TAG, CLUSTER_TAG = "k8s-azure-service", "k8s-azure-cluster-name"
POOL = "nodes"
PRIORITY_MIN, PRIORITY_MAX = 500, 4096
"""Of rules of a network security group."""
OPERATION_S_MAX = 300.0
PROTOCOLS = {"TCP": "Tcp", "UDP": "Udp"}
PROBE_S, PROBES = 5, 2
IDLE_MINUTES = 4

Json = dict[str, Any]


class AzureSettings(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The file that cloudConfig names."""

    subscription: str
    resource_group: str
    location: str
    virtual_network: str
    """Name of the nodes' network, in the same resource group, or its whole id."""
    subnet: str
    """Of that network; where internal load balancers have their addresses."""
    security_group: str
    """Name of the nodes' network security group."""


class Azure(BlockingProvider):
    """The provider `azure`. `client` is a NetworkManagementClient; by default one with the environment's identity."""

    name = "azure"
    load_balancer_class = "knarr.dev/azure"

    def __init__(self, settings: AzureSettings, client: Any = None) -> None:
        self._settings = settings
        self._given = client
        self._one_at_a_time = asyncio.Lock()
        """All Services share one load balancer: who writes it reads it first."""
        quiet("azure", "msal", "urllib3", "requests")

    async def close(self) -> None:
        if self._given is not None:
            self._given.close()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        async with self._one_at_a_time:
            return await super()._in_thread(work)

    def _told(self, error: Exception) -> Exception | None:
        from azure.core.exceptions import AzureError

        text = f"Azure: {getattr(error, 'message', '') or error}"
        return ProviderFailure(without_secrets(text)) if isinstance(error, AzureError) else None

    @property
    def _client(self) -> Any:
        if self._given is None:
            from azure.identity import DefaultAzureCredential
            from azure.mgmt.network import NetworkManagementClient

            self._given = NetworkManagementClient(DefaultAzureCredential(), self._settings.subscription)
        return self._given

    # The contract, blocking

    def _status(self, balancer: LoadBalancer) -> Ingress | None:
        name, parts = balancer.unique_name, bool(self._security_rules(balancer.unique_name))
        for internal in (False, True):
            there = self._shared(balancer, internal)
            frontend = _frontend(there, name) if there else None
            if frontend is not None:
                address = self._address_of(frontend)
                return _ingress(address) if address else ()
        return () if parts or self._public_address(name) else None

    def _ensure(self, balancer: LoadBalancer, nodes: Sequence[Target]) -> Ingress:
        check_wishes(balancer)
        name, internal = balancer.unique_name, is_internal(balancer)
        self._take_out(balancer, not internal)
        frontend: Json = {"name": name, "properties": self._frontend(balancer, internal)}
        there = self._shared(balancer, internal)
        wanted = with_service(there or {}, balancer, frontend, self._shared_id(balancer, internal))
        wanted["backendAddressPools"] = [self._pool(nodes)]
        self._write(balancer, internal, there, wanted)
        if internal:
            self._remove_public_address(name)
        written = self._shared(balancer, internal)
        made = _frontend(written, name) if written else None
        address = self._address_of(made) if made else ""
        if not address:
            return ()
        self._match_security_rules(balancer, address)
        return _ingress(address)

    def _delete(self, balancer: LoadBalancer) -> None:
        for internal in (False, True):
            self._take_out(balancer, internal)
        for rule in self._security_rules(balancer.unique_name):
            self._finished(self._client.security_rules.begin_delete(*self._security_group, rule["name"]))
        self._remove_public_address(balancer.unique_name)

    # The shared load balancer

    def _shared(self, balancer: LoadBalancer, internal: bool) -> Json | None:
        """Its properties as Azure has them, and its etag; None where there is none."""
        found = self._found(lambda: self._client.load_balancers.get(self._group, shared_name(balancer, internal)))
        return None if found is None else {**found.get("properties", {}), "etag": found.get("etag")}

    def _shared_id(self, balancer: LoadBalancer, internal: bool) -> str:
        return self._id("loadBalancers", shared_name(balancer, internal))

    def _write(self, balancer: LoadBalancer, internal: bool, there: Json | None, wanted: Json) -> None:
        """Unless it is so already."""
        if there is not None and _has(there, wanted):
            return
        body = {
            "location": self._settings.location,
            "sku": {"name": "Standard"},
            "tags": {CLUSTER_TAG: balancer.cluster},
            "properties": wanted,
        }
        # Azure takes a whole load balancer; a change of somebody else's in between must not be undone.
        condition: Json = {"headers": {"If-Match": there["etag"]}} if there else {"headers": {"If-None-Match": "*"}}
        name = shared_name(balancer, internal)
        self._finished(self._client.load_balancers.begin_create_or_update(self._group, name, body, **condition))

    def _take_out(self, balancer: LoadBalancer, internal: bool) -> None:
        """What the Service has in a load balancer; the last one takes the load balancer along."""
        there = self._shared(balancer, internal)
        if there is None or not _is_in(there, balancer.unique_name):
            return
        left = without_service(there, balancer.unique_name)
        if left["frontendIPConfigurations"]:
            self._write(balancer, internal, there, left)
        else:
            self._finished(self._client.load_balancers.begin_delete(self._group, shared_name(balancer, internal)))

    def _frontend(self, balancer: LoadBalancer, internal: bool) -> Json:
        if not internal:
            return {"publicIPAddress": {"id": self._put_public_address(balancer)}}
        found: Json = {"subnet": {"id": f"{self._network_id}/subnets/{self._subnet_of(balancer)}"}}
        if balancer.requested:
            return {**found, "privateIPAllocationMethod": "Static", "privateIPAddress": balancer.requested[0]}
        return {**found, "privateIPAllocationMethod": "Dynamic"}

    def _subnet_of(self, balancer: LoadBalancer) -> str:
        return balancer.annotations.get(f"{ANNOTATION}load-balancer-internal-subnet") or self._settings.subnet

    def _pool(self, nodes: Sequence[Target]) -> Json:
        network = {"id": self._network_id}
        addresses = [
            {"name": node.name, "properties": {"ipAddress": node.addresses[0], "virtualNetwork": network}}
            for node in sorted(nodes, key=lambda node: node.name)
            if node.addresses
        ]
        return {"name": POOL, "properties": {"loadBalancerBackendAddresses": addresses}}

    # Public addresses

    def _public_address(self, name: str) -> Json | None:
        return self._found(lambda: self._client.public_ip_addresses.get(self._group, name))

    def _put_public_address(self, balancer: LoadBalancer) -> str:
        """One of its own, unless it asks for one that there is; answers its id."""
        name = balancer.unique_name
        if balancer.requested:
            for each in self._client.public_ip_addresses.list(self._group):
                if each.as_dict().get("properties", {}).get("ipAddress") == balancer.requested[0]:
                    found: str = each.as_dict()["id"]
                    return found
            raise ProviderFailure(f"the resource group {self._group} has no public address {balancer.requested[0]}")
        label = balancer.annotations.get(f"{ANNOTATION}dns-label-name")
        properties: Json = {"publicIPAllocationMethod": "Static", "publicIPAddressVersion": "IPv4"}
        if label:
            properties["dnsSettings"] = {"domainNameLabel": label}
        tags = {CLUSTER_TAG: balancer.cluster, SERVICE_TAG: balancer.key}
        there = self._public_address(name)
        if there is not None and there.get("tags", {}).get(SERVICE_TAG) != balancer.key:
            raise ProviderFailure(f"the public address {name} is not this Service's: its tags differ")
        if there is None or not _has(there["properties"], properties):
            body = {
                "location": self._settings.location,
                "sku": {"name": "Standard"},
                "tags": tags,
                "properties": properties,
            }
            self._finished(self._client.public_ip_addresses.begin_create_or_update(self._group, name, body))
        return self._id("publicIPAddresses", name)

    def _remove_public_address(self, name: str) -> None:
        if self._public_address(name) is not None:
            self._finished(self._client.public_ip_addresses.begin_delete(self._group, name))

    def _address_of(self, frontend: Json) -> str:
        properties = frontend["properties"]
        public = properties.get("publicIPAddress")
        if public is None:
            return str(properties.get("privateIPAddress") or "")
        there = self._public_address(public["id"].rpartition("/")[2])
        return str((there or {}).get("properties", {}).get("ipAddress") or "")

    # Who may connect

    @property
    def _security_group(self) -> tuple[str, str]:
        return self._group, self._settings.security_group

    def _security_rules(self, name: str) -> list[Json]:
        return [each for each in self._all_security_rules() if each["name"].startswith(f"{name}-")]

    def _all_security_rules(self) -> list[Json]:
        return [each.as_dict() for each in self._client.security_rules.list(*self._security_group)]

    def _match_security_rules(self, balancer: LoadBalancer, address: str) -> None:
        there = {each["name"]: each for each in self._all_security_rules()}
        taken = {each["properties"]["priority"] for each in there.values()}
        wanted = security_rules(balancer, address)
        for name, properties in wanted.items():
            before = there.get(name)
            if before is not None and _has(before["properties"], properties):
                continue
            priority = before["properties"]["priority"] if before else _free(taken)
            taken.add(priority)
            body = {"properties": {**properties, "priority": priority}}
            self._finished(self._client.security_rules.begin_create_or_update(*self._security_group, name, body))
        for name in there:
            if name.startswith(f"{balancer.unique_name}-") and name not in wanted:
                self._finished(self._client.security_rules.begin_delete(*self._security_group, name))

    # Calls

    @property
    def _group(self) -> str:
        return self._settings.resource_group

    def _id(self, kind: str, name: str) -> str:
        start = f"/subscriptions/{self._settings.subscription}/resourceGroups/{self._group}"
        return f"{start}/providers/Microsoft.Network/{kind}/{name}"

    @property
    def _network_id(self) -> str:
        network = self._settings.virtual_network
        return network if "/" in network else self._id("virtualNetworks", network)

    def _found(self, get: Callable[[], Any]) -> Json | None:
        from azure.core.exceptions import ResourceNotFoundError

        try:
            found: Json = get().as_dict()
        except ResourceNotFoundError:
            return None
        return found

    def _finished(self, poller: Any) -> None:
        poller.result(timeout=OPERATION_S_MAX)
        if not poller.done():
            raise ProviderFailure("Azure has not finished in time")


# What is wanted, as plain values


def shared_name(balancer: LoadBalancer, internal: bool) -> str:
    return f"{balancer.cluster}-internal" if internal else balancer.cluster


def is_internal(balancer: LoadBalancer) -> bool:
    return balancer.annotations.get(f"{ANNOTATION}load-balancer-internal", "false").lower() == "true"


def check_wishes(balancer: LoadBalancer) -> None:
    """What can't be had. Raises ProviderFailure."""
    for port in balancer.ports:
        if port.protocol not in PROTOCOLS:
            raise ProviderFailure(f"load balancers of Azure don't know {port.protocol} (port {port.port})")
    if "IPv4" not in balancer.families:
        raise ProviderFailure("only IPv4 load balancers are made")


def with_service(there: Mapping[str, Any], balancer: LoadBalancer, frontend: Json, id_: str) -> Json:
    """A load balancer's properties with what a Service has in it."""
    name, made = balancer.unique_name, without_service(there, balancer.unique_name)
    made["frontendIPConfigurations"].append(frontend)
    for port in balancer.ports:
        part = f"{name}-{port.protocol}-{port.port}"
        made["probes"].append({"name": part, "properties": probe(balancer, port)})
        properties = {
            "frontendIPConfiguration": {"id": f"{id_}/frontendIPConfigurations/{name}"},
            "backendAddressPool": {"id": f"{id_}/backendAddressPools/{POOL}"},
            "probe": {"id": f"{id_}/probes/{part}"},
            "protocol": PROTOCOLS[port.protocol],
            "frontendPort": port.port,
            "backendPort": port.port,
            "enableFloatingIP": True,
            "idleTimeoutInMinutes": IDLE_MINUTES,
            "loadDistribution": "SourceIP" if balancer.affinity_s else "Default",
        }
        made["loadBalancingRules"].append({"name": part, "properties": properties})
    return made


def without_service(there: Mapping[str, Any], name: str) -> Json:
    """A load balancer's properties without what the Service of that name has in it."""
    return {
        key: [_written(each) for each in there.get(key) or [] if not _is_of(each, name)]
        for key in ("frontendIPConfigurations", "backendAddressPools", "probes", "loadBalancingRules")
    }


def probe(balancer: LoadBalancer, port: Port) -> Json:
    """By whether a node has endpoints, else by its node port; a node port of UDP tells nothing, so by another's."""
    times = {"intervalInSeconds": PROBE_S, "numberOfProbes": PROBES}
    if balancer.local_only and balancer.health_check_port:
        return {"protocol": "Http", "port": balancer.health_check_port, "requestPath": "/healthz", **times}
    answering = [each.node_port for each in balancer.ports if each.protocol == "TCP" and each.node_port]
    node_port = port.node_port if port.protocol == "TCP" else 0
    return {"protocol": "Tcp", "port": node_port or (answering or [KUBELET_PORT])[0], **times}


def security_rules(balancer: LoadBalancer, address: str) -> dict[str, Json]:
    """Rules of the nodes' network security group, by name; priorities are chosen when they are written."""
    sources = list(balancer.source_ranges) or (["VirtualNetwork"] if is_internal(balancer) else ["Internet"])
    named = {"sourceAddressPrefix": sources[0]} if len(sources) == 1 else {"sourceAddressPrefixes": sources}
    found = {}
    for protocol in sorted({port.protocol for port in balancer.ports}):
        ports = sorted({str(port.port) for port in balancer.ports if port.protocol == protocol})
        found[f"{balancer.unique_name}-{protocol}"] = {
            "description": f"Kubernetes Service {balancer.key} of the cluster {balancer.cluster}",
            "access": "Allow",
            "direction": "Inbound",
            "protocol": PROTOCOLS[protocol],
            "sourcePortRange": "*",
            "destinationAddressPrefix": address,
            "destinationPortRanges": ports,
            **named,
        }
    return found


def _free(taken: Iterable[int]) -> int:
    used = set(taken)
    for priority in range(PRIORITY_MIN, PRIORITY_MAX + 1):
        if priority not in used:
            return priority
    raise ProviderFailure("the network security group has no priority left")


def _frontend(there: Mapping[str, Any], name: str) -> Json | None:
    return next((each for each in there.get("frontendIPConfigurations") or [] if each["name"] == name), None)


def _is_in(there: Mapping[str, Any], name: str) -> bool:
    return any(_is_of(each, name) for part in there.values() if isinstance(part, list) for each in part)


def _is_of(part: Mapping[str, Any], name: str) -> bool:
    return bool(part["name"] == name or part["name"].startswith(f"{name}-"))


READ_ONLY = (
    "provisioningState",
    "loadBalancingRules",
    "inboundNatRules",
    "inboundNatPools",
    "outboundRules",
    "backendIPConfigurations",
)
"""Of a part of a load balancer: what Azure says, and nobody writes."""


def _written(part: Mapping[str, Any]) -> Json:
    """A part as Azure answered it, as it may be written back."""
    properties = {key: value for key, value in part.get("properties", {}).items() if key not in READ_ONLY}
    return {"name": part["name"], "properties": properties}


def _has(there: Any, wanted: Any) -> bool:
    """All that is wanted is there; lists are the same in any order, by name where they have one."""
    if isinstance(wanted, Mapping):
        return isinstance(there, Mapping) and all(_has(there.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        there = there or []
        if len(there) != len(wanted):
            return False
        if wanted and isinstance(wanted[0], Mapping) and "name" in wanted[0]:
            named = {each["name"]: each for each in there}
            return all(_has(named.get(each["name"]), each) for each in wanted)
        return sorted(map(str, there)) == sorted(map(str, wanted))
    return bool(there == wanted)


def _ingress(address: str) -> Ingress:
    return (LoadBalancerIngress(ip=address, ip_mode="VIP"),)
