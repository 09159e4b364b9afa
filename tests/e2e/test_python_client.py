"""The official Python client against a real cluster."""

from __future__ import annotations

import pytest
from kubernetes import client, config, watch
from kubernetes.stream import stream

from tests.e2e.conftest import Cluster


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves its sockets to the collector
def test_the_official_client_works_unchanged(cluster: Cluster) -> None:
    configuration = client.Configuration()
    config.load_kube_config(str(cluster.kubeconfig), client_configuration=configuration)
    with client.ApiClient(configuration) as api:
        core = client.CoreV1Api(api)
        assert client.VersionApi(api).get_code().minor == "36"
        assert {each.metadata.name for each in core.list_namespace().items} >= {"default", "kube-system"}
        container = client.V1Container(
            name="main", image="shop-backend:v1", command=["sh", "-c", "echo hello; sleep 600"]
        )
        body = client.V1Pod(
            metadata=client.V1ObjectMeta(name="py", labels={"app": "py"}),
            spec=client.V1PodSpec(containers=[container], termination_grace_period_seconds=0),
        )
        made = core.create_namespaced_pod("default", body)
        phases = []
        for event in watch.Watch().stream(
            core.list_namespaced_pod,
            "default",
            label_selector="app=py",
            resource_version=made.metadata.resource_version,
            timeout_seconds=30,
        ):
            phases.append(event["object"].status.phase)
            if phases[-1] == "Running":
                break
        assert phases[-1] == "Running"
        said = stream(
            core.connect_get_namespaced_pod_exec,
            "py",
            "default",
            command=["sh", "-c", "echo $((6*7))"],
            stdout=True,
            stderr=True,
            stdin=False,
            tty=False,
        )
        assert said == "42\n"
        cluster.until(lambda: core.read_namespaced_pod_log("py", "default") == "hello\n", "what it printed")
        patched = core.patch_namespaced_pod("py", "default", {"metadata": {"annotations": {"a": "b"}}})
        assert patched.metadata.annotations["a"] == "b"
        with pytest.raises(client.ApiException) as refused:
            core.create_namespaced_pod("default", body)
        assert (refused.value.status, refused.value.reason) == (409, "Conflict")
        core.delete_namespaced_pod("py", "default")
