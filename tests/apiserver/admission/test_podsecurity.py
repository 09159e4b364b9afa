"""PodSecurity: every check by what it allows and refuses; labels, warnings, and which changes matter."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from knarr.api.core.v1 import Pod
from knarr.apiserver.admission import podsecurity
from knarr.apiserver.admission.pod_security_standards import LATEST, violations
from knarr.client.client import MERGE_PATCH
from tests.apiserver.pipeline.door import DEPLOYMENTS, PODS, Door, deployment, namespace, pod

NAMESPACE = "/api/v1/namespaces/default"
ENFORCE, WARN = "pod-security.kubernetes.io/enforce", "pod-security.kubernetes.io/warn"


def one(security: dict[str, Any] | None = None, *, pod: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    """A pod with one container "c"; what is said of its securityContext, and of the pod's."""
    container: dict[str, Any] = {"name": "c", "image": "i"} | spec.pop("container", {})
    if security is not None:
        container["securityContext"] = security
    if pod is not None:
        spec["securityContext"] = pod
    return {"spec": {"containers": [container], **spec}}


def annotated(key: str, value: str) -> dict[str, Any]:
    return one() | {"metadata": {"annotations": {key: value}}}


def found(level: str, body: dict[str, Any], minor: int = LATEST) -> list[str]:
    made = msgspec.convert(body, Pod)
    assert made.spec
    return [str(each) for each in violations(level, minor, made.metadata, made.spec)]


APP_ARMOR = "container.apparmor.security.beta.kubernetes.io/c"
BASELINE: list[tuple[dict[str, Any], str]] = [
    (one(), ""),
    (one({"appArmorProfile": {"type": "RuntimeDefault"}}, pod={"appArmorProfile": {"type": "Localhost"}}), ""),
    (
        one({"appArmorProfile": {"type": "Unconfined"}}, pod={"appArmorProfile": {"type": "Unconfined"}}),
        'forbidden AppArmor profile (pod and container "c" must not set AppArmor profile type to "Unconfined")',
    ),
    (annotated(APP_ARMOR, "localhost/mine"), ""),
    (
        annotated(APP_ARMOR, "unconfined"),
        f'forbidden AppArmor profile (annotation must not set AppArmor profile type to "{APP_ARMOR}="unconfined"")',
    ),
    (one({"capabilities": {"add": ["CHOWN", "NET_BIND_SERVICE"]}}), ""),
    (
        one({"capabilities": {"add": ["SYS_TIME", "NET_RAW"]}}),
        'non-default capabilities (container "c" must not include "NET_RAW", "SYS_TIME" in '
        "securityContext.capabilities.add)",
    ),
    (one(hostNetwork=False), ""),
    (
        one(hostNetwork=True, hostPID=True, hostIPC=True),
        "host namespaces (hostNetwork=true, hostPID=true, hostIPC=true)",
    ),
    (one(volumes=[{"name": "a", "emptyDir": {}}]), ""),
    (one(volumes=[{"name": "a", "hostPath": {"path": "/"}}]), 'hostPath volumes (volume "a")'),
    (
        one(volumes=[{"name": name, "hostPath": {"path": "/"}} for name in "ab"]),
        'hostPath volumes (volumes "a", "b")',
    ),
    (one(container={"ports": [{"containerPort": 80}]}), ""),
    (
        one(container={"ports": [{"containerPort": 80, "hostPort": 80}, {"containerPort": 81, "hostPort": 81}]}),
        'hostPort (container "c" uses hostPorts 80, 81)',
    ),
    (one(container={"livenessProbe": {"httpGet": {"port": 80}}}), ""),
    (
        one(container={"livenessProbe": {"httpGet": {"port": 80, "host": "10.0.0.1"}}}),
        'probe or lifecycle host (container "c" uses probe or lifecycle host "10.0.0.1")',
    ),
    (
        one(container={"lifecycle": {"preStop": {"tcpSocket": {"port": 80, "host": "h"}}}}),
        'probe or lifecycle host (container "c" uses probe or lifecycle host "h")',
    ),
    (one({"privileged": False}), ""),
    (one({"privileged": True}), 'privileged (container "c" must not set securityContext.privileged=true)'),
    (one({"procMount": "Default"}), ""),
    (
        one({"procMount": "Unmasked"}),
        'procMount (container "c" must not set securityContext.procMount to "Unmasked")',
    ),
    (one({"procMount": "Unmasked"}, hostUsers=False), ""),
    (one({"seLinuxOptions": {"type": "container_engine_t", "level": "s0"}}), ""),
    (
        one({"seLinuxOptions": {"type": "spc_t"}}, pod={"seLinuxOptions": {"user": "u", "role": "r"}}),
        'seLinuxOptions (pod and container "c" set forbidden securityContext.seLinuxOptions: type "spc_t"; '
        "user may not be set; role may not be set)",
    ),
    (one({"seccompProfile": {"type": "Localhost"}}, pod={"seccompProfile": {"type": "RuntimeDefault"}}), ""),
    (
        one({"seccompProfile": {"type": "Unconfined"}}),
        'seccompProfile (container "c" must not set securityContext.seccompProfile.type to "Unconfined")',
    ),
    (one(pod={"sysctls": [{"name": "net.ipv4.tcp_wmem", "value": "1"}]}), ""),
    (
        one(pod={"sysctls": [{"name": "kernel.msgmax", "value": "1"}, {"name": "net.core.somaxconn", "value": "1"}]}),
        "forbidden sysctls (kernel.msgmax, net.core.somaxconn)",
    ),
    (one({"windowsOptions": {"hostProcess": False}}), ""),
    (
        one({"windowsOptions": {"hostProcess": True}}, pod={"windowsOptions": {"hostProcess": True}}),
        'hostProcess (pod and container "c" must not set securityContext.windowsOptions.hostProcess=true)',
    ),
]


