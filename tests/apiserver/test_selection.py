"""What a request asks for, and how much of the store has to be looked at for it."""

from __future__ import annotations

import pytest

from knarr.api.core.v1 import Node, Pod
from knarr.api.registry import built_in
from knarr.apiserver.selection import Selection

UNBOUND = b'{"kind":"Pod","metadata":{"name":"a"},"spec":{"containers":[{"name":"nodeName"}]}}'
BOUND = b'{"kind":"Pod","metadata":{"name":"a"},"spec":{"containers":[],"nodeName":"n1"},"status":{"phase":"n1"}}'


@pytest.mark.parametrize("selector", ["spec.nodeName=n1", "status.phase!=Failed,spec.nodeName=n1"])
def test_pods_of_a_node_are_a_part_of_all_pods(selector: str) -> None:
    part = selected(Pod, selector).part
    assert part is not None
    assert part.place == "n1"
    assert (part.place_of(UNBOUND), part.place_of(BOUND)) == ("", "n1")


def test_all_who_watch_the_pods_of_a_node_share_one_division() -> None:
    one, other = selected(Pod, "spec.nodeName=n1").part, selected(Pod, "spec.nodeName=").part
    assert one is not None
    assert other is not None
    assert one.place_of is other.place_of
    assert other.place == ""


@pytest.mark.parametrize(
    ("kind", "selector"), [(Pod, ""), (Pod, "spec.nodeName!=n1"), (Pod, "status.phase=Failed"), (Node, "")]
)
def test_other_selections_are_about_all_places(kind: type[Pod | Node], selector: str) -> None:
    assert selected(kind, selector).part is None


def selected(kind: type[Pod | Node], selector: str) -> Selection:
    resource = built_in().of(kind)
    return Selection.of(resource, resource, "", "", {"fieldSelector": selector})


@pytest.mark.parametrize("selector", ["spec.nodeName=n1", "metadata.name=a,spec.nodeName=n1"])
def test_a_part_is_told_from_the_rest_with_and_without_other_conditions(selector: str) -> None:
    selection = selected(Pod, selector)
    assert [selection.holds(each) for each in (BOUND, UNBOUND, BOUND.replace(b'"n1"', b'"n2"'))] == [True, False, False]
