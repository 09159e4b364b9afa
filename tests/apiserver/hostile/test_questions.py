"""Rows 22 to 28, 36 and 44: queries, headers, paths and verbs. Row 22 to 26 of lists in full: test_list_options.py."""

from __future__ import annotations

from typing import Any

import pytest

from knarr.client.client import APPLY_PATCH, JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH
from knarr.client.transport import Request
from tests.apiserver.hostile.cases import JSON, Case, check, refuse, table
from tests.apiserver.pipeline.door import ADMINISTRATOR, CONFIG_MAPS, PODS, Door, config_map

ONE = f"{CONFIG_MAPS}/a"
THERE = ((CONFIG_MAPS, config_map("a", x="1")),)
NO, ODD = "FieldValueForbidden", "FieldValueNotSupported"
VERSION = r'invalid resource version: resourceVersion: Invalid value: ".*": strconv.ParseUint: parsing ".*": invalid .*'


@table(
    *(
        Case(22, f"version {version!r}, {what}", "GET", path, message=VERSION, there=THERE,
             query={"resourceVersion": version, **query})
        for version in ("abc", "-1", "1.5", "0x1", "1\n")
        for what, path, query in (("list", CONFIG_MAPS, {}), ("get", ONE, {}), ("watch", CONFIG_MAPS, {"watch": "1"}))
    ),
    Case(25, "a forged token", "GET", CONFIG_MAPS, query={"continue": "forged"},
         message="invalid continue token: continue key is not valid"),
    Case(26, "a match without a version", "GET", CONFIG_MAPS, None, 422,
         r'ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden '
         "unless resourceVersion is provided", [(NO, "resourceVersionMatch")], query={"resourceVersionMatch": "Exact"}),
    *(
        Case(26, f"dryRun=foo, {kind}", method, path, body, 422,
             rf'{kind}.meta.k8s.io "" is invalid: dryRun: Unsupported value: \["foo"\]: supported values: "All"',
             [(ODD, "dryRun")], media, {"dryRun": "foo", "fieldManager": "x"}, THERE)
        for method, path, body, media, kind in (
            ("POST", CONFIG_MAPS, config_map("b"), JSON, "CreateOptions"),
            ("PUT", ONE, config_map("a"), JSON, "UpdateOptions"),
            ("PATCH", ONE, {}, MERGE_PATCH, "PatchOptions"),
            ("PATCH", ONE, config_map("a"), APPLY_PATCH, "PatchOptions"),
            ("DELETE", ONE, None, JSON, "DeleteOptions"),
            ("DELETE", CONFIG_MAPS, None, JSON, "DeleteOptions"),
        )
    ),
    Case(26, "dryRun in the body of a DELETE", "DELETE", ONE, {"dryRun": ["foo"]}, 422,
         r'DeleteOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: \["foo"\]: supported values: "All"',
         [(ODD, "dryRun")], there=THERE),
    *(
        Case(27, f"{name}={value!r}{more}", "GET", CONFIG_MAPS, message=message, query={name: value} | more)
        for more in ({}, {"watch": "true"})
        for name, value, message in (
            ("labelSelector", "a in (b", r"unable to parse requirement: found '', expected: ',' or '\)'"),
            ("labelSelector", "a=b=", "unable to parse requirement: found '=', expected: ',' or 'end of string'"),
            ("labelSelector", "a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("labelSelector", "a,", "unable to parse requirement: found '', expected: identifier after ','"),
            ("labelSelector", "a=b\u00e9", "unable to parse requirement: .*"),
            ("labelSelector", "," * 100_000, "unable to parse requirement: .*"),
            ("labelSelector", "x" * 1_000_000, "unable to parse requirement: .*"),
            ("labelSelector", "a in (" + "(" * 100_000, "unable to parse requirement: .*"),
            ("fieldSelector", "metadata.name", "invalid selector: 'metadata.name'; can't understand 'metadata.name'"),
            ("fieldSelector", "a=b", '"a" is not a known field selector: only "metadata.name", "metadata.namespace"'),
            ("fieldSelector", "metadata.name=\\", ""),
            ("timeoutSeconds", "abc", 'strconv.ParseInt: parsing "abc": invalid syntax'),
            ("limit", "1e3", 'strconv.ParseInt: parsing "1e3": invalid syntax'),
        )
    ),
    Case(27, "gracePeriodSeconds=abc", "DELETE", ONE, query={"gracePeriodSeconds": "abc"}, there=THERE,
         message='strconv.ParseInt: parsing "abc": invalid syntax'),
    Case(27, "propagationPolicy=Odd", "DELETE", ONE, None, 422, query={"propagationPolicy": "Odd"}, there=THERE,
         causes=[(ODD, "propagationPolicy")]),
    Case(28, "an apply without a manager", "PATCH", ONE, config_map("a"), 422,
         r'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch',
         [("FieldValueRequired", "fieldManager")], APPLY_PATCH, there=THERE),
    *(
        Case(28, f"force={force}, {media}", "PATCH", ONE, body, 422,
             r'PatchOptions.meta.k8s.io "" is invalid: force: Forbidden: may not be specified for non-apply patch',
             [(NO, "force")], media, {"force": force}, THERE)
        for force in ("true", "false")
        for media, body in ((MERGE_PATCH, {}), (STRATEGIC_MERGE_PATCH, {}), (JSON_PATCH, []))
    ),
    Case(28, "a manager of 129 bytes", "PATCH", ONE, {}, 422, causes=[("FieldValueInvalid", "fieldManager")],
         media=MERGE_PATCH, query={"fieldManager": "x" * 129}, there=THERE),
    Case(28, "a manager that cannot be printed", "PATCH", ONE, {}, 422, causes=[("FieldValueInvalid", "fieldManager")],
         media=MERGE_PATCH, query={"fieldManager": "a\nb"}, there=THERE),
)  # fmt: skip
async def test_queries_that_make_no_sense(door: Door, case: Case) -> None:
    await refuse(door, case)


async def test_row23_a_revision_from_the_future_is_awaited_then_refused(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("reads", "watch"):
        monkeypatch.setattr(f"knarr.apiserver.{module}.FUTURE_WAIT_S", 0.01)
    now = door.store.revision
    for path, query in ((CONFIG_MAPS, {}), (f"{CONFIG_MAPS}/none", {}), (CONFIG_MAPS, {"watch": "1"})):
        message = f"Timeout: Too large resource version: {now + 100}, current: {now}"
        query = {"resourceVersion": str(now + 100), **query}
        case = Case(23, "", "GET", path, None, 504, message, [("ResourceVersionTooLarge", "")], query=query)
        refused = await refuse(door, case)
        assert refused["details"]["retryAfterSeconds"] == 1
    exact = {"resourceVersion": str(now + 100), "resourceVersionMatch": "Exact"}
    assert (await door("GET", CONFIG_MAPS, **exact))[0] == 504


async def test_row24_a_watch_from_compacted_history_is_told_so_in_an_event(door: Door) -> None:
    start = str(door.store.revision)
    await door.done("POST", CONFIG_MAPS, config_map("a"))
    await door.store.compact(door.store.revision)
    now = door.store.revision
    async with door.watch(CONFIG_MAPS, resourceVersion=start) as events:
        kind, status = await events.next()
        assert kind == "ERROR"
        check(Case(24, "", "", "", None, 410, rf"too old resource version: {start} \({now}\)"), status["code"], status)
        with pytest.raises(StopAsyncIteration):
            await events.next()


async def test_row25_a_page_whose_history_is_gone(door: Door) -> None:
    for name in "ab":
        await door.done("POST", CONFIG_MAPS, config_map(name))
    token = (await door.done("GET", CONFIG_MAPS, limit="1"))["metadata"]["continue"]
    await door.done("DELETE", ONE)
    await door.store.compact(door.store.revision)
    status, refused = await door("GET", CONFIG_MAPS, limit="1", **{"continue": token})
    check(Case(25, "", "", "", None, 410, "The provided continue parameter is too old .*"), status, refused)
    rest = await door.done("GET", CONFIG_MAPS, **{"continue": refused["metadata"]["continue"]})
    assert [item["metadata"]["name"] for item in rest["items"]][:1] == ["b"]


@pytest.mark.parametrize(
    "headers",
    [
        {"impersonate-group": "system:masters"},
        {"impersonate-uid": "1"},
        {"impersonate-extra-scopes": "x"},
        {"impersonate-user": "", "impersonate-group": "a"},
    ],
    ids=str,
)
async def test_row36_without_a_user_there_is_nobody_to_be(door: Door, headers: dict[str, str]) -> None:
    answer = await door.server.handle(Request("GET", CONFIG_MAPS, {}, headers, b"", ADMINISTRATOR))
    import msgspec

    message = "requested .* without impersonating a user name"
    check(Case(36, "", "", "", None, 400, message), answer.status, msgspec.json.decode(answer.body))


NOTHING = "the server could not find the requested resource"
NEVER = "the server does not allow this method on the requested resource"
UNEXPECTED: Any = [("UnexpectedServerResponse", "")]


@table(
    *(
        Case(44, f"GET {path}", "GET", path, None, 404, NOTHING, UNEXPECTED)
        for path in (
            "/nowhere", "/api/v2/pods", "/apis/apps/v1/unicorns", "/apis/nowhere/v1", f"{PODS}/a/unicorn",
            "/api/v1/namespaces/default/nodes", "/api/v1//pods/x/y/z", "/api/v1/namespaces/default/pods/a/log/x",
            "/apis/apps/v1/namespaces/default/deployments/a/scale/x", "/../../etc/passwd", "/openapi/v3/apis/none",
        )
    ),
    *(
        Case(44, f"{method} {path}", method, path, config_map("a"), 405, NEVER)
        for method, path in (
            ("POST", ONE), ("PUT", CONFIG_MAPS), ("PATCH", CONFIG_MAPS), ("DELETE", "/api/v1/namespaces"),
            ("POST", "/api"), ("TRACE", ONE), ("BREW", CONFIG_MAPS), ("DELETE", "/version"),
        )
    ),
)  # fmt: skip
async def test_paths_and_verbs_that_are_not_served(door: Door, case: Case) -> None:
    await refuse(door, case)


async def test_every_refusal_is_a_whole_status(door: Door) -> None:
    assert await door("GET", f"{PODS}/a") == (
        404,
        {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": 'pods "a" not found',
            "reason": "NotFound",
            "details": {"name": "a", "kind": "pods"},
            "code": 404,
        },
    )
