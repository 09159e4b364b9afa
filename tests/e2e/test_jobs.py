"""Jobs and CronJobs of real containers, as a user of kubectl sees them; each loop writes as its own account."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from tests.e2e.conftest import Cluster


def job(name: str, script: str, tools: str, *, restart: str = "Never", kept: Path | None = None, **spec: Any) -> str:
    """Each pod has a folder /kept of its own, or this one of the machine."""
    mounts = [{"name": "kept", "mountPath": "/kept"}]
    container = {"name": "c", "image": tools, "command": ["sh", "-c", script], "volumeMounts": mounts}
    pod = {
        "restartPolicy": restart,
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
        "volumes": [{"name": "kept", **({"hostPath": {"path": str(kept)}} if kept else {"emptyDir": {}})}],
    }
    made = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}}
    return json.dumps(made | {"spec": {"template": {"spec": pod}, **spec}})


def wait(cluster: Cluster, name: str, condition: str) -> dict[str, Any]:
    cluster.kubectl("wait", f"--for=condition={condition}", f"job/{name}", "--timeout=80s")
    status: dict[str, Any] = cluster.get("job", name)["status"]
    return status


def test_each_pod_of_an_indexed_job_does_its_part(cluster: Cluster, tools: str) -> None:
    script = "echo part $JOB_COMPLETION_INDEX of $HOSTNAME"
    spec = {"completionMode": "Indexed", "completions": 3, "parallelism": 2}
    cluster.kubectl("apply", "-f", "-", given=job("parts", script, tools, **spec))
    assert wait(cluster, "parts", "complete")["completedIndexes"] == "0-2"
    told = {cluster.kubectl("logs", "job/parts", "--all-pods=true", "--prefix=false")}
    lines = sorted(line.rpartition("] ")[2] for line in told.pop().splitlines())
    assert lines == [f"part {number} of parts-{number}" for number in range(3)]
    assert "Complete" in cluster.kubectl("get", "job", "parts")
    assert "3/3" in cluster.kubectl("get", "job", "parts")


def test_an_exit_code_fails_the_job_as_its_policy_says(cluster: Cluster, tools: str) -> None:
    rule = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}
    spec = {"podFailurePolicy": {"rules": [rule]}}
    cluster.kubectl("apply", "-f", "-", given=job("forty-two", "exit 42", tools, **spec))
    status = wait(cluster, "forty-two", "failed")
    assert status["failed"] == 1
    final = status["conditions"][-1]
    assert (final["type"], final["reason"]) == ("Failed", "PodFailurePolicy")
    assert "failed with exit code 42 matching FailJob rule at index 0" in final["message"]


def test_a_container_that_fails_starts_again_in_its_pod(cluster: Cluster, tools: str) -> None:
    script = "test -e /kept/mark || { touch /kept/mark; exit 1; }"
    spec = {"completions": 2, "parallelism": 2}
    cluster.kubectl("apply", "-f", "-", given=job("twice", script, tools, restart="OnFailure", **spec))
    status = wait(cluster, "twice", "complete")
    assert status["succeeded"] == 2
    assert "failed" not in status
    pods = cluster.get("pods", "-l", "job-name=twice")["items"]
    assert [cluster.restarts(pod["metadata"]["name"]) for pod in pods] == [1, 1]


UNTIL_TOLD = "until [ -e /kept/go ]; do sleep 0.1; done"


def test_an_eviction_may_count_for_nothing(cluster: Cluster, tools: str, tmp_path: Path) -> None:
    rule = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}
    spec = {"podFailurePolicy": {"rules": [rule]}, "backoffLimit": 0}
    cluster.kubectl("apply", "-f", "-", given=job("evicted", UNTIL_TOLD, tools, kept=tmp_path, **spec))
    cluster.until(lambda: cluster.get("job", "evicted").get("status", {}).get("ready") == 1, "it runs")
    (pod,) = cluster.get("pods", "-l", "job-name=evicted")["items"]
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod["metadata"]["name"], "namespace": "default"},
    }
    path = f"/api/v1/namespaces/default/pods/{pod['metadata']['name']}/eviction"
    cluster.kubectl("create", "--raw", path, "-f", "-", given=json.dumps(eviction))
    cluster.until(lambda: pod["metadata"]["name"] not in cluster.kubectl("get", "pods", "-o", "name"), "its end")
    (tmp_path / "go").touch()
    status = wait(cluster, "evicted", "complete")
    assert (status["succeeded"], status.get("failed")) == (1, None)


def test_a_job_made_of_a_cron_job_by_hand(cluster: Cluster, tools: str) -> None:
    cluster.kubectl("create", "cronjob", "yearly", f"--image={tools}", "--schedule=0 0 1 1 *", "--", "true")
    cluster.kubectl("create", "job", "early", "--from=cronjob/yearly")
    assert wait(cluster, "early", "complete")["succeeded"] == 1
    cluster.kubectl("delete", "cronjob", "yearly")
    cluster.until(lambda: "early" not in cluster.kubectl("get", "jobs,pods", "-o", "name"), "the job is gone with it")


def test_a_killed_process_counts_on_where_it_was(cluster: Cluster, tools: str, tmp_path: Path) -> None:
    spec = {"completions": 6, "parallelism": 3}
    cluster.kubectl("apply", "-f", "-", given=job("six", UNTIL_TOLD, tools, kept=tmp_path, **spec))
    cluster.until(lambda: cluster.get("job", "six").get("status", {}).get("ready") == 3, "three run")
    pid = int(json.loads(cluster.knarr("status", "-o", "json").stdout)["pid"])
    os.kill(pid, signal.SIGKILL)
    cluster.until(lambda: cluster.knarr("status", check=False).returncode == 3, "the process's end")
    (tmp_path / "go").touch()
    cluster.up()
    status = wait(cluster, "six", "complete")
    assert status["succeeded"] == 6
    assert "failed" not in status
    pods = cluster.get("pods", "-l", "job-name=six")["items"]
    assert len(pods) == 6
    assert not any(pod["metadata"].get("finalizers") for pod in pods)
