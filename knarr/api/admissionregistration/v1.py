"""The types of the API group admissionregistration, v1; knarr.api.types tells how to read a field."""

from __future__ import annotations

from typing import Annotated

from knarr.api.meta.v1 import Condition, LabelSelector, ObjectMeta
from knarr.api.types import Int32, Int64, Merge, Struct, always


class ApplyConfiguration(Struct):
    expression: str | None = None


class AuditAnnotation(Struct):
    key: str = always("")
    value_expression: str = always("")


class ExpressionWarning(Struct):
    field_ref: str = always("")
    warning: str = always("")


class JSONPatch(Struct):
    expression: str | None = None


class MatchCondition(Struct):
    expression: str = always("")
    name: str = always("")


class MatchResources(Struct):
    atomic = True

    exclude_resource_rules: list[NamedRuleWithOperations] = []
    match_policy: str | None = None
    namespace_selector: LabelSelector | None = None
    object_selector: LabelSelector | None = None
    resource_rules: list[NamedRuleWithOperations] = []


class MutatingAdmissionPolicy(Struct):
    api_version: str = always("admissionregistration.k8s.io/v1")
    kind: str = always("MutatingAdmissionPolicy")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: MutatingAdmissionPolicySpec | None = None


class MutatingAdmissionPolicyBinding(Struct):
    api_version: str = always("admissionregistration.k8s.io/v1")
    kind: str = always("MutatingAdmissionPolicyBinding")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: MutatingAdmissionPolicyBindingSpec | None = None


class MutatingAdmissionPolicyBindingSpec(Struct):
    match_resources: MatchResources | None = None
    param_ref: ParamRef | None = None
    policy_name: str | None = None


class MutatingAdmissionPolicySpec(Struct):
    failure_policy: str | None = None
    match_conditions: Annotated[
        list[MatchCondition], Merge("map", keys=("name",), patch_key="name", strategy=("merge",))
    ] = []
    match_constraints: MatchResources | None = None
    mutations: list[Mutation] = []
    param_kind: ParamKind | None = None
    reinvocation_policy: str | None = None
    variables: list[Variable] = []


class WebhookClientConfig(Struct):
    ca_bundle: bytes | None = None
    service: ServiceReference | None = None
    url: str | None = None


class MutatingWebhook(Struct):
    admission_review_versions: list[str] = always([])
    client_config: WebhookClientConfig = always(WebhookClientConfig)
    failure_policy: str | None = None
    match_conditions: Annotated[
        list[MatchCondition], Merge("map", keys=("name",), patch_key="name", strategy=("merge",))
    ] = []
    match_policy: str | None = None
    name: str = always("")
    namespace_selector: LabelSelector | None = None
    object_selector: LabelSelector | None = None
    reinvocation_policy: str | None = None
    rules: list[RuleWithOperations] = []
    side_effects: str = always("")
    timeout_seconds: Int32 | None = None


class MutatingWebhookConfiguration(Struct):
    api_version: str = always("admissionregistration.k8s.io/v1")
    kind: str = always("MutatingWebhookConfiguration")
    metadata: ObjectMeta = always(ObjectMeta)
    webhooks: Annotated[list[MutatingWebhook], Merge("map", keys=("name",), patch_key="name", strategy=("merge",))] = []


class Mutation(Struct):
    apply_configuration: ApplyConfiguration | None = None
    json_patch: JSONPatch | None = None
    patch_type: str = always("")


class NamedRuleWithOperations(Struct):
    atomic = True

    api_groups: list[str] = []
    api_versions: list[str] = []
    operations: list[str] = []
    resource_names: list[str] = []
    resources: list[str] = []
    scope: str | None = None


class ParamKind(Struct):
    atomic = True

    api_version: str | None = None
    kind: str | None = None


class ParamRef(Struct):
    atomic = True

    name: str | None = None
    namespace: str | None = None
    parameter_not_found_action: str | None = None
    selector: LabelSelector | None = None


class RuleWithOperations(Struct):
    api_groups: list[str] = []
    api_versions: list[str] = []
    operations: list[str] = []
    resources: list[str] = []
    scope: str | None = None


class ServiceReference(Struct):
    name: str = always("")
    namespace: str = always("")
    path: str | None = None
    port: Int32 | None = None


class TypeChecking(Struct):
    expression_warnings: list[ExpressionWarning] = []


class ValidatingAdmissionPolicy(Struct):
    api_version: str = always("admissionregistration.k8s.io/v1")
    kind: str = always("ValidatingAdmissionPolicy")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: ValidatingAdmissionPolicySpec | None = None
    status: ValidatingAdmissionPolicyStatus | None = None


class ValidatingAdmissionPolicyBindingSpec(Struct):
    match_resources: MatchResources | None = None
    param_ref: ParamRef | None = None
    policy_name: str = always("")
    validation_actions: Annotated[list[str], Merge("set")] = always([])


class ValidatingAdmissionPolicyBinding(Struct):
    api_version: str = always("admissionregistration.k8s.io/v1")
    kind: str = always("ValidatingAdmissionPolicyBinding")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: ValidatingAdmissionPolicyBindingSpec = always(ValidatingAdmissionPolicyBindingSpec)


class ValidatingAdmissionPolicySpec(Struct):
    audit_annotations: list[AuditAnnotation] = []
    failure_policy: str | None = None
    match_conditions: Annotated[
        list[MatchCondition], Merge("map", keys=("name",), patch_key="name", strategy=("merge",))
    ] = []
    match_constraints: MatchResources | None = None
    param_kind: ParamKind | None = None
    validations: list[Validation] = []
    variables: Annotated[list[Variable], Merge("map", keys=("name",), patch_key="name", strategy=("merge",))] = []


class ValidatingAdmissionPolicyStatus(Struct):
    conditions: Annotated[list[Condition], Merge("map", keys=("type",))] = []
    observed_generation: Int64 | None = None
    type_checking: TypeChecking | None = None


class ValidatingWebhook(Struct):
    admission_review_versions: list[str] = always([])
    client_config: WebhookClientConfig = always(WebhookClientConfig)
    failure_policy: str | None = None
    match_conditions: Annotated[
        list[MatchCondition], Merge("map", keys=("name",), patch_key="name", strategy=("merge",))
    ] = []
    match_policy: str | None = None
    name: str = always("")
    namespace_selector: LabelSelector | None = None
    object_selector: LabelSelector | None = None
    rules: list[RuleWithOperations] = []
    side_effects: str = always("")
    timeout_seconds: Int32 | None = None


class ValidatingWebhookConfiguration(Struct):
    api_version: str = always("admissionregistration.k8s.io/v1")
    kind: str = always("ValidatingWebhookConfiguration")
    metadata: ObjectMeta = always(ObjectMeta)
    webhooks: Annotated[
        list[ValidatingWebhook], Merge("map", keys=("name",), patch_key="name", strategy=("merge",))
    ] = []


class Validation(Struct):
    expression: str = always("")
    message: str | None = None
    message_expression: str | None = None
    reason: str | None = None


class Variable(Struct):
    atomic = True

    expression: str = always("")
    name: str = always("")
