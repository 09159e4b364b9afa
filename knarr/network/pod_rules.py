"""The pod network's own nft tables, one for each family of addresses: what a transaction writes, whole each time.

host ports     ports of the node that lead to pods, from outside, from the node itself, and from pods
masquerade     what pods send out of the cluster has the node's address; what stays within is left as it is
segment size   connections through the tunnel to other nodes announce what fits into it
loopback       packets from pods to 127.0.0.0/8 are dropped, since route_localnet would let them in
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from knarr.node.runtime.contract import PortMapping


class Ranges(Struct, frozen=True):
    """Address ranges, of whatever family."""

    pods: Sequence[str]
    cluster: Sequence[str]
    services: Sequence[str]


class Family(Struct, frozen=True):
    """What differs between the two."""

    name: str
    """As nft has it."""
    version: int
    address_type: str
    any_address: str
    multicast: str
    command: str
    """Of iptables, for its own filter table."""

    def only(self, addresses: Iterable[str]) -> list[str]:
        return [each for each in addresses if (6 if ":" in each else 4) == self.version]


IPV4 = Family("ip", 4, "ipv4_addr", "0.0.0.0", "224.0.0.0/4", "iptables-restore")
IPV6 = Family("ip6", 6, "ipv6_addr", "::", "ff00::/8", "ip6tables-restore")


def families(pod_cidrs: Iterable[str]) -> list[Family]:
    """Those that pods have addresses of."""
    return [family for family in (IPV4, IPV6) if family.only(pod_cidrs)]


HostPorts = Mapping[str, tuple[tuple[str, ...], tuple[PortMapping, ...]]]
"""By sandbox: the pod's addresses, and its ports."""


def table(family: Family, name: str, ranges: Ranges, host_ports: HostPorts, tunnel: str) -> str:
    """The whole table of a family, as one transaction that replaces it."""
    any_address: list[str] = []
    one_address: list[str] = []
    hairpin: set[str] = set()
    for addresses, mappings in host_ports.values():
        for address in family.only(addresses):
            hairpin.add(f"{address} . {address}")
            for mapping in mappings:
                target = f"{address} . {mapping.container_port}"
                port = f"{mapping.protocol.lower()} . {mapping.host_port}"
                if mapping.host_ip in ("", family.any_address):
                    any_address.append(f"{port} : {target}")
                elif family.only([mapping.host_ip]):
                    one_address.append(f"{mapping.host_ip} . {port} : {target}")
    ip, kind, full = family.name, family.address_type, f"{family.name} {name}"
    pods = ", ".join(family.only(ranges.pods))
    inside = ", ".join([*family.only(ranges.cluster), *family.only(ranges.services), family.multicast])
    return f"""
add table {full}
delete table {full}
table {full} {{
  comment "knarr: pod network"
  map host-ports {{
    type inet_proto . inet_service : {kind} . inet_service
    {_elements(any_address)}
  }}
  map host-address-ports {{
    type {kind} . inet_proto . inet_service : {kind} . inet_service
    {_elements(one_address)}
  }}
  set hairpin {{
    type {kind} . {kind}
    {_elements(sorted(hairpin))}
  }}
  chain host-ports-redirect {{
    dnat {ip} to {ip} daddr . meta l4proto . th dport map @host-address-ports
    dnat {ip} to meta l4proto . th dport map @host-ports
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat + 5; policy accept;
    meta l4proto {{ tcp, udp, sctp }} fib daddr type local jump host-ports-redirect
  }}
  chain output {{
    type nat hook output priority -95; policy accept;
    meta l4proto {{ tcp, udp, sctp }} fib daddr type local jump host-ports-redirect
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat + 5; policy accept;
{_LOOPBACK_MASQUERADE if family is IPV4 else ""}\
    ct status dnat {ip} saddr . {ip} daddr @hairpin masquerade
    {ip} saddr {{ {pods} }} {ip} daddr != {{ {inside} }} oifname != "kn*" masquerade
  }}
  chain forward {{
    type filter hook forward priority mangle; policy accept;
    oifname "{tunnel}*" tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu
  }}
{_LOOPBACK_INPUT if family is IPV4 else ""}\
}}
"""


_LOOPBACK_MASQUERADE = """\
    ct status dnat oifname "kn*" ip saddr 127.0.0.0/8 masquerade
"""
_LOOPBACK_INPUT = """\
  chain input {
    type filter hook input priority filter; policy accept;
    iifname "kn*" ip daddr 127.0.0.0/8 ct status & dnat == 0 ct state != { established, related } drop
  }
"""


def _elements(elements: Sequence[str]) -> str:
    return f"elements = {{ {', '.join(elements)} }}" if elements else ""
