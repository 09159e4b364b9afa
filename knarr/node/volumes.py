"""The volumes of a pod on this node: made before its containers, kept up to date, removed with it.

emptyDir, hostPath, configMap, secret, downwardAPI, projected, and what claims stand for (claimed_volumes.py). What
holds secrets or memory is a tmpfs: it never reaches a disk. Files of the API's objects are published at once (see
publication.py) and again when the object changes; they are always read-only in containers, as upstream's.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from knarr.api.core.v1 import (
    ConfigMap,
    Container,
    DownwardAPIVolumeFile,
    EmptyDirVolumeSource,
    HostPathVolumeSource,
    KeyToPath,
    Pod,
    Secret,
    ServiceAccountTokenProjection,
    Volume,
    VolumeProjection,
)
from knarr.api.errors import APIError
from knarr.api.quantity import whole
from knarr.clock import Clock
from knarr.node import subpaths
from knarr.node.claimed_volumes import Claimed, ClaimedVolumes, give_to_group
from knarr.node.environment import ConfigurationError, Surroundings, expand_strictly
from knarr.node.fields import UnknownField, container_named, field_value, resource_value
from knarr.node.publication import PublishedFile, publish
from knarr.node.runtime import kernel
from knarr.node.runtime.contract import Mount
from knarr.node.volume_failure import VolumeFailure

DEFAULT_MODE = 0o644
_KIND_FOLDERS = {
    "empty_dir": "kubernetes.io~empty-dir",
    "config_map": "kubernetes.io~configmap",
    "secret": "kubernetes.io~secret",
    "projected": "kubernetes.io~projected",
    "downward_api": "kubernetes.io~downward-api",
}
"""As upstream names them: tools that look into pods' folders find what they expect."""
_IN_MEMORY = ("secret", "projected", "downward_api")

Token = Callable[[Pod, ServiceAccountTokenProjection], Awaitable[str]]


class Volumes(Protocol):
    """What a pod's worker needs of volumes."""

    async def publish(self, pod: Pod, around: Surroundings) -> None:
        """Make all volumes, and bring the files of the API's objects up to date. Raises VolumeFailure."""

    async def mounts(self, pod: Pod, container: Container, variables: Mapping[str, str]) -> list[Mount]:
        """What a container mounts of them. Raises VolumeFailure, ConfigurationError."""

    async def remove(self, uid: str) -> None:
        """Remove the pod's folder with everything in it. Idempotent."""

    async def present(self) -> list[str]:
        """The uids of all pods that have a folder."""


def remove_all(root: Path) -> None:
    """Remove the folders of all pods below `root`: at the end of a cluster. Meant for a thread."""
    for folder in root.glob("*"):
        _remove(folder)


class HollowVolumes:
    """No volumes at all, for containers that don't run."""

    async def publish(self, pod: Pod, around: Surroundings) -> None:
        return None

    async def mounts(self, pod: Pod, container: Container, variables: Mapping[str, str]) -> list[Mount]:
        return []

    async def remove(self, uid: str) -> None:
        return None

    async def present(self) -> list[str]:
        return []


