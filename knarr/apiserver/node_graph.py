"""What each node needs: the Secrets, ConfigMaps, claims and accounts of the pods that are bound to it.

Kept in memory from pods, persistent volumes, volume attachments and resource slices (upstream's node authorizer keeps
the same as a graph). What a pod refers to can't change once it is bound, so a pod is decoded once; a mirror pod, which
a node has made itself, gives the node nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec

from knarr.api.core.v1 import Pod, PodSpec, Volume
from knarr.api.decode import decoder
from knarr.apiserver.follow import Follower
from knarr.store.contract import Store

MIRROR = "kubernetes.io/config.mirror"
_BOUND = b'"nodeName":"'
_CHANGING = (b'"ephemeralContainers"', b'"resourceClaimStatuses"')
"""Parts of a pod by which what it refers to may grow."""

Thing = tuple[str, str, str]
"""Resource, namespace, name."""


class _Bound(msgspec.Struct, frozen=True):
    """A pod on a node, and what it refers to."""

    node: str
    things: tuple[Thing, ...]


class _Volume(msgspec.Struct):
    """Of a persistent volume: whose it is, and the Secrets that mounting it takes."""

    spec: dict[str, Any] = {}


class _OfNode(msgspec.Struct):
    spec: dict[str, Any] = {}


class NodeGraph:
    """Which objects belong to which node."""

    def __init__(self, store: Store) -> None:
        self._pods: dict[str, _Bound] = {}
        self._held: Counter[tuple[str, Thing]] = Counter()
        """(node, object) → how many of its pods refer to it."""
        self._volumes: dict[str, tuple[Thing, tuple[Thing, ...]]] = {}
        self._owned: dict[Thing, str] = {}
        """A volume attachment or resource slice → its node."""
        self.follower = Follower(
            store,
            {
                "pods/": self._pod,
                "persistentvolumes/": self._volume,
                "volumeattachments.storage.k8s.io/": self._of_node,
                "resourceslices.resource.k8s.io/": self._of_node,
            },
            self._forget,
        )

    def needs(self, node: str, resource: str, namespace: str, name: str) -> bool:
        """Whether a pod on the node refers to the object, or it is the node's own."""
        thing = (resource, namespace, name)
        if (node, thing) in self._held or self._owned.get(thing) == node:
            return True
        if resource == "persistentvolumes":
            return name in self._volumes and (node, self._volumes[name][0]) in self._held
        return resource == "secrets" and self._mounts(node, thing)

    def _mounts(self, node: str, secret: Thing) -> bool:
        """Whether a volume that a pod on the node uses takes the Secret to be mounted."""
        return any(
            secret in secrets and (node, claim) in self._held for claim, secrets in self._volumes.values() if secrets
        )

    def _pod(self, key: str, value: bytes | None) -> None:
        known = self._pods.get(key)
        if value is None:
            self._let_go(key)
        elif _BOUND in value and (known is None or any(part in value for part in _CHANGING)):
            self._hold(key, decoder(Pod).decode(value))

    def _hold(self, key: str, pod: Pod) -> None:
        self._let_go(key)
        if pod.spec is None or not pod.spec.node_name:
            return
        metadata = pod.metadata
        namespace = metadata.namespace or ""
        mirror = MIRROR in metadata.annotations
        things = () if mirror else tuple(dict.fromkeys(referred(pod, pod.spec, namespace)))
        bound = _Bound(pod.spec.node_name, (("pods", namespace, metadata.name or ""), *things))
        self._pods[key] = bound
        self._held.update((bound.node, thing) for thing in bound.things)

    def _let_go(self, key: str) -> None:
        bound = self._pods.pop(key, None)
        for thing in bound.things if bound else ():
            held = bound.node, thing  # type: ignore[union-attr]
            self._held[held] -= 1
            if self._held[held] <= 0:
                del self._held[held]

    def _volume(self, key: str, value: bytes | None) -> None:
        name = key.rpartition("/")[2]
        self._volumes.pop(name, None)
        if value is None:
            return
        spec = msgspec.json.decode(value, type=_Volume).spec
        claim = spec.get("claimRef") or {}
        thing = ("persistentvolumeclaims", claim.get("namespace", ""), claim.get("name", ""))
        self._volumes[name] = (thing, tuple(_secrets_of_volume(spec, thing[1])))

    def _of_node(self, key: str, value: bytes | None) -> None:
        resource, _, name = key.partition("/")
        thing = (resource.partition(".")[0], "", name.rpartition("/")[2])
        self._owned.pop(thing, None)
        if value is not None and (node := msgspec.json.decode(value, type=_OfNode).spec.get("nodeName")):
            self._owned[thing] = node

    def _forget(self) -> None:
        self._pods.clear()
        self._held.clear()
        self._volumes.clear()
        self._owned.clear()


