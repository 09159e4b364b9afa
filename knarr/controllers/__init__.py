"""The control loops, each in a file of its own.

To add one: a file with a `Controller`, and a line in ALL; and one in ACCOUNTS where the service account that upstream
gives it has another name than the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from knarr.client.client import Client
from knarr.client.controller import Controller
from knarr.client.informer import Informers
from knarr.clock import Clock
from knarr.controllers.clusterrole_aggregation import ClusterRoleAggregation
from knarr.controllers.cronjob import CronJobs
from knarr.controllers.csr_approving import CertificateApproval
from knarr.controllers.csr_cleaner import CertificateCleaner
from knarr.controllers.csr_serving import ServingApproval
from knarr.controllers.csr_signing import CertificateSigning
from knarr.controllers.daemonset import DaemonSets
from knarr.controllers.deployment import Deployments
from knarr.controllers.disruption import DisruptionBudgets
from knarr.controllers.disruption_stale import StaleDisruptions
from knarr.controllers.endpoints import EndpointsOfServices
from knarr.controllers.endpointslice import EndpointSlices
from knarr.controllers.endpointslicemirroring import EndpointSliceMirroring
from knarr.controllers.ephemeralvolume import EphemeralVolumes
from knarr.controllers.garbagecollector import GarbageCollector
from knarr.controllers.horizontalpodautoscaler import HorizontalPodAutoscalers
from knarr.controllers.job import Jobs
from knarr.controllers.job_orphans import JobOrphans
from knarr.controllers.namespace import Namespaces
from knarr.controllers.nodeipam import NodeRanges, Ranges
from knarr.controllers.nodelifecycle import NodeLifecycle
from knarr.controllers.persistentvolume import VolumeBinder
from knarr.controllers.podgc import PodGarbageCollector
from knarr.controllers.replicaset import ReplicaSets
from knarr.controllers.replicationcontroller import ReplicationControllers
from knarr.controllers.resourcequota import ResourceQuotaUsage
from knarr.controllers.rollback import Rollbacks
from knarr.controllers.rootca import RootCertificates
from knarr.controllers.serviceaccount import ServiceAccounts
from knarr.controllers.servicecidrs import ServiceCIDRs
from knarr.controllers.statefulset import StatefulSets
from knarr.controllers.storageprotection import ClaimProtection, VolumeProtection
from knarr.controllers.tainteviction import TaintEviction
from knarr.controllers.token_secrets import Sign, TokenSecrets
from knarr.controllers.tokencleaner import TokenCleaner
from knarr.controllers.ttlafterfinished import FinishedJobs
from knarr.controllers.volumeexpansion import VolumeExpansion

ALL: tuple[type[Controller], ...] = (
    ServiceAccounts,
    Deployments,
    Rollbacks,
    ReplicaSets,
    StatefulSets,
    DaemonSets,
    DisruptionBudgets,
    StaleDisruptions,
    HorizontalPodAutoscalers,
    ReplicationControllers,
    Jobs,
    JobOrphans,
    FinishedJobs,
    CronJobs,
    EndpointSlices,
    EndpointsOfServices,
    EndpointSliceMirroring,
    Namespaces,
    GarbageCollector,
    NodeLifecycle,
    TaintEviction,
    PodGarbageCollector,
    ClusterRoleAggregation,
    CertificateApproval,
    ServingApproval,
    CertificateCleaner,
    TokenCleaner,
    ResourceQuotaUsage,
    ServiceCIDRs,
    VolumeBinder,
    EphemeralVolumes,
    VolumeExpansion,
    ClaimProtection,
    VolumeProtection,
)
"""Every loop that needs nothing but a client, caches and a clock."""


ACCOUNTS = {
    "certificatesigningrequest-approving-controller": "certificate-controller",
    "certificatesigningrequest-cleaner-controller": "certificate-controller",
    "certificatesigningrequest-signing-controller": "certificate-controller",
    "daemonset-controller": "daemon-set-controller",
    "endpoints-controller": "endpoint-controller",
    "endpointslice-mirroring-controller": "endpointslicemirroring-controller",
    "garbage-collector-controller": "generic-garbage-collector",
    "horizontal-pod-autoscaler-controller": "horizontal-pod-autoscaler",
    "job-orphans-controller": "job-controller",
    "node-ipam-controller": "node-controller",
    "persistentvolume-controller": "persistent-volume-binder",
    "persistentvolume-protection-controller": "pv-protection-controller",
    "persistentvolumeclaim-protection-controller": "pvc-protection-controller",
    "pod-garbage-collector-controller": "pod-garbage-collector",
    "root-ca-certificate-publisher-controller": "root-ca-cert-publisher",
    "serviceaccount-controller": "service-account-controller",
    "stale-disruption-controller": "disruption-controller",
    "taint-eviction-controller": "node-controller",
    "token-cleaner-controller": "token-cleaner",
    "volume_expand": "expand-controller",
}
"""A loop → the service account in kube-system as which it writes: upstream's roles fit, and audit tells who."""


