"""The plainer kinds of the core group: namespaces, nodes, config maps, secrets, service accounts,
components."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from knarr.api import names
from knarr.api.core.amounts import default_amounts
from knarr.api.core.v1 import (
    ComponentCondition,
    ComponentStatus,
    ConfigMap,
    DaemonEndpoint,
    Namespace,
    NamespaceSpec,
    NamespaceStatus,
    Node,
    NodeDaemonEndpoints,
    NodeSpec,
    NodeStatus,
    NodeSystemInfo,
    Secret,
    ServiceAccount,
)
from knarr.api.core.validate_podspec import EFFECTS
from knarr.api.core.validate_values import config_key_faults
from knarr.api.errors import Cause, duplicate, forbidden, invalid, not_supported, required, too_long
from knarr.api.printing import NONE, UNKNOWN, age
from knarr.api.resources import Column, Strategy

CONTENT_MAX_BYTES = 1 << 20
"""Of a ConfigMap or a Secret."""
NAME_LABEL = "kubernetes.io/metadata.name"
ROLE_PREFIX = "node-role.kubernetes.io/"


def _age(obj: Any, now_s: float) -> str:
    return age(obj.metadata.creation_timestamp, now_s)


AGE = Column("Age", _age)


class NamespaceStrategy(Strategy[Namespace]):
    name_faults = staticmethod(names.dns1123_label_faults)
    has_status = True
    field_names = ("status.phase",)

    def default(self, obj: Namespace) -> None:
        if obj.spec is None:
            obj.spec = NamespaceSpec()
        if obj.status and not obj.status.phase:
            obj.status.phase = "Active"
        if obj.metadata.name:
            obj.metadata.labels[NAME_LABEL] = obj.metadata.name

    def prepare_for_create(self, obj: Namespace) -> None:
        obj.status = NamespaceStatus(phase="Active")
        obj.spec = obj.spec or NamespaceSpec()
        if "kubernetes" not in obj.spec.finalizers:
            obj.spec.finalizers.append("kubernetes")

    def prepare_for_update(self, obj: Namespace, old: Namespace) -> None:
        obj.spec = old.spec  # Its finalizers change through the subresource finalize only.

    def fields(self, obj: Namespace) -> Mapping[str, str]:
        return {"status.phase": (obj.status.phase if obj.status else None) or ""}


NAMESPACE_COLUMNS = (Column("Status", lambda obj, now_s: obj.status.phase if obj.status else ""), AGE)


def _pod_cidrs(node: Node) -> list[str]:
    """Where podCIDR is not the first of podCIDRs, it is the only one (as in upstream's conversion)."""
    spec = node.spec
    if spec is None or not spec.pod_cidr or spec.pod_cidrs[:1] == [spec.pod_cidr]:
        return spec.pod_cidrs if spec else []
    return [spec.pod_cidr]


class NodeStrategy(Strategy[Node]):
    has_status = True
    status_at_creation = True
    field_names = ("spec.unschedulable",)

    def default(self, obj: Node) -> None:
        obj.spec = obj.spec or NodeSpec()
        status = obj.status = obj.status or NodeStatus()
        default_amounts(status.capacity)
        default_amounts(status.allocatable)
        status.allocatable = status.allocatable or dict(status.capacity)
        if status.daemon_endpoints is None:
            status.daemon_endpoints = NodeDaemonEndpoints()
        if status.daemon_endpoints.kubelet_endpoint is None:
            status.daemon_endpoints.kubelet_endpoint = DaemonEndpoint()
        if status.node_info is None:
            status.node_info = NodeSystemInfo()

    def validate(self, obj: Node) -> Iterable[Cause]:
        for index, cidr in enumerate(_pod_cidrs(obj)):
            try:
                ipaddress.ip_network(cidr, strict=False)
            except ValueError:
                detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
                yield invalid(f"spec.podCIDRs[{index}]", cidr, detail)
        seen: set[tuple[str, str]] = set()
        for index, taint in enumerate(obj.spec.taints if obj.spec else ()):
            place = f"spec.taints[{index}]"
            for fault in names.label_key_faults(taint.key):
                yield invalid(f"{place}.key", taint.key, fault)
            for fault in names.label_value_faults(taint.value or ""):
                yield invalid(f"{place}.value", taint.value, fault)
            if not taint.effect:
                yield required(f"{place}.effect")
            elif taint.effect not in EFFECTS:
                yield not_supported(f"{place}.effect", taint.effect, EFFECTS)
            if (taint.key, taint.effect) in seen:
                yield duplicate(place, "taints must be unique by key and effect pair")
            seen.add((taint.key, taint.effect))

    def validate_update(self, obj: Node, old: Node) -> Iterable[Cause]:
        """Ranges and the machine's name at its cloud are given once."""
        before, after = old.spec or NodeSpec(), obj.spec or NodeSpec()
        cidrs, wanted = _pod_cidrs(old), _pod_cidrs(obj)
        changed = max(1, sum(was != now for was, now in zip(cidrs, wanted, strict=False))) if cidrs != wanted else 0
        for _ in range(changed if cidrs else 0):
            yield forbidden("spec.podCIDRs", 'node updates may not change podCIDR except from "" to valid')
        if before.provider_id and before.provider_id != (after.provider_id or ""):
            yield forbidden("spec.providerID", 'node updates may not change providerID except from "" to valid')
        if (before.external_id or "") != (after.external_id or ""):
            yield forbidden("spec.externalID", "may not be updated")

    def fields(self, obj: Node) -> Mapping[str, str]:
        return {"spec.unschedulable": str(bool(obj.spec and obj.spec.unschedulable)).lower()}


def _node_status(node: Node, now_s: float) -> str:
    ready = next(
        (each.status for each in (node.status.conditions if node.status else ()) if each.type == "Ready"), None
    )
    word = {"True": "Ready", None: "Unknown"}.get(ready, "NotReady")
    return f"{word},SchedulingDisabled" if node.spec and node.spec.unschedulable else word


def _roles(node: Node, now_s: float) -> str:
    found = {key.removeprefix(ROLE_PREFIX) for key in node.metadata.labels if key.startswith(ROLE_PREFIX)}
    found.add(node.metadata.labels.get("kubernetes.io/role", ""))
    return ",".join(sorted(found - {""})) or NONE


def _node_info(name: str) -> Any:
    def cell(node: Node, now_s: float) -> str:
        info = (node.status or NodeStatus()).node_info
        return (getattr(info, name) if info else "") or UNKNOWN

    return cell


def _node_address(kind: str) -> Any:
    def cell(node: Node, now_s: float) -> str:
        addresses = node.status.addresses if node.status else ()
        return next((each.address for each in addresses if each.type == kind), NONE)

    return cell


NODE_COLUMNS = (
    Column("Status", _node_status),
    Column("Roles", _roles),
    AGE,
    Column("Version", _node_info("kubelet_version")),
    Column("Internal-IP", _node_address("InternalIP"), priority=1),
    Column("External-IP", _node_address("ExternalIP"), priority=1),
    Column("OS-Image", _node_info("os_image"), priority=1),
    Column("Kernel-Version", _node_info("kernel_version"), priority=1),
    Column("Container-Runtime", _node_info("container_runtime_version"), priority=1),
)


def _validate_keys(data: Mapping[str, Any], path: str) -> Iterable[Cause]:
    for key in data:
        for fault in config_key_faults(key):
            yield invalid(f"{path}[{key}]", key, fault)


class ConfigMapStrategy(Strategy[ConfigMap]):
    def validate(self, obj: ConfigMap) -> Iterable[Cause]:
        for key in obj.data.keys() & obj.binary_data.keys():
            yield invalid(f"data[{key}]", key, "duplicate of key present in binaryData")
        yield from _validate_keys(obj.data, "data")
        yield from _validate_keys(obj.binary_data, "binaryData")
        size = sum(len(value.encode("utf-8", "surrogatepass")) for value in obj.data.values())
        if size + sum(len(value) for value in obj.binary_data.values()) > CONTENT_MAX_BYTES:
            # A ConfigMap as a whole has no name for its field: upstream prints this one.
            yield too_long("[]", CONTENT_MAX_BYTES)

    def validate_update(self, obj: ConfigMap, old: ConfigMap) -> Iterable[Cause]:
        if not old.immutable:
            return
        if not obj.immutable:
            yield forbidden("immutable", "field is immutable when `immutable` is set")
        for field, new, before in (("data", obj.data, old.data), ("binaryData", obj.binary_data, old.binary_data)):
            if new != before:
                yield forbidden(field, "field is immutable when `immutable` is set")


class ServiceAccountStrategy(Strategy[ServiceAccount]):
    returns_deleted = True


class SecretStrategy(Strategy[Secret]):
    field_names = ("type",)

    def default(self, obj: Secret) -> None:
        obj.type = obj.type or "Opaque"
        for key, text in obj.string_data.items():
            obj.data[key] = text.encode("utf-8", "surrogatepass")
        obj.string_data = {}

    def validate(self, obj: Secret) -> Iterable[Cause]:
        yield from _validate_keys(obj.data, "data")
        if sum(len(value) for value in obj.data.values()) > CONTENT_MAX_BYTES:
            yield too_long("data", CONTENT_MAX_BYTES)
        yield from _validate_secret_type(obj)

    def validate_update(self, obj: Secret, old: Secret) -> Iterable[Cause]:
        if obj.type != old.type:
            yield invalid("type", obj.type, "field is immutable")
        if not old.immutable:
            return
        if not obj.immutable:
            yield forbidden("immutable", "field is immutable when `immutable` is set")
        if obj.data != old.data:
            yield forbidden("data", "field is immutable when `immutable` is set")

    def fields(self, obj: Secret) -> Mapping[str, str]:
        return {"type": obj.type or ""}


_JSON_KEYS = {
    "kubernetes.io/dockercfg": ".dockercfg",
    "kubernetes.io/dockerconfigjson": ".dockerconfigjson",
}


def _validate_secret_type(secret: Secret) -> Iterable[Cause]:
    """What a Secret of a known type must hold."""
    account = "kubernetes.io/service-account.name"
    data = secret.data
    match secret.type:
        case "kubernetes.io/service-account-token":
            if not secret.metadata.annotations.get(account):
                yield required(f"metadata.annotations[{account}]")
        case "kubernetes.io/dockercfg" | "kubernetes.io/dockerconfigjson" as kind:
            key = _JSON_KEYS[kind]
            if key not in data:
                yield required(f"data[{key}]")
            else:
                try:
                    msgspec.json.decode(data[key])
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                    yield invalid(f"data[{key}]", "<secret contents redacted>", "must be JSON")
        case "kubernetes.io/basic-auth":
            if "username" not in data and "password" not in data:
                yield required("data[username]")
                yield required("data[password]")
        case "kubernetes.io/ssh-auth":
            if not data.get("ssh-privatekey"):
                yield required("data[ssh-privatekey]")
        case "kubernetes.io/tls":
            for key in ("tls.crt", "tls.key"):
                if key not in data:
                    yield required(f"data[{key}]")


CONFIG_MAP_COLUMNS = (Column("Data", lambda obj, now_s: len(obj.data) + len(obj.binary_data), type="integer"), AGE)
SECRET_COLUMNS = (
    Column("Type", lambda obj, now_s: obj.type),
    Column("Data", lambda obj, now_s: len(obj.data), type="integer"),
    AGE,
)
SERVICE_ACCOUNT_COLUMNS = (Column("Secrets", lambda obj, now_s: len(obj.secrets), type="integer"), AGE)


def _health(obj: ComponentStatus) -> ComponentCondition:
    return next((each for each in obj.conditions if each.type == "Healthy"), ComponentCondition(status="Unknown"))


HEALTH = {"True": "Healthy", "False": "Unhealthy"}
COMPONENT_COLUMNS = (
    Column("Status", lambda obj, now_s: HEALTH.get(_health(obj).status, "Unknown")),
    Column("Message", lambda obj, now_s: _health(obj).message or ""),
    Column("Error", lambda obj, now_s: _health(obj).error or ""),
)
