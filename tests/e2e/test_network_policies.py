"""NetworkPolicies as their users have them: kubectl, real pods, names and Services."""

from __future__ import annotations

import subprocess

import pytest

from tests.e2e.conftest import COMMAND_S_MAX, TOOLS, Cluster

PODS = """
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers:
  - {name: web, image: IMAGE, command: [sh, -c, "echo hello > /tmp/index.html; exec httpd -f -p 8080 -h /tmp"],
     ports: [{name: http, containerPort: 8080}], readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Pod
metadata: {name: friend, labels: {app: friend}}
spec: {containers: [{name: main, image: IMAGE, command: [sh, -c, "trap 'exit 0' TERM; sleep 100000 & wait"]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: stranger, labels: {app: stranger}}
spec: {containers: [{name: main, image: IMAGE, command: [sh, -c, "trap 'exit 0' TERM; sleep 100000 & wait"]}]}
""".replace("IMAGE", TOOLS)

CLOSED = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
"""

OPEN_TO_FRIENDS = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: friends}
spec:
  podSelector: {}
  ingress:
  - from: [{podSelector: {matchLabels: {app: friend}}}]
    ports: [{port: http}]
  egress:
  - to: [{podSelector: {}}]
  - to: [{namespaceSelector: {}, podSelector: {matchLabels: {k8s-app: kube-dns}}}]
    ports: [{protocol: UDP, port: 53}]
"""

ASK = "timeout 2 wget -qO- http://web"
"""As a pod asks: the name, the Service's address, a pod behind it."""


@pytest.fixture
def pods(cluster: Cluster, tools: str) -> Cluster:
    cluster.kubectl("apply", "-f", "-", given=PODS)
    cluster.kubectl("wait", "--for=condition=ready", "pod", "web", "friend", "stranger", "--timeout=60s")
    return cluster


def asks(cluster: Cluster, pod: str) -> str:
    """What a pod gets; empty when nothing comes."""
    command = ["kubectl", "--kubeconfig", str(cluster.kubeconfig), "exec", pod, "--", "sh", "-c", ASK]
    return subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S_MAX, check=False).stdout.strip()


def test_a_closed_namespace_opens_to_whom_its_policies_name(pods: Cluster) -> None:
    for name in ("friend", "stranger"):
        pods.until(lambda name=name: asks(pods, name) == "hello", f"open to {name}")
    pods.kubectl("apply", "-f", "-", given=CLOSED)
    for name in ("friend", "stranger"):
        pods.until(lambda name=name: asks(pods, name) == "", f"closed to {name}")
    pods.kubectl("apply", "-f", "-", given=OPEN_TO_FRIENDS)
    pods.until(lambda: asks(pods, "friend") == "hello", "open to friends")
    assert asks(pods, "stranger") == ""
    pods.kubectl("label", "pod", "stranger", "app=friend", "--overwrite")
    pods.until(lambda: asks(pods, "stranger") == "hello", "a stranger no longer")
    assert pods.get("pod", "web")["status"]["containerStatuses"][0]["ready"], "the node's probes always pass"
    pods.kubectl("delete", "networkpolicy", "closed", "friends")
    pods.until(lambda: asks(pods, "friend") == "hello", "open again")
