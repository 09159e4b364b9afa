"""Which PersistentVolume suits a claim, and what it means that they belong together (core/v1, KEP-490 for nodes).

Pure functions over values: the binder, the scheduler and the nodes decide by the same rules.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from decimal import Decimal
from itertools import groupby

from knarr.api.core.node_affinity import term_matches
from knarr.api.core.v1 import (
    Node,
    ObjectReference,
    PersistentVolume,
    PersistentVolumeClaim,
    PersistentVolumeClaimSpec,
    PersistentVolumeSpec,
    Pod,
)
from knarr.api.core.volume_claims import CLASS_ANNOTATION
from knarr.api.meta.owners import controller_of, selector_for
from knarr.api.quantity import parse_quantity
from knarr.api.types import replace

BIND_COMPLETED = "pv.kubernetes.io/bind-completed"
BOUND_BY_CONTROLLER = "pv.kubernetes.io/bound-by-controller"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
PROVISIONERS = ("volume.beta.kubernetes.io/storage-provisioner", "volume.kubernetes.io/storage-provisioner")
"""Annotations of a claim: who is to make its volume."""
DEFAULT_CLASS = ("storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class")
LOCAL = "knarr.dev/local"
"""The provisioner that every knarr cluster has: a folder on the node."""
NO_PROVISIONER = "kubernetes.io/no-provisioner"


def claim_spec(claim: PersistentVolumeClaim) -> PersistentVolumeClaimSpec:
    return claim.spec or PersistentVolumeClaimSpec()


def volume_spec(volume: PersistentVolume) -> PersistentVolumeSpec:
    return volume.spec or PersistentVolumeSpec()


def claims_of(pod: Pod) -> Iterable[str]:
    """The claims that a pod mounts, with its namespace; those made for it too (generic ephemeral volumes)."""
    for volume in pod.spec.volumes if pod.spec else ():
        if volume.persistent_volume_claim:
            yield f"{pod.metadata.namespace}/{volume.persistent_volume_claim.claim_name}"
        elif volume.ephemeral:
            yield f"{pod.metadata.namespace}/{pod.metadata.name}-{volume.name}"


def is_made_for(claim: PersistentVolumeClaim, pod: Pod) -> bool:
    """Whether a claim is that of a pod's generic ephemeral volume."""
    owner = controller_of(claim)
    return owner is not None and owner.uid == pod.metadata.uid


def not_made_for(claim: PersistentVolumeClaim, pod: Pod) -> str:
    of_claim, of_pod = claim.metadata, pod.metadata
    whose = f"{of_pod.namespace}/{of_pod.name}"
    return f"PVC {of_claim.namespace}/{of_claim.name} was not created for pod {whose} (pod is not owner)"


def claim_class(claim: PersistentVolumeClaim) -> str:
    """The class that a claim names, in the old place or in the new."""
    old = claim.metadata.annotations.get(CLASS_ANNOTATION)
    return old if old is not None else claim_spec(claim).storage_class_name or ""


def volume_class(volume: PersistentVolume) -> str:
    old = volume.metadata.annotations.get(CLASS_ANNOTATION)
    return old if old is not None else volume_spec(volume).storage_class_name or ""


def asked(claim: PersistentVolumeClaim) -> Decimal:
    """The size that a claim asks for."""
    resources = claim_spec(claim).resources
    return parse_quantity(resources.requests.get("storage", 0) if resources else 0)


def capacity(volume: PersistentVolume) -> Decimal:
    return parse_quantity(volume_spec(volume).capacity.get("storage", 0))


def is_completely_bound(claim: PersistentVolumeClaim) -> bool:
    """Its volume is settled, and says so itself."""
    return bool(claim_spec(claim).volume_name) and BIND_COMPLETED in claim.metadata.annotations


def is_kept_for(volume: PersistentVolume, claim: PersistentVolumeClaim) -> bool:
    """The volume names the claim; without a uid it may be any claim of that name."""
    reference = volume_spec(volume).claim_ref
    return (
        reference is not None
        and (reference.name, reference.namespace) == (claim.metadata.name, claim.metadata.namespace)
        and (not reference.uid or reference.uid == claim.metadata.uid)
    )


def reaches(volume: PersistentVolume, node: Node) -> bool:
    """Whether a volume can be had on a node."""
    affinity = volume_spec(volume).node_affinity
    if affinity is None or affinity.required is None:
        return True
    return any(term_matches(term, node) for term in affinity.required.node_selector_terms)


