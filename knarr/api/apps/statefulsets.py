"""StatefulSets: pods with names and storage of their own. Defaults, what may change, and how they are shown.

Follows upstream's SetDefaults_StatefulSet and ValidateStatefulSet (pkg/apis/apps).
"""

from __future__ import annotations

from collections.abc import Iterable

from knarr.api import names
from knarr.api.apps.v1 import (
    RollingUpdateStatefulSetStrategy,
    StatefulSet,
    StatefulSetPersistentVolumeClaimRetentionPolicy,
    StatefulSetSpec,
    StatefulSetStatus,
    StatefulSetUpdateStrategy,
)
from knarr.api.apps.workloads import count_of, validate_count_or_share, validate_share
from knarr.api.core.amounts import default_requirements
from knarr.api.core.pod_warnings import template_warnings
from knarr.api.core.podspec import default_template
from knarr.api.core.templates import (
    age_column,
    template_columns,
    validate_always_restarted,
    validate_pod_template,
    validate_selected,
)
from knarr.api.core.v1 import (
    PersistentVolumeClaim,
    PersistentVolumeClaimSpec,
    PersistentVolumeClaimStatus,
    PersistentVolumeClaimVolumeSource,
    PodSpec,
    PodTemplateSpec,
    Volume,
    VolumeResourceRequirements,
)
from knarr.api.core.validate_values import validate_not_negative, validate_selector
from knarr.api.errors import Cause, forbidden, invalid, not_supported, required
from knarr.api.meta.owners import selects_everything
from knarr.api.resources import Column, Strategy
from knarr.api.types import replace

POD_MANAGEMENT = ("OrderedReady", "Parallel")
CLAIM_RETENTION = ("Retain", "Delete")
CHANGEABLE = (
    "'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', "
    "'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds'"
)


class StatefulSetRules(Strategy[StatefulSet]):
    name_faults = staticmethod(names.dns1123_label_faults)  # It begins the names of its pods.
    has_status = True
    has_generation = True

    def default(self, obj: StatefulSet) -> None:
        spec = obj.spec = obj.spec or StatefulSetSpec()
        default_template(spec.template)
        spec.pod_management_policy = spec.pod_management_policy or "OrderedReady"
        strategy = spec.update_strategy = spec.update_strategy or StatefulSetUpdateStrategy()
        strategy.type = strategy.type or "RollingUpdate"
        if strategy.type == "RollingUpdate":
            rolling = strategy.rolling_update = strategy.rolling_update or RollingUpdateStatefulSetStrategy()
            rolling.partition = rolling.partition or 0
            rolling.max_unavailable = 1 if rolling.max_unavailable is None else rolling.max_unavailable
        retention = spec.persistent_volume_claim_retention_policy
        if retention is None:
            retention = spec.persistent_volume_claim_retention_policy = (
                StatefulSetPersistentVolumeClaimRetentionPolicy()
            )
        retention.when_deleted = retention.when_deleted or "Retain"
        retention.when_scaled = retention.when_scaled or "Retain"
        spec.replicas = 1 if spec.replicas is None else spec.replicas
        if spec.revision_history_limit is None:
            spec.revision_history_limit = 10
        for claim in spec.volume_claim_templates:
            _default_claim(claim)

    def warnings(self, obj: StatefulSet, old: StatefulSet | None) -> Iterable[str]:
        if old is None or obj.metadata.generation != old.metadata.generation:
            yield from template_warnings(obj.spec.template if obj.spec else None, "spec.template")

    def validate(self, obj: StatefulSet) -> Iterable[Cause]:
        spec = obj.spec or StatefulSetSpec()
        if spec.pod_management_policy not in POD_MANAGEMENT:
            detail = "must be 'OrderedReady' or 'Parallel'"
            yield invalid("spec.podManagementPolicy", spec.pod_management_policy, detail)
        yield from _validate_update_strategy(spec.update_strategy or StatefulSetUpdateStrategy(), "spec.updateStrategy")
        retention = spec.persistent_volume_claim_retention_policy or StatefulSetPersistentVolumeClaimRetentionPolicy()
        for field, value in (("whenDeleted", retention.when_deleted), ("whenScaled", retention.when_scaled)):
            if value not in CLAIM_RETENTION:
                path = f"spec.persistentVolumeClaimRetentionPolicy.{field}"
                yield not_supported(path, value, CLAIM_RETENTION, in_order=True)
        yield from validate_not_negative(spec.replicas, "spec.replicas")
        yield from validate_not_negative(spec.min_ready_seconds, "spec.minReadySeconds")
        yield from validate_not_negative(spec.revision_history_limit, "spec.revisionHistoryLimit")
        if spec.ordinals:
            yield from validate_not_negative(spec.ordinals.start, "spec.ordinals.start")
        if spec.service_name:
            for fault in names.dns1123_subdomain_faults(spec.service_name):
                yield invalid("spec.serviceName", spec.service_name, fault)
        yield from validate_selector(spec.selector, "spec.selector")
        if selects_everything(spec.selector):
            yield required("spec.selector")
        yield from validate_selected(spec.template, spec.selector, "spec.template")
        yield from validate_pod_template(_with_claims(spec), "spec.template")
        yield from validate_always_restarted(spec.template, "spec.template", "StatefulSet")

    def validate_update(self, obj: StatefulSet, old: StatefulSet) -> Iterable[Cause]:
        spec, before = obj.spec or StatefulSetSpec(), old.spec or StatefulSetSpec()
        rest = replace(
            spec,
            replicas=before.replicas,
            ordinals=before.ordinals,
            template=before.template,
            update_strategy=before.update_strategy,
            revision_history_limit=before.revision_history_limit,
            persistent_volume_claim_retention_policy=before.persistent_volume_claim_retention_policy,
            min_ready_seconds=before.min_ready_seconds,
            # Upstream takes absent and empty for the same.
            service_name=spec.service_name or (None if before.service_name else before.service_name),
        )
        if rest != before:
            yield forbidden("spec", f"updates to statefulset spec for fields other than {CHANGEABLE} are forbidden")

    def validate_status_update(self, obj: StatefulSet, old: StatefulSet) -> Iterable[Cause]:
        status, before = obj.status or StatefulSetStatus(), old.status or StatefulSetStatus()
        counts = {
            "readyReplicas": status.ready_replicas,
            "currentReplicas": status.current_replicas,
            "updatedReplicas": status.updated_replicas,
            "availableReplicas": status.available_replicas,
        }
        for field, count in {"replicas": status.replicas, **counts}.items():
            yield from validate_not_negative(count, f"status.{field}")
        yield from validate_not_negative(status.observed_generation, "status.observedGeneration")
        yield from validate_not_negative(status.collision_count, "status.collisionCount")
        for field, count in counts.items():
            if (count or 0) > status.replicas:
                yield invalid(f"status.{field}", count or 0, "cannot be greater than status.replicas")
        if (status.available_replicas or 0) > (status.ready_replicas or 0):
            detail = "cannot be greater than status.readyReplicas"
            yield invalid("status.availableReplicas", status.available_replicas, detail)
        if (status.collision_count or 0) < (before.collision_count or 0):
            yield invalid("status.collisionCount", status.collision_count or 0, "cannot be decremented")


