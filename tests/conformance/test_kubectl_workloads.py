"""kubectl and workloads, as their users go through them: what it says and how it exits, on three hollow nodes."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conformance.whole import workload
from tests.e2e.conftest import Cluster

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
NONE = "web:missing"
"""An image that hollow nodes can't get."""


@pytest.fixture(scope="module")
def hollow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("hollow"))
    made.flags += ["--runtime", "sim", "--sim-nodes", "3"]
    made.up()
    try:
        yield made
    finally:
        made.knarr("down", "--purge", check=False)


@pytest.fixture
def run(hollow: Cluster, request: pytest.FixtureRequest) -> Any:
    """kubectl in a namespace of the test's own."""
    name = f"test-{zlib.crc32(request.node.name.encode())}"
    hollow.kubectl("create", "namespace", name)
    hollow.until(lambda: "default" in hollow.kubectl("get", "serviceaccounts", "-n", name), "the account")
    return lambda *arguments, **more: hollow.kubectl("-n", name, *arguments, **more)


def made(run: Any, obj: Any) -> None:
    run("create", "-f", "-", given=json.dumps(obj))


def conditions(run: Any, name: str = "web") -> dict[str, tuple[str, str, str]]:
    found = json.loads(run("get", "deployment", name, "-o", "json"))["status"]["conditions"]
    return {each["type"]: (each["status"], each["reason"], each["message"]) for each in found}


def observed(run: Any, name: str = "web") -> bool:
    """Whether the Deployment's controller has seen the last change."""
    found = json.loads(run("get", "deployment", name, "-o", "json"))
    return bool(found["status"].get("observedGeneration") == found["metadata"]["generation"])


def status(run: Any, target: str, *flags: str, code: int = 0) -> str:
    """The last line of kubectl rollout status."""
    said: str = run("rollout", "status", target, "--timeout=60s", *flags, code=code, both=True)
    return said.splitlines()[-1]


def test_a_rollout_is_followed_paused_resumed_and_undone(run: Any, hollow: Cluster) -> None:
    made(run, workload("Deployment", "web", replicas=3, image="web:v1"))
    assert status(run, "deployment/web") == 'deployment "web" successfully rolled out'
    progressing = conditions(run)["Progressing"]
    assert progressing[:2] == ("True", "NewReplicaSetAvailable")
    assert progressing[2].endswith("has successfully progressed.")
    assert conditions(run)["Available"] == (
        "True",
        "MinimumReplicasAvailable",
        "Deployment has minimum availability.",
    )
    run("rollout", "pause", "deployment/web")
    said = run("rollout", "pause", "deployment/web", code=1, both=True)
    assert said == 'error: deployments.apps "web" is already paused\n'
    paused = ("Unknown", "DeploymentPaused", "Deployment is paused")
    hollow.until(lambda: conditions(run)["Progressing"] == paused, "that it is told")
    run("set", "image", "deployment/web", "c=web:v2")
    said = run("rollout", "undo", "deployment/web", "--to-revision=1", code=1, both=True)
    assert said.startswith("error: you cannot rollback a paused deployment; resume it first")
    hollow.until(lambda: observed(run), "that the new image is seen")
    said = run("rollout", "status", "deployment/web", "--timeout=3s", code=1, both=True)
    assert said.splitlines() == [
        'Waiting for deployment "web" rollout to finish: 0 out of 3 new replicas have been updated...',
        "error: timed out waiting for the condition",
    ]
    run("rollout", "resume", "deployment/web")
    assert status(run, "deployment/web") == 'deployment "web" successfully rolled out'
    assert status(run, "deployment/web", "--revision=1", code=1) == (
        "error: desired revision (1) is different from the running revision (2)"
    )
    history = run("rollout", "history", "deployment/web").splitlines()
    assert [line.split() for line in history[2:] if line] == [["1", "<none>"], ["2", "<none>"]]
    said = run("rollout", "undo", "deployment/web", "--to-revision=9", code=1, both=True)
    assert said == "error: unable to find specified revision 9 in history\n"
    assert run("rollout", "undo", "deployment/web", "--to-revision=1") == "deployment.apps/web rolled back\n"
    said = run("rollout", "undo", "deployment/web", "--to-revision=3")
    assert said == "deployment.apps/web skipped rollback (current template already matches revision 3)\n"
    status(run, "deployment/web")
    history = run("rollout", "history", "deployment/web").splitlines()
    assert [line.split()[0] for line in history[2:] if line] == ["2", "3"], "an old template is the newest again"
    assert "Image:\tweb:v1" in run("rollout", "history", "deployment/web", "--revision=3")