@pytest.mark.parametrize("number", range(len(BASELINE)))
def test_baseline(number: int) -> None:
    body, told = BASELINE[number]
    assert found("baseline", body) == ([told] if told else [])
    assert found("privileged", body) == []


SAFE: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def safe(**changes: Any) -> dict[str, Any]:
    return {key: value for key, value in (SAFE | changes).items() if value is not None}


RESTRICTED: list[tuple[dict[str, Any], str]] = [
    (one(safe()), ""),
    (
        one(safe(allowPrivilegeEscalation=None)),
        'allowPrivilegeEscalation != false (container "c" must set securityContext.allowPrivilegeEscalation=false)',
    ),
    (one(safe(allowPrivilegeEscalation=None), os={"name": "windows"}), ""),
    (one(safe(capabilities={"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]})), ""),
    (one(safe(capabilities=None), os={"name": "windows"}), ""),
    (
        one(safe(capabilities={"drop": ["CHOWN"], "add": ["SYS_TIME"]})),
        'unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"]; container "c" '
        'must not include "SYS_TIME" in securityContext.capabilities.add)',
    ),
    (
        one(safe(procMount="Unmasked"), hostUsers=False),
        'procMount (container "c" must not set securityContext.procMount to "Unmasked")',
    ),
    (
        one(
            safe(),
            volumes=[
                {"name": "a", "configMap": {"name": "m"}},
                {"name": "b", "csi": {"driver": "d"}},
                {"name": "c", "downwardAPI": {}},
                {"name": "d", "emptyDir": {}},
                {"name": "e", "ephemeral": {}},
                {"name": "f", "persistentVolumeClaim": {"claimName": "c"}},
                {"name": "g", "projected": {}},
                {"name": "h", "secret": {"secretName": "s"}},
                {"name": "i", "image": {"reference": "r"}},
            ],
        ),
        "",
    ),
    (
        one(safe(), volumes=[{"name": "a", "hostPath": {"path": "/"}}]),
        'restricted volume types (volume "a" uses restricted volume type "hostPath")',
    ),
    (
        one(
            safe(),
            volumes=[
                {"name": "a", "nfs": {"server": "s", "path": "/"}},
                {"name": "b", "gitRepo": {"repository": "r"}},
            ],
        ),
        'restricted volume types (volumes "a", "b" use restricted volume types "gitRepo", "nfs")',
    ),
    (
        one(safe(runAsNonRoot=None)),
        'runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true)',
    ),
    (one(safe(runAsNonRoot=None), pod={"runAsNonRoot": True}), ""),
    (one(safe(runAsNonRoot=None), hostUsers=False), ""),
    (
        one(safe(runAsNonRoot=False), pod={"runAsNonRoot": True}),
        'runAsNonRoot != true (container "c" must not set securityContext.runAsNonRoot=false)',
    ),
    (one(safe(runAsUser=1), pod={"runAsUser": 2}), ""),
    (
        one(safe(runAsUser=0), pod={"runAsUser": 0}),
        'runAsUser=0 (pod and container "c" must not set runAsUser=0)',
    ),
    (one(safe(runAsUser=0), hostUsers=False), ""),
    (one(safe(seccompProfile=None), pod={"seccompProfile": {"type": "Localhost"}}), ""),
    (
        one(safe(seccompProfile=None)),
        'seccompProfile (pod or container "c" must set securityContext.seccompProfile.type to "RuntimeDefault" or '
        '"Localhost")',
    ),
    (
        one(safe(seccompProfile={"type": "Unconfined"}), pod={"seccompProfile": {"type": "RuntimeDefault"}}),
        'seccompProfile (container "c" must not set securityContext.seccompProfile.type to "Unconfined")',
    ),
    # What baseline refuses, restricted does too, and tells it first.
    (
        one(safe(), hostNetwork=True),
        "host namespaces (hostNetwork=true)",
    ),
]


@pytest.mark.parametrize("number", range(len(RESTRICTED)))
def test_restricted(number: int) -> None:
    body, told = RESTRICTED[number]
    assert found("restricted", body) == ([told] if told else [])


def test_all_kinds_of_containers_are_looked_at() -> None:
    bad = {"securityContext": {"privileged": True}, "image": "i"}
    body = {
        "spec": {
            "initContainers": [{"name": "before", **bad}],
            "containers": [{"name": "main", **bad}],
            "ephemeralContainers": [{"name": "debug", **bad}],
        }
    }
    told = 'privileged (containers "before", "main", "debug" must not set securityContext.privileged=true)'
    assert found("baseline", body) == [told]


VERSIONS: list[tuple[str, dict[str, Any], int]] = [
    ("baseline", one(container={"livenessProbe": {"httpGet": {"port": 80, "host": "h"}}}), 34),
    ("restricted", one(safe(allowPrivilegeEscalation=None)), 8),
    ("restricted", one(safe(capabilities=None)), 22),
    ("restricted", one(safe(seccompProfile=None)), 19),
    ("restricted", one(safe(runAsUser=0)), 23),
]
RELAXED: list[tuple[str, dict[str, Any], int]] = [
    ("baseline", one({"procMount": "Unmasked"}, hostUsers=False), 35),
    ("baseline", one({"seLinuxOptions": {"type": "container_engine_t"}}), 31),
    ("baseline", one(pod={"sysctls": [{"name": "net.ipv4.ip_local_reserved_ports", "value": "1"}]}), 27),
    ("baseline", one(pod={"sysctls": [{"name": "net.ipv4.tcp_fin_timeout", "value": "1"}]}), 29),
    ("baseline", one(pod={"sysctls": [{"name": "net.ipv4.tcp_rmem", "value": "1"}]}), 32),
    ("restricted", one(safe(runAsNonRoot=None), hostUsers=False), 35),
    ("restricted", one(safe(runAsUser=0), hostUsers=False), 35),
    ("restricted", one(safe(allowPrivilegeEscalation=None), os={"name": "windows"}), 25),
    ("baseline", annotated("seccomp.security.alpha.kubernetes.io/pod", "unconfined"), 19),
]


@pytest.mark.parametrize("number", range(len(VERSIONS)))
def test_a_check_begins_with_its_version(number: int) -> None:
    level, body, since = VERSIONS[number]
    assert (len(found(level, body, since - 1)), len(found(level, body, since))) == (0, 1)


@pytest.mark.parametrize("number", range(len(RELAXED)))
def test_a_check_is_relaxed_from_a_version_on(number: int) -> None:
    level, body, since = RELAXED[number]
    assert (len(found(level, body, since - 1)), len(found(level, body, since))) == (1, 0)


async def label(door: Door, **labels: str | None) -> list[str]:
    """Label the namespace; the warnings."""
    prefix = "pod-security.kubernetes.io/"
    changes = {prefix + key.replace("_", "-"): value for key, value in labels.items()}
    answer = await door.ask("PATCH", NAMESPACE, {"metadata": {"labels": changes}}, content_type=MERGE_PATCH)
    assert answer.status == 200, answer.body
    return list(answer.warnings)


PLAIN = (
    'allowPrivilegeEscalation != false (container "c" must set securityContext.allowPrivilegeEscalation=false), '
    'unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"]), '
    'runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true), '
    'seccompProfile (pod or container "c" must set securityContext.seccompProfile.type to "RuntimeDefault" or '
    '"Localhost")'
)


async def test_a_pod_against_the_standard_is_refused(door: Door) -> None:
    await label(door, enforce="restricted")
    status, refused = await door("POST", PODS, pod("a"))
    assert (status, refused["reason"]) == (403, "Forbidden")
    assert refused["message"] == f'pods "a" is forbidden: violates PodSecurity "restricted:latest": {PLAIN}'
    fine = pod("a")
    fine["spec"]["containers"][0]["securityContext"] = SAFE
    await door.done("POST", PODS, fine)
    await label(door, enforce_version="v1.7")
    status, refused = await door("POST", PODS, pod("b"))
    assert 'violates PodSecurity "restricted:v1.7": runAsNonRoot != true (' in refused["message"]
    assert "seccompProfile" not in refused["message"]


async def test_warnings_go_to_pods_and_to_the_templates_of_workloads(door: Door) -> None:
    await label(door, warn="restricted", warn_version="v1.36")
    answer = await door.ask("POST", PODS, pod("a"))
    assert (answer.status, answer.warnings) == (201, [f'would violate PodSecurity "restricted:v1.36": {PLAIN}'])
    answer = await door.ask("POST", DEPLOYMENTS, deployment())
    assert answer.status == 201
    assert [warning.partition(":")[0] for warning in answer.warnings] == ['would violate PodSecurity "restricted']
    assert 'containers "c", "side" must set securityContext.allowPrivilegeEscalation=false' in answer.warnings[0]
    answer = await door.ask("PATCH", f"{DEPLOYMENTS}/web", {"spec": {"replicas": 1}}, content_type=MERGE_PATCH)
    assert len(answer.warnings) == 1


LABELS = {"app": "web"}
TEMPLATE = {"metadata": {"labels": LABELS}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
ONCE = {"metadata": {}, "spec": TEMPLATE["spec"] | {"restartPolicy": "Never"}}
SELECTED = {"selector": {"matchLabels": LABELS}, "template": TEMPLATE}
WORKLOADS: dict[str, dict[str, Any]] = {
    "/apis/apps/v1/namespaces/default/daemonsets": {"spec": SELECTED},
    "/apis/apps/v1/namespaces/default/replicasets": {"spec": SELECTED},
    "/apis/apps/v1/namespaces/default/statefulsets": {"spec": SELECTED | {"serviceName": "web"}},
    "/apis/batch/v1/namespaces/default/jobs": {"spec": {"template": ONCE}},
    "/apis/batch/v1/namespaces/default/cronjobs": {
        "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": ONCE}}}
    },
    "/api/v1/namespaces/default/replicationcontrollers": {"spec": {"selector": LABELS, "template": TEMPLATE}},
    "/api/v1/namespaces/default/podtemplates": {"template": TEMPLATE},
}


@pytest.mark.parametrize("path", WORKLOADS)
async def test_every_kind_that_makes_pods_is_warned_of(door: Door, path: str) -> None:
    await label(door, enforce="restricted")
    answer = await door.ask("POST", path, {"metadata": {"name": "web"}} | WORKLOADS[path])
    assert answer.status == 201, answer.body
    assert answer.warnings == [f'would violate PodSecurity "restricted:latest": {PLAIN}']


async def test_enforcement_does_not_hold_workloads_and_a_refusal_is_not_warned_of(door: Door) -> None:
    await label(door, enforce="restricted", warn="restricted")
    answer = await door.ask("POST", PODS, pod("a"))
    assert (answer.status, answer.warnings) == (403, [])
    assert (await door.ask("POST", DEPLOYMENTS, deployment())).status == 201


@pytest.mark.parametrize(
    ("labels", "enforced", "warned"),
    [
        ({}, "privileged:latest", "privileged:latest"),
        ({"enforce": "baseline"}, "baseline:latest", "baseline:latest"),
        ({"enforce": "baseline", "enforce-version": "v1.30"}, "baseline:v1.30", "baseline:v1.30"),
        ({"enforce": "baseline", "warn-version": "v1.30"}, "baseline:latest", "baseline:v1.30"),
        ({"enforce": "baseline", "warn": "privileged"}, "baseline:latest", "privileged:latest"),
        ({"enforce": "privileged", "warn": "restricted"}, "privileged:latest", "restricted:latest"),
        ({"enforce": "odd", "warn": "odd"}, "restricted:latest", "privileged:latest"),
        ({"audit": "restricted"}, "privileged:latest", "privileged:latest"),
    ],
)
def test_what_labels_mean(labels: dict[str, str], enforced: str, warned: str) -> None:
    found = podsecurity.policy_of({podsecurity.PREFIX + key: value for key, value in labels.items()})[0]
    assert (str(found.enforce), str(found.warn)) == (enforced, warned)


async def test_who_enforces_a_level_is_warned_of_workloads(door: Door) -> None:
    await label(door, enforce="restricted")
    answer = await door.ask("POST", DEPLOYMENTS, deployment())
    assert answer.status == 201
    assert [warning.partition(":")[0] for warning in answer.warnings] == ['would violate PodSecurity "restricted']


async def test_only_changes_that_matter_are_looked_at(door: Door) -> None:
    await door.done("POST", PODS, pod("a"))
    await label(door, enforce="restricted")
    await door.done("PATCH", f"{PODS}/a", {"metadata": {"labels": {"a": "b"}}}, content_type=MERGE_PATCH)
    image = {"spec": {"containers": [{"name": "c", "image": "other"}]}}
    status, refused = await door("PATCH", f"{PODS}/a", image, content_type="application/strategic-merge-patch+json")
    assert (status, "violates PodSecurity" in refused["message"]) == (403, True)
    await door.done("PUT", f"{PODS}/a/status", pod("a") | {"status": {"phase": "Running"}})
    await door.done("DELETE", f"{PODS}/a")


async def test_who_makes_a_namespace_stricter_is_told_of_its_pods(door: Door) -> None:
    for name in ("web-1", "web-0", "web-2"):
        await door.done("POST", PODS, pod(name))
    await door.done("POST", PODS, pod("host", hostNetwork=True))
    short = "allowPrivilegeEscalation != false, unrestricted capabilities, runAsNonRoot != true, seccompProfile"
    expected = [
        'existing pods in namespace "default" violate the new PodSecurity enforce level "restricted:latest"',
        f"host: host namespaces, {short}",
        f"web-0 (and 2 other pods): {short}",
    ]
    assert await label(door, enforce="restricted") == expected
    assert await label(door, enforce="restricted") == [], "nothing changed"
    assert await label(door, enforce="baseline") == [], "it was relaxed"
    assert await label(door, enforce="privileged") == []
    assert await label(door, enforce="baseline") == [
        'existing pods in namespace "default" violate the new PodSecurity enforce level "baseline:latest"',
        "host: host namespaces",
    ]


async def test_only_so_many_pods_are_looked_at(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(podsecurity, "PODS_CHECKED_MAX", 2)
    for name in "abc":
        await door.done("POST", PODS, pod(name))
    warnings = await label(door, enforce="restricted")
    assert warnings[0] == "new PodSecurity enforce level only checked against the first 2 of 3 existing pods"
    assert warnings[2].startswith("a (and 1 other pod): ")


@pytest.mark.parametrize(
    ("key", "value", "detail"),
    [
        ("enforce", "strict", "must be one of privileged, baseline, restricted"),
        ("warn", "", "must be one of privileged, baseline, restricted"),
        ("audit", "None", "must be one of privileged, baseline, restricted"),
        ("enforce-version", "1.25", 'must be "latest" or "v1.x"'),
        ("warn-version", "v1.01", 'must be "latest" or "v1.x"'),
        ("audit-version", "v2.0", 'must be "latest" or "v1.x"'),
    ],
)
async def test_labels_that_say_nothing_are_refused(door: Door, key: str, value: str, detail: str) -> None:
    labels = {f"pod-security.kubernetes.io/{key}": value}
    made = namespace("new")
    made["metadata"]["labels"] = labels
    told = f'metadata.labels[pod-security.kubernetes.io/{key}]: Invalid value: "{value}": {detail}'
    status, refused = await door("POST", "/api/v1/namespaces", made)
    assert (status, refused["reason"], refused["message"]) == (422, "Invalid", f'Namespace "new" is invalid: {told}')
    status, refused = await door("PATCH", NAMESPACE, {"metadata": {"labels": labels}}, content_type=MERGE_PATCH)
    assert (status, refused["message"]) == (422, f'Namespace "default" is invalid: {told}')
