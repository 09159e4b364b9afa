"""Which volume a claim gets."""

from __future__ import annotations

from typing import Any

import pytest

from knarr.api.core.v1 import Node
from knarr.api.core.volume_matching import best_for, best_on, is_kept_for, kept_for, mismatch
from knarr.api.meta.v1 import ObjectMeta
from tests.storage import claim, volume

RWX = ["ReadWriteOnce", "ReadWriteMany"]
TABLE: list[tuple[str, dict[str, Any], list[tuple[str, str, dict[str, Any]]], str | None]] = [
    ("the smallest that is large enough", {}, [("a", "5Gi", {}), ("b", "2Gi", {}), ("c", "500Mi", {})], "b"),
    ("none is large enough", {}, [("a", "500Mi", {})], None),
    ("fewer access modes before a better size", {}, [("a", "1Gi", {"accessModes": RWX}), ("b", "9Gi", {})], "b"),
    ("all modes that are asked for", {"accessModes": RWX}, [("a", "1Gi", {}), ("b", "1Gi", {"accessModes": RWX})], "b"),
    ("of the class", {"storageClassName": "x"}, [("a", "1Gi", {}), ("b", "2Gi", {"storageClassName": "x"})], "b"),
    ("of no class", {}, [("a", "1Gi", {"storageClassName": "x"})], None),
    (
        "chosen by labels",
        {"selector": {"matchLabels": {"tier": "gold"}}},
        [("a", "1Gi", {}), ("b", "3Gi", {"metadata": {"labels": {"tier": "gold"}}})],
        "b",
    ),
    ("of its mode", {"volumeMode": "Block"}, [("a", "1Gi", {}), ("b", "1Gi", {"volumeMode": "Block"})], "b"),
    ("not another's", {}, [("a", "1Gi", {"claimRef": {"namespace": "default", "name": "other"}})], None),
    (
        "kept for it, however large, and whatever its class",
        {},
        [
            ("a", "1Gi", {}),
            ("b", "9Gi", {"storageClassName": "x", "claimRef": {"namespace": "default", "name": "data"}}),
        ],
        "b",
    ),
    (
        "kept for an earlier claim of its name",
        {},
        [("a", "1Gi", {"claimRef": {"namespace": "default", "name": "data", "uid": "old"}})],
        None,
    ),
    (
        "of its attributes",
        {"volumeAttributesClassName": "fast"},
        [("a", "1Gi", {}), ("b", "2Gi", {"volumeAttributesClassName": "fast"})],
        "b",
    ),
    ("not one that is going", {}, [("a", "1Gi", {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})], None),
]


@pytest.mark.parametrize(("asked", "there", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_a_claim_gets_the_volume_that(
    asked: dict[str, Any], there: list[tuple[str, str, dict[str, Any]]], expected: str | None
) -> None:
    wanted = claim(**asked, metadata={"uid": "new"})
    found = best_for(wanted, [volume(name, size, **spec) for name, size, spec in there])
    assert (found and found.metadata.name) == expected


def test_a_claim_that_waits_for_its_pod_gets_only_what_is_kept_for_it() -> None:
    free, kept = volume("a"), volume("b", claimRef={"namespace": "default", "name": "data"})
    assert best_for(claim(), [free], only_kept=True) is None
    assert best_for(claim(), [free, kept], only_kept=True) is kept


def node(name: str) -> Node:
    return Node(metadata=ObjectMeta(name=name, labels={"kubernetes.io/hostname": name}))


def test_on_a_node_only_volumes_that_reach_it_will_do() -> None:
    there, elsewhere = volume("a", "5Gi", node="one"), volume("b", node="two")
    assert best_on(claim(), [there, elsewhere], node("one")) is there
    assert best_on(claim(), [there, elsewhere], node("one"), taken={"a"}) is None
    kept = volume("c", node="two", claimRef={"namespace": "default", "name": "data"})
    assert best_on(claim(), [there, kept], node("one")) is None, "its own volume is elsewhere"


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"size": "500Mi"}, "requested PV is too small"),
        ({"storageClassName": "x"}, "storageClassName does not match"),
        ({"volumeMode": "Block"}, "incompatible volumeMode"),
        ({"accessModes": ["ReadOnlyMany"]}, "incompatible accessMode"),
        ({"volumeAttributesClassName": "x"}, "volumeAttributesClassName does not match"),
        ({}, ""),
    ],
)
def test_a_volume_that_the_claim_names_is_refused_with_the_reason(spec: dict[str, Any], why: str) -> None:
    assert mismatch(volume(**spec), claim()) == why


def test_a_volume_says_whose_it_is_and_who_decided_that() -> None:
    wanted = claim(metadata={"uid": "1"})
    by_us = kept_for(volume(), wanted)
    assert is_kept_for(by_us, wanted)
    assert by_us.metadata.annotations == {"pv.kubernetes.io/bound-by-controller": "yes"}
    assert kept_for(by_us, wanted) is by_us
    by_user = kept_for(volume(claimRef={"namespace": "default", "name": "data"}), wanted)
    assert not by_user.metadata.annotations
    assert by_user.spec
    assert by_user.spec.claim_ref
    assert by_user.spec.claim_ref.uid == "1"
