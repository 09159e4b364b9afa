"""Cluster DNS: services and pods by name (Kubernetes DNS-Based Service Discovery, version 1.1).

`wire` reads and writes packets, `records` knows what a name means, `forward` asks others, `server` joins them.
"""

from knarr.network.dns.server import DnsServer, host_resolvers

__all__ = ["DnsServer", "host_resolvers"]
