"""Creating, replacing and patching: what is stored, what is answered, and who wins when two write."""

from __future__ import annotations

import asyncio
import json

import pytest

from knarr.client.client import JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH
from tests.apiserver.pipeline.door import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    PODS,
    SERVICES,
    Door,
    causes,
    config_map,
    deployment,
    pod,
    service,
)


async def test_a_created_object_gets_its_metadata_and_can_be_read(door: Door) -> None:
    status, made = await door("POST", CONFIG_MAPS, config_map("a", x="1"))
    assert status == 201
    metadata = made["metadata"]
    assert metadata["namespace"] == "default"
    assert metadata["uid"]
    assert metadata["creationTimestamp"].endswith("Z")
    assert int(metadata["resourceVersion"]) == door.store.revision
    assert await door.done("GET", f"{CONFIG_MAPS}/a") == made


async def test_a_second_create_is_refused_and_changes_nothing(door: Door) -> None:
    first = await door.done("POST", CONFIG_MAPS, config_map("a", x="1"))
    status, refused = await door("POST", CONFIG_MAPS, config_map("a", x="2"))
    assert (status, refused["reason"]) == (409, "AlreadyExists")
    assert refused["message"] == 'configmaps "a" already exists'
    assert await door.done("GET", f"{CONFIG_MAPS}/a") == first


async def test_a_generated_name_has_its_base_and_differs_each_time(door: Door) -> None:
    body = config_map("", x="1")
    body["metadata"] = {"generateName": "set-"}
    names = {(await door.done("POST", CONFIG_MAPS, body))["metadata"]["name"] for _ in range(20)}
    assert len(names) == 20
    assert all(name.startswith("set-") and len(name) == 9 for name in names)


async def test_an_update_with_an_old_version_is_a_conflict(door: Door) -> None:
    first = await door.done("POST", CONFIG_MAPS, config_map("a", x="1"))
    second = await door.done("PUT", f"{CONFIG_MAPS}/a", first | {"data": {"x": "2"}})
    assert int(second["metadata"]["resourceVersion"]) > int(first["metadata"]["resourceVersion"])
    status, refused = await door("PUT", f"{CONFIG_MAPS}/a", first | {"data": {"x": "3"}})
    assert (status, refused["reason"]) == (409, "Conflict")
    assert "the object has been modified" in refused["message"]


async def test_an_update_that_changes_nothing_writes_nothing(door: Door) -> None:
    first = await door.done("POST", CONFIG_MAPS, config_map("a", x="1"))
    revision = door.store.revision
    assert await door.done("PUT", f"{CONFIG_MAPS}/a", first) == first
    assert door.store.revision == revision


async def test_generation_rises_with_the_spec_and_not_with_labels_or_status(door: Door) -> None:
    made = await door.done("POST", DEPLOYMENTS, deployment())
    assert made["metadata"]["generation"] == 1
    labelled = {"metadata": {"labels": {"a": "b"}}}
    path = f"{DEPLOYMENTS}/web"
    assert (await door.done("PATCH", path, labelled, content_type=MERGE_PATCH))["metadata"]["generation"] == 1
    scaled = {"spec": {"replicas": 5}}
    changed = await door.done("PATCH", path, scaled, content_type=MERGE_PATCH)
    assert changed["metadata"]["generation"] == 2
    status = changed | {"status": {"replicas": 4, "observedGeneration": 2}}
    answered = await door.done("PUT", f"{path}/status", status)
    assert (answered["status"]["replicas"], answered["metadata"]["generation"]) == (4, 2)


async def test_the_main_resource_cannot_change_status_nor_status_the_spec(door: Door) -> None:
    made = await door.done("POST", DEPLOYMENTS, deployment() | {"status": {"replicas": 9}})
    assert made.get("status", {}).get("replicas") is None
    path = f"{DEPLOYMENTS}/web"
    spec = made["spec"] | {"replicas": 7}
    changed = await door.done("PUT", f"{path}/status", made | {"spec": spec, "status": {"replicas": 2}})
    assert (changed["spec"]["replicas"], changed["status"]["replicas"]) == (3, 2)
    changed = await door.done("PUT", path, changed | {"spec": spec, "status": {"replicas": 8}})
    assert (changed["spec"]["replicas"], changed["status"]["replicas"]) == (7, 2)


async def test_concurrent_patches_are_all_there(door: Door) -> None:
    await door.done("POST", CONFIG_MAPS, config_map("a"))
    patches = [{"data": {f"k{number}": "v"}} for number in range(50)]
    await asyncio.gather(
        *(door.done("PATCH", f"{CONFIG_MAPS}/a", patch, content_type=MERGE_PATCH) for patch in patches)
    )
    assert len((await door.done("GET", f"{CONFIG_MAPS}/a"))["data"]) == 50


