"""Which credentials are shown to which registry."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from knarr.api.core.v1 import Secret
from knarr.api.meta.v1 import ObjectMeta
from knarr.node.pull_secrets import credentials_for
from knarr.node.runtime.contract import Credentials, PullFailure
from knarr.node.runtime.sim import SimRuntime
from knarr.simulate.clock import VirtualClock, run
from tests.node.cluster import NodeCluster, hollow_config


def secret(auths: Any, *, legacy: bool = False, name: str = "one") -> Secret:
    kind, key = ("dockercfg", ".dockercfg") if legacy else ("dockerconfigjson", ".dockerconfigjson")
    data = json.dumps(auths if legacy else {"auths": auths}).encode()
    metadata = ObjectMeta(name=name, namespace="default")
    return Secret(metadata=metadata, type=f"kubernetes.io/{kind}", data={key: data})


def entry(user: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:pw:1".encode()).decode()}


@pytest.mark.parametrize(
    ("image", "place", "matches"),
    [
        ("registry.example/app:v1", "registry.example", True),
        ("registry.example/app:v1", "https://registry.example/v2/", True),
        ("registry.example/app:v1", "other.example", False),
        ("registry.example:5000/app", "registry.example", False),
        ("registry.example:5000/app", "registry.example:5000", True),
        ("a.example/team/app", "a.example/team", True),
        ("a.example/other/app", "a.example/team", False),
        ("a.b.example/app", "*.b.example", True),
        ("x.a.b.example/app", "*.b.example", False),
        ("busybox", "https://index.docker.io/v1/", True),
        ("busybox", "docker.io", True),
        ("quay.example/busybox", "https://index.docker.io/v1/", False),
    ],
)
def test_an_entry_holds_for_a_registry_or_a_part_of_it(image: str, place: str, matches: bool) -> None:
    assert credentials_for(image, [secret({place: entry("ann")})]) == ([Credentials("ann", "pw:1")] if matches else [])


def test_the_most_specific_comes_first_and_each_once() -> None:
    auths = {"a.example": entry("all"), "a.example/team": entry("team"), "*.example": entry("any")}
    found = credentials_for("a.example/team/app", [secret(auths), secret({"a.example/team": entry("team")})])
    assert [each.username for each in found] == ["team", "all", "any"]


def test_entries_of_other_forms() -> None:
    plain = secret({"a.example": {"username": "ann", "password": "pw"}}, legacy=True)
    token = secret({"a.example": {"identitytoken": "secret"}})
    assert credentials_for("a.example/app", [plain, token]) == [Credentials("ann", "pw"), Credentials("", "", "secret")]


@pytest.mark.parametrize(
    "broken",
    [
        Secret(type="kubernetes.io/dockerconfigjson", data={".dockerconfigjson": b"not json"}),
        Secret(type="kubernetes.io/dockerconfigjson", data={".dockerconfigjson": b"[]"}),
        Secret(type="kubernetes.io/dockerconfigjson", data={}),
        Secret(type="Opaque", data={".dockerconfigjson": b'{"auths": {"a.example": {"username": "a"}}}'}),
        secret({"a.example": "text"}),
        secret({"a.example": {"auth": "%%%"}}),
        secret([1, 2]),
    ],
)
def test_what_can_not_be_read_is_passed_over(broken: Secret) -> None:
    assert credentials_for("a.example/app", [broken]) == []


def test_each_of_a_pods_names_is_tried_and_a_missing_secret_is_told(tmp_path: Path) -> None:
    asked: list[str] = []

    class Guarded(SimRuntime):
        async def pull_image(
            self, image: str, *, insecure: bool | None = None, credentials: Credentials | None = None
        ) -> str:
            asked.append(credentials.username if credentials else "")
            if credentials is None or credentials.username != "right":
                raise PullFailure("ErrImagePull", "unauthorized: authentication required")
            return await super().pull_image(image)

    async def scenario(clock: VirtualClock) -> None:
        cluster = NodeCluster(clock, Guarded(clock), hollow_config(tmp_path))
        async with cluster.running():
            await cluster.create(secret({"a.example/wrong": entry("wrong"), "a.example": entry("right")}))
            pulls = [{"name": "one"}, {"name": "two"}]
            container = {"image": "a.example/wrong/app:v1", "imagePullPolicy": "Always"}
            await cluster.pod("web", container, imagePullSecrets=pulls)
            await cluster.until(lambda: cluster.ready("web"))
            assert asked == ["wrong", "right"]
            text = "Unable to retrieve some image pull secrets (two); attempting to pull the image may not succeed."
            assert ("FailedToRetrieveImagePullSecret", text) in await cluster.events("web")
            await cluster.pod("other", {"image": "a.example/app:v2", "imagePullPolicy": "Always"})
            await cluster.until(lambda: asked[2:] == [""])

    run(scenario)
