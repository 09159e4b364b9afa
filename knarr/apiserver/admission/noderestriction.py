"""NodeRestriction: a node writes its own node object, its own pods' status, its own leases, and nothing of another's.

The Node authorizer says which kinds a node may write; this plugin looks at which objects, and at what is in them: a
node may not move workloads to itself by labels or taints, and a pod that it makes (a mirror of a static pod) refers
to nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from knarr.api.authentication.v1 import TokenRequest
from knarr.api.coordination import data_planes
from knarr.api.coordination.v1 import Lease
from knarr.api.core.v1 import Node, PersistentVolumeClaim, Pod, ServiceAccount
from knarr.api.decode import decoder
from knarr.api.errors import Forbidden, NotFound
from knarr.api.resource.v1 import ResourceSlice
from knarr.api.storage.v1 import CSINode
from knarr.api.types import replace
from knarr.apiserver.admission import Attributes
from knarr.apiserver.admission.refusal import name_of, refusal
from knarr.apiserver.node_authorizer import LEASES_NAMESPACE, PREFIX, node_of
from knarr.apiserver.node_graph import MIRROR, referred
from knarr.store.contract import Store

RESTRICTED = "node-restriction.kubernetes.io"
KUBELET_LABELS = {
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/windows-build",
}
KUBELET_DOMAINS = ("kubelet.kubernetes.io", "node.kubernetes.io")
"""Labels below these are the kubelet's to set."""
OWN_DOMAINS = ("kubernetes.io", "k8s.io")
REFERRED = {
    "secrets": "secrets",
    "configmaps": "configmaps",
    "persistentvolumeclaims": "persistentvolumeclaims",
    "resourceclaims": "resource claims",
}

Rule = Callable[[str, Attributes], Awaitable[None]]


