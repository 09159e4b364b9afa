"""The history of a Deployment: which ReplicaSet holds its present template, and the numbers of those before.

Revisions count from 1; a rollback makes an old ReplicaSet the newest again, and its annotation revision-history keeps
the numbers that it had before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import msgspec

from knarr.api.apps.v1 import Deployment, ReplicaSet, ReplicaSetSpec
from knarr.api.core.v1 import PodTemplateSpec
from knarr.api.meta.owners import owner_reference
from knarr.api.meta.v1 import LabelSelector, ObjectMeta
from knarr.api.types import replace
from knarr.controllers.rolling import creation, new_replicas, replicas_of, size_annotations

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
REVISION_HISTORY_LENGTH_MAX = 2000
"""Characters of the annotation; the oldest numbers are dropped."""
FAILED_TEMPLATE = "knarr.dev/rollback-failed-template"
ROLLED_BACK_TO = "knarr.dev/rolled-back-to-template"
"""Hashes of templates; see knarr.controllers.rollback."""
OWN_ANNOTATIONS = frozenset(
    {
        FAILED_TEMPLATE,
        ROLLED_BACK_TO,
        "kubectl.kubernetes.io/last-applied-configuration",
        REVISION,
        REVISION_HISTORY,
        "deployment.kubernetes.io/desired-replicas",
        "deployment.kubernetes.io/max-replicas",
        "deprecated.deployment.rollback.to",
    }
)
"""Annotations that a Deployment doesn't pass on to its ReplicaSets."""
SAFE_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""No vowels and nothing that looks like one: names don't spell words (apimachinery's rand)."""


def find_new(deployment: Deployment, replica_sets: Iterable[ReplicaSet]) -> ReplicaSet | None:
    """The ReplicaSet with the present template; the oldest, should there be several."""
    assert deployment.spec is not None
    for replica_set in sorted(replica_sets, key=creation):
        assert replica_set.spec is not None
        if replica_set.spec.template and same_template(replica_set.spec.template, deployment.spec.template):
            return replica_set
    return None


def same_template(left: PodTemplateSpec, right: PodTemplateSpec) -> bool:
    """Equal but for the hash label."""
    return left.spec == right.spec and _without_hash(left.metadata) == _without_hash(right.metadata)


def template_hash(template: PodTemplateSpec, collisions: int) -> str:
    """A short stable hash of a template; another one for each collision."""
    written = msgspec.json.encode(template, order="sorted")
    digest = hashlib.blake2b(written, digest_size=4, salt=collisions.to_bytes(8, "big")).digest()
    number = str(int.from_bytes(digest, "big"))
    return "".join(SAFE_ALPHABET[ord(digit) % len(SAFE_ALPHABET)] for digit in number)


def make_new(deployment: Deployment, old: Sequence[ReplicaSet], revision: int) -> ReplicaSet:
    """The ReplicaSet for the present template, as it is to be created."""
    assert deployment.spec is not None
    spec = deployment.spec
    hashed = template_hash(spec.template, (deployment.status.collision_count if deployment.status else None) or 0)
    metadata = spec.template.metadata or ObjectMeta()
    labels = {**metadata.labels, HASH_LABEL: hashed}
    selector = LabelSelector(
        match_labels={**spec.selector.match_labels, HASH_LABEL: hashed},
        match_expressions=spec.selector.match_expressions,
    )
    return ReplicaSet(
        metadata=ObjectMeta(
            name=f"{deployment.metadata.name}-{hashed}",
            namespace=deployment.metadata.namespace,
            labels=labels,
            annotations={
                **_passed_on(deployment),
                REVISION: str(revision),
                **size_annotations(deployment),
            },
            owner_references=[owner_reference(deployment)],
        ),
        spec=ReplicaSetSpec(
            replicas=new_replicas(deployment, old, 0),
            min_ready_seconds=spec.min_ready_seconds,
            selector=selector,
            template=replace(spec.template, metadata=replace(metadata, labels=labels)),
        ),
    )


def renewed(deployment: Deployment, replica_set: ReplicaSet, revision: int) -> ReplicaSet:
    """The ReplicaSet of the present template as it should be: annotations, revision, minReadySeconds. May be equal."""
    assert deployment.spec is not None
    assert replica_set.spec is not None
    annotations = {**replica_set.metadata.annotations, **_passed_on(deployment)}
    written = annotations.get(REVISION)
    if revision_of(replica_set) < revision:
        annotations[REVISION] = str(revision)
        if written is not None:
            history = _with_revision(annotations.get(REVISION_HISTORY, ""), written)
            if history is not None:
                annotations[REVISION_HISTORY] = history
    return replace(
        replica_set,
        metadata=replace(replica_set.metadata, annotations=annotations),
        spec=replace(replica_set.spec, min_ready_seconds=deployment.spec.min_ready_seconds),
    )


def revision_of(replica_set: ReplicaSet) -> int:
    written = replica_set.metadata.annotations.get(REVISION, "")
    return int(written) if written.isascii() and written.isdigit() else 0


def next_revision(old: Iterable[ReplicaSet]) -> int:
    return max((revision_of(replica_set) for replica_set in old), default=0) + 1


def expendable(deployment: Deployment, old: Sequence[ReplicaSet]) -> list[ReplicaSet]:
    """Old ReplicaSets beyond revisionHistoryLimit, the oldest revisions first; none that has, or may have, pods."""
    assert deployment.spec is not None
    limit = deployment.spec.revision_history_limit
    if limit is None or limit == 2**31 - 1:
        return []
    alive = [replica_set for replica_set in old if replica_set.metadata.deletion_timestamp is None]
    excess = len(alive) - limit
    if excess <= 0:
        return []
    alive.sort(key=lambda replica_set: (revision_of(replica_set), creation(replica_set)))
    return [replica_set for replica_set in alive[:excess] if _is_settled_at_zero(replica_set)]


def _is_settled_at_zero(replica_set: ReplicaSet) -> bool:
    status = replica_set.status
    observed = (status.observed_generation if status else None) or 0
    return (
        replicas_of(replica_set) == 0
        and (status.replicas if status else 0) == 0
        and (replica_set.metadata.generation or 0) <= observed
    )


def _passed_on(deployment: Deployment) -> dict[str, str]:
    return {key: value for key, value in deployment.metadata.annotations.items() if key not in OWN_ANNOTATIONS}


def _with_revision(history: str, revision: str) -> str | None:
    """`history` with one more number, the oldest dropped while it is too long; None when it doesn't fit at all."""
    numbers = history.split(",") if history else []
    while numbers and len(",".join((*numbers, revision))) > REVISION_HISTORY_LENGTH_MAX:
        numbers.pop(0)
    joined = ",".join((*numbers, revision))
    return joined if len(joined) <= REVISION_HISTORY_LENGTH_MAX else None


def _without_hash(metadata: ObjectMeta | None) -> ObjectMeta:
    if metadata is None:
        return ObjectMeta()
    if HASH_LABEL not in metadata.labels:
        return metadata
    return replace(metadata, labels={key: value for key, value in metadata.labels.items() if key != HASH_LABEL})
