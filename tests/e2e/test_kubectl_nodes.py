"""kubectl drain, cordon, taint and certificate on a real cluster, and a pod that is resized."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import Cluster
from tests.e2e.test_kubectl import FOREVER, pod
from tests.e2e.test_kubectl_debug import running


@pytest.fixture(scope="module")
def web(cluster: Cluster) -> Cluster:
    """The cluster with three pods behind a disruption budget of two, and one without a controller."""
    cluster.kubectl("create", "deployment", "web", "--image=shop-backend:v1", "--replicas=3")
    cluster.kubectl("create", "pdb", "web", "--selector=app=web", "--min-available=2")
    cluster.kubectl("apply", "-f", "-", given=pod("bare", FOREVER))
    cluster.kubectl("rollout", "status", "deploy/web", "--timeout=80s")
    cluster.kubectl("wait", "pod/bare", "--for=condition=Ready", "--timeout=60s")
    cluster.until(lambda: cluster.get("pdb", "web")["status"]["disruptionsAllowed"] == 1, "the budget")
    return cluster


def node_of(cluster: Cluster) -> str:
    name: str = cluster.get("nodes")["items"][0]["metadata"]["name"]
    return name


def test_a_node_is_drained_within_the_budget_and_comes_back(web: Cluster) -> None:
    node = node_of(web)
    refused = web.kubectl("drain", node, "--ignore-daemonsets", code=1, both=True)
    assert "cannot delete Pods that declare no controller (use --force to override): default/bare" in refused
    violates = "Cannot evict pod as it would violate the pod's disruption budget."
    with running(web, "drain", node, "--force", "--pod-selector=app=web") as draining:
        assert draining.stdout
        said = ""
        while not (" evicted" in said and violates in said):
            line = draining.stdout.readline()
            assert line, said
            said += line
    assert said.count(" evicted") == 1
    assert "Ready,SchedulingDisabled" in web.kubectl("get", "nodes")
    web.until(lambda: web.get("deploy", "web")["status"].get("readyReplicas") == 2, "that the third finds no node")
    web.until(lambda: "FailedScheduling" in web.kubectl("get", "events"), "what the scheduler says")
    web.kubectl("uncordon", node)
    web.kubectl("rollout", "status", "deploy/web", "--timeout=80s")
    web.kubectl("delete", "pdb", "web")
    said = web.kubectl(
        "drain", node, "--force", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=80s", both=True
    )
    assert "drained" in said
    assert not web.kubectl("get", "pods", "-o", "name", "--field-selector=spec.nodeName!=")
    web.kubectl("uncordon", node)
    web.kubectl("rollout", "status", "deploy/web", "--timeout=80s")


def test_a_taint_evicts_what_does_not_tolerate_it(web: Cluster) -> None:
    node = node_of(web)
    tolerations = [{"key": "gone", "operator": "Exists", "effect": "NoExecute"}]
    web.kubectl("apply", "-f", "-", given=pod("stays", FOREVER, tolerations=tolerations))
    web.kubectl("apply", "-f", "-", given=pod("leaves", FOREVER))
    web.kubectl("wait", "pod/stays", "pod/leaves", "--for=condition=Ready", "--timeout=60s")
    web.kubectl("taint", "node", node, "gone=now:NoExecute")
    web.kubectl("wait", "pod/leaves", "--for=delete", "--timeout=60s")
    events = ("get", "events", "--field-selector=reason=TaintManagerEviction,involvedObject.name=leaves")
    web.until(lambda: "Marking for deletion Pod default/leaves" in web.kubectl(*events), "the event")
    assert web.get("pod", "stays")["status"]["phase"] == "Running"
    web.kubectl("taint", "node", node, "gone-")
    web.kubectl("rollout", "status", "deploy/web", "--timeout=80s")
    web.kubectl("delete", "pod", "stays", "--now")


def test_a_certificate_that_is_approved_lets_its_owner_in(web: Cluster, tmp_path: Path) -> None:
    key, request = tmp_path / "key", tmp_path / "request"
    subject = ["-subj", "/O=dev/CN=ann"]
    line = ["openssl", "req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(request)]
    subprocess.run([*line, *subject], check=True, capture_output=True)
    asked = {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "spec": {
            "request": base64.b64encode(request.read_bytes()).decode(),
            "signerName": "kubernetes.io/kube-apiserver-client",
            "usages": ["client auth"],
        },
    }
    for name in ("ann", "refused"):
        web.kubectl("create", "-f", "-", given=json.dumps(asked | {"metadata": {"name": name}}))
    assert web.kubectl("get", "csr", "ann", "--no-headers").split()[-1] == "Pending"
    web.kubectl("certificate", "approve", "ann")
    web.kubectl("certificate", "deny", "refused")
    web.until(lambda: "certificate" in web.get("csr", "ann")["status"], "the signature")
    assert web.kubectl("get", "csr", "ann", "--no-headers").split()[-1] == "Approved,Issued"
    assert web.kubectl("get", "csr", "refused", "--no-headers").split()[-1] == "Denied"
    certificate = tmp_path / "certificate"
    certificate.write_bytes(base64.b64decode(web.get("csr", "ann")["status"]["certificate"]))
    hers = ("--client-certificate", str(certificate), "--client-key", str(key))
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_bytes(web.kubeconfig.read_bytes())
    web.kubectl("--kubeconfig", str(kubeconfig), "config", "set-credentials", "ann", *hers)
    context = web.kubectl("config", "current-context").strip()
    web.kubectl("--kubeconfig", str(kubeconfig), "config", "set-context", context, "--user=ann")
    who = web.kubectl("--kubeconfig", str(kubeconfig), "auth", "whoami")
    assert "ann" in who
    assert "[dev system:authenticated]" in who
    refused = web.kubectl("--kubeconfig", str(kubeconfig), "get", "pods", code=1, both=True)
    assert 'User "ann" cannot list resource "pods"' in refused


def test_a_running_pod_is_resized(web: Cluster) -> None:
    amounts = {"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}}
    web.kubectl("apply", "-f", "-", given=pod("sized", FOREVER, container={"resources": amounts}))
    web.kubectl("wait", "pod/sized", "--for=condition=Ready", "--timeout=60s")

    def resize(cpu: str) -> None:
        resources = {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}}
        patch = {"spec": {"containers": [{"name": "main", "resources": resources}]}}
        web.kubectl("patch", "pod", "sized", "--subresource=resize", "-p", json.dumps(patch))

    resize("300m")
    path = "{.status.containerStatuses[0].resources.limits.cpu}"
    web.kubectl("wait", "pod/sized", f"--for=jsonpath={path}=300m", "--timeout=60s")
    quota = "cat /sys/fs/cgroup/cpu.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null"
    assert web.kubectl("exec", "sized", "--", "sh", "-c", f"{quota}; true").split()[0] == "30000"
    assert web.restarts("sized") == 0
    web.until(lambda: "ResizeCompleted" in web.kubectl("describe", "pod", "sized"), "the event")
    resize("1000")
    web.kubectl("wait", "pod/sized", "--for=condition=PodResizePending", "--timeout=60s")
    pending = [each for each in web.get("pod", "sized")["status"]["conditions"] if each["type"] == "PodResizePending"]
    assert pending[0]["reason"] == "Infeasible"
    web.kubectl("delete", "pod", "sized", "--now")
