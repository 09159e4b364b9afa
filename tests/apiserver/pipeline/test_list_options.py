"""resourceVersion, resourceVersionMatch, limit, continue, sendInitialEvents: every combination, as upstream has it."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest

from tests.apiserver.pipeline.door import CONFIG_MAPS, PODS, Door, config_map

MATCH = "resourceVersionMatch"
WITHOUT_VERSION = ("FieldValueForbidden", MATCH, f"Forbidden: {MATCH} is forbidden unless resourceVersion is provided")
WITH_TOKEN = ("FieldValueForbidden", MATCH, f"Forbidden: {MATCH} is forbidden when continue is provided")
EXACT_ZERO = ("FieldValueForbidden", MATCH, f'Forbidden: {MATCH} "exact" is forbidden for resourceVersion "0"')
ODD = (
    "FieldValueNotSupported",
    MATCH,
    'Unsupported value: "Odd": supported values: "Exact", "NotOlderThan", ""',
)
FOR_LIST = ("FieldValueForbidden", "sendInitialEvents", "Forbidden: sendInitialEvents is forbidden for list")
NEEDS_MATCH = (
    "FieldValueForbidden",
    MATCH,
    f"Forbidden: sendInitialEvents requires setting {MATCH} to NotOlderThan",
)
FOR_WATCH = (
    "FieldValueForbidden",
    MATCH,
    f"Forbidden: {MATCH} is forbidden for watch unless sendInitialEvents is provided",
)
EXACT_WATCH = ("FieldValueNotSupported", MATCH, 'Unsupported value: "Exact": supported values: "NotOlderThan"')


@pytest.mark.parametrize(
    ("query", "faults"),
    [
        ({MATCH: "Exact"}, [WITHOUT_VERSION]),
        ({MATCH: "NotOlderThan"}, [WITHOUT_VERSION]),
        ({MATCH: "Odd"}, [WITHOUT_VERSION, ODD]),
        ({MATCH: "Odd", "resourceVersion": "1"}, [ODD]),
        ({MATCH: "Exact", "resourceVersion": "0"}, [EXACT_ZERO]),
        ({MATCH: "Exact", "resourceVersion": "1", "continue": "x"}, [WITH_TOKEN]),
        ({MATCH: "NotOlderThan", "continue": "x"}, [WITHOUT_VERSION, WITH_TOKEN]),
        ({"sendInitialEvents": "true"}, [FOR_LIST]),
        ({"sendInitialEvents": "false", MATCH: "NotOlderThan", "resourceVersion": "0"}, [FOR_LIST]),
        ({"watch": "1", "sendInitialEvents": "true"}, [NEEDS_MATCH]),
        ({"watch": "1", "sendInitialEvents": "false"}, [NEEDS_MATCH]),
        ({"watch": "1", "sendInitialEvents": "true", MATCH: "Exact"}, [NEEDS_MATCH, EXACT_WATCH]),
        ({"watch": "1", MATCH: "NotOlderThan"}, [FOR_WATCH]),
        ({"watch": "1", MATCH: "Exact"}, [FOR_WATCH, EXACT_WATCH]),
        ({"watch": "1", "sendInitialEvents": "1", MATCH: "NotOlderThan", "continue": "x"}, [WITH_TOKEN]),
    ],
    ids=str,
)
async def test_questions_that_make_no_sense_are_invalid_and_every_fault_is_named(
    door: Door, query: dict[str, str], faults: list[Any]
) -> None:
    status, refused = await door("GET", CONFIG_MAPS, **query)
    assert (status, refused["reason"]) == (422, "Invalid")
    assert refused["details"]["kind"] == "ListOptions"
    found = [(cause["reason"], cause["field"], cause["message"]) for cause in refused["details"]["causes"]]
    assert found == faults


@pytest.fixture
async def moments(door: Door) -> dict[str, str]:
    """Revisions: when there was a, then b too, then c."""
    found = {}
    for name in "abc":
        await door.done("POST", CONFIG_MAPS, config_map(name))
        found[name] = str(door.store.revision)
    return found


@pytest.mark.parametrize(
    ("query", "names", "at"),
    [
        ({}, "abc", "c"),
        ({"resourceVersion": ""}, "abc", "c"),
        ({"resourceVersion": "0"}, "abc", "c"),
        ({"resourceVersion": "0", MATCH: "NotOlderThan"}, "abc", "c"),
        ({"resourceVersion": "b"}, "abc", "c"),
        ({"resourceVersion": "b", MATCH: "NotOlderThan"}, "abc", "c"),
        ({"resourceVersion": "b", MATCH: "Exact"}, "ab", "b"),
        ({"resourceVersion": "b", "limit": "10"}, "ab", "b"),
        ({"resourceVersion": "b", "limit": "1"}, "a", "b"),
        ({"resourceVersion": "b", "limit": "1", MATCH: "Exact"}, "a", "b"),
        ({"resourceVersion": "b", "limit": "10", MATCH: "NotOlderThan"}, "abc", "c"),
        ({"resourceVersion": "0", "limit": "2"}, "ab", "c"),
        ({"limit": "2"}, "ab", "c"),
        ({"limit": "0"}, "abc", "c"),
        ({"limit": "-1"}, "abc", "c"),
    ],
    ids=str,
)
async def test_which_moment_a_list_shows(
    door: Door, moments: dict[str, str], query: dict[str, str], names: str, at: str
) -> None:
    query = {name: moments.get(value, value) for name, value in query.items()}
    listed = await door.done("GET", CONFIG_MAPS, **query)
    assert "".join(item["metadata"]["name"] for item in listed["items"]) == names
    assert listed["metadata"]["resourceVersion"] == moments[at]


async def test_how_many_follow_is_told_but_for_selections(door: Door, moments: dict[str, str]) -> None:
    page = await door.done("GET", CONFIG_MAPS, limit="1")
    assert page["metadata"]["remainingItemCount"] == 2
    page = await door.done("GET", CONFIG_MAPS, limit="1", **{"continue": page["metadata"]["continue"]})
    assert page["metadata"]["remainingItemCount"] == 1
    page = await door.done("GET", CONFIG_MAPS, limit="1", **{"continue": page["metadata"]["continue"]})
    assert set(page["metadata"]) == {"resourceVersion"}
    page = await door.done("GET", CONFIG_MAPS, limit="1", labelSelector="!x")
    assert set(page["metadata"]) == {"resourceVersion", "continue"}


async def test_an_exact_moment_that_is_forgotten_is_expired(door: Door, moments: dict[str, str]) -> None:
    await door.store.compact(door.store.revision)
    status, refused = await door("GET", CONFIG_MAPS, resourceVersion=moments["a"], resourceVersionMatch="Exact")
    assert (status, refused["reason"]) == (410, "Expired")
    assert refused["message"] == "The resourceVersion for the provided list is too old."
    assert "continue" not in refused["metadata"]


def token(**fields: Any) -> str:
    data = msgspec.json.encode({"v": "meta.k8s.io/v1", "rv": 1, "start": "configmaps/default/a"} | fields)
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


@pytest.mark.parametrize(
    "forged",
    [
        "forged",
        "*",
        "é",
        "\u0000",
        token(v="v2"),
        token(rv=0),
        token(rv=-2),
        token(rv=2**62),
        token(rv=2**70),
        token(rv=True),
        token(rv="1"),
        token(start=""),
        token(start=None),
        base64.urlsafe_b64encode(b"[]").decode(),
        base64.urlsafe_b64encode(b"[" * 100_000).decode(),
        base64.urlsafe_b64encode(b"\xff").decode(),
    ],
    ids=lambda each: each[:24],
)
async def test_a_continue_token_that_nobody_gave_out_is_a_bad_request(door: Door, forged: str) -> None:
    status, refused = await door("GET", CONFIG_MAPS, **{"continue": forged})
    assert (status, refused["reason"]) == (400, "BadRequest")
    assert refused["message"].startswith("invalid continue token: continue key is not valid")


@pytest.mark.parametrize(
    "start",
    ["a", "../x", "secrets/default/a", "configmaps", "configmaps/kube-system/a", "configmaps/default/../kube-system/a"],
)
async def test_a_token_with_the_key_of_another_list_is_refused(door: Door, moments: dict[str, str], start: str) -> None:
    for revision in (door.store.revision, int(moments["b"]), -1):
        status, refused = await door("GET", CONFIG_MAPS, **{"continue": token(rv=revision, start=start)})
        assert (status, refused["message"]) == (400, f"invalid continue token: continue key is not valid: {start}")


async def test_a_version_beside_a_token_is_refused(door: Door, moments: dict[str, str]) -> None:
    page = await door.done("GET", CONFIG_MAPS, limit="1")
    query = {"continue": page["metadata"]["continue"]}
    status, refused = await door("GET", CONFIG_MAPS, resourceVersion="5", **query)
    assert (status, refused["message"]) == (
        400,
        "specifying resource version is not allowed when using continue",
    )
    assert (await door("GET", CONFIG_MAPS, resourceVersion="0", **query))[0] == 200


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (
            {"resourceVersion": "abc"},
            'invalid resource version: resourceVersion: Invalid value: "abc": '
            'strconv.ParseUint: parsing "abc": invalid syntax',
        ),
        ({"resourceVersion": "-1"}, None),
        ({"resourceVersion": "1\n"}, None),
        ({"resourceVersion": "٣"}, None),
        ({"resourceVersion": "9" * 5000}, None),
        ({"limit": "abc"}, 'strconv.ParseInt: parsing "abc": invalid syntax'),
        ({"limit": "9" * 30}, f'strconv.ParseInt: parsing "{"9" * 30}": value out of range'),
        ({"limit": "1_0"}, 'strconv.ParseInt: parsing "1_0": invalid syntax'),
        ({"watch": "1", "timeoutSeconds": "abc"}, 'strconv.ParseInt: parsing "abc": invalid syntax'),
        ({"fieldSelector": "a=b"}, '"a" is not a known field selector: only "metadata.name", "metadata.namespace"'),
        ({"fieldSelector": "a"}, "invalid selector: 'a'; can't understand 'a'"),
    ],
    ids=lambda each: str(each)[:40],
)
async def test_parameters_that_cannot_be_read(door: Door, query: dict[str, str], message: str | None) -> None:
    for more in ({}, {"watch": "true"}):
        status, refused = await door("GET", CONFIG_MAPS, **(query | more))
        assert (status, refused["reason"]) == (400, "BadRequest")
        assert message is None or refused["message"] == message


async def test_kinds_with_fields_of_their_own_say_so_in_other_words(door: Door) -> None:
    status, refused = await door("GET", PODS, fieldSelector="spec.color=red")
    assert (status, refused["message"]) == (400, "field label not supported: spec.color")


@pytest.mark.parametrize("revision", ["", "0"])
async def test_without_initial_events_a_watch_begins_now(door: Door, moments: dict[str, str], revision: str) -> None:
    query = {"sendInitialEvents": "false", MATCH: "NotOlderThan", "resourceVersion": revision}
    async with door.watch(CONFIG_MAPS, **query) as events:
        await door.done("POST", CONFIG_MAPS, config_map("d"))
        assert await events.take(1) == [("ADDED", "d")]


async def test_a_streaming_list_is_not_older_than_asked_and_has_no_mark_without_bookmarks(
    door: Door, moments: dict[str, str]
) -> None:
    query = {"sendInitialEvents": "true", MATCH: "NotOlderThan", "resourceVersion": moments["a"]}
    async with door.watch(CONFIG_MAPS, **query) as events:
        assert await events.take(3) == [("ADDED", name) for name in "abc"]
        await door.done("POST", CONFIG_MAPS, config_map("d"))
        assert await events.take(1) == [("ADDED", "d")]


async def test_a_watch_that_is_too_old_says_how_old_it_may_be(door: Door, moments: dict[str, str]) -> None:
    now = door.store.revision
    await door.store.compact(now)
    async with door.watch(CONFIG_MAPS, resourceVersion=moments["a"]) as events:
        kind, status = await events.next()
    assert kind == "ERROR"
    assert (status["code"], status["reason"]) == (410, "Expired")
    assert status["message"] == f"too old resource version: {moments['a']} ({now})"


async def test_a_watch_of_one_object_refuses_a_selector_of_another(door: Door, moments: dict[str, str]) -> None:
    status, refused = await door("GET", f"{CONFIG_MAPS}/a", watch="true", fieldSelector="metadata.name=b")
    assert (status, refused["message"]) == (400, "fieldSelector metadata.name doesn't match requested name")
