"""kubectl debug, cp, attach, run, exec and port-forward: everything that opens a stream into a container."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.conftest import Cluster
from tests.e2e.test_kubectl import pod

SLEEP = "trap 'exit 0' TERM; echo begun; while :; do sleep 3600 & wait $!; done"


@pytest.fixture(scope="module")
def target(cluster: Cluster, tools: str) -> Cluster:
    """The cluster with a pod that sleeps."""
    cluster.kubectl("apply", "-f", "-", given=pod("target", SLEEP, container={"image": tools}))
    cluster.kubectl("wait", "pod/target", "--for=condition=Ready", "--timeout=60s")
    return cluster


SIZED = "for i in $(seq 300); do [ \"$(stty size)\" = '33 '77 ] && break; sleep 0.1; done; stty size"
"""Tells the size once it has arrived: it comes beside what is typed, not before it. As it is shown, it is no size."""


def in_terminal(cluster: Cluster, *arguments: str, typed: str, rows: int = 33, columns: int = 77) -> str:
    """What a terminal of that size shows when a command runs in it and somebody types."""
    primary, secondary = pty.openpty()
    fcntl.ioctl(secondary, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    line = ["kubectl", "--kubeconfig", str(cluster.kubeconfig), *arguments]
    running = subprocess.Popen(line, stdin=secondary, stdout=secondary, stderr=secondary, start_new_session=True)
    os.close(secondary)
    shown = b""
    typed_yet = False
    while True:
        try:
            piece = os.read(primary, 4096)
        except OSError:  # how a terminal ends
            break
        shown += piece
        if not piece:
            break
        if not typed_yet and b"# " in shown:
            os.write(primary, typed.encode())
            typed_yet = True
    os.close(primary)
    running.wait(60)
    return shown.decode(errors="replace").replace("\r", "")


@contextmanager
def running(cluster: Cluster, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command that goes on until the test has seen enough."""
    line = ["kubectl", "--kubeconfig", str(cluster.kubeconfig), *arguments]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_an_ephemeral_container_looks_into_its_target(target: Cluster, tools: str) -> None:
    flags = ("debug", "target", "--image", tools, "--target=main", "--profile=general", "-i", "-q", "-c", "look")
    # It speaks when it is spoken to: what it says before somebody is attached, he does not hear.
    script = "read word; ps -o args; cat /proc/1/root/etc/hostname"
    seen = target.kubectl(*flags, "--", "sh", "-c", script, given="go\n")
    assert "sleep 3600" in seen
    assert seen.endswith("target\n")
    described = target.kubectl("describe", "pod", "target")
    assert "Ephemeral Containers:" in described
    target.until(lambda: "Reason:       Completed" in target.kubectl("describe", "pod", "target"), "its end")
    assert target.kubectl("logs", "target", "-c", "look") == seen
    status = target.get("pod", "target")["status"]
    assert status["ephemeralContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 0
    assert status["phase"] == "Running"
    refused = target.kubectl(
        "debug", "target", "--image", tools, "--target=nobody", "--profile=general", code=1, both=True
    )
    assert 'spec.ephemeralContainers[1].targetContainerName: Not found: "nobody"' in refused


def test_a_copy_shares_its_processes(target: Cluster, tools: str) -> None:
    flags = ("--copy-to=copy", "--share-processes", "--profile=general", "--attach=false", "-c", "look")
    target.kubectl("debug", "target", "--image", tools, *flags, "--", "sleep", "1000")
    target.kubectl("wait", "pod/copy", "--for=condition=Ready", "--timeout=60s")
    seen = target.kubectl("exec", "copy", "-c", "look", "--", "ps", "-o", "args")
    assert "sleep 3600" in seen
    assert "sleep 1000" in seen
    target.kubectl("delete", "pod", "copy", "--now")


def test_a_debugger_of_the_node_sees_the_machine(target: Cluster, tools: str) -> None:
    node = target.kubectl("get", "nodes", "-o", "name").strip()
    script = "test -d /host/proc/1 && cat /host/etc/hostname; ls /proc/1/ns >/dev/null && echo sees 1"
    target.kubectl("debug", node, "--image", tools, "--profile=sysadmin", "--attach=false", "--", "sh", "-c", script)
    name = target.kubectl("get", "pods", "-o", "name").split("node-debugger")[1].split()[0]
    name = f"node-debugger{name}"
    target.until(lambda: target.get("pod", name)["status"].get("phase") == "Succeeded", "its end")
    assert target.kubectl("logs", name) == f"{Path('/etc/hostname').read_text()}sees 1\n"
    spec = target.get("pod", name)["spec"]
    assert (spec["hostPID"], spec["hostNetwork"], spec["hostIPC"]) == (True, True, True)
    target.kubectl("delete", "pod", name, "--now")


def test_files_are_copied_both_ways(target: Cluster, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "big").write_bytes(os.urandom(3 << 20))
    (folder / "small").write_text("small\n")
    target.kubectl("cp", str(folder), "target:/tmp/folder")
    assert target.kubectl("exec", "target", "--", "cat", "/tmp/folder/small") == "small\n"
    target.kubectl("cp", "target:/tmp/folder", str(tmp_path / "back"))
    assert (tmp_path / "back" / "big").read_bytes() == (folder / "big").read_bytes()
    # Not by cp: busybox' tar ends its archive even then, and kubectl leaves with it, at times before it printed why.
    missing = target.kubectl("exec", "target", "--", "tar", "cf", "-", "/no/such", code=1, both=True)
    assert "tar: /no/such: No such file or directory" in missing


def test_a_terminal_has_its_size_and_follows_it(target: Cluster) -> None:
    shown = in_terminal(target, "exec", "-it", "target", "--", "sh", typed=f"{SIZED}; exit 7\n")
    assert "\n33 77\n" in shown
    assert "exit code 7" in shown


def test_one_attaches_to_a_terminal_and_to_plain_input(cluster: Cluster, tools: str) -> None:
    flags = ("--image", tools, "--restart=Never", "--attach=false")
    cluster.kubectl("run", "screen", "-it", *flags, "--command", "--", "sh")
    cluster.kubectl("run", "plain", "-i", *flags, "--command", "--", "sh", "-c", "while read x; do echo got $x; done")
    cluster.kubectl("wait", "pod/screen", "pod/plain", "--for=condition=Ready", "--timeout=60s")
    shown = in_terminal(cluster, "attach", "-it", "screen", typed=f"echo $((6*7)); {SIZED}; exit\n")
    assert "42\n33 77" in shown
    assert "got one\n" in cluster.kubectl("attach", "-i", "plain", "-q", given="one\n")
    cluster.until(lambda: cluster.get("pod", "plain")["status"]["phase"] == "Succeeded", "the end of its input")
    refused = cluster.kubectl("attach", "plain", code=1, both=True)
    assert "cannot attach a container in a completed pod" in refused
    cluster.kubectl("delete", "pod", "screen", "plain", "--now")


def test_run_and_remove(cluster: Cluster, tools: str) -> None:
    flags = ("--image", tools, "--restart=Never", "-i", "--rm", "-q")
    assert cluster.kubectl("run", "once", *flags, "--command", "--", "cat", given="through\n") == "through\n"
    assert not cluster.kubectl("get", "pod", "once", "--ignore-not-found")
    failed = cluster.kubectl("run", "fails", *flags, "--command", "--", "sh", "-c", "exit 3", code=3, both=True)
    assert "terminated (Error)" in failed or not failed.strip()


def test_ports_are_forwarded(target: Cluster) -> None:
    target.kubectl("run", "web", "--image=shop-backend:v1", "--port=80", "--expose")
    target.kubectl("wait", "pod/web", "--for=condition=Ready", "--timeout=60s")
    for what, port in (("pod/web", 80), ("svc/web", 80)):
        with running(target, "port-forward", what, f":{port}") as forward:
            assert forward.stdout
            found = re.search(r"127\.0\.0\.1:(\d+)", forward.stdout.readline())
            assert found
            for _ in range(3):
                with urllib.request.urlopen(f"http://127.0.0.1:{found[1]}/", timeout=20) as answer:
                    assert b"backend v1" in answer.read()
    with running(target, "port-forward", "pod/web", ":81") as forward:
        assert forward.stdout
        found = re.search(r"127\.0\.0\.1:(\d+)", forward.stdout.readline())
        assert found
        with pytest.raises(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{found[1]}/", timeout=20)
        said = forward.stdout.read()
    assert "error forwarding port 81 to pod" in said
    assert "failed to connect to localhost:81 inside namespace" in said
    target.kubectl("delete", "pod,svc", "web", "--now")


def test_the_api_and_what_runs_are_reached_by_a_local_proxy(target: Cluster) -> None:
    with running(target, "proxy", "--port=0") as proxy:
        assert proxy.stdout
        found = re.search(r"127\.0\.0\.1:\d+", proxy.stdout.readline())
        assert found
        with urllib.request.urlopen(f"http://{found[0]}/api/v1/namespaces/default/pods/target", timeout=20) as answer:
            assert b'"name":"target"' in answer.read()


def test_an_older_kubectl_is_told_that_streams_are_websockets(target: Cluster) -> None:
    old = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false", "KUBECTL_PORT_FORWARD_WEBSOCKETS": "false"}
    for command in (("exec", "target", "--", "true"), ("port-forward", "pod/target", ":80")):
        said = target.kubectl(*command, code=1, both=True, **old)
        assert "this must be a WebSocket" in said
