"""The types of the API group resource, v1; knarr.api.types tells how to read a field."""

from __future__ import annotations

from typing import Annotated

from knarr.api.core.v1 import NodeSelector
from knarr.api.meta.v1 import Condition, ObjectMeta
from knarr.api.types import Int64, Merge, Quantity, RawObject, Struct, Time, always, named


class AllocatedDeviceStatus(Struct):
    conditions: Annotated[list[Condition], Merge("map", keys=("type",))] = []
    data: RawObject | None = None
    device: str = always("")
    driver: str = always("")
    network_data: NetworkDeviceData | None = None
    pool: str = always("")
    share_id: str | None = named("shareID", None)


class AllocationResult(Struct):
    allocation_timestamp: Time | None = None
    devices: DeviceAllocationResult | None = None
    node_selector: NodeSelector | None = None


class CELDeviceSelector(Struct):
    expression: str = always("")


class CapacityRequestPolicy(Struct):
    default: Quantity | None = None
    valid_range: CapacityRequestPolicyRange | None = None
    valid_values: list[Quantity] = []


class CapacityRequestPolicyRange(Struct):
    max: Quantity | None = None
    min: Quantity = always("0")
    step: Quantity | None = None


class CapacityRequirements(Struct):
    requests: dict[str, Quantity] = {}


class Counter(Struct):
    value: Quantity = always("0")


class CounterSet(Struct):
    counters: dict[str, Counter] = always({})
    name: str = always("")


class Device(Struct):
    all_nodes: bool | None = None
    allow_multiple_allocations: bool | None = None
    attributes: dict[str, DeviceAttribute] = {}
    binding_conditions: list[str] = []
    binding_failure_conditions: list[str] = []
    binds_to_node: bool | None = None
    capacity: dict[str, DeviceCapacity] = {}
    consumes_counters: list[DeviceCounterConsumption] = []
    name: str = always("")
    node_allocatable_resource_mappings: dict[str, NodeAllocatableResourceMapping] = {}
    node_name: str | None = None
    node_selector: NodeSelector | None = None
    taints: list[DeviceTaint] = []


class DeviceAllocationConfiguration(Struct):
    opaque: OpaqueDeviceConfiguration | None = None
    requests: list[str] = []
    source: str = always("")


class DeviceAllocationResult(Struct):
    config: list[DeviceAllocationConfiguration] = []
    results: list[DeviceRequestAllocationResult] = []


class DeviceAttribute(Struct):
    bool_: bool | None = None
    bools: list[bool] = []
    int_: Int64 | None = None
    ints: list[Int64] = []
    string: str | None = None
    strings: list[str] = []
    version: str | None = None
    versions: list[str] = []


class DeviceCapacity(Struct):
    request_policy: CapacityRequestPolicy | None = None
    value: Quantity = always("0")


class DeviceClaim(Struct):
    config: list[DeviceClaimConfiguration] = []
    constraints: list[DeviceConstraint] = []
    requests: list[DeviceRequest] = []


class DeviceClaimConfiguration(Struct):
    opaque: OpaqueDeviceConfiguration | None = None
    requests: list[str] = []


class DeviceClassSpec(Struct):
    config: list[DeviceClassConfiguration] = []
    extended_resource_name: str | None = None
    selectors: list[DeviceSelector] = []


class DeviceClass(Struct):
    api_version: str = always("resource.k8s.io/v1")
    kind: str = always("DeviceClass")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: DeviceClassSpec = always(DeviceClassSpec)


class DeviceClassConfiguration(Struct):
    opaque: OpaqueDeviceConfiguration | None = None


class DeviceConstraint(Struct):
    distinct_attribute: str | None = None
    match_attribute: str | None = None
    requests: list[str] = []


class DeviceCounterConsumption(Struct):
    counter_set: str = always("")
    counters: dict[str, Counter] = always({})


