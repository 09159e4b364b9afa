"""DeviceClass, ResourceClaim and its template: what is filled in, refused and shown (resource/v1, KEP-4381)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

from knarr.api import names
from knarr.api.errors import Cause, invalid, not_supported, required
from knarr.api.metadata import validate_annotations, validate_labels
from knarr.api.printing import age
from knarr.api.resource.claim_status import validate_status
from knarr.api.resource.v1 import (
    DeviceClaim,
    DeviceClaimConfiguration,
    DeviceClass,
    DeviceClassConfiguration,
    DeviceConstraint,
    DeviceRequest,
    DeviceSubRequest,
    ExactDeviceRequest,
    ResourceClaim,
    ResourceClaimSpec,
    ResourceClaimStatus,
    ResourceClaimTemplate,
)
from knarr.api.resource.values import (
    CONFIG_MAX,
    validate_full_name,
    validate_label,
    validate_list,
    validate_opaque,
    validate_selectors,
    validate_toleration,
    validate_unique,
)
from knarr.api.resources import Column, Strategy

REQUESTS_MAX = CONSTRAINTS_MAX = 32
ALTERNATIVES_MAX = 8
MODES = ("All", "ExactCount")
REFERENCE_FAULT = (
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"
)
AGE = Column("Age", lambda obj, now_s: age(obj.metadata.creation_timestamp, now_s))
Names = Mapping[str, frozenset[str]]
"""The requests of a claim, each with the names of its alternatives."""


class DeviceClassRules(Strategy[DeviceClass]):
    has_generation = True
    returns_deleted = True

    def validate(self, obj: DeviceClass) -> Iterable[Cause]:
        yield from validate_selectors(obj.spec.selectors, "spec.selectors")
        yield from validate_list(obj.spec.config, CONFIG_MAX, _validate_class_config, "spec.config")
        name = obj.spec.extended_resource_name
        if name is not None and not names.is_extended_resource(name):
            yield invalid("spec.extendedResourceName", name, "must be a valid extended resource name")


def _validate_class_config(config: DeviceClassConfiguration, path: str) -> Iterable[Cause]:
    return validate_opaque(config.opaque, f"{path}.opaque")


CLASS_COLUMNS = TEMPLATE_COLUMNS = (AGE,)


class ResourceClaimRules(Strategy[ResourceClaim]):
    has_status = True
    returns_deleted = True

    def default(self, obj: ResourceClaim) -> None:
        _default_spec(obj.spec)

    def validate_create(self, obj: ResourceClaim) -> Iterable[Cause]:
        return _validate_spec(obj.spec, "spec")

    def validate_update(self, obj: ResourceClaim, old: ResourceClaim) -> Iterable[Cause]:
        if obj.spec != old.spec:
            yield invalid("spec", obj.spec, "field is immutable")

    def prepare_for_status_update(self, obj: ResourceClaim, old: ResourceClaim) -> None:
        allocation = obj.status.allocation if obj.status else None
        for result in allocation.devices.results if allocation and allocation.devices else ():
            for toleration in result.tolerations:
                toleration.operator = toleration.operator or "Equal"

    def validate_status_update(self, obj: ResourceClaim, old: ResourceClaim) -> Iterable[Cause]:
        refers = partial(_validate_reference, known=_names_of(obj.spec.devices or DeviceClaim()))
        return validate_status(obj, old.status or ResourceClaimStatus(), refers)


class ResourceClaimTemplateRules(Strategy[ResourceClaimTemplate]):
    returns_deleted = True

    def default(self, obj: ResourceClaimTemplate) -> None:
        _default_spec(obj.spec.spec)

    def validate_create(self, obj: ResourceClaimTemplate) -> Iterable[Cause]:
        metadata = obj.spec.metadata
        if metadata and metadata.labels:
            yield from validate_labels(metadata.labels, "spec.metadata.labels")
        if metadata and metadata.annotations:
            yield from validate_annotations(metadata.annotations, "spec.metadata.annotations")
        yield from _validate_spec(obj.spec.spec, "spec.spec")

    def validate_update(self, obj: ResourceClaimTemplate, old: ResourceClaimTemplate) -> Iterable[Cause]:
        if obj.spec != old.spec:
            yield invalid("spec", obj.spec, "field is immutable")


def _default_spec(spec: ResourceClaimSpec) -> None:
    spec.devices = spec.devices or DeviceClaim()
    for request in spec.devices.requests:
        for wanted in (*((request.exactly,) if request.exactly else ()), *request.first_available):
            wanted.allocation_mode = wanted.allocation_mode or "ExactCount"
            if wanted.allocation_mode == "ExactCount" and not wanted.count:
                wanted.count = 1
            for toleration in wanted.tolerations:
                toleration.operator = toleration.operator or "Equal"


def _validate_spec(spec: ResourceClaimSpec, path: str) -> Iterable[Cause]:
    claim, path = spec.devices or DeviceClaim(), f"{path}.devices"
    known = _names_of(claim)
    yield from validate_unique(
        claim.requests, REQUESTS_MAX, _validate_request, f"{path}.requests", lambda request: request.name
    )
    constrain = partial(_validate_constraint, known=known)
    yield from validate_list(claim.constraints, CONSTRAINTS_MAX, constrain, f"{path}.constraints")
    configure = partial(_validate_config, known=known)
    yield from validate_list(claim.config, CONFIG_MAX, configure, f"{path}.config")


def _names_of(claim: DeviceClaim) -> Names:
    return {request.name: frozenset(each.name for each in request.first_available) for request in claim.requests}


def _validate_reference(name: str, path: str, known: Names) -> Iterable[Cause]:
    """request, or request/alternative."""
    parts = name.split("/")
    if len(parts) > 2:
        yield invalid(path, name, REFERENCE_FAULT)
        return
    for part in parts:
        yield from validate_label(part, path)
    if parts[0] not in known or (len(parts) > 1 and parts[1] not in known[parts[0]]):
        yield invalid(path, name, REFERENCE_FAULT)


def _validate_request(request: DeviceRequest, path: str) -> Iterable[Cause]:
    yield from validate_label(request.name, f"{path}.name")
    one_of = "exactly one of `exactly` or `firstAvailable` is required"
    if request.exactly and request.first_available:
        yield invalid(path, None, f"{one_of}, but multiple fields are set")
    elif request.exactly:
        yield from _validate_wanted(request.exactly, f"{path}.exactly")
    elif request.first_available:
        yield from validate_unique(
            request.first_available,
            ALTERNATIVES_MAX,
            _validate_alternative,
            f"{path}.firstAvailable",
            lambda wanted: wanted.name,
        )
    else:
        yield required(path, one_of)


def _validate_alternative(wanted: DeviceSubRequest, path: str) -> Iterable[Cause]:
    yield from validate_label(wanted.name, f"{path}.name")
    yield from _validate_wanted(wanted, path)


def _validate_wanted(wanted: ExactDeviceRequest | DeviceSubRequest, path: str) -> Iterable[Cause]:
    """The class, what selects among its devices, and how many."""
    if not wanted.device_class_name:
        yield required(f"{path}.deviceClassName")
    else:
        for fault in names.dns1123_subdomain_faults(wanted.device_class_name):
            yield invalid(f"{path}.deviceClassName", wanted.device_class_name, fault)
    yield from validate_selectors(wanted.selectors, f"{path}.selectors")
    count = wanted.count or 0
    if wanted.allocation_mode == "All":
        if count:
            yield invalid(f"{path}.count", count, "must not be specified when allocationMode is 'All'")
    elif wanted.allocation_mode == "ExactCount":
        if count <= 0:
            yield invalid(f"{path}.count", count, "must be greater than zero")
    else:
        yield not_supported(f"{path}.allocationMode", wanted.allocation_mode, MODES)
    for index, toleration in enumerate(wanted.tolerations):
        yield from validate_toleration(toleration, f"{path}.tolerations[{index}]")


def _validate_constraint(constraint: DeviceConstraint, path: str, known: Names) -> Iterable[Cause]:
    refers = partial(_validate_reference, known=known)
    yield from validate_unique(constraint.requests, REQUESTS_MAX, refers, f"{path}.requests")
    if constraint.match_attribute is not None:
        yield from validate_full_name(constraint.match_attribute, f"{path}.matchAttribute")
    elif constraint.distinct_attribute is not None:
        yield from validate_full_name(constraint.distinct_attribute, f"{path}.distinctAttribute")
    else:
        detail = 'exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set'
        yield required(path, detail)


def _validate_config(config: DeviceClaimConfiguration, path: str, known: Names) -> Iterable[Cause]:
    refers = partial(_validate_reference, known=known)
    yield from validate_unique(config.requests, REQUESTS_MAX, refers, f"{path}.requests")
    yield from validate_opaque(config.opaque, f"{path}.opaque")


def _state(claim: ResourceClaim) -> str:
    status = claim.status or ResourceClaimStatus()
    states = ["deleted"] if claim.metadata.deletion_timestamp else []
    if status.allocation is not None:
        states += ["allocated", "reserved"] if status.reserved_for else ["allocated"]
    elif not states:
        states = ["pending"]
    return ",".join(states)


CLAIM_COLUMNS = (Column("State", lambda obj, now_s: _state(obj)), AGE)