async def test_a_patch_that_names_a_version_conflicts_when_that_has_gone(door: Door) -> None:
    first = await door.done("POST", CONFIG_MAPS, config_map("a", x="1"))
    patch = {"metadata": {"resourceVersion": first["metadata"]["resourceVersion"]}, "data": {"x": "2"}}
    await door.done("PATCH", f"{CONFIG_MAPS}/a", patch, content_type=MERGE_PATCH)
    status, _ = await door("PATCH", f"{CONFIG_MAPS}/a", patch, content_type=MERGE_PATCH)
    assert status == 409


async def test_a_json_patch_is_all_or_nothing(door: Door) -> None:
    await door.done("POST", CONFIG_MAPS, config_map("a", x="1", y="2"))
    steps = [{"op": "move", "from": "/data/x", "path": "/data/z"}, {"op": "test", "path": "/data/y", "value": "3"}]
    status, refused = await door("PATCH", f"{CONFIG_MAPS}/a", steps, content_type=JSON_PATCH)
    assert (status, refused["reason"]) == (422, "Invalid")
    steps[1]["value"] = "2"
    changed = await door.done("PATCH", f"{CONFIG_MAPS}/a", steps, content_type=JSON_PATCH)
    assert changed["data"] == {"y": "2", "z": "1"}


async def test_a_merge_patch_removes_with_null(door: Door) -> None:
    await door.done("POST", CONFIG_MAPS, config_map("a", x="1", y="2"))
    changed = await door.done("PATCH", f"{CONFIG_MAPS}/a", {"data": {"x": None}}, content_type=MERGE_PATCH)
    assert changed["data"] == {"y": "2"}


@pytest.mark.parametrize(
    ("patch", "images"),
    [
        ([{"name": "side", "image": "three"}], {"c": "one", "side": "three"}),
        ([{"name": "new", "image": "n"}], {"c": "one", "side": "two", "new": "n"}),
        ([{"name": "side", "$patch": "delete"}], {"c": "one"}),
        ([{"$patch": "replace"}, {"name": "only", "image": "o"}], {"only": "o"}),
    ],
)
async def test_a_strategic_merge_patch_merges_containers_by_name(
    door: Door, patch: list[dict[str, str]], images: dict[str, str]
) -> None:
    await door.done("POST", DEPLOYMENTS, deployment())
    body = {"spec": {"template": {"spec": {"containers": patch}}}}
    changed = await door.done("PATCH", f"{DEPLOYMENTS}/web", body, content_type=STRATEGIC_MERGE_PATCH)
    containers = changed["spec"]["template"]["spec"]["containers"]
    assert {container["name"]: container["image"] for container in containers} == images


async def test_retain_keys_drops_the_others_of_a_strategy(door: Door) -> None:
    await door.done("POST", DEPLOYMENTS, deployment())
    body = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    changed = await door.done("PATCH", f"{DEPLOYMENTS}/web", body, content_type=STRATEGIC_MERGE_PATCH)
    assert changed["spec"]["strategy"] == {"type": "Recreate"}


async def test_set_element_order_and_delete_from_primitive_list(door: Door) -> None:
    made = config_map("a")
    made["metadata"]["finalizers"] = ["example.com/a", "example.com/b"]
    await door.done("POST", CONFIG_MAPS, made)
    body = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["example.com/a"], "finalizers": ["example.com/c"]}}
    body["metadata"]["$setElementOrder/finalizers"] = ["example.com/c", "example.com/b"]
    changed = await door.done("PATCH", f"{CONFIG_MAPS}/a", body, content_type=STRATEGIC_MERGE_PATCH)
    assert changed["metadata"]["finalizers"] == ["example.com/c", "example.com/b"]


async def test_a_dry_run_answers_as_if_and_stores_nothing(door: Door) -> None:
    revision = door.store.revision
    status, shown = await door("POST", CONFIG_MAPS, config_map("a", x="1"), dryRun="All")
    assert status == 201
    assert shown["metadata"]["uid"]
    assert door.store.revision == revision
    await door.done("POST", CONFIG_MAPS, config_map("a", x="1"))
    revision = door.store.revision
    changed = await door.done("PATCH", f"{CONFIG_MAPS}/a", {"data": {"x": "2"}}, content_type=MERGE_PATCH, dryRun="All")
    assert changed["data"] == {"x": "2"}
    await door.done("DELETE", f"{CONFIG_MAPS}/a", dryRun="All")
    assert door.store.revision == revision
    assert (await door("POST", CONFIG_MAPS, config_map("a"), dryRun="All"))[0] == 409


