"""LimitRanger: defaults, minima, maxima and ratios, as upstream tells of them; and what a LimitRange may say."""

from __future__ import annotations

from typing import Any

import pytest

from knarr.client.client import MERGE_PATCH
from tests.apiserver.pipeline.door import PODS, Door, causes, pod

LIMITS = "/api/v1/namespaces/default/limitranges"


def limits(*items: dict[str, Any], name: str = "l") -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": name}, "spec": {"limits": list(items)}}


def of_container(**amounts: dict[str, str]) -> dict[str, Any]:
    return {"type": "Container", **amounts}


def using(requests: dict[str, str] | None = None, limited: dict[str, str] | None = None) -> dict[str, Any]:
    made = pod("a")
    made["spec"]["containers"][0]["resources"] = {"requests": requests or {}, "limits": limited or {}}
    return made


async def test_a_limit_range_gets_its_defaults(door: Door) -> None:
    given = of_container(max={"cpu": "1", "memory": "1Gi"}, min={"cpu": "50m"}, defaultRequest={"memory": "0.5Gi"})
    made = await door.done("POST", LIMITS, limits(given))
    (item,) = made["spec"]["limits"]
    assert item["default"] == {"cpu": "1", "memory": "1Gi"}
    assert item["defaultRequest"] == {"cpu": "1", "memory": "512Mi"}
    only_least = await door.done("POST", LIMITS, limits(of_container(min={"cpu": "50m"}), name="least"))
    assert only_least["spec"]["limits"][0] == {
        "type": "Container",
        "min": {"cpu": "50m"},
        "defaultRequest": {"cpu": "50m"},
    }


FAULTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown type": ({"type": "Node"}, ["spec.limits[0].type"]),
    "empty type": ({"type": ""}, ["spec.limits[0].type", "spec.limits[0].type"]),
    "unknown name": (of_container(max={"cores": "1"}), ["spec.limits[0].max[cores]"] * 2),
    "pods have no defaults": ({"type": "Pod", "default": {"cpu": "1"}}, ["spec.limits[0].default"]),
    "claims need a size": ({"type": "PersistentVolumeClaim"}, ["spec.limits[0].limits"]),
    "min over max": ({"type": "Pod", "min": {"cpu": "2"}, "max": {"cpu": "1"}}, ["spec.limits[0].min[cpu]"]),
    "default over max": (
        of_container(default={"cpu": "2"}, max={"cpu": "1"}, defaultRequest={"cpu": "1"}),
        ["spec.limits[0].default[cpu]"],
    ),
    "request over limit": (
        of_container(defaultRequest={"cpu": "2"}, default={"cpu": "1"}),
        ["spec.limits[0].defaultRequest[cpu]"],
    ),
    "ratio under 1": (of_container(maxLimitRequestRatio={"cpu": "0.5"}), ["spec.limits[0].maxLimitRequestRatio[cpu]"]),
    "ratio over max/min": (
        {"type": "Pod", "min": {"cpu": "1"}, "max": {"cpu": "2"}, "maxLimitRequestRatio": {"cpu": "3"}},
        ["spec.limits[0].maxLimitRequestRatio[cpu]"],
    ),
    "extended resources are not promised twice": (
        of_container(default={"a.b/c": "2"}, defaultRequest={"a.b/c": "1"}),
        ["spec.limits[0].defaultRequest[a.b/c]"],
    ),
}


@pytest.mark.parametrize("case", FAULTS)
async def test_what_a_limit_range_may_not_say(door: Door, case: str) -> None:
    item, fields = FAULTS[case]
    status, refused = await door("POST", LIMITS, limits(item))
    if case == "unknown name":  # Its default is as wrong as itself.
        assert set(causes(refused)) == {
            f"spec.limits[0].{each}[cores]" for each in ("max", "default", "defaultRequest")
        }
        return
    assert (status, sorted(set(causes(refused)))) == (422, sorted(set(fields))), refused


async def test_of_each_type_there_is_one_item(door: Door) -> None:
    item = of_container(max={"cpu": "1"})
    status, refused = await door("POST", LIMITS, limits(item, item))
    assert (status, causes(refused)) == (422, ["spec.limits[1].type"])
    assert refused["message"] == 'LimitRange "l" is invalid: spec.limits[1].type: Duplicate value: "Container"'


