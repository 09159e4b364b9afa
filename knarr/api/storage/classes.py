"""StorageClass, VolumeAttributesClass and the CSI kinds: what is filled in, refused and shown (storage/v1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from knarr.api import names
from knarr.api.core.v1 import TopologySelectorTerm
from knarr.api.core.validate_values import validate_choice, validate_not_negative, validate_selector
from knarr.api.errors import Cause, duplicate, forbidden, invalid, required, too_long
from knarr.api.printing import NONE, UNSET, age
from knarr.api.quantity import parse_quantity
from knarr.api.resources import Column, Strategy
from knarr.api.storage.v1 import CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttributesClass
from knarr.api.types import replace

DEFAULT_ANNOTATION = "storageclass.kubernetes.io/is-default-class"
PARAMETERS_MAX, PARAMETERS_MAX_BYTES = 512, 256 << 10
RECLAIM_POLICIES = ("Delete", "Retain")
BINDING_MODES = ("Immediate", "WaitForFirstConsumer")
DRIVER_NAME_MAX = 63
NODE_ID_MAX = 256
LIFECYCLE_MODES = ("Ephemeral", "Persistent")
GROUP_POLICIES = ("File", "None", "ReadWriteOnceWithFSType")
AGE = Column("Age", lambda obj, now_s: age(obj.metadata.creation_timestamp, now_s))


def _validate_parameters(parameters: Mapping[str, str], path: str) -> Iterable[Cause]:
    if len(parameters) > PARAMETERS_MAX:
        yield too_long(path, PARAMETERS_MAX)
        return
    size = 0
    for key, value in parameters.items():
        if not key:
            yield invalid(path, key, "field can not be empty.")
        size += len(key) + len(value)
    if size > PARAMETERS_MAX_BYTES:
        yield too_long(path, PARAMETERS_MAX_BYTES)


def validate_driver_name(name: str, path: str) -> Iterable[Cause]:
    """A CSI driver's name is a DNS subdomain of at most 63 characters, in any case."""
    if not name:
        yield required(path)
        return
    if len(name) > DRIVER_NAME_MAX:
        yield too_long(path, DRIVER_NAME_MAX)
    for fault in names.dns1123_subdomain_faults(name.lower()):
        yield invalid(path, name, fault)


class StorageClassRules(Strategy[StorageClass]):
    returns_deleted = True

    def default(self, obj: StorageClass) -> None:
        obj.reclaim_policy = obj.reclaim_policy or "Delete"
        obj.volume_binding_mode = obj.volume_binding_mode or "Immediate"

    def validate(self, obj: StorageClass) -> Iterable[Cause]:
        if not obj.provisioner:
            yield required("provisioner")
        else:
            for fault in names.label_key_faults(obj.provisioner.lower()):
                yield invalid("provisioner", obj.provisioner, fault)
        yield from _validate_parameters(obj.parameters, "parameters")
        yield from validate_choice(obj.reclaim_policy, RECLAIM_POLICIES, "reclaimPolicy")
        yield from validate_choice(obj.volume_binding_mode, BINDING_MODES, "volumeBindingMode")
        seen: list[dict[str, set[str]]] = []
        for index, term in enumerate(obj.allowed_topologies):
            path = f"allowedTopologies[{index}].matchLabelExpressions"
            yield from _validate_topology(term, path)
            topology = {each.key: set(each.values) for each in term.match_label_expressions}
            if topology in seen:
                yield duplicate(path, "")
            seen.append(topology)

    def validate_update(self, obj: StorageClass, old: StorageClass) -> Iterable[Cause]:
        for field, name in (
            ("parameters", "parameters"),
            ("provisioner", "provisioner"),
            ("reclaim_policy", "reclaimPolicy"),
        ):
            if getattr(obj, field) != getattr(old, field):
                yield forbidden(name, f"updates to {name} are forbidden.")
        if obj.volume_binding_mode != old.volume_binding_mode:
            yield invalid("volumeBindingMode", obj.volume_binding_mode, "field is immutable")


