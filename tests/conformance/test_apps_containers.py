"""sig-apps: what containers themselves have a part in: they serve, fail, start again, and are made unready."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.conformance.image import ONE, PORT
from tests.conformance.space import Space

QUIET_S = 5.0
"""For so long nothing must happen, where upstream waits for ten seconds."""
SERVE_HOSTNAME = f"hostname > /www/index.html; exec httpd -f -p {PORT} -h /www"


def pods_of(labels: dict[str, str], script: str, **spec: Any) -> dict[str, Any]:
    container = {"name": "c", "image": ONE, "command": ["sh", "-c", script], **spec.pop("container", {})}
    return {"metadata": {"labels": labels}, "spec": {"containers": [container], **spec}}


def job(name: str, script: str, *, pods: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    template = pods_of({"job": name}, script, **({"restartPolicy": "Never"} | (pods or {})))
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"parallelism": 2, "completions": 4, "template": template, **spec},
    }


# Serving


def serve_their_hostnames(space: Space, kind: str) -> None:
    labels = {"name": "basic"}
    selector: Any = labels if kind == "ReplicationController" else {"matchLabels": labels}
    template = pods_of(labels, SERVE_HOSTNAME, container={"ports": [{"containerPort": PORT}]})
    template["spec"]["containers"][0]["readinessProbe"] = {"tcpSocket": {"port": PORT}, "periodSeconds": 1}
    space.apply(
        {
            "apiVersion": "v1" if kind == "ReplicationController" else "apps/v1",
            "kind": kind,
            "metadata": {"name": "basic"},
            "spec": {"replicas": 2, "selector": selector, "template": template},
        }
    )
    for name in space.running("name=basic", 2):
        assert space.page(name, "/index.html") == f"{name}\n"


def test_each_pod_of_a_replica_set_serves_its_hostname(space: Space) -> None:
    """[sig-apps] ReplicaSet should serve a basic image on each replica with a public image"""
    serve_their_hostnames(space, "ReplicaSet")


def test_each_pod_of_a_replication_controller_serves_its_hostname(space: Space) -> None:
    """[sig-apps] ReplicationController should serve a basic image on each replica with a public image"""
    serve_their_hostnames(space, "ReplicationController")


# StatefulSets whose pods a test makes unready, by taking away the page that their probes ask for


class Set:
    """The StatefulSet ss."""

    def __init__(self, space: Space, policy: str) -> None:
        self.space = space
        labels = {"app": "ss"}
        script = f"echo here > /www/index.html; exec httpd -f -p {PORT} -h /www"
        probe = {
            "httpGet": {"path": "/index.html", "port": PORT},
            "periodSeconds": 1,
            "failureThreshold": 1,
            "timeoutSeconds": 30,
        }
        template = pods_of(labels, script, container={"readinessProbe": probe}, terminationGracePeriodSeconds=1)
        spec = {"replicas": 1, "serviceName": "test", "podManagementPolicy": policy, "template": template}
        spec["selector"] = {"matchLabels": labels}
        space.apply({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "ss"}, "spec": spec})

    def scale(self, replicas: int) -> None:
        self.space.run("scale", "statefulset", "ss", f"--replicas={replicas}")

    def pods(self) -> list[Any]:
        found: list[Any] = self.space.get("pods", "-l", "app=ss")["items"]
        return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))

    def ready(self, count: int) -> None:
        def holds() -> bool:
            return self.space.get("statefulset", "ss").get("status", {}).get("readyReplicas", 0) == count

        self.space.until(holds, f"{count} ready pods")

    def running(self, count: int) -> None:
        self.space.until(
            lambda: [pod["status"]["phase"] for pod in self.pods()] == ["Running"] * count, f"{count} pods"
        )

    def break_probe(self, *names: str) -> None:
        for name in names:
            self.space.run("exec", name, "--", "mv", "/www/index.html", "/tmp/")

    def mend_probe(self, *names: str) -> None:
        for name in names:
            self.space.run("exec", name, "--", "mv", "/tmp/index.html", "/www/")

    def stays(self, count: int) -> None:
        """For a while no pod comes or goes."""
        ends_s = time.monotonic() + QUIET_S
        while time.monotonic() < ends_s:
            assert len(self.pods()) == count
            time.sleep(0.5)

    def events(self, reason: str) -> list[str]:
        """The names of the pods that were made or deleted, in that order."""
        events = self.space.get("events", "--field-selector", f"involvedObject.kind=StatefulSet,reason={reason}")
        told = sorted(events["items"], key=lambda event: str(event["metadata"]["name"]))
        return [word for event in told for word in event["message"].split() if word.startswith("ss-")]


def test_a_stateful_set_scales_in_order_and_halts_at_a_pod_that_is_not_ready(space: Space) -> None:
    """[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] Scaling should happen in predictable
    order and halt if any stateful pod is unhealthy [Slow]"""
    ss = Set(space, "OrderedReady")
    ss.ready(1)
    ss.break_probe("ss-0")
    ss.ready(0)
    ss.scale(3)
    ss.stays(1)
    ss.mend_probe("ss-0")
    ss.ready(3)
    assert ss.events("SuccessfulCreate") == ["ss-0", "ss-1", "ss-2"]
    started = [pod["status"]["startTime"] for pod in ss.pods()]
    assert started == sorted(started)
    ss.break_probe("ss-0", "ss-1", "ss-2")
    ss.ready(0)
    ss.scale(0)
    ss.stays(3)
    ss.mend_probe("ss-0", "ss-1", "ss-2")
    space.until(lambda: not ss.pods(), "no pods")
    assert ss.events("SuccessfulDelete") == ["ss-2", "ss-1", "ss-0"]


def test_a_pod_that_its_node_rejects_is_made_again_until_it_runs(space: Space) -> None:
    """[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] Should recreate evicted statefulset

    A pod of somebody else has the port of the node, and the set's pod names that node.
    """
    here = {"nodeName": space.get("nodes")["items"][0]["metadata"]["name"], "terminationGracePeriodSeconds": 1}
    ports = {"ports": [{"containerPort": PORT, "hostPort": 21017, "protocol": "TCP"}]}
    holder = pods_of({"name": "holder"}, "sleep 3600", container=dict(ports), **here)
    holder["metadata"]["name"] = "holder"
    space.apply({"apiVersion": "v1", "kind": "Pod", **holder})
    space.running("name=holder", 1)
    template = pods_of({"app": "ss"}, "sleep 3600", container=dict(ports), **here)
    spec = {"replicas": 1, "serviceName": "test", "selector": {"matchLabels": {"app": "ss"}}, "template": template}
    space.apply({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "ss"}, "spec": spec})

    def told(reason: str) -> list[str]:
        events = space.get("events", "--field-selector", f"reason={reason}")["items"]
        return [event["message"] for event in events]

    why = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"
    space.until(lambda: why in told("NodePorts"), "the node rejects it")
    space.until(lambda: "delete Pod ss-0 in StatefulSet ss successful" in told("SuccessfulDelete"), "it is deleted")
    space.run("delete", "pod", "holder", "--grace-period=1")
    assert space.running("app=ss", 1) == ["ss-0"]


def test_a_parallel_stateful_set_scales_though_its_pods_are_not_ready(space: Space) -> None:
    """[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] Burst scaling should run to completion
    even with unhealthy pods [Slow]"""
    ss = Set(space, "Parallel")
    ss.ready(1)
    ss.break_probe("ss-0")
    ss.ready(0)
    ss.scale(3)
    ss.running(3)
    ss.mend_probe("ss-0")
    ss.ready(3)
    ss.break_probe("ss-0", "ss-1", "ss-2")
    ss.ready(0)
    ss.scale(0)
    space.until(lambda: not ss.pods(), "no pods")


# Jobs whose containers fail


def completed(space: Space, name: str, kind: str = "Complete") -> Any:
    """The Job, once it has that condition; any other end is an error."""

    def holds() -> Any:
        found = space.get("job", name)
        conditions = found["status"].get("conditions", ())
        ends = [each["type"] for each in conditions if each["type"] in ("Complete", "Failed")]
        assert ends in ([], [kind]), conditions
        return found if ends else None

    return space.until(holds, f"{name} is {kind}")


def test_a_failed_container_starts_again_in_its_pod_and_the_job_is_completed(space: Space) -> None:
    """[sig-apps] Job should run a job to completion when tasks sometimes fail and are locally restarted"""
    script = "if [ -r /data/foo ]; then exit 0; fi; touch /data/foo; exit 1"
    mount = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    pods = {
        "restartPolicy": "OnFailure",
        "container": mount,
        "volumes": [{"name": "data", "emptyDir": {}}],
    }
    space.apply(job("once", script, pods=pods, completions=2, backoffLimit=6))
    found = completed(space, "once")
    assert found["status"]["succeeded"] == 2
    assert found["status"].get("failed", 0) == 0
    pods_there = space.get("pods", "-l", "job=once")["items"]
    assert [pod["status"]["containerStatuses"][0]["restartCount"] for pod in pods_there] == [1, 1]


def test_the_pods_of_an_indexed_job_know_their_index_and_hostname(space: Space) -> None:
    """[sig-apps] Job should create pods for an Indexed job with completion indexes and specified hostname"""
    space.apply(job("indexed", "echo $(hostname) $JOB_COMPLETION_INDEX", completionMode="Indexed"))
    found = completed(space, "indexed")
    assert (found["status"]["succeeded"], found["status"]["completedIndexes"]) == (4, "0-3")
    said = {}
    for pod in space.get("pods", "-l", "job=indexed")["items"]:
        number = pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"]
        assert pod["spec"]["hostname"] == f"indexed-{number}"
        assert pod["metadata"]["name"].startswith(f"indexed-{number}-")
        said[number] = space.run("logs", pod["metadata"]["name"])
    assert said == {str(number): f"indexed-{number} {number}\n" for number in range(4)}


def test_an_exit_code_ends_the_whole_job(space: Space) -> None:
    """[sig-apps] Job should allow to use the pod failure policy on exit code to fail the job early"""
    script = "[ $JOB_COMPLETION_INDEX = 0 ] || exec sleep 600; exit 42"
    rule = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}
    policy = {"podFailurePolicy": {"rules": [rule]}, "backoffLimit": 2}
    space.apply(job("early", script, pods={"terminationGracePeriodSeconds": 1}, completionMode="Indexed", **policy))
    found = completed(space, "early", "Failed")
    (failed,) = (each for each in found["status"]["conditions"] if each["type"] == "Failed")
    assert failed["reason"] == "PodFailurePolicy"
    assert failed["message"].endswith("failed with exit code 42 matching FailJob rule at index 0")


def test_a_failure_by_eviction_is_ignored_where_the_policy_says_so(
    space: Space, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """[sig-apps] Job should allow to use a pod failure policy to ignore failure matching on DisruptionTarget condition

    Each pod leaves a mark on its node and runs until it is evicted; the pod that follows sees the mark and succeeds.
    """
    folder = tmp_path_factory.mktemp("marks")
    script = (
        'mark=/data/$JOB_COMPLETION_INDEX; [ -f $mark ] && exit 0; trap "exit 137" TERM; touch $mark; sleep 600 & wait'
    )
    pods = {
        "container": {"volumeMounts": [{"name": "data", "mountPath": "/data"}]},
        "volumes": [{"name": "data", "hostPath": {"path": str(folder)}}],
        "terminationGracePeriodSeconds": 5,
    }
    rule = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    policy = {"podFailurePolicy": {"rules": [rule]}, "backoffLimit": 0, "completionMode": "Indexed"}
    space.apply(job("evicted", script, pods=pods, completions=2, **policy))
    space.until(lambda: sorted(each.name for each in folder.iterdir()) == ["0", "1"], "the marks of both")
    path = f"/api/v1/namespaces/{space.name}/pods"
    for pod in space.get("pods", "-l", "job=evicted")["items"]:
        name = pod["metadata"]["name"]
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
        space.cluster.kubectl("create", "--raw", f"{path}/{name}/eviction", "-f", "-", given=json.dumps(body))
    found = completed(space, "evicted")
    assert found["status"]["completedIndexes"] == "0,1"
    assert found["status"].get("failed", 0) == 0
