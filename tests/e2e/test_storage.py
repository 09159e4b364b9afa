"""Claims with real containers: what is written stays, and goes when it is to go."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.e2e.conftest import Cluster
from tests.storage import claim, volume


def stateful_set(image: str, **retention: str) -> str:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Mi"}}}
    write = "[ -e /data/file ] || echo $HOSTNAME > /data/file; exec sleep 1000"
    container = {
        "name": "c",
        "image": image,
        "command": ["sh", "-c", write],
        "securityContext": {"runAsUser": 1000},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    pod = {"containers": [container], "securityContext": {"fsGroup": 2000}, "terminationGracePeriodSeconds": 1}
    text = msgspec.json.encode(
        {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": {"name": "db"},
            "spec": {
                "replicas": 1,
                "serviceName": "db",
                "selector": {"matchLabels": {"app": "db"}},
                "template": {"metadata": {"labels": {"app": "db"}}, "spec": pod},
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": spec}],
                "persistentVolumeClaimRetentionPolicy": retention,
            },
        }
    )
    return text.decode()


def test_a_stateful_set_finds_its_file_again_and_the_folder_goes_with_it(cluster: Cluster, tools: str) -> None:
    cluster.kubectl("apply", "-f", "-", given=stateful_set(tools, whenDeleted="Delete"))
    cluster.kubectl("rollout", "status", "statefulset/db", "--timeout=55s")
    (name,) = [each["metadata"]["name"] for each in cluster.get("pv")["items"]]
    folder = cluster.data / "volumes" / name
    file = folder / "file"
    assert file.read_text() == "db-0\n"
    assert file.stat().st_uid == 1000
    assert folder.stat().st_gid == 2000
    assert "Used By:       db-0" in cluster.kubectl("describe", "pvc", "data-db-0")
    cluster.kubectl("scale", "statefulset/db", "--replicas=0")
    cluster.until(lambda: not cluster.get("pods", "-l", "app=db")["items"], "no pod is left")
    file.write_text("changed\n")
    cluster.kubectl("scale", "statefulset/db", "--replicas=1")
    cluster.kubectl("rollout", "status", "statefulset/db", "--timeout=55s")
    assert cluster.kubectl("exec", "db-0", "--", "cat", "/data/file") == "changed\n"
    cluster.kubectl("delete", "statefulset", "db")
    cluster.until(lambda: not cluster.get("pvc,pv")["items"], "the claim and its volume are gone")
    assert not folder.exists()


def test_a_folder_of_the_host_is_had_through_a_claim(cluster: Cluster, tools: str, tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "greeting").write_text("hello\n")
    given = [volume(hostPath={"path": str(tmp_path)}), claim()]
    for each in given:
        cluster.kubectl("apply", "-f", "-", given=msgspec.json.encode(each).decode())
    mounts = [
        {"name": "v", "mountPath": "/whole"},
        {"name": "v", "mountPath": "/part", "subPath": "part", "readOnly": True},
    ]
    script = "cat /part/greeting; touch /whole/written; touch /part/refused 2>&1; echo $?"
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "reader"},
        "spec": {
            "restartPolicy": "Never",
            "containers": [{"name": "c", "image": tools, "command": ["sh", "-c", script], "volumeMounts": mounts}],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}],
        },
    }
    cluster.kubectl("apply", "-f", "-", given=msgspec.json.encode(pod).decode())
    cluster.kubectl("wait", "pod/reader", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=55s")
    assert cluster.kubectl("logs", "reader").splitlines()[0] == "hello"
    assert cluster.kubectl("logs", "reader").splitlines()[-1] == "1"
    assert (tmp_path / "written").exists()
    assert not (tmp_path / "part" / "refused").exists()
    cluster.kubectl("delete", "pod/reader", "pvc/data")
    cluster.kubectl("wait", "pv/disk", "--for=jsonpath={.status.phase}=Released", "--timeout=55s")
    assert (tmp_path / "part" / "greeting").exists()


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ({"nfs": {"server": "files", "path": "/"}}, 'volumes of kind "nfs" are not served by this node'),
        ({"local": {"path": "/nowhere/at/all"}, "node": "NODE"}, 'path "/nowhere/at/all" does not exist'),
        ({"volumeMode": "Block"}, 'volumes of mode "Block" are not served by this node'),
    ],
)
def test_what_a_node_cannot_mount_is_told(cluster: Cluster, tools: str, source: dict[str, object], why: str) -> None:
    (node,) = [each["metadata"]["name"] for each in cluster.get("nodes")["items"]]
    fields = {"hostPath": {"path": "/srv"} if "volumeMode" in source else None, **source}
    if "node" in fields:
        fields["node"] = node
    mode = source.get("volumeMode", "Filesystem")
    for each in (volume("odd", **fields), claim("odd", volumeMode=mode)):  # type: ignore[arg-type]
        cluster.kubectl("apply", "-f", "-", given=msgspec.json.encode(each).decode())
    used = {"volumeDevices": [{"name": "v", "devicePath": "/dev/x"}]} if mode == "Block" else {}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "odd"},
        "spec": {
            "containers": [{"name": "c", "image": tools, **used}],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "odd"}}],
        },
    }
    cluster.kubectl("apply", "-f", "-", given=msgspec.json.encode(pod).decode())
    events = "get", "events", "--field-selector", "reason=FailedMount", "-o", "jsonpath={.items[*].message}"
    cluster.until(lambda: why in cluster.kubectl(*events), "FailedMount is told")
    cluster.kubectl("delete", "pod/odd", "pvc/odd", "pv/odd", "--grace-period=0", "--force")
