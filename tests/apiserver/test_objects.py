"""What every kind has in common: reads, writes, watches, over both ways to the server."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import pytest

from knarr.api.apps.v1 import Deployment
from knarr.api.core.v1 import ConfigMap, Namespace, Pod, Service
from knarr.api.errors import AlreadyExists, BadRequest, Conflict, Expired, Forbidden, Invalid, NotFound, Unauthorized
from knarr.api.meta.v1 import ObjectMeta
from knarr.client.client import JSON_PATCH, MERGE_PATCH
from tests.apiserver.conftest import Door

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
SERVICES = "/api/v1/namespaces/default/services"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"


def config_map(name: str = "cm", **data: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name, namespace="default"), data=data)


def pod(name: str = "web", **spec: Any) -> dict[str, Any]:
    container = {"name": "main", "image": "app:1"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container], **spec}}


def deployment(name: str = "web", **spec: Any) -> dict[str, Any]:
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {"containers": [{"name": "main", "image": "app:1"}, {"name": "side", "image": "side:1"}]},
    }
    wanted = {"selector": {"matchLabels": {"app": name}}, "template": template, **spec}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": wanted}


def service(name: str = "web", **spec: Any) -> dict[str, Any]:
    wanted = {"selector": {"app": name}, "ports": [{"port": 80}], **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": wanted}


async def test_create_then_get_update_delete(door: Door) -> None:
    made = await door.client.create(config_map(a="1"))
    assert made.metadata.uid
    assert made.metadata.creation_timestamp
    assert await door.client.get(ConfigMap, "cm", "default") == made
    made.data["a"] = "2"
    changed = await door.client.update(made)
    assert int(changed.metadata.resource_version or 0) > int(made.metadata.resource_version or 0)
    await door.client.delete(ConfigMap, "cm", "default")
    with pytest.raises(NotFound, match='configmaps "cm" not found'):
        await door.client.get(ConfigMap, "cm", "default")


async def test_creating_what_exists_is_refused(door: Door) -> None:
    await door.client.create(config_map())
    with pytest.raises(AlreadyExists, match='configmaps "cm" already exists'):
        await door.client.create(config_map())


async def test_generated_names_differ(door: Door) -> None:
    names = set()
    for _ in range(3):
        made = await door.client.create(ConfigMap(metadata=ObjectMeta(generate_name="cm-", namespace="default")))
        names.add(made.metadata.name)
    assert len(names) == 3
    assert all(name and name.startswith("cm-") and len(name) == 8 for name in names)


async def test_an_update_of_an_old_version_conflicts_and_one_without_version_wins(door: Door) -> None:
    made = await door.client.create(config_map(a="1"))
    await door.client.update(config_map(a="2"))
    made.data["a"] = "3"
    with pytest.raises(Conflict, match="the object has been modified"):
        await door.client.update(made)
    assert (await door.client.get(ConfigMap, "cm", "default")).data == {"a": "2"}


async def test_an_update_that_changes_nothing_writes_nothing(door: Door) -> None:
    made = await door.client.create(config_map(a="1"))
    again = await door.client.update(config_map(a="1"))
    assert again.metadata.resource_version == made.metadata.resource_version


async def test_preconditions_of_a_delete(door: Door) -> None:
    made = await door.client.create(config_map())
    with pytest.raises(Conflict, match="the UID in the precondition"):
        await door.client.delete(ConfigMap, "cm", "default", uid="other")
    await door.client.delete(ConfigMap, "cm", "default", uid=made.metadata.uid)


async def test_finalizers_hold_an_object_until_they_are_gone(door: Door) -> None:
    held = config_map()
    held.metadata.finalizers = ["example.com/hold"]
    await door.client.create(held)
    await door.client.delete(ConfigMap, "cm", "default")
    ending = await door.client.get(ConfigMap, "cm", "default")
    assert ending.metadata.deletion_timestamp
    with pytest.raises(Invalid) as refused:
        await door.client.patch(
            ConfigMap, "cm", {"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}}, "default"
        )
    assert refused.value.causes[0].field == "metadata.finalizers"
    await door.client.patch(ConfigMap, "cm", {"metadata": {"finalizers": None}}, "default", content_type=MERGE_PATCH)
    with pytest.raises(NotFound):
        await door.client.get(ConfigMap, "cm", "default")


async def test_a_pod_on_a_node_is_deleted_gracefully_and_one_without_at_once(door: Door) -> None:
    for name in ("bound", "unbound"):
        assert (await door.raw("POST", PODS, pod(name)))[0] == 201
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "bound"}, "target": {"name": "node-1"}}
    assert (await door.raw("POST", f"{PODS}/bound/binding", binding))[0] == 201
    assert (await door.raw("POST", f"{PODS}/bound/binding", binding))[0] == 409
    await door.client.delete(Pod, "bound", "default")
    ending = await door.client.get(Pod, "bound", "default")
    assert ending.metadata.deletion_grace_period_seconds == 30
    await door.client.delete(Pod, "bound", "default", grace_period_s=0)
    status, gone = await door.raw("DELETE", f"{PODS}/unbound")
    assert (status, gone["kind"]) == (200, "Pod")
    assert (await door.client.list(Pod, "default")).items == []


async def test_status_and_spec_are_written_apart_and_generation_counts_specs(door: Door) -> None:
    _, made = await door.raw("POST", DEPLOYMENTS, deployment() | {"status": {"replicas": 9}})
    assert made["metadata"]["generation"] == 1
    assert made["status"] == {}
    found = await door.client.get(Deployment, "web", "default")
    assert found.spec
    assert found.status
    found.spec.replicas, found.status.replicas = 7, 3
    after = await door.client.update_status(found)
    assert after.spec
    assert after.status
    assert (after.spec.replicas, after.status.replicas, after.metadata.generation) == (1, 3, 1)
    after.spec.replicas, after.status.replicas = 7, 8
    main = await door.client.update(after)
    assert main.spec
    assert main.status
    assert (main.spec.replicas, main.status.replicas, main.metadata.generation) == (7, 3, 2)


async def test_a_status_that_nobody_wrote_is_there_and_empty(door: Door) -> None:
    """As Go's encoder has it, whose structs are never left out."""
    ingress = {
        "metadata": {"name": "web"},
        "spec": {"defaultBackend": {"service": {"name": "a", "port": {"number": 1}}}},
    }
    claim = {"metadata": {"name": "web"}, "spec": {}}
    for path, body, empty in (
        ("/apis/networking.k8s.io/v1/namespaces/default/ingresses", ingress, {"loadBalancer": {}}),
        (SERVICES, service(), {"loadBalancer": {}}),
        ("/apis/resource.k8s.io/v1/namespaces/default/resourceclaims", claim, {}),
    ):
        _, made = await door.raw("POST", path, body | {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}})
        assert made["status"] == empty
        _, cleared = await door.raw("PUT", f"{path}/web/status", {**made, "status": None})
        assert cleared["status"] == empty