async def test_containers_that_say_nothing_get_the_defaults_and_it_is_told(door: Door) -> None:
    await door.done("POST", LIMITS, limits(of_container(default={"cpu": "500m"}, defaultRequest={"cpu": "100m"})))
    body = pod("a", "one", "two", initContainers=[{"name": "before", "image": "busybox"}])
    body["spec"]["containers"][1]["resources"] = {"limits": {"cpu": "200m"}}
    made = await door.done("POST", PODS, body)
    one, two = (each["resources"] for each in made["spec"]["containers"])
    assert one == {"limits": {"cpu": "500m"}, "requests": {"cpu": "100m"}}
    assert two == {"limits": {"cpu": "200m"}, "requests": {"cpu": "200m"}}
    assert made["spec"]["initContainers"][0]["resources"] == one
    assert made["metadata"]["annotations"]["kubernetes.io/limit-ranger"] == (
        "LimitRanger plugin set: cpu request for container one; cpu limit for container one; "
        "cpu request for init container before; cpu limit for init container before"
    )


TOLD = {
    "below, by its request": (
        of_container(min={"cpu": "100m"}),
        using({"cpu": "50m"}),
        "minimum cpu usage per Container is 100m, but request is 50m",
    ),
    "above, by its limit": (
        of_container(max={"memory": "1Gi"}),
        using(limited={"memory": "2Gi"}),
        "maximum memory usage per Container is 1Gi, but limit is 2Gi",
    ),
    "stretched": (
        of_container(maxLimitRequestRatio={"cpu": "2"}),
        using({"cpu": "100m"}, {"cpu": "250m"}),
        "cpu max limit to request ratio per Container is 2, but provided ratio is 2.500000",
    ),
    "stretched without a request": (
        of_container(maxLimitRequestRatio={"cpu": "2"}),
        using(),
        "cpu max limit to request ratio per Container is 2, but no request is specified or request is 0",
    ),
    "a pod without limits": (
        {"type": "Pod", "max": {"cpu": "1"}},
        using({"cpu": "1"}),
        "maximum cpu usage per Pod is 1.  No limit is specified",
    ),
    "a pod without requests": (
        {"type": "Pod", "min": {"cpu": "1"}},
        using(),
        "minimum cpu usage per Pod is 1.  No request is specified",
    ),
    "more than one": (
        {"type": "Pod", "min": {"cpu": "1", "memory": "1Gi"}},
        using({"cpu": "1m", "memory": "1Mi"}),
        "[minimum cpu usage per Pod is 1, but request is 1m, minimum memory usage per Pod is 1Gi, but request is 1Mi]",
    ),
}


@pytest.mark.parametrize("case", TOLD)
async def test_what_is_outside_of_the_limits_is_refused(door: Door, case: str) -> None:
    item, body, message = TOLD[case]
    await door.done("POST", LIMITS, limits(item))
    status, refused = await door("POST", PODS, body)
    assert (status, refused["reason"]) == (403, "Forbidden")
    assert refused["message"] == f'pods "a" is forbidden: {message}'
    assert refused["details"] == {"name": "a", "kind": "pods"}


async def test_a_pod_is_the_sum_of_its_containers_and_its_sidecars_stay(door: Door) -> None:
    await door.done("POST", LIMITS, limits({"type": "Pod", "max": {"cpu": "1"}}))
    half = {"limits": {"cpu": "500m"}}
    body = pod("fits", "one", initContainers=[{"name": "before", "image": "i", "resources": {"limits": {"cpu": "1"}}}])
    body["spec"]["containers"][0]["resources"] = half
    await door.done("POST", PODS, body)
    stays = {"name": "side", "image": "i", "restartPolicy": "Always", "resources": {"limits": {"cpu": "600m"}}}
    body = pod("too-large", "one", initContainers=[stays])
    body["spec"]["containers"][0]["resources"] = half
    status, refused = await door("POST", PODS, body)
    assert (status, "but limit is 1100m" in refused["message"]) == (403, True)


async def test_limits_hold_for_new_pods_and_the_old_may_change(door: Door) -> None:
    await door.done("POST", PODS, pod("old"))
    await door.done("POST", LIMITS, limits({"type": "Pod", "min": {"cpu": "1"}}))
    await door.done("PATCH", f"{PODS}/old", {"metadata": {"labels": {"a": "b"}}}, content_type=MERGE_PATCH)
    assert (await door("POST", PODS, pod("new")))[0] == 403
    await door.done("DELETE", f"{LIMITS}/l")
    await door.done("POST", PODS, pod("new"))


async def test_a_template_gets_no_defaults_but_its_pods_do(door: Door) -> None:
    from tests.apiserver.pipeline.door import DEPLOYMENTS, deployment

    await door.done("POST", LIMITS, limits(of_container(default={"cpu": "500m"})))
    made = await door.done("POST", DEPLOYMENTS, deployment())
    assert made["spec"]["template"]["spec"]["containers"][0]["resources"] == {}