class HostVolumes:
    """Volumes below the node's folder."""

    def __init__(self, root: Path, clock: Clock, token: Token, claimed: ClaimedVolumes) -> None:
        self._root = root
        self._claimed = claimed
        self._given: set[tuple[str, str]] = set()
        """Pods (by uid) and their volumes that are their group's already."""
        self._clock = clock
        self._token = token
        self._stamps = 0
        self._locks: dict[str, asyncio.Lock] = {}

    async def publish(self, pod: Pod, around: Surroundings) -> None:
        assert pod.spec
        async with self._locks.setdefault(pod.metadata.uid or "", asyncio.Lock()):
            results = await asyncio.gather(
                *(self._publish(pod, volume, around) for volume in pod.spec.volumes), return_exceptions=True
            )
        for volume, result in zip(pod.spec.volumes, results, strict=True):
            if isinstance(result, (VolumeFailure, asyncio.CancelledError)):
                raise result
            if isinstance(result, (APIError, ConfigurationError, UnknownField, OSError, ValueError)):
                raise VolumeFailure(volume.name, str(result)) from result
            if isinstance(result, BaseException):
                raise result

    async def mounts(self, pod: Pod, container: Container, variables: Mapping[str, str]) -> list[Mount]:
        assert pod.spec
        volumes = {volume.name: volume for volume in pod.spec.volumes}
        mounts = []
        for number, wanted in enumerate(container.volume_mounts):
            volume = volumes[wanted.name]
            claimed = await self._claimed.of(pod, volume) if _is_claimed(volume) else None
            path = claimed.path if claimed else self._path(pod, volume)
            sub_path = wanted.sub_path or expand_strictly(wanted.sub_path_expr or "", variables)
            if sub_path:
                folder = self._pod(pod) / "volume-subpaths" / volume.name / container.name
                target = str(folder / str(number))
                try:
                    await asyncio.to_thread(subpaths.bind, path, sub_path, target)
                except (subpaths.Escape, OSError) as error:
                    message = f'failed to prepare subPath for volumeMount "{wanted.name}" of container'
                    raise ConfigurationError(f'{message} "{container.name}": {error}') from error
                path = target
            published = _kind(volume) in ("config_map", "secret", "projected", "downward_api")
            read_only = bool(wanted.read_only) or published or (claimed is not None and claimed.read_only)
            mounts.append(Mount(path, wanted.mount_path, read_only=read_only))
        return mounts

    async def remove(self, uid: str) -> None:
        await asyncio.to_thread(_remove, self._root / uid)
        self._locks.pop(uid, None)
        self._claimed.forget(uid)
        self._given = {each for each in self._given if each[0] != uid}

    async def present(self) -> list[str]:
        return await asyncio.to_thread(lambda: [folder.name for folder in self._root.glob("*")])

    # -- one volume

    async def _publish(self, pod: Pod, volume: Volume, around: Surroundings) -> None:
        kind = _kind(volume)
        if kind == "host_path":
            assert volume.host_path is not None
            await asyncio.to_thread(_check_host_path, volume.name, volume.host_path)
            return
        if _is_claimed(volume):
            await self._publish_claimed(pod, volume, await self._claimed.of(pod, volume))
            return
        if kind not in _KIND_FOLDERS:
            shown = type(volume).__struct_encode_fields__[type(volume).__struct_fields__.index(kind)]
            raise VolumeFailure(volume.name, f'volumes of kind "{shown}" are not served by this node')
        path = self._path(pod, volume)
        security = pod.spec.security_context if pod.spec else None
        group = security.fs_group if security else None
        if volume.empty_dir is not None:
            await asyncio.to_thread(_make_empty, path, volume.empty_dir, group)
            return
        files = await self._files(pod, volume, around)
        self._stamps += 1
        stamp = f"{self._clock.time_s():.6f}_{self._stamps}".replace(".", "_")
        await asyncio.to_thread(_publish_files, path, files, stamp, group, kind in _IN_MEMORY)

    async def _publish_claimed(self, pod: Pod, volume: Volume, claimed: Claimed) -> None:
        if claimed.host_path is not None:
            await asyncio.to_thread(_check_host_path, volume.name, claimed.host_path)
            return
        security = pod.spec.security_context if pod.spec else None
        key = pod.metadata.uid or "", volume.name
        if security is None or security.fs_group is None or claimed.read_only or key in self._given:
            return
        await asyncio.to_thread(give_to_group, claimed.path, security.fs_group, security.fs_group_change_policy)
        self._given.add(key)

    async def _files(self, pod: Pod, volume: Volume, around: Surroundings) -> dict[str, PublishedFile]:
        if volume.config_map is not None:
            of_map = volume.config_map
            config_map = around.config_map(of_map.name or "")
            return _config_map_files(
                pod, of_map.name, config_map, of_map.items, of_map.optional, _mode(of_map.default_mode)
            )
        if volume.secret is not None:
            of_secret = volume.secret
            secret = around.secret(of_secret.secret_name or "")
            mode = _mode(of_secret.default_mode)
            return _secret_files(pod, of_secret.secret_name, secret, of_secret.items, of_secret.optional, mode)
        if volume.downward_api is not None:
            mode = _mode(volume.downward_api.default_mode)
            return _downward_files(pod, volume.downward_api.items, mode, around)
        assert volume.projected is not None
        files: dict[str, PublishedFile] = {}
        for source in volume.projected.sources:
            mode = _mode(volume.projected.default_mode)
            files.update(await self._projected(pod, source, mode, around))
        return files

    async def _projected(
        self, pod: Pod, source: VolumeProjection, mode: int, around: Surroundings
    ) -> dict[str, PublishedFile]:
        if source.config_map is not None:
            of_map = source.config_map
            config_map = around.config_map(of_map.name or "")
            return _config_map_files(pod, of_map.name, config_map, of_map.items, of_map.optional, mode)
        if source.secret is not None:
            of_secret = source.secret
            secret = around.secret(of_secret.name or "")
            return _secret_files(pod, of_secret.name, secret, of_secret.items, of_secret.optional, mode)
        if source.downward_api is not None:
            return _downward_files(pod, source.downward_api.items, mode, around)
        if source.service_account_token is not None:
            wanted = source.service_account_token
            user, token_mode = _token_owner(pod, mode)
            text = await self._token(pod, wanted)
            return {wanted.path: PublishedFile(text.encode(), token_mode, user)}
        raise ConfigurationError("clusterTrustBundle and podCertificate are not served by this node")

    def _pod(self, pod: Pod) -> Path:
        return self._root / (pod.metadata.uid or "")

    def _path(self, pod: Pod, volume: Volume) -> str:
        if volume.host_path is not None:
            return volume.host_path.path
        return str(self._pod(pod) / "volumes" / _KIND_FOLDERS[_kind(volume)] / volume.name)


