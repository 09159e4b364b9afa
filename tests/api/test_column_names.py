# ruff: noqa: E501
"""The columns of `kubectl get` for each kind, and behind the bar those that -o wide adds: upstream's names in order."""

from __future__ import annotations

import pytest

from tests.api.made import REGISTRY, resource

COLUMNS = """
APIService: Service, Available, Age
ConfigMap: Data, Age
ComponentStatus: Status, Message, Error
ControllerRevision: Controller, Revision, Age
CronJob: Schedule, Timezone, Suspend, Active, Last Schedule, Age | Containers, Images, Selector
CSIDriver: AttachRequired, PodInfoOnMount, StorageCapacity, TokenRequests, RequiresRepublish, Modes, Age
CSINode: Drivers, Age
CSIStorageCapacity: StorageClassName, Capacity
CertificateSigningRequest: Age, SignerName, Requestor, RequestedDuration, Condition
ClusterRoleBinding: Role, Age | Users, Groups, ServiceAccounts
DaemonSet: Desired, Current, Ready, Up-to-date, Available, Node Selector, Age | Containers, Images, Selector
Deployment: Ready, Up-to-date, Available, Age | Containers, Images, Selector
DeviceClass: Age
EndpointSlice: AddressType, Ports, Endpoints, Age
Endpoints: Endpoints, Age
Event: Last Seen, Type, Reason, Object, Message | Subobject, Source, First Seen, Count, Name
Event.events.k8s.io: Last Seen, Type, Reason, Object, Message | Subobject, Source, First Seen, Count, Name
FlowSchema: PriorityLevel, MatchingPrecedence, DistinguisherMethod, Age, MissingPL
HorizontalPodAutoscaler: Reference, Targets, MinPods, MaxPods, Replicas, Age
IPAddress: ParentRef
Ingress: Class, Hosts, Address, Ports, Age
IngressClass: Controller, Parameters, Age
Job: Status, Completions, Duration, Age | Containers, Images, Selector
Lease: Holder, Age
Namespace: Status, Age
NetworkPolicy: Pod-Selector, Age
Node: Status, Roles, Age, Version | Internal-IP, External-IP, OS-Image, Kernel-Version, Container-Runtime
PersistentVolume: Capacity, Access Modes, Reclaim Policy, Status, Claim, StorageClass, VolumeAttributesClass, Reason, Age | VolumeMode
PersistentVolumeClaim: Status, Volume, Capacity, Access Modes, StorageClass, VolumeAttributesClass, Age | VolumeMode
Pod: Ready, Status, Restarts, Age | IP, Node, Nominated Node, Readiness Gates
PodDisruptionBudget: Min Available, Max Unavailable, Allowed Disruptions, Age
PodTemplate: Containers, Images, Pod Labels
PriorityClass: Value, Global-Default, Age, PreemptionPolicy
PriorityLevelConfiguration: Type, NominalConcurrencyShares, Queues, HandSize, QueueLengthLimit, Age
ReplicaSet: Desired, Current, Ready, Age | Containers, Images, Selector
ReplicationController: Desired, Current, Ready, Age | Containers, Images, Selector
ResourceClaim: State, Age
ResourceClaimTemplate: Age
ResourceQuota: Request, Limit, Age
ResourceSlice: Node, Driver, Pool, Age
RoleBinding: Role, Age | Users, Groups, ServiceAccounts
RuntimeClass: Handler, Age
Secret: Type, Data, Age
Service: Type, Cluster-IP, External-IP, Port(s), Age | Selector
ServiceAccount: Secrets, Age
ServiceCIDR: CIDRs, Age
StatefulSet: Ready, Age | Containers, Images
StorageClass: Provisioner, ReclaimPolicy, VolumeBindingMode, AllowVolumeExpansion, Age
VolumeAttachment: Attacher, PV, Node, Attached, Age
VolumeAttributesClass: DriverName, Age
"""
BY_KIND = dict(line.split(": ", 1) for line in COLUMNS.strip().splitlines())
CREATED_AT = ("CustomResourceDefinition", "ClusterRole", "Role")
"""Shown with the moment of their creation, as upstream's table of kinds without columns of their own."""
NO_TABLE = ("Binding", "LimitRange")


@pytest.mark.parametrize("kind", sorted(BY_KIND))
def test_columns_are_upstreams(kind: str) -> None:
    columns = [column for column in resource(kind).columns if column.name != "Name" or column.priority]
    normal = ", ".join(column.name for column in columns if not column.priority)
    wide = ", ".join(column.name for column in columns if column.priority)
    assert (f"{normal} | {wide}" if wide else normal or "Age") == BY_KIND[kind]


def test_no_kind_is_left_out() -> None:
    shown = {resource(kind).type for kind in BY_KIND}
    missing = {
        entry.kind
        for entry in REGISTRY
        if entry.type not in shown and entry.conversion is None and "list" in entry.verbs
    }
    assert missing <= {*CREATED_AT, *NO_TABLE}
