"""What all kinds share, v1; knarr.api.types tells how to read a field."""

from __future__ import annotations

from typing import Annotated

from knarr.api.types import Int32, Int64, Merge, RawJSON, RawObject, Struct, Time, always, named


class APIGroup(Struct):
    api_version: str = always("v1")
    kind: str = always("APIGroup")
    name: str = always("")
    preferred_version: GroupVersionForDiscovery | None = None
    server_address_by_client_cidrs: list[ServerAddressByClientCIDR] = named("serverAddressByClientCIDRs", [])
    versions: list[GroupVersionForDiscovery] = always([])


class APIGroupList(Struct):
    api_version: str = always("v1")
    kind: str = always("APIGroupList")
    groups: list[APIGroup] = always([])


class APIResource(Struct):
    categories: list[str] = []
    group: str | None = None
    kind: str = always("")
    name: str = always("")
    namespaced: bool = always(False)
    short_names: list[str] = []
    singular_name: str = always("")
    storage_version_hash: str | None = None
    verbs: list[str] = always([])
    version: str | None = None


class APIResourceList(Struct):
    api_version: str = always("v1")
    kind: str = always("APIResourceList")
    group_version: str = always("")
    resources: list[APIResource] = always([])


class APIVersions(Struct):
    api_version: str = always("v1")
    kind: str = always("APIVersions")
    server_address_by_client_cidrs: list[ServerAddressByClientCIDR] = always([], name="serverAddressByClientCIDRs")
    versions: list[str] = always([])


class Condition(Struct):
    last_transition_time: Time | None = None
    message: str = always("")
    observed_generation: Int64 | None = None
    reason: str = always("")
    status: str = always("")
    type: str = always("")


class DeleteOptions(Struct):
    api_version: str | None = None
    dry_run: list[str] = []
    grace_period_seconds: Int64 | None = None
    ignore_store_read_error_with_cluster_breaking_potential: bool | None = None
    kind: str | None = None
    orphan_dependents: bool | None = None
    preconditions: Preconditions | None = None
    propagation_policy: str | None = None


class FieldSelectorRequirement(Struct):
    key: str = always("")
    operator: str = always("")
    values: list[str] = []


class GroupResource(Struct):
    group: str = always("")
    resource: str = always("")


class GroupVersionForDiscovery(Struct):
    group_version: str = always("")
    version: str = always("")


class LabelSelector(Struct):
    atomic = True

    match_expressions: list[LabelSelectorRequirement] = []
    match_labels: dict[str, str] = {}


class LabelSelectorRequirement(Struct):
    key: str = always("")
    operator: str = always("")
    values: list[str] = []


class ListMeta(Struct):
    continue_: str | None = None
    remaining_item_count: Int64 | None = None
    resource_version: str | None = None
    self_link: str | None = None
    shard_info: ShardInfo | None = None


class ManagedFieldsEntry(Struct):
    api_version: str | None = None
    fields_type: str | None = None
    fields_v1: RawJSON = RawJSON(b"")
    manager: str | None = None
    operation: str | None = None
    subresource: str | None = None
    time: Time | None = None


class ObjectMeta(Struct):
    annotations: dict[str, str] = {}
    creation_timestamp: Time | None = None
    deletion_grace_period_seconds: Int64 | None = None
    deletion_timestamp: Time | None = None
    finalizers: Annotated[list[str], Merge("set", strategy=("merge",))] = []
    generate_name: str | None = None
    generation: Int64 | None = None
    labels: dict[str, str] = {}
    managed_fields: list[ManagedFieldsEntry] = []
    name: str | None = None
    namespace: str | None = None
    owner_references: Annotated[
        list[OwnerReference], Merge("map", keys=("uid",), patch_key="uid", strategy=("merge",))
    ] = []
    resource_version: str | None = None
    self_link: str | None = None
    uid: str | None = None


class OwnerReference(Struct):
    atomic = True

    api_version: str = always("")
    block_owner_deletion: bool | None = None
    controller: bool | None = None
    kind: str = always("")
    name: str = always("")
    uid: str = always("")


class Preconditions(Struct):
    resource_version: str | None = None
    uid: str | None = None


class ServerAddressByClientCIDR(Struct):
    client_cidr: str = always("", name="clientCIDR")
    server_address: str = always("")


class ShardInfo(Struct):
    selector: str = always("")


class Status(Struct):
    api_version: str = always("v1")
    kind: str = always("Status")
    metadata: ListMeta = always(ListMeta)
    code: Int32 | None = None
    details: StatusDetails | None = None
    message: str | None = None
    reason: str | None = None
    status: str | None = None


class StatusCause(Struct):
    field: str | None = None
    message: str | None = None
    reason: str | None = None


class StatusDetails(Struct):
    causes: list[StatusCause] = []
    group: str | None = None
    kind: str | None = None
    name: str | None = None
    retry_after_seconds: Int32 | None = None
    uid: str | None = None


class WatchEvent(Struct):
    object: RawObject = always(None)
    type: str = always("")
