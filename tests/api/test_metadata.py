"""Metadata, which is the same for all kinds; and what slices, leases and nodes may not say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from knarr.api.coordination.v1 import Lease
from knarr.api.core.v1 import ConfigMap, Node
from knarr.api.decode import decode
from knarr.api.discovery.v1 import EndpointSlice
from knarr.api.metadata import validate_metadata, validate_metadata_update
from knarr.api.registry import built_in
from knarr.api.types import copy
from knarr.clock import utc

REGISTRY = built_in()


def written(kind: type[Any], **fields: Any) -> Any:
    """An object as a user writes it, with defaults filled in."""
    fields.setdefault("metadata", {"name": "web", "namespace": "default"})
    obj, warnings = decode(kind, json.dumps(fields).encode(), validation="Strict")
    assert not warnings
    REGISTRY.of(kind).strategy.default(obj)
    return obj


def faults(obj: Any) -> list[str]:
    """`field: message` of all that is wrong, in order."""
    resource = REGISTRY.of(type(obj))
    causes = (*validate_metadata(obj.metadata, resource), *resource.strategy.validate(obj))
    return [f"{cause.field}: {cause.message}" for cause in causes]


def config_map(**metadata: Any) -> ConfigMap:
    whole = {"name": "web", "namespace": "default"} | metadata
    return written(ConfigMap, metadata={name: value for name, value in whole.items() if value is not None})  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ["Foo_Bar", "a" * 254, "..", "a/b", "foo\n", "-a", "a.", "é"])
def test_names_that_are_none(name: str) -> None:
    found = faults(config_map(name=name))
    assert found
    assert all(fault.startswith("metadata.name: Invalid value") for fault in found)


@pytest.mark.parametrize("name", ["a", "a.b-c", "1", "a" * 253])
def test_names_that_are_some(name: str) -> None:
    assert faults(config_map(name=name)) == []


def test_generated_names_may_end_in_a_dash() -> None:
    assert faults(config_map(generateName="web-")) == []
    assert faults(config_map(generateName="Web-"))[0].startswith("metadata.generateName: Invalid value")
    assert faults(config_map(name=None)) == ["metadata.name: Required value: name or generateName is required"]


OWNER = {"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "u", "controller": True}


@pytest.mark.parametrize(
    ("metadata", "start"),
    [
        ({"labels": {"a": "x" * 64}}, "metadata.labels: Invalid value"),
        ({"labels": {"a b": "x"}}, 'metadata.labels: Invalid value: "a b": name part must consist'),
        ({"labels": {"a": "x\n"}}, "metadata.labels: Invalid value"),
        ({"annotations": {"a": "x" * (1 << 18)}}, "metadata.annotations: Too long: may not be more than 262144 bytes"),
        (
            {"ownerReferences": [{**OWNER, "uid": ""}]},
            'metadata.ownerReferences.uid: Invalid value: "": uid must not be empty',
        ),
        ({"ownerReferences": [OWNER, {**OWNER, "name": "b"}]}, "metadata.ownerReferences: Invalid value: ["),
        (
            {"finalizers": ["mine"]},
            'metadata.finalizers[0]: Invalid value: "mine": name is neither a standard finalizer name nor is it fully '
            "qualified",
        ),
        ({"finalizers": ["orphan", "foregroundDeletion"]}, "metadata.finalizers: Invalid value: "),
    ],
)
def test_faults_of_metadata(metadata: dict[str, Any], start: str) -> None:
    (fault,) = faults(config_map(**metadata))
    assert fault.startswith(start)


def test_metadata_that_never_changes() -> None:
    old = config_map(uid="a", finalizers=["x.io/a"]).metadata
    new = copy(old)
    new.uid = "b"
    new.finalizers = ["x.io/b"]
    old.deletion_timestamp = new.deletion_timestamp = utc(0)
    assert [f"{cause.field}: {cause.message}" for cause in validate_metadata_update(new, old)] == [
        "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new "
        'finalizers []string{"x.io/b"}',
        'metadata.uid: Invalid value: "b": field is immutable',
    ]


# Slices, leases, nodes


def test_faults_of_slices() -> None:
    assert faults(written(EndpointSlice, addressType="IPv4", endpoints=[{"addresses": ["10.0.0.1"]}])) == []
    wrong = written(
        EndpointSlice,
        addressType="IPX",
        endpoints=[{"addresses": ["web"]}, {"addresses": []}, {"addresses": ["::1"], "hostname": "A"}],
        ports=[{"port": 0}, {"name": "", "protocol": "ICMP"}],
    )
    found = faults(wrong)
    assert [fault.partition(" value")[0] for fault in found] == [
        "addressType: Unsupported",
        "endpoints[1].addresses: Required",
        "endpoints[2].hostname: Invalid",
        "ports[0].port: Invalid",
        "ports[1].name: Duplicate",
        "ports[1].protocol: Unsupported",
    ]


def test_family_of_a_slice_never_changes() -> None:
    old, new = (written(EndpointSlice, addressType=family) for family in ("IPv4", "IPv6"))
    (cause,) = REGISTRY.of(EndpointSlice).strategy.validate_update(new, old)
    assert (cause.field, cause.message) == ("addressType", 'Invalid value: "IPv6": field is immutable')


def test_faults_of_leases() -> None:
    assert faults(written(Lease, spec={"leaseDurationSeconds": 0, "leaseTransitions": -1})) == [
        "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
        "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
    ]


def test_faults_of_taints() -> None:
    taints = [{"key": "a", "effect": "Maybe"}, {"key": "", "effect": "NoSchedule"}, {"key": "b"}]
    found = faults(written(Node, metadata={"name": "n1"}, spec={"taints": [*taints, taints[0]]}))
    assert [fault.partition(" value")[0] for fault in found] == [
        "spec.taints[0].effect: Unsupported",
        "spec.taints[1].key: Invalid",
        "spec.taints[1].key: Invalid",
        "spec.taints[2].effect: Required",
        "spec.taints[3].effect: Unsupported",
        "spec.taints[3]: Duplicate",
    ]