def _kind(volume: Volume) -> str:
    """The one source that is given; without any it is an emptyDir."""
    for name in volume.__struct_fields__:
        if name != "name" and getattr(volume, name) is not None:
            return name
    return "empty_dir"


def _is_claimed(volume: Volume) -> bool:
    return volume.persistent_volume_claim is not None or volume.ephemeral is not None


def _mode(given: int | None) -> int:
    """0 is a mode, too: nobody but root may read."""
    return DEFAULT_MODE if given is None else given


def _config_map_files(
    pod: Pod,
    name: str | None,
    found: ConfigMap | None,
    items: Sequence[KeyToPath],
    optional: bool | None,
    mode: int,
) -> dict[str, PublishedFile]:
    if found is None:
        if optional:
            return {}
        raise ConfigurationError(f'configmap "{name}" not found')
    data = {**{key: value.encode() for key, value in found.data.items()}, **found.binary_data}
    return _chosen(f"{pod.metadata.namespace}/{name}", data, items, optional, mode)


def _secret_files(
    pod: Pod, name: str | None, found: Secret | None, items: Sequence[KeyToPath], optional: bool | None, mode: int
) -> dict[str, PublishedFile]:
    if found is None:
        if optional:
            return {}
        raise ConfigurationError(f'secret "{name}" not found')
    return _chosen(f"{pod.metadata.namespace}/{name}", found.data, items, optional, mode)


def _chosen(
    name: str, data: Mapping[str, bytes], items: Sequence[KeyToPath], optional: bool | None, mode: int
) -> dict[str, PublishedFile]:
    """All keys under their names, or those asked for under the paths that are asked for."""
    if not items:
        return {key: PublishedFile(value, mode) for key, value in data.items()}
    files = {}
    for item in items:
        if item.key in data:
            files[item.path] = PublishedFile(data[item.key], item.mode if item.mode is not None else mode)
        elif not optional:
            raise ConfigurationError(f"references non-existent config key: {item.key} ({name})")
    return files


