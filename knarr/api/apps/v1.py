"""The types of the API group apps, v1; knarr.api.types tells how to read a field."""

from __future__ import annotations

from typing import Annotated

from knarr.api.core.v1 import PersistentVolumeClaim, PodTemplateSpec
from knarr.api.meta.v1 import LabelSelector, ObjectMeta
from knarr.api.types import Int32, Int64, IntOrString, Merge, RawObject, Struct, Time, always


class ControllerRevision(Struct):
    api_version: str = always("apps/v1")
    kind: str = always("ControllerRevision")
    metadata: ObjectMeta = always(ObjectMeta)
    data: RawObject | None = None
    revision: Int64 = always(0)


class DaemonSet(Struct):
    api_version: str = always("apps/v1")
    kind: str = always("DaemonSet")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: DaemonSetSpec | None = None
    status: DaemonSetStatus | None = None


class DaemonSetCondition(Struct):
    last_transition_time: Time | None = None
    message: str | None = None
    reason: str | None = None
    status: str = always("")
    type: str = always("")


class DaemonSetSpec(Struct):
    min_ready_seconds: Int32 | None = None
    revision_history_limit: Int32 | None = None
    selector: LabelSelector = always(LabelSelector)
    template: PodTemplateSpec = always(PodTemplateSpec)
    update_strategy: DaemonSetUpdateStrategy | None = None


class DaemonSetStatus(Struct):
    collision_count: Int32 | None = None
    conditions: Annotated[
        list[DaemonSetCondition], Merge("map", keys=("type",), patch_key="type", strategy=("merge",))
    ] = []
    current_number_scheduled: Int32 = always(0)
    desired_number_scheduled: Int32 = always(0)
    number_available: Int32 | None = None
    number_misscheduled: Int32 = always(0)
    number_ready: Int32 = always(0)
    number_unavailable: Int32 | None = None
    observed_generation: Int64 | None = None
    updated_number_scheduled: Int32 | None = None


class DaemonSetUpdateStrategy(Struct):
    rolling_update: RollingUpdateDaemonSet | None = None
    type: str | None = None


class Deployment(Struct):
    api_version: str = always("apps/v1")
    kind: str = always("Deployment")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: DeploymentSpec | None = None
    status: DeploymentStatus | None = None


class DeploymentCondition(Struct):
    last_transition_time: Time | None = None
    last_update_time: Time | None = None
    message: str | None = None
    reason: str | None = None
    status: str = always("")
    type: str = always("")


class DeploymentSpec(Struct):
    min_ready_seconds: Int32 | None = None
    paused: bool | None = None
    progress_deadline_seconds: Int32 | None = None
    replicas: Int32 | None = None
    revision_history_limit: Int32 | None = None
    selector: LabelSelector = always(LabelSelector)
    strategy: Annotated[DeploymentStrategy, Merge(strategy=("retainKeys",))] | None = None
    template: PodTemplateSpec = always(PodTemplateSpec)


class DeploymentStatus(Struct):
    available_replicas: Int32 | None = None
    collision_count: Int32 | None = None
    conditions: Annotated[
        list[DeploymentCondition], Merge("map", keys=("type",), patch_key="type", strategy=("merge",))
    ] = []
    observed_generation: Int64 | None = None
    ready_replicas: Int32 | None = None
    replicas: Int32 | None = None
    terminating_replicas: Int32 | None = None
    unavailable_replicas: Int32 | None = None
    updated_replicas: Int32 | None = None


class DeploymentStrategy(Struct):
    rolling_update: RollingUpdateDeployment | None = None
    type: str | None = None


class ReplicaSet(Struct):
    api_version: str = always("apps/v1")
    kind: str = always("ReplicaSet")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: ReplicaSetSpec | None = None
    status: ReplicaSetStatus | None = None


class ReplicaSetCondition(Struct):
    last_transition_time: Time | None = None
    message: str | None = None
    reason: str | None = None
    status: str = always("")
    type: str = always("")


class ReplicaSetSpec(Struct):
    min_ready_seconds: Int32 | None = None
    replicas: Int32 | None = None
    selector: LabelSelector = always(LabelSelector)
    template: PodTemplateSpec | None = None


class ReplicaSetStatus(Struct):
    available_replicas: Int32 | None = None
    conditions: Annotated[
        list[ReplicaSetCondition], Merge("map", keys=("type",), patch_key="type", strategy=("merge",))
    ] = []
    fully_labeled_replicas: Int32 | None = None
    observed_generation: Int64 | None = None
    ready_replicas: Int32 | None = None
    replicas: Int32 = always(0)
    terminating_replicas: Int32 | None = None


class RollingUpdateDaemonSet(Struct):
    max_surge: IntOrString | None = None
    max_unavailable: IntOrString | None = None


class RollingUpdateDeployment(Struct):
    max_surge: IntOrString | None = None
    max_unavailable: IntOrString | None = None


class RollingUpdateStatefulSetStrategy(Struct):
    max_unavailable: IntOrString | None = None
    partition: Int32 | None = None


class StatefulSet(Struct):
    api_version: str = always("apps/v1")
    kind: str = always("StatefulSet")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: StatefulSetSpec | None = None
    status: StatefulSetStatus | None = None


class StatefulSetCondition(Struct):
    last_transition_time: Time | None = None
    message: str | None = None
    reason: str | None = None
    status: str = always("")
    type: str = always("")


class StatefulSetOrdinals(Struct):
    start: Int32 | None = None


class StatefulSetPersistentVolumeClaimRetentionPolicy(Struct):
    when_deleted: str | None = None
    when_scaled: str | None = None


class StatefulSetSpec(Struct):
    min_ready_seconds: Int32 | None = None
    ordinals: StatefulSetOrdinals | None = None
    persistent_volume_claim_retention_policy: StatefulSetPersistentVolumeClaimRetentionPolicy | None = None
    pod_management_policy: str | None = None
    replicas: Int32 | None = None
    revision_history_limit: Int32 | None = None
    selector: LabelSelector = always(LabelSelector)
    service_name: str | None = None
    template: PodTemplateSpec = always(PodTemplateSpec)
    update_strategy: StatefulSetUpdateStrategy | None = None
    volume_claim_templates: list[PersistentVolumeClaim] = []


class StatefulSetStatus(Struct):
    available_replicas: Int32 | None = None
    collision_count: Int32 | None = None
    conditions: Annotated[
        list[StatefulSetCondition], Merge("map", keys=("type",), patch_key="type", strategy=("merge",))
    ] = []
    current_replicas: Int32 | None = None
    current_revision: str | None = None
    observed_generation: Int64 | None = None
    ready_replicas: Int32 | None = None
    replicas: Int32 = always(0)
    update_revision: str | None = None
    updated_replicas: Int32 | None = None


class StatefulSetUpdateStrategy(Struct):
    rolling_update: RollingUpdateStatefulSetStrategy | None = None
    type: str | None = None
