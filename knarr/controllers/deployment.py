"""Deployments: bring the pods of an application from one template to the next, without a gap.

Each template is a ReplicaSet. A new template gets a new ReplicaSet that grows while the old ones shrink
(RollingUpdate), or that starts when the old pods are gone (Recreate). `rolling` holds the arithmetic, `progress` what
is reported, `revisions` the history; this file is the order of things.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from knarr.api.apps.v1 import Deployment, DeploymentStatus, ReplicaSet
from knarr.api.core.pod_state import is_terminal
from knarr.api.core.v1 import Pod
from knarr.api.errors import AlreadyExists, APIError, NotFound
from knarr.api.meta.owners import controller_of, selector_for, selects_everything
from knarr.api.types import replace
from knarr.client.controller import Controller, is_namespace_terminating
from knarr.client.informer import key_of
from knarr.controllers.ownership import claim, orphans, owner_index, owner_keys
from knarr.controllers.progress import (
    PAUSED,
    PROGRESSING,
    TIMED_OUT,
    condition_of,
    has_deadline,
    is_complete,
    is_unnoted,
    next_check_s,
    rollout_status_of,
    status_of,
    with_condition,
)
from knarr.controllers.revisions import (
    REVISION,
    expendable,
    find_new,
    make_new,
    next_revision,
    renewed,
    revision_of,
    same_template,
)
from knarr.controllers.rolling import (
    Scale,
    is_rolling,
    is_scaling,
    replicas_of,
    scale_all,
    scale_new,
    scale_old,
    size_annotations,
    wanted,
)


class Rollout(Struct):
    """A Deployment and its ReplicaSets, as this reconcile has left them so far."""

    deployment: Deployment
    new: ReplicaSet | None
    old: list[ReplicaSet]

    def put(self, replica_set: ReplicaSet) -> None:
        """A ReplicaSet as the server has answered it."""
        if self.new and self.new.metadata.uid == replica_set.metadata.uid:
            self.new = replica_set
        self.old = [replica_set if rs.metadata.uid == replica_set.metadata.uid else rs for rs in self.old]


class Deployments(Controller):
    """apps/v1 Deployment."""

    name = "deployment-controller"
    min_interval_s = 0.01

    def watch(self) -> None:
        self.deployments = self.informer(Deployment)
        self.replica_sets = self.informer(ReplicaSet)
        self.replica_sets.add_index("owner", owner_index)
        self.pods = self.informer(Pod)
        self.pods.add_index("owner", owner_index)
        self.on(self.deployments, key_of)
        self.on(self.replica_sets, owner_keys(self.deployments))
        self.on_change(self.pods, self._keys_of_ended_pod)

    async def reconcile(self, key: str) -> float | None:
        deployment = self.deployments.get(key)
        if deployment is None or deployment.spec is None:
            return None
        if selects_everything(deployment.spec.selector):
            await self._refuse(deployment)
            return None

        uid, namespace = deployment.metadata.uid or "", deployment.metadata.namespace or ""
        owned = self.replica_sets.by_index("owner", uid)
        loose = self.replica_sets.by_index("owner", orphans(namespace))
        selector = selector_for(deployment.spec.selector)
        replica_sets = await claim(self.client, deployment, selector, owned, loose)

        if deployment.metadata.deletion_timestamp is not None:
            rollout = await self._rollout(deployment, replica_sets)
            return await self._report(rollout, self._status(rollout))
        deployment = await self._note_pause(deployment)
        if deployment.spec.paused or is_scaling(deployment, replica_sets):  # type: ignore[union-attr]
            return await self._resize(await self._rollout(deployment, replica_sets))
        if is_rolling(deployment):
            return await self._roll(await self._rollout(deployment, replica_sets, create=True))
        return await self._recreate(deployment, replica_sets)

    # The three ways

    async def _resize(self, rollout: Rollout) -> float | None:
        """Only sizes change: spec.replicas was changed, or the rollout is paused."""
        for scale in scale_all(rollout.deployment, rollout.new, rollout.old):
            await self._scale(rollout, scale)
        assert rollout.deployment.spec is not None
        if rollout.deployment.spec.paused:
            await self._clean_up(rollout)
        return await self._report(rollout, self._status(rollout))

    async def _roll(self, rollout: Rollout) -> float | None:
        """RollingUpdate: the new one up first, then the old ones down, a step at a time."""
        assert rollout.new is not None
        up = scale_new(rollout.deployment, rollout.new, rollout.old)
        if up:
            await self._scale(rollout, up)
            return await self._report_rollout(rollout)
        down = scale_old(rollout.deployment, rollout.new, [rs for rs in rollout.old if replicas_of(rs)])
        for scale in down:
            await self._scale(rollout, scale)
        if not down and is_complete(rollout.deployment, rollout.deployment.status or DeploymentStatus()):
            await self._clean_up(rollout)
        return await self._report_rollout(rollout)

    async def _recreate(self, deployment: Deployment, replica_sets: list[ReplicaSet]) -> float | None:
        """Recreate: all old ones down, wait until no old pod runs, then the new one up."""
        rollout = await self._rollout(deployment, replica_sets)
        down = [Scale(replica_set, 0) for replica_set in rollout.old if replicas_of(replica_set)]
        for scale in down:
            await self._scale(rollout, scale)
        if down or self._old_pods_run(rollout):
            return await self._report_rollout(rollout)
        if rollout.new is None:
            rollout = await self._rollout(rollout.deployment, replica_sets, create=True)
        assert rollout.new is not None
        await self._scale(rollout, Scale(rollout.new, wanted(deployment)))
        if is_complete(rollout.deployment, rollout.deployment.status or DeploymentStatus()):
            await self._clean_up(rollout)
        return await self._report_rollout(rollout)

    # Their steps

    async def _rollout(
        self, deployment: Deployment, replica_sets: Sequence[ReplicaSet], *, create: bool = False
    ) -> Rollout:
        """Tell the new ReplicaSet from the old ones, and bring its annotations and the revision up to date."""
        new = find_new(deployment, replica_sets)
        old = [rs for rs in replica_sets if new is None or rs.metadata.uid != new.metadata.uid]
        rollout = Rollout(deployment, new, old)
        revision = next_revision(old)
        if new is not None:
            changed = renewed(deployment, new, revision)
            if changed != new:
                rollout.new = new = await self.client.update(changed)
            if changed == rollout.new and is_unnoted(deployment, new):
                await self._note_created(rollout, new)
            else:
                await self._note_revision(
                    rollout,
                    revision_of(new),
                    "FoundNewReplicaSet",
                    f'Found new replica set "{new.metadata.name}"',
                    only_without_progress=True,
                )
        elif create:
            await self._create_new(rollout, revision)
        return rollout

    async def _create_new(self, rollout: Rollout, revision: int) -> None:
        deployment = rollout.deployment
        wished = make_new(deployment, rollout.old, revision)
        name, size = wished.metadata.name or "", replicas_of(wished)
        try:
            new = await self.client.create(wished)
        except AlreadyExists:
            new = await self._existing(deployment, wished)
        except APIError as error:
            if not is_namespace_terminating(error):
                await self._note_create_error(deployment, f'Failed to create new replica set "{name}": {error}')
            raise
        else:
            if size:
                self._tell_scaled(deployment, name, 0, size)
        rollout.new = new
        await self._note_created(rollout, new)

    async def _note_created(self, rollout: Rollout, new: ReplicaSet) -> None:
        message = f'Created new replica set "{new.metadata.name}"'
        await self._note_revision(rollout, revision_of(new), "NewReplicaSetCreated", message)

    async def _existing(self, deployment: Deployment, wished: ReplicaSet) -> ReplicaSet:
        """The ReplicaSet that has the name already: ours that the cache didn't show, or a collision of the hash."""
        assert deployment.spec is not None
        there = await self.client.get(ReplicaSet, wished.metadata.name or "", wished.metadata.namespace)
        owner = controller_of(there)
        ours = owner is not None and owner.uid == deployment.metadata.uid
        template = there.spec.template if there.spec else None
        if ours and template and same_template(template, deployment.spec.template):
            return there
        status = deployment.status or DeploymentStatus()
        collisions = (status.collision_count or 0) + 1
        await self.client.update_status(replace(deployment, status=replace(status, collision_count=collisions)))
        self.log.info("%s: a hash collision, number %d", key_of(deployment), collisions)
        raise AlreadyExists(f"the hash of the template of {key_of(deployment)} collides; trying another")

    async def _note_create_error(self, deployment: Deployment, message: str) -> None:
        if has_deadline(deployment):
            status = deployment.status or DeploymentStatus()
            await self._write_status(
                deployment,
                with_condition(status, PROGRESSING, "False", "ReplicaSetCreateError", message, self.clock.time_s()),
            )
        self.events.warning(deployment, "ReplicaSetCreateError", message)

    async def _note_revision(
        self, rollout: Rollout, revision: int, reason: str, message: str, *, only_without_progress: bool = False
    ) -> None:
        """The revision onto the Deployment, and the beginning of progress into its status, in one write."""
        deployment = rollout.deployment
        status = deployment.status or DeploymentStatus()
        if has_deadline(deployment) and not (only_without_progress and condition_of(status, PROGRESSING)):
            status = with_condition(status, PROGRESSING, "True", reason, message, self.clock.time_s())
        annotations = deployment.metadata.annotations
        if annotations.get(REVISION) != str(revision):
            annotations = {**annotations, REVISION: str(revision)}
            deployment = replace(deployment, metadata=replace(deployment.metadata, annotations=annotations))
        rollout.deployment = await self._write_status(deployment, status, always=deployment is not rollout.deployment)

    async def _scale(self, rollout: Rollout, scale: Scale) -> None:
        """Size and size annotations of a ReplicaSet; an event when the size changes."""
        replica_set = scale.replica_set
        sizes = size_annotations(rollout.deployment)
        before = replicas_of(replica_set)
        if before == scale.replicas and sizes.items() <= replica_set.metadata.annotations.items():
            return
        assert replica_set.spec is not None
        annotations = {**replica_set.metadata.annotations, **sizes}
        answered = await self.client.update(
            replace(
                replica_set,
                metadata=replace(replica_set.metadata, annotations=annotations),
                spec=replace(replica_set.spec, replicas=scale.replicas),
            )
        )
        rollout.put(answered)
        if before != scale.replicas:
            self._tell_scaled(rollout.deployment, replica_set.metadata.name or "", before, scale.replicas)

    async def _clean_up(self, rollout: Rollout) -> None:
        for replica_set in expendable(rollout.deployment, rollout.old):
            try:
                await self.client.delete(ReplicaSet, replica_set.metadata.name or "", replica_set.metadata.namespace)
            except NotFound:
                pass

    async def _note_pause(self, deployment: Deployment) -> Deployment:
        """Pausing and resuming show in Progressing, so that the time paused doesn't count towards the deadline."""
        assert deployment.spec is not None
        status = deployment.status or DeploymentStatus()
        condition = condition_of(status, PROGRESSING)
        if not has_deadline(deployment) or (condition and condition.reason == TIMED_OUT):
            return deployment
        was_paused = condition is not None and condition.reason == PAUSED
        now_s = self.clock.time_s()
        if deployment.spec.paused and not was_paused:
            status = with_condition(status, PROGRESSING, "Unknown", PAUSED, "Deployment is paused", now_s)
        elif was_paused and not deployment.spec.paused:
            message = "Deployment is resumed"
            status = with_condition(status, PROGRESSING, "Unknown", "DeploymentResumed", message, now_s)
        return await self._write_status(deployment, status)

    # What is told

    def _status(self, rollout: Rollout) -> DeploymentStatus:
        return status_of(rollout.deployment, rollout.new, rollout.old, self.clock.time_s())

    async def _report_rollout(self, rollout: Rollout) -> float | None:
        status = rollout_status_of(rollout.deployment, rollout.new, rollout.old, self.clock.time_s())
        return await self._report(rollout, status)

    async def _report(self, rollout: Rollout, status: DeploymentStatus) -> float | None:
        await self._write_status(rollout.deployment, status)
        return next_check_s(rollout.deployment, status, self.clock.time_s())

    async def _write_status(
        self, deployment: Deployment, status: DeploymentStatus, *, always: bool = False
    ) -> Deployment:
        if not always and status == (deployment.status or DeploymentStatus()):
            return deployment
        return await self.client.update_status(replace(deployment, status=status))

    async def _refuse(self, deployment: Deployment) -> None:
        """A selector that takes in every pod of the namespace is a mistake."""
        self.events.warning(
            deployment,
            "SelectingAll",
            "This deployment is selecting all pods. A non-empty selector is required.",
        )
        status = deployment.status or DeploymentStatus()
        if (status.observed_generation or 0) < (deployment.metadata.generation or 0):
            generation = deployment.metadata.generation
            await self._write_status(deployment, replace(status, observed_generation=generation))

    def _tell_scaled(self, deployment: Deployment, name: str, before: int, after: int) -> None:
        direction = "up" if after > before else "down"
        self.events.normal(
            deployment, "ScalingReplicaSet", f"Scaled {direction} replica set {name} from {before} to {after}"
        )

    # What wakes it

    def _keys_of_ended_pod(self, old: Pod | None, new: Pod | None) -> str | None:
        """A Recreate waits for its last old pod to be gone."""
        if old is None or (new is not None and not is_terminal(new)):
            return None
        owner = controller_of(old)
        replica_set = self.replica_sets.get(f"{old.metadata.namespace}/{owner.name}") if owner else None
        reference = controller_of(replica_set) if replica_set else None
        key = f"{old.metadata.namespace}/{reference.name}" if reference else ""
        deployment = self.deployments.get(key)
        return key if deployment and deployment.spec and not is_rolling(deployment) else None

    def _old_pods_run(self, rollout: Rollout) -> bool:
        return any(rs.status and rs.status.replicas for rs in rollout.old) or any(
            not is_terminal(pod) for pod in self._pods_of(rollout.old)
        )

    def _pods_of(self, replica_sets: Iterable[ReplicaSet]) -> Iterable[Pod]:
        for replica_set in replica_sets:
            yield from self.pods.by_index("owner", replica_set.metadata.uid or "")
