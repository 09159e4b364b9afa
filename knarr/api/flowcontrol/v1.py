"""The types of the API group flowcontrol, v1; knarr.api.types tells how to read a field."""

from __future__ import annotations

from typing import Annotated

from knarr.api.meta.v1 import ObjectMeta
from knarr.api.types import Int32, Merge, Struct, Time, always


class ExemptPriorityLevelConfiguration(Struct):
    lendable_percent: Int32 | None = None
    nominal_concurrency_shares: Int32 | None = None


class FlowDistinguisherMethod(Struct):
    type: str = always("")


class FlowSchema(Struct):
    api_version: str = always("flowcontrol.apiserver.k8s.io/v1")
    kind: str = always("FlowSchema")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: FlowSchemaSpec | None = None
    status: FlowSchemaStatus | None = None


class FlowSchemaCondition(Struct):
    last_transition_time: Time | None = None
    message: str | None = None
    reason: str | None = None
    status: str | None = None
    type: str | None = None


class PriorityLevelConfigurationReference(Struct):
    name: str = always("")


class FlowSchemaSpec(Struct):
    distinguisher_method: FlowDistinguisherMethod | None = None
    matching_precedence: Int32 | None = None
    priority_level_configuration: PriorityLevelConfigurationReference = always(PriorityLevelConfigurationReference)
    rules: list[PolicyRulesWithSubjects] = []


class FlowSchemaStatus(Struct):
    conditions: Annotated[
        list[FlowSchemaCondition], Merge("map", keys=("type",), patch_key="type", strategy=("merge",))
    ] = []


class GroupSubject(Struct):
    name: str = always("")


class LimitResponse(Struct):
    queuing: QueuingConfiguration | None = None
    type: str = always("")


class LimitedPriorityLevelConfiguration(Struct):
    borrowing_limit_percent: Int32 | None = None
    lendable_percent: Int32 | None = None
    limit_response: LimitResponse | None = None
    nominal_concurrency_shares: Int32 | None = None


class NonResourcePolicyRule(Struct):
    non_resource_urls: Annotated[list[str], Merge("set")] = always([], name="nonResourceURLs")
    verbs: Annotated[list[str], Merge("set")] = always([])


class PolicyRulesWithSubjects(Struct):
    non_resource_rules: list[NonResourcePolicyRule] = []
    resource_rules: list[ResourcePolicyRule] = []
    subjects: list[Subject] = always([])


class PriorityLevelConfiguration(Struct):
    api_version: str = always("flowcontrol.apiserver.k8s.io/v1")
    kind: str = always("PriorityLevelConfiguration")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: PriorityLevelConfigurationSpec | None = None
    status: PriorityLevelConfigurationStatus | None = None


class PriorityLevelConfigurationCondition(Struct):
    last_transition_time: Time | None = None
    message: str | None = None
    reason: str | None = None
    status: str | None = None
    type: str | None = None


class PriorityLevelConfigurationSpec(Struct):
    exempt: ExemptPriorityLevelConfiguration | None = None
    limited: LimitedPriorityLevelConfiguration | None = None
    type: str = always("")


class PriorityLevelConfigurationStatus(Struct):
    conditions: Annotated[
        list[PriorityLevelConfigurationCondition], Merge("map", keys=("type",), patch_key="type", strategy=("merge",))
    ] = []


class QueuingConfiguration(Struct):
    hand_size: Int32 | None = None
    queue_length_limit: Int32 | None = None
    queues: Int32 | None = None


class ResourcePolicyRule(Struct):
    api_groups: Annotated[list[str], Merge("set")] = always([])
    cluster_scope: bool | None = None
    namespaces: Annotated[list[str], Merge("set")] = []
    resources: Annotated[list[str], Merge("set")] = always([])
    verbs: Annotated[list[str], Merge("set")] = always([])


class ServiceAccountSubject(Struct):
    name: str = always("")
    namespace: str = always("")


class Subject(Struct):
    group: GroupSubject | None = None
    kind: str = always("")
    service_account: ServiceAccountSubject | None = None
    user: UserSubject | None = None


class UserSubject(Struct):
    name: str = always("")
