"""Server-side apply: what is there afterwards, who owns it, who is in the way (KEP-555)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from knarr.client.client import APPLY_PATCH, JSON_PATCH, MERGE_PATCH
from knarr.client.transport import User
from tests.apiserver.ownership.door import (
    CONFIG_MAP,
    DEPLOYMENT,
    POD,
    SERVICE,
    applied,
    apply,
    config_map,
    deployment,
    entry,
    merge,
    owned,
)
from tests.apiserver.pipeline.door import CONFIG_MAPS, DEPLOYMENTS, Door, causes

OWN: dict[str, Any] = {}
APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def container(name: str = "c", image: str = "one", **more: Any) -> dict[str, Any]:
    return {"name": name, "image": image, **more}


async def test_an_apply_creates_what_is_not_there_and_owns_what_it_lists(door: Door) -> None:
    status, made = await apply(door, CONFIG_MAP, config_map({"x": "1"}, labels={"l": "1"}), "me")
    assert status == 201
    [mine] = made["metadata"]["managedFields"]
    assert mine.pop("time") == made["metadata"]["creationTimestamp"]
    assert mine == {
        "manager": "me",
        "operation": "Apply",
        "apiVersion": "v1",
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:data": {"f:x": OWN}, "f:metadata": {"f:labels": {"f:l": OWN}}},
    }


async def test_defaults_belong_to_nobody(door: Door) -> None:
    made = await applied(door, DEPLOYMENT, deployment([container()]), "me")
    assert made["spec"]["replicas"] == 1
    assert owned(made, "me") == {
        "f:spec": {
            "f:selector": OWN,
            "f:template": {
                "f:metadata": {"f:labels": {"f:app": OWN}},
                "f:spec": {"f:containers": {'k:{"name":"c"}': {".": OWN, "f:image": OWN, "f:name": OWN}}},
            },
        }
    }


async def test_what_is_no_longer_applied_goes_unless_another_owns_it(door: Door) -> None:
    await applied(door, CONFIG_MAP, config_map({"x": "1", "y": "1", "z": "1"}), "me")
    await applied(door, CONFIG_MAP, config_map({"y": "1"}), "other")
    await merge(door, CONFIG_MAP, {"data": {"w": "1"}}, "patcher")
    left = await applied(door, CONFIG_MAP, config_map({"x": "1"}), "me")
    assert left["data"] == {"x": "1", "y": "1", "w": "1"}
    assert owned(left, "other") == {"f:data": {"f:y": OWN}}
    assert owned(left, "patcher") == {"f:data": {"f:w": OWN}}
    assert owned(left, "me") == {"f:data": {"f:x": OWN}}
    gone = await applied(door, CONFIG_MAP, config_map(), "me")
    assert gone["data"] == {"y": "1", "w": "1"}
    assert entry(gone, "me") is None


async def test_a_field_can_be_handed_over_by_sharing_it_first(door: Door) -> None:
    await applied(door, DEPLOYMENT, deployment([container()], replicas=3), "me")
    shared = await applied(door, DEPLOYMENT, {**deployment([container()]), "spec": {"replicas": 3}}, "scaler")
    assert owned(shared, "scaler") == {"f:spec": {"f:replicas": OWN}}
    handed = await applied(door, DEPLOYMENT, deployment([container()]), "me")
    assert handed["spec"]["replicas"] == 3
    assert owned(handed, "scaler") == {"f:spec": {"f:replicas": OWN}}
    # The last owner lets go of it: the default is back.
    alone = await applied(door, DEPLOYMENT, {**deployment([]), "spec": {}}, "scaler")
    assert alone["spec"]["replicas"] == 1


async def test_a_conflict_names_who_owns_what(door: Door) -> None:
    await applied(door, CONFIG_MAP, config_map({"x": "1", "y": "1"}), "me")
    status, refused = await apply(door, CONFIG_MAP, config_map({"x": "2"}), "you")
    assert status == 409
    assert refused["reason"] == "Conflict"
    assert refused["message"] == 'Apply failed with 1 conflict: conflict with "me": .data.x'
    assert refused["details"]["causes"] == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "me"', "field": ".data.x"}
    ]
    await merge(door, CONFIG_MAP, {"data": {"z": "1"}}, "patcher")
    status, refused = await apply(door, CONFIG_MAP, config_map({"x": "2", "y": "2", "z": "2"}), "you")
    assert refused["message"] == (
        'Apply failed with 3 conflicts: conflicts with "me":\n- .data.x\n- .data.y\n'
        'conflicts with "patcher" using v1:\n- .data.z'
    )
    assert sorted(causes(refused)) == [".data.x", ".data.y", ".data.z"]
    assert (await door.done("GET", CONFIG_MAP))["data"] == {"x": "1", "y": "1", "z": "1"}


async def test_a_conflict_in_an_item_shows_its_keys(door: Door) -> None:
    await applied(door, DEPLOYMENT, deployment([container(ports=[{"containerPort": 80, "name": "web"}])]), "me")
    config = deployment([container(image="two", ports=[{"containerPort": 80, "name": "http"}])])
    _, refused = await apply(door, DEPLOYMENT, config, "you")
    path = '.spec.template.spec.containers[name="c"]'
    assert sorted(causes(refused)) == [f"{path}.image", f'{path}.ports[containerPort=80,protocol="TCP"].name']


async def test_force_takes_what_others_own(door: Door) -> None:
    await applied(door, CONFIG_MAP, config_map({"x": "1", "y": "1"}), "me")
    taken = await applied(door, CONFIG_MAP, config_map({"x": "2"}), "you", force=True)
    assert taken["data"] == {"x": "2", "y": "1"}
    assert owned(taken, "me") == {"f:data": {"f:y": OWN}}
    assert owned(taken, "you") == {"f:data": {"f:x": OWN}}
    all_of_it = await applied(door, CONFIG_MAP, config_map({"x": "2", "y": "2"}), "you", force=True)
    assert entry(all_of_it, "me") is None


async def test_the_same_value_is_no_conflict_and_shared(door: Door) -> None:
    await applied(door, CONFIG_MAP, config_map({"x": "1"}), "me")
    shared = await applied(door, CONFIG_MAP, config_map({"x": "1"}), "you")
    assert owned(shared, "me") == owned(shared, "you") == {"f:data": {"f:x": OWN}}


async def test_applying_the_same_again_writes_nothing(door: Door) -> None:
    first = await applied(door, DEPLOYMENT, deployment([container()]), "me")
    revision = door.store.revision
    assert await applied(door, DEPLOYMENT, deployment([container()]), "me") == first
    assert door.store.revision == revision


async def test_an_update_to_the_same_values_keeps_times(door: Door) -> None:
    first = await applied(door, CONFIG_MAP, config_map({"x": "1"}), "me")
    assert await merge(door, CONFIG_MAP, {"data": {"x": "1"}}, "you") == first


async def test_who_comes_to_share_without_a_change_has_no_time(door: Door) -> None:
    await applied(door, CONFIG_MAP, config_map({"x": "1"}), "me")
    shared = await applied(door, CONFIG_MAP, config_map({"x": "1"}), "you")
    assert "time" not in entry(shared, "you")
    assert "time" in entry(shared, "me")


async def test_other_writes_own_what_they_change(door: Door) -> None:
    await applied(door, CONFIG_MAP, config_map({"x": "1", "y": "1"}), "me")
    changed = await merge(door, CONFIG_MAP, {"data": {"x": "2", "n": "1"}}, "you")
    assert owned(changed, "you", "Update") == {"f:data": {"f:x": OWN, "f:n": OWN}}
    assert owned(changed, "me") == {"f:data": {"f:y": OWN}}
    removed = await merge(door, CONFIG_MAP, {"data": {"y": None}}, "you")
    assert entry(removed, "me") is None


async def test_entries_are_in_upstreams_order(door: Door) -> None:
    await door.done("POST", CONFIG_MAPS, config_map({"x": "1"}), fieldManager="creator")
    for name in ("b", "a"):
        await applied(door, CONFIG_MAP, config_map({name: "1"}), name)
    await merge(door, CONFIG_MAP, {"data": {"p": "1"}}, "patcher")
    found = (await door.done("GET", CONFIG_MAP))["metadata"]["managedFields"]
    order = [(each["operation"], each["time"], each["manager"]) for each in found]
    assert order == sorted(order)
    assert [each[0] for each in order] == ["Apply", "Apply", "Update", "Update"]


async def test_containers_and_env_belong_to_many(door: Door) -> None:
    await applied(door, DEPLOYMENT, deployment([container(env=[{"name": "A", "value": "1"}])]), "me")
    side = deployment([container("side"), {"name": "c", "env": [{"name": "B", "value": "1"}]}])
    both = await applied(door, DEPLOYMENT, side, "mesh")
    containers = both["spec"]["template"]["spec"]["containers"]
    assert [each["name"] for each in containers] == ["side", "c"]
    assert [each["name"] for each in containers[1]["env"]] == ["A", "B"]
    gone = await applied(door, DEPLOYMENT, deployment([{"name": "c"}]), "mesh")
    [left] = gone["spec"]["template"]["spec"]["containers"]
    assert [each["name"] for each in left["env"]] == ["A"]


async def test_ports_without_a_protocol_are_those_with_tcp(door: Door) -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}}
    await applied(door, SERVICE, service | {"spec": {"ports": [{"port": 53, "name": "a"}]}}, "me")
    more = service | {"spec": {"ports": [{"port": 53, "protocol": "UDP", "name": "b"}]}}
    both = await applied(door, SERVICE, more, "you")
    assert [(p["port"], p["protocol"], p["name"]) for p in both["spec"]["ports"]] == [
        (53, "TCP", "a"),
        (53, "UDP", "b"),
    ]
    same = service | {"spec": {"ports": [{"port": 53, "protocol": "TCP", "targetPort": 99}]}}
    changed = await applied(door, SERVICE, same, "third")
    assert [p["targetPort"] for p in changed["spec"]["ports"]] == [99, 53]
    assert list(owned(changed, "third")["f:spec"]["f:ports"]) == ['k:{"port":53,"protocol":"TCP"}']


async def test_what_is_atomic_is_replaced_and_owned_as_a_whole(door: Door) -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}}
    config = service | {"spec": {"ports": [{"port": 1}], "selector": {"a": "1"}}}
    await applied(door, SERVICE, config, "me")
    status, refused = await apply(door, SERVICE, service | {"spec": {"selector": {"b": "1"}}}, "you")
    assert (status, causes(refused)) == (409, [".spec.selector"])
    forced = await applied(door, SERVICE, service | {"spec": {"selector": {"b": "1"}}}, "you", force=True)
    assert forced["spec"]["selector"] == {"b": "1"}


async def test_finalizers_are_a_set(door: Door) -> None:
    await applied(door, CONFIG_MAP, config_map(finalizers=["e.com/a", "e.com/b"]), "me")
    both = await applied(door, CONFIG_MAP, config_map(finalizers=["e.com/b", "e.com/c"]), "you")
    assert both["metadata"]["finalizers"] == ["e.com/a", "e.com/b", "e.com/c"]
    left = await applied(door, CONFIG_MAP, config_map(), "me")
    assert left["metadata"]["finalizers"] == ["e.com/b", "e.com/c"]


async def test_numbers_in_keys_stand_by_size(door: Door) -> None:
    ports = [{"containerPort": port} for port in (9000, 80, 443)]
    answer = await door.ask(
        "PATCH", DEPLOYMENT, deployment([container(ports=ports)]), content_type=APPLY_PATCH, fieldManager="me"
    )
    listed = owned(json.loads(answer.body), "me")["f:spec"]["f:template"]["f:spec"]["f:containers"]
    keys = list(listed['k:{"name":"c"}']["f:ports"])
    assert [json.loads(key[2:])["containerPort"] for key in keys] == [80, 443, 9000]


# Bodies that are refused


@pytest.mark.parametrize(
    ("config", "status", "message"),
    [
        (config_map({"x": "1"}, managedFields=[{}]), 400, "metadata.managedFields must be nil"),
        (config_map({"x": "1"}, managedFields=[]), 400, "metadata.managedFields must be nil"),
        (
            config_map({"x": "1"}) | {"foo": 1},
            400,
            "failed to create typed patch object (default/a; v1, Kind=ConfigMap): .foo: field not declared in schema",
        ),
        (
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "a-"}},
            400,
            "the name of the object (a based on URL) was undeterminable: name must be provided",
        ),
        (
            config_map() | {"metadata": {"name": "b"}},
            400,
            "the name of the object (b) does not match the name on the URL (a)",
        ),
        (
            config_map(uid="b"),
            409,
            'Operation cannot be fulfilled on configmaps "a": uid mismatch: the provided object specified uid b, '
            "and no existing object was found",
        ),
        (
            config_map(namespace="other"),
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        ([], 400, "error decoding YAML: the body of an apply must be an object"),
    ],
)
async def test_bodies_that_are_refused(door: Door, config: Any, status: int, message: str) -> None:
    answered, refused = await apply(door, CONFIG_MAP, config, "me")
    assert (answered, refused["message"]) == (status, message)
    assert (await door("GET", CONFIG_MAP))[0] == 404


async def test_an_apply_needs_the_name_of_a_manager(door: Door) -> None:
    status, refused = await door("PATCH", CONFIG_MAP, config_map(), content_type=APPLY_PATCH)
    assert status == 422
    assert refused["message"] == (
        'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch'
    )
    for name in ("x" * 129, "a\u0007b"):
        status, refused = await apply(door, CONFIG_MAP, config_map(), name)
        assert (status, causes(refused)) == (422, ["fieldManager"])


async def test_cbor_is_not_spoken(door: Door) -> None:
    status, refused = await door(
        "PATCH", CONFIG_MAP, b"\xa0", content_type="application/apply-patch+cbor", fieldManager="me"
    )
    assert (status, refused["reason"]) == (415, "UnsupportedMediaType")
    assert refused["message"] == (
        "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, "
        "application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml"
    )


async def test_yaml_is_applied_as_json_is(door: Door) -> None:
    body = b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  x: '1'\n"
    made = await applied(door, CONFIG_MAP, body, "me")
    assert made["data"] == {"x": "1"}
    twice = body + b"  x: '2'\n"
    answer = await door.ask("PATCH", CONFIG_MAP, twice, content_type=APPLY_PATCH, fieldManager="me")
    assert answer.status == 200
    assert len(answer.warnings) == 1
    status, refused = await apply(door, CONFIG_MAP, twice, "me", fieldValidation="Strict")
    assert (status, refused["reason"]) == (400, "BadRequest")


async def test_a_version_that_is_named_must_be_there(door: Door) -> None:
    made = await applied(door, CONFIG_MAP, config_map({"x": "1"}), "me")
    revision = made["metadata"]["resourceVersion"]
    await applied(door, CONFIG_MAP, config_map({"x": "2"}, resourceVersion=revision), "me")
    status, refused = await apply(door, CONFIG_MAP, config_map({"x": "3"}, resourceVersion=revision), "me")
    assert (status, refused["reason"]) == (409, "Conflict")
    assert "the object has been modified" in refused["message"]
    status, refused = await apply(door, CONFIG_MAP, config_map({"x": "3"}, uid="other"), "me")
    assert (status, refused["reason"]) == (409, "Conflict")


async def test_a_dry_run_of_an_apply_stores_nothing(door: Door) -> None:
    revision = door.store.revision
    made = await applied(door, CONFIG_MAP, config_map({"x": "1"}), "me", dryRun="All")
    assert owned(made, "me")
    assert door.store.revision == revision
    await applied(door, CONFIG_MAP, config_map({"x": "1"}), "me")
    revision = door.store.revision
    assert (await applied(door, CONFIG_MAP, config_map({"x": "2"}), "me", dryRun="All"))["data"] == {"x": "2"}
    assert (await apply(door, CONFIG_MAP, config_map({"x": "2"}), "you", dryRun="All"))[0] == 409
    assert door.store.revision == revision


# Objects that were there before


async def test_what_was_there_before_belongs_to_before_first_apply(door: Door) -> None:
    await door.done("POST", CONFIG_MAPS, config_map({"x": "1"}), fieldManager="creator")
    stripped = await merge(door, CONFIG_MAP, {"metadata": {"managedFields": [{}]}}, "you")
    assert "managedFields" not in stripped["metadata"]
    # Nobody is tracked until somebody applies.
    untracked = await merge(door, CONFIG_MAP, {"data": {"y": "1"}}, "you")
    assert "managedFields" not in untracked["metadata"]
    status, refused = await apply(door, CONFIG_MAP, config_map({"x": "2"}), "me")
    assert status == 409
    assert refused["message"] == ('Apply failed with 1 conflict: conflict with "before-first-apply" using v1: .data.x')
    tracked = await applied(door, CONFIG_MAP, config_map({"x": "2"}), "me", force=True)
    assert owned(tracked, "before-first-apply") == {"f:data": {".": OWN, "f:y": OWN}}


async def test_entries_can_be_written_and_what_makes_no_sense_is_passed_over(door: Door) -> None:
    made = await applied(door, CONFIG_MAP, config_map({"x": "1"}), "me")
    mine = entry(made, "me")
    wrongs: list[dict[str, Any]] = [{"operation": "Steal"}, {"fieldsType": "FieldsV2"}, {"apiVersion": ""}]
    for wrong in [*wrongs, {"fieldsV1": {"x": {}}}]:
        kept = await merge(door, CONFIG_MAP, {"metadata": {"managedFields": [mine | wrong]}}, "you")
        assert kept["metadata"]["managedFields"] == [mine]
    assert (await merge(door, CONFIG_MAP, {"metadata": {"managedFields": []}}, "you")) == made
    renamed = await merge(door, CONFIG_MAP, {"metadata": {"managedFields": [mine | {"manager": "new"}]}}, "you")
    assert renamed["metadata"]["managedFields"] == [mine | {"manager": "new"}]


async def test_a_deep_or_senseless_set_is_no_failure_of_the_server(door: Door) -> None:
    made = await applied(door, CONFIG_MAP, config_map({"x": "1"}), "me")
    mine = entry(made, "me")
    deep: dict[str, Any] = {}
    for _ in range(150):
        deep = {"f:x": deep}
    senseless: list[Any] = [{"k:" + "[" * 5000: {}}, {"k:1": {}}, {"v:{}": {}}, {"f:x": 1}, {"f:x": None}, [], 7]
    for fields in [deep, *senseless]:
        kept = await merge(door, CONFIG_MAP, {"metadata": {"managedFields": [mine | {"fieldsV1": fields}]}}, "you")
        assert kept["metadata"]["managedFields"] == [mine]


async def test_the_oldest_of_many_updates_become_one(door: Door) -> None:
    await door.done("POST", CONFIG_MAPS, config_map({"x": "1"}), fieldManager="m00")
    for number in range(1, 14):
        await merge(door, CONFIG_MAP, {"data": {f"k{number}": "1"}}, f"m{number:02}")
    found = (await door.done("GET", CONFIG_MAP))["metadata"]["managedFields"]
    assert len(found) == 10
    names = {each["manager"] for each in found}
    assert "ancient-changes" in names
    assert {f"m{number:02}" for number in range(5, 14)} <= names
    [ancient] = [each for each in found if each["manager"] == "ancient-changes"]
    assert ancient["fieldsV1"] == {"f:data": {".": OWN, "f:x": OWN, **{f"f:k{number}": OWN for number in range(1, 5)}}}


async def test_the_program_owns_where_no_manager_is_named(door: Door) -> None:
    made = await door.done("POST", CONFIG_MAPS, config_map({"x": "1"}))
    assert [each["manager"] for each in made["metadata"]["managedFields"]] == ["unknown"]


# Subresources


async def test_status_is_owned_through_status(door: Door) -> None:
    await applied(door, DEPLOYMENT, deployment([container()]) | {"status": {"replicas": 9}}, "me")
    config = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {"replicas": 9},
        "status": {"replicas": 4, "conditions": [{"type": "Available", "status": "True"}]},
    }
    made = await applied(door, f"{DEPLOYMENT}/status", config, "me")
    assert (made["spec"]["replicas"], made["status"]["replicas"]) == (1, 4)
    assert "f:status" not in owned(made, "me")
    assert owned(made, "me", "Apply", "status") == {
        "f:status": {
            "f:conditions": {'k:{"type":"Available"}': {".": OWN, "f:status": OWN, "f:type": OWN}},
            "f:replicas": OWN,
        }
    }
    status, refused = await apply(door, f"{DEPLOYMENT}/status", config | {"status": {"replicas": 5}}, "you")
    assert status == 409
    assert refused["message"] == (
        'Apply failed with 1 conflict: conflict with "me" with subresource "status": .status.replicas'
    )
    # The main resource can't change a status, so it is in nobody's way.
    config["status"] = {"replicas": 7}
    config["spec"] = {}
    assert (await apply(door, DEPLOYMENT, config, "you"))[0] == 200


async def test_a_status_of_nothing_is_not_found(door: Door) -> None:
    config = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "status": {"replicas": 4}}
    assert (await apply(door, f"{DEPLOYMENT}/status", config, "me"))[0] == 404


async def test_a_status_update_adds_no_struct_that_was_always_there(door: Door) -> None:
    await applied(door, DEPLOYMENT, deployment([container()]), "me")
    path = f"{DEPLOYMENT}/status"
    status = {"status": {"replicas": 1, "conditions": [{"type": "Available", "status": "True"}]}}
    changed = await door.done("PATCH", path, status, content_type=MERGE_PATCH, fieldManager="controller")
    assert owned(changed, "controller", "Update", "status") == {
        "f:status": {
            "f:conditions": {".": OWN, 'k:{"type":"Available"}': {".": OWN, "f:status": OWN, "f:type": OWN}},
            "f:replicas": OWN,
        }
    }


def a_scale(replicas: int | None, **metadata: Any) -> dict[str, Any]:
    spec = {} if replicas is None else {"replicas": replicas}
    return {
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": {"name": "web", **metadata},
        "spec": spec,
    }


async def test_a_scale_owns_the_replicas(door: Door) -> None:
    await applied(door, DEPLOYMENT, deployment([container()], replicas=2), "me")
    path = f"{DEPLOYMENT}/scale"
    status, refused = await apply(door, path, a_scale(4), "scaler")
    assert (status, refused["message"]) == (409, 'Apply failed with 1 conflict: conflict with "me": .spec.replicas')
    answered = await applied(door, path, a_scale(4), "scaler", force=True)
    assert (answered["kind"], answered["spec"]) == ("Scale", {"replicas": 4})
    found = await door.done("GET", DEPLOYMENT)
    assert found["spec"]["replicas"] == 4
    assert owned(found, "scaler", "Apply", "scale") == {"f:spec": {"f:replicas": OWN}}
    assert "f:replicas" not in owned(found, "me")["f:spec"]
    assert entry(found, "scaler", "Apply", "scale")["apiVersion"] == "apps/v1"
    # Another write through scale takes it over; through the object it conflicts with that.
    scale = await door.done("GET", path)
    scale["spec"]["replicas"] = 5
    await door.done("PUT", path, scale, fieldManager="hand")
    found = await door.done("GET", DEPLOYMENT)
    assert entry(found, "scaler", "Apply", "scale") is None
    assert owned(found, "hand", "Update", "scale") == {"f:spec": {"f:replicas": OWN}}
    status, refused = await apply(door, DEPLOYMENT, deployment([container()], replicas=2), "me")
    assert (status, refused["message"]) == (
        409,
        'Apply failed with 1 conflict: conflict with "hand" with subresource "scale" using apps/v1: .spec.replicas',
    )
    assert (await apply(door, path, a_scale(5, resourceVersion="1"), "scaler"))[0] == 409
    assert (await apply(door, path, a_scale(-5), "scaler", force=True))[0] == 422


# Versions


HPA = "/apis/autoscaling/{}/namespaces/default/horizontalpodautoscalers/h"


def hpa(version: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": f"autoscaling/{version}",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "h"},
        "spec": spec,
    }


TARGET = {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}


async def test_each_manager_speaks_its_own_version(door: Door) -> None:
    one, two = HPA.format("v1"), HPA.format("v2")
    config = hpa("v1", maxReplicas=3, targetCPUUtilizationPercentage=50, **TARGET)
    made = await applied(door, one, config, "me")
    mine = entry(made, "me")
    assert mine["apiVersion"] == "autoscaling/v1"
    assert mine["fieldsV1"] == {
        "f:spec": {"f:maxReplicas": OWN, "f:scaleTargetRef": OWN, "f:targetCPUUtilizationPercentage": OWN}
    }
    status, refused = await apply(door, two, hpa("v2", maxReplicas=5), "you")
    assert (status, causes(refused)) == (409, [".spec.maxReplicas"])
    changed = await door.done("PATCH", two, {"spec": {"maxReplicas": 4}}, content_type=MERGE_PATCH, fieldManager="you")
    assert entry(changed, "you")["apiVersion"] == "autoscaling/v2"
    assert owned(changed, "me") == {"f:spec": {"f:scaleTargetRef": OWN, "f:targetCPUUtilizationPercentage": OWN}}
    status, refused = await apply(door, one, config, "me")
    assert refused["message"] == (
        'Apply failed with 1 conflict: conflict with "you" using autoscaling/v2: .spec.maxReplicas'
    )
    moved = await applied(door, two, hpa("v2", minReplicas=2, **TARGET), "me")
    assert entry(moved, "me")["apiVersion"] == "autoscaling/v2"
    reference = {"f:apiVersion": OWN, "f:kind": OWN, "f:name": OWN}
    assert owned(moved, "me") == {"f:spec": {"f:minReplicas": OWN, "f:scaleTargetRef": reference}}


async def test_the_version_in_the_body_must_be_that_of_the_path(door: Door) -> None:
    status, refused = await apply(door, HPA.format("v2"), hpa("v1", maxReplicas=3, **TARGET), "me")
    assert status == 400
    assert refused["message"].startswith("Incorrect version specified in apply patch.")


# From client-side apply


async def test_kubectl_may_take_what_it_applied_on_the_clients_side(door: Door) -> None:
    body = config_map({"x": "1", "y": "1"})
    body["metadata"]["annotations"] = {APPLIED: json.dumps(config_map({"x": "1", "y": "1"}))}
    await door.done("POST", CONFIG_MAPS, body, fieldManager="kubectl-client-side-apply")
    assert (await apply(door, CONFIG_MAP, config_map({"x": "2"}), "somebody"))[0] == 409
    config = config_map({"x": "2", "y": "1"}, annotations={"n": "1"})
    taken = await applied(door, CONFIG_MAP, config, "kubectl")
    assert taken["data"] == {"x": "2", "y": "1"}
    assert json.loads(taken["metadata"]["annotations"][APPLIED]) == config
    assert taken["metadata"]["annotations"][APPLIED].endswith("}\n")
    # What another changed meanwhile isn't kubectl's any more.
    await merge(door, CONFIG_MAP, {"data": {"x": "3"}}, "you")
    status, refused = await apply(door, CONFIG_MAP, config, "kubectl")
    assert (status, causes(refused)) == (409, [".data.x"])


async def test_ownership_moves_as_kubectl_moves_it(door: Door) -> None:
    made = await door.done("POST", CONFIG_MAPS, config_map({"x": "1"}), fieldManager="kubectl-client-side-apply")
    before = made["metadata"]["managedFields"][0]
    steps = [
        {
            "op": "replace",
            "path": "/metadata/managedFields",
            "value": [before | {"manager": "kubectl", "operation": "Apply"}],
        },
        {"op": "replace", "path": "/metadata/resourceVersion", "value": made["metadata"]["resourceVersion"]},
    ]
    moved = await door.done("PATCH", CONFIG_MAP, steps, content_type=JSON_PATCH, fieldManager="kubectl")
    assert [(e["manager"], e["operation"]) for e in moved["metadata"]["managedFields"]] == [("kubectl", "Apply")]
    left = await applied(door, CONFIG_MAP, config_map({"y": "1"}), "kubectl")
    assert left["data"] == {"y": "1"}


async def test_items_of_one_key_do_not_stop_tracking(door: Door) -> None:
    env = [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]
    made = await door.done("POST", DEPLOYMENTS, deployment([container(env=env)]), fieldManager="creator")
    assert owned(made, "creator")["f:spec"]["f:template"]
    config = deployment([{"name": "c", "env": [{"name": "B", "value": "1"}]}])
    both = await applied(door, DEPLOYMENT, config, "me")
    assert both["spec"]["template"]["spec"]["containers"][0]["env"] == [*env, {"name": "B", "value": "1"}]


async def test_a_pod_in_the_way_of_its_own_immutability(door: Door) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}
    await applied(door, POD, pod | {"spec": {"containers": [container()]}}, "me")
    status, refused = await apply(door, POD, pod | {"spec": {"containers": [container()], "hostname": "x"}}, "me")
    assert (status, causes(refused)) == (422, ["spec"])


async def test_who_may_only_patch_creates_nothing_by_applying(door: Door) -> None:
    rbac = "rbac.authorization.k8s.io"
    role = {
        "apiVersion": f"{rbac}/v1",
        "kind": "Role",
        "metadata": {"name": "patcher"},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "patch"]}],
    }
    binding = {
        "apiVersion": f"{rbac}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "patcher"},
        "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "patcher"},
        "subjects": [{"apiGroup": rbac, "kind": "User", "name": "jane"}],
    }
    await door.done("POST", f"/apis/{rbac}/v1/namespaces/default/roles", role)
    await door.done("POST", f"/apis/{rbac}/v1/namespaces/default/rolebindings", binding)
    jane = User("jane", ("system:authenticated",))
    query = {"content_type": APPLY_PATCH, "fieldManager": "me", "user": jane}
    status, refused = await door("PATCH", CONFIG_MAP, config_map({"x": "1"}), **query)
    assert (status, refused["reason"]) == (403, "Forbidden")
    assert refused["message"] == (
        'configmaps "a" is forbidden: User "jane" cannot create resource "configmaps" in API group "" '
        'in the namespace "default"'
    )
    await door.done("POST", CONFIG_MAPS, config_map({"x": "1"}))
    assert (await door("PATCH", CONFIG_MAP, config_map({"y": "1"}), **query))[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "deployments/web/scale", None),
        ("PATCH", "deployments/web/scale", {"spec": {"replicas": 7}}),
        ("PATCH", "deployments/web/status", {"status": {"replicas": 7}}),
        ("PATCH", "deployments/web", {"spec": {"replicas": 7}}),
        ("DELETE", "deployments/web", None),
        ("DELETE", "deployments", None),
        ("POST", "pods/p/binding", {"kind": "Binding", "apiVersion": "v1", "target": {"kind": "Node", "name": "n"}}),
        ("POST", "pods/p/eviction", {"kind": "Eviction", "apiVersion": "policy/v1", "metadata": {"name": "p"}}),
    ],
)
async def test_a_dry_run_of_any_verb_and_subresource_stores_nothing(
    door: Door, method: str, path: str, body: Any
) -> None:
    await applied(door, DEPLOYMENT, deployment([container()]), "me")
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [container()]}}
    await applied(door, POD, pod, "me")
    group = "/api/v1" if path.startswith("pods") else "/apis/apps/v1"
    where = f"{group}/namespaces/default/{path}"
    if method == "PUT":
        body = await door.done("GET", where) | {"spec": {"replicas": 7}}
    revision = door.store.revision
    media = {"content_type": MERGE_PATCH} if method == "PATCH" else {}
    await door.done(method, where, body, dryRun="All", **media)
    assert door.store.revision == revision
    assert (await door.done("GET", DEPLOYMENT))["spec"]["replicas"] == 1
    assert "nodeName" not in (await door.done("GET", POD))["spec"]


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_strict_bodies_name_what_is_unknown_and_what_stands_twice(door: Door, method: str) -> None:
    made = await applied(door, DEPLOYMENT, deployment([container()]), "me")
    text = json.dumps(deployment([container()])).replace(
        '"spec": {', '"spec": {"foo": 1, "paused": false, "paused": true, ', 1
    )
    path = DEPLOYMENTS if method == "POST" else DEPLOYMENT
    status, refused = await door(method, path, text.encode(), fieldValidation="Strict")
    assert (status, refused["reason"]) == (400, "BadRequest")
    assert refused["message"] == (
        'Deployment in version "v1" cannot be handled as a Deployment: strict decoding error: '
        'unknown field "spec.foo", duplicate field "spec.paused"'
    )
    assert await door.done("GET", DEPLOYMENT) == made