def _default_claim(claim: PersistentVolumeClaim) -> None:
    """A claim of which copies are made, one for each pod."""
    claim.status = claim.status or PersistentVolumeClaimStatus()
    claim.status.phase = claim.status.phase or "Pending"
    spec = claim.spec = claim.spec or PersistentVolumeClaimSpec()
    spec.volume_mode = spec.volume_mode or "Filesystem"
    spec.resources = spec.resources or VolumeResourceRequirements()
    default_requirements(spec.resources)


def _with_claims(spec: StatefulSetSpec) -> PodTemplateSpec:
    """The template as its pods will be: with a volume for each claim, in place of one of the same name."""
    template = spec.template
    claims = {claim.metadata.name or "" for claim in spec.volume_claim_templates}
    if not claims:
        return template
    pod = template.spec or PodSpec()
    own = [volume for volume in pod.volumes if volume.name not in claims]
    claimed = [
        Volume(name=name, persistent_volume_claim=PersistentVolumeClaimVolumeSource(claim_name=name))
        for name in sorted(claims)
    ]
    return replace(template, spec=replace(pod, volumes=own + claimed))


def _validate_update_strategy(strategy: StatefulSetUpdateStrategy, path: str) -> Iterable[Cause]:
    rolling = strategy.rolling_update
    if strategy.type == "OnDelete":
        if rolling is not None:
            detail = "only allowed for updateStrategy 'RollingUpdate'"
            yield invalid(f"{path}.rollingUpdate", rolling, detail)
    elif strategy.type != "RollingUpdate":
        yield invalid(path, strategy, "must be 'RollingUpdate' or 'OnDelete'")
    elif rolling is not None:
        yield from validate_not_negative(rolling.partition, f"{path}.rollingUpdate.partition")
        missing, place = rolling.max_unavailable, f"{path}.rollingUpdate.maxUnavailable"
        if missing is not None:
            yield from validate_count_or_share(missing, place)
            if count_of(missing) == 0:
                yield invalid(place, missing, "cannot be 0")
            yield from validate_share(missing, place)


def _ready(obj: StatefulSet, now_s: float) -> str:
    ready = (obj.status.ready_replicas if obj.status else 0) or 0
    return f"{ready}/{(obj.spec.replicas if obj.spec else 0) or 0}"


STATEFUL_SET_COLUMNS = (
    Column("Ready", _ready),
    age_column(),
    *template_columns(lambda obj: obj.spec.template if obj.spec else None),
)
