"""The ConfigMaps and Secrets that pods of this node refer to: each is watched while some pod refers to it.

So a pod starts without asking for them twice, sees changes at once, and the node reads nothing that none of its pods
names (as the node authorizer demands).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from knarr.api.core.v1 import ConfigMap, Container, Pod, Secret, VolumeProjection
from knarr.client.client import Client
from knarr.client.informer import Informer
from knarr.clock import Clock
from knarr.node.ephemeral import all_containers

Reference = tuple[type[Any], str, str]
"""Kind, namespace, name."""


class References:
    """Watches on single objects, one for all pods that need it. `run` must run while it is used."""

    def __init__(self, client: Client, clock: Clock, changed: Callable[[set[str]], None]) -> None:
        """`changed` is told the uids of the pods that refer to what changed."""
        self._client = client
        self._clock = clock
        self._changed = changed
        self._group: asyncio.TaskGroup | None = None
        self._watched: dict[Reference, tuple[Informer[Any], asyncio.Task[None]]] = {}
        self._users: dict[Reference, set[str]] = {}

    async def run(self, ready: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            ready.set()
            await asyncio.Event().wait()

    def hold(self, pod: Pod) -> None:
        """Watch what `pod` refers to, and nothing more for it."""
        uid = pod.metadata.uid or ""
        wanted = referred(pod)
        for reference in wanted:
            self._watch(reference)
            self._users[reference].add(uid)
        self._drop(uid, keep=wanted)

    def release(self, uid: str) -> None:
        """The pod is gone."""
        self._drop(uid, keep=set())

    async def known(self, pod: Pod) -> None:
        """Wait until everything that `pod` refers to has been looked up."""
        for reference in referred(pod):
            watched = self._watched.get(reference)
            if watched is not None:
                await watched[0].synced.wait()

    def config_map(self, namespace: str, name: str) -> ConfigMap | None:
        found: ConfigMap | None = self._get((ConfigMap, namespace, name))
        return found

    def secret(self, namespace: str, name: str) -> Secret | None:
        found: Secret | None = self._get((Secret, namespace, name))
        return found

    def _get(self, reference: Reference) -> Any:
        watched = self._watched.get(reference)
        return watched[0].get(f"{reference[1]}/{reference[2]}") if watched is not None else None

    def _watch(self, reference: Reference) -> None:
        if reference in self._watched:
            return
        assert self._group is not None
        kind, namespace, name = reference
        informer: Informer[Any] = Informer(
            self._client, kind, self._clock, namespace=namespace, field_selector=f"metadata.name={name}"
        )
        self._users[reference] = set()
        informer.add_handler(lambda _old, _new: self._changed(set(self._users.get(reference, ()))))
        task = self._group.create_task(informer.run(), name=f"watch {kind.__name__} {namespace}/{name}")
        self._watched[reference] = (informer, task)

    def _drop(self, uid: str, keep: set[Reference]) -> None:
        for reference, users in list(self._users.items()):
            if reference not in keep:
                users.discard(uid)
            if not users:
                del self._users[reference]
                self._watched.pop(reference)[1].cancel()


def referred(pod: Pod) -> set[Reference]:
    """The ConfigMaps and Secrets that a pod's volumes and containers name."""
    spec = pod.spec
    assert spec
    config_maps: set[str | None] = set()
    secrets: set[str | None] = {reference.name for reference in spec.image_pull_secrets}
    for volume in spec.volumes:
        if volume.config_map is not None:
            config_maps.add(volume.config_map.name)
        if volume.secret is not None:
            secrets.add(volume.secret.secret_name)
        for source in volume.projected.sources if volume.projected is not None else ():
            _of_projection(source, config_maps, secrets)
    for container in all_containers(spec):
        _of_container(container, config_maps, secrets)
    namespace = pod.metadata.namespace or ""
    return {(ConfigMap, namespace, name) for name in config_maps if name} | {
        (Secret, namespace, name) for name in secrets if name
    }


def _of_projection(source: VolumeProjection, config_maps: set[str | None], secrets: set[str | None]) -> None:
    if source.config_map is not None:
        config_maps.add(source.config_map.name)
    if source.secret is not None:
        secrets.add(source.secret.name)


def _of_container(container: Container, config_maps: set[str | None], secrets: set[str | None]) -> None:
    for source in container.env_from:
        if source.config_map_ref is not None:
            config_maps.add(source.config_map_ref.name)
        if source.secret_ref is not None:
            secrets.add(source.secret_ref.name)
    for variable in container.env:
        if variable.value_from is None:
            continue
        if variable.value_from.config_map_key_ref is not None:
            config_maps.add(variable.value_from.config_map_key_ref.name)
        if variable.value_from.secret_key_ref is not None:
            secrets.add(variable.value_from.secret_key_ref.name)
