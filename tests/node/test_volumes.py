"""Volumes on disk, and tokens, without containers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from msgspec.structs import replace

from knarr.api.core.v1 import ConfigMap, Pod, Secret, ServiceAccountTokenProjection
from knarr.api.errors import ServiceUnavailable
from knarr.api.meta.v1 import ObjectMeta
from knarr.client.client import Client
from knarr.clock import SystemClock
from knarr.node.claimed_volumes import ClaimedVolumes
from knarr.node.environment import Surroundings
from knarr.node.runtime.sim import SimRuntime
from knarr.node.tokens import Tokens
from knarr.node.volume_failure import VolumeFailure
from knarr.node.volumes import HollowVolumes, HostVolumes, remove_all
from knarr.simulate.clock import VirtualClock, run
from tests.node.cluster import NodeCluster, hollow_config, pod

CONFIG = msgspec.convert({"data": {"a": "1", "b": "2"}}, ConfigMap)
SECRET = Secret(data={"token": b"s3cret"})


def around(**maps: ConfigMap) -> Surroundings:
    return Surroundings(config_map=maps.get, secret=lambda name: SECRET if name == "keys" else None)


async def token(_: Pod, wanted: ServiceAccountTokenProjection) -> str:
    return f"token for {wanted.audience}"


class Node:
    """Volumes of one pod below a folder."""

    def __init__(self, folder: Path, *volumes: dict[str, Any], **fields: Any) -> None:
        self.folder = folder
        self.pod = pod("web", volumes=list(volumes), **fields)
        self.pod.metadata.uid = "u-1"
        self.pod.metadata.labels = {"app": "web"}
        self.volumes = HostVolumes(folder, SystemClock(), token, ClaimedVolumes(cast(Client, None)))

    async def publish(self, **maps: ConfigMap) -> None:
        await self.volumes.publish(self.pod, around(**maps))

    def path(self, kind: str, name: str) -> Path:
        return self.folder / "u-1" / "volumes" / f"kubernetes.io~{kind}" / name

    async def remove(self) -> None:
        await self.volumes.remove("u-1")
        assert not self.folder.exists() or not list(self.folder.iterdir())


@pytest.fixture
def node_folder(tmp_path: Path) -> Iterator[Path]:
    """For an agent that makes volumes: they are gone afterwards, whatever happens."""
    yield tmp_path
    remove_all(hollow_config(tmp_path).root / "pods")


async def test_items_choose_paths_and_modes(tmp_path: Path) -> None:
    items = [{"key": "a", "path": "deep/a", "mode": 0o600}]
    node = Node(tmp_path, {"name": "v", "configMap": {"name": "settings", "items": items, "defaultMode": 0o644}})
    await node.publish(settings=CONFIG)
    file = node.path("configmap", "v") / "deep/a"
    assert file.read_text() == "1"
    assert file.stat().st_mode & 0o777 == 0o600
    assert not (node.path("configmap", "v") / "b").exists()
    await node.remove()


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        ({"configMap": {"name": "nobody"}}, 'configmap "nobody" not found'),
        ({"secret": {"secretName": "nobody"}}, 'secret "nobody" not found'),
        (
            {"configMap": {"name": "settings", "items": [{"key": "c", "path": "c"}]}},
            "references non-existent config key: c (default/settings)",
        ),
        (
            {"nfs": {"server": "files", "path": "/"}},
            'volumes of kind "nfs" are not served by this node',
        ),
    ],
)
async def test_a_volume_that_cannot_be_made_says_why(volume: dict[str, Any], message: str, tmp_path: Path) -> None:
    node = Node(tmp_path, {"name": "scratch", "emptyDir": {}}, {"name": "v", **volume})
    with pytest.raises(VolumeFailure) as caught:
        await node.publish(settings=CONFIG)
    assert (caught.value.volume, str(caught.value)) == ("v", message)
    await node.remove()


async def test_optional_sources_may_be_absent(tmp_path: Path) -> None:
    node = Node(
        tmp_path,
        {"name": "one", "configMap": {"name": "nobody", "optional": True}},
        {"name": "two", "configMap": {"name": "s", "optional": True, "items": [{"key": "zz", "path": "z"}]}},
    )
    await node.publish(s=CONFIG)
    assert [path.name for path in node.path("configmap", "two").iterdir() if not path.name.startswith("..")] == []
    await node.publish(s=CONFIG, nobody=CONFIG)
    assert (node.path("configmap", "one") / "a").read_text() == "1", "it appears later"
    await node.remove()


async def test_projected_sources_meet_in_one_folder(tmp_path: Path) -> None:
    sources = [
        {"configMap": {"name": "settings"}},
        {"secret": {"name": "keys", "items": [{"key": "token", "path": "keys/token", "mode": 0o400}]}},
        {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"serviceAccountToken": {"audience": "vault", "path": "vault"}},
    ]
    node = Node(tmp_path, {"name": "v", "projected": {"sources": sources, "defaultMode": 0o640}})
    await node.publish(settings=CONFIG)
    folder = node.path("projected", "v")
    assert (folder / "a").read_text() == "1"
    assert (folder / "keys/token").read_text() == "s3cret"
    assert (folder / "labels").read_text() == 'app="web"'
    assert (folder / "vault").read_text() == "token for vault"
    assert (folder / "vault").stat().st_mode & 0o777 == 0o640
    await node.remove()


async def test_an_empty_dir_keeps_what_is_in_it(tmp_path: Path) -> None:
    node = Node(tmp_path, {"name": "v", "emptyDir": {}})
    await node.publish()
    path = node.path("empty-dir", "v")
    assert path.stat().st_mode & 0o7777 == 0o777
    (path / "kept").write_text("x")
    await node.publish()
    assert (path / "kept").exists()
    remove_all(tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("kind", "made", "good"),
    [
        ("Directory", "folder", True),
        ("Directory", "file", False),
        ("Directory", "", False),
        ("File", "file", True),
        ("File", "", False),
        ("Socket", "file", False),
        ("DirectoryOrCreate", "", True),
        ("FileOrCreate", "", True),
        ("DirectoryOrCreate", "file", False),
        ("", "", True),
    ],
)
async def test_types_of_host_paths(kind: str, made: str, good: bool, tmp_path: Path) -> None:
    path = tmp_path / "host"
    if made == "folder":
        path.mkdir()
    elif made == "file":
        path.touch()
    node = Node(tmp_path / "pods", {"name": "v", "hostPath": {"path": str(path), "type": kind}})
    if not good:
        with pytest.raises(VolumeFailure, match="hostPath type check failed"):
            await node.publish()
        return
    await node.publish()
    assert path.is_file() is (kind in ("File", "FileOrCreate"))
    await node.remove()
    assert path.exists(), "a hostPath is never removed"


def test_tokens_are_renewed_in_time_and_kept_when_they_cannot_be(tmp_path: Path) -> None:
    wanted = ServiceAccountTokenProjection(path="token", expiration_seconds=3600)

    async def main(clock: VirtualClock) -> None:
        cluster = NodeCluster(clock, SimRuntime(clock), hollow_config(tmp_path))
        async with cluster.running():
            made = await cluster.pod("web")
            client = cluster.client
            tokens = Tokens(type(client)(cluster.door, client.registry, client.user), clock)
            first = await tokens.token(made, wanted)
            assert first.count(".") == 2
            await clock.sleep(2800)
            assert await tokens.token(made, wanted) == first
            due_s = tokens.renewal_s(made.metadata.uid or "")
            assert due_s is not None
            assert 2860 <= due_s - (clock.time_s() - 2800) <= 2880
            await clock.sleep(100)
            cluster.door.closed = True
            assert await tokens.token(made, wanted) == first, "it is still good"
            retry_s = tokens.renewal_s(made.metadata.uid or "")
            assert retry_s is not None
            assert retry_s > clock.time_s(), "not again at once"
            cluster.door.closed = False
            await clock.sleep(retry_s - clock.time_s() + 1)
            second = await tokens.token(made, wanted)
            assert second != first
            cluster.door.closed = True
            await clock.sleep(3600)
            with pytest.raises(ServiceUnavailable):
                await tokens.token(made, wanted)
            cluster.door.closed = False

    run(main)


def test_a_token_that_cannot_be_renewed_is_asked_for_now_and_then_only(node_folder: Path) -> None:
    volume = {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}

    async def main(clock: VirtualClock) -> None:
        config = replace(hollow_config(node_folder), hollow=False)
        cluster = NodeCluster(clock, SimRuntime(clock), config)
        async with cluster.running():
            await cluster.pod("web", volumes=[volume])
            await cluster.until(lambda: cluster.phase("web") == "Running")
            await clock.sleep(2700)
            cluster.door.refused = "/token"
            await clock.sleep(300)
            asked = [path for _, path in cluster.door.turned_away if path.endswith("/token")]
            assert 2 <= len(asked) <= 10

    run(main)


def test_files_that_could_not_be_brought_up_to_date_are_tried_again(node_folder: Path) -> None:
    volume = {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}

    async def main(clock: VirtualClock) -> None:
        config = replace(hollow_config(node_folder), hollow=False)
        cluster = NodeCluster(clock, SimRuntime(clock), config)
        async with cluster.running():
            made = await cluster.pod("web", volumes=[volume])
            await cluster.until(lambda: cluster.phase("web") == "Running")
            file = config.root / "pods" / str(made.metadata.uid) / "volumes/kubernetes.io~projected/t/token"
            first = file.read_text()
            cluster.door.refused = "/token"
            await clock.sleep(4000)
            assert file.read_text() == first, "what the container has stays"
            cluster.door.refused = ""
            await clock.sleep(400)
            assert file.read_text() != first
            assert cluster.phase("web") == "Running"

    run(main)


async def test_a_default_mode_of_nothing_is_a_mode(tmp_path: Path) -> None:
    node = Node(tmp_path, {"name": "v", "configMap": {"name": "settings", "defaultMode": 0}})
    await node.publish(settings=CONFIG)
    assert (node.path("configmap", "v") / "a").stat().st_mode & 0o777 == 0
    await node.remove()


class FullDisk(HollowVolumes):
    """Volumes that can't be written for a while."""

    def __init__(self) -> None:
        self.full = False
        self.failed = self.published = 0

    async def publish(self, pod: Pod, around: Surroundings) -> None:
        if self.full:
            self.failed += 1
            raise VolumeFailure("v", "no space left on device")
        self.published += 1


def test_a_change_that_could_not_be_written_is_written_later(tmp_path: Path) -> None:
    async def main(clock: VirtualClock) -> None:
        cluster = NodeCluster(clock, SimRuntime(clock), hollow_config(tmp_path))
        async with cluster.running():
            volumes = cluster.agent._node.volumes = FullDisk()
            await cluster.create(ConfigMap(metadata=ObjectMeta(name="settings", namespace="default"), data={"a": "1"}))
            await cluster.pod("web", volumes=[{"name": "v", "configMap": {"name": "settings"}}])
            await cluster.until(lambda: cluster.phase("web") == "Running")
            before, volumes.full = volumes.published, True
            await cluster.client.patch(ConfigMap, "settings", {"data": {"a": "2"}}, "default")
            await clock.sleep(5)
            assert volumes.failed
            volumes.full = False
            await clock.sleep(60)
            assert volumes.published == before + 1

    run(main)
