"""A volume has one claim, and keeps it; what is in use stays; nobody loses data while their claim lives.

That no folder is removed under a claim is checked where folders are (tests.simulate.outside).
"""

from __future__ import annotations

from typing import Any

from knarr.api.apps.v1 import StatefulSet
from knarr.api.core.v1 import PersistentVolume, PersistentVolumeClaim, Pod
from tests.simulate.objects import is_going, is_terminal, node_name, ordinals, owner_uid
from tests.simulate.rules.rule import Broken, Rule
from tests.simulate.world import Change

BOUND = "pv.kubernetes.io/bind-completed"


class Volumes(Rule):
    kinds = (PersistentVolume, PersistentVolumeClaim)

    def check(self, change: Change) -> None:
        if change.kind is PersistentVolume:
            self._volume(change)
        elif change.new is None:
            self._claim_gone(change.old, change)
        else:
            self._claim(change)

    def _volume(self, change: Change) -> None:
        old, new = change.old, change.new
        if old is None:
            return
        if new is not None and new.status.phase == "Released" and old.status.phase != "Released":
            self._released(new)
        claim = self._claim_of(old)
        if claim is None:
            return
        if new is None:
            raise Broken(f"it is gone, and its claim {claim.metadata.name} lives")
        reference = new.spec.claim_ref
        if reference is None or reference.uid != claim.metadata.uid:
            raise Broken(f"it is taken from its claim {claim.metadata.name}")

    def _released(self, volume: Any) -> None:
        """Asked of the server: caches don't count here."""
        reference = volume.spec.claim_ref
        claim = self.state.by_uid.get(reference.uid) if reference is not None else None
        if claim is not None and claim.spec.volume_name in (None, "", volume.metadata.name):
            raise Broken(f"released, and its claim {claim.metadata.name} lives")

    def _claim_of(self, volume: Any) -> Any | None:
        """The claim that lives, and that both say is the volume's."""
        reference = volume.spec.claim_ref
        claim = self.state.by_uid.get(reference.uid) if reference is not None else None
        return claim if claim is not None and claim.spec.volume_name == volume.metadata.name else None

    def _claim(self, change: Change) -> None:
        old, claim = change.old, change.new
        name = claim.spec.volume_name
        if old is not None and old.spec.volume_name and old.spec.volume_name != name:
            raise Broken(f"bound to {name}, and to {old.spec.volume_name} before")
        if BOUND not in claim.metadata.annotations or (old is not None and BOUND in old.metadata.annotations):
            return
        volume = self.state.get(PersistentVolume, name)
        known = self.past.known(volume, change.now_s) if volume is not None else ()
        if volume is not None and not any(
            each.spec.claim_ref is not None and each.spec.claim_ref.uid == claim.metadata.uid for each in known
        ):
            raise Broken(f"bound to {name}, which is not its own")
        for other in self.state.all(PersistentVolumeClaim):
            bound = BOUND in other.metadata.annotations and other.spec.volume_name == name
            if bound and other.metadata.uid != claim.metadata.uid:
                raise Broken(f"bound to {name}, as {other.metadata.name} is")

    def _claim_gone(self, claim: Any, change: Change) -> None:
        """Asked of the server too. A pod may come to its node just as its claim is let go: kubelet refuses it then."""
        for pod in self.state.all(Pod, claim.metadata.namespace):
            if not uses(pod, claim) or is_terminal(pod) or not node_name(pod):
                continue
            since_s = max(
                (ended_s for ended_s, each in self.past.versions[pod.metadata.uid or ""] if not node_name(each)),
                default=self.past.made_s[pod.metadata.uid or ""],
            )
            if change.now_s - since_s > self.past.way_s:
                raise Broken(f"it is gone, and {pod.metadata.name} uses it")


class Retention(Rule):
    """The claims of a StatefulSet go only with what they were made for, and only where that is asked."""

    kinds = (PersistentVolumeClaim,)

    def check(self, change: Change) -> None:
        old, new = change.old, change.new
        if change.part != "garbage-collector-controller" or old is None or is_going(old):
            return
        if not (new is None or is_going(new)) or not old.metadata.name.startswith("data-"):
            return
        _, set_name, ordinal = old.metadata.name.rsplit("-", 2)
        stateful_set = self.state.get(StatefulSet, f"{old.metadata.namespace}/{set_name}")
        if stateful_set is None or is_going(stateful_set):
            return
        sets = {each.uid for each in old.metadata.owner_references if each.kind == "StatefulSet"}
        if sets - {stateful_set.metadata.uid}:
            return  # made for the set of that name before, and went with it
        known = list(self.past.known(stateful_set, change.now_s))
        if all(each.spec.persistent_volume_claim_retention_policy.when_scaled != "Delete" for each in known):
            raise Broken("collected, though it was to be retained")
        if all(int(ordinal) in ordinals(each) for each in known) and self._is_old(stateful_set, change):
            raise Broken(f"collected, though {set_name} still has that ordinal")

    def _is_old(self, stateful_set: Any, change: Change) -> bool:
        """A set that took the place of another may find that one's claims on their way out."""
        return self.past.known_to_all(stateful_set, change.now_s)


def uses(pod: Pod, claim: Any) -> bool:
    for volume in pod.spec.volumes if pod.spec else ():
        if volume.persistent_volume_claim and volume.persistent_volume_claim.claim_name == claim.metadata.name:
            return True
        if volume.ephemeral and owner_uid(claim) == pod.metadata.uid:
            return f"{pod.metadata.name}-{volume.name}" == claim.metadata.name
    return False