async def test_scale_reads_and_writes_replicas(door: Door) -> None:
    await door.raw("POST", DEPLOYMENTS, deployment())
    status, found = await door.raw("GET", f"{DEPLOYMENTS}/web/scale")
    assert (status, found["kind"], found["spec"], found["status"]["selector"]) == (
        200,
        "Scale",
        {"replicas": 1},
        "app=web",
    )
    found["spec"]["replicas"] = 4
    assert (await door.raw("PUT", f"{DEPLOYMENTS}/web/scale", found))[0] == 200
    status, patched = await door.raw(
        "PATCH", f"{DEPLOYMENTS}/web/scale", {"spec": {"replicas": 5}}, content_type=MERGE_PATCH
    )
    assert (status, patched["spec"]["replicas"]) == (200, 5)
    assert (await door.raw("PUT", f"{DEPLOYMENTS}/web/scale", found))[0] == 409


async def test_strategic_merge_merges_lists_by_their_key(door: Door) -> None:
    await door.raw("POST", DEPLOYMENTS, deployment())
    containers = [
        {"name": "main", "image": "app:2"},
        {"name": "side", "$patch": "delete"},
        {"name": "new", "image": "n:1"},
    ]
    patch = {"spec": {"template": {"spec": {"containers": containers}}}}
    changed = await door.client.patch(Deployment, "web", patch, "default")
    assert changed.spec
    assert changed.spec.template.spec
    images = {each.name: each.image for each in changed.spec.template.spec.containers}
    assert images == {"main": "app:2", "new": "n:1"}


async def test_strategic_merge_replaces_a_strategy_whole(door: Door) -> None:
    await door.raw("POST", DEPLOYMENTS, deployment())
    patch = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    changed = await door.client.patch(Deployment, "web", patch, "default")
    assert changed.spec
    assert changed.spec.strategy
    assert changed.spec.strategy.rolling_update is None


async def test_json_patch_and_merge_patch(door: Door) -> None:
    await door.client.create(config_map(a="1", b="2"))
    operations = [
        {"op": "test", "path": "/data/a", "value": "1"},
        {"op": "move", "from": "/data/a", "path": "/data/c"},
        {"op": "add", "path": "/metadata/labels", "value": {"x": "y"}},
    ]
    changed = await door.client.patch(ConfigMap, "cm", operations, "default", content_type=JSON_PATCH)
    assert changed.data == {"b": "2", "c": "1"}
    assert changed.metadata.labels == {"x": "y"}
    failing = [{"op": "test", "path": "/data/b", "value": "9"}]
    with pytest.raises(Invalid, match="the server rejected our request due to an error in our request"):
        await door.client.patch(ConfigMap, "cm", failing, "default", content_type=JSON_PATCH)
    merged = await door.client.patch(ConfigMap, "cm", {"data": {"b": None}}, "default", content_type=MERGE_PATCH)
    assert merged.data == {"c": "1"}