async def test_scale_reads_and_writes_the_replicas(door: Door) -> None:
    await door.done("POST", DEPLOYMENTS, deployment())
    path = f"{DEPLOYMENTS}/web/scale"
    scale = await door.done("GET", path)
    assert (scale["kind"], scale["spec"]["replicas"], scale["status"]["selector"]) == ("Scale", 3, "app=web")
    scale["spec"]["replicas"] = 5
    assert (await door.done("PUT", path, scale))["spec"]["replicas"] == 5
    patched = await door.done("PATCH", path, {"spec": {"replicas": 1}}, content_type=MERGE_PATCH)
    assert patched["spec"]["replicas"] == 1
    assert (await door.done("GET", f"{DEPLOYMENTS}/web"))["spec"]["replicas"] == 1
    status, _ = await door("PUT", path, scale)
    assert status == 409


async def test_a_binding_puts_a_pod_on_a_node_once(door: Door) -> None:
    await door.done("POST", PODS, pod("web"))
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": "web"},
        "target": {"kind": "Node", "name": "n1"},
    }
    status, answered = await door("POST", f"{PODS}/web/binding", binding)
    assert (status, answered["status"]) == (201, "Success")
    bound = await door.done("GET", f"{PODS}/web")
    assert bound["spec"]["nodeName"] == "n1"
    assert [(c["type"], c["status"]) for c in bound["status"]["conditions"]] == [("PodScheduled", "True")]
    assert (await door("POST", f"{PODS}/web/binding", binding))[0] == 409


async def test_a_pod_that_is_bound_is_no_longer_nominated(door: Door) -> None:
    made = await door.done("POST", PODS, pod("web"))
    await door.done("PUT", f"{PODS}/web/status", made | {"status": {"nominatedNodeName": "n1"}})
    await door("POST", f"{PODS}/web/binding", {"metadata": {"name": "web"}, "target": {"name": "n1"}})
    bound = await door.done("GET", f"{PODS}/web")
    assert (bound["spec"]["nodeName"], bound["status"].get("nominatedNodeName")) == ("n1", None)


async def test_unknown_fields_warn_or_are_refused_as_asked(door: Door) -> None:
    body = config_map("a") | {"datta": {"x": "1"}}
    answer = await door.ask("POST", CONFIG_MAPS, body)
    assert (answer.status, answer.warnings) == (201, ['unknown field "datta"'])
    status, refused = await door("POST", CONFIG_MAPS, body | {"metadata": {"name": "b"}}, fieldValidation="Strict")
    assert status == 400
    assert 'strict decoding error: unknown field "datta"' in refused["message"]
    answer = await door.ask("POST", CONFIG_MAPS, body | {"metadata": {"name": "c"}}, fieldValidation="Ignore")
    assert (answer.status, answer.warnings) == (201, [])
    twice = b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"d"},"data":{"x":"1","x":"2"}}'
    answer = await door.ask("POST", CONFIG_MAPS, twice)
    assert answer.status == 201
    assert len(answer.warnings) == 1
    assert "duplicate field" in answer.warnings[0]


async def test_yaml_goes_in_and_out(door: Door) -> None:
    body = b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  x: '1'\n"
    answer = await door.ask("POST", CONFIG_MAPS, body, content_type="application/yaml", accept="application/yaml")
    assert answer.status == 201
    assert answer.headers["content-type"] == "application/yaml"
    assert b"\ndata:\n  x: '1'\n" in answer.body


async def test_a_token_is_bound_checked_and_dies_with_its_pod(door: Door) -> None:
    made = await door.done("POST", PODS, pod("web"))
    wanted = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"boundObjectRef": {"kind": "Pod", "name": "web", "uid": made["metadata"]["uid"]}},
    }
    path = "/api/v1/namespaces/default/serviceaccounts/default/token"
    token = (await door.done("POST", path, wanted))["status"]["token"]
    assert (await door("GET", "/apis", user=None, token=token))[0] == 200
    assert (await door("GET", "/apis", user=None, token=token[:-2]))[0] == 401
    other = (await door.done("POST", path, {**wanted, "spec": {"audiences": ["elsewhere"]}}))["status"]["token"]
    assert (await door("GET", "/apis", user=None, token=other))[0] == 401
    await door.done("DELETE", f"{PODS}/web", gracePeriodSeconds="0")
    status, refused = await door("GET", "/apis", user=None, token=token)
    assert (status, refused["reason"]) == (401, "Unauthorized")


@pytest.mark.parametrize(("seconds", "code"), [(599, 422), (600, 201), (2**32 + 1, 422)])
async def test_a_token_lasts_ten_minutes_at_least(door: Door, seconds: int, code: int) -> None:
    wanted = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": seconds}}
    status, answered = await door("POST", "/api/v1/namespaces/default/serviceaccounts/default/token", wanted)
    assert status == code
    if code == 422:
        assert causes(answered) == ["spec.expirationSeconds"]


