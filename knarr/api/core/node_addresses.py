"""The IP addresses that a node tells of itself.

The API takes any text for an address of a node (so does upstream's), and whoever may write a node's status may write
some: what can't be one is passed over, as by upstream's components, and so is what leads to no other machine.
"""

from __future__ import annotations

import ipaddress

from knarr.api.core.v1 import Node


def ip_addresses(node: Node, kind: str = "InternalIP") -> list[str]:
    """Those of a type, in the node's order."""
    told = [each.address for each in (node.status.addresses if node.status else ()) if each.type == kind]
    return [address for text in told if (address := _usable(text))]


def _usable(text: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return ""
    leads_nowhere = address.is_unspecified or address.is_loopback or address.is_multicast or address.is_link_local
    return "" if leads_nowhere else str(address)