async def test_a_watch_gives_changes_in_order_and_cuts_by_selector(door: Door) -> None:
    start = (await door.client.list(ConfigMap, "default")).resource_version
    made = await door.client.create(config_map("one"))
    made.metadata.labels["show"] = "yes"
    shown = await door.client.update(made)
    shown.data["a"] = "1"
    again = await door.client.update(shown)
    again.metadata.labels = {}
    await door.client.update(again)
    await door.client.delete(ConfigMap, "one", "default")

    async def seen(count: int, **scope: str) -> list[tuple[str, dict[str, str]]]:
        events = []
        watch = door.client.watch(ConfigMap, "default", resource_version=start, **scope)
        async with aclosing(watch):
            async for event in watch:
                events.append((event.type, dict(event.object.data)))
                if len(events) == count:
                    break
        return events

    assert await seen(5) == [
        ("ADDED", {}),
        ("MODIFIED", {}),
        ("MODIFIED", {"a": "1"}),
        ("MODIFIED", {"a": "1"}),
        ("DELETED", {"a": "1"}),
    ]
    assert await seen(3, label_selector="show=yes") == [
        ("ADDED", {}),
        ("MODIFIED", {"a": "1"}),
        ("DELETED", {"a": "1"}),
    ]


async def test_a_watch_of_history_that_is_gone_says_so(door: Door) -> None:
    start = (await door.client.list(ConfigMap, "default")).resource_version
    await door.client.create(config_map("one"))
    await door.server.store.compact(door.server.store.revision)
    with pytest.raises(Expired):
        async for _ in door.client.watch(ConfigMap, "default", resource_version=start):
            pass


async def test_pages_show_one_moment(door: Door) -> None:
    for number in range(5):
        await door.client.create(config_map(f"cm-{number}"))
    _, first = await door.raw("GET", CONFIG_MAPS, limit="2")
    assert first["metadata"]["remainingItemCount"] == 3
    await door.client.delete(ConfigMap, "cm-3", "default")
    names = [item["metadata"]["name"] for item in first["items"]]
    while token := first["metadata"].get("continue"):
        _, first = await door.raw("GET", CONFIG_MAPS, limit="2", **{"continue": token})
        names += [item["metadata"]["name"] for item in first["items"]]
    assert names == [f"cm-{number}" for number in range(5)]
    assert "kind" not in first["items"][0]


async def test_selectors_cut_lists(door: Door) -> None:
    for name, labels in (("a", {"tier": "front"}), ("b", {"tier": "back"}), ("c", {})):
        await door.client.create(ConfigMap(metadata=ObjectMeta(name=name, namespace="default", labels=labels)))

    async def names(**scope: str) -> list[str | None]:
        return [each.metadata.name for each in (await door.client.list(ConfigMap, "default", **scope)).items]

    assert await names(label_selector="tier in (front,back)") == ["a", "b"]
    assert await names(label_selector="!tier") == ["c"]
    assert await names(field_selector="metadata.name=b") == ["b"]
    assert await names(field_selector="metadata.name!=b") == ["a", "c"]
    with pytest.raises(BadRequest, match="is not a known field selector"):
        await names(field_selector="data.x=1")


async def test_deletecollection_takes_what_is_selected(door: Door) -> None:
    for name in ("a", "b"):
        metadata = ObjectMeta(name=name, namespace="default", labels={"name": name})
        await door.client.create(ConfigMap(metadata=metadata))
    assert (await door.raw("DELETE", CONFIG_MAPS, labelSelector="name=a"))[0] == 200
    assert [each.metadata.name for each in (await door.client.list(ConfigMap, "default")).items] == ["b"]


async def test_tables_have_columns_and_metadata(door: Door) -> None:
    await door.raw("POST", PODS, pod())
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
    _, table = await door.raw("GET", PODS, accept=accept)
    assert table["kind"] == "Table"
    names = [column["name"] for column in table["columnDefinitions"] if not column["priority"]]
    assert names == ["Name", "Ready", "Status", "Restarts", "Age"]
    assert table["rows"][0]["cells"][:4] == ["web", "0/1", "Pending", "0"]
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"


