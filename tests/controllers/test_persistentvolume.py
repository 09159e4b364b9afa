"""Claims and volumes find each other, and part again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from knarr.api.core.v1 import Event, PersistentVolume, PersistentVolumeClaim, ServiceAccount
from knarr.api.errors import NotFound
from knarr.api.meta.v1 import ObjectMeta
from knarr.client.controller import Controller
from knarr.controllers.ephemeralvolume import EphemeralVolumes
from knarr.controllers.persistentvolume import VolumeBinder
from knarr.controllers.storageprotection import ClaimProtection, VolumeProtection
from knarr.controllers.volumeexpansion import VolumeExpansion
from tests.controllers.loops import Loops, play
from tests.storage import claim, mounting, storage_class, volume


def make(loops: Loops) -> Sequence[Controller]:
    """Each with the rights that it has in a cluster, and no more."""
    kinds: list[tuple[type[Controller], str]] = [
        (VolumeBinder, "persistent-volume-binder"),
        (EphemeralVolumes, "ephemeral-volume-controller"),
        (VolumeExpansion, "expand-controller"),
        (ClaimProtection, "pvc-protection-controller"),
        (VolumeProtection, "pv-protection-controller"),
    ]
    return [kind(loops.account(account), loops.informers, loops.clock) for kind, account in kinds]


def played(scenario: Callable[[Loops], Awaitable[None]]) -> None:
    play(make, scenario)


async def until_claim(loops: Loops, phase: str, name: str = "data") -> PersistentVolumeClaim:
    async def there() -> PersistentVolumeClaim | None:
        found = await loops.client.get(PersistentVolumeClaim, name, "default")
        return found if found.status and found.status.phase == phase else None

    found: PersistentVolumeClaim = await loops.until(there)
    return found


async def until_volume(loops: Loops, phase: str, name: str = "disk") -> PersistentVolume:
    async def there() -> PersistentVolume | None:
        found = await loops.client.get(PersistentVolume, name)
        return found if found.status and found.status.phase == phase else None

    found: PersistentVolume = await loops.until(there)
    return found


async def until_told(loops: Loops, reason: str, message: str) -> Event:
    async def told() -> Event | None:
        events = (await loops.client.list(Event)).items
        return next((each for each in events if (each.reason, each.message) == (reason, message)), None)

    found: Event = await loops.until(told)
    return found


def reference(found: PersistentVolume) -> Any:
    assert found.spec
    return found.spec.claim_ref


def test_a_claim_and_a_volume_say_that_they_are_bound() -> None:
    async def scenario(loops: Loops) -> None:
        await loops.client.create(volume(size="5Gi"))
        assert (await until_volume(loops, "Available")).status.last_phase_transition_time  # type: ignore[union-attr]
        await loops.client.create(claim())
        bound = await until_claim(loops, "Bound")
        assert bound.spec
        assert bound.status
        assert bound.spec.volume_name == "disk"
        assert bound.status.capacity == {"storage": "5Gi"}, "what it has, not what it asked for"
        assert bound.status.access_modes == ["ReadWriteOnce"]
        assert bound.metadata.annotations == {
            "pv.kubernetes.io/bind-completed": "yes",
            "pv.kubernetes.io/bound-by-controller": "yes",
        }
        found = await until_volume(loops, "Bound")
        assert found.metadata.annotations == {"pv.kubernetes.io/bound-by-controller": "yes"}
        assert (reference(found).kind, reference(found).uid) == ("PersistentVolumeClaim", bound.metadata.uid)

    played(scenario)


def test_a_user_who_names_the_other_side_is_heeded() -> None:
    async def scenario(loops: Loops) -> None:
        await loops.client.create(volume("small"))
        await loops.client.create(volume("large", "9Gi"))
        await loops.client.create(claim(volumeName="large"))
        bound = await until_claim(loops, "Bound")
        assert bound.metadata.annotations == {"pv.kubernetes.io/bind-completed": "yes"}
        await loops.client.create(volume("kept", claimRef={"namespace": "default", "name": "mine"}))
        await loops.client.create(claim("mine"))
        found = await until_volume(loops, "Bound", "kept")
        assert not found.metadata.annotations

    played(scenario)


def test_a_claim_that_names_a_volume_that_will_not_do_waits_and_says_why() -> None:
    async def scenario(loops: Loops) -> None:
        await loops.client.create(volume())
        await loops.client.create(claim(size="9Gi", volumeName="disk"))
        about = 'Cannot bind to requested volume "disk": requested PV is too small'
        assert (await until_told(loops, "VolumeMismatch", about)).type == "Warning"
        await until_claim(loops, "Pending")
        await loops.client.create(claim("other"))
        await until_claim(loops, "Bound", "other")
        await loops.client.create(claim("third", volumeName="disk"))
        await until_told(loops, "FailedBinding", 'volume "disk" already bound to a different claim.')

    played(scenario)


def test_a_released_volume_is_kept_or_fails_as_its_policy_says() -> None:
    table = (
        ("Retain", "Released", "", ""),
        ("Recycle", "Failed", "VolumeFailedRecycle", "No recycler plugin found for the volume!"),
        (
            "Delete",
            "Failed",
            "VolumeFailedDelete",
            "host_path deleter only supports /tmp/.+ but received provided /srv",
        ),
    )

    async def scenario(loops: Loops) -> None:
        for policy, phase, reason, message in table:
            await loops.client.create(volume(policy.lower(), persistentVolumeReclaimPolicy=policy))
            await loops.client.create(claim(policy.lower()))
            await until_claim(loops, "Bound", policy.lower())
            await loops.client.delete(PersistentVolumeClaim, policy.lower(), "default")
            found = await until_volume(loops, phase, policy.lower())
            assert reference(found), "nobody else gets it"
            if reason:
                await until_told(loops, reason, message)
                assert (await until_volume(loops, phase, policy.lower())).status.message == message  # type: ignore[union-attr]

    played(scenario)


def test_a_volume_in_use_outlives_its_deletion_until_its_claim_is_gone() -> None:
    async def scenario(loops: Loops) -> None:
        await loops.client.create(volume())
        await loops.client.create(claim())
        await until_claim(loops, "Bound")
        await loops.client.delete(PersistentVolume, "disk")
        await loops.clock.sleep(30)
        assert (await until_volume(loops, "Bound")).metadata.deletion_timestamp
        await loops.client.delete(PersistentVolumeClaim, "data", "default")

        async def gone() -> bool:
            try:
                await loops.client.get(PersistentVolume, "disk")
            except NotFound:
                return True
            return False

        await loops.until(gone)

    played(scenario)


def test_a_claim_whose_volume_is_gone_is_lost_for_good() -> None:
    async def scenario(loops: Loops) -> None:
        await loops.client.create(volume())
        await loops.client.create(claim())
        await until_claim(loops, "Bound")
        await loops.client.delete(PersistentVolume, "disk")
        await loops.client.patch(PersistentVolume, "disk", {"metadata": {"finalizers": None}})
        lost = await until_claim(loops, "Lost")
        assert lost.status
        assert not lost.status.capacity
        about = "Bound claim has lost its PersistentVolume. Data on the volume is lost!"
        assert (await until_told(loops, "ClaimLost", about)).type == "Warning"

    played(scenario)


def test_a_class_that_is_not_there_or_makes_nothing_is_told() -> None:
    async def scenario(loops: Loops) -> None:
        await loops.client.create(claim("none", storageClassName="gone"))
        await until_told(loops, "ProvisioningFailed", 'storageclass.storage.k8s.io "gone" not found')
        await loops.client.create(storage_class("static"))
        await loops.client.create(claim("static", storageClassName="static"))
        about = "no volume plugin matched name: kubernetes.io/no-provisioner"
        await until_told(loops, "ProvisioningFailed", about)
        await loops.client.create(storage_class("made", "example.com/maker"))
        await loops.client.create(claim("made", storageClassName="made"))
        about = (
            "Waiting for a volume to be created either by the external provisioner 'example.com/maker' or manually by "
            "the system administrator. If volume creation is delayed, please verify that the provisioner is running "
            "and correctly registered."
        )
        assert (await until_told(loops, "ExternalProvisioning", about)).type == "Normal"
        found = await until_claim(loops, "Pending", "made")
        assert found.metadata.annotations["volume.kubernetes.io/storage-provisioner"] == "example.com/maker"
        assert found.metadata.annotations["volume.beta.kubernetes.io/storage-provisioner"] == "example.com/maker"

    played(scenario)


def test_a_default_class_that_comes_later_is_given_to_claims_that_named_none() -> None:
    async def scenario(loops: Loops) -> None:
        await loops.client.create(claim("open", storageClassName=None))
        await loops.client.create(claim("none", storageClassName=""))
        about = "no persistent volumes available for this claim and no storage class is set"
        await until_told(loops, "FailedBinding", about)
        mark = {"storageclass.kubernetes.io/is-default-class": "true"}
        await loops.client.create(storage_class("usual", "example.com/maker", metadata={"annotations": mark}))

        async def given() -> bool:
            found = await loops.client.get(PersistentVolumeClaim, "open", "default")
            return bool(found.spec and found.spec.storage_class_name == "usual")

        await loops.until(given)
        untouched = await loops.client.get(PersistentVolumeClaim, "none", "default")
        assert untouched.spec
        assert untouched.spec.storage_class_name == ""

    played(scenario)


def test_a_claim_that_waits_for_its_pod_names_the_pod() -> None:
    async def scenario(loops: Loops) -> None:
        await loops.client.create(storage_class("late", volumeBindingMode="WaitForFirstConsumer"))
        await loops.client.create(ServiceAccount(metadata=ObjectMeta(name="default", namespace="default")))
        await loops.client.create(mounting("web", "data"))
        await loops.client.create(claim(storageClassName="late"))
        await until_told(loops, "WaitForPodScheduled", "waiting for pod web to be scheduled")

    played(scenario)


def test_a_claim_that_waits_tells_of_a_pod_that_came_later() -> None:
    async def scenario(loops: Loops) -> None:
        await loops.client.create(storage_class("late", volumeBindingMode="WaitForFirstConsumer"))
        await loops.client.create(claim(storageClassName="late"))
        await until_told(loops, "WaitForFirstConsumer", "waiting for first consumer to be created before binding")
        await loops.client.create(ServiceAccount(metadata=ObjectMeta(name="default", namespace="default")))
        await loops.client.create(mounting("web", "data"))
        await until_told(loops, "WaitForPodScheduled", "waiting for pod web to be scheduled")

    played(scenario)


def test_an_ephemeral_volume_gets_a_claim_that_its_pod_owns() -> None:
    async def scenario(loops: Loops) -> None:
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        template = {"metadata": {"labels": {"a": "b"}}, "spec": spec}
        volumes = [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}}]
        await loops.client.create(claim("web-scratch"))
        await loops.client.create(ServiceAccount(metadata=ObjectMeta(name="default", namespace="default")))
        await loops.client.create(mounting("web", volumes=volumes))
        about = (
            "ephemeral volume scratch: PVC default/web-scratch was not created for pod default/web (pod is not owner)"
        )
        await until_told(loops, "FailedBinding", about)
        await loops.client.delete(PersistentVolumeClaim, "web-scratch", "default")

        async def owned() -> bool:
            try:
                found = await loops.client.get(PersistentVolumeClaim, "web-scratch", "default")
            except NotFound:
                return False
            owners = [(each.kind, each.name, each.controller) for each in found.metadata.owner_references]
            return owners == [("Pod", "web", True)] and found.metadata.labels == {"a": "b"}

        await loops.until(owned)

    played(scenario)


def test_a_claim_that_grows_waits_for_whoever_made_its_volume() -> None:
    async def scenario(loops: Loops) -> None:
        await loops.client.create(storage_class("grows", "example.com/maker", allowVolumeExpansion=True))
        disk = {"driver": "disk.example.com", "volumeHandle": "1"}
        await loops.client.create(volume(hostPath=None, csi=disk, storageClassName="grows"))
        await loops.client.create(claim(storageClassName="grows"))
        await until_claim(loops, "Bound")
        grown = {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}
        await loops.client.patch(PersistentVolumeClaim, "data", grown, "default")
        await until_told(loops, "ExternalExpanding", "waiting for an external controller to expand this PVC")

    played(scenario)
