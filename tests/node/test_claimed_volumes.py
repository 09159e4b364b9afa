"""What a pod gets for its claims on a host, and what is said when it gets nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from knarr.api.core.v1 import PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus, Pod
from knarr.api.errors import NotFound
from knarr.api.meta.v1 import OwnerReference
from knarr.client.client import Client
from knarr.node.claimed_volumes import ClaimedVolumes, give_to_group
from knarr.node.volume_failure import VolumeFailure
from tests.storage import claim, mounting, volume


@dataclass
class Held:
    """What an API server would answer."""

    objects: list[Any] = field(default_factory=list)
    asked: int = 0

    async def get(self, kind: type[Any], name: str, namespace: str | None = None) -> Any:
        self.asked += 1
        for each in self.objects:
            if isinstance(each, kind) and cast(Any, each).metadata.name == name:
                return each
        plural = {PersistentVolumeClaim: "persistentvolumeclaims", PersistentVolume: "persistentvolumes"}[kind]
        raise NotFound(f'{plural} "{name}" not found')


def bound(**fields: Any) -> PersistentVolumeClaim:
    made = claim(volumeName="disk", metadata={"uid": "c-1", **fields})
    assert made.status is None
    return _with_status(made, "Bound")


def _with_status(made: PersistentVolumeClaim, phase: str) -> PersistentVolumeClaim:
    made.status = PersistentVolumeClaimStatus(phase=phase)
    return made


def disk(**spec: Any) -> PersistentVolume:
    return volume(claimRef={"namespace": "default", "name": "data", "uid": "c-1"}, **spec)


def user(**spec: Any) -> Pod:
    made = mounting("web", "data", **spec)
    made.metadata.uid = "p-1"
    return made


async def look_up(pod: Pod, *objects: Any) -> Any:
    assert pod.spec
    return await ClaimedVolumes(cast(Client, Held(list(objects)))).of(pod, pod.spec.volumes[0])


async def refused(pod: Pod, *objects: Any) -> VolumeFailure:
    with pytest.raises(VolumeFailure) as caught:
        await look_up(pod, *objects)
    return caught.value


UNPROCESSED = (
    "Unable to attach or mount volumes: unmounted volumes=[v0], unattached volumes=[], failed to process volumes=[v0]: "
    "error processing PVC default/data: "
)


def waiting() -> Iterable[tuple[list[Any], str]]:
    absent = 'failed to fetch PVC from API server: persistentvolumeclaims "data" not found'
    yield [], absent
    yield [_with_status(claim(), "Pending"), disk()], "PVC is not bound"
    yield [bound(deletionTimestamp="2026-01-01T00:00:00Z"), disk()], "PVC is being deleted"
    yield [bound()], 'failed to fetch PV "disk" from API server: persistentvolumes "disk" not found'
    yield [bound(), volume()], 'PV "disk" is not bound to the PVC'


@pytest.mark.parametrize(("objects", "why"), list(waiting()))
async def test_a_pod_waits_for_its_claim_and_says_for_what(objects: list[Any], why: str) -> None:
    failure = await refused(user(), *objects)
    assert failure.event == UNPROCESSED + why
    assert failure.waits


async def test_folders_are_served_and_asked_for_once(tmp_path: Path) -> None:
    held = Held([bound(), disk(hostPath=None, local={"path": str(tmp_path)}, node="here")])
    volumes, pod = ClaimedVolumes(cast(Client, held)), user()
    assert pod.spec
    for _ in range(2):
        found = await volumes.of(pod, pod.spec.volumes[0])
        assert (found.path, found.read_only, found.host_path) == (str(tmp_path), False, None)
    assert held.asked == 2
    volumes.forget("p-1")
    await volumes.of(pod, pod.spec.volumes[0])
    assert held.asked == 4


async def test_a_claim_can_be_mounted_to_be_read_only() -> None:
    source = {"name": "v0", "persistentVolumeClaim": {"claimName": "data", "readOnly": True}}
    found = await look_up(user(volumes=[source]), bound(), disk())
    assert found.read_only
    assert found.host_path


@pytest.mark.parametrize(
    ("spec", "event"),
    [
        (
            {"hostPath": None, "nfs": {"server": "s", "path": "/"}},
            'MountVolume.SetUp failed for volume "disk" : volumes of kind "nfs" are not served by this node',
        ),
        (
            {"hostPath": None, "local": {"path": "/nowhere/at/all"}},
            'MountVolume.NewMounter initialization failed for volume "disk" : path "/nowhere/at/all" does not exist',
        ),
        (
            {"volumeMode": "Block"},
            'MapVolume.SetUp failed for volume "disk" : volumes of mode "Block" are not served by this node',
        ),
    ],
)
async def test_what_is_not_served_is_named(spec: dict[str, Any], event: str) -> None:
    failure = await refused(user(), bound(), disk(**spec))
    assert failure.event == event
    assert not failure.waits


async def test_an_ephemeral_volume_is_its_own_pods_only() -> None:
    template = {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}
    pod = user(volumes=[{"name": "v0", "ephemeral": {"volumeClaimTemplate": template}}])
    made = bound(name="web-v0")
    failure = await refused(pod, made, disk())
    assert failure.event.endswith("PVC default/web-v0 was not created for pod default/web (pod is not owner)")
    owner = OwnerReference(api_version="v1", kind="Pod", name="web", uid="p-1", controller=True)
    made.metadata.owner_references = [owner]
    assert (await look_up(pod, made, disk())).path == "/srv"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_the_group_of_a_pod_owns_all_of_its_volume_but_what_links_lead_to(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "volume"
    outside.write_text("x")
    (inside / "deep").mkdir(parents=True)
    (inside / "deep" / "file").write_text("x")
    (inside / "deep" / "file").chmod(0o600)
    (inside / "link").symlink_to(outside)
    give_to_group(str(inside), 4321, None)
    assert [each.stat().st_gid for each in (inside, inside / "deep", inside / "deep" / "file")] == [4321] * 3
    assert (inside / "deep").stat().st_mode & 0o2770 == 0o2770
    assert (inside / "deep" / "file").stat().st_mode & 0o777 == 0o660
    assert outside.stat().st_gid != 4321
    os.chown(inside / "deep" / "file", -1, 0)
    give_to_group(str(inside), 4321, "OnRootMismatch")
    assert (inside / "deep" / "file").stat().st_gid == 0, "the root says that it was done"
