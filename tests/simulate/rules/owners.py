"""Who owns what: metadata, collection, adoption."""

from __future__ import annotations

from typing import Any

from knarr.api.apps.v1 import ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet
from knarr.api.batch.v1 import Job
from knarr.api.core.v1 import PersistentVolumeClaim, Pod
from tests.simulate.objects import (
    is_going,
    is_pod_of_job,
    owner_uid,
    selects,
)
from tests.simulate.rules.rule import AT_ONCE_S, Broken, Past, Rule
from tests.simulate.world import Change, State

SELECTED = (Pod, ReplicaSet, ControllerRevision)
"""What is adopted by labels."""


class Metadata(Rule):
    """Revisions and generations rise; what is set once stays; nobody comes back from deletion."""

    def __init__(self, state: State, past: Past) -> None:
        super().__init__(state, past)
        self.revision = 0

    def check(self, change: Change) -> None:
        if change.revision < self.revision:
            raise Broken(f"revision {change.revision} after {self.revision}")
        self.revision = change.revision
        old, new = change.old, change.new
        if new is not None and new.metadata.resource_version != str(change.revision):
            raise Broken(f"resourceVersion {new.metadata.resource_version} at revision {change.revision}")
        if old is None or new is None:
            return
        before, after = old.metadata, new.metadata
        if before.uid != after.uid or before.creation_timestamp != after.creation_timestamp:
            raise Broken("uid or creationTimestamp changed")
        if (after.generation or 0) < (before.generation or 0):
            raise Broken(f"generation fell from {before.generation} to {after.generation}")
        if change.kind in (Deployment, ReplicaSet, StatefulSet, DaemonSet, Job):
            changed = old.spec != new.spec
            if changed and (after.generation or 0) == (before.generation or 0):
                raise Broken("spec changed, its generation did not")
        if before.deletion_timestamp is not None and after.deletion_timestamp is None:
            raise Broken("deletion was taken back")


class Collection(Rule):
    """Nothing is collected while an owner lives; who is orphaned outlives its owner."""

    def __init__(self, state: State, past: Past) -> None:
        super().__init__(state, past)
        self.let_go: set[tuple[str, str]] = set()
        """Whom the collector has let go of which owner, by their uids."""

    def check(self, change: Change) -> None:
        old, new = change.old, change.new
        if old is None:
            return
        if new is not None and change.part == "garbage-collector-controller":
            kept = {each.uid for each in new.metadata.owner_references}
            self.let_go |= {
                (new.metadata.uid, each.uid)
                for each in old.metadata.owner_references
                if each.uid not in kept and self._is_orphaning(each.uid)
            }
        marked = new is None or (is_going(new) and not is_going(old))
        if marked and change.part == "garbage-collector-controller" and not is_going(old):
            self._collected(old)
        if new is None and is_going(old) and change.part == "garbage-collector-controller":
            before = next((v for _, v in reversed(self.past.versions[old.metadata.uid]) if v is not old), None)
            if "orphan" in old.metadata.finalizers or (before and "orphan" in before.metadata.finalizers):
                self._orphaned(old, change)

    def _collected(self, obj: Any) -> None:
        references = obj.metadata.owner_references
        if not references:
            raise Broken(f"{obj.kind} {obj.metadata.name} has no owner, and was collected")
        for reference in references:
            # Who asks the server before it adopts comes too late for that only by a request's time on its way.
            if (obj.metadata.uid, reference.uid) in self.let_go and self.past.flight_s <= AT_ONCE_S:
                raise Broken(f"{obj.kind} {obj.metadata.name} was let go, taken back by the same owner, and collected")
            owner = self.state.by_uid.get(reference.uid)
            if owner is None or owner.metadata.namespace not in (None, obj.metadata.namespace):
                continue
            if not (is_going(owner) and "foregroundDeletion" in owner.metadata.finalizers):
                raise Broken(f"{obj.kind} {obj.metadata.name} was collected, its owner {owner.metadata.name} lives")

    def _is_orphaning(self, uid: str) -> bool:
        owner = self.state.by_uid.get(uid)
        return owner is not None and is_going(owner) and "orphan" in owner.metadata.finalizers

    def _orphaned(self, owner: Any, change: Change) -> None:
        for obj in list(self.state.by_uid.values()):
            if all(reference.uid != owner.metadata.uid for reference in obj.metadata.owner_references):
                continue
            versions = self.past.versions.get(obj.metadata.uid)
            first = versions[0][1] if versions else obj
            named_before = any(each.uid == owner.metadata.uid for each in first.metadata.owner_references)
            age_s = change.now_s - self.past.deleted_s(owner)
            if named_before and versions and versions[0][0] < change.now_s - age_s - self.past.slack_s:
                raise Broken(f"{owner.metadata.name} went before {obj.kind} {obj.metadata.name} was let go")


class Adoption(Rule):
    """Who is adopted gets a living owner that selects it, and no second one."""

    def check(self, change: Change) -> None:
        old, new = change.old, change.new
        if new is None or change.part in ("user", "garbage-collector-controller"):
            return
        uid = owner_uid(new)
        if not uid or (old is not None and owner_uid(old) == uid):
            return
        controllers = [each for each in new.metadata.owner_references if each.controller]
        if len(controllers) > 1:
            raise Broken("two controllers")
        gone_s = self.past.gone_s.get(uid)
        if old is not None and gone_s is not None and gone_s < change.now_s - self.past.flight_s:
            raise Broken(f"adopted by an owner that is gone for {change.now_s - gone_s:.1f} s")
        owner = self.state.by_uid.get(uid)
        # What is to go with a pod may be told so while the pod goes.
        if old is not None and owner is not None and is_going(owner) and change.kind is not PersistentVolumeClaim:
            going_s = change.now_s - self.past.deleted_s(owner)
            if going_s > self.past.flight_s:
                raise Broken(f"adopted by an owner that is on its way out for {going_s:.1f} s")
        if (
            owner is None
            or change.kind not in SELECTED
            or not getattr(owner.spec, "selector", None)
            or is_pod_of_job(new)
        ):
            return
        if not any(selects(version, new) for version in self.past.known(owner, change.now_s)):
            raise Broken(f"{owner.metadata.name} does not select it")
