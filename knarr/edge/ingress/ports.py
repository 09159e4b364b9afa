"""Whether a port is free. Envoy shares a port with whoever lets it, so this is looked up before."""

from __future__ import annotations

import os
import socket


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
