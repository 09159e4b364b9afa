"""Where node ports are answered (kube-proxy's --nodeport-addresses, KEP-3866).

`primary` means the node's own addresses (InternalIP); a range means those of this machine's addresses that are in it.
Without a word it is as upstream has it: `primary` with nftables, every address with iptables, 127.0.0.1 included.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Sequence

from knarr.network import netlink as kernel
from knarr.network import settings
from knarr.network.proxy.model import ANY_ADDRESS, FAMILIES, Family, family_of

PRIMARY = "primary"
EVERYWHERE = ("0.0.0.0/0", "::/0")
DEFAULTS = {"nftables": (PRIMARY,), "iptables": EVERYWHERE}

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def answering_addresses(
    setting: Sequence[str], primary: Iterable[str], local: Collection[str], *, any_address: bool
) -> tuple[str, ...]:
    """The addresses that `setting` means on a machine with the addresses `local`, whose node has those in `primary`.

    With `any_address` a range of everything stays what it is, ANY_ADDRESS; else it is all addresses but loopback."""
    found: list[str] = []
    for family in FAMILIES:
        ranges = _ranges(setting, family)
        if any(each.prefixlen == 0 for each in ranges) and any_address:
            found.append(ANY_ADDRESS[family])
            continue
        chosen = [each for each in primary if family_of(each) == family] if PRIMARY in setting else []
        for text in local:
            address = ipaddress.ip_address(text)
            if family_of(text) == family and any(_answers(each, address) for each in ranges):
                chosen.append(text)
        found += sorted(set(chosen))
    return tuple(found)


def includes_loopback(setting: Sequence[str]) -> bool:
    """Whether 127.0.0.1 is meant too."""
    return any(ipaddress.ip_address("127.0.0.1") in each for each in _ranges(setting, "IPv4"))


def route_loopback(allowed: bool, table: str, network_namespace: str | None = None) -> None:
    """A packet to 127.0.0.1 that is led to another node's pod comes back to that address from outside, which the kernel
    refuses by itself. While it is allowed, the rules (of `table`) keep out whatever is no answer (CVE-2020-8558), so
    they go last. Afterwards it is as it was found. Blocks."""
    with kernel.entered(network_namespace):
        if allowed:
            settings.need("ipv4/conf/all/route_localnet", "1", table)
        else:
            settings.release(table)


def _ranges(setting: Sequence[str], family: Family) -> list[Network]:
    """As upstream, ranges of one family leave the other one open."""
    ranges = [ipaddress.ip_network(text) for text in setting if text != PRIMARY]
    own = [each for each in ranges if family_of(str(each)) == family]
    if ranges and not own and PRIMARY not in setting:
        return [ipaddress.ip_network(EVERYWHERE[FAMILIES.index(family)])]
    return own


def _answers(network: Network, address: Address) -> bool:
    if address.is_link_local or (address.is_loopback and (address.version == 6 or network.prefixlen == 0)):
        return False
    return address in network
