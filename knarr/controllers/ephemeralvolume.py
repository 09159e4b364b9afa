"""Generic ephemeral volumes (KEP-1698): a claim for each, made from the pod's template, owned by the pod."""

from __future__ import annotations

from collections.abc import Iterable

from knarr.api.core.pod_state import is_terminal
from knarr.api.core.v1 import PersistentVolumeClaim, Pod, Volume
from knarr.api.core.volume_matching import claims_of, is_made_for, not_made_for
from knarr.api.errors import APIError
from knarr.api.meta.owners import owner_reference
from knarr.api.meta.v1 import ObjectMeta
from knarr.client.controller import Controller
from knarr.client.informer import key_of


class EphemeralVolumes(Controller):
    """Upstream's ephemeral-volume-controller. The garbage collector removes the claims with their pods."""

    name = "ephemeral-volume-controller"
    needs = (PersistentVolumeClaim,)

    def watch(self) -> None:
        self.pods = self.informer(Pod)
        self.claims = self.informer(PersistentVolumeClaim)
        self.on(self.pods, lambda pod: key_of(pod) if _volumes(pod) else None)
        self.pods.add_index("claim", claims_of)
        self.on_change(self.claims, self._gone)

    def _gone(self, old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None) -> Iterable[str]:
        """A claim is gone: a pod that is to have one of this name gets its own."""
        if old is not None and new is None:
            for pod in self.pods.by_index("claim", key_of(old)):
                yield key_of(pod)

    async def reconcile(self, key: str) -> None:
        pod = self.pods.get(key)
        if pod is None or pod.metadata.deletion_timestamp is not None or is_terminal(pod):
            return
        for volume in _volumes(pod):
            name = f"{pod.metadata.name}-{volume.name}"
            found = self.claims.get(f"{pod.metadata.namespace}/{name}")
            if found is not None and is_made_for(found, pod):
                continue
            if found is not None:
                self._say(pod, volume, not_made_for(found, pod))  # Its end wakes the pod again.
                continue
            try:
                await self.client.create(claim_for(pod, volume))
            except APIError as error:
                self._say(pod, volume, f"create PVC {name}: {error}")
                raise

    def _say(self, pod: Pod, volume: Volume, why: str) -> None:
        self.events.warning(pod, "FailedBinding", f"ephemeral volume {volume.name}: {why}")


def claim_for(pod: Pod, volume: Volume) -> PersistentVolumeClaim:
    """The claim as it is to be created."""
    template = volume.ephemeral.volume_claim_template if volume.ephemeral else None
    assert template is not None
    asked = template.metadata or ObjectMeta()
    return PersistentVolumeClaim(
        metadata=ObjectMeta(
            name=f"{pod.metadata.name}-{volume.name}",
            namespace=pod.metadata.namespace,
            labels=asked.labels,
            annotations=asked.annotations,
            owner_references=[owner_reference(pod)],
        ),
        spec=template.spec,
    )


def _volumes(pod: Pod) -> list[Volume]:
    return [each for each in pod.spec.volumes if each.ephemeral] if pod.spec else []