async def test_a_service_gets_an_address_and_gives_it_back(door: Door) -> None:
    _, made = await door.raw("POST", SERVICES, service("a", type="NodePort"))
    address, port = made["spec"]["clusterIP"], made["spec"]["ports"][0]["nodePort"]
    assert made["spec"]["clusterIPs"] == [address]
    assert 30000 <= port <= 32767
    status, taken = await door.raw("POST", SERVICES, service("b", clusterIP=address))
    assert (status, taken["details"]["causes"][0]["field"]) == (422, "spec.clusterIPs")
    wanted = service("b", type="NodePort", ports=[{"port": 80, "nodePort": port}])
    status, taken = await door.raw("POST", SERVICES, wanted)
    assert (status, taken["details"]["causes"][0]["field"]) == (422, "spec.ports[0].nodePort")
    assert (await door.raw("POST", SERVICES, service("c", clusterIP="10.200.0.1")))[0] == 422
    await door.client.delete(Service, "a", "default")
    status, reused = await door.raw(
        "POST",
        SERVICES,
        service("b", clusterIP=address, type="NodePort", ports=[{"port": 80, "nodePort": port}]),
    )
    assert (status, reused["spec"]["clusterIP"]) == (201, address)


async def test_the_address_of_a_service_never_changes(door: Door) -> None:
    _, made = await door.raw("POST", SERVICES, service())
    made["spec"]["clusterIP"] = "10.96.200.200"
    made["spec"]["clusterIPs"] = ["10.96.200.200"]
    status, refused = await door.raw("PUT", f"{SERVICES}/web", made)
    assert (status, refused["details"]["causes"][0]["field"]) == (422, "spec.clusterIPs[0]")
    kept = await door.raw("PATCH", f"{SERVICES}/web", {"spec": {"type": "NodePort"}}, content_type=MERGE_PATCH)
    assert kept[1]["spec"]["ports"][0]["nodePort"]


async def test_nothing_is_made_in_a_namespace_that_is_missing_or_ending(door: Door) -> None:
    with pytest.raises(NotFound, match='namespaces "nowhere" not found'):
        await door.client.create(ConfigMap(metadata=ObjectMeta(name="cm", namespace="nowhere")))
    await door.client.create(Namespace(metadata=ObjectMeta(name="ending")))
    await door.client.delete(Namespace, "ending")
    with pytest.raises(Forbidden) as refused:
        await door.client.create(ConfigMap(metadata=ObjectMeta(name="cm", namespace="ending")))
    assert refused.value.causes[0].reason == "NamespaceTerminating"
    with pytest.raises(Forbidden, match="may not be deleted"):
        await door.client.delete(Namespace, "default")


async def test_a_dry_run_stores_nothing(door: Door) -> None:
    status, shown = await door.raw("POST", CONFIG_MAPS, {"metadata": {"name": "cm"}}, dryRun="All")
    assert status == 201
    assert shown["metadata"]["uid"]
    assert (await door.client.list(ConfigMap, "default")).items == []


async def test_a_token_of_a_service_account_opens_the_door_until_its_pod_is_gone(door: Door) -> None:
    _, made = await door.raw("POST", PODS, pod())
    bound = {"kind": "Pod", "name": "web", "uid": made["metadata"]["uid"]}
    path = "/api/v1/namespaces/default/serviceaccounts/default/token"
    wanted = {"spec": {"audiences": [], "boundObjectRef": bound}}
    status, answer = await door.raw("POST", path, wanted)
    assert status == 201
    tokens = door.server.tokens
    assert tokens
    user, _ = await tokens.user_of(answer["status"]["token"], tokens.audiences)
    assert user.name == "system:serviceaccount:default:default"
    assert user.extra["authentication.kubernetes.io/pod-name"] == ("web",)
    await door.client.delete(Pod, "web", "default")
    with pytest.raises(Unauthorized):
        await tokens.user_of(answer["status"]["token"], tokens.audiences)


async def test_discovery_names_all_kinds_both_ways(door: Door) -> None:
    _, listed = await door.raw("GET", "/apis/apps/v1")
    assert {each["name"] for each in listed["resources"]} >= {"deployments", "deployments/scale", "replicasets/status"}
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    _, whole = await door.raw("GET", "/apis", accept=accept)
    assert whole["kind"] == "APIGroupDiscoveryList"
    groups = {group["metadata"]["name"] for group in whole["items"]}
    assert {"apps", "discovery.k8s.io", "coordination.k8s.io"} <= groups
    _, index = await door.raw("GET", "/openapi/v3")
    assert "apis/apps/v1" in index["paths"]
    _, document = await door.raw("GET", "/openapi/v3/apis/apps/v1")
    patch = document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"]
    assert "fieldValidation" in {each["name"] for each in patch["parameters"]}