QUEUES = {
    "certificatesigningrequest-approving-controller": "certificate_approving",
    "certificatesigningrequest-cleaner-controller": "certificate_cleaner",
    "certificatesigningrequest-signing-controller": "certificate_signing",
    "clusterrole-aggregation-controller": "ClusterRoleAggregator",
    "endpointslice-controller": "endpoint_slice",
    "endpointslice-mirroring-controller": "endpoint_slice_mirroring",
    "garbage-collector-controller": "garbage_collector_attempt_to_delete",
    "horizontal-pod-autoscaler-controller": "horizontalpodautoscaler",
    "node-controller": "node_lifecycle_controller",
    "persistentvolume-protection-controller": "pvprotection",
    "persistentvolumeclaim-protection-controller": "pvcprotection",
    "replication-controller": "replicationmanager",
    "resourcequota-controller": "resourcequota_primary",
    "root-ca-certificate-publisher-controller": "root_ca_cert_publisher",
    "ttl-after-finished-controller": "ttl_jobs_to_delete",
}
"""A loop → upstream's name of its work queue, where it is not the loop's in short."""


def queue_name(loop: str) -> str:
    """What the work queue of a loop is called in /metrics: deployment-controller's is deployment."""
    return QUEUES.get(loop, loop.removesuffix("-controller").replace("-", "_"))


def controllers(
    client: Client,
    informers: Informers,
    clock: Clock,
    *,
    root_ca: str = "",
    root_ca_key: bytes = b"",
    sign_token: Sign | None = None,
    node_ranges: Sequence[Ranges] = (),
    client_of: Callable[[str], Client] | None = None,
) -> list[Controller]:
    """All loops of a cluster; `root_ca` is the bundle (PEM) that pods verify the API server by.

    Without the authority's key nothing is signed, and without `sign_token` no Secret is given a token.
    Nodes get their ranges of pod addresses from `node_ranges`, one of each family.

    `client_of(account)` gives each loop a client of its own; without it all write through `client`.
    """

    served = {resource.type for resource in client.registry}

    def own(kind: type[Controller]) -> Client:
        return client_of(ACCOUNTS.get(kind.name, kind.name)) if client_of else client

    loops = [kind(own(kind), informers, clock) for kind in ALL if served.issuperset(kind.needs)]
    if root_ca:
        loops.append(RootCertificates(own(RootCertificates), informers, clock, root_ca))
    if root_ca_key:
        loops.append(CertificateSigning(own(CertificateSigning), informers, clock, root_ca.encode(), root_ca_key))
    if node_ranges:
        loops.append(NodeRanges(own(NodeRanges), informers, clock, node_ranges))
    if sign_token:
        loops.append(TokenSecrets(client, informers, clock, sign_token, root_ca))
    return loops
