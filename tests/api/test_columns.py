"""What `kubectl get` shows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from knarr.api.printing import age, human_duration
from tests.api.made import container, made, resource, workload

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def ago(seconds: float) -> str:
    return (NOW - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def row(kind: str, *, wide: bool = False, **fields: Any) -> dict[str, Any]:
    metadata = {"creationTimestamp": ago(60), **fields.pop("metadata", {})}
    obj = made(kind, metadata=metadata, **fields)
    columns = [column for column in resource(kind).columns if wide or not column.priority]
    return {column.name: column.cell(obj, NOW.timestamp()) for column in columns}


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-5, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119.9, "119s"),
        (120, "2m"),
        (125, "2m5s"),
        (599, "9m59s"),
        (600, "10m"),
        (179 * 60 + 59, "179m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 60, "3h1m"),
        (8 * 3600 + 60, "8h"),
        (47 * 3600 + 3599, "47h"),
        (48 * 3600, "2d"),
        (49 * 3600, "2d1h"),
        (8 * 86400 + 3600, "8d"),
        (729 * 86400, "729d"),
        (730 * 86400, "2y"),
        (731 * 86400, "2y1d"),
        (8 * 365 * 86400 + 86400, "8y"),
    ],
)
def test_ages(seconds: float, shown: str) -> None:
    assert human_duration(seconds) == shown


def test_no_age() -> None:
    assert age(None, NOW.timestamp()) == "<unknown>"


def status_of(name: str = "web", *, ready: bool = False, restarts: int = 0, **more: Any) -> dict[str, Any]:
    return {"name": name, "image": "nginx", "imageID": "", "ready": ready, "restartCount": restarts, **more}


RUNNING = {"running": {}}
DONE = {"terminated": {"exitCode": 0, "reason": "Completed"}}


def pod_row(
    containers: list[dict[str, Any]],
    init: list[dict[str, Any]] | None = None,
    spec: dict[str, Any] | None = None,
    metadata: dict[str, Any] | None = None,
    **status: Any,
) -> tuple[str, str, str]:
    fields = {"phase": "Running", "containerStatuses": containers, "initContainerStatuses": init or [], **status}
    shown = row("Pod", metadata=metadata or {}, spec={"containers": [container()], **(spec or {})}, status=fields)
    return shown["Ready"], shown["Status"], shown["Restarts"]


INIT = {"initContainers": [container(name="a"), container(name="b")]}
SIDECAR = {"initContainers": [container(name="s", restartPolicy="Always")]}
READY = {"conditions": [{"type": "Ready", "status": "True"}]}


@pytest.mark.parametrize(
    ("pod", "shown"),
    [
        ({"containers": [], "phase": "Pending"}, ("0/1", "Pending", "0")),
        ({"containers": [status_of(ready=True, state=RUNNING)]}, ("1/1", "Running", "0")),
        (
            {"containers": [status_of(state={"waiting": {"reason": "ContainerCreating"}})], "phase": "Pending"},
            ("0/1", "ContainerCreating", "0"),
        ),
        (
            {
                "containers": [
                    status_of(
                        restarts=3,
                        state={"waiting": {"reason": "CrashLoopBackOff"}},
                        lastState={"terminated": {"exitCode": 1, "finishedAt": ago(5)}},
                    )
                ]
            },
            ("0/1", "CrashLoopBackOff", "3 (5s ago)"),
        ),
        ({"containers": [status_of(state=DONE)], "phase": "Succeeded"}, ("0/1", "Completed", "0")),
        (
            {"containers": [status_of(state={"terminated": {"exitCode": 1, "reason": "Error"}})], "phase": "Failed"},
            ("0/1", "Error", "0"),
        ),
        ({"containers": [status_of(state={"terminated": {"exitCode": 3}})]}, ("0/1", "ExitCode:3", "0")),
        ({"containers": [status_of(state={"terminated": {"exitCode": 137, "signal": 9}})]}, ("0/1", "Signal:9", "0")),
        (
            {"containers": [status_of(state=DONE), status_of("b", ready=True, state=RUNNING)], **READY},
            ("1/1", "Running", "0"),
        ),
        (
            {"containers": [status_of(state=DONE), status_of("b", ready=True, state=RUNNING)]},
            ("1/1", "NotReady", "0"),
        ),
        (
            {"containers": [], "spec": INIT, "init": [status_of("a", state=RUNNING, restarts=1), status_of("b")]},
            ("0/1", "Init:0/2", "1"),
        ),
        (
            {"containers": [], "spec": INIT, "init": [status_of("a", state=DONE), status_of("b", state=RUNNING)]},
            ("0/1", "Init:1/2", "0"),
        ),
        (
            {
                "containers": [],
                "spec": INIT,
                "init": [status_of("a", state={"waiting": {"reason": "ImagePullBackOff"}})],
            },
            ("0/1", "Init:ImagePullBackOff", "0"),
        ),
        (
            {"containers": [], "spec": INIT, "init": [status_of("a", state={"terminated": {"exitCode": 2}})]},
            ("0/1", "Init:ExitCode:2", "0"),
        ),
        (
            {
                "containers": [status_of(ready=True, state=RUNNING, restarts=1)],
                "spec": INIT,
                "init": [status_of("a", state=DONE, restarts=7), status_of("b", state=DONE)],
            },
            ("1/1", "Running", "1"),
        ),
        (
            {
                "containers": [status_of(ready=True, state=RUNNING)],
                "spec": SIDECAR,
                "init": [status_of("s", ready=True, started=True, state=RUNNING, restarts=2)],
            },
            ("2/2", "Running", "2"),
        ),
        (
            {"containers": [status_of(ready=True, state=RUNNING)], "metadata": {"deletionTimestamp": ago(1)}},
            ("1/1", "Terminating", "0"),
        ),
        (
            {"containers": [status_of(state=DONE)], "phase": "Succeeded", "metadata": {"deletionTimestamp": ago(1)}},
            ("0/1", "Completed", "0"),
        ),
        ({"containers": [], "phase": "Failed", "reason": "Evicted"}, ("0/1", "Evicted", "0")),
        (
            {
                "containers": [],
                "phase": "Pending",
                "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}],
            },
            ("0/1", "SchedulingGated", "0"),
        ),
    ],
)
def test_pods(pod: dict[str, Any], shown: tuple[str, str, str]) -> None:
    assert pod_row(**pod) == shown


def test_wide_pods() -> None:
    spec = {"containers": [container()], "nodeName": "n", "readinessGates": [{"conditionType": "a/b"}]}
    shown = row("Pod", wide=True, spec=spec, status={"podIPs": [{"ip": "10.0.0.1"}]})
    assert list(shown.items())[3:] == [
        ("Age", "60s"),
        ("IP", "10.0.0.1"),
        ("Node", "n"),
        ("Nominated Node", "<none>"),
        ("Readiness Gates", "0/1"),
    ]


def test_workloads() -> None:
    spec = workload(replicas=3)
    status = {"replicas": 3, "readyReplicas": 2, "updatedReplicas": 1, "availableReplicas": 2}
    assert row("Deployment", wide=True, spec=spec, status=status) == {
        "Ready": "2/3",
        "Up-to-date": 1,
        "Available": 2,
        "Age": "60s",
        "Containers": "web",
        "Images": "nginx:1.25",
        "Selector": "app=web",
    }
    status = {"replicas": 3, "readyReplicas": 2}
    assert row("ReplicaSet", spec=spec, status=status) == {"Desired": 3, "Current": 3, "Ready": 2, "Age": "60s"}


@pytest.mark.parametrize(
    ("spec", "status", "shown"),
    [
        (
            {"clusterIP": "10.96.0.7", "ports": [{"port": 80}, {"name": "b", "port": 53, "protocol": "UDP"}]},
            {},
            ("ClusterIP", "10.96.0.7", "<none>", "80/TCP,53/UDP"),
        ),
        ({"clusterIP": "None"}, {}, ("ClusterIP", "None", "<none>", "<none>")),
        (
            {"type": "NodePort", "clusterIP": "10.96.0.7", "ports": [{"port": 80, "nodePort": 30080}]},
            {},
            ("NodePort", "10.96.0.7", "<none>", "80:30080/TCP"),
        ),
        (
            {"type": "LoadBalancer", "clusterIP": "10.96.0.7", "ports": [{"port": 80}]},
            {},
            ("LoadBalancer", "10.96.0.7", "<pending>", "80/TCP"),
        ),
        (
            {"type": "LoadBalancer", "clusterIP": "10.96.0.7", "externalIPs": ["192.0.2.9"]},
            {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}},
            ("LoadBalancer", "10.96.0.7", "192.0.2.1,192.0.2.9", "<none>"),
        ),
        (
            {"type": "ExternalName", "externalName": "example.com"},
            {},
            ("ExternalName", "<none>", "example.com", "<none>"),
        ),
    ],
)
def test_services(spec: dict[str, Any], status: dict[str, Any], shown: tuple[str, ...]) -> None:
    found = row("Service", wide=True, spec={**spec, "selector": {"b": "2", "a": "1"}}, status=status)
    assert tuple(found.values()) == (*shown, "60s", "a=1,b=2")
    assert list(found) == ["Type", "Cluster-IP", "External-IP", "Port(s)", "Age", "Selector"]


def test_nodes() -> None:
    labels = {"node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/control-plane": ""}
    found = row(
        "Node",
        wide=True,
        metadata={"namespace": None, "labels": labels},
        spec={"unschedulable": True},
        status={
            "conditions": [{"type": "Ready", "status": "Unknown"}],
            "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}],
            "nodeInfo": {"kubeletVersion": "v1.36.0", "kernelVersion": "6.1"},
        },
    )
    assert found == {
        "Status": "NotReady,SchedulingDisabled",
        "Roles": "control-plane,worker",
        "Age": "60s",
        "Version": "v1.36.0",
        "Internal-IP": "192.0.2.1",
        "External-IP": "<none>",
        "OS-Image": "<unknown>",
        "Kernel-Version": "6.1",
        "Container-Runtime": "<unknown>",
    }


def test_endpoints_and_slices() -> None:
    addresses = [{"ip": f"10.0.0.{index}"} for index in range(1, 5)]
    subsets = [{"addresses": addresses, "ports": [{"port": 80}]}]
    shown = "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 1 more..."
    assert row("Endpoints", subsets=subsets) == {"Endpoints": shown, "Age": "60s"}
    assert row("Endpoints")["Endpoints"] == "<none>"
    endpoints = [{"addresses": [each["ip"]]} for each in addresses]
    assert row("EndpointSlice", addressType="IPv4", endpoints=endpoints, ports=[{"port": 80}, {"name": "b"}]) == {
        "AddressType": "IPv4",
        "Ports": "80,*",
        "Endpoints": "10.0.0.1,10.0.0.2,10.0.0.3 + 1 more...",
        "Age": "60s",
    }
    assert row("EndpointSlice", addressType="IPv4")["Ports"] == "<unset>"


def test_events() -> None:
    about = {"kind": "Pod", "name": "web", "fieldPath": "spec.containers{web}"}
    old = row(
        "Event",
        wide=True,
        involvedObject=about,
        type="Normal",
        reason="Pulled",
        message="done \n",
        count=4,
        firstTimestamp=ago(300),
        lastTimestamp=ago(5),
        source={"component": "kubelet", "host": "n"},
    )
    assert old == {
        "Last Seen": "5s",
        "Type": "Normal",
        "Reason": "Pulled",
        "Object": "pod/web",
        "Subobject": "spec.containers{web}",
        "Source": "kubelet, n",
        "Message": "done",
        "First Seen": "5m",
        "Count": 4,
        "Name": "web",
    }
    new = row(
        "Event",
        wide=True,
        involvedObject=about,
        eventTime=ago(300).replace("Z", ".000000Z"),
        series={"count": 7, "lastObservedTime": ago(9).replace("Z", ".000000Z")},
        reportingComponent="scheduler",
    )
    assert (new["Last Seen"], new["First Seen"], new["Count"], new["Source"]) == ("9s", "5m", 7, "scheduler")


def test_the_plain_kinds() -> None:
    assert row("Secret", data={"a": ""}) == {"Type": "Opaque", "Data": 1, "Age": "60s"}
    assert row("ConfigMap", data={"a": ""}, binaryData={"b": ""}) == {"Data": 2, "Age": "60s"}
    assert row("Lease", spec={"holderIdentity": "me"}) == {"Holder": "me", "Age": "60s"}
    assert row("Namespace", metadata={"namespace": None}, status={"phase": "Terminating"}) == {
        "Status": "Terminating",
        "Age": "60s",
    }
