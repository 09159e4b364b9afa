"""IP addresses and ranges in specifications: what is wrong with one, and what would better be written otherwise.

The fields here are older than strict rules (KEP-4858): an IPv6 address may be written at length, with a warning. Since
v1.36 what programs read differently is refused: leading zeros, IPv4 in the clothes of IPv6, a range with bits set
beyond its prefix.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from knarr.api.errors import Cause, invalid

IP_FAULT = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
CIDR_FAULT = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_LEADING_ZEROS = re.compile(r"(?<![0-9a-fA-F:])0+(?=\d)")


def parsed(text: str) -> Address | None:
    """The address, however it is written; None for what is none. Zones (fe80::1%eth0) are none of an object's."""
    try:
        return None if "%" in text else ipaddress.ip_address(_without_zeros(text))
    except ValueError:
        return None


def validate_ip(text: str, path: str) -> Iterable[Cause]:
    address = parsed(text)
    if address is None:
        yield invalid(path, text, IP_FAULT)
    elif _without_zeros(text) != text:
        yield invalid(path, text, "must not have leading 0s")
    elif is_mapped(address):
        yield invalid(path, text, "must not be an IPv4-mapped IPv6 address")


def validate_cidr(text: str, path: str) -> Iterable[Cause]:
    written, slash, length = text.partition("/")
    address = parsed(written)
    plain = length.lstrip("0") or "0"
    if address is None or not slash or not re.fullmatch(r"\d{1,3}", length) or int(plain) > address.max_prefixlen:
        yield invalid(path, text, CIDR_FAULT)
    elif _without_zeros(written) != written or plain != length:
        yield invalid(path, text, "must not have leading 0s in IP or prefix length")
    elif is_mapped(address):
        yield invalid(path, text, "must not have an IPv4-mapped IPv6 address")
    elif ipaddress.ip_network(text, strict=False).network_address != address:
        yield invalid(path, text, "must not have bits set beyond the prefix length")


def validate_not_special(text: str, path: str) -> Iterable[Cause]:
    """No goal of traffic from elsewhere: what only means something on the machine or the link where it is used."""
    address = parsed(text)
    if address is None:
        yield invalid(path, text, "must be a valid IP address")
        return
    seen = mapped_to(address)
    if seen.is_unspecified:
        yield invalid(path, text, f"may not be unspecified ({text})")
    if seen.is_loopback:
        yield invalid(path, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)")
    if seen.is_link_local:
        yield invalid(path, text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)")
    if _is_link_local_multicast(seen):
        yield invalid(path, text, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")


def ip_warnings(text: str, path: str) -> Iterable[str]:
    address = parsed(text)
    if address is not None and address.version == 6 and str(address) != text:
        yield f'{path}: IPv6 address "{text}" should be in RFC 5952 canonical format ("{address}")'


def cidr_warnings(text: str, path: str) -> Iterable[str]:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return
    if "/" in text and network.version == 6 and str(network) != text:
        yield f'{path}: IPv6 CIDR value "{text}" should be in RFC 5952 canonical format ("{network}")'


def canonical(text: str) -> str:
    """An address as it is named everywhere; what is none stays as it is."""
    address = parsed(text)
    return text if address is None else str(address)


def is_mapped(address: Address) -> bool:
    return isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None


def mapped_to(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, as programs see it; else the address itself."""
    return address.ipv4_mapped or address if isinstance(address, ipaddress.IPv6Address) else address


def _is_link_local_multicast(address: Address) -> bool:
    packed = address.packed
    return packed[:3] == b"\xe0\x00\x00" if address.version == 4 else packed[0] == 0xFF and packed[1] & 0x0F == 0x02


def _without_zeros(text: str) -> str:
    """Dotted numbers without leading zeros."""
    return _LEADING_ZEROS.sub("", text) if "." in text else text
