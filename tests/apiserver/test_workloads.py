"""Workload kinds through the door: what the server makes of them, their scale, their versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from knarr.api.registry import built_in
from knarr.api.resources import Resource
from tests.api.made import container, workload
from tests.apiserver.conftest import Door

FACTS = Path(__file__).parents[3] / "shared" / "upstream-1.36" / "discovery"
MERGE, STRATEGIC = "application/merge-patch+json", "application/strategic-merge-patch+json"
TEMPLATE = {"spec": {"containers": [container()], "restartPolicy": "Never"}}
PLURALS = (
    "controllerrevisions",
    "daemonsets",
    "statefulsets",
    "cronjobs",
    "jobs",
    "poddisruptionbudgets",
    "horizontalpodautoscalers",
    "podtemplates",
    "pods",
    "replicationcontrollers",
    "componentstatuses",
)


def path(resource: str, name: str = "") -> str:
    group, _, plural = resource.rpartition("/")
    root = "/api/v1" if group == "v1" else f"/apis/{group}"
    return f"{root}/namespaces/default/{plural}" + (f"/{name}" if name else "")


async def create(door: Door, resource: str, kind: str, metadata: dict[str, Any] | None = None, **fields: Any) -> Any:
    version = resource.rpartition("/")[0]
    obj = {"apiVersion": version, "kind": kind, "metadata": {"name": "web", **(metadata or {})}, **fields}
    status, answer = await door.raw("POST", path(resource), obj)
    assert status == 201, answer
    return answer


@pytest.mark.skipif(not FACTS.is_dir(), reason="needs upstream's facts (shared/upstream-1.36)")
def test_discovery_says_what_upstream_says() -> None:
    theirs = {}
    for file in FACTS.glob("*v[0-9].json"):
        listed = msgspec.json.decode(file.read_bytes())
        for entry in listed.get("resources", ()):
            theirs[listed["groupVersion"], entry["name"]] = entry
    for resource in built_in():
        if resource.plural in PLURALS:
            fact = theirs[resource.group_version, resource.plural]
            assert described(resource) == {
                "verbs": fact["verbs"],
                "short": fact.get("shortNames", []),
                "categories": fact.get("categories", []),
                "subresources": sorted(
                    name.partition("/")[2]
                    for version, name in theirs
                    if version == resource.group_version and name.startswith(f"{resource.plural}/")
                ),
            }


def described(resource: Resource) -> dict[str, Any]:
    return {
        "verbs": sorted(resource.verbs),
        "short": list(resource.short_names),
        "categories": list(resource.categories),
        "subresources": sorted(resource.subresources),
    }


async def test_a_job_of_a_generated_name_knows_it(door: Door) -> None:
    job = await create(door, "batch/v1/jobs", "Job", {"name": "", "generateName": "run-"}, spec={"template": TEMPLATE})
    name, uid = job["metadata"]["name"], job["metadata"]["uid"]
    assert name.startswith("run-")
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert (labels["batch.kubernetes.io/job-name"], labels["controller-uid"]) == (name, uid)
    assert job["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    assert (job["metadata"]["generation"], job["status"]) == (1, {})


async def test_jobs_are_selected_by_success(door: Door) -> None:
    await create(door, "batch/v1/jobs", "Job", spec={"template": TEMPLATE})
    for wanted, found in (("0", 1), ("1", 0)):
        _, listed = await door.raw("GET", path("batch/v1/jobs"), fieldSelector=f"status.successful={wanted}")
        assert len(listed["items"]) == found
    status, _ = await door.raw("GET", path("batch/v1/jobs"), fieldSelector="status.active=1")
    assert status == 400


async def test_status_and_spec_are_apart(door: Door) -> None:
    made = await create(door, "batch/v1/jobs", "Job", spec={"template": TEMPLATE}, status={"active": 7})
    assert made["status"] == {}
    there = path("batch/v1/jobs", "web")
    body = made | {"status": {"active": 1}, "spec": made["spec"] | {"parallelism": 9}}
    _, answer = await door.raw("PUT", f"{there}/status", body)
    assert (answer["status"], answer["spec"]["parallelism"], answer["metadata"]["generation"]) == ({"active": 1}, 1, 1)
    _, answer = await door.raw("PATCH", there, {"spec": {"parallelism": 9}}, content_type=MERGE)
    assert (answer["status"], answer["spec"]["parallelism"], answer["metadata"]["generation"]) == ({"active": 1}, 9, 2)


async def test_a_daemon_set_counts_its_templates(door: Door) -> None:
    await create(door, "apps/v1/daemonsets", "DaemonSet", spec=workload())
    annotation = "deprecated.daemonset.template.generation"
    patch = {"spec": {"template": {"spec": {"containers": [container(image="nginx:2")]}}}}
    _, answer = await door.raw("PATCH", path("apps/v1/daemonsets", "web"), patch, content_type=STRATEGIC)
    assert (answer["metadata"]["annotations"][annotation], answer["metadata"]["generation"]) == ("2", 2)


@pytest.mark.parametrize(
    ("resource", "kind", "spec"),
    [
        ("apps/v1/statefulsets", "StatefulSet", workload()),
        (
            "v1/replicationcontrollers",
            "ReplicationController",
            {"template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container()]}}},
        ),
    ],
)
async def test_scale(door: Door, resource: str, kind: str, spec: dict[str, Any]) -> None:
    await create(door, resource, kind, spec=spec)
    there = path(resource, "web")
    _, scale = await door.raw("GET", f"{there}/scale")
    assert (scale["spec"], scale["status"]) == ({"replicas": 1}, {"replicas": 0, "selector": "app=web"})
    _, scale = await door.raw("PATCH", f"{there}/scale", {"spec": {"replicas": 4}}, content_type=MERGE)
    assert scale["spec"] == {"replicas": 4}
    _, obj = await door.raw("GET", there)
    assert (obj["spec"]["replicas"], obj["metadata"]["generation"]) == (4, 2)


async def test_a_budget_is_replaced_only_by_version(door: Door) -> None:
    made = await create(door, "policy/v1/poddisruptionbudgets", "PodDisruptionBudget", spec={"minAvailable": 1})
    there = path("policy/v1/poddisruptionbudgets", "web")
    unversioned = made | {"metadata": {"name": "web"}}
    assert (await door.raw("PUT", there, unversioned))[0] == 422
    assert (await door.raw("PUT", there, made))[0] == 200
    _, answer = await door.raw("PATCH", there, {"spec": {"minAvailable": 2}}, content_type=MERGE)
    assert (answer["spec"]["minAvailable"], answer["metadata"]["generation"]) == (2, 2)


async def test_autoscalers_have_two_versions(door: Door) -> None:
    spec = {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "maxReplicas": 3}
    v1, v2 = "autoscaling/v1/horizontalpodautoscalers", "autoscaling/v2/horizontalpodautoscalers"
    made = await create(door, v1, "HorizontalPodAutoscaler", spec=spec | {"targetCPUUtilizationPercentage": 60})
    assert made["apiVersion"] == "autoscaling/v1"
    _, newer = await door.raw("GET", path(v2, "web"))
    assert newer["spec"]["metrics"][0]["resource"]["target"] == {"type": "Utilization", "averageUtilization": 60}
    patch = {"spec": {"behavior": {"scaleDown": {"selectPolicy": "Disabled"}}}}
    assert (await door.raw("PATCH", path(v2, "web"), patch, content_type=MERGE))[0] == 200
    _, older = await door.raw("PATCH", path(v1, "web"), {"spec": {"maxReplicas": 9}}, content_type=MERGE)
    assert (older["spec"]["maxReplicas"], older["spec"]["targetCPUUtilizationPercentage"]) == (9, 60)
    _, newer = await door.raw("GET", path(v2, "web"))
    assert newer["spec"]["behavior"]["scaleDown"]["selectPolicy"] == "Disabled"
    assert newer["metadata"].get("annotations") is None
    table = "application/json;as=Table;v=v1;g=meta.k8s.io"
    rows = [(await door.raw("GET", path(version), accept=table))[1]["rows"][0]["cells"] for version in (v1, v2)]
    assert rows[0] == rows[1]
    assert rows[0][:4] == ["web", "Deployment/web", "cpu: <unknown>/60%", "1"]


async def test_what_is_no_amount_is_a_bad_request(door: Door) -> None:
    resources = {"requests": {"cpu": "much"}}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web"},
        "spec": {"containers": [container(resources=resources)]},
    }
    status, answer = await door.raw("POST", path("v1/pods"), pod)
    assert (status, answer["reason"]) == (400, "BadRequest")
    assert answer["message"] == (
        'Pod in version "v1" cannot be handled as a Pod: quantities must match the regular expression '
        "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )


async def test_containers_are_added_to_a_pod(door: Door) -> None:
    await create(door, "v1/pods", "Pod", spec={"containers": [container()]})
    there = path("v1/pods", "web")
    patch = {"spec": {"ephemeralContainers": [{"name": "debug", "image": "busybox"}]}}
    status, pod = await door.raw("PATCH", f"{there}/ephemeralcontainers", patch, content_type=STRATEGIC)
    assert (status, pod["metadata"]["generation"]) == (200, 2)
    assert [each["name"] for each in pod["spec"]["ephemeralContainers"]] == ["debug"]
    assert (await door.raw("GET", f"{there}/ephemeralcontainers"))[1] == pod
    status, answer = await door.raw("PATCH", there, {"spec": {"ephemeralContainers": []}}, content_type=MERGE)
    assert (status, answer["reason"]) == (422, "Invalid")


async def test_a_pod_is_resized(door: Door) -> None:
    resources = {"requests": {"cpu": "100m"}}
    await create(door, "v1/pods", "Pod", spec={"containers": [container(resources=resources)]})
    there = path("v1/pods", "web")
    patch = {"spec": {"containers": [{"name": "web", "resources": {"requests": {"cpu": "200m"}}}]}}
    assert (await door.raw("PATCH", there, patch, content_type=STRATEGIC))[0] == 422
    status, pod = await door.raw("PATCH", f"{there}/resize", patch, content_type=STRATEGIC)
    assert (status, pod["spec"]["containers"][0]["resources"]) == (200, {"requests": {"cpu": "200m"}})
    assert pod["metadata"]["generation"] == 2
