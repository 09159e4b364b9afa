"""Claims, volumes, classes and pods that mount, as tests need them."""

from __future__ import annotations

from typing import Any

import msgspec

from knarr.api.core.v1 import PersistentVolume, PersistentVolumeClaim, Pod
from knarr.api.storage.v1 import StorageClass


def claim(name: str = "data", size: str = "1Gi", **spec: Any) -> PersistentVolumeClaim:
    """Of no class, unless one is given."""
    asked = {"requests": {"storage": size}}
    given = {"accessModes": ["ReadWriteOnce"], "resources": asked, "storageClassName": "", **spec}
    metadata = {"name": name, "namespace": "default"} | given.pop("metadata", {})
    return msgspec.convert({"metadata": metadata, "spec": given}, PersistentVolumeClaim)


def volume(name: str = "disk", size: str = "1Gi", node: str = "", **spec: Any) -> PersistentVolume:
    """A folder of the host; on one node only when `node` says so."""
    given = {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": size}, "hostPath": {"path": "/srv"}, **spec}
    if node:
        expression = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
        given["nodeAffinity"] = {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}
    metadata = {"name": name} | given.pop("metadata", {})
    return msgspec.convert({"metadata": metadata, "spec": given}, PersistentVolume)


def storage_class(name: str, provisioner: str = "kubernetes.io/no-provisioner", **fields: Any) -> StorageClass:
    metadata = {"name": name} | fields.pop("metadata", {})
    return msgspec.convert({"metadata": metadata, "provisioner": provisioner, **fields}, StorageClass)


def mounting(name: str, *claims: str, **spec: Any) -> Pod:
    """A pod that mounts claims."""
    volumes = [{"name": f"v{n}", "persistentVolumeClaim": {"claimName": each}} for n, each in enumerate(claims)]
    given = {"containers": [{"name": "c", "image": "one"}], "volumes": volumes, **spec}
    return msgspec.convert({"metadata": {"name": name, "namespace": "default"}, "spec": given}, Pod)
