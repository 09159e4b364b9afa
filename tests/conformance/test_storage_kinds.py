"""sig-storage: the life of the kinds of storage, through the API."""

from __future__ import annotations

from typing import Any

import pytest

from tests.apiserver.pipeline.door import Door
from tests.conformance.operations import MERGE, deletions, discovered, main_operations

STORAGE = "/apis/storage.k8s.io/v1"
CLAIMS = "/api/v1/namespaces/default/persistentvolumeclaims"
VOLUMES = "/api/v1/persistentvolumes"
SELECTOR = {"labelSelector": "e2e=storage"}


def made(kind: str, name: str, version: str = "storage.k8s.io/v1", **fields: Any) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": {"e2e": "storage"}}, **fields}


async def life(door: Door, path: str, first: dict[str, Any], second: dict[str, Any]) -> None:
    """Created, read, patched, listed, deleted; another created, updated, and deleted with the collection."""
    name = first["metadata"]["name"]
    created = await door.done("POST", path, first)
    assert (await door.done("GET", f"{path}/{name}"))["metadata"]["uid"] == created["metadata"]["uid"]
    patch = {"metadata": {"labels": {name: "patched"}}}
    patched = await door.done("PATCH", f"{path}/{name}", patch, content_type=MERGE)
    assert patched["metadata"]["labels"][name] == "patched"
    listed = await door.done("GET", path, labelSelector=f"{name}=patched")
    assert [each["metadata"]["name"] for each in listed["items"]] == [name]
    await door.done("DELETE", f"{path}/{name}")
    await gone(door, path, name)
    other = second["metadata"]["name"]
    replacement = await door.done("POST", path, second)
    replacement["metadata"]["labels"][other] = "updated"
    updated = await door.done("PUT", f"{path}/{other}", replacement)
    assert updated["metadata"]["labels"][other] == "updated"
    await door.done("DELETE", path, labelSelector=f"{other}=updated")
    await gone(door, path, other)


async def gone(door: Door, path: str, name: str) -> None:
    """No loop runs here: what protects an object that nobody uses is taken away by hand, as its loop would."""
    status, found = await door("GET", f"{path}/{name}")
    if status == 200:
        assert found["metadata"]["deletionTimestamp"]
        await door.done("PATCH", f"{path}/{name}", {"metadata": {"finalizers": None}}, content_type=MERGE)
        status, _ = await door("GET", f"{path}/{name}")
    assert status == 404


def driver(name: str) -> dict[str, Any]:
    return made("CSIDriver", name, spec={"attachRequired": False, "volumeLifecycleModes": ["Ephemeral"]})


async def test_csi_drivers_live(door: Door) -> None:
    """[sig-storage] CSIInlineVolumes should run through the lifecycle of a CSIDriver"""
    path = f"{STORAGE}/csidrivers"
    for name in ("inline-driver-1", "inline-driver-2"):
        await door.done("POST", path, driver(name))
    patch = {"metadata": {"labels": {"inline-driver-1": "patched"}}}
    patched = await door.done("PATCH", f"{path}/inline-driver-1", patch, content_type=MERGE)
    assert patched["metadata"]["labels"]["inline-driver-1"] == "patched"
    patched["metadata"]["labels"]["inline-driver-1"] = "updated"
    updated = await door.done("PUT", f"{path}/inline-driver-1", patched)
    assert updated["metadata"]["labels"]["inline-driver-1"] == "updated"
    assert len((await door.done("GET", path, **SELECTOR))["items"]) == 2
    await door.done("DELETE", f"{path}/inline-driver-1")
    await gone(door, path, "inline-driver-1")
    await door.done("DELETE", path, **SELECTOR)
    assert (await door.done("GET", path, **SELECTOR))["items"] == []


