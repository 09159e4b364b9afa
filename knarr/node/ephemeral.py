"""Ephemeral containers: those that `kubectl debug` adds to a pod that runs (KEP-277).

They are started as soon as there is a sandbox, whatever the others do, and never again. They say nothing about whether
the pod is ready or over, and end with it.
"""

from __future__ import annotations

from knarr.api.core.v1 import Container, PodSpec


def ephemeral_containers(spec: PodSpec) -> list[Container]:
    """As containers like all others."""
    return [
        Container(**{name: getattr(each, name) for name in each.__struct_fields__ if name != "target_container_name"})
        for each in spec.ephemeral_containers
    ]


def all_containers(spec: PodSpec) -> list[Container]:
    """Every container that the pod may have, in the order in which they are named upstream."""
    return [*spec.init_containers, *spec.containers, *ephemeral_containers(spec)]


def target_of(spec: PodSpec, name: str) -> str:
    """The container whose processes the one of this name is to see; empty for none."""
    return next((each.target_container_name or "" for each in spec.ephemeral_containers if each.name == name), "")


def field_path(spec: PodSpec, name: str) -> str:
    """Where a container stands in the pod's spec: what its events are about."""
    kinds = (("initContainers", spec.init_containers), ("ephemeralContainers", spec.ephemeral_containers))
    kind = next((kind for kind, group in kinds if any(each.name == name for each in group)), "containers")
    return f"spec.{kind}{{{name}}}"