async def test_a_namespace_goes_when_its_finalizer_has_been_taken_out(door: Door) -> None:
    await door.done("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}})
    marked = await door.done("DELETE", "/api/v1/namespaces/x")
    assert marked["status"]["phase"] == "Terminating"
    status, refused = await door("POST", "/api/v1/namespaces/x/configmaps", config_map("a"))
    assert status == 403
    assert [cause["reason"] for cause in refused["details"]["causes"]] == ["NamespaceTerminating"]
    body = json.loads(json.dumps(marked))
    body["spec"] = {}
    await door.done("PUT", "/api/v1/namespaces/x/finalize", body)
    assert (await door("GET", "/api/v1/namespaces/x"))[0] == 404


async def test_names_that_are_all_taken_are_told(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door.clock.random, "choice", lambda characters: "b")
    body = config_map("", x="1")
    body["metadata"] = {"generateName": "set-"}
    made = await door.done("POST", CONFIG_MAPS, body)
    assert made["metadata"]["name"] == "set-bbbbb"
    answer = await door.ask("POST", CONFIG_MAPS, body)
    refused = json.loads(answer.body)
    assert (answer.status, refused["reason"]) == (409, "AlreadyExists")
    assert refused["message"] == (
        'configmaps "set-bbbbb" already exists, the server was not able to generate a unique name for the object'
    )
    assert (refused["details"]["retryAfterSeconds"], answer.headers["retry-after"]) == (1, "1")


async def test_what_the_server_decides_is_not_taken_from_a_body(door: Door) -> None:
    body = config_map("a", x="1")
    decided = {
        "uid": "mine",
        "selfLink": "/x",
        "generation": 7,
        "creationTimestamp": "2001-01-01T00:00:00Z",
        "deletionTimestamp": "2001-01-01T00:00:00Z",
        "deletionGracePeriodSeconds": 3,
    }
    made = await door.done("POST", CONFIG_MAPS, body | {"metadata": body["metadata"] | decided})
    assert {name for name in decided if made["metadata"].get(name) == decided[name]} == set()
    assert sorted(made["metadata"]) == [
        *("creationTimestamp", "managedFields", "name", "namespace", "resourceVersion", "uid")
    ]
    body["metadata"] = {"name": "b", "resourceVersion": "1"}
    status, refused = await door("POST", CONFIG_MAPS, body)
    assert (status, refused["message"]) == (400, "resourceVersion should not be set on objects to be created")


async def test_an_update_of_nothing_is_not_found_and_of_another_a_conflict(door: Door) -> None:
    status, refused = await door("PUT", f"{CONFIG_MAPS}/a", config_map("a"))
    assert (status, refused["message"]) == (404, 'configmaps "a" not found')
    made = await door.done("POST", CONFIG_MAPS, config_map("a"))
    other = made | {"metadata": made["metadata"] | {"uid": "other"}}
    status, refused = await door("PUT", f"{CONFIG_MAPS}/a", other)
    uid = made["metadata"]["uid"]
    assert (status, refused["message"]) == (
        409,
        'Operation cannot be fulfilled on configmaps "a": Precondition failed: UID in precondition: other, '
        f"UID in object meta: {uid}",
    )


async def test_a_dry_run_of_a_service_takes_no_address(door: Door) -> None:
    body = service("s", clusterIP="10.96.7.7")
    for _ in range(2):
        shown = await door.done("POST", SERVICES, body, dryRun="All")
        assert shown["spec"]["clusterIP"] == "10.96.7.7"
    generated = {**service(""), "metadata": {"generateName": "s-"}}
    assert (await door.done("POST", SERVICES, generated, dryRun="All"))["metadata"]["name"].startswith("s-")
    await door.done("POST", SERVICES, body)
    assert len((await door.done("GET", SERVICES))["items"]) == 2


async def test_a_pod_is_bound_by_the_older_resource_too(door: Door) -> None:
    await door.done("POST", PODS, pod("a"))
    bindings = PODS.replace("pods", "bindings")
    binding = {"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "one"}}
    assert (await door("POST", bindings, {"target": {"name": "one"}}))[0] == 400
    status, answer = await door("POST", bindings, binding)
    assert (status, answer["status"]) == (201, "Success")
    assert (await door.done("GET", f"{PODS}/a"))["spec"]["nodeName"] == "one"
    assert (await door("GET", bindings))[0] == 405
    assert (await door("POST", bindings, binding | {"metadata": {"name": "none"}}))[0] == 404
