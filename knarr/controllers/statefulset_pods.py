"""The pods of a StatefulSet: each has an ordinal, and by it a name, a host name and claims of its own.

Pure functions over values (upstream's pkg/controller/statefulset/stateful_set_utils.go, KEP-1847 for claims).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from knarr.api.apps.v1 import StatefulSet, StatefulSetSpec
from knarr.api.core.v1 import (
    PersistentVolumeClaim,
    PersistentVolumeClaimVolumeSource,
    Pod,
    PodSpec,
    PodTemplateSpec,
    Volume,
)
from knarr.api.meta.owners import owner_reference
from knarr.api.meta.v1 import ObjectMeta, OwnerReference
from knarr.api.types import replace
from knarr.controllers.history import REVISION_LABEL
from knarr.controllers.pods import from_template

NAME_LABEL = "statefulset.kubernetes.io/pod-name"
INDEX_LABEL = "apps.kubernetes.io/pod-index"


def spec_of(stateful_set: StatefulSet) -> StatefulSetSpec:
    assert stateful_set.spec is not None
    return stateful_set.spec


def ordinals(stateful_set: StatefulSet) -> range:
    """Of the pods that it should have."""
    spec = spec_of(stateful_set)
    start = (spec.ordinals.start if spec.ordinals else None) or 0
    return range(start, start + (1 if spec.replicas is None else spec.replicas))


def ordinal_of(stateful_set: StatefulSet, pod_name: str | None) -> int | None:
    """web-3 → 3; None when the name is none of this set's."""
    parent, _, number = (pod_name or "").rpartition("-")
    if parent != stateful_set.metadata.name or not (number.isascii() and number.isdigit()):
        return None
    return int(number) if str(int(number)) == number and len(number) < 10 else None


def name_of(stateful_set: StatefulSet, ordinal: int) -> str:
    return f"{stateful_set.metadata.name}-{ordinal}"


def make_pod(stateful_set: StatefulSet, template: PodTemplateSpec, revision: str, ordinal: int) -> Pod:
    """The pod of an ordinal as it is to be created."""
    pod = from_template(template, stateful_set)
    labels = {**pod.metadata.labels, REVISION_LABEL: revision}
    pod.metadata.generate_name = None
    made = _with_identity(stateful_set, replace(pod, metadata=replace(pod.metadata, labels=labels)), ordinal)
    spec = made.spec or PodSpec()
    made.spec = replace(spec, hostname=made.metadata.name, subdomain=spec_of(stateful_set).service_name)
    return made


def has_identity(stateful_set: StatefulSet, pod: Pod) -> bool:
    """Whether the pod carries the labels that tell its ordinal, and uses its own claims."""
    ordinal = ordinal_of(stateful_set, pod.metadata.name)
    if ordinal is None or pod.metadata.labels.get(NAME_LABEL) != pod.metadata.name:
        return False
    used = {volume.name: volume.persistent_volume_claim for volume in pod.spec.volumes} if pod.spec else {}
    return all(
        (source := used.get(claim_template(claim))) is not None
        and source.claim_name == claim_name(stateful_set, claim, ordinal)
        for claim in spec_of(stateful_set).volume_claim_templates
    )


def _with_identity(stateful_set: StatefulSet, pod: Pod, ordinal: int) -> Pod:
    spec, name = pod.spec or PodSpec(), name_of(stateful_set, ordinal)
    claimed = [
        Volume(
            name=claim_template(claim),
            persistent_volume_claim=PersistentVolumeClaimVolumeSource(
                claim_name=claim_name(stateful_set, claim, ordinal)
            ),
        )
        for claim in spec_of(stateful_set).volume_claim_templates
    ]
    names = {volume.name for volume in claimed}
    labels = {**pod.metadata.labels, NAME_LABEL: name, INDEX_LABEL: str(ordinal)}
    return replace(
        pod,
        metadata=replace(pod.metadata, name=name, labels=labels),
        spec=replace(spec, volumes=claimed + [volume for volume in spec.volumes if volume.name not in names]),
    )


def with_identity(stateful_set: StatefulSet, pod: Pod) -> Pod:
    """The pod with the labels that tell its ordinal, and with its own claims."""
    ordinal = ordinal_of(stateful_set, pod.metadata.name)
    assert ordinal is not None
    return _with_identity(stateful_set, pod, ordinal)


# Claims


def claim_template(claim: PersistentVolumeClaim) -> str:
    return claim.metadata.name or ""


def claim_name(stateful_set: StatefulSet, template: PersistentVolumeClaim, ordinal: int) -> str:
    return f"{claim_template(template)}-{name_of(stateful_set, ordinal)}"


def claim_names(stateful_set: StatefulSet, ordinal: int) -> Iterable[str]:
    return (claim_name(stateful_set, claim, ordinal) for claim in spec_of(stateful_set).volume_claim_templates)


def make_claims(stateful_set: StatefulSet, ordinal: int, pod: Pod | None) -> list[PersistentVolumeClaim]:
    """The claims of an ordinal as they are to be created, `pod` being there or not."""
    spec = spec_of(stateful_set)
    made = []
    for template in spec.volume_claim_templates:
        metadata = ObjectMeta(
            name=claim_name(stateful_set, template, ordinal),
            namespace=stateful_set.metadata.namespace,
            labels={**template.metadata.labels, **spec.selector.match_labels},
            annotations=template.metadata.annotations,
        )
        claim = PersistentVolumeClaim(metadata=metadata, spec=template.spec)
        metadata.owner_references = claim_owners(stateful_set, claim, ordinal, pod)
        made.append(claim)
    return made


def claim_owners(
    stateful_set: StatefulSet, claim: PersistentVolumeClaim, ordinal: int, pod: Pod | None
) -> list[OwnerReference]:
    """Who should own a claim, so that it goes when the retention policy says so.

    A pod that is to go for good takes its claim along with whenScaled: Delete, the set all others with whenDeleted:
    Delete. Owners that are neither stay; where one of those is the claim's controller, nothing is changed.
    """
    references = claim.metadata.owner_references
    ours = {stateful_set.metadata.uid}
    others = [
        reference
        for reference in references
        if reference.uid not in ours and not _is_pod(reference, name_of(stateful_set, ordinal))
    ]
    if any(reference.controller for reference in others):
        return references
    policy = spec_of(stateful_set).persistent_volume_claim_retention_policy
    if policy and policy.when_scaled == "Delete" and ordinal not in ordinals(stateful_set):
        return [*others, owner_reference(pod)] if pod else others
    if policy and policy.when_deleted == "Delete":
        return [*others, owner_reference(stateful_set)]
    return others


def is_stale(stateful_set: StatefulSet, claim: PersistentVolumeClaim, ordinal: int) -> bool:
    """Whether a claim is about to go together with an earlier pod of the ordinal, which is gone already."""
    name = name_of(stateful_set, ordinal)
    return any(_is_pod(reference, name) for reference in claim.metadata.owner_references)


def _is_pod(reference: Any, name: str) -> bool:
    return bool(reference.kind == "Pod" and reference.name == name)
