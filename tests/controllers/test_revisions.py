"""Hashes and revision numbers of a Deployment's history."""

from __future__ import annotations

from typing import Any

import msgspec

from knarr.api.apps.v1 import Deployment, ReplicaSet
from knarr.api.types import copy
from knarr.controllers.revisions import (
    HASH_LABEL,
    REVISION,
    REVISION_HISTORY,
    SAFE_ALPHABET,
    expendable,
    find_new,
    make_new,
    next_revision,
    renewed,
    template_hash,
)


def deployment(image: str = "one", **spec: Any) -> Deployment:
    return msgspec.convert(
        {
            "metadata": {
                "name": "web",
                "namespace": "default",
                "uid": "d",
                "annotations": {"note": "x", REVISION: "7"},
            },
            "spec": {
                "replicas": 3,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "c", "image": image}]},
                },
                **spec,
            },
        },
        Deployment,
    )


def at_revision(replica_set: ReplicaSet, name: str, revision: int, replicas: int = 0) -> ReplicaSet:
    changed = copy(replica_set)
    changed.metadata.name = changed.metadata.uid = name
    changed.metadata.annotations[REVISION] = str(revision)
    changed.spec.replicas = replicas  # type: ignore[union-attr]
    changed.status = msgspec.convert({"replicas": replicas, "observedGeneration": 1}, type(make_status()))
    changed.metadata.generation = 1
    return changed


def make_status() -> Any:
    from knarr.api.apps.v1 import ReplicaSetStatus

    return ReplicaSetStatus()


def test_the_new_replica_set_carries_hash_selector_annotations_and_owner() -> None:
    made = make_new(deployment(), [], 1)
    hashed = made.metadata.labels[HASH_LABEL]
    assert made.metadata.name == f"web-{hashed}"
    assert set(hashed) <= set(SAFE_ALPHABET)
    assert made.spec is not None
    assert made.spec.template is not None
    assert made.spec.template.metadata is not None
    assert made.spec.selector.match_labels == {"app": "web", HASH_LABEL: hashed}
    assert made.spec.template.metadata.labels == {"app": "web", HASH_LABEL: hashed}
    assert made.metadata.annotations == {
        "note": "x",
        REVISION: "1",
        "deployment.kubernetes.io/desired-replicas": "3",
        "deployment.kubernetes.io/max-replicas": "4",
    }
    assert made.metadata.owner_references[0].controller


def test_the_hash_is_stable_and_differs_by_template_and_collision() -> None:
    one, two = (deployment(image).spec.template for image in ("one", "two"))  # type: ignore[union-attr]
    assert template_hash(one, 0) == template_hash(copy(one), 0)
    assert len({template_hash(one, 0), template_hash(one, 1), template_hash(two, 0)}) == 3


def test_the_present_template_is_found_again_without_its_hash_label() -> None:
    one, two = make_new(deployment("one"), [], 1), make_new(deployment("two"), [], 2)
    assert find_new(deployment("one"), [two, one]) is one
    assert find_new(deployment("three"), [two, one]) is None


def test_a_rollback_makes_the_old_one_the_newest_and_keeps_its_numbers() -> None:
    first = at_revision(make_new(deployment("one"), [], 1), "first", 1)
    second = at_revision(make_new(deployment("two"), [], 2), "second", 2)
    again = renewed(deployment("one"), first, next_revision([second]))
    assert again.metadata.annotations[REVISION] == "3"
    assert again.metadata.annotations[REVISION_HISTORY] == "1"
    twice = renewed(deployment("one"), again, 5)
    assert twice.metadata.annotations[REVISION_HISTORY] == "1,3"
    assert renewed(deployment("one"), twice, 5) == twice
    assert first.metadata.annotations[REVISION] == "1"  # what came from the cache is as it was


def test_history_beyond_the_limit_goes_oldest_first_but_nothing_with_pods() -> None:
    old = [at_revision(make_new(deployment(f"i{n}"), [], n), f"r{n}", n, replicas=int(n == 2)) for n in (3, 1, 2, 4)]
    assert [rs.metadata.name for rs in expendable(deployment(revisionHistoryLimit=1), old)] == ["r1", "r3"]
    assert expendable(deployment(revisionHistoryLimit=4), old) == []
    assert [rs.metadata.name for rs in expendable(deployment(revisionHistoryLimit=0), old)] == ["r1", "r3", "r4"]
