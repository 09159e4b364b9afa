"""Names of images."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knarr.node.runtime.contract import PullFailure
from knarr.node.runtime.references import image_id, parse

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36"),
        ("docker.io/busybox", "docker.io/library/busybox:latest"),
        ("index.docker.io/busybox", "docker.io/library/busybox:latest"),
        ("grafana/grafana", "docker.io/grafana/grafana:latest"),
        ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
        ("localhost/mine", "localhost/mine:latest"),
        ("localhost:5000/mine:v1", "localhost:5000/mine:v1"),
        ("[::1]:5000/mine", "[::1]:5000/mine:latest"),
        ("Upper/name", "Upper/name:latest"),
        (f"busybox@{DIGEST}", f"docker.io/library/busybox@{DIGEST}"),
        (f"busybox:1.36@{DIGEST}", f"docker.io/library/busybox@{DIGEST}"),
        ("a/b/c/d_e__f-g.h", "docker.io/a/b/c/d_e__f-g.h:latest"),
    ],
)
def test_every_default_is_filled_in(text: str, meant: str) -> None:
    assert str(parse(text)) == meant


@pytest.mark.parametrize(
    "text",
    ["", " ", "UPPER", "a b", "a:", "a:b:c", "a//b", "/a", "a/", "a@sha256:1", "-a", "a_", "a" * 64, "x" * 5000,
     "example.com/" + "a/" * 200 + "a", "a:" + "t" * 129, "a\n", "a@", "http://a/b"],
)  # fmt: skip
def test_what_is_no_name_is_refused_as_invalid_image_name(text: str) -> None:
    with pytest.raises(PullFailure) as refusal:
        parse(text)
    assert refusal.value.reason == "InvalidImageName"


@pytest.mark.parametrize(
    ("text", "loopback"),
    [
        ("localhost/a", True),
        ("localhost:5000/a", True),
        ("127.0.0.1:5000/a", True),
        ("127.9.9.9/a", True),
        ("[::1]:5000/a", True),
        ("10.0.0.1:5000/a", False),
        ("localhost.example.com/a", False),
        ("a", False),
    ],
)
def test_plain_http_is_for_registries_of_this_machine(text: str, loopback: bool) -> None:
    assert parse(text).registry_is_loopback is loopback


@given(st.text(max_size=60))
def test_any_text_is_a_name_or_refused_and_its_full_name_means_the_same(text: str) -> None:
    try:
        reference = parse(text)
    except PullFailure:
        return
    assert str(parse(str(reference))) == str(reference)


def test_ids_are_told_from_names() -> None:
    assert image_id("b" * 64) == image_id("sha256:" + "b" * 64) == "sha256:" + "b" * 64
    assert image_id("busybox") is None
    assert image_id("b" * 63) is None
