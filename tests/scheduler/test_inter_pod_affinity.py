"""Pod affinity and anti-affinity: tables, and random clusters against a model that counts everything anew."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import pytest

from knarr.api.core.v1 import Node, Pod
from knarr.api.selectors import selector_of
from knarr.scheduler.cache import PodInfo
from knarr.scheduler.framework import Unschedulable
from tests.scheduler.test_choice import World, node, pod

HOST = "kubernetes.io/hostname"


def term(app: str, key: str = "zone", **more: Any) -> dict[str, Any]:
    return {"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key, **more}


def near(*terms: dict[str, Any]) -> dict[str, Any]:
    return {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": list(terms)}}


def away(*terms: dict[str, Any]) -> dict[str, Any]:
    return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": list(terms)}}


def rather(weight: int, wanted: dict[str, Any], side: str = "podAffinity") -> dict[str, Any]:
    weighted = [{"weight": weight, "podAffinityTerm": wanted}]
    return {side: {"preferredDuringSchedulingIgnoredDuringExecution": weighted}}


def app(name: str, of: str, **more: Any) -> Pod:
    return pod(name, cpu="10m", labels={"app": of}, **more)


def zones(*names: str) -> World:
    """Two nodes in each zone: a1, a2, b1, …; pods without a group, so that only affinity decides."""
    world = World(*(node(f"{zone}{n}", labels={"zone": zone}) for zone in names for n in (1, 2)))
    world.group = lambda one: None  # type: ignore[method-assign]
    return world


def test_a_pod_goes_where_the_pods_are_that_it_wants_to_be_near() -> None:
    world = zones("a", "b", "c")
    world.put(app("db", "db"), "b1")
    for number in range(4):
        assert world.place(app(f"p{number}", "web", affinity=near(term("db")))) in ("b1", "b2")
    assert world.place(app("same", "web", affinity=near(term("db", HOST)))) == "b1"


def test_without_them_it_waits_and_says_why() -> None:
    world = zones("a")
    assert world.why_not(app("p", "web", affinity=near(term("db")))) == (
        "0/2 nodes are available: 2 node(s) didn't match pod affinity rules. no new claims to deallocate, preemption: "
        "0/2 nodes are available: 2 Preemption is not helpful for scheduling."
    )


def test_the_first_of_a_group_may_go_anywhere_the_next_follow() -> None:
    world = zones("a", "b")
    first = world.place(app("p0", "web", affinity=near(term("web"))))
    for number in range(1, 4):
        assert world.place(app(f"p{number}", "web", affinity=near(term("web"))))[0] == first[0]


def test_all_terms_must_be_satisfied_by_the_same_pods() -> None:
    world = zones("a", "b")
    world.put(app("one", "one"), "a1")
    world.put(app("two", "two"), "a1")
    message = world.why_not(app("p", "web", affinity=near(term("one"), term("two"))))
    assert "4 node(s) didn't match pod affinity rules" in message


def test_pods_keep_away_from_each_other() -> None:
    world = zones("a", "b")
    places = {world.place(app(f"p{n}", "web", affinity=away(term("web")))) for n in range(2)}
    assert {place[0] for place in places} == {"a", "b"}
    message = world.why_not(app("p2", "web", affinity=away(term("web"))))
    assert "4 node(s) didn't match pod anti-affinity rules" in message


def test_those_that_are_there_keep_others_away() -> None:
    world = zones("a", "b")
    world.put(app("alone", "alone", affinity=away(term("web"))), "a1")
    assert world.place(app("p", "web"))[0] == "b"
    world.put(app("too", "alone", affinity=away(term("web"))), "b2")
    assert "4 node(s) didn't satisfy existing pods anti-affinity rules" in world.why_not(app("q", "web"))
    world.cache.pod_gone("default/alone")
    assert world.place(app("q", "web"))[0] == "a"


def test_preferences_draw_and_repel() -> None:
    world = zones("a", "b", "c")
    world.put(app("db", "db"), "b1")
    assert world.place(app("p", "web", affinity=rather(50, term("db"))))[0] == "b"
    world.put(app("noise", "noise"), "a1")
    world.put(app("more", "noise"), "c1")
    assert world.place(app("q", "x", affinity=rather(50, term("noise"), "podAntiAffinity")))[0] == "b"


def test_preferences_of_those_that_are_there_count_too() -> None:
    world = zones("a", "b")
    world.put(app("cache", "cache", affinity=rather(100, term("web"))), "b1")
    assert world.place(app("p", "web"))[0] == "b"


def test_terms_are_about_the_pods_own_namespace_unless_they_say_otherwise() -> None:
    world = zones("a", "b")
    other = app("db", "db")
    other.metadata.namespace = "other"
    world.put(other, "b1")
    assert "didn't match pod affinity rules" in world.why_not(app("p", "web", affinity=near(term("db"))))
    assert world.place(app("q", "web", affinity=near(term("db", namespaces=["other"]))))[0] == "b"
    assert world.place(app("r", "web", affinity=near(term("db", namespaceSelector={}))))[0] == "b"


def test_label_keys_take_the_pods_own_values() -> None:
    world = zones("a", "b")
    old = app("old", "web")
    old.metadata.labels["hash"] = "1"
    world.put(old, "a1")
    new = app("new", "web", affinity=away(term("web", matchLabelKeys=["hash"])))
    new.metadata.labels["hash"] = "2"
    assert world.place(new) in ("a1", "a2", "b1", "b2")
    both = app("both", "other", affinity=near(term("web", mismatchLabelKeys=["hash"])))
    both.metadata.labels["hash"] = "2"
    assert world.place(both)[0] == "a"


def test_a_node_that_changes_its_zone_takes_its_pods_along() -> None:
    world = zones("a", "b")
    world.put(app("db", "db"), "a1")
    assert world.place(app("p", "web", affinity=near(term("db"))))[0] == "a"
    world.cache.node_changed(node("a1", labels={"zone": "b"}))
    assert world.place(app("q", "web", affinity=near(term("db")))) in ("a1", "b1", "b2")


# Against a model


def model_fits(one: Pod, on: Node, there: Iterable[tuple[Pod, Node]]) -> bool:
    """By the words of the API reference, over all pods each time."""
    pods = list(there)

    def selects(which: Any, owner: Pod, other: Pod) -> bool:
        selector = selector_of(which.label_selector)
        assert selector
        return owner.metadata.namespace == other.metadata.namespace and selector.matches(other.metadata.labels)

    def required(owner: Pod, side: str) -> list[Any]:
        affinity = owner.spec.affinity if owner.spec else None
        found = getattr(affinity, side) if affinity else None
        return found.required_during_scheduling_ignored_during_execution if found else []

    def same_domain(which: Any, left: Node, right: Node) -> bool:
        key = which.topology_key
        return key in left.metadata.labels and left.metadata.labels[key] == right.metadata.labels.get(key)

    wanted = required(one, "pod_affinity")
    alike = [(pod, its) for pod, its in pods if wanted and all(selects(each, one, pod) for each in wanted)]
    in_domain = all(any(same_domain(each, on, its) for _, its in alike) for each in wanted)
    keyed = all(each.topology_key in on.metadata.labels for each in wanted)
    known = any(each.topology_key in its.metadata.labels for each in wanted for _, its in alike)
    first = not known and all(selects(each, one, one) for each in wanted)
    if wanted and not (keyed and (in_domain or first)):
        return False
    if any(
        selects(each, one, pod) and same_domain(each, on, its)
        for each in required(one, "pod_anti_affinity")
        for pod, its in pods
    ):
        return False
    return not any(
        selects(each, pod, one) and same_domain(each, on, its)
        for pod, its in pods
        for each in required(pod, "pod_anti_affinity")
    )


@pytest.mark.parametrize("seed", range(60))
def test_random_clusters_agree_with_the_model(seed: int) -> None:
    chance = random.Random(seed)
    nodes = [
        node(f"n{n}", labels={"zone": chance.choice("ab")} if chance.random() < 0.9 else {}, cpu="100")
        for n in range(6)
    ]
    world = World(*nodes)
    there: dict[str, tuple[Pod, Node]] = {}
    for number in range(40):
        terms = [
            {
                "labelSelector": {
                    "matchExpressions": [{"key": "app", "operator": "In", "values": chance.sample("xyz", 2)}]
                },
                "topologyKey": chance.choice(["zone", HOST]),
            }
            for _ in range(2)
        ]
        affinity = chance.choice([{}, near(terms[0]), away(terms[0]), near(*terms), near(terms[0]) | away(terms[1])])
        one = app(f"p{number}", chance.choice("xyz"), affinity=affinity)
        info = PodInfo(one)
        for each in nodes:
            found = world.cache.get(each.metadata.name or "")
            assert found
            assert world.choice.fits(info, found) == model_fits(one, each, there.values()), each.metadata.name
        try:
            place = world.place(one)
        except Unschedulable:
            continue
        there[info.key] = (one, next(each for each in nodes if each.metadata.name == place))
        if there and chance.random() < 0.3:
            gone = chance.choice(sorted(there))
            del there[gone]
            world.cache.pod_gone(gone)
