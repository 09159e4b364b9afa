"""JSON Patch, JSON Merge Patch and strategic merge patch: by table, and against models that know less of speed."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from knarr.api.core.v1 import Pod
from knarr.api.errors import APIError, BadRequest
from knarr.apiserver.patch import Unprocessable, checked_operations, json_patch, merge_patch
from knarr.apiserver.strategic import strategic_merge_patch
from knarr.client.client import JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH
from tests.apiserver.pipeline.door import CONFIG_MAPS, DEPLOYMENTS, Door, config_map, deployment

REJECTED = "the server rejected our request due to an error in our request"


# JSON Patch


def operation(op: str, path: str, **more: Any) -> dict[str, Any]:
    return {"op": op, "path": path, **more}


@pytest.mark.parametrize(
    ("data", "steps", "result"),
    [
        ({}, [operation("add", "/a", value=1)], {"a": 1}),
        ({"a": 1}, [operation("add", "/a", value=2)], {"a": 2}),
        ({"a": [1, 3]}, [operation("add", "/a/1", value=2)], {"a": [1, 2, 3]}),
        ({"a": [1]}, [operation("add", "/a/-", value=2)], {"a": [1, 2]}),
        ({"a": [1]}, [operation("add", "/a/1", value=2)], {"a": [1, 2]}),
        ({"a": [1]}, [operation("add", "/a/-1", value=2)], {"a": [1, 2]}),
        ({"a": {"b": 1}}, [operation("remove", "/a/b")], {"a": {}}),
        ({"a": [1, 2]}, [operation("remove", "/a/0")], {"a": [2]}),
        ({"a": [1, 2]}, [operation("remove", "/a/-1")], {"a": [1]}),
        ({"a": 1}, [operation("replace", "/a", value=[2])], {"a": [2]}),
        ({"a": 1}, [operation("replace", "/b", value=2)], {"a": 1, "b": 2}),
        ({"a": 1}, [operation("replace", "", value={"b": 2})], {"b": 2}),
        ({"a": [1, 2]}, [operation("replace", "/a/1", value=3)], {"a": [1, 3]}),
        ({"a": 1}, [operation("move", "/b", **{"from": "/a"})], {"b": 1}),
        ({"a": [1, 2]}, [operation("move", "/a/1", **{"from": "/a/0"})], {"a": [2, 1]}),
        ({"a": {"b": 1}}, [operation("copy", "/c", **{"from": "/a"})], {"a": {"b": 1}, "c": {"b": 1}}),
        ({"a/b": 1, "c~d": 2}, [operation("remove", "/a~1b"), operation("test", "/c~0d", value=2)], {"c~d": 2}),
        ({"~1": 1}, [operation("remove", "/~01")], {}),
        ({"": 1}, [operation("remove", "/")], {}),
        ({"a": {"x": 1, "y": [None]}}, [operation("test", "/a", value={"y": [None], "x": 1})], None),
        ({"a": 1}, [operation("test", "/b", value=None)], None),
        ({"a": 1}, [operation("test", "", value={"a": 1})], None),
        ({"a": 1}, [operation("add", "/b")], {"a": 1, "b": None}),
    ],
)
def test_the_operations_of_rfc_6902(data: Any, steps: Any, result: Any) -> None:
    before = copy.deepcopy(data)
    assert json_patch(data, steps) == (before if result is None else result)
    assert data == before


@pytest.mark.parametrize(
    "step",
    [
        operation("add", "", value={}),
        operation("add", "/b/c", value=1),
        operation("add", "/s/c", value=1),
        operation("add", "/a/3", value=1),
        operation("add", "/a/-4", value=1),
        operation("add", "/a/x", value=1),
        operation("add", "/a/1e0", value=1),
        operation("add", "/a/٣", value=1),
        operation("add", "no", value=1),
        operation("remove", "/b"),
        operation("remove", "/a/2"),
        operation("remove", "/a/-"),
        operation("remove", ""),
        operation("replace", "/a/2", value=1),
        operation("replace", "", value=1),
        operation("test", "/a/0", value=2),
        operation("test", "/a/0", value=True),
        operation("test", "/a/0", value=1.0),
        operation("test", "/a"),
        operation("move", "/b"),
        operation("move", "/b", **{"from": "/c"}),
        operation("copy", "/b", **{"from": "/a/9"}),
        operation("cut", "/a"),
        {"path": "/a"},
        {"op": "remove"},
    ],
)
def test_an_operation_that_cannot_be_done_rejects_the_request(step: Any) -> None:
    with pytest.raises(Unprocessable) as caught:
        json_patch({"a": [1, 2], "s": "x"}, [step])
    assert (caught.value.code, caught.value.reason, caught.value.message) == (422, "Invalid", REJECTED)


@pytest.mark.parametrize(
    ("operations", "message"),
    [
        ({}, "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"),
        ("x", "error decoding patch: json: cannot unmarshal string into Go value of type []handlers.jsonPatchOp"),
        ([1], "error decoding patch: json: cannot unmarshal number into Go value of type handlers.jsonPatchOp"),
        (
            [{"op": 1}],
            "error decoding patch: json: cannot unmarshal number into Go struct field jsonPatchOp.op of type string",
        ),
    ],
)
def test_what_is_no_list_of_operations_is_a_bad_request(operations: Any, message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        checked_operations(operations)
    assert caught.value.message == message


JSON_VALUES = some.recursive(
    some.none() | some.booleans() | some.integers(-3, 3) | some.sampled_from(["", "a", "~", "/"]),
    lambda below: (
        some.lists(below, max_size=3) | some.dictionaries(some.sampled_from(["a", "b", "~/"]), below, max_size=3)
    ),
    max_leaves=12,
)
POINTERS = some.lists(some.sampled_from(["a", "b", "~0~1", "0", "1", "-", "-1"]), max_size=3).map(
    lambda parts: "".join(f"/{part}" for part in parts)
)
OPERATIONS = some.fixed_dictionaries(
    {
        "op": some.sampled_from(["add", "remove", "replace", "move", "copy", "test"]),
        "path": POINTERS,
        "from": POINTERS,
        "value": JSON_VALUES,
    }
)


@given(JSON_VALUES, some.lists(OPERATIONS, max_size=4))
def test_any_json_patch_is_applied_or_rejected_and_changes_nothing_it_was_given(data: Any, steps: Any) -> None:
    before = json.dumps([data, steps])
    try:
        json_patch(data, steps)
    except Unprocessable:
        pass
    assert json.dumps([data, steps]) == before


@given(JSON_VALUES, JSON_VALUES)
def test_copied_and_moved_values_arrive_and_test_knows_only_the_same(one: Any, other: Any) -> None:
    data = {"x": one, "y": other}
    assert json_patch(data, [operation("copy", "/z", **{"from": "/x"})])["z"] == one
    assert json_patch(data, [operation("move", "/z", **{"from": "/x"})]) == {"y": other, "z": one}
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    try:
        json_patch(data, [operation("test", "/x", value=other)])
        assert same
    except Unprocessable:
        assert not same


DOCUMENTS = some.dictionaries(
    some.sampled_from("abc"),
    some.recursive(
        some.integers(2, 5) | some.sampled_from(["", "x"]),
        lambda below: some.lists(below, max_size=3) | some.dictionaries(some.sampled_from("abc"), below),
        max_leaves=8,
    ),
)


@given(DOCUMENTS, DOCUMENTS)
def test_a_merge_patch_made_of_a_difference_leads_there(old: Any, new: Any) -> None:
    def difference(before: Any, after: Any) -> Any:
        if not isinstance(before, dict) or not isinstance(after, dict):
            return after
        changed = {name: difference(before.get(name), part) for name, part in after.items() if part != before.get(name)}
        return dict.fromkeys(before.keys() - after.keys()) | changed

    assert merge_patch(old, difference(old, new)) == new


# Strategic merge patch


def pod(containers: list[Any] | None = None, **spec: Any) -> dict[str, Any]:
    return {"spec": ({} if containers is None else {"containers": containers}) | spec}


def named(names: str, **more: Any) -> list[dict[str, Any]]:
    return [{"name": name, **more} for name in names]


@pytest.mark.parametrize(
    ("data", "patch", "result"),
    [
        # What is new stands first, as upstream puts it; what is patched in the order of the patch.
        (pod(named("ab")), pod(named("c")), pod(named("cab"))),
        (pod(named("abc")), pod(named("b")), pod(named("abc"))),
        (pod(named("abc")), pod(named("cb")), pod(named("acb"))),
        (pod(named("ab")), pod([{"name": "a", "tty": True}]), pod([{"name": "a", "tty": True}, {"name": "b"}])),
        (pod(named("ab")), pod([{"name": "a", "$patch": "delete"}]), pod(named("b"))),
        (pod(named("ab")), pod([{"name": "x", "$patch": "delete"}]), pod(named("ab"))),
        (pod(named("ab")), pod([{"$patch": "replace"}, *named("c")]), pod(named("c"))),
        (pod(named("ab")), pod([{"name": "a", "$patch": "replace"}]), pod([])),
        (pod(None), pod([{"name": "a", "$patch": "delete"}, *named("b")]), pod(named("b"))),
        (pod(named("a", tty=True)), pod([{"name": "a", "tty": None}]), pod(named("a"))),
        (pod(named("abc")), pod(None, **{"$setElementOrder/containers": named("cab")}), pod(named("cab"))),
        (
            pod(named("abcd")),
            pod(named("x"), **{"$setElementOrder/containers": named("dxa")}),
            pod([*named("bcdxa")]),
        ),
        # Maps
        (
            pod(None, securityContext={"a": 1}),
            pod(None, securityContext={"$patch": "delete"}),
            pod(None, securityContext={}),
        ),
        (
            pod(None, securityContext={"runAsUser": 1}),
            pod(None, securityContext={"$patch": "replace", "runAsGroup": 2}),
            pod(None, securityContext={"runAsGroup": 2}),
        ),
        (
            pod(None, nodeSelector={"a": "1"}),
            pod(None, nodeSelector={"b": "1"}),
            pod(None, nodeSelector={"a": "1", "b": "1"}),
        ),
        # A union of volumes
        (
            pod(None, volumes=[{"name": "v", "emptyDir": {}}]),
            pod(None, volumes=[{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}]),
            pod(None, volumes=[{"name": "v", "hostPath": {"path": "/"}}]),
        ),
        # Lists of scalars
        (
            {"metadata": {"finalizers": ["a", "b"]}},
            {"metadata": {"finalizers": ["c", "a"]}},
            {"metadata": {"finalizers": ["c", "a", "b"]}},
        ),
        (
            {"metadata": {"finalizers": ["a", "b"]}},
            {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a", "x"]}},
            {"metadata": {"finalizers": ["b"]}},
        ),
        ({"metadata": {}}, {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}, {"metadata": {}}),
        # Lists that are replaced
        (pod(named("a", args=["1"])), pod([{"name": "a", "args": ["2"]}]), pod(named("a", args=["2"]))),
        (
            pod(None, tolerations=[{"key": "a"}]),
            pod(None, tolerations=[{"key": "b"}]),
            pod(None, tolerations=[{"key": "b"}]),
        ),
    ],
)
def test_a_strategic_merge_patch(data: Any, patch: Any, result: Any) -> None:
    before = copy.deepcopy((data, patch))
    assert strategic_merge_patch(Pod, data, patch) == result
    assert (data, patch) == before


@pytest.mark.parametrize(
    ("patch", "code", "message"),
    [
        (pod([{"image": "x"}]), 400, "map: map[image:x] does not contain declared merge key: name"),
        (pod([{"$patch": "delete"}]), 400, "map: map[$patch:delete] does not contain declared merge key: name"),
        (pod([{"$patch": "drop", "name": "a"}]), 400, "unknown patch type: drop in map: map[$patch:drop name:a]"),
        (pod(None, **{"$patch": 1}), 400, "unknown patch type: 1 in map: map[$patch:1]"),
        (pod(["x"]), 400, "list element types are not identical"),
        (pod([[]]), 422, "lists of lists are not supported"),
        (pod(None, **{"$retainKeys": "x"}), 400, "invalid patch format of retainKeys"),
        (pod(None, hostPID=True, **{"$retainKeys": ["x"]}), 400, "invalid patch format of retainKeys"),
        (
            {"metadata": {"$deleteFromPrimitiveList/finalizers": "a"}},
            400,
            "invalid patch format of primitive list",
        ),
        (pod(None, **{"$setElementOrder/containers": "a"}), 400, "invalid patch format of setElementOrder list"),
        (
            pod(named("ab"), **{"$setElementOrder/containers": named("ba")}),
            400,
            "The order in patch list:\n[map[name:a] map[name:b]]\n doesn't match $setElementOrder list:\n"
            "[map[name:b] map[name:a]]\n",
        ),
    ],
)
def test_a_strategic_merge_patch_that_is_none(patch: Any, code: int, message: str) -> None:
    with pytest.raises(APIError) as caught:
        strategic_merge_patch(Pod, pod(named("ab")), patch)
    assert (caught.value.code, caught.value.message) == (code, message)


CONTAINERS = some.lists(some.sampled_from("abcde"), unique=True, max_size=5)
SETTINGS = some.dictionaries(some.sampled_from(["image", "workingDir", "tty"]), some.sampled_from(["1", "2"]))


@given(CONTAINERS, some.lists(some.tuples(some.sampled_from("abcdef"), SETTINGS, some.booleans()), max_size=5))
def test_merged_lists_hold_what_a_model_by_name_holds(names: list[str], changes: list[tuple[str, Any, bool]]) -> None:
    old = [{"name": name, "image": "0"} for name in names]
    patch = [
        {"name": name, "$patch": "delete"} if delete else {"name": name, **settings}
        for name, settings, delete in changes
    ]
    model: dict[str, Any] = {item["name"]: item for item in old}
    for name, _, delete in changes:
        if delete:
            model.pop(name, None)
    for name, settings, delete in changes:
        if not delete:
            model[name] = model.get(name, {"name": name}) | settings
    made = strategic_merge_patch(Pod, pod(old), pod(patch))["spec"]["containers"]
    assert sorted(map(str, map(sorted_items, made))) == sorted(map(str, map(sorted_items, model.values())))
    untouched = [name for name in names if name not in [change[0] for change in changes]]
    assert [item["name"] for item in made if item["name"] in untouched] == untouched


def sorted_items(item: dict[str, Any]) -> list[tuple[str, Any]]:
    return sorted(item.items())


@given(JSON_VALUES, JSON_VALUES)
def test_no_strategic_merge_patch_fails_but_as_a_bad_request(data: Any, patch: Any) -> None:
    codes = set()
    for field in ("containers", "securityContext", "tolerations", "$setElementOrder/containers", "$retainKeys"):
        try:
            strategic_merge_patch(Pod, {"spec": {field: data, "containers": data}}, {"spec": {field: patch}})
        except APIError as error:
            codes.add(error.code)
    assert codes <= {400, 422}


# At the door


async def test_a_rejected_patch_is_told_as_upstream_tells_it(door: Door) -> None:
    await door.done("POST", CONFIG_MAPS, config_map("a", x="1"))
    step = [{"op": "remove", "path": "/data/y"}]
    status, refused = await door("PATCH", f"{CONFIG_MAPS}/a", step, content_type=JSON_PATCH)
    assert (status, refused["reason"], refused["message"]) == (422, "Invalid", REJECTED)


@pytest.mark.parametrize(
    ("media", "patch", "faults"),
    [
        (MERGE_PATCH, b'{"datta":{},"data":{"x":"1","x":"2"}}', ['duplicate field "data.x"', 'unknown field "datta"']),
        (
            STRATEGIC_MERGE_PATCH,
            b'{"datta":{},"data":{"x":"1","x":"2"}}',
            ['duplicate field "data.x"', 'unknown field "datta"'],
        ),
        (
            JSON_PATCH,
            b'[{"op":"add","path":"/datta","value":{},"why":1,"op":"add"}]',
            ['json patch duplicate field "[0].op"', 'json patch unknown field "[0].why"', 'unknown field "datta"'],
        ),
    ],
)
async def test_unknown_and_duplicate_fields_of_patches(door: Door, media: str, patch: bytes, faults: list[str]) -> None:
    await door.done("POST", CONFIG_MAPS, config_map("a"))
    path = f"{CONFIG_MAPS}/a"
    status, refused = await door("PATCH", path, patch, content_type=media, fieldValidation="Strict")
    assert (status, refused["reason"]) == (422, "Invalid")
    assert refused["message"].startswith(' "" is invalid: patch: Invalid value: "')
    assert refused["message"].endswith(f": strict decoding error: {', '.join(faults)}")
    answer = await door.ask("PATCH", path, patch, content_type=media)
    assert (answer.status, answer.warnings) == (200, faults)
    answer = await door.ask("PATCH", path, patch, content_type=media, fieldValidation="Ignore")
    assert (answer.status, answer.warnings) == (200, [])


@pytest.mark.parametrize("media", [MERGE_PATCH, STRATEGIC_MERGE_PATCH])
async def test_a_patch_to_a_wrong_type_is_the_objects_fault(door: Door, media: str) -> None:
    await door.done("POST", DEPLOYMENTS, deployment())
    patch = {"spec": {"replicas": "many"}}
    status, refused = await door("PATCH", f"{DEPLOYMENTS}/web", patch, content_type=media)
    assert (status, refused["reason"]) == (422, "Invalid")
    wrong = "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"
    assert refused["message"].endswith(wrong)
    if media == STRATEGIC_MERGE_PATCH:
        assert 'Invalid value: "map[spec:map[replicas:many]]"' in refused["message"]


@pytest.mark.parametrize("media", ["application/json", "application/json-patch", "text/plain", ""])
async def test_patches_of_other_types_are_not_taken(door: Door, media: str) -> None:
    await door.done("POST", CONFIG_MAPS, config_map("a"))
    status, refused = await door("PATCH", f"{CONFIG_MAPS}/a", {}, content_type=media)
    assert (status, refused["reason"]) == (415, "UnsupportedMediaType")


async def test_a_patch_cannot_rename(door: Door) -> None:
    await door.done("POST", CONFIG_MAPS, config_map("a"))
    patch = {"metadata": {"name": "b"}}
    status, refused = await door("PATCH", f"{CONFIG_MAPS}/a", patch, content_type=MERGE_PATCH)
    assert (status, refused["message"]) == (400, "the name of the object (b) does not match the name on the URL (a)")


async def test_a_patch_creates_nothing(door: Door) -> None:
    for media, patch in ((MERGE_PATCH, {}), (STRATEGIC_MERGE_PATCH, {}), (JSON_PATCH, [])):
        status, refused = await door("PATCH", f"{CONFIG_MAPS}/a", patch, content_type=media)
        assert (status, refused["message"]) == (404, 'configmaps "a" not found')
