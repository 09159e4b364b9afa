"""Environment variables: expansion, references, service links."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from knarr.api.core.v1 import ConfigMap, Pod, Secret, Service
from knarr.node.environment import ConfigurationError, Surroundings, environment, expand, expand_strictly

CONFIG = msgspec.convert({"data": {"colour": "red", "size": "7"}}, ConfigMap)
SECRET = Secret(data={"token": b"s3cret", "raw": b"\xff"})
AROUND = Surroundings(
    config_map=lambda name: CONFIG if name == "settings" else None,
    secret=lambda name: SECRET if name == "keys" else None,
    pod_ips=("10.1.2.3", "fd00::3"),
    host_ips=("192.0.2.1",),
    allocatable={"cpu": "4", "memory": "8Gi"},
)


def pod(container: dict[str, Any] | None = None, **spec: Any) -> Pod:
    return msgspec.convert(
        {
            "metadata": {
                "name": "web",
                "namespace": "shop",
                "uid": "u-1",
                "labels": {"app": "web", "b": 'say "hi"'},
                "annotations": {"note": "line\nbreak"},
            },
            "spec": {
                "nodeName": "n",
                "serviceAccountName": "robot",
                "containers": [{"name": "main", **(container or {})}],
                **spec,
            },
        },
        Pod,
    )


def variables(container: dict[str, Any], around: Surroundings = AROUND, **spec: Any) -> dict[str, str]:
    made = pod(container, **spec)
    assert made.spec
    return environment(made, made.spec.containers[0], around)


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("plain", "plain"),
        ("$(A)", "1"),
        ("$(A)$(B)", "12"),
        ("x$(A)y", "x1y"),
        ("$(NOBODY)", "$(NOBODY)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$$$$(A)", "$$(A)"),
        ("$A", "$A"),
        ("$", "$"),
        ("$(A", "$(A"),
        ("$(A$(B)", "$(A$(B)"),
        ("$()", "$()"),
        ("$x$(A)", "$x1"),
        ("a$$b", "a$b"),
    ],
)
def test_expansion(text: str, expanded: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == expanded


def test_a_sub_path_must_expand_wholly() -> None:
    assert expand_strictly("$(A)/$$(B)", {"A": "1"}) == "1/$(B)"
    with pytest.raises(ConfigurationError, match='missing value for "B"'):
        expand_strictly("$(B)", {"A": "1"})


def test_a_variable_sees_only_those_before_it() -> None:
    env = [{"name": "A", "value": "$(B)"}, {"name": "B", "value": "2"}, {"name": "C", "value": "$(B)"}]
    assert variables({"env": env}) == {"A": "$(B)", "B": "2", "C": "2"}


def test_later_sources_win_and_prefixes_are_put_before() -> None:
    container = {
        "envFrom": [
            {"configMapRef": {"name": "settings"}},
            {"prefix": "K_", "secretRef": {"name": "keys"}},
            {"configMapRef": {"name": "nobody", "optional": True}},
        ],
        "env": [{"name": "colour", "value": "blue"}],
    }
    found = variables(container)
    assert found["colour"] == "blue"
    assert found["size"] == "7"
    assert found["K_token"] == "s3cret"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"configMapKeyRef": {"name": "nobody", "key": "k"}}, 'configmap "nobody" not found'),
        (
            {"configMapKeyRef": {"name": "settings", "key": "k"}},
            "couldn't find key k in ConfigMap shop/settings",
        ),
        ({"secretKeyRef": {"name": "nobody", "key": "k"}}, 'secret "nobody" not found'),
        ({"secretKeyRef": {"name": "keys", "key": "k"}}, "couldn't find key k in Secret shop/keys"),
        ({"fieldRef": {"fieldPath": "status.nothing"}}, "unsupported fieldPath: status.nothing"),
    ],
)
def test_a_reference_that_leads_nowhere(source: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        variables({"env": [{"name": "X", "valueFrom": source}]})
    assert str(caught.value) == message


def test_optional_references_may_lead_nowhere() -> None:
    env = [
        {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "nobody", "key": "k", "optional": True}}},
        {"name": "B", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "k", "optional": True}}},
    ]
    assert variables({"env": env}) == {}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "web"),
        ("metadata.namespace", "shop"),
        ("metadata.uid", "u-1"),
        ("metadata.labels['app']", "web"),
        ("metadata.labels['nobody']", ""),
        ("metadata.annotations['note']", "line\nbreak"),
        ("metadata.labels", 'app="web"\nb="say \\"hi\\""'),
        ("spec.nodeName", "n"),
        ("spec.serviceAccountName", "robot"),
        ("status.hostIP", "192.0.2.1"),
        ("status.podIP", "10.1.2.3"),
        ("status.podIPs", "10.1.2.3,fd00::3"),
    ],
)
def test_fields(path: str, value: str) -> None:
    assert variables({"env": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": path}}}]}) == {"X": value}


@pytest.mark.parametrize(
    ("resource", "divisor", "value"),
    [
        ("limits.cpu", None, "2"),
        ("limits.cpu", "1m", "1500"),
        ("requests.cpu", "1m", "500"),
        ("requests.memory", "1Mi", "64"),
        ("limits.memory", None, str(8 << 30)),
        ("requests.ephemeral-storage", None, "0"),
    ],
)
def test_amounts_of_the_container_or_else_of_the_node(resource: str, divisor: str | None, value: str) -> None:
    given = {"limits": {"cpu": "1500m"}, "requests": {"cpu": "500m", "memory": "64Mi"}}
    selector = {"resource": resource, **({"divisor": divisor} if divisor else {})}
    container = {"resources": given, "env": [{"name": "X", "valueFrom": {"resourceFieldRef": selector}}]}
    assert variables(container) == {"X": value}


def service(name: str, address: str, *ports: dict[str, Any], namespace: str = "shop") -> Service:
    return msgspec.convert(
        {"metadata": {"name": name, "namespace": namespace}, "spec": {"clusterIP": address, "ports": list(ports)}},
        Service,
    )


def test_service_links() -> None:
    services = [
        service("back-end", "10.96.0.7", {"port": 80, "name": "http"}, {"port": 53, "protocol": "UDP"}),
        service("headless", "None", {"port": 80}),
        service("kubernetes", "10.96.0.1", {"port": 443, "name": "https"}, namespace="default"),
    ]
    around = Surroundings(AROUND.config_map, AROUND.secret, services)
    found = variables({"env": [{"name": "URL", "value": "http://$(BACK_END_SERVICE_HOST)"}]}, around)
    assert found["URL"] == "http://10.96.0.7"
    assert found["BACK_END_SERVICE_PORT"] == found["BACK_END_SERVICE_PORT_HTTP"] == "80"
    assert found["BACK_END_PORT"] == "tcp://10.96.0.7:80"
    assert found["BACK_END_PORT_53_UDP"] == "udp://10.96.0.7:53"
    assert found["BACK_END_PORT_53_UDP_ADDR"] == "10.96.0.7"
    assert found["KUBERNETES_SERVICE_HOST"] == "10.96.0.1"
    assert not any(name.startswith("HEADLESS") for name in found)
    without = variables({}, around, enableServiceLinks=False)
    assert set(without) == {name for name in found if name.startswith("KUBERNETES_")}
