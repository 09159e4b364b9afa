"""Parts of a running pod that change on their own: ephemeral containers, and what its containers may take."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.made import container, made, plain, resource, shown

RULES = resource("Pod").strategy
DEBUGGER = {"name": "debugger", "image": "busybox:1"}
RESOURCES = {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}}


def pod(status: dict[str, Any] | None = None, annotations: dict[str, str] | None = None, **spec: Any) -> Any:
    metadata = {"generation": 3, "annotations": annotations or {}}
    containers = [container(resources=RESOURCES)]
    return made("Pod", metadata=metadata, spec={"containers": containers, **spec}, status=status or {})


def changed(part: str, new: Any, old: Any) -> tuple[Any, list[str]]:
    RULES.prepare_for_part_update(part, new, old)
    return new, shown(RULES.validate_part_update(part, new, old))


def with_debuggers(*debuggers: dict[str, Any], old: Any = None, **spec: Any) -> tuple[Any, list[str]]:
    return changed("ephemeralcontainers", pod(ephemeralContainers=list(debuggers), **spec), old or pod(**spec))


def test_a_container_is_added() -> None:
    obj, found = with_debuggers(DEBUGGER | {"targetContainerName": "web", "stdin": True})
    assert found == []
    assert obj.metadata.generation == 4
    assert plain(obj)["spec"]["ephemeralContainers"][0]["terminationMessagePolicy"] == "File"


def test_nothing_else_changes() -> None:
    new = pod(ephemeralContainers=[DEBUGGER], hostNetwork=True, annotations={"a": "b"})
    obj, found = changed("ephemeralcontainers", new, pod())
    assert found == []
    assert (obj.spec.host_network, obj.metadata.annotations) == (None, {})


def test_what_is_there_stays() -> None:
    old = pod(ephemeralContainers=[DEBUGGER])
    assert with_debuggers(old=old)[1] == [
        'spec.ephemeralContainers: Forbidden: existing ephemeral containers "debugger" may not be removed\n'
    ]
    assert with_debuggers(DEBUGGER | {"image": "busybox:2"}, old=old)[1] == [
        'spec.ephemeralContainers: Forbidden: existing ephemeral containers "debugger" may not be changed\n'
    ]
    assert with_debuggers(DEBUGGER, DEBUGGER | {"name": "second"}, old=old)[1] == []


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"name": ""}, "name: Required value"),
        ({"name": "No"}, None),
        ({"image": ""}, "image: Required value"),
        ({"name": "web"}, 'name: Duplicate value: "web"'),
        ({"targetContainerName": "db"}, 'targetContainerName: Not found: "db"'),
        ({"ports": [{"containerPort": 80}]}, "ports: Forbidden: cannot be set for an Ephemeral Container"),
        (
            {"resources": {"limits": {"cpu": "1"}}},
            "resources: Forbidden: cannot be set for an Ephemeral Container",
        ),
        (
            {"readinessProbe": {"exec": {"command": ["a"]}}},
            "readinessProbe: Forbidden: cannot be set for an Ephemeral Container",
        ),
        (
            {"lifecycle": {"preStop": {"sleep": {"seconds": 1}}}},
            "lifecycle: Forbidden: cannot be set for an Ephemeral Container",
        ),
        ({"restartPolicy": "Always"}, "restartPolicy: Forbidden: cannot be set for an Ephemeral Container"),
        (
            {"volumeMounts": [{"name": "data", "mountPath": "/data", "subPath": "a"}]},
            "volumeMounts[0].subPath: Forbidden: cannot be set for an Ephemeral Container",
        ),
    ],
)
def test_what_one_may_not_say(fields: dict[str, Any], fault: str | None) -> None:
    _, found = with_debuggers(DEBUGGER | fields, volumes=[{"name": "data"}])
    if fault is None:
        assert found[0].startswith('spec.ephemeralContainers[0].name: Invalid value: "No": a lowercase RFC 1123 label')
    else:
        assert found == [f"spec.ephemeralContainers[0].{fault}"]


def test_pods_of_a_file_are_left_alone() -> None:
    old = pod(annotations={"kubernetes.io/config.mirror": "x"})
    assert with_debuggers(DEBUGGER, old=old)[1] == [": Forbidden: static pods do not support ephemeral containers"]
    assert changed("resize", pod(), old)[1] == [": Forbidden: static pods cannot be resized"]


def resized(
    resources: dict[str, Any], *, old: Any = None, init: dict[str, Any] | None = None, **fields: Any
) -> tuple[Any, list[str]]:
    more = {"initContainers": [init]} if init else {}
    return changed("resize", pod(containers=[container(resources=resources, **fields)], **more), old or pod())


def test_cpu_and_memory_change() -> None:
    bigger = {"requests": {"cpu": "150m", "memory": "64Mi"}, "limits": {"cpu": "300m", "memory": "128Mi"}}
    obj, found = resized(bigger, image="nginx:2")
    assert found == []
    assert obj.metadata.generation == 4
    assert plain(obj)["spec"]["containers"][0]["resources"] == bigger
    assert obj.spec.containers[0].image == "nginx:1.25"  # Only what the request is about is taken from it.


@pytest.mark.parametrize(
    ("resources", "fault"),
    [
        (
            {"requests": {"cpu": "200m", "memory": "64Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}},
            'spec: Invalid value: "Burstable": Pod QOS Class may not change as a result of resizing',
        ),
        (
            {"requests": {"cpu": "100m"}, "limits": {"cpu": "200m"}},
            "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed",
        ),
        (
            {"requests": RESOURCES["requests"], "limits": {"cpu": "200m"}},
            "spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed",
        ),
        (
            {"requests": RESOURCES["requests"] | {"ephemeral-storage": "1Gi"}, "limits": RESOURCES["limits"]},
            "spec: Forbidden: only cpu and memory resources are mutable",
        ),
        (
            {"requests": {"cpu": "300m", "memory": "64Mi"}, "limits": RESOURCES["limits"]},
            'spec.containers[0].resources.requests: Invalid value: "300m": must be less than or equal to cpu '
            "limit of 200m",
        ),
    ],
)
def test_how_it_may_not_be_resized(resources: dict[str, Any], fault: str) -> None:
    assert fault in resized(resources)[1]


def test_what_restarts_it_stays() -> None:
    policy = [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]
    assert resized(RESOURCES, resizePolicy=policy)[1] == ["spec: Forbidden: only cpu and memory resources are mutable"]


def test_containers_stay_where_they_are() -> None:
    assert resized(RESOURCES, name="other")[1] == [
        "spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize"
    ]
    assert resized(RESOURCES, init=container(name="first"))[1] == [
        "spec.initContainers: Forbidden: initContainers may not be added or removed on resize"
    ]


@pytest.mark.parametrize(("policy", "allowed"), [("Always", True), (None, False)])
def test_of_init_containers_only_those_that_stay(policy: str | None, allowed: bool) -> None:
    first = container(name="first", resources=RESOURCES) | ({"restartPolicy": policy} if policy else {})
    old = pod(initContainers=[first])
    more = RESOURCES | {"requests": {"cpu": "150m", "memory": "64Mi"}}
    found = resized(RESOURCES, old=old, init=first | {"resources": more})[1]
    assert found == (
        []
        if allowed
        else ["spec.initContainers[0].resources: Forbidden: resources for non-sidecar init containers are immutable"]
    )


@pytest.mark.parametrize(("resources", "supported"), [({}, False), ({"resources": {}}, True)])
def test_a_node_says_whether_it_resizes(resources: dict[str, Any], supported: bool) -> None:
    running = {
        "name": "web",
        "image": "nginx",
        "imageID": "",
        "ready": True,
        "restartCount": 0,
        "state": {"running": {}},
    }
    old = pod(status={"containerStatuses": [running | resources]})
    found = [] if supported else ["spec: Forbidden: Pod running on node without support for resize"]
    assert resized(RESOURCES, old=old)[1] == found
