"""The control loops, each in a file of its own.

To add one: a file with a `Controller`, and a line in ALL.
"""

from __future__ import annotations

from knarr.client.client import Client
from knarr.client.controller import Controller
from knarr.client.informer import Informers
from knarr.clock import Clock
from knarr.controllers.deployment import Deployments
from knarr.controllers.endpoints import EndpointsOfServices
from knarr.controllers.endpointslice import EndpointSlices
from knarr.controllers.garbagecollector import GarbageCollector
from knarr.controllers.namespace import Namespaces
from knarr.controllers.nodelifecycle import NodeLifecycle
from knarr.controllers.podgc import PodGarbageCollector
from knarr.controllers.replicaset import ReplicaSets
from knarr.controllers.resourcequota import ResourceQuotaUsage
from knarr.controllers.rootca import RootCertificates
from knarr.controllers.serviceaccount import ServiceAccounts
from knarr.controllers.storageprotection import ClaimProtection, VolumeProtection
from knarr.controllers.tainteviction import TaintEviction

ALL: tuple[type[Controller], ...] = (
    ServiceAccounts,
    Deployments,
    ReplicaSets,
    EndpointSlices,
    EndpointsOfServices,
    Namespaces,
    GarbageCollector,
    NodeLifecycle,
    TaintEviction,
    PodGarbageCollector,
    ResourceQuotaUsage,
    ClaimProtection,
    VolumeProtection,
)
"""Every loop that needs nothing but a client, caches and a clock."""


def controllers(client: Client, informers: Informers, clock: Clock, *, root_ca: str = "") -> list[Controller]:
    """All loops of a cluster; `root_ca` is the bundle (PEM) that pods verify the API server by."""
    served = {resource.type for resource in client.registry}
    loops = [kind(client, informers, clock) for kind in ALL if served.issuperset(kind.needs)]
    if root_ca:
        loops.append(RootCertificates(client, informers, clock, root_ca))
    return loops