def _downward_files(
    pod: Pod, items: Sequence[DownwardAPIVolumeFile], mode: int, around: Surroundings
) -> dict[str, PublishedFile]:
    files = {}
    for item in items:
        if item.field_ref is not None:
            value = field_value(pod, item.field_ref.field_path, pod_ips=around.pod_ips, host_ips=around.host_ips)
        else:
            assert item.resource_field_ref is not None
            container = container_named(pod, item.resource_field_ref.container_name or "")
            value = resource_value(pod, item.resource_field_ref, container, around.allocatable)
        files[item.path] = PublishedFile(value.encode(), item.mode if item.mode is not None else mode)
    return files


def _token_owner(pod: Pod, mode: int) -> tuple[int | None, int]:
    """A token is for its user alone (and the pod's group) where all containers run as the same one, as upstream."""
    spec = pod.spec
    assert spec
    default = spec.security_context.run_as_user if spec.security_context else None
    users = set()
    for container in (*spec.init_containers, *spec.containers):
        own = container.security_context.run_as_user if container.security_context else None
        users.add(own if own is not None else default)
    grouped = spec.security_context is not None and spec.security_context.fs_group is not None
    user = users.pop() if len(users) == 1 else None
    return user, 0o600 if grouped or user is not None else mode


# -- in threads


def _publish_files(
    path: str, files: Mapping[str, PublishedFile], stamp: str, group: int | None, in_memory: bool
) -> None:
    _make_folder(path, in_memory=in_memory, options="")
    publish(path, files, stamp, group)


def _make_empty(path: str, source: EmptyDirVolumeSource, group: int | None) -> None:
    in_memory = source.medium == "Memory"
    limit = whole(source.size_limit) if source.size_limit is not None else 0
    if not _make_folder(path, in_memory=in_memory, options=f"size={limit}" if limit else ""):
        return
    # After the mount, so that it is the mounted folder's mode and group.
    if group is not None:
        os.chown(path, -1, group)
    os.chmod(path, 0o2777 if group is not None else 0o777)


def _make_folder(path: str, *, in_memory: bool, options: str) -> bool:
    """False when it is there already."""
    if os.path.isdir(path) and (not in_memory or os.geteuid() or os.path.ismount(path)):
        return False
    os.makedirs(path, mode=0o755, exist_ok=True)
    if in_memory and os.geteuid() == 0:
        kernel.mount("tmpfs", path, "tmpfs", 0, options)
        os.chmod(path, 0o755)
    return True


def _check_host_path(name: str, source: HostPathVolumeSource) -> None:
    kind, path = source.type or "", source.path
    if kind == "DirectoryOrCreate" and not os.path.exists(path):
        os.makedirs(path, mode=0o755, exist_ok=True)
    elif kind == "FileOrCreate" and not os.path.exists(path):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
    expected: dict[str, tuple[Callable[[int], Any], str]] = {
        "Directory": (stat.S_ISDIR, "a directory"),
        "DirectoryOrCreate": (stat.S_ISDIR, "a directory"),
        "File": (stat.S_ISREG, "a file"),
        "FileOrCreate": (stat.S_ISREG, "a file"),
        "Socket": (stat.S_ISSOCK, "a socket file"),
        "CharDevice": (stat.S_ISCHR, "a character device"),
        "BlockDevice": (stat.S_ISBLK, "a block device"),
    }
    if kind in expected:
        is_kind, called = expected[kind]
        if not os.path.exists(path) or not is_kind(os.stat(path).st_mode):
            raise VolumeFailure(name, f"hostPath type check failed: {path} is not {called}")
    elif not os.path.lexists(path):
        # As container runtimes do for hostPath without a type.
        os.makedirs(path, mode=0o755, exist_ok=True)


def _remove(folder: Path) -> None:
    if not folder.is_dir():
        return
    subpaths.release_all(str(folder / "volume-subpaths"))
    for volume in folder.glob("volumes/*/*"):
        if os.path.ismount(volume):
            kernel.unmount(str(volume))
    # A hostPath is never below this folder, and binds are gone: only the pod's own files are removed.
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)
