"""Claims that ask for more than they have: who is to make their volume larger (KEP-284, KEP-1790).

Nothing is resized here: volumes are made larger by those who made them. This loop says that it waits for them.
"""

from __future__ import annotations

from knarr.api.core.v1 import PersistentVolume, PersistentVolumeClaim
from knarr.api.core.volume_matching import LOCAL, PROVISIONED_BY, asked, capacity, claim_spec, volume_spec
from knarr.client.controller import Controller
from knarr.client.informer import key_of


class VolumeExpansion(Controller):
    """Upstream's expand controller."""

    name = "volume_expand"
    needs = (PersistentVolume, PersistentVolumeClaim)

    def watch(self) -> None:
        self.claims = self.informer(PersistentVolumeClaim)
        self.volumes = self.informer(PersistentVolume)
        self.on_change(self.claims, _grown)

    async def reconcile(self, key: str) -> None:
        claim = self.claims.get(key)
        volume = self.volumes.get(claim_spec(claim).volume_name or "") if claim else None
        if claim is None or volume is None or asked(claim) <= capacity(volume):
            return
        if volume.metadata.annotations.get(PROVISIONED_BY) == LOCAL:
            return  # its node does it at once
        if volume_spec(volume).csi is not None:
            about = "waiting for an external controller to expand this PVC"
        else:
            about = (
                "didn't find a plugin capable of expanding the volume; waiting for an external controller to process "
                "this PVC"
            )
        self.events.normal(claim, "ExternalExpanding", about)


def _grown(old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None) -> str | None:
    if new is None or claim_spec(new).volume_name is None:
        return None
    return key_of(new) if old is None or asked(old) < asked(new) else None
