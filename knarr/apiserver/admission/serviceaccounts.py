"""ServiceAccount: a pod runs as a service account, and finds its token, the cluster's CA and its namespace mounted."""

from __future__ import annotations

from knarr.api.core.v1 import (
    ConfigMapProjection,
    DownwardAPIProjection,
    DownwardAPIVolumeFile,
    KeyToPath,
    ObjectFieldSelector,
    Pod,
    PodSpec,
    ProjectedVolumeSource,
    ServiceAccount,
    ServiceAccountTokenProjection,
    Volume,
    VolumeMount,
    VolumeProjection,
)
from knarr.api.decode import decoder
from knarr.api.errors import Forbidden
from knarr.apiserver.admission import Attributes, Plugin
from knarr.clock import Clock
from knarr.store.contract import Record, Store, StoreFailure

MOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
TOKEN_LIFETIME_S = 3607
"""Upstream's: the odd seconds mark tokens that this plugin asked for."""
DEFAULT_ACCOUNT_WAIT_S = 1.0
"""About as long as upstream tries again."""
NAME_CHARACTERS = "bcdfghjklmnpqrstvwxz2456789"


class ServiceAccountAdmission(Plugin):
    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def mutate(self, attributes: Attributes) -> None:
        if attributes.resource.kind != "Pod" or attributes.operation != "CREATE" or attributes.subresource:
            return
        pod: Pod = attributes.obj
        spec = pod.spec
        if spec is None or "kubernetes.io/config.mirror" in pod.metadata.annotations:
            return
        spec.service_account_name = spec.service_account_name or spec.service_account or "default"
        spec.service_account = spec.service_account_name
        account = await self._account(attributes, pod, spec.service_account_name)
        if not spec.image_pull_secrets:
            spec.image_pull_secrets = list(account.image_pull_secrets)
        wanted = spec.automount_service_account_token
        if wanted is None:
            wanted = account.automount_service_account_token
        if wanted is not False:
            self._mount(spec)

    async def _account(self, attributes: Attributes, pod: Pod, name: str) -> ServiceAccount:
        key = f"serviceaccounts/{attributes.namespace}/{name}"
        record = await self._store.get(key)
        if record is None and name == "default":
            record = await self._awaited(key)
        if record is None:
            if await self._store.get(f"namespaces//{attributes.namespace}") is None:
                # NamespaceLifecycle has the better answer.
                return ServiceAccount()
            raise Forbidden(
                f'pods "{pod.metadata.name}" is forbidden: error looking up service account '
                f'{attributes.namespace}/{name}: serviceaccount "{name}" not found',
                kind="pods",
                name=pod.metadata.name or "",
            )
        account: ServiceAccount = decoder(ServiceAccount).decode(record.value)
        return account

    async def _awaited(self, key: str) -> Record | None:
        """The default account of a namespace that is new: a loop makes it, so it is waited for a little."""
        async with self._store.watch(key, after=self._store.revision) as watch:
            try:
                async with self._clock.timeout(DEFAULT_ACCOUNT_WAIT_S):
                    while (record := await self._store.get(key)) is None:
                        await watch.next()
            except (TimeoutError, StoreFailure):
                return None
            return record

    def _mount(self, spec: PodSpec) -> None:
        volume_name = ""
        for container in (*spec.init_containers, *spec.containers):
            if any(mount.mount_path == MOUNT_PATH for mount in container.volume_mounts):
                continue
            volume_name = volume_name or self._volume(spec)
            container.volume_mounts.append(VolumeMount(name=volume_name, mount_path=MOUNT_PATH, read_only=True))

    def _volume(self, spec: PodSpec) -> str:
        chance = self._clock.random
        name = "kube-api-access-" + "".join(chance.choice(NAME_CHARACTERS) for _ in range(5))
        namespace = DownwardAPIVolumeFile(
            path="namespace", field_ref=ObjectFieldSelector(api_version="v1", field_path="metadata.namespace")
        )
        sources = [
            VolumeProjection(
                service_account_token=ServiceAccountTokenProjection(expiration_seconds=TOKEN_LIFETIME_S, path="token")
            ),
            VolumeProjection(
                config_map=ConfigMapProjection(name="kube-root-ca.crt", items=[KeyToPath(key="ca.crt", path="ca.crt")])
            ),
            VolumeProjection(downward_api=DownwardAPIProjection(items=[namespace])),
        ]
        spec.volumes.append(Volume(name=name, projected=ProjectedVolumeSource(default_mode=0o644, sources=sources)))
        return name