class NodeRestriction:
    """One rule a kind; who is no node is not looked at."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rules: dict[type[Any], Rule] = {
            Pod: self._pod,
            Node: self._node,
            PersistentVolumeClaim: self._claim,
            ServiceAccount: self._account,
            Lease: self._lease,
            CSINode: self._csi_node,
            ResourceSlice: self._slice,
        }

    async def validate(self, attributes: Attributes) -> None:
        """Raises Forbidden, NotFound."""
        if not attributes.user.name.startswith(PREFIX):
            return
        node = node_of(attributes.user)
        rule = self._rules.get(attributes.resource.type)
        if node and rule is not None:
            await rule(node, attributes)

    async def _pod(self, node: str, attributes: Attributes) -> None:
        match attributes.subresource, attributes.operation:
            case "", "CREATE":
                await self._mirror_pod(node, attributes)
            case "", "DELETE":
                _must_be_on(node, attributes.old, attributes, "delete pods")
            case "", operation:
                detail = f'node "{node}" can only create and delete mirror pods'
                raise refusal(attributes, f'unexpected operation "{operation}", {detail}')
            case "status", "UPDATE":
                _must_be_on(node, attributes.old, attributes, "update pod status for pods")
                if attributes.obj.metadata.labels != attributes.old.metadata.labels:
                    raise refusal(attributes, f'node "{node}" cannot update labels through pod status')
                if _claim_statuses(attributes.obj) != _claim_statuses(attributes.old):
                    raise refusal(attributes, f'node "{node}" cannot update resource claim statues')
            case "eviction", "CREATE":
                pod = await self._found_pod(attributes.namespace, name_of(attributes))
                _must_be_on(node, pod, attributes, "evict pods")
            case subresource, _:
                detail = "only 'status' and 'eviction' are allowed"
                raise refusal(attributes, f'unexpected pod subresource "{subresource}", {detail}')

    async def _mirror_pod(self, node: str, attributes: Attributes) -> None:
        pod: Pod = attributes.obj
        can = f'node "{node}" can only create pods with'
        if MIRROR not in pod.metadata.annotations:
            detail = f'pod does not have "{MIRROR}" annotation, node "{node}" can only create mirror pods'
            raise refusal(attributes, detail)
        _must_be_on(node, pod, attributes, "create pods")
        owners = pod.metadata.owner_references
        if len(owners) > 1:
            raise refusal(attributes, f"{can} a single owner reference set to itself")
        if not owners or (owners[0].api_version, owners[0].kind, owners[0].name) != ("v1", "Node", node):
            raise refusal(attributes, f"{can} an owner reference set to itself")
        owner = owners[0]
        if not owner.controller:
            raise refusal(attributes, f"{can} a controller owner reference set to itself")
        if owner.block_owner_deletion:
            raise refusal(attributes, f'node "{node}" must not set blockOwnerDeletion on an owner reference')
        record = await self._store.get(f"nodes//{node}")
        if record is None:
            raise NotFound.of("", "nodes", node)
        uid = decoder(Node).decode(record.value).metadata.uid
        if owner.uid != uid:
            raise refusal(attributes, f"node {node} UID mismatch: expected {owner.uid} got {uid}")
        self._refers_to_nothing(node, pod, attributes)

    def _refers_to_nothing(self, node: str, pod: Pod, attributes: Attributes) -> None:
        cannot = f'node "{node}" can not create pods that reference'
        assert pod.spec
        if pod.spec.service_account_name:
            raise refusal(attributes, f"{cannot} a service account")
        things = {resource for resource, _, _ in referred(pod, pod.spec, attributes.namespace)}
        for resource, shown in REFERRED.items():
            if resource in things:
                raise refusal(attributes, f"{cannot} {shown}")
        for volume in pod.spec.volumes:
            sources = volume.projected.sources if volume.projected else ()
            if any(source.cluster_trust_bundle for source in sources):
                raise refusal(attributes, f"{cannot} clustertrustbundles")

    async def _node(self, node: str, attributes: Attributes) -> None:
        name = name_of(attributes)
        if name != node:
            raise refusal(attributes, f'node "{node}" is not allowed to modify node "{name}"')
        if attributes.operation == "DELETE":
            return
        new, old = attributes.obj, attributes.old
        if attributes.operation == "CREATE":
            if labels := _forbidden_labels(new.metadata.labels, {}):
                listed = ", ".join(labels)
                raise refusal(attributes, f'node "{node}" is not allowed to set the following labels: {listed}')
            return
        if _taints(new) != _taints(old):
            raise refusal(attributes, f'node "{node}" is not allowed to modify taints')
        if labels := _forbidden_labels(new.metadata.labels, old.metadata.labels):
            raise refusal(attributes, f"is not allowed to modify labels: {', '.join(labels)}")

    async def _claim(self, node: str, attributes: Attributes) -> None:
        if attributes.subresource != "status":
            raise refusal(attributes, "may only update PVC status")
        if attributes.operation != "UPDATE":
            raise refusal(attributes, f'unexpected operation "{attributes.operation}"')
        if _but_for_size(attributes.obj) != _but_for_size(attributes.old):
            only = "status.capacity and status.conditions"
            raise refusal(attributes, f'node "{node}" is not allowed to update fields other than {only}')

    async def _account(self, node: str, attributes: Attributes) -> None:
        wanted = attributes.obj
        if attributes.operation != "CREATE" or not isinstance(wanted, TokenRequest):
            return
        bound = wanted.spec.bound_object_ref if wanted.spec else None
        if bound is None or (bound.api_version, bound.kind) != ("v1", "Pod") or not bound.name:
            raise refusal(attributes, "node requested token not bound to a pod")
        if not bound.uid:
            raise refusal(attributes, "node requested token with a pod binding without a uid")
        pod = await self._found_pod(attributes.namespace, bound.name)
        if bound.uid != pod.metadata.uid:
            detail = f"the UID in the bound object reference ({bound.uid}) does not match the UID in record. "
            raise refusal(attributes, f"{detail}The object might have been deleted and then recreated")
        if pod.spec is None or pod.spec.node_name != node:
            raise refusal(attributes, "node requested token bound to a pod scheduled on a different node")

    async def _lease(self, node: str, attributes: Attributes) -> None:
        if attributes.namespace == data_planes.NAMESPACE and name_of(attributes) in data_planes.leases_of(node):
            return
        if attributes.namespace != LEASES_NAMESPACE:
            raise refusal(attributes, f'can only access leases in the "{LEASES_NAMESPACE}" system namespace')
        if name_of(attributes) != node:
            raise refusal(attributes, "can only access node lease with the same name as the requesting node")

    async def _csi_node(self, node: str, attributes: Attributes) -> None:
        if name_of(attributes) != node:
            raise refusal(attributes, "can only access CSINode with the same name as the requesting node")

    async def _slice(self, node: str, attributes: Attributes) -> None:
        found = attributes.obj if attributes.operation == "CREATE" else attributes.old
        if found.spec.node_name != node:
            doing = "create" if attributes.operation == "CREATE" else attributes.operation.lower()
            raise refusal(attributes, f"can only {doing} ResourceSlice with the same NodeName as the requesting node")

    async def _found_pod(self, namespace: str, name: str) -> Pod:
        record = await self._store.get(f"pods/{namespace}/{name}")
        if record is None:
            raise NotFound.of("", "pods", name)
        pod: Pod = decoder(Pod).decode(record.value)
        return pod


def _must_be_on(node: str, pod: Pod, attributes: Attributes, doing: str) -> None:
    """Raises Forbidden."""
    if pod.spec is None or pod.spec.node_name != node:
        refused: Forbidden = refusal(attributes, f'node "{node}" can only {doing} with spec.nodeName set to itself')
        raise refused


def _taints(node: Node) -> list[Any]:
    return node.spec.taints if node.spec else []


def _claim_statuses(pod: Pod) -> list[Any]:
    return pod.status.resource_claim_statuses if pod.status else []


def _but_for_size(claim: PersistentVolumeClaim) -> PersistentVolumeClaim:
    """The claim without what a node reports after it has resized the volume."""
    metadata = replace(claim.metadata, resource_version=None, managed_fields=[])
    status = claim.status
    if status is not None:
        status = replace(status, capacity={}, conditions=[], allocated_resource_statuses={}, allocated_resources={})
    return replace(claim, metadata=metadata, status=status)


def _forbidden_labels(new: Mapping[str, str], old: Mapping[str, str]) -> list[str]:
    """Labels that changed and aren't a node's to change."""
    changed = {key for key in new.keys() | old.keys() if new.get(key) != old.get(key)}
    return sorted(key for key in changed if _is_forbidden(key))


def _is_forbidden(key: str) -> bool:
    domain, slash, _ = key.partition("/")
    if not slash:
        return False
    if _within(domain, RESTRICTED):
        return True
    if not any(_within(domain, own) for own in OWN_DOMAINS):
        return False
    return key not in KUBELET_LABELS and not any(_within(domain, allowed) for allowed in KUBELET_DOMAINS)


def _within(domain: str, parent: str) -> bool:
    return domain == parent or domain.endswith("." + parent)
