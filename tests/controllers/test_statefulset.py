"""StatefulSets in a whole cluster, in virtual time: order, updates, partitions, claims, what never happens twice."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from knarr.api.apps.v1 import ControllerRevision, StatefulSet, StatefulSetStatus
from knarr.api.core.pod_state import is_ready
from knarr.api.core.v1 import PersistentVolumeClaim, Pod
from knarr.api.errors import Conflict, NotFound
from knarr.client.client import MERGE_PATCH
from knarr.client.transport import Request
from knarr.controllers.history import History, template_of
from knarr.controllers.statefulset_pods import ordinal_of
from knarr.simulate.nodes import Faults
from tests.cluster import ADMINISTRATOR, Cluster, simulate

LABELS = {"app": "db"}


def stateful_set(name: str = "db", replicas: int = 3, image: str = "one", **spec: Any) -> StatefulSet:
    return msgspec.convert(
        {
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "replicas": replicas,
                "serviceName": name,
                "selector": {"matchLabels": LABELS},
                "template": {
                    "metadata": {"labels": LABELS},
                    "spec": {"containers": [{"name": "c", "image": image}]},
                },
                **spec,
            },
        },
        StatefulSet,
    )


def claim_template(name: str = "data") -> dict[str, Any]:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return {"metadata": {"name": name}, "spec": spec}


def names(cluster: Cluster) -> list[str]:
    return sorted(pod.metadata.name or "" for pod in cluster.pods.all())


def status(cluster: Cluster, name: str = "db") -> StatefulSetStatus:
    found = cluster.informers.of(StatefulSet).get(f"default/{name}")
    return (found.status if found else None) or StatefulSetStatus()


def images(cluster: Cluster) -> list[str]:
    pods = sorted(cluster.pods.all(), key=lambda pod: pod.metadata.name or "")
    return [pod.spec.containers[0].image or "" for pod in pods if pod.spec and not pod.metadata.deletion_timestamp]


def complete(cluster: Cluster, replicas: int = 3) -> bool:
    """As `kubectl rollout status` sees it."""
    found = status(cluster)
    return found.ready_replicas == found.updated_replicas == replicas and (
        found.current_revision == found.update_revision
    )


async def change(cluster: Cluster, **spec: Any) -> None:
    await cluster.patch(StatefulSet, "db", {"spec": spec})


def of_image(image: str) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "c", "image": image}]}}


async def births(cluster: Cluster) -> list[str]:
    """What was done to pods, in order."""
    found = []
    for reason in ("SuccessfulCreate", "SuccessfulDelete"):
        found += await cluster.events(reason)
    return found


class Watchers:
    """Every state that the pods go through, looked at by one rule."""

    def __init__(self, cluster: Cluster) -> None:
        self.ready: list[int] = []
        self.broken: list[str] = []
        self._pods = cluster.pods
        cluster.pods.add_handler(self._look)

    def _look(self, old: Pod | None, new: Pod | None) -> None:
        pods = self._pods.all()
        self.ready.append(sum(is_ready(pod) and not pod.metadata.deletion_timestamp for pod in pods))
        if old is None and new is not None:
            ordinal = ordinal_of(stateful_set(), new.metadata.name)
            before = {ordinal_of(stateful_set(), pod.metadata.name): pod for pod in pods}
            late = [n for n in range(ordinal or 0) if n not in before or not is_ready(before[n])]
            if late:
                self.broken.append(f"{new.metadata.name} before {late}")


def test_pods_start_one_after_the_other_each_when_those_before_are_ready() -> None:
    async def scenario(cluster: Cluster) -> None:
        watchers = Watchers(cluster)
        await cluster.create(stateful_set())
        await cluster.until(lambda: complete(cluster))
        assert names(cluster) == ["db-0", "db-1", "db-2"]
        assert not watchers.broken
        assert await births(cluster) == [f"create Pod db-{n} in StatefulSet db successful" for n in range(3)]
        pod = cluster.pods.get("default/db-1")
        assert pod
        assert pod.spec
        assert (pod.spec.hostname, pod.spec.subdomain) == ("db-1", "db")
        revision = status(cluster).update_revision
        assert pod.metadata.labels == {
            **LABELS,
            "statefulset.kubernetes.io/pod-name": "db-1",
            "apps.kubernetes.io/pod-index": "1",
            "controller-revision-hash": revision,
        }
        assert (status(cluster).replicas, status(cluster).available_replicas) == (3, 3)

    simulate(scenario)


def test_it_scales_down_from_the_highest_ordinal_one_at_a_time() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(stateful_set(replicas=4))
        await cluster.until(lambda: complete(cluster, 4))
        await change(cluster, replicas=1)
        await cluster.until(lambda: names(cluster) == ["db-0"])
        deleted = await cluster.events("SuccessfulDelete")
        assert deleted == [f"delete Pod db-{n} in StatefulSet db successful" for n in (3, 2, 1)]
        await cluster.until(lambda: status(cluster).replicas == 1)

    simulate(scenario)


def test_a_scale_down_waits_for_pods_that_are_not_ready_unless_they_go_first() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(stateful_set(replicas=3))
        await cluster.until(lambda: complete(cluster))
        cluster.nodes.faults.unready_images.add("two")
        await change(cluster, template=of_image("two"))
        await cluster.until(lambda: images(cluster) == ["one", "one", "two"])
        await change(cluster, replicas=2)  # db-2 is the unready one: it may go
        await cluster.until(lambda: "db-2" not in names(cluster))

    simulate(scenario)


def test_parallel_pods_start_at_once() -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.nodes.faults.unready_images.add("one")
        await cluster.create(stateful_set(replicas=5, podManagementPolicy="Parallel"))
        await cluster.until(lambda: len(names(cluster)) == 5)
        await change(cluster, replicas=2)
        await cluster.until(lambda: names(cluster) == ["db-0", "db-1"])

    simulate(scenario)


def test_a_rolling_update_goes_from_the_highest_ordinal_down_one_at_a_time() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(stateful_set())
        await cluster.until(lambda: complete(cluster))
        before = status(cluster).current_revision
        watchers = Watchers(cluster)
        await change(cluster, template=of_image("two"))
        await cluster.until(lambda: images(cluster) == ["two"] * 3 and complete(cluster))
        assert min(watchers.ready) == 2
        deleted = await cluster.events("SuccessfulDelete")
        assert deleted == [f"delete Pod db-{n} in StatefulSet db successful" for n in (2, 1, 0)]
        assert status(cluster).current_revision == status(cluster).update_revision != before
        revisions = sorted(r.revision for r in cluster.informers.of(ControllerRevision).all())
        assert revisions == [1, 2]

    simulate(scenario)


def test_max_unavailable_lets_several_go_at_once() -> None:
    async def scenario(cluster: Cluster) -> None:
        strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2}}
        await cluster.create(stateful_set(replicas=5, podManagementPolicy="Parallel", updateStrategy=strategy))
        await cluster.until(lambda: complete(cluster, 5))
        watchers = Watchers(cluster)
        await change(cluster, template=of_image("two"))
        await cluster.until(lambda: complete(cluster, 5) and images(cluster) == ["two"] * 5)
        assert min(watchers.ready) == 3

    simulate(scenario)


def test_below_the_partition_the_old_template_stays_even_when_a_pod_is_lost() -> None:
    async def scenario(cluster: Cluster) -> None:
        strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}
        await cluster.create(stateful_set(updateStrategy=strategy))
        await cluster.until(lambda: status(cluster).ready_replicas == 3)
        await change(cluster, template=of_image("two"))
        await cluster.until(lambda: images(cluster) == ["one", "one", "two"] and status(cluster).ready_replicas == 3)
        uid = cluster.pods.get("default/db-0").metadata.uid  # type: ignore[union-attr]
        await cluster.client.delete(Pod, "db-0", "default")
        await cluster.until(lambda: (p := cluster.pods.get("default/db-0")) and p.metadata.uid != uid and is_ready(p))
        assert images(cluster) == ["one", "one", "two"]
        found = status(cluster)
        assert found.current_revision != found.update_revision
        await cluster.until(lambda: (status(cluster).current_replicas, status(cluster).updated_replicas) == (2, 1))
        await change(cluster, updateStrategy={"rollingUpdate": {"partition": 0}})
        await cluster.until(lambda: images(cluster) == ["two"] * 3 and complete(cluster))

    simulate(scenario)


def test_on_delete_leaves_the_pods_to_the_user() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(stateful_set(updateStrategy={"type": "OnDelete"}))
        await cluster.until(lambda: status(cluster).ready_replicas == 3)
        await change(cluster, template=of_image("two"))
        await cluster.clock.sleep(60)
        assert images(cluster) == ["one"] * 3
        await cluster.client.delete(Pod, "db-1", "default")
        await cluster.until(lambda: images(cluster) == ["one", "two", "one"])

    simulate(scenario)


def test_a_broken_update_stops_at_the_first_pod_and_needs_it_deleted_after_the_rollback() -> None:
    """As upstream documents it under "Forced rollback"."""

    async def scenario(cluster: Cluster) -> None:
        await cluster.create(stateful_set())
        await cluster.until(lambda: complete(cluster))
        first = status(cluster).current_revision
        cluster.nodes.faults.missing_images.add("broken")
        await change(cluster, template=of_image("broken"))
        await cluster.until(lambda: images(cluster) == ["one", "one", "broken"])
        await cluster.clock.sleep(120)
        assert images(cluster) == ["one", "one", "broken"]
        await change(cluster, template=of_image("one"))
        await cluster.until(lambda: status(cluster).update_revision == first)
        assert sorted(r.revision for r in cluster.informers.of(ControllerRevision).all()) == [2, 3]
        await cluster.clock.sleep(60)
        assert images(cluster) == ["one", "one", "broken"]
        await cluster.client.delete(Pod, "db-2", "default")
        await cluster.until(lambda: images(cluster) == ["one"] * 3 and complete(cluster))

    simulate(scenario)


def test_ordinals_may_start_elsewhere() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(stateful_set(replicas=2, ordinals={"start": 5}))
        await cluster.until(lambda: complete(cluster, 2))
        assert names(cluster) == ["db-5", "db-6"]
        await change(cluster, ordinals={"start": 6})
        await cluster.until(lambda: names(cluster) == ["db-6", "db-7"] and complete(cluster, 2))

    simulate(scenario)


def test_min_ready_seconds_hold_up_the_next_pod() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(stateful_set(replicas=2, minReadySeconds=30))
        await cluster.until(lambda: len(names(cluster)) == 1)
        took_s = await cluster.until(lambda: len(names(cluster)) == 2)
        assert 29 <= took_s <= 32
        await cluster.until(lambda: (status(cluster).available_replicas, status(cluster).ready_replicas) == (1, 2))

    simulate(scenario)


def test_a_pod_that_ended_is_replaced_under_its_name() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(stateful_set(replicas=2))
        await cluster.until(lambda: complete(cluster, 2))
        pod = cluster.pods.get("default/db-0")
        assert pod
        patch = {"status": {"phase": "Failed"}}
        await cluster.client.patch(Pod, "db-0", patch, "default", content_type=MERGE_PATCH, subresource="status")
        await cluster.until(
            lambda: (
                (new := cluster.pods.get("default/db-0"))
                and new.metadata.uid != pod.metadata.uid
                and complete(cluster, 2)
            )
        )

    simulate(scenario)


def test_a_silent_node_keeps_its_pod_until_somebody_says_that_it_is_gone() -> None:
    """At most one pod an ordinal: nobody knows whether it still runs."""

    async def scenario(cluster: Cluster) -> None:
        await cluster.create(stateful_set(replicas=1))
        await cluster.until(lambda: complete(cluster, 1))
        (pod,) = cluster.pods.all()
        assert pod.spec
        cluster.nodes.faults.silent_nodes.add(pod.spec.node_name or "")
        await cluster.until(lambda: cluster.pods.all()[0].metadata.deletion_timestamp, 900)
        await cluster.clock.sleep(900)
        assert [still.metadata.uid for still in cluster.pods.all()] == [pod.metadata.uid]
        await cluster.client.delete(Pod, "db-0", "default", grace_period_s=0)
        await cluster.until(lambda: complete(cluster, 1))
        (new,) = cluster.pods.all()
        assert new.spec
        assert new.spec.node_name != pod.spec.node_name

    simulate(scenario, nodes=3)


def test_a_set_that_waits_for_its_pods_to_go_makes_no_revision_again() -> None:
    """Each would be collected at once, and made again, for as long as a pod lasts."""

    async def scenario(cluster: Cluster) -> None:
        await cluster.create(stateful_set(replicas=1))
        await cluster.until(lambda: complete(cluster, 1))
        made: list[str] = []
        revisions = cluster.informers.of(ControllerRevision)
        revisions.add_handler(lambda old, new: made.append(new.metadata.name or "") if new and not old else None)
        made.clear()
        cluster.nodes.faults.silent_nodes.update(pod.spec.node_name or "" for pod in cluster.pods.all() if pod.spec)
        await cluster.client.delete(StatefulSet, "db", "default", propagation_policy="Foreground")
        await cluster.clock.sleep(60)
        assert (made, revisions.all(), names(cluster)) == ([], [], ["db-0"])
        await cluster.client.delete(Pod, "db-0", "default", grace_period_s=0)
        await cluster.until(lambda: not cluster.informers.of(StatefulSet).all())

    simulate(scenario)


@pytest.mark.parametrize(
    ("holder", "outcome"),
    [
        (None, "taken"),
        ({"kind": "StatefulSet", "name": "db"}, "waited for"),
        ({"kind": "DaemonSet", "name": "db"}, "another name"),
    ],
)
def test_a_revision_that_was_let_go_is_taken_up_before_the_cache_shows_it(
    holder: dict[str, str] | None, outcome: str
) -> None:
    """Or the next set of that name has two of one template, and counts pods of the first as outdated."""

    async def scenario(cluster: Cluster) -> None:
        await cluster.create(stateful_set(replicas=1))
        await cluster.until(lambda: complete(cluster, 1))
        (left,) = cluster.informers.of(ControllerRevision).all()
        await cluster.client.delete(StatefulSet, "db", "default", propagation_policy="Orphan")
        await cluster.until(lambda: not cluster.informers.of(ControllerRevision).all()[0].metadata.owner_references)
        if holder:
            # Not in the collector's sight: its kind is not served.
            reference = {"apiVersion": "example.com/v1", "uid": "of-another", "controller": True, **holder}
            patch = {"metadata": {"ownerReferences": [reference]}}
            name = left.metadata.name or ""
            await cluster.client.patch(ControllerRevision, name, patch, "default", content_type=MERGE_PATCH)
        owner = stateful_set(replicas=1)
        owner.metadata.uid = "of-the-next"
        history = History(cluster.client, cluster.informers.of(ControllerRevision), "controller.kubernetes.io/hash")
        template = template_of(left)
        if outcome == "waited for":
            with pytest.raises(Conflict, match="of the StatefulSet before has not gone yet"):
                await history.newest(owner, template, [], 0)
            return
        found, collisions = await history.newest(owner, template, [], 0)
        assert (found.metadata.name == left.metadata.name, collisions) == (outcome == "taken", outcome != "taken")

    simulate(scenario)


def owners(cluster: Cluster) -> dict[str, list[str]]:
    claims = cluster.informers.of(PersistentVolumeClaim).all()
    return {c.metadata.name or "": [f"{o.kind} {o.name}" for o in c.metadata.owner_references] for c in claims}


def test_claims_are_made_for_each_pod_and_stay_by_default() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(stateful_set(replicas=2, volumeClaimTemplates=[claim_template()]))
        await cluster.until(lambda: complete(cluster, 2))
        assert owners(cluster) == {"data-db-0": [], "data-db-1": []}
        pod = cluster.pods.get("default/db-1")
        assert pod
        assert pod.spec
        source = pod.spec.volumes[0].persistent_volume_claim
        assert source
        assert source.claim_name == "data-db-1"
        assert "create Claim data-db-1 Pod db-1 in StatefulSet db success" in await cluster.events("SuccessfulCreate")
        await change(cluster, replicas=1)
        await cluster.until(lambda: names(cluster) == ["db-0"])
        await cluster.client.delete(StatefulSet, "db", "default")
        await cluster.until(lambda: not names(cluster))
        await cluster.clock.sleep(30)
        assert owners(cluster) == {"data-db-0": [], "data-db-1": []}

    simulate(scenario)


@pytest.mark.parametrize(
    ("scaled", "deleted", "kept", "after_scale", "after_delete"),
    [
        ("Retain", "Delete", "StatefulSet db", ["data-db-0", "data-db-1"], []),
        ("Delete", "Retain", "", ["data-db-0"], ["data-db-0"]),
        ("Delete", "Delete", "StatefulSet db", ["data-db-0"], []),
    ],
)
def test_claims_go_as_the_retention_policy_says(
    scaled: str, deleted: str, kept: str, after_scale: list[str], after_delete: list[str]
) -> None:
    async def scenario(cluster: Cluster) -> None:
        policy = {"whenScaled": scaled, "whenDeleted": deleted}
        templates = [claim_template()]
        retention = {"volumeClaimTemplates": templates, "persistentVolumeClaimRetentionPolicy": policy}
        await cluster.create(stateful_set(replicas=2, **retention))
        await cluster.until(lambda: complete(cluster, 2))
        wanted = [kept] if kept else []
        await cluster.until(lambda: owners(cluster) == {"data-db-0": wanted, "data-db-1": wanted})
        await change(cluster, replicas=1)
        await cluster.until(lambda: names(cluster) == ["db-0"] and sorted(owners(cluster)) == after_scale)
        await cluster.client.delete(StatefulSet, "db", "default")
        await cluster.until(lambda: not names(cluster) and sorted(owners(cluster)) == after_delete)

    simulate(scenario)


def test_a_policy_that_changes_changes_the_owners_of_claims() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(stateful_set(replicas=1, volumeClaimTemplates=[claim_template()]))
        await cluster.until(lambda: complete(cluster, 1))
        await change(cluster, persistentVolumeClaimRetentionPolicy={"whenDeleted": "Delete", "whenScaled": "Retain"})
        await cluster.until(lambda: owners(cluster) == {"data-db-0": ["StatefulSet db"]})
        await change(cluster, persistentVolumeClaimRetentionPolicy={"whenDeleted": "Retain", "whenScaled": "Retain"})
        await cluster.until(lambda: owners(cluster) == {"data-db-0": []})

    simulate(scenario)


def test_revisions_hold_the_template_in_the_bytes_that_kubectl_compares() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(stateful_set())
        await cluster.until(lambda: complete(cluster))
        request = Request("GET", "/apis/apps/v1/namespaces/default/controllerrevisions", user=ADMINISTRATOR)
        (revision,) = msgspec.json.decode((await cluster.server.handle(request)).body)["items"]
        written = msgspec.json.encode(revision["data"])
        assert written == msgspec.json.encode(revision["data"], order="sorted")
        assert written.startswith(b'{"spec":{"template":{"$patch":"replace","metadata":{"labels":')

    simulate(scenario)


def test_history_is_cut_to_its_limit_but_keeps_what_pods_still_have() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(stateful_set(replicas=1, revisionHistoryLimit=1))
        await cluster.until(lambda: complete(cluster, 1))
        for image in ("two", "three", "four"):
            await change(cluster, template=of_image(image))
            await cluster.until(lambda image=image: images(cluster) == [image] and complete(cluster, 1))  # type: ignore[misc]
        await cluster.until(
            lambda: sorted(r.revision for r in cluster.informers.of(ControllerRevision).all()) == [3, 4]
        )

    simulate(scenario)


def test_pods_are_adopted_and_released() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(stateful_set(replicas=2))
        await cluster.until(lambda: complete(cluster, 2))
        pods = {pod.metadata.uid for pod in cluster.pods.all()}
        await cluster.client.delete(StatefulSet, "db", "default", propagation_policy="Orphan")
        await cluster.until(lambda: all(not pod.metadata.owner_references for pod in cluster.pods.all()))
        await cluster.create(stateful_set(replicas=2))
        await cluster.until(lambda: all(pod.metadata.owner_references for pod in cluster.pods.all()))
        assert {pod.metadata.uid for pod in cluster.pods.all()} == pods
        patch = {"metadata": {"labels": {"app": "other"}}}
        await cluster.patch(Pod, "db-1", patch)
        await cluster.until(lambda: not cluster.pods.get("default/db-1").metadata.owner_references)  # type: ignore[union-attr]
        await cluster.clock.sleep(30)
        assert len(names(cluster)) == 2  # the name is taken: nothing is doubled
        with pytest.raises(NotFound):
            await cluster.client.get(Pod, "db-2", "default")

    simulate(scenario)


def test_labels_that_somebody_takes_from_a_pod_come_back() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(stateful_set(replicas=1))
        await cluster.until(lambda: complete(cluster, 1))
        await cluster.patch(Pod, "db-0", {"metadata": {"labels": {"apps.kubernetes.io/pod-index": None}}})
        await cluster.patch(Pod, "db-0", {"metadata": {"labels": {"statefulset.kubernetes.io/pod-name": None}}})
        await cluster.until(
            lambda: (
                cluster.pods.get("default/db-0").metadata.labels.get("statefulset.kubernetes.io/pod-name")  # type: ignore[union-attr]
                == "db-0"
            )
        )

    simulate(scenario)


def test_a_set_without_pods_that_can_run_says_so_in_its_status() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(stateful_set(replicas=2))
        await cluster.until(lambda: len(names(cluster)) == 1)
        await cluster.clock.sleep(60)
        found = status(cluster)
        assert names(cluster) == ["db-0"]
        assert (found.replicas, found.ready_replicas, found.available_replicas) == (1, None, 0)

    simulate(scenario, faults=Faults(unready_images={"one"}))
