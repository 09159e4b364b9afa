"""The types of the API group apiextensions, v1; knarr.api.types tells how to read a field."""

from __future__ import annotations

from typing import Annotated

from knarr.api.meta.v1 import ObjectMeta
from knarr.api.types import Int32, Int64, Merge, RawObject, Struct, Time, always, named


class CustomResourceColumnDefinition(Struct):
    description: str | None = None
    format: str | None = None
    json_path: str = always("")
    name: str = always("")
    priority: Int32 | None = None
    type: str = always("")


class CustomResourceConversion(Struct):
    strategy: str = always("")
    webhook: WebhookConversion | None = None


class CustomResourceDefinitionNames(Struct):
    categories: list[str] = []
    kind: str = always("")
    list_kind: str | None = None
    plural: str = always("")
    short_names: list[str] = []
    singular: str | None = None


class CustomResourceDefinitionSpec(Struct):
    conversion: CustomResourceConversion | None = None
    group: str = always("")
    names: CustomResourceDefinitionNames = always(CustomResourceDefinitionNames)
    preserve_unknown_fields: bool | None = None
    scope: str = always("")
    versions: list[CustomResourceDefinitionVersion] = always([])


class CustomResourceDefinition(Struct):
    api_version: str = always("apiextensions.k8s.io/v1")
    kind: str = always("CustomResourceDefinition")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: CustomResourceDefinitionSpec = always(CustomResourceDefinitionSpec)
    status: CustomResourceDefinitionStatus | None = None


class CustomResourceDefinitionCondition(Struct):
    last_transition_time: Time | None = None
    message: str | None = None
    observed_generation: Int64 | None = None
    reason: str | None = None
    status: str = always("")
    type: str = always("")


class CustomResourceDefinitionStatus(Struct):
    accepted_names: CustomResourceDefinitionNames | None = None
    conditions: Annotated[list[CustomResourceDefinitionCondition], Merge("map", keys=("type",))] = []
    observed_generation: Int64 | None = None
    stored_versions: list[str] = []


class CustomResourceDefinitionVersion(Struct):
    additional_printer_columns: list[CustomResourceColumnDefinition] = []
    deprecated: bool | None = None
    deprecation_warning: str | None = None
    name: str = always("")
    schema: CustomResourceValidation | None = None
    selectable_fields: list[SelectableField] = []
    served: bool = always(False)
    storage: bool = always(False)
    subresources: CustomResourceSubresources | None = None


class CustomResourceSubresourceScale(Struct):
    label_selector_path: str | None = None
    spec_replicas_path: str = always("")
    status_replicas_path: str = always("")


class CustomResourceSubresourceStatus(Struct):
    pass


class CustomResourceSubresources(Struct):
    scale: CustomResourceSubresourceScale | None = None
    status: CustomResourceSubresourceStatus | None = None


class CustomResourceValidation(Struct):
    open_apiv3_schema: JSONSchemaProps | None = named("openAPIV3Schema", None)


class ExternalDocumentation(Struct):
    description: str | None = None
    url: str | None = None


class JSONSchemaProps(Struct):
    ref: str | None = named("$ref", None)
    schema: str | None = named("$schema", None)
    additional_items: RawObject | None = None
    additional_properties: RawObject | None = None
    all_of: list[JSONSchemaProps] = []
    any_of: list[JSONSchemaProps] = []
    default: RawObject | None = None
    definitions: dict[str, JSONSchemaProps] = {}
    dependencies: dict[str, RawObject] = {}
    description: str | None = None
    enum: list[RawObject] = []
    example: RawObject | None = None
    exclusive_maximum: bool | None = None
    exclusive_minimum: bool | None = None
    external_docs: ExternalDocumentation | None = None
    format: str | None = None
    id: str | None = None
    items: RawObject | None = None
    max_items: Int64 | None = None
    max_length: Int64 | None = None
    max_properties: Int64 | None = None
    maximum: float | None = None
    min_items: Int64 | None = None
    min_length: Int64 | None = None
    min_properties: Int64 | None = None
    minimum: float | None = None
    multiple_of: float | None = None
    not_: JSONSchemaProps | None = None
    nullable: bool | None = None
    one_of: list[JSONSchemaProps] = []
    pattern: str | None = None
    pattern_properties: dict[str, JSONSchemaProps] = {}
    properties: dict[str, JSONSchemaProps] = {}
    required: list[str] = []
    title: str | None = None
    type: str | None = None
    unique_items: bool | None = None
    x_kubernetes_embedded_resource: bool | None = named("x-kubernetes-embedded-resource", None)
    x_kubernetes_int_or_string: bool | None = named("x-kubernetes-int-or-string", None)
    x_kubernetes_list_map_keys: list[str] = named("x-kubernetes-list-map-keys", [])
    x_kubernetes_list_type: str | None = named("x-kubernetes-list-type", None)
    x_kubernetes_map_type: str | None = named("x-kubernetes-map-type", None)
    x_kubernetes_preserve_unknown_fields: bool | None = named("x-kubernetes-preserve-unknown-fields", None)
    x_kubernetes_validations: Annotated[
        list[ValidationRule], Merge("map", keys=("rule",), patch_key="rule", strategy=("merge",))
    ] = named("x-kubernetes-validations", [])


class SelectableField(Struct):
    json_path: str = always("")


class ServiceReference(Struct):
    name: str = always("")
    namespace: str = always("")
    path: str | None = None
    port: Int32 | None = None


class ValidationRule(Struct):
    field_path: str | None = None
    message: str | None = None
    message_expression: str | None = None
    optional_old_self: bool | None = None
    reason: str | None = None
    rule: str = always("")


class WebhookClientConfig(Struct):
    ca_bundle: bytes | None = None
    service: ServiceReference | None = None
    url: str | None = None


class WebhookConversion(Struct):
    client_config: WebhookClientConfig | None = None
    conversion_review_versions: list[str] = always([])