def mismatch(volume: PersistentVolume, claim: PersistentVolumeClaim) -> str:
    """Why a volume that the claim names itself will not do; empty when it will."""
    of_claim, of_volume = claim_spec(claim), volume_spec(volume)
    if capacity(volume) < asked(claim):
        return "requested PV is too small"
    if volume_class(volume) != claim_class(claim):
        return "storageClassName does not match"
    if (of_claim.volume_attributes_class_name or "") != (of_volume.volume_attributes_class_name or ""):
        return "volumeAttributesClassName does not match"
    if not has_mode_of(volume, claim):
        return "incompatible volumeMode"
    return "" if set(of_claim.access_modes) <= set(of_volume.access_modes) else "incompatible accessMode"


def has_mode_of(volume: PersistentVolume, claim: PersistentVolumeClaim) -> bool:
    return (volume_spec(volume).volume_mode or "Filesystem") == (claim_spec(claim).volume_mode or "Filesystem")


def best_for(
    claim: PersistentVolumeClaim, volumes: Iterable[PersistentVolume], *, only_kept: bool = False
) -> PersistentVolume | None:
    """The volume for a claim, wherever it is: the one kept for it, else the smallest that is large enough.

    Those with the fewest access modes come first, and there the claim's own before others. `only_kept`: a pod is to
    come first, whose node decides; only a volume that names the claim will do.
    """
    wanted = set(claim_spec(claim).access_modes)

    def modes(volume: PersistentVolume) -> tuple[int, list[str]]:
        return len(volume_spec(volume).access_modes), sorted(volume_spec(volume).access_modes)

    able = sorted((each for each in volumes if wanted <= set(volume_spec(each).access_modes)), key=modes)
    for _, alike in groupby(able, key=modes):
        found = _best(claim, list(alike), only_kept=only_kept)
        if found is not None:
            return found
    return None


def best_on(
    claim: PersistentVolumeClaim, volumes: Iterable[PersistentVolume], node: Node, taken: Collection[str] = ()
) -> PersistentVolume | None:
    """The volume for a claim whose pod would come to `node`; those in `taken` are other claims' already."""
    free = [each for each in volumes if each.metadata.name not in taken]
    kept = next((each for each in free if is_kept_for(each, claim) and _usable(each, claim)), None)
    if kept is not None:
        return kept if reaches(kept, node) else None
    wanted = set(claim_spec(claim).access_modes)
    able = [each for each in free if reaches(each, node) and wanted <= set(volume_spec(each).access_modes)]
    return _best(claim, able, only_kept=False)


def _best(
    claim: PersistentVolumeClaim, volumes: Iterable[PersistentVolume], *, only_kept: bool
) -> PersistentVolume | None:
    usable = [each for each in volumes if _usable(each, claim)]
    for volume in usable:
        if is_kept_for(volume, claim):
            return volume
    if only_kept:
        return None
    selector = selector_for(claim_spec(claim).selector)
    wanted = claim_class(claim), claim_spec(claim).volume_attributes_class_name or ""
    free = [
        each
        for each in usable
        if volume_spec(each).claim_ref is None
        and (selector is None or selector.matches(each.metadata.labels))
        and (volume_class(each), volume_spec(each).volume_attributes_class_name or "") == wanted
    ]
    return min(free, key=lambda each: (capacity(each), each.metadata.name or ""), default=None)


def _usable(volume: PersistentVolume, claim: PersistentVolumeClaim) -> bool:
    return (
        volume.metadata.deletion_timestamp is None and has_mode_of(volume, claim) and capacity(volume) >= asked(claim)
    )


def kept_for(volume: PersistentVolume, claim: PersistentVolumeClaim) -> PersistentVolume:
    """The volume, naming the claim as its own; the same object when it does already."""
    reference = volume_spec(volume).claim_ref
    annotations = volume.metadata.annotations
    if not is_kept_for(volume, claim) and BOUND_BY_CONTROLLER not in annotations:
        annotations = {**annotations, BOUND_BY_CONTROLLER: "yes"}
    elif reference is not None and is_kept_for(volume, claim) and reference.uid:
        return volume
    metadata = claim.metadata
    reference = ObjectReference(
        api_version="v1",
        kind="PersistentVolumeClaim",
        name=metadata.name,
        namespace=metadata.namespace,
        resource_version=metadata.resource_version,
        uid=metadata.uid,
    )
    return replace(
        volume,
        metadata=replace(volume.metadata, annotations=annotations),
        spec=replace(volume_spec(volume), claim_ref=reference),
    )