class DeviceRequest(Struct):
    exactly: ExactDeviceRequest | None = None
    first_available: list[DeviceSubRequest] = []
    name: str = always("")


class DeviceRequestAllocationResult(Struct):
    admin_access: bool | None = None
    binding_conditions: list[str] = []
    binding_failure_conditions: list[str] = []
    consumed_capacity: dict[str, Quantity] = {}
    device: str = always("")
    driver: str = always("")
    pool: str = always("")
    request: str = always("")
    share_id: str | None = named("shareID", None)
    tolerations: list[DeviceToleration] = []


class DeviceSelector(Struct):
    cel: CELDeviceSelector | None = None


class DeviceSubRequest(Struct):
    allocation_mode: str | None = None
    capacity: CapacityRequirements | None = None
    count: Int64 | None = None
    device_class_name: str = always("")
    name: str = always("")
    selectors: list[DeviceSelector] = []
    tolerations: list[DeviceToleration] = []


class DeviceTaint(Struct):
    effect: str = always("")
    key: str = always("")
    time_added: Time | None = None
    value: str | None = None


class DeviceToleration(Struct):
    effect: str | None = None
    key: str | None = None
    operator: str | None = None
    toleration_seconds: Int64 | None = None
    value: str | None = None


class ExactDeviceRequest(Struct):
    admin_access: bool | None = None
    allocation_mode: str | None = None
    capacity: CapacityRequirements | None = None
    count: Int64 | None = None
    device_class_name: str = always("")
    selectors: list[DeviceSelector] = []
    tolerations: list[DeviceToleration] = []


class NetworkDeviceData(Struct):
    hardware_address: str | None = None
    interface_name: str | None = None
    ips: list[str] = []


class NodeAllocatableResourceMapping(Struct):
    allocation_multiplier: Quantity | None = None
    capacity_key: str | None = None


class OpaqueDeviceConfiguration(Struct):
    driver: str = always("")
    parameters: RawObject = always(None)


class ResourceClaimSpec(Struct):
    devices: DeviceClaim | None = None


class ResourceClaim(Struct):
    api_version: str = always("resource.k8s.io/v1")
    kind: str = always("ResourceClaim")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: ResourceClaimSpec = always(ResourceClaimSpec)
    status: ResourceClaimStatus | None = None


class ResourceClaimConsumerReference(Struct):
    api_group: str | None = None
    name: str = always("")
    resource: str = always("")
    uid: str = always("")


class ResourceClaimStatus(Struct):
    allocation: AllocationResult | None = None
    devices: Annotated[list[AllocatedDeviceStatus], Merge("map", keys=("driver", "device", "pool", "shareID"))] = []
    reserved_for: Annotated[
        list[ResourceClaimConsumerReference], Merge("map", keys=("uid",), patch_key="uid", strategy=("merge",))
    ] = []


class ResourceClaimTemplateSpec(Struct):
    metadata: ObjectMeta | None = None
    spec: ResourceClaimSpec = always(ResourceClaimSpec)


class ResourceClaimTemplate(Struct):
    api_version: str = always("resource.k8s.io/v1")
    kind: str = always("ResourceClaimTemplate")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: ResourceClaimTemplateSpec = always(ResourceClaimTemplateSpec)


class ResourcePool(Struct):
    generation: Int64 = always(0)
    name: str = always("")
    resource_slice_count: Int64 = always(0)


class ResourceSliceSpec(Struct):
    all_nodes: bool | None = None
    devices: list[Device] = []
    driver: str = always("")
    node_name: str | None = None
    node_selector: NodeSelector | None = None
    per_device_node_selection: bool | None = None
    pool: ResourcePool = always(ResourcePool)
    shared_counters: list[CounterSet] = []


class ResourceSlice(Struct):
    api_version: str = always("resource.k8s.io/v1")
    kind: str = always("ResourceSlice")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: ResourceSliceSpec = always(ResourceSliceSpec)