async def test_pods_keep_inline_volumes_of_a_driver(door: Door) -> None:
    """[sig-storage] CSIInlineVolumes should support CSIVolumeSource in Pod API"""
    path = "/api/v1/namespaces/default/pods"
    await door.done("POST", f"{STORAGE}/csidrivers", driver("inline-driver"))
    source = {"name": "inline", "csi": {"driver": "inline-driver"}}
    container = {"name": "c", "image": "none", "volumeMounts": [{"name": "inline", "mountPath": "/mnt"}]}
    pod = made("Pod", "inline", "v1", spec={"containers": [container], "volumes": [source]})
    created = await door.done("POST", path, pod)
    assert [each for each in created["spec"]["volumes"] if "csi" in each] == [source]
    assert (await door.done("GET", f"{path}/inline"))["spec"] == created["spec"]
    assert len((await door.done("GET", path, **SELECTOR))["items"]) == 1
    patch = {"metadata": {"annotations": {"patched": "true"}}}
    patched = await door.done("PATCH", f"{path}/inline", patch, content_type=MERGE)
    assert patched["metadata"]["annotations"]["patched"] == "true"
    await door.done("DELETE", f"{path}/inline")
    await gone(door, path, "inline")


async def test_csi_nodes_live(door: Door) -> None:
    """[sig-storage] CSINodes CSI Conformance should run through the lifecycle of a csinode"""
    first, second = (made("CSINode", name, spec={"drivers": []}) for name in ("csi-node-1", "csi-node-2"))
    await life(door, f"{STORAGE}/csinodes", first, second)


async def test_csi_storage_capacities_offer_every_operation(door: Door) -> None:
    """[sig-storage] CSIStorageCapacity should support CSIStorageCapacities API operations"""
    await discovered(door, "storage.k8s.io", "v1", "csistoragecapacities")
    path = f"{STORAGE}/namespaces/default/csistoragecapacities"
    template = made("CSIStorageCapacity", "", storageClassName="a")
    template["metadata"] = {"generateName": "e2e-csistoragecapacity-", "labels": {"e2e": "storage"}}
    found = await main_operations(door, path, template, SELECTOR)
    assert len((await door.done("GET", f"{STORAGE}/csistoragecapacities", **SELECTOR))["items"]) == 3
    await deletions(door, path, found["metadata"]["name"], SELECTOR)


def volume(name: str) -> dict[str, Any]:
    spec = {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Mi"}, "nfs": {"server": "s", "path": "/"}}
    return made("PersistentVolume", name, "v1", spec=spec)


def claim(name: str) -> dict[str, Any]:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}, "storageClassName": "none"}
    return made("PersistentVolumeClaim", name, "v1", spec=spec)


async def test_volumes_and_claims_tell_their_status(door: Door) -> None:
    """[sig-storage] PersistentVolumes CSI Conformance should apply changes to a pv/pvc status"""
    await door.done("POST", VOLUMES, volume("status"))
    await door.done("POST", CLAIMS, claim("status"))
    assert len((await door.done("GET", VOLUMES, **SELECTOR))["items"]) == 1
    assert len((await door.done("GET", CLAIMS))["items"]) == 1
    of_claim, of_volume = f"{CLAIMS}/status/status", f"{VOLUMES}/status/status"
    assert (await door.done("GET", of_claim))["status"]["phase"] == "Pending"
    assert (await door.done("GET", of_volume))["status"]["phase"] in ("Pending", "Available")
    condition = {"type": "StatusPatched", "status": "True", "reason": "E2E patchStatus", "message": "Set by a test"}
    patched = await door.done("PATCH", of_claim, {"status": {"conditions": [condition]}}, content_type=MERGE)
    assert [each["type"] for each in patched["status"]["conditions"]] == ["StatusPatched"]
    said = {"message": "StatusPatched", "reason": "E2E patchStatus"}
    told = await door.done("PATCH", of_volume, {"status": said}, content_type=MERGE)
    assert said.items() <= told["status"].items()
    patched["status"]["conditions"].append({**condition, "type": "StatusUpdated"})
    updated = await door.done("PUT", of_claim, patched)
    assert [each["type"] for each in updated["status"]["conditions"]] == ["StatusPatched", "StatusUpdated"]
    told["status"] |= {"message": "StatusUpdated", "reason": "E2E updateStatus"}
    after = await door.done("PUT", of_volume, told)
    assert (after["status"]["message"], after["status"]["reason"]) == ("StatusUpdated", "E2E updateStatus")


