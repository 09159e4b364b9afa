"""What a proxy mode is: a way to write `PortRules` into the kernel.

To add one: a file beside this one with a class of this shape, and a line in `knarr.network.proxy.service_proxy`.
"""

from __future__ import annotations

import hashlib
from base64 import b32encode
from collections.abc import Collection, Mapping
from typing import Protocol

from knarr.network.proxy.model import PortRules

Rules = Mapping[str, tuple[PortRules, ...]]
"""All services' rules, by namespace/name."""

MASQUERADE_MARK = 0x4000
"""Upstream's packet mark for "give it this node's address when it leaves" (kube-proxy --iptables-masquerade-bit 14)."""


class ProxyMode(Protocol):
    """Rules in the kernel. Each call is one transaction; calls never overlap. Raises CommandFailed."""

    tables: frozenset[str]
    """Names of the kernel's tables that hold them."""

    async def apply(self, rules: Rules, changed: Collection[str] | None) -> int:
        """Have the kernel show `rules`. `changed` names the services that differ from the last call that succeeded;
        None rewrites everything, whatever is there: at start, after a failure, or when somebody else changed it.

        Answers how many commits the kernel has counted for it."""

    async def is_there(self) -> bool:
        """Whether rules of ours are in the kernel, perhaps an earlier run's."""

    async def remove(self) -> None:
        """Leave nothing of ours. Idempotent."""

    async def close(self) -> None:
        """Let go of what the mode holds open. Idempotent; the rules stay."""


def short_hash(*parts: str) -> str:
    """Upstream's hash in chain names: base32 of SHA-256, cut to 16 characters."""
    return b32encode(hashlib.sha256("".join(parts).encode()).digest()).decode()[:16]
