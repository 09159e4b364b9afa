"""ResourceSlice: the devices that a driver offers, and on which nodes (resource/v1, KEP-4381)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

from knarr.api import names
from knarr.api.core.validate_podspec import validate_node_selector
from knarr.api.errors import Cause, invalid, required, too_many
from knarr.api.printing import age
from knarr.api.resource.devices import validate_device
from knarr.api.resource.v1 import CounterSet, Device, ResourceSlice, ResourceSliceSpec
from knarr.api.resource.values import validate_label, validate_pool_name, validate_unique
from knarr.api.resources import Column, Strategy
from knarr.api.storage.classes import validate_driver_name

DEVICES_MAX, ADVANCED_DEVICES_MAX = 128, 64
"""Devices of a slice; of one that has taints, counters or lists of values."""
COUNTER_SETS_MAX, COUNTERS_MAX = 8, 32


class ResourceSliceRules(Strategy[ResourceSlice]):
    has_generation = True
    field_names = ("spec.nodeName", "spec.driver")
    returns_deleted = True

    def prepare_for_create(self, obj: ResourceSlice) -> None:
        for device in obj.spec.devices:
            for taint in device.taints:
                taint.time_added = taint.time_added or obj.metadata.creation_timestamp

    def validate_create(self, obj: ResourceSlice) -> Iterable[Cause]:
        return _validate_spec(obj.spec, None)

    def validate_update(self, obj: ResourceSlice, old: ResourceSlice) -> Iterable[Cause]:
        return _validate_spec(obj.spec, old.spec)

    def fields(self, obj: ResourceSlice) -> Mapping[str, str]:
        return {"spec.nodeName": obj.spec.node_name or "", "spec.driver": obj.spec.driver}


def _validate_spec(spec: ResourceSliceSpec, old: ResourceSliceSpec | None) -> Iterable[Cause]:
    yield from validate_driver_name(spec.driver, "spec.driver")
    pool = spec.pool
    yield from validate_pool_name(pool.name, "spec.pool.name")
    if pool.resource_slice_count <= 0:
        yield invalid("spec.pool.resourceSliceCount", pool.resource_slice_count, "must be greater than zero")
    if pool.generation < 0:
        yield invalid("spec.pool.generation", pool.generation, "must be greater than or equal to zero")
    if old is not None:
        for field, value, before in (
            ("pool.name", pool.name, old.pool.name),
            ("driver", spec.driver, old.driver),
            ("nodeName", spec.node_name, old.node_name),
        ):
            if value != before:
                yield invalid(f"spec.{field}", value, "field is immutable")
    yield from _validate_nodes(spec)
    if spec.shared_counters and spec.devices:
        yield invalid("spec", "", "only one of `sharedCounters` or `devices` is allowed")
    known = {device.name: device for device in old.devices} if old else {}
    check = partial(_validate_known_device, known=known, chosen_each=bool(spec.per_device_node_selection))
    limit = ADVANCED_DEVICES_MAX if any(_is_advanced(device) for device in spec.devices) else DEVICES_MAX
    yield from validate_unique(spec.devices, limit, check, "spec.devices", lambda device: device.name)
    yield from validate_unique(
        spec.shared_counters, COUNTER_SETS_MAX, _validate_counters, "spec.sharedCounters", lambda each: each.name
    )


def _validate_nodes(spec: ResourceSliceSpec) -> Iterable[Cause]:
    """Exactly one way to say on which nodes the devices are."""
    said = []
    if spec.node_name is not None:
        if spec.node_name:
            said.append("`nodeName`")
            for fault in names.dns1123_subdomain_faults(spec.node_name):
                yield invalid("spec.nodeName", spec.node_name, fault)
        else:
            yield invalid("spec.nodeName", "", "must be either unset or set to a non-empty string")
    if spec.node_selector is not None:
        said.append("`nodeSelector`")
        yield from validate_node_selector(spec.node_selector, "spec.nodeSelector")
        terms = spec.node_selector.node_selector_terms
        if len(terms) != 1:
            yield invalid("spec.nodeSelector.nodeSelectorTerms", terms, "must have exactly one node selector term")
    for field, value in (("allNodes", spec.all_nodes), ("perDeviceNodeSelection", spec.per_device_node_selection)):
        if value:
            said.append(f"`{field}`")
        elif value is not None:
            yield invalid(f"spec.{field}", value, "must be either unset or set to true")
    one_of = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"
    if not said:
        yield required("spec", one_of)
    elif len(said) > 1:
        yield invalid("spec", f"{{{', '.join(said)}}}", f"{one_of}, but multiple fields are set")


def _is_advanced(device: Device) -> bool:
    lists = any(each.bools or each.ints or each.strings or each.versions for each in device.attributes.values())
    return bool(device.taints or device.consumes_counters) or lists


def _validate_known_device(
    device: Device, path: str, known: Mapping[str, Device], chosen_each: bool
) -> Iterable[Cause]:
    return validate_device(device, known.get(device.name), path, chosen_each=chosen_each)


def _validate_counters(counters: CounterSet, path: str) -> Iterable[Cause]:
    if not counters.name:
        yield required(f"{path}.name")
    else:
        yield from validate_label(counters.name, f"{path}.name")
    if not counters.counters:
        yield required(f"{path}.counters")
    elif len(counters.counters) > COUNTERS_MAX:
        yield too_many(f"{path}.counters", len(counters.counters), COUNTERS_MAX)
    else:
        for name in counters.counters:
            yield from validate_label(name, f"{path}.counters")


SLICE_COLUMNS = (
    Column("Node", lambda obj, now_s: obj.spec.node_name or ""),
    Column("Driver", lambda obj, now_s: obj.spec.driver),
    Column("Pool", lambda obj, now_s: obj.spec.pool.name),
    Column("Age", lambda obj, now_s: age(obj.metadata.creation_timestamp, now_s)),
)
