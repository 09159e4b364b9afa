"""Fields of values, and what comparing, merging and pruning make of them, by the shape of each kind of list and map."""

from __future__ import annotations

from typing import Any

import pytest

from knarr.api.apps.v1 import Deployment
from knarr.api.core.v1 import ConfigMap, PersistentVolume, Pod, ReplicationController, Service, ServiceAccount
from knarr.apiserver.ownership.shapes import shape_of
from knarr.apiserver.ownership.values import Faulty, compared, fields_of, laid_over, pruned

OWN: dict[str, Any] = {}


def merged(shape: Any, live: Any, value: Any) -> Any:
    """What applied data makes of a live value."""
    return laid_over(shape, live, value)[1]


def in_pod(**spec: Any) -> dict[str, Any]:
    return {"spec": spec}


def container(**more: Any) -> dict[str, Any]:
    return in_pod(containers=[{"name": "c", **more}])


def in_container(**fields: Any) -> dict[str, Any]:
    return {"f:spec": {"f:containers": {'k:{"name":"c"}': {".": OWN, "f:name": OWN, **fields}}}}


@pytest.mark.parametrize(
    ("kind", "data", "fields"),
    [
        (ConfigMap, {"data": {"x": "1"}}, {"f:data": {"f:x": OWN}}),
        (ConfigMap, {"data": {}}, {"f:data": OWN}),
        (ConfigMap, {"data": None}, {"f:data": OWN}),
        # Lists of a map, by one key
        (Pod, container(), in_container()),
        # by two, of which one has a default
        (
            Pod,
            container(ports=[{"containerPort": 80}]),
            in_container(
                **{"f:ports": {'k:{"containerPort":80,"protocol":"TCP"}': {".": OWN, "f:containerPort": OWN}}}
            ),
        ),
        (
            Service,
            {"spec": {"ports": [{"port": 53, "protocol": "UDP"}]}},
            {"f:spec": {"f:ports": {'k:{"port":53,"protocol":"UDP"}': {".": OWN, "f:port": OWN, "f:protocol": OWN}}}},
        ),
        # of items that are owned as a whole, whose key may be missing
        (Pod, in_pod(imagePullSecrets=[{}]), {"f:spec": {"f:imagePullSecrets": {'k:{"name":""}': OWN}}}),
        (ServiceAccount, {"secrets": [{"name": "a"}]}, {"f:secrets": {'k:{"name":"a"}': {".": OWN, "f:name": OWN}}}),
        # Sets
        (Pod, {"metadata": {"finalizers": ["a/b"]}}, {"f:metadata": {"f:finalizers": {'v:"a/b"': OWN}}}),
        # Lists and maps that are owned as a whole
        (Pod, container(args=["x"]), in_container(**{"f:args": OWN})),
        (Pod, in_pod(tolerations=[{"key": "a"}]), {"f:spec": {"f:tolerations": OWN}}),
        (Pod, in_pod(nodeSelector={"a": "b"}), {"f:spec": {"f:nodeSelector": OWN}}),
        (Service, {"spec": {"selector": {"a": "b"}}}, {"f:spec": {"f:selector": OWN}}),
        (Deployment, {"spec": {"selector": {"matchLabels": {"a": "b"}}}}, {"f:spec": {"f:selector": OWN}}),
        (
            PersistentVolume,
            {"spec": {"claimRef": {"name": "a"}}},
            {"f:spec": {"f:claimRef": {"f:name": OWN}}},
        ),
        # An empty list of items is nobody's, an empty struct somebody's
        (Pod, in_pod(containers=[]), {}),
        (Pod, in_pod(securityContext={}), {"f:spec": {"f:securityContext": OWN}}),
    ],
)
def test_an_applied_value_owns_what_it_lists(kind: type[Any], data: Any, fields: Any) -> None:
    # A claimRef is granular only where it stands; secrets of an account are references owned as a whole.
    expected = {"f:secrets": {'k:{"name":"a"}': OWN}} if kind is ServiceAccount else fields
    assert fields_of(shape_of(kind), data) == expected


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        ({"spec": {"foo": 1}}, ".spec.foo: field not declared in schema"),
        (container(foo=1), '.spec.containers[name="c"].foo: field not declared in schema'),
        (in_pod(containers={}), ".spec.containers: expected list, got &{{}}"),
        (
            in_pod(containers=[{"image": "a"}]),
            '.spec.containers: element 0: associative list with keys has an element that omits all key fields ["name"] '
            "(and doesn't have default values for any key fields)",
        ),
        (
            in_pod(containers=["c"]),
            ".spec.containers: element 0: associative list with keys may not have non-map elements",
        ),
        (
            in_pod(containers=[{"name": "a"}, {"name": "a"}]),
            '.spec.containers: duplicate entries for key [name="a"]',
        ),
        (
            container(ports=[{"containerPort": 80}, {"containerPort": 80, "protocol": "TCP"}]),
            '.spec.containers[name="c"].ports: duplicate entries for key [containerPort=80,protocol="TCP"]',
        ),
        (
            {"metadata": {"finalizers": ["a/b", "a/b"]}},
            '.metadata.finalizers: duplicate entries for key [="a/b"]',
        ),
        (
            {"metadata": {"finalizers": [{}]}},
            ".metadata.finalizers: element 0: associative list without keys has an element that's a map type",
        ),
    ],
)
def test_an_applied_value_out_of_shape_is_told_with_its_path(data: Any, fault: str) -> None:
    with pytest.raises(Faulty) as caught:
        fields_of(shape_of(Pod), data)
    assert str(caught.value) == fault