async def test_volumes_and_claims_live(door: Door) -> None:
    """[sig-storage] PersistentVolumes CSI Conformance should run through the lifecycle of a PV and a PVC"""
    await life(door, VOLUMES, volume("first"), volume("second"))
    await life(door, CLAIMS, claim("first"), claim("second"))


async def test_storage_classes_live(door: Door) -> None:
    """[sig-storage] StorageClasses CSI Conformance should run through the lifecycle of a StorageClass"""
    first, second = (made("StorageClass", name, provisioner="e2e-fake-provisioner") for name in ("e2e-1", "e2e-2"))
    await life(door, f"{STORAGE}/storageclasses", first, second)


async def test_volume_attributes_classes_live(door: Door) -> None:
    """[sig-storage] VolumeAttributesClass [FeatureGate:VolumeAttributesClass] should run through the lifecycle of a
    VolumeAttributesClass"""
    fields = {"driverName": "e2e-fake-driver", "parameters": {"iops": "1"}}
    first, second = (made("VolumeAttributesClass", name, **fields) for name in ("e2e-1", "e2e-2"))
    await life(door, f"{STORAGE}/volumeattributesclasses", first, second)


def attachment(name: str) -> dict[str, Any]:
    spec = {"attacher": "e2e-test.storage.k8s.io", "nodeName": "node", "source": {"persistentVolumeName": f"pv-{name}"}}
    return made("VolumeAttachment", name, spec=spec)


async def test_volume_attachments_tell_their_status(door: Door) -> None:
    """[sig-storage] VolumeAttachment Conformance should apply changes to a volumeattachment status"""
    path = f"{STORAGE}/volumeattachments"
    await door.done("POST", path, attachment("status"))
    patch = {"metadata": {"labels": {"status": "patched"}}}
    assert (await door.done("PATCH", f"{path}/status", patch, content_type=MERGE))["metadata"]["labels"]["status"]
    read = await door.done("GET", f"{path}/status/status")
    assert read["status"]["attached"] is False
    told = await door.done("PATCH", f"{path}/status/status", {"status": {"attached": True}}, content_type=MERGE)
    assert told["status"]["attached"] is True
    told["status"]["attached"] = False
    assert (await door.done("PUT", f"{path}/status/status", told))["status"]["attached"] is False
    await door.done("DELETE", f"{path}/status")
    await gone(door, path, "status")


async def test_volume_attachments_live(door: Door) -> None:
    """[sig-storage] VolumeAttachment Conformance should run through the lifecycle of a VolumeAttachment"""
    path = f"{STORAGE}/volumeattachments"
    await life(door, path, attachment("first"), attachment("second"))
    for name in ("third", "fourth"):
        await door.done("POST", path, attachment(name))
    await door.done("DELETE", path, **SELECTOR)
    assert (await door.done("GET", path, **SELECTOR))["items"] == []


@pytest.mark.parametrize("path", [VOLUMES, CLAIMS])
async def test_what_is_bound_is_protected_until_nobody_uses_it(door: Door, path: str) -> None:
    """Beside upstream's: a deletion leaves the object with its finalizer until a loop takes that."""
    await door.done("POST", path, volume("kept") if path == VOLUMES else claim("kept"))
    answered = await door.done("DELETE", f"{path}/kept")
    assert answered["metadata"]["deletionTimestamp"]
    assert answered["metadata"]["finalizers"]
    await gone(door, path, "kept")
