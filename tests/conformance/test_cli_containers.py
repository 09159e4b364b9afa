"""sig-cli: commands of kubectl on pods that run, and applications that are made by it."""

from __future__ import annotations

import json
import re
import time
from datetime import datetime
from typing import Any

from tests.conformance.image import ONE, PORT, TWO
from tests.conformance.space import Space, listed


def labelled(kind: str, name: str, labels: dict[str, str], spec: dict[str, Any]) -> dict[str, Any]:
    version = "apps/v1" if kind == "Deployment" else "v1"
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": labels}, "spec": spec}


def container(role: str = "", image: str = ONE) -> dict[str, Any]:
    env = [
        {"name": "ROLE", "value": role},
        {"name": "ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    ]
    probe = {"tcpSocket": {"port": PORT}, "periodSeconds": 1}
    ports = [{"name": "serves", "containerPort": PORT}]
    return {"name": "serving", "image": image, "env": env, "ports": ports, "readinessProbe": probe}


def pods_of(labels: dict[str, str], role: str = "") -> dict[str, Any]:
    spec = {"containers": [container(role)], "terminationGracePeriodSeconds": 1}
    return {"metadata": {"labels": labels}, "spec": spec}


def controller(name: str, replicas: int, labels: dict[str, str]) -> dict[str, Any]:
    spec = {"replicas": replicas, "selector": labels, "template": pods_of(labels)}
    return labelled("ReplicationController", name, labels, spec)


def service(name: str, labels: dict[str, str]) -> dict[str, Any]:
    return labelled("Service", name, labels, {"selector": labels, "ports": [{"port": PORT, "targetPort": "serves"}]})


NAUTILUS = {"name": "update-demo", "version": "nautilus"}
PRIMARY = {"app": "agnhost", "role": "primary"}


def primary(space: Space) -> str:
    """A ReplicationController of one pod, and the Service before it; answers the pod's name."""
    space.apply(controller("agnhost-primary", 1, PRIMARY), service("agnhost-primary", PRIMARY))
    (name,) = space.running("app=agnhost", 1)
    return name


# Applications


def test_a_guestbook_keeps_what_is_written_into_it(space: Space) -> None:
    """[sig-cli] Kubectl client Guestbook application should create and stop a working application"""
    objects = []
    for role, replicas in (("primary", 1), ("replica", 2), ("frontend", 2)):
        labels = {"app": "guestbook", "tier": role}
        spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": pods_of(labels, role)}
        objects += [labelled("Deployment", role, labels, spec), service(role, labels)]
    space.apply(*objects)
    for role, replicas in (("primary", 1), ("replica", 2), ("frontend", 2)):
        space.running(f"tier={role}", replicas)
    path = f"/api/v1/namespaces/{space.name}/services/frontend:{PORT}/proxy/cgi-bin/guestbook"

    def ask(query: str) -> str:
        return space.cluster.kubectl("get", "--raw", f"{path}?{query}").strip()

    space.until(lambda: ask("cmd=get&key=messages") == "", "an answer of the frontend")
    assert ask("cmd=set&key=messages&value=TestEntry") == "kept\nkept"
    assert {ask("cmd=get&key=messages") for _ in range(6)} == {"TestEntry"}
    space.run("delete", "--grace-period=0", "--force", "-f", "-", given=listed(objects))
    space.until(lambda: not space.get("deployments,services,pods")["items"], "nothing left")


def serve_their_page(space: Space, names: list[str]) -> None:
    for name in names:
        pod = space.get("pod", name)
        assert pod["spec"]["containers"][0]["image"] == ONE
        assert space.page(name, "/index.html") == ONE


def test_a_replication_controller_is_made_and_removed(space: Space) -> None:
    """[sig-cli] Kubectl client Update Demo should create and stop a replication controller"""
    demo = controller("update-demo-nautilus", 2, NAUTILUS)
    space.apply(demo)
    serve_their_page(space, space.running("name=update-demo", 2))
    space.run("delete", "--grace-period=0", "--force", "-f", "-", given=json.dumps(demo))
    listed = space.run("get", "rc,svc", "-l", "name=update-demo", "--no-headers", both=True)
    assert listed == f"No resources found in {space.name} namespace.\n"
    space.until(lambda: not space.get("pods", "-l", "name=update-demo")["items"], "no pods")


def test_a_replication_controller_is_scaled_down_and_up(space: Space) -> None:
    """[sig-cli] Kubectl client Update Demo should scale a replication controller"""
    space.apply(controller("update-demo-nautilus", 2, NAUTILUS))
    first = space.running("name=update-demo", 2)
    serve_their_page(space, first)
    scaled = "replicationcontroller/update-demo-nautilus scaled\n"
    assert space.run("scale", "rc", "update-demo-nautilus", "--replicas=1", "--timeout=1m") == scaled
    (left,) = space.running("name=update-demo", 1)
    assert left in first
    assert space.run("scale", "rc", "update-demo-nautilus", "--replicas=2", "--timeout=1m") == scaled
    names = space.running("name=update-demo", 2)
    assert left in names
    serve_their_page(space, names)


# What is shown


def describe(space: Space, kind: str, name: str, *wanted: tuple[str, ...]) -> None:
    """Until each line of words is somewhere, in that order on one line: endpoints and events come after the pod."""

    def missing() -> list[tuple[str, ...]]:
        text = space.run("describe", kind, name)
        return [words for words in wanted if not re.search(r"[^\n]*".join(map(re.escape, words)), text)]

    space.until(lambda: not missing(), f"all of {wanted} of {kind} {name}")


def test_describe_tells_what_there_is_to_know(space: Space) -> None:
    """[sig-cli] Kubectl client Kubectl describe should check if kubectl describe prints relevant information for rc
    and pods"""
    name = primary(space)
    node = space.get("pod", name)["spec"]["nodeName"]
    describe(
        space,
        "pod",
        name,
        ("Name:", "agnhost-primary-"),
        ("Namespace:", space.name),
        ("Node:", node),
        ("Labels:", "app=agnhost"),
        ("role=primary",),
        ("Annotations:",),
        ("Status:", "Running"),
        ("IP:",),
        ("Controlled By:", "ReplicationController/agnhost-primary"),
        ("Image:", ONE),
        ("State:", "Running"),
        ("QoS Class:", "BestEffort"),
        ("Normal", "Scheduled", f"Successfully assigned {space.name}/{name} to {node}"),
        ("Normal", "Started"),
    )
    describe(
        space,
        "rc",
        "agnhost-primary",
        ("Name:", "agnhost-primary"),
        ("Namespace:", space.name),
        ("Selector:", "app=agnhost,role=primary"),
        ("Labels:", "app=agnhost"),
        ("role=primary",),
        ("Annotations:",),
        ("Replicas:", "1 current", "1 desired"),
        ("Pods Status:", "1 Running", "0 Waiting", "0 Succeeded", "0 Failed"),
        ("Pod Template:",),
        ("Image:", ONE),
        ("Events:",),
        ("replication-controller", f"Created pod: {name}"),
    )
    describe(
        space,
        "service",
        "agnhost-primary",
        ("Name:", "agnhost-primary"),
        ("Namespace:", space.name),
        ("Labels:", "app=agnhost"),
        ("role=primary",),
        ("Annotations:",),
        ("Selector:", "app=agnhost", "role=primary"),
        ("Type:", "ClusterIP"),
        ("IP:",),
        ("Port:", "<unset>", f"{PORT}/TCP"),
        ("Endpoints:", f":{PORT}"),
        ("Session Affinity:", "None"),
    )
    describe(
        space,
        "node",
        node,
        ("Name:", node),
        ("Labels:",),
        ("Annotations:",),
        ("CreationTimestamp:",),
        ("Conditions:",),
        ("Type", "Status", "LastHeartbeatTime", "LastTransitionTime", "Reason", "Message"),
        ("Ready", "True"),
        ("Addresses:",),
        ("Capacity:",),
        ("Kernel Version:",),
        ("Container Runtime Version:",),
        ("Kubelet Version:", "v1.36"),
        ("Non-terminated Pods:",),
        (space.name, name),
    )
    describe(
        space,
        "namespace",
        space.name,
        ("Name:", space.name),
        ("Labels:", f"kubernetes.io/metadata.name={space.name}"),
        ("Annotations:",),
        ("Status:", "Active"),
        ("No resource quota.",),
        ("No LimitRange resource.",),
    )


def test_logs_are_filtered(space: Space) -> None:
    """[sig-cli] Kubectl logs logs should be able to retrieve and filter logs"""
    script = "for i in $(seq 1 200); do echo /api/v1/namespaces/default/pods/$i; sleep 0.1; done"
    space.run("run", "logs-generator", f"--image={ONE}", "--restart=Never", "--command", "--", "sh", "-c", script)
    logs = ("logs", "logs-generator", "-c", "logs-generator")
    space.run("wait", "pod/logs-generator", "--for=condition=Ready", "--timeout=60s")
    first = re.compile(r"/api/v1/namespaces/[a-z-]+/pods/1\n")
    space.until(lambda: first.match(space.run(*logs)), "the first line")
    line = space.run(*logs, "--tail=1")
    assert line.count("\n") == 1
    assert line.startswith("/api/")
    assert space.run(*logs, "--limit-bytes=1") == "/"
    stamped = space.run(*logs, "--tail=1", "--timestamps")
    assert stamped.count("\n") == 1
    stamp, text = stamped.split(" ", 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(Z|[+-]\d\d:\d\d)", stamp)
    assert datetime.fromisoformat(stamp[:19])
    assert text.startswith("/api/")

    def written_s(line: str) -> float:
        return datetime.fromisoformat(line.split(" ", 1)[0]).timestamp()

    space.until(lambda: time.time() - written_s(space.run(*logs, "--timestamps")) > 2.0, "a first line of long ago")
    asked_s = time.time()
    recent = space.run(*logs, "--since=1s", "--timestamps").splitlines()
    older = space.run(*logs, "--since=24h").splitlines()
    assert all(written_s(line) > asked_s - 1.0 for line in recent)
    assert len(recent) < len(older)
    assert older[0].endswith("/1")
    space.run("delete", "pod", "logs-generator", "--now")


# What is changed


def endpoints(space: Space, name: str) -> list[tuple[str, int]]:
    """Addresses and ports of a service's ready endpoints."""
    slices = space.get("endpointslices", "-l", f"kubernetes.io/service-name={name}")["items"]
    return [
        (address, port["port"])
        for piece in slices
        for endpoint in piece["endpoints"]
        if endpoint["conditions"].get("ready")
        for address in endpoint["addresses"]
        for port in piece["ports"]
    ]


def test_expose_makes_services_of_what_runs(space: Space) -> None:
    """[sig-cli] Kubectl client Kubectl expose should create services for rc"""
    space.apply(controller("agnhost-primary", 1, PRIMARY))
    (name,) = space.running("app=agnhost", 1)
    address = space.get("pod", name)["status"]["podIP"]
    for made, of, port in (("rm2", ("rc", "agnhost-primary"), 1234), ("rm3", ("service", "rm2"), 2345)):
        space.run("expose", *of, f"--name={made}", f"--port={port}", f"--target-port={PORT}")
        space.until(lambda made=made: endpoints(space, made) == [(address, PORT)], f"endpoints of {made}")
        (exposed,) = space.get("service", made)["spec"]["ports"]
        assert (exposed["port"], exposed["targetPort"]) == (port, PORT)
        fetch = ("exec", name, "--", "wget", "-q", "-O", "-", f"http://{made}:{port}/index.html")
        space.until(lambda fetch=fetch: space.run(*fetch) == ONE, f"the page by way of {made}")


def sleeping(space: Space, name: str) -> None:
    script = "trap 'exit 0' TERM; sleep 600 & wait"
    space.run("run", name, f"--image={ONE}", "--labels", f"run={name}", "--command", "--", "sh", "-c", script)
    space.run("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=60s")


def test_a_label_is_put_on_a_running_pod_and_taken_off(space: Space) -> None:
    """[sig-cli] Kubectl client Kubectl label should update the label on a resource"""
    sleeping(space, "pause")
    space.run("label", "pods", "pause", "testing-label=testing-label-value")
    assert "testing-label-value" in space.run("get", "pod", "pause", "-L", "testing-label")
    space.run("label", "pods", "pause", "testing-label-")
    assert "testing-label-value" not in space.run("get", "pod", "pause", "-L", "testing-label")
    assert space.run("get", "pods", "-l", "testing-label", "-o", "name") == ""


def test_annotations_are_patched_onto_the_pods_of_a_controller(space: Space) -> None:
    """[sig-cli] Kubectl client Kubectl patch should add annotations for pods in rc"""
    space.apply(controller("agnhost-primary", 2, PRIMARY))
    names = space.running("app=agnhost", 2)
    for name in names:
        space.run("patch", "pod", name, "-p", '{"metadata":{"annotations":{"x":"y"}}}')
    assert sorted(space.running("app=agnhost", 2)) == sorted(names)
    assert [pod["metadata"]["annotations"]["x"] for pod in space.get("pods", "-l", "app=agnhost")["items"]] == ["y"] * 2


def test_replace_changes_the_image_of_a_running_pod(space: Space) -> None:
    """[sig-cli] Kubectl client Kubectl replace should update a single-container pod's image"""
    sleeping(space, "httpd")
    before = space.get("pod", "httpd")
    wanted = json.loads(json.dumps(before))
    wanted["spec"]["containers"][0]["image"] = TWO
    space.run("replace", "-f", "-", given=json.dumps(wanted))
    assert space.get("pod", "httpd")["spec"]["containers"][0]["image"] == TWO

    def status() -> dict[str, Any]:
        found: dict[str, Any] = space.get("pod", "httpd")["status"]["containerStatuses"][0]
        return found

    space.until(lambda: status()["image"].endswith(TWO) and status()["ready"], "the container of the other image")
    assert space.run("exec", "httpd", "--", "cat", "/www/index.html") == TWO
    wanted["spec"]["containers"][0]["image"] = ONE
    del wanted["metadata"]["resourceVersion"]
    space.run("replace", "--force", "--grace-period=0", "-f", "-", given=json.dumps(wanted))
    space.run("wait", "pod/httpd", "--for=condition=Ready", "--timeout=60s")
    again = space.get("pod", "httpd")
    assert again["spec"]["containers"][0]["image"] == ONE
    assert again["metadata"]["uid"] != before["metadata"]["uid"]
