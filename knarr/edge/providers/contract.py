"""What a provider of load balancers promises, and the plain values that it is told.

The loop (`knarr.edge.loadbalancer`) knows Services, finalizers and events; a provider knows how its load balancers are
made. Each of its calls may be cut off anywhere, by a crash or by an error, and is then made again with the same or with
newer values: what is there already is found (by tags and names that follow from the Service), never made twice; what
is half there is finished; and `delete` removes what any earlier call may have left. A provider keeps nothing in memory
that it could not find out again.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct, field

from knarr.api.core.v1 import LoadBalancerIngress

ADDRESSES = "knarr.dev/load-balancer-ips"
"""Annotation of a Service: the addresses that it would like to have, separated by commas."""

MESSAGE_LENGTH_MAX = 600
"""Of what a cloud says in an error: the rest helps nobody, and an event holds 1,024 characters."""


class Port(Struct, frozen=True):
    """A port of a Service."""

    name: str
    protocol: str
    """TCP, UDP or SCTP."""
    port: int
    node_port: int
    """Where every node answers for it; 0 where none is allocated (allocateLoadBalancerNodePorts: false)."""


class LoadBalancer(Struct, frozen=True):
    """What a Service wants: all that a provider needs to know of it."""

    cluster: str
    """Name of the cluster: sets its load balancers apart from those of others in the same account."""
    namespace: str
    name: str
    uid: str
    ports: tuple[Port, ...] = ()
    families: tuple[str, ...] = ("IPv4",)
    both_families: bool = False
    """It wants an address of each of `families` or none at all (ipFamilyPolicy: RequireDualStack)."""
    requested: tuple[str, ...] = ()
    """Addresses that it asks for."""
    source_ranges: tuple[str, ...] = ()
    """Who may connect; empty: everybody."""
    local_only: bool = False
    """Nodes without a ready endpoint drop its packets (externalTrafficPolicy: Local)."""
    health_check_port: int = 0
    """Node port at which a node says whether it has ready endpoints; 0: by the node ports themselves."""
    affinity_s: int = 0
    """Connections of one client go to one node for so long; 0: no such wish."""
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def unique_name(self) -> str:
        """A name that is this Service's for ever, at most 32 characters: upstream's default for clouds."""
        return f"a{self.uid.replace('-', '')}"[:32]


class Target(Struct, frozen=True):
    """A node, as what a load balancer sends packets to."""

    name: str
    addresses: tuple[str, ...] = ()
    """On the network of the nodes."""
    external_addresses: tuple[str, ...] = ()
    provider_id: str = ""
    """Its machine at the cloud, such as aws:///eu-west-1a/i-0123 (node.spec.providerID)."""
    ready: bool = True
    """Only told to providers that ask for it (`sees_readiness`): others find out by their health checks (KEP-3458)."""


Ingress = tuple[LoadBalancerIngress, ...]
"""Where a load balancer is reached: status.loadBalancer.ingress."""
Wake = Callable[[Iterable[str]], None]
Note = Callable[[str, str, str], None]
"""Key of a Service; reason and message of a warning to its owner."""


class ProviderFailure(Exception):
    """It could not be done; the message is for the Service's owner. It is tried again later."""


class Provider(Protocol):
    """Load balancers of one kind."""

    name: str
    load_balancer_class: str
    """Services of this spec.loadBalancerClass are its own, and so are those of none. Others' are left alone."""
    sees_readiness: bool
    """Whether a node that becomes ready, or no longer is, changes its load balancers."""

    def begin(self, wake: Wake, note: Note) -> None:
        """Called once, before anything else: `wake(keys)` has Services looked at again, `note` tells of what is well
        but not as one might expect."""

    async def status(self, balancer: LoadBalancer) -> Ingress | None:
        """Where it is reached; None where there is nothing of it, not even parts."""

    async def ensure(self, balancer: LoadBalancer, nodes: Sequence[Target]) -> Ingress:
        """Make it, or make it as it is wanted now. An empty answer: it has no address yet, look again later."""

    async def update_nodes(self, balancer: LoadBalancer, nodes: Sequence[Target]) -> Ingress:
        """Only the nodes have changed. Answers as `ensure`."""

    async def delete(self, balancer: LoadBalancer) -> None:
        """Remove it, and every part of it; it may not be there. Only uid, names and cluster of `balancer` are sure."""

    async def close(self) -> None: ...


_SECRETS = (
    (r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)", re.DOTALL),
    (r"\beyJ[\w-]{8,}\.[\w-]+(\.[\w-]*)?", 0),
    (r"\b(AKIA|ASIA|AGPA|AROA|AIDA)[A-Z0-9]{12,}\b", 0),
    (r"\bya29\.[\w-]+", 0),
    (
        r"(?<![A-Za-z0-9/+=_-])(?=[A-Za-z0-9/+]*[A-Z])(?=[A-Za-z0-9/+]*[a-z])(?=[A-Za-z0-9/+]*\d)[A-Za-z0-9/+]{40,}={0,2}",
        0,
    ),
    (r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}", 0),
    (r"://[^/\s:@]+:[^/\s@]+@", 0),
)
"""What looks like a credential, whatever stands before it: private keys, JSON web tokens, keys of AWS and Google,
authorization headers, passwords in addresses."""

_NAMED_SECRET = re.compile(
    r"""(?ix)
    ( ["']? [\w.-]{0,64}
      (?: secret | passw(?:or)?d | token | credential | signature | \bsig\b | assertion | (?:access|api)_?-?key )
      [\w.-]{0,64} ["']? \s{0,8} [:=] \s{0,8} )
    ( "[^"]*" | '[^']*' | [^\s,;&}\])]+ )"""
)
LOOKED_THROUGH_MAX = 4096
"""Characters of a message that are looked through; what follows is never shown."""


def quiet(*loggers: str) -> None:
    """A cloud's library says no more than warnings, whatever the verbosity: it would log headers with credentials."""
    for name in loggers:
        logging.getLogger(name).setLevel(logging.WARNING)


SECRET_NAME = re.compile(r"SECRET|TOKEN|PASSW|CREDENTIAL|ACCESS_KEY|API_KEY|CLIENT_ID", re.IGNORECASE)
SECRET_LENGTH_MIN = 6


def without_secrets(text: str) -> str:
    """`text` with what is, or looks like, a credential struck out; so is what the environment calls one."""
    text = text[:LOOKED_THROUGH_MAX]
    for name, secret in os.environ.items():
        if len(secret) >= SECRET_LENGTH_MIN and SECRET_NAME.search(name):
            text = text.replace(secret, "***")
    for pattern, flags in _SECRETS:
        text = re.sub(pattern, "***", text, flags=flags)
    text = _NAMED_SECRET.sub(r"\1***", text)
    return text if len(text) <= MESSAGE_LENGTH_MAX else f"{text[:MESSAGE_LENGTH_MAX]}…"
