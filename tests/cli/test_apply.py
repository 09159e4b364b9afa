"""`knarr apply`: the three-way merge, and what it reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knarr.cli.apply import LAST_APPLIED, ManifestError, annotated, difference, read, three_way_merge

SCALARS = st.integers(0, 3) | st.booleans() | st.text("ab", max_size=2)
OBJECTS = st.recursive(
    st.dictionaries(st.sampled_from("abcd"), SCALARS | st.lists(SCALARS, max_size=2), max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abcd"), SCALARS | inner, max_size=3),
    max_leaves=8,
)


def patched(target: Any, patch: Any) -> Any:
    """RFC 7386, section 2, as it stands there."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = patched(result.get(name), value)
    return result


@given(OBJECTS, OBJECTS)
def test_difference_is_the_merge_patch_that_leads_there(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert patched(before, difference(before, after)) == after


@given(OBJECTS, OBJECTS)
def test_applying_the_same_twice_changes_nothing_the_second_time(wanted: dict[str, Any], live: dict[str, Any]) -> None:
    merged = three_way_merge({}, wanted, live)
    assert difference(merged, three_way_merge(wanted, wanted, merged)) == {}


@given(OBJECTS, OBJECTS)
def test_what_the_file_no_longer_says_goes_and_what_others_set_stays(
    last: dict[str, Any], others: dict[str, Any]
) -> None:
    foreign = {f"x{name}": value for name, value in others.items()}
    assert three_way_merge(last, {}, {**foreign, **last}) == foreign


def container(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, **more}


def test_defaults_within_a_container_stay_and_a_foreign_sidecar_too() -> None:
    last = {"containers": [container("web", image="a"), container("old", image="o")]}
    wanted = {"containers": [container("web", image="b"), container("new", image="n")]}
    live = {
        "containers": [
            container("web", image="a", imagePullPolicy="Always"),
            container("old", image="o"),
            container("sidecar", image="s"),
        ]
    }
    assert three_way_merge(last, wanted, live) == {
        "containers": [
            container("web", image="b", imagePullPolicy="Always"),
            container("new", image="n"),
            container("sidecar", image="s"),
        ]
    }


def test_allocated_node_port_stays() -> None:
    wanted = {"ports": [{"port": 80}, {"port": 81, "protocol": "UDP"}]}
    live = {"ports": [{"port": 80, "protocol": "TCP", "nodePort": 30001}]}
    assert three_way_merge(wanted, wanted, live) == {
        "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30001}, {"port": 81, "protocol": "UDP"}]
    }


def test_scaled_replicas_stay_when_the_file_never_said_them() -> None:
    assert three_way_merge({"a": 1}, {"a": 2}, {"a": 1, "replicas": 7}) == {"a": 2, "replicas": 7}


def test_list_without_keys_is_taken_as_a_whole() -> None:
    assert three_way_merge({"args": ["a"]}, {"args": ["b"]}, {"args": ["a", "c"]}) == {"args": ["b"]}


def test_annotation_holds_the_object_as_written_and_not_itself() -> None:
    obj = {"kind": "X", "metadata": {"name": "x", "annotations": {"mine": "1"}}}
    once = annotated(obj)
    assert json.loads(once["metadata"]["annotations"][LAST_APPLIED]) == obj
    assert annotated(once) == once


def test_folder_is_read_by_name_with_lists_taken_apart_and_dates_as_text(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(
        "apiVersion: v1\nkind: B\nmetadata: {name: b, annotations: {day: 2026-01-02}}\n---\n"
    )
    items = [{"apiVersion": "v1", "kind": "A", "metadata": {"name": "a"}}]
    (tmp_path / "a.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    (tmp_path / "notes.txt").write_text("not for us")
    objects = list(read([str(tmp_path)]))
    assert [obj["kind"] for obj in objects] == ["A", "B"]
    assert objects[1]["metadata"]["annotations"] == {"day": "2026-01-02"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("just text\n", "not a Kubernetes object"),
        ("kind: A\nmetadata: {name: a}\n", "without apiVersion"),
        ("apiVersion: v1\nkind: A\nmetadata: {generateName: a}\n", "A without metadata.name"),
        ("a: [\n", "bad.yaml"),
        ("{apiVersion: [v1], kind: A, metadata: {name: a}}", "got `array` - at `\\$.apiVersion`"),
        ("{apiVersion: v1, kind: 5, metadata: {name: a}}", "got `int` - at `\\$.kind`"),
        ("{apiVersion: v1, kind: A, metadata: a}", "got `str` - at `\\$.metadata`"),
        ("{apiVersion: v1, kind: A, metadata: {name: a, annotations: [b]}}", "at `\\$.metadata.annotations`"),
        ("{apiVersion: v1, kind: List, items: 7}", "a List whose items are no list"),
        ("{apiVersion: v1, kind: A, metadata: {name: a}, data: !!set {b}}", "set is not JSON"),
        ("{apiVersion: v1, kind: A, metadata: {name: a}, data: .nan}", "not JSON"),
        ("&a [*a]", "bad.yaml"),
        ("\xff\xfe\x00", "bad.yaml"),
    ],
)
def test_file_that_holds_something_else_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "bad.yaml").write_text(text, encoding="latin-1")
    with pytest.raises(ManifestError, match=problem):
        list(read([str(tmp_path / "bad.yaml")]))
