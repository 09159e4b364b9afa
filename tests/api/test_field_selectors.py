"""The fields that a field selector may name, kind by kind, besides name and namespace: upstream's list."""

from __future__ import annotations

from tests.api.made import REGISTRY

INVOLVED = tuple(
    f"involvedObject.{field}"
    for field in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
)
FIELDS = {
    "certificatesigningrequests.certificates.k8s.io": ("spec.signerName",),
    "events": (*INVOLVED, "reason", "reportingComponent", "source", "type"),
    "jobs.batch": ("status.successful",),
    "namespaces": ("status.phase",),
    "nodes": ("spec.unschedulable",),
    "pods": (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ),
    "replicasets.apps": ("status.replicas",),
    "replicationcontrollers": ("status.replicas",),
    "resourceslices.resource.k8s.io": ("spec.nodeName", "spec.driver"),
    "secrets": ("type",),
    "services": ("spec.clusterIP", "spec.type"),
}
IN_WORDS_OF_THEIR_OWN = {"events.events.k8s.io"}
"""As the events of the core group, whose fields have other names there (see tests/api/events)."""


def test_every_kind_has_upstreams_fields_and_their_values() -> None:
    found = {each.qualified: each.strategy.field_names for each in REGISTRY if each.strategy.field_names}
    assert {name: set(fields) for name, fields in found.items() if name not in IN_WORDS_OF_THEIR_OWN} == {
        name: set(fields) for name, fields in FIELDS.items()
    }


def test_a_field_that_may_be_named_has_a_value_of_every_object() -> None:
    for each in REGISTRY:
        if each.strategy.field_names and each.qualified not in IN_WORDS_OF_THEIR_OWN:
            assert set(each.strategy.fields(each.type())) == set(each.strategy.field_names), each.qualified
