"""The life of the process: killed and started anew, held by one, gone without a trace; in both proxy modes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.e2e.conftest import SHOP, Cluster, load, started

URL = "http://127.0.0.1:30080/"


def answer() -> str:
    """What the frontend says; also when it says that it got no answer from the backend (502)."""
    try:
        with urllib.request.urlopen(URL, timeout=30) as found:
            text: str = found.read().decode()
    except urllib.error.HTTPError as complaint:
        with complaint:
            text = complaint.read().decode()
    return text


def iptables_are_free() -> bool:
    listed = subprocess.run(["iptables-save"], capture_output=True, text=True, check=False).stdout
    return "KUBE-" not in listed


def containers(cluster: Cluster) -> dict[str, tuple[str, int]]:
    """Pod → container id and restart count."""
    pods = cluster.get("pods", "-n", "shop")["items"]
    statuses = {pod["metadata"]["name"]: pod["status"]["containerStatuses"][0] for pod in pods}
    return {name: (status["containerID"], status["restartCount"]) for name, status in statuses.items()}


@pytest.mark.parametrize("mode", ["nftables", "iptables"])
def test_a_killed_process_comes_back_to_its_containers_and_leaves_nothing_at_the_end(
    mode: str, tmp_path: Path, archives: list[str]
) -> None:
    if mode == "iptables" and not iptables_are_free():
        pytest.skip("chains named KUBE-… are on this machine: its own kube-proxy's, or another test's")
    leftovers = load("leftovers")
    cluster = Cluster(tmp_path, mode)
    before = leftovers.snapshot(cluster.data, cluster.bridge)
    run = started(cluster, archives)
    next(run)
    cluster.kubectl("apply", "-f", str(SHOP))
    for name in ("backend", "frontend"):
        cluster.kubectl("rollout", "status", "-n", "shop", f"deploy/{name}", "--timeout=40s")
    cluster.until(lambda: "backend v1" in answer(), "an answer")
    there = containers(cluster)
    assert len(there) == 5

    second = cluster.knarr("up", "--listen", "127.0.0.1:0", *cluster.flags, check=False)
    assert second.returncode == 1
    assert "is held by process" in second.stdout + second.stderr
    assert "ready" in cluster.knarr("status").stdout

    held = cluster.knarr("status", "-o", "json").stdout
    pid = int(json.loads(held)["pid"])
    os.kill(pid, signal.SIGKILL)
    cluster.until(lambda: cluster.knarr("status", check=False).returncode == 3, "the process's end")
    assert "frontend v1" in answer()  # rules and containers don't need the process
    cluster.up()
    assert containers(cluster) == there
    cluster.until(lambda: "backend v1" in answer(), "an answer")

    cluster.knarr("down", "--purge")
    with pytest.raises(StopIteration):
        next(run)
    assert leftovers.left(before, leftovers.snapshot(cluster.data, cluster.bridge)) == []
    assert not cluster.data.exists()
    assert "knarr" not in cluster.kubeconfig.read_text()


@pytest.mark.parametrize("killed", [False, True], ids=["its process runs", "its process was killed"])
def test_a_data_folder_that_was_deleted_by_hand_leaves_nothing_once_the_cluster_is_taken_down(
    killed: bool, tmp_path: Path, archives: list[str]
) -> None:
    leftovers = load("leftovers")
    cluster = Cluster(tmp_path)
    before = leftovers.snapshot(cluster.data, cluster.bridge)
    run = started(cluster, archives)
    next(run)
    cluster.kubectl("apply", "-f", str(SHOP))
    cluster.kubectl("rollout", "status", "-n", "shop", "deploy/backend", "--timeout=40s")
    pid = int(json.loads(cluster.knarr("status", "-o", "json").stdout)["pid"])
    if killed:
        os.kill(pid, signal.SIGKILL)
        cluster.until(lambda: cluster.knarr("status", check=False).returncode == 3, "the process's end")
    shutil.rmtree(cluster.data, ignore_errors=True)
    assert not (cluster.data / "running.json").exists()

    down = cluster.knarr("down", "--purge")
    said = f"knarr: {cluster.data} was deleted while process {pid} runs on it; the process is told to end\n"
    assert down.stderr == ("" if killed else said)
    with pytest.raises(StopIteration):
        next(run)
    assert leftovers.left(before, leftovers.snapshot(cluster.data, cluster.bridge)) == []
    assert not cluster.data.exists()
    assert "knarr" not in cluster.kubeconfig.read_text()