def test_a_rollout_past_its_deadline_ends_with_an_error_until_it_is_undone(run: Any) -> None:
    def deadline(seconds: int) -> None:
        run("patch", "deployment/web", "-p", json.dumps({"spec": {"progressDeadlineSeconds": seconds}}))

    made(run, workload("Deployment", "web", replicas=3, image="web:v1"))
    status(run, "deployment/web")
    deadline(2)
    run("set", "image", "deployment/web", f"c={NONE}")
    assert status(run, "deployment/web", code=1) == 'error: deployment "web" exceeded its progress deadline'
    told = conditions(run)["Progressing"]
    assert told[:2] == ("False", "ProgressDeadlineExceeded")
    assert told[2].endswith("has timed out progressing.")
    assert conditions(run)["Available"][0] == "True", "what was there serves on"
    deadline(600)
    run("rollout", "undo", "deployment/web")
    assert status(run, "deployment/web") == 'deployment "web" successfully rolled out'


LIMITS = {"limits": [{"type": "Container", "max": {"cpu": "100m"}}]}
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"


@pytest.mark.parametrize(
    ("why", "template", "message"),
    [
        ("quota", {}, "exceeded quota: none, requested: pods=1, used: pods=0, limited: pods=0"),
        (
            "permission",
            {"serviceAccountName": "nobody"},
            'error looking up service account {}/nobody: serviceaccount "nobody" not found',
        ),
        ("security", {}, 'violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false'),
        ("limits", {}, "maximum cpu usage per Container is 100m, but limit is 500m"),
    ],
)
def test_pods_that_may_not_be_made_fail_the_deployment(
    run: Any, hollow: Cluster, why: str, template: dict[str, Any], message: str
) -> None:
    namespace = json.loads(run("get", "serviceaccount", "default", "-o", "json"))["metadata"]["namespace"]
    wanted = workload("Deployment", "web", replicas=2, progressDeadlineSeconds=2, template=template)
    if why == "quota":
        run("create", "quota", "none", "--hard=pods=0")
    elif why == "security":
        run("label", "namespace", namespace, RESTRICTED)
    elif why == "limits":
        made(run, {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "lr"}, "spec": LIMITS})
        (container,) = wanted["spec"]["template"]["spec"]["containers"]
        container["resources"] = {"limits": {"cpu": "500m"}}
    made(run, wanted)
    assert status(run, "deployment/web", code=1) == 'error: deployment "web" exceeded its progress deadline'
    told = conditions(run)
    assert told["Available"][:2] == ("False", "MinimumReplicasUnavailable")
    assert told["Progressing"][:2] == ("False", "ProgressDeadlineExceeded")
    assert told["ReplicaFailure"][:2] == ("True", "FailedCreate")
    assert " is forbidden: " in told["ReplicaFailure"][2]
    assert message.format(namespace) in told["ReplicaFailure"][2]

    def found() -> Any:
        return json.loads(run("get", "events", "--field-selector=reason=FailedCreate", "-o", "json"))["items"]

    events = hollow.until(found, "an event")
    assert all(each["message"].startswith("Error creating: pods ") for each in events)