@pytest.mark.parametrize(
    ("kind", "old", "new", "changed", "removed"),
    [
        (ConfigMap, {}, {"data": {"x": "1"}}, {"f:data": {".": OWN, "f:x": OWN}}, {}),
        (ConfigMap, {"data": {"x": "1"}}, {"data": {"x": "2", "y": "1"}}, {"f:data": {"f:x": OWN, "f:y": OWN}}, {}),
        (ConfigMap, {"data": {"x": "1", "y": "1"}}, {"data": {"y": "1"}}, {}, {"f:data": {"f:x": OWN}}),
        (ConfigMap, {"data": {"x": "1"}}, {}, {}, {"f:data": {".": OWN, "f:x": OWN}}),
        (Pod, container(image="a"), container(image="b"), {}, {}),
        # What Go holds by value is there from the start, so it isn't added with what is in it …
        (Deployment, {}, {"spec": {"replicas": 1}}, {"f:spec": {"f:replicas": OWN}}, {}),
        (Deployment, {}, {"status": {"replicas": 1}}, {"f:status": {"f:replicas": OWN}}, {}),
        (Deployment, {}, {"spec": {"template": {"spec": {"hostPID": True}}}}, None, {}),
        # … and where it holds a pointer, it is.
        (
            ReplicationController,
            {},
            {"spec": {"template": {"spec": {"hostPID": True}}}},
            {"f:spec": {"f:template": {".": OWN, "f:spec": {".": OWN, "f:hostPID": OWN}}}},
            {},
        ),
    ],
)
def test_a_change_is_what_was_added_modified_and_removed(
    kind: type[Any], old: Any, new: Any, changed: Any, removed: Any
) -> None:
    if kind is Pod:
        changed = {"f:spec": {"f:containers": {'k:{"name":"c"}': {"f:image": OWN}}}}
    if changed is None:
        changed = {"f:spec": {"f:template": {"f:spec": {"f:hostPID": OWN}}}}
    assert compared(shape_of(kind), old, new) == (changed, removed)


def test_items_of_one_key_are_owned_together_and_stay_when_others_are_applied() -> None:
    shape = shape_of(Pod)
    twice = [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]
    live = container(env=[*twice, {"name": "B", "value": "1"}])
    assert compared(shape, {}, live)[0]["f:spec"]["f:containers"]['k:{"name":"c"}']["f:env"] == {
        ".": OWN,
        'k:{"name":"A"}': OWN,
        'k:{"name":"B"}': {".": OWN, "f:name": OWN, "f:value": OWN},
    }
    with_b = merged(shape, live, container(env=[{"name": "B", "value": "3"}]))
    assert with_b["spec"]["containers"][0]["env"] == [*twice, {"name": "B", "value": "3"}]
    with_a = merged(shape, live, container(env=[{"name": "A", "value": "3"}]))
    assert with_a["spec"]["containers"][0]["env"] == [{"name": "A", "value": "3"}, {"name": "B", "value": "1"}]


@pytest.mark.parametrize(
    ("live", "applied", "result"),
    [
        ("abc", "b", "abc"),
        ("abc", "xb", "axbc"),
        ("abc", "ca", "bca"),
        ("ab", "ba", "ba"),
        ("ab", "bxa", "bxa"),
        ("", "ba", "ba"),
        ("abcd", "dxb", "acdxb"),
        ("ab", "x", "abx"),
    ],
)
def test_applied_items_keep_their_order_and_others_their_place(live: str, applied: str, result: str) -> None:
    made = merged(shape_of(Pod), {"metadata": {"finalizers": list(live)}}, {"metadata": {"finalizers": list(applied)}})
    assert "".join(made["metadata"]["finalizers"]) == result


def test_null_keeps_what_is_in_a_map_and_clears_a_scalar() -> None:
    live = {"metadata": {"labels": {"a": "b"}}, "spec": {"hostname": "x"}}
    made = merged(shape_of(Pod), live, {"metadata": {"labels": None}, "spec": {"hostname": None}})
    assert made == {"metadata": {"labels": {"a": "b"}}, "spec": {"hostname": None}}


@pytest.mark.parametrize(
    ("kept", "left"),
    [
        # A struct in which nobody owns anything goes as a whole.
        ({}, {}),
        # Somebody owns something in the item, but not the item: it goes all the same.
        (
            {"f:spec": {"f:containers": {'k:{"name":"c"}': {"f:image": OWN}}}},
            {"spec": {"hostname": "x"}},
        ),
        (
            {"f:spec": {"f:containers": {'k:{"name":"c"}': {".": OWN, "f:name": OWN}}}},
            {"spec": {"hostname": "x", "containers": [{"name": "c", "tty": True}]}},
        ),
    ],
)
def test_pruning_takes_what_was_applied_and_nobody_owns(kept: Any, left: Any) -> None:
    value = {"spec": {"hostname": "x", "containers": [{"name": "c", "image": "i", "tty": True}]}}
    last = in_container(**{"f:image": OWN})
    assert pruned(shape_of(Pod), value, last, kept) == left