def _validate_topology(term: TopologySelectorTerm, path: str) -> Iterable[Cause]:
    if not term.match_label_expressions:
        yield required(path)
    keys: set[str] = set()
    for index, each in enumerate(term.match_label_expressions):
        place = f"{path}[{index}]"
        if not each.values:
            yield required(f"{place}.values")
        for number, value in enumerate(each.values):
            if value in each.values[:number]:
                yield duplicate(f"{place}.values[{number}]", value)
        for fault in names.label_key_faults(each.key):
            yield invalid(f"{place}.key", each.key, fault)
        if each.key in keys:
            yield duplicate(f"{place}.key", each.key)
        keys.add(each.key)


def _class_name(obj: StorageClass) -> str:
    name = obj.metadata.name or ""
    return f"{name} (default)" if obj.metadata.annotations.get(DEFAULT_ANNOTATION) == "true" else name


STORAGE_CLASS_COLUMNS = (
    Column("Name", lambda obj, now_s: _class_name(obj), format="name"),
    Column("Provisioner", lambda obj, now_s: obj.provisioner),
    Column("ReclaimPolicy", lambda obj, now_s: obj.reclaim_policy or "Delete"),
    Column("VolumeBindingMode", lambda obj, now_s: obj.volume_binding_mode or UNSET),
    Column("AllowVolumeExpansion", lambda obj, now_s: bool(obj.allow_volume_expansion), type="boolean"),
    AGE,
)


class VolumeAttributesClassRules(Strategy[VolumeAttributesClass]):
    returns_deleted = True

    def validate(self, obj: VolumeAttributesClass) -> Iterable[Cause]:
        yield from validate_driver_name(obj.driver_name, "driverName")
        if not obj.parameters:
            yield required("parameters", "must contain at least one key/value pair")
        yield from _validate_parameters(obj.parameters, "parameters")

    def validate_update(self, obj: VolumeAttributesClass, old: VolumeAttributesClass) -> Iterable[Cause]:
        if obj.driver_name != old.driver_name:
            yield invalid("driverName", obj.driver_name, "field is immutable")
        if obj.parameters != old.parameters:
            yield invalid("parameters", obj.parameters, "field is immutable")


ATTRIBUTES_CLASS_COLUMNS = (Column("DriverName", lambda obj, now_s: obj.driver_name), AGE)


class CSIDriverRules(Strategy[CSIDriver]):
    allow_unconditional_update = False
    has_generation = True
    returns_deleted = True

    def default(self, obj: CSIDriver) -> None:
        spec = obj.spec
        spec.attach_required = True if spec.attach_required is None else spec.attach_required
        for field in ("pod_info_on_mount", "storage_capacity", "requires_republish", "se_linux_mount"):
            if getattr(spec, field) is None:
                setattr(spec, field, False)
        spec.fs_group_policy = spec.fs_group_policy or "ReadWriteOnceWithFSType"
        spec.volume_lifecycle_modes = spec.volume_lifecycle_modes or ["Persistent"]

    def validate(self, obj: CSIDriver) -> Iterable[Cause]:
        spec = obj.spec
        yield from validate_driver_name(obj.metadata.name or "", "name")
        yield from validate_choice(spec.fs_group_policy, GROUP_POLICIES, "spec.fsGroupPolicy")
        for index, mode in enumerate(spec.volume_lifecycle_modes):
            yield from validate_choice(mode, LIFECYCLE_MODES, f"spec.volumeLifecycleModes[{index}]")
        seen: set[str] = set()
        for index, request in enumerate(spec.token_requests):
            path = f"spec.tokenRequests[{index}]"
            if request.audience in seen:
                yield duplicate(f"{path}.audience", request.audience)
            seen.add(request.audience)
            if (seconds := request.expiration_seconds) is None:
                continue
            if seconds < 600:
                yield invalid(f"{path}.expirationSeconds", seconds, "may not specify a duration less than 10 minutes")
            elif seconds > 1 << 32:
                detail = "may not specify a duration larger than 2^32 seconds"
                yield invalid(f"{path}.expirationSeconds", seconds, detail)

    def validate_update(self, obj: CSIDriver, old: CSIDriver) -> Iterable[Cause]:
        if obj.spec.attach_required != old.spec.attach_required:
            yield invalid("spec.attachedRequired", obj.spec.attach_required, "field is immutable")
        if obj.spec.volume_lifecycle_modes != old.spec.volume_lifecycle_modes:
            yield invalid("spec.volumeLifecycleModes", obj.spec.volume_lifecycle_modes, "field is immutable")


