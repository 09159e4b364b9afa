"""Claims, volumes and ingresses: defaults, protection, growth; the plugins alone, as their kinds are others' work."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from knarr.api.core.v1 import PersistentVolume, PersistentVolumeClaim
from knarr.api.errors import Forbidden
from knarr.api.networking.v1 import Ingress, IngressClass
from knarr.api.resources import Resource, served
from knarr.api.storage.v1 import StorageClass
from knarr.apiserver.admission import Admission, Attributes, Plugin
from knarr.apiserver.admission.index import Index
from knarr.apiserver.admission.ingressclass import DefaultIngressClass
from knarr.apiserver.admission.storage import ClaimResize, DefaultStorageClass, StorageProtection
from knarr.client.transport import User
from knarr.store.contract import Write
from knarr.store.memory import MemoryStore

CLAIM = served(PersistentVolumeClaim, "persistentvolumeclaims")
VOLUME = served(PersistentVolume, "persistentvolumes", namespaced=False)
INGRESS = served(Ingress, "ingresses")
STORAGE_DEFAULT = {"storageclass.kubernetes.io/is-default-class": "true"}
INGRESS_DEFAULT = {"ingressclass.kubernetes.io/is-default-class": "true"}


async def kept(store: MemoryStore, prefix: str, name: str, day: int = 1, **fields: Any) -> None:
    annotations = fields.pop("annotations", {})
    made = {"name": name, "creationTimestamp": f"2026-01-{day:02}T00:00:00Z", "annotations": annotations}
    body = {"apiVersion": "v1", "kind": "X", "metadata": made, **fields}
    await store.commit(Write(f"{prefix}//{name}", msgspec.json.encode(body)))


def claim(size: str = "1Gi", phase: str = "", annotations: dict[str, str] | None = None, **spec: Any) -> Any:
    body = {
        "metadata": {"name": "data", "namespace": "default", "annotations": annotations or {}},
        "spec": {"resources": {"requests": {"storage": size}}, **spec},
        "status": {"phase": phase} if phase else {},
    }
    return msgspec.convert(body, PersistentVolumeClaim)


def about(resource: Resource, operation: str, obj: Any, old: Any = None) -> Attributes:
    return Attributes(operation, resource, "default", obj, old, User("admin", ()))


async def admitted(plugin: Plugin, attributes: Attributes) -> Any:
    await Admission([plugin]).admit(attributes)
    return attributes.obj


async def test_a_claim_without_a_class_gets_the_newest_default() -> None:
    store = MemoryStore()
    classes = DefaultStorageClass(Index(store, "storageclasses.storage.k8s.io", StorageClass))
    made = await admitted(classes, about(CLAIM, "CREATE", claim()))
    assert made.spec.storage_class_name is None
    prefix = "storageclasses.storage.k8s.io"
    await kept(store, prefix, "old", 1, annotations=STORAGE_DEFAULT, provisioner="p")
    await kept(store, prefix, "new", 2, annotations=STORAGE_DEFAULT, provisioner="p")
    await kept(store, prefix, "newest", 3, provisioner="p")
    assert (await admitted(classes, about(CLAIM, "CREATE", claim()))).spec.storage_class_name == "new"
    for chosen in ("", "own"):
        made = await admitted(classes, about(CLAIM, "CREATE", claim(storageClassName=chosen)))
        assert made.spec.storage_class_name == chosen
    beta = claim(annotations={"volume.beta.kubernetes.io/storage-class": "own"})
    assert (await admitted(classes, about(CLAIM, "CREATE", beta))).spec.storage_class_name is None
    assert (await admitted(classes, about(CLAIM, "UPDATE", claim(), claim()))).spec.storage_class_name is None


@pytest.mark.parametrize(
    ("resource", "kind", "finalizer"),
    [
        (CLAIM, PersistentVolumeClaim, "kubernetes.io/pvc-protection"),
        (VOLUME, PersistentVolume, "kubernetes.io/pv-protection"),
    ],
)
async def test_what_is_new_is_protected(resource: Resource, kind: type[Any], finalizer: str) -> None:
    for before in ([], [finalizer], ["other"]):
        obj = msgspec.convert({"metadata": {"name": "a", "finalizers": before}}, kind)
        made = await admitted(StorageProtection(), about(resource, "CREATE", obj))
        assert made.metadata.finalizers.count(finalizer) == 1
        assert set(before) <= set(made.metadata.finalizers)


async def test_a_claim_grows_where_its_class_lets_it() -> None:
    store = MemoryStore()
    classes, volumes = "storageclasses.storage.k8s.io", "persistentvolumes"
    plugin = ClaimResize(Index(store, classes, StorageClass), Index(store, volumes, PersistentVolume))
    await kept(store, classes, "grows", provisioner="p", allowVolumeExpansion=True)
    await kept(store, classes, "stays", provisioner="p")
    await kept(store, volumes, "disk", spec={"csi": {"driver": "d", "volumeHandle": "h"}})
    await kept(store, volumes, "folder", spec={"hostPath": {"path": "/x"}})

    def grow(phase: str = "Bound", kind: str = "grows", volume: str = "disk") -> Attributes:
        old = claim("1Gi", phase, storageClassName=kind, volumeName=volume)
        return about(CLAIM, "UPDATE", claim("2Gi", phase, storageClassName=kind, volumeName=volume), old)

    await admitted(plugin, grow())
    refused = {
        "Only bound persistent volume claims can be expanded": grow("Pending"),
        "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support "
        "resize": grow(kind="stays"),
        "Error updating persistent volume claim because fetching associated persistent volume failed": grow(
            volume="gone"
        ),
        "volume plugin does not support resize": grow(volume="folder"),
    }
    for message, attributes in refused.items():
        with pytest.raises(Forbidden) as error:
            await admitted(plugin, attributes)
        assert str(error.value) == f'persistentvolumeclaims "data" is forbidden: {message}'
        same = replace(attributes, obj=attributes.old)
        await admitted(plugin, same)  # Only growth is asked about.


async def test_an_ingress_without_a_class_gets_the_default() -> None:
    store = MemoryStore()
    prefix = "ingressclasses.networking.k8s.io"
    plugin = DefaultIngressClass(Index(store, prefix, IngressClass))
    await kept(store, prefix, "edge", annotations=INGRESS_DEFAULT, spec={"controller": "c"})

    def ingress(annotations: dict[str, str] | None = None, **spec: Any) -> Attributes:
        body = {"metadata": {"name": "a", "annotations": annotations or {}}, "spec": spec}
        return about(INGRESS, "CREATE", msgspec.convert(body, Ingress))

    assert (await admitted(plugin, ingress())).spec.ingress_class_name == "edge"
    assert (await admitted(plugin, ingress(ingressClassName="own"))).spec.ingress_class_name == "own"
    old = ingress({"kubernetes.io/ingress.class": "own"})
    assert (await admitted(plugin, old)).spec.ingress_class_name is None