def referred(pod: Pod, spec: PodSpec, namespace: str) -> Iterator[Thing]:
    """All that a pod refers to; a name may come more than once."""
    if spec.service_account_name:
        yield "serviceaccounts", namespace, spec.service_account_name
    for pull in spec.image_pull_secrets:
        if pull.name:
            yield "secrets", namespace, pull.name
    containers: tuple[Any, ...] = (*spec.init_containers, *spec.containers, *spec.ephemeral_containers)
    for container in containers:
        for source in container.env_from:
            yield from _named("configmaps", namespace, source.config_map_ref)
            yield from _named("secrets", namespace, source.secret_ref)
        for variable in container.env:
            if variable.value_from is not None:
                yield from _named("configmaps", namespace, variable.value_from.config_map_key_ref)
                yield from _named("secrets", namespace, variable.value_from.secret_key_ref)
    for volume in spec.volumes:
        yield from _of_volume(pod, volume, namespace)
    for claim in spec.resource_claims:
        if claim.resource_claim_name:
            yield "resourceclaims", namespace, claim.resource_claim_name
    for status in pod.status.resource_claim_statuses if pod.status else ():
        if status.resource_claim_name:
            yield "resourceclaims", namespace, status.resource_claim_name


def _named(resource: str, namespace: str, reference: Any) -> Iterator[Thing]:
    if reference is not None and reference.name:
        yield resource, namespace, reference.name


def _of_volume(pod: Pod, volume: Volume, namespace: str) -> Iterator[Thing]:
    yield from _named("configmaps", namespace, volume.config_map)
    if volume.persistent_volume_claim:
        yield "persistentvolumeclaims", namespace, volume.persistent_volume_claim.claim_name
    if volume.ephemeral:
        yield "persistentvolumeclaims", namespace, f"{pod.metadata.name}-{volume.name}"
    for source in volume.projected.sources if volume.projected else ():
        yield from _named("configmaps", namespace, source.config_map)
        yield from _named("secrets", namespace, source.secret)
    for field in volume.__struct_fields__:
        source = getattr(volume, field)
        if source is None or isinstance(source, str):
            continue
        if name := getattr(source, "secret_name", None):
            yield "secrets", namespace, name
        for place in ("secret_ref", "node_publish_secret_ref"):
            yield from _named("secrets", namespace, getattr(source, place, None))


_SECRET_PLACES = (
    "secretRef",
    "nodePublishSecretRef",
    "nodeStageSecretRef",
    "nodeExpandSecretRef",
    "controllerPublishSecretRef",
    "controllerExpandSecretRef",
)


def _secrets_of_volume(spec: dict[str, Any], claimed_in: str) -> Iterator[Thing]:
    """The Secrets in the source of a persistent volume; without a namespace they are in the claim's."""
    for source in spec.values():
        if not isinstance(source, dict):
            continue
        for place in _SECRET_PLACES:
            reference = source.get(place)
            if isinstance(reference, dict) and reference.get("name"):
                yield "secrets", reference.get("namespace") or claimed_in, reference["name"]
        if source.get("secretName"):
            yield "secrets", source.get("secretNamespace") or claimed_in, source["secretName"]