@pytest.mark.parametrize(
    ("kind", "spec", "done"),
    [
        (
            "StatefulSet",
            {"replicas": 2, "serviceName": "x"},
            "partitioned roll out complete: 2 new pods have been updated...",
        ),
        ("DaemonSet", {}, 'daemon set "web" successfully rolled out'),
    ],
)
def test_sets_are_rolled_out_and_back_by_revision(run: Any, kind: str, spec: dict[str, Any], done: str) -> None:
    target, plural = f"{kind.lower()}/web", f"{kind.lower()}s"
    made(run, workload(kind, "web", image="web:v1", **spec))
    assert status(run, target) == done
    run("set", "image", target, "c=web:v2")
    assert status(run, target) == done
    assert run("rollout", "undo", target, "--to-revision=1") == f"{kind.lower()}.apps/web rolled back\n"
    assert status(run, target) == done
    history = run("rollout", "history", target).splitlines()
    assert [line.split()[0] for line in history[2:] if line] == ["2", "3"]
    said = run("rollout", "undo", target, "--to-revision=9", code=1, both=True)
    assert said == "error: unable to find specified revision 9 in history\n"
    said = run("rollout", "pause", target, code=1, both=True)
    assert said == f'error: {plural}.apps "web" pausing is not supported\n'
    run("set", "image", target, f"c={NONE}")
    assert status(run, target, "--timeout=2s", code=1) == "error: timed out waiting for the condition"
    run("rollout", "undo", target)
    if kind == "StatefulSet":
        run("delete", "pod", "web-1")  # as upstream: a pod that never got ready is not replaced by itself
    assert status(run, target) == done
    run("patch", target, "-p", '{"spec":{"updateStrategy":{"type":"OnDelete","rollingUpdate":null}}}')
    assert status(run, target, code=1) == "error: rollout status is only available for RollingUpdate strategy type"


def test_scaling_keeps_to_its_preconditions(run: Any) -> None:
    made(run, workload("Deployment", "web", replicas=1))
    status(run, "deployment/web")
    said = run("scale", "deployment/web", "--replicas=5", "--current-replicas=2", code=1, both=True)
    assert said == "error: Expected replicas to be 2, was 1\n"
    said = run("scale", "deployment/web", "--replicas=5", "--resource-version=1", code=1, both=True)
    assert said.startswith("error: Expected resource version to be 1, was ")
    said = run("scale", "deployment/web", "--replicas=2", "--current-replicas=1", "--timeout=60s")
    assert said == "deployment.apps/web scaled\n"
    assert run("wait", "deployment/web", "--for=jsonpath={.status.readyReplicas}=2", "--timeout=60s") == (
        "deployment.apps/web condition met\n"
    )
    assert run("autoscale", "deployment/web", "--max=3") == "horizontalpodautoscaler.autoscaling/web autoscaled\n"


def test_pods_outlive_an_owner_that_is_deleted_alone_and_are_taken_over_by_the_next(run: Any) -> None:
    wanted = workload("Deployment", "web", replicas=2)
    made(run, wanted)
    status(run, "deployment/web")
    before = run("get", "pods,replicasets", "-o", "name")
    run("delete", "deployment", "web", "--cascade=orphan")
    assert run("get", "pods,replicasets", "-o", "name") == before
    made(run, wanted)
    status(run, "deployment/web")
    assert run("get", "pods,replicasets", "-o", "name") == before
    run("delete", "deployment", "web", "--cascade=foreground", "--timeout=60s")
    assert run("get", "pods,replicasets", "-o", "name") == ""


def test_a_job_is_made_of_a_cron_job(run: Any) -> None:
    run("create", "cronjob", "tick", "--image=web:v1", "--schedule=0 0 1 1 *")
    patch = {"metadata": {"labels": {"sim.knarr.dev/exit-after-s": "0.2"}}}
    spec = {"spec": {"jobTemplate": {"spec": {"template": patch}}}}
    run("patch", "cronjob", "tick", "-p", json.dumps(spec))
    assert run("create", "job", "once", "--from=cronjob/tick") == "job.batch/once created\n"
    assert run("wait", "job/once", "--for=condition=complete", "--timeout=60s") == "job.batch/once condition met\n"
    found = json.loads(run("get", "job", "once", "-o", "json"))
    assert found["metadata"]["annotations"]["cronjob.kubernetes.io/instantiate"] == "manual"
    assert found["metadata"]["ownerReferences"][0]["kind"] == "CronJob"
    heading, row = run("get", "job", "once").splitlines()
    assert heading.split() == ["NAME", "STATUS", "COMPLETIONS", "DURATION", "AGE"]
    assert row.split()[:3] == ["once", "Complete", "1/1"]
    run("delete", "cronjob", "tick")
    run("wait", "job/once", "--for=delete", "--timeout=60s")
