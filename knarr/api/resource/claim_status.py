"""The status of a ResourceClaim: what was allocated, for whom, and what drivers tell of the devices."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import partial

from knarr.api.core.validate_podspec import validate_node_selector
from knarr.api.core.validate_values import validate_choice
from knarr.api.errors import Cause, forbidden, invalid, required, too_long, too_many
from knarr.api.meta.conditions import validate_conditions
from knarr.api.resource.v1 import (
    AllocatedDeviceStatus,
    AllocationResult,
    DeviceAllocationConfiguration,
    DeviceAllocationResult,
    DeviceRequestAllocationResult,
    NetworkDeviceData,
    ResourceClaim,
    ResourceClaimConsumerReference,
    ResourceClaimStatus,
)
from knarr.api.resource.values import (
    CONFIG_MAX,
    Rule,
    validate_binding,
    validate_label,
    validate_list,
    validate_opaque,
    validate_pool_name,
    validate_raw,
    validate_share,
    validate_toleration,
    validate_unique,
)
from knarr.api.storage.classes import validate_driver_name

RESULTS_MAX = REQUESTS_MAX = 32
CONSUMERS_MAX = 256
CONDITIONS_MAX = 8
ADDRESSES_MAX = 16
INTERFACE_MAX, HARDWARE_MAX = 256, 128
SOURCES = ("FromClaim", "FromClass")
DeviceId = tuple[str, str, str, str | None]
"""Driver, pool, device, share."""


def validate_status(claim: ResourceClaim, before: ResourceClaimStatus, refers: Rule[str]) -> Iterable[Cause]:
    """`refers(name, path)`: the faults of a name that should be one of the claim's requests."""
    status = claim.status or ResourceClaimStatus()
    yield from validate_unique(
        status.reserved_for, CONSUMERS_MAX, _validate_consumer, "status.reservedFor", lambda consumer: consumer.uid
    )
    allocated = _allocated(status.allocation)
    report = partial(_validate_report, allocated=allocated)
    yield from validate_unique(status.devices, None, report, "status.devices", _id_of)
    if status.reserved_for:
        if status.allocation is None:
            yield forbidden("status.reservedFor", "may not be specified when `allocated` is not set")
        elif claim.metadata.deletion_timestamp and any(each not in before.reserved_for for each in status.reserved_for):
            detail = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set"
            yield forbidden("status.reservedFor", detail)
    if before.allocation is not None and status.allocation is not None:
        if status.allocation != before.allocation:
            yield invalid("status.allocation", status.allocation, "field is immutable")
    elif status.allocation is not None:
        yield from _validate_allocation(status.allocation, refers)


def _id_of(device: AllocatedDeviceStatus | DeviceRequestAllocationResult) -> DeviceId:
    return device.driver, device.pool, device.device, device.share_id


def _shown_id(device: AllocatedDeviceStatus) -> str:
    return "/".join(part for part in _id_of(device) if part)


def _allocated(allocation: AllocationResult | None) -> frozenset[DeviceId]:
    devices = allocation.devices if allocation else None
    return frozenset(_id_of(result) for result in devices.results) if devices else frozenset()


def _validate_consumer(consumer: ResourceClaimConsumerReference, path: str) -> Iterable[Cause]:
    for field, value in (("resource", consumer.resource), ("name", consumer.name), ("uid", consumer.uid)):
        if not value:
            yield required(f"{path}.{field}")


def _validate_allocation(allocation: AllocationResult, refers: Rule[str]) -> Iterable[Cause]:
    path, devices = "status.allocation.devices", allocation.devices or DeviceAllocationResult()
    result = partial(_validate_result, refers=refers)
    yield from validate_list(devices.results, RESULTS_MAX, result, f"{path}.results")
    configure = partial(_validate_config, refers=refers)
    yield from validate_list(devices.config, 2 * CONFIG_MAX, configure, f"{path}.config")
    if allocation.node_selector:
        yield from validate_node_selector(allocation.node_selector, "status.allocation.nodeSelector")


def _validate_result(result: DeviceRequestAllocationResult, path: str, refers: Rule[str]) -> Iterable[Cause]:
    yield from refers(result.request, f"{path}.request")
    yield from validate_driver_name(result.driver, f"{path}.driver")
    yield from validate_pool_name(result.pool, f"{path}.pool")
    yield from validate_label(result.device, f"{path}.device")
    yield from validate_binding(result.binding_conditions, result.binding_failure_conditions, path)
    for index, toleration in enumerate(result.tolerations):
        yield from validate_toleration(toleration, f"{path}.tolerations[{index}]")
    yield from validate_share(result.share_id, f"{path}.shareID")


def _validate_config(config: DeviceAllocationConfiguration, path: str, refers: Rule[str]) -> Iterable[Cause]:
    yield from validate_choice(config.source, SOURCES, f"{path}.source")
    yield from validate_unique(config.requests, REQUESTS_MAX, refers, f"{path}.requests")
    yield from validate_opaque(config.opaque, f"{path}.opaque")


def _validate_report(device: AllocatedDeviceStatus, path: str, allocated: frozenset[DeviceId]) -> Iterable[Cause]:
    yield from validate_driver_name(device.driver, f"{path}.driver")
    yield from validate_pool_name(device.pool, f"{path}.pool")
    yield from validate_label(device.device, f"{path}.device")
    yield from validate_share(device.share_id, f"{path}.shareID")
    if _id_of(device) not in allocated:
        yield invalid(path, _shown_id(device), "must be an allocated device in the claim")
    if len(device.conditions) > CONDITIONS_MAX:
        yield too_many(f"{path}.conditions", len(device.conditions), CONDITIONS_MAX)
    yield from validate_conditions(device.conditions, f"{path}.conditions")
    if device.data is not None:
        yield from validate_raw(device.data, f"{path}.data")
    if device.network_data is not None:
        yield from _validate_network(device.network_data, f"{path}.networkData")


def _validate_network(data: NetworkDeviceData, path: str) -> Iterable[Cause]:
    if len(data.interface_name or "") > INTERFACE_MAX:
        yield too_long(f"{path}.interfaceName", INTERFACE_MAX)
    if len(data.hardware_address or "") > HARDWARE_MAX:
        yield too_long(f"{path}.hardwareAddress", HARDWARE_MAX)
    yield from validate_unique(data.ips, ADDRESSES_MAX, _validate_address, f"{path}.ips")


def _validate_address(address: str, path: str) -> Iterable[Cause]:
    """An address with the length of its network: 10.9.8.7/24."""
    try:
        canonical = str(ipaddress.ip_interface(address))
    except ValueError:
        canonical = ""
    if not canonical or "/" not in address:
        yield invalid(path, address, "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)")
    elif canonical != address:
        yield invalid(path, address, f'must be in canonical form ("{canonical}")')
