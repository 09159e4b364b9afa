"""Faults of pods' specifications that are alike: what was found faultless in one is looked through in the next."""

from __future__ import annotations

from typing import Any

import msgspec

from knarr.api.core.podspec import default_pod_spec
from knarr.api.core.v1 import PodSpec
from knarr.api.core.validate_podspec import validate_pod_spec


def faults(volume: str, mounted: str, **more: Any) -> list[str]:
    """Of a pod with a volume, and a container that mounts one."""
    container = {"name": "main", "image": "app:1", "volumeMounts": [{"name": mounted, "mountPath": "/token"}]}
    volumes = [{"name": volume, "emptyDir": {}}]
    spec = msgspec.convert({"containers": [container | more], "volumes": volumes}, PodSpec)
    default_pod_spec(spec)
    return [cause.field for cause in validate_pod_spec(spec, "spec")]


def test_volumes_are_looked_through_in_each_pod_whatever_it_is_like() -> None:
    for number in range(3):
        name = f"token-{number}"
        assert faults(name, name) == []
        assert faults(name, "another") == ["spec.containers[0].volumeMounts[0].name"]
        wrong = ["spec.volumes[0].name", "spec.containers[0].volumeMounts[0].name"]
        assert faults("Not.A.Name", "Not.A.Name") == wrong


def test_a_fault_is_told_each_time() -> None:
    for _ in range(2):
        assert faults("token", "token", imagePullPolicy="Sometimes") == ["spec.containers[0].imagePullPolicy"]
        assert faults("token", "token") == []


def test_volumes_of_init_containers_are_looked_through_too() -> None:
    def init(mounted: str) -> list[str]:
        early = {"name": "early", "image": "app:1", "volumeMounts": [{"name": mounted, "mountPath": "/token"}]}
        spec = {
            "containers": [{"name": "main", "image": "app:1"}],
            "initContainers": [early],
            "volumes": [{"name": "token", "emptyDir": {}}],
        }
        made = msgspec.convert(spec, PodSpec)
        default_pod_spec(made)
        return [cause.field for cause in validate_pod_spec(made, "spec")]

    assert init("token") == []
    assert init("none") == ["spec.initContainers[0].volumeMounts[0].name"]
