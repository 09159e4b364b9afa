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
from knarr.apiserver.admission import Attributes, Plugin
from knarr.clock import Clock
from knarr.store.contract import Record, Store, StoreFailure

MOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
TOKEN_LIFETIME_S = 3607
"""Upstream's: the odd seconds mark tokens that this plugin asked for."""
DEFAULT_ACCOUNT_WAIT_S = 10.0
"""Upstream tries again for about a second; the loop that makes the account may need longer on a busy machine."""
MIRROR = "kubernetes.io/config.mirror"
"""On what a node shows of the pods that it runs by itself."""
ENFORCE_MOUNTABLE = "kubernetes.io/enforce-mountable-secrets"
GO_TRUE = ("1", "t", "T", "true", "TRUE", "True")
"""What strconv.ParseBool takes for true."""
NAME_CHARACTERS = "bcdfghjklmnpqrstvwxz2456789"


class ServiceAccountAdmission(Plugin):
    name = "ServiceAccount"
    kinds = (Pod,)
    operations = ("CREATE",)
    subresources = ("",)

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def mutate(self, attributes: Attributes) -> None:
        pod: Pod = attributes.obj
        spec = pod.spec
        if spec is None:
            return
        if MIRROR in pod.metadata.annotations:
            _check_mirror(attributes, spec)
            return
        spec.service_account_name = spec.service_account_name or spec.service_account or "default"
        spec.service_account = spec.service_account_name
        account = await self._account(attributes, spec.service_account_name)
        if account.metadata.annotations.get(ENFORCE_MOUNTABLE) in GO_TRUE:
            _check_secrets(attributes, spec, account)
        if not spec.image_pull_secrets:
            spec.image_pull_secrets = list(account.image_pull_secrets)
        wanted = spec.automount_service_account_token
        if wanted is None:
            wanted = account.automount_service_account_token
        if wanted is not False:
            self._mount(spec)

    async def _account(self, attributes: Attributes, name: str) -> ServiceAccount:
        key = f"serviceaccounts/{attributes.namespace}/{name}"
        record = await self._store.get(key)
        if record is None and name == "default":
            record = await self._awaited(key)
        if record is None:
            about = f'error looking up service account {attributes.namespace}/{name}: serviceaccount "{name}" not found'
            raise attributes.refused(about, named=False)
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


def _check_mirror(attributes: Attributes, spec: PodSpec) -> None:
    """A pod that the API server doesn't start can't be given what the API server keeps."""
    if spec.service_account_name:
        raise attributes.refused("a mirror pod may not reference service accounts")
    for volume in spec.volumes:
        if volume.secret:
            raise attributes.refused("a mirror pod may not reference secrets")
        for source in volume.projected.sources if volume.projected else ():
            if source.service_account_token:
                raise attributes.refused("a mirror pod may not use ServiceAccountToken volume projections")


def _check_secrets(attributes: Attributes, spec: PodSpec, account: ServiceAccount) -> None:
    """An account may be limited to the secrets that it lists."""
    owner = f"because service account {account.metadata.name} does not reference that"
    mountable = {each.name for each in account.secrets}
    for volume in spec.volumes:
        if volume.secret and volume.secret.secret_name not in mountable:
            name = volume.secret.secret_name
            raise attributes.refused(
                f'volume with secret.secretName="{name}" is not allowed {owner} secret', named=False
            )
    listed = (("init container", spec.init_containers), ("container", spec.containers))
    for what, containers in listed:
        for container in containers:
            for variable in container.env:
                source = variable.value_from.secret_key_ref if variable.value_from else None
                if source and source.name not in mountable:
                    about = f"{what} {container.name} with envVar {variable.name} referencing "
                    about += f'secret.secretName="{source.name}" is not allowed {owner} secret'
                    raise attributes.refused(about, named=False)
            for origin in container.env_from:
                if origin.secret_ref and origin.secret_ref.name not in mountable:
                    about = f'{what} {container.name} with envFrom referencing secret.secretName="'
                    about += f'{origin.secret_ref.name}" is not allowed {owner} secret'
                    raise attributes.refused(about, named=False)
    pulling = {each.name for each in account.image_pull_secrets}
    for index, reference in enumerate(spec.image_pull_secrets):
        if reference.name not in pulling:
            about = f'imagePullSecrets[{index}].name="{reference.name}" is not allowed {owner} imagePullSecret'
            raise attributes.refused(about, named=False)
