"""What an Accept header gets: its weights, tables and metadata in both versions, in lists and watches; indentation."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import yaml

from knarr.apiserver.forms import Form, accepted
from tests.apiserver.pipeline.door import CONFIG_MAPS, PODS, Door, config_map, pod

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
PARTIAL_LIST = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"


@pytest.mark.parametrize(
    ("accept", "form", "in_yaml", "version"),
    [
        ("", Form.OBJECT, False, "v1"),
        ("*/*", Form.OBJECT, False, "v1"),
        ("application/*", Form.OBJECT, False, "v1"),
        ("APPLICATION/JSON", Form.OBJECT, False, "v1"),
        ("application/json;stream=watch", Form.OBJECT, False, "v1"),
        ("application/json;charset=utf-8", Form.OBJECT, False, "v1"),
        ("application/yaml,application/json", Form.OBJECT, True, "v1"),
        ("application/yaml;q=0.5,application/json", Form.OBJECT, False, "v1"),
        ("application/json;q=0.1,application/yaml;q=0.9", Form.OBJECT, True, "v1"),
        ("application/json;q=0,application/yaml;q=0.001", Form.OBJECT, True, "v1"),
        ("*/*,application/yaml", Form.OBJECT, True, "v1"),
        ("image/png,application/json;q=0.1", Form.OBJECT, False, "v1"),
        (TABLE, Form.TABLE, False, "v1"),
        (TABLE.replace("json", "yaml"), Form.TABLE, True, "v1"),
        (TABLE.replace("v=v1", "v=v1beta1"), Form.TABLE, False, "v1beta1"),
        (TABLE.replace("v=v1", "v=v9") + ",application/json", Form.OBJECT, False, "v1"),
        (TABLE.replace("meta.k8s.io", "other") + ",application/json", Form.OBJECT, False, "v1"),
        ("application/json;as=Other;v=v1;g=meta.k8s.io,application/json", Form.OBJECT, False, "v1"),
        (f"application/vnd.kubernetes.protobuf,{PARTIAL}", Form.METADATA, False, "v1"),
    ],
)
def test_the_best_clause_that_can_be_met_wins(accept: str, form: Form, in_yaml: bool, version: str) -> None:
    found = accepted(accept)
    assert (found.form, found.yaml, found.version) == (form, in_yaml, version)


@pytest.mark.parametrize(
    "accept", ["image/png", "application/json;q=0", "*/*;q=0.000", TABLE.replace("v1", "v9"), ",", ";", "a/b/c"]
)
async def test_an_accept_that_nothing_meets_is_refused(door: Door, accept: str) -> None:
    for path in (CONFIG_MAPS, f"{CONFIG_MAPS}/kube-root-ca.crt"):
        status, refused = await door("GET", path, accept=accept)
        assert status in (404, 406)
        assert path != CONFIG_MAPS or (status, refused["reason"]) == (406, "NotAcceptable")


async def test_a_watch_is_json_or_nothing(door: Door) -> None:
    status, refused = await door("GET", CONFIG_MAPS, watch="true", accept="application/yaml")
    assert (status, refused["reason"]) == (406, "NotAcceptable")
    async with door.watch(CONFIG_MAPS, accept="application/yaml, application/json;stream=watch;q=0.5") as events:
        await door.done("POST", CONFIG_MAPS, config_map("a"))
        assert await events.take(1) == [("ADDED", "a")]


@pytest.mark.parametrize(("include", "kind"), [("", "PartialObjectMetadata"), ("Object", "Pod"), ("None", None)])
async def test_rows_carry_as_much_of_their_object_as_is_asked(door: Door, include: str, kind: str | None) -> None:
    made = await door.done("POST", PODS, pod("a"))
    version = made["metadata"]["resourceVersion"]
    for path in (PODS, f"{PODS}/a"):
        table = await door.done("GET", path, accept=TABLE, includeObject=include)
        assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1")
        assert table["metadata"] == {"resourceVersion": version}
        (row,) = table["rows"]
        assert row.get("object", {}).get("kind") == kind


async def test_rows_of_an_unknown_kind_are_refused(door: Door) -> None:
    await door.done("POST", PODS, pod("a"))
    for path, more in ((PODS, {}), (f"{PODS}/a", {}), (PODS, {"watch": "true"})):
        status, refused = await door("GET", path, accept=TABLE, includeObject="Odd", **more)
        assert (status, refused["reason"]) == (400, "BadRequest")
        assert refused["message"].startswith(
            'Unable to convert to Table as requested: includeObject: Unsupported value: "Odd"'
        )
    assert (await door("GET", PODS, includeObject="Odd"))[0] == 200


async def test_a_page_of_a_table_says_where_the_next_begins(door: Door) -> None:
    for name in "abc":
        await door.done("POST", PODS, pod(name))
    seen: list[str] = []
    query: dict[str, str] = {"limit": "1"}
    while True:
        page = await door.done("GET", PODS, accept=TABLE, **query)
        seen += [row["cells"][0] for row in page["rows"]]
        if "continue" not in page["metadata"]:
            break
        assert page["metadata"]["remainingItemCount"] == 3 - len(seen)
        query["continue"] = page["metadata"]["continue"]
    assert seen == ["a", "b", "c"]


async def test_a_watched_table_tells_its_columns_once(door: Door) -> None:
    query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
    await door.done("POST", PODS, pod("a"))
    start = str(door.store.revision)
    async with door.watch(PODS, accept=TABLE, **query) as events:
        await door.done("POST", PODS, pod("b"))
        seen = [await events.next() for _ in range(3)]
    async with door.watch(PODS, accept=TABLE, resourceVersion=start) as late:
        kind, table = await late.next()
        assert (kind, table["columnDefinitions"][0]["name"]) == ("ADDED", "Name")
    assert [kind for kind, _ in seen] == ["ADDED", "BOOKMARK", "ADDED"]
    tables = [table for _, table in seen]
    assert [bool(table["columnDefinitions"]) for table in tables] == [True, False, False]
    assert [len(table["rows"]) for table in tables] == [1, 1, 1]
    assert all(len(table["rows"][0]["cells"]) == len(tables[0]["columnDefinitions"]) for table in tables)
    mark = tables[1]["rows"][0]["object"]
    assert mark["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert tables[1]["metadata"]["resourceVersion"] == start


async def test_metadata_is_asked_for_as_what_is_shown(door: Door) -> None:
    await door.done("POST", PODS, pod("a"))
    one = await door.done("GET", f"{PODS}/a", accept=PARTIAL)
    assert set(one) == {"kind", "apiVersion", "metadata"}
    listed = await door.done("GET", PODS, accept=PARTIAL_LIST.replace("v=v1", "v=v1beta1"))
    assert (listed["kind"], listed["apiVersion"]) == ("PartialObjectMetadataList", "meta.k8s.io/v1beta1")
    assert {item["kind"] for item in listed["items"]} == {"PartialObjectMetadata"}
    assert (await door("GET", PODS, accept=PARTIAL))[0] == 406
    assert (await door("GET", f"{PODS}/a", accept=PARTIAL_LIST))[0] == 406
    async with door.watch(PODS, accept=PARTIAL) as events:
        kind, seen = await events.next()
    assert (kind, seen) == ("ADDED", one)


async def test_yaml_holds_what_json_holds(door: Door) -> None:
    await door.done("POST", PODS, pod("a"))
    for path in (PODS, f"{PODS}/a"):
        answer = await door.ask("GET", path, accept="application/yaml")
        assert answer.headers["content-type"] == "application/yaml"
        assert yaml.safe_load(answer.body) == await door.done("GET", path)
    answer = await door.ask("GET", PODS, accept=TABLE.replace("json", "yaml"))
    assert yaml.safe_load(answer.body)["kind"] == "Table"


@pytest.mark.parametrize(
    ("query", "agent", "indented"),
    [
        ({}, "kubectl/v1.36", False),
        ({}, "curl/8.0", True),
        ({}, "Mozilla/5.0 (X11)", True),
        ({"pretty": "true"}, "kubectl/v1.36", True),
        ({"pretty": "1"}, "", True),
        ({"pretty": "false"}, "curl/8.0", False),
        ({"pretty": "odd"}, "curl/8.0", False),
    ],
)
async def test_answers_are_indented_for_persons(door: Door, query: dict[str, str], agent: str, indented: bool) -> None:
    from knarr.client.transport import Request
    from tests.apiserver.pipeline.door import ADMINISTRATOR

    for path, code in ((CONFIG_MAPS, 200), ("/apis", 200), (f"{CONFIG_MAPS}/none", 404)):
        headers = {"user-agent": agent}
        answer: Any = await door.server.handle(Request("GET", path, query, headers, b"", ADMINISTRATOR))
        assert answer.status == code
        assert (b"\n  " in answer.body) is indented
        assert msgspec.json.decode(answer.body)