CSI_DRIVER_COLUMNS = (
    Column("AttachRequired", lambda obj, now_s: bool(obj.spec.attach_required), type="boolean"),
    Column("PodInfoOnMount", lambda obj, now_s: bool(obj.spec.pod_info_on_mount), type="boolean"),
    Column("StorageCapacity", lambda obj, now_s: bool(obj.spec.storage_capacity), type="boolean"),
    Column("TokenRequests", lambda obj, now_s: ",".join(each.audience for each in obj.spec.token_requests) or UNSET),
    Column("RequiresRepublish", lambda obj, now_s: bool(obj.spec.requires_republish), type="boolean"),
    Column("Modes", lambda obj, now_s: ",".join(obj.spec.volume_lifecycle_modes) or NONE),
    AGE,
)


class CSINodeRules(Strategy[CSINode]):
    returns_deleted = True
    allow_unconditional_update = False

    def validate(self, obj: CSINode) -> Iterable[Cause]:
        seen: set[str] = set()
        for index, driver in enumerate(obj.spec.drivers):
            path = f"spec.drivers[{index}]"
            yield from validate_driver_name(driver.name, f"{path}.name")
            if not driver.node_id:
                yield required(f"{path}.nodeID")
            if len(driver.node_id.encode()) > NODE_ID_MAX:
                yield invalid(f"{path}.nodeID", driver.node_id, f"must be {NODE_ID_MAX} characters or less")
            count = driver.allocatable.count if driver.allocatable else None
            yield from validate_not_negative(count, f"{path}.allocatable.count")
            if driver.name in seen:
                yield duplicate(f"{path}.name", driver.name)
            seen.add(driver.name)
            for number, key in enumerate(driver.topology_keys):
                if not key:
                    yield required(path)
                if key in driver.topology_keys[:number]:
                    yield duplicate(path, key)
                for fault in names.label_key_faults(key):
                    yield invalid(path, driver.topology_keys, fault)

    def validate_update(self, obj: CSINode, old: CSINode) -> Iterable[Cause]:
        """How many volumes a driver can attach may be told anew (KEP-4876); what else it said stays."""
        before = {driver.name: replace(driver, allocatable=None) for driver in old.spec.drivers}
        for driver in obj.spec.drivers:
            if driver.name in before and replace(driver, allocatable=None) != before[driver.name]:
                yield invalid("CSINodeDriver", driver, "field is immutable")


CSI_NODE_COLUMNS = (Column("Drivers", lambda obj, now_s: len(obj.spec.drivers), type="integer"), AGE)


class CSIStorageCapacityRules(Strategy[CSIStorageCapacity]):
    allow_unconditional_update = False

    def validate(self, obj: CSIStorageCapacity) -> Iterable[Cause]:
        if not obj.storage_class_name:
            yield required("storageClassName")
        else:
            for fault in names.dns1123_subdomain_faults(obj.storage_class_name):
                yield invalid("storageClassName", obj.storage_class_name, fault)
        yield from validate_selector(obj.node_topology, "nodeTopology")
        for field, amount in (("capacity", obj.capacity), ("maximumVolumeSize", obj.maximum_volume_size)):
            if amount is not None and parse_quantity(amount) < 0:
                yield invalid(field, str(amount), "must be greater than or equal to 0")

    def validate_update(self, obj: CSIStorageCapacity, old: CSIStorageCapacity) -> Iterable[Cause]:
        if obj.storage_class_name != old.storage_class_name:
            yield invalid("storageClassName", obj.storage_class_name, "field is immutable")
        if obj.node_topology != old.node_topology:
            yield invalid("nodeTopology", obj.node_topology, "field is immutable")


CAPACITY_COLUMNS = (
    Column("StorageClassName", lambda obj, now_s: obj.storage_class_name),
    Column("Capacity", lambda obj, now_s: str(obj.capacity) if obj.capacity is not None else UNSET),
)
