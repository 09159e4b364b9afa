"""Every `kubectl create` and the other commands that make or change objects and need no container."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.apiserver.pipeline.door import deployment
from tests.apiserver.pipeline.echo_node import EchoNode
from tests.apiserver.pipeline.served import serve
from tests.apiserver.pipeline.test_kubectl import KUBECTL, Kubectl

pytestmark = pytest.mark.skipif(KUBECTL is None, reason="kubectl is not installed")


@pytest.fixture
async def kubectl(tmp_path: Path) -> AsyncIterator[Kubectl]:
    async with serve(tmp_path / "pki", EchoNode()) as served:
        yield Kubectl(served, tmp_path)


GENERATORS: tuple[tuple[str, str, str, str], ...] = (
    ("clusterrole one --verb=get,list --resource=pods,deployments.apps --resource-name=x", "clusterrole/one",
     "{.rules[*].apiGroups[0]}", " apps"),
    ("clusterrole two --verb=get --non-resource-url=/logs/*", "clusterrole/two", "{.rules[0].nonResourceURLs}",
     '["/logs/*"]'),
    ("clusterrole three --aggregation-rule=a=b", "clusterrole/three",
     "{.aggregationRule.clusterRoleSelectors[0].matchLabels.a}", "b"),
    ("clusterrolebinding one --clusterrole=view --group=g --user=u", "clusterrolebinding/one", "{.subjects[*].name}",
     "u g"),
    ("role one --verb=get --resource=pods/log", "role/one", "{.rules[0].resources[0]}", "pods/log"),
    ("rolebinding one --role=one --serviceaccount=default:default", "rolebinding/one", "{.subjects[0].namespace}",
     "default"),
    ("configmap one --from-literal=a=b", "configmap/one", "{.data.a}", "b"),
    ("secret generic one --from-literal=a=b", "secret/one", "{.data.a} {.type}", "Yg== Opaque"),
    ("secret docker-registry two --docker-server=r --docker-username=u --docker-password=p", "secret/two", "{.type}",
     "kubernetes.io/dockerconfigjson"),
    ("deployment one --image=busybox --replicas=2 --port=80", "deployment/one",
     "{.spec.replicas} {.spec.template.spec.containers[0].ports[0].containerPort}", "2 80"),
    ("job one --image=busybox -- true", "job/one", "{.spec.template.spec.containers[0].command[0]}", "true"),
    ("cronjob one --image=busybox --schedule=*/5 -- true", "", "", ""),
    ("ingress one --rule=h.example/p*=web:80,tls=st", "ingress/one", "{.spec.rules[0].http.paths[0].pathType}",
     "Prefix"),
    ("namespace one", "namespace/one", "{.status.phase}", "Active"),
    ("poddisruptionbudget one --selector=a=b --min-available=50%", "pdb/one", "{.spec.minAvailable}", "50%"),
    ("priorityclass one --value=5 --preemption-policy=Never", "priorityclass/one", "{.value} {.preemptionPolicy}",
     "5 Never"),
    ("quota one --hard=pods=5,services=20", "quota/one", "{.spec.hard.pods}", "5"),
    ("service clusterip one --tcp=80:8080", "service/one", "{.spec.ports[0].targetPort}", "8080"),
    ("service clusterip none --clusterip=None", "service/none", "{.spec.clusterIP}", "None"),
    ("service nodeport two --tcp=80", "service/two", "{.spec.type}", "NodePort"),
    ("service loadbalancer three --tcp=80", "service/three", "{.spec.type}", "LoadBalancer"),
    ("service externalname four --external-name=example.com", "service/four", "{.spec.externalName}", "example.com"),
    ("serviceaccount one", "serviceaccount/one", "{.metadata.name}", "one"),
)  # fmt: skip


async def test_every_generator_makes_what_it_says(kubectl: Kubectl) -> None:
    for command, what, path, value in GENERATORS:
        arguments = ["*/5 * * * *" if each == "*/5" else each for each in command.split()]
        if "--schedule=*/5" in arguments:
            arguments[arguments.index("--schedule=*/5")] = "--schedule=*/5 * * * *"
        kind = arguments[0]
        assert " created" in await kubectl.run("create", *arguments), command
        if what:
            found = await kubectl.run("get", what, "-o", f"jsonpath={path}")
            assert found == value, (kind, command)
    token = await kubectl.run("create", "token", "one", "--duration=20m", "--audience=a")
    assert token.count(".") == 2
    assert "job.batch/two created" in await kubectl.run("create", "job", "two", "--from=cronjob/one")
    assert (await kubectl.run("get", "job", "two", "-o", "jsonpath={.metadata.ownerReferences[0].kind}")) == "CronJob"


def _review(kind: str, group: str = "authorization.k8s.io", **spec: object) -> dict[str, object]:
    made = {"apiVersion": f"{group}/v1", "kind": kind, "metadata": {"namespace": "default"}}
    return made | ({"spec": spec} if spec else {})


ASKED = {"verb": "get", "resource": "pods", "namespace": "default"}
REVIEWS = (
    (_review("TokenReview", "authentication.k8s.io", token="unknown"), "{.status.authenticated}{.status.error}"),
    (_review("SelfSubjectReview", "authentication.k8s.io"), "{.status.userInfo.username}"),
    (_review("SubjectAccessReview", user="u", resourceAttributes=ASKED), "{.status.allowed}"),
    (_review("LocalSubjectAccessReview", user="u", resourceAttributes=ASKED), "{.status.allowed}"),
    (_review("SelfSubjectAccessReview", resourceAttributes=ASKED), "{.status.allowed}"),
    (_review("SelfSubjectRulesReview", namespace="default"), "{.status.resourceRules[0].verbs}"),
)


async def test_what_takes_no_patches_is_created_from_a_file_and_its_answer_shown(kubectl: Kubectl) -> None:
    """kubectl looks for a CustomResourceDefinition before it creates an object of such a kind."""
    for review, path in REVIEWS:
        file = kubectl.manifest("review.json", review)
        for options in ((), ("--validate=warn",), ("--dry-run=server",)):
            assert "created" in await kubectl.run("create", "-f", file, *options), (review["kind"], options)
        assert await kubectl.run("create", "-f", file, "-o", f"jsonpath={path}"), review["kind"]
    assert "No resources found" in await kubectl.run_both("get", "crds")
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "a.b.c"},
        "spec": {"group": "b.c", "names": {"kind": "A", "plural": "a"}, "scope": "Cluster", "versions": []},
    }
    refused = await kubectl.run("create", "-f", kubectl.manifest("crd.json", crd), code=1)
    assert "MethodNotAllowed" in refused or "does not allow this method" in refused, refused


async def test_commands_that_change_parts_of_a_workload(kubectl: Kubectl) -> None:
    made = {"apiVersion": "apps/v1", "kind": "Deployment"} | deployment()
    await kubectl.run("apply", "-f", kubectl.manifest("d.json", made))
    target = "deploy/web"
    for command in (
        ("set", "image", target, "*=busybox:v2"),
        ("set", "env", target, "A=B", "C-"),
        ("set", "resources", target, "--limits=cpu=200m,memory=64Mi", "--requests=cpu=10m"),
        ("set", "serviceaccount", target, "default"),
        ("rollout", "pause", target),
        ("rollout", "resume", target),
        ("rollout", "restart", target),
        ("autoscale", target, "--min=1", "--max=3", "--cpu-percent=50"),
        ("expose", target, "--port=80", "--target-port=8080", "--name=web"),
        ("set", "selector", "svc/web", "app=other"),
        ("scale", target, "--replicas=4", "--current-replicas=3"),
        ("annotate", target, "note=x"),
    ):
        await kubectl.run(*command)
    found = json.loads(await kubectl.run("get", target, "-o", "json"))
    container = found["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "busybox:v2"
    assert container["env"] == [{"name": "A", "value": "B"}]
    assert container["resources"]["limits"] == {"cpu": "200m", "memory": "64Mi"}
    assert found["spec"]["replicas"] == 4
    assert "kubectl.kubernetes.io/restartedAt" in found["spec"]["template"]["metadata"]["annotations"]
    refused = await kubectl.run("scale", target, "--replicas=9", "--current-replicas=3", code=1)
    assert "Expected replicas to be 3, was 4" in refused
    scaler = json.loads(await kubectl.run("get", "hpa", "web", "-o", "json"))
    assert scaler["spec"]["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    assert (await kubectl.run("get", "svc", "web", "-o", "jsonpath={.spec.selector.app}")) == "other"
    shown = (await kubectl.run("get", target, "--subresource=scale")).splitlines()
    assert shown[0].split() == ["NAME", "DESIRED", "AVAILABLE", "AGE"]
    assert shown[1].split()[:3] == ["web", "4", "0"]


async def test_a_kustomization_is_applied_compared_and_removed(kubectl: Kubectl) -> None:
    folder = kubectl.folder / "kustomization"
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(
        "namePrefix: k-\nconfigMapGenerator: [{name: c, literals: [a=b]}]\nlabels: [{pairs: {app: shop}}]\n"
    )
    said = await kubectl.run("apply", "-k", str(folder))
    assert said.startswith("configmap/k-c-")
    assert await kubectl.run("diff", "-k", str(folder)) == ""
    assert (await kubectl.run("get", "cm", "-l", "app=shop", "-o", "jsonpath={.items[0].data.a}")) == "b"
    assert "deleted" in await kubectl.run("delete", "-k", str(folder))


async def test_replace_by_force_and_delete_in_every_way(kubectl: Kubectl) -> None:
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "a", "labels": {"x": "y"}},
        "data": {"k": "1"},
    }
    path = kubectl.manifest("a.json", body)
    await kubectl.run("create", "-f", path)
    before = await kubectl.run("get", "cm", "a", "-o", "jsonpath={.metadata.uid}")
    assert "replaced" in await kubectl.run("replace", "-f", path)
    said = await kubectl.run("replace", "--force", "-f", path)
    assert '"a" deleted' in said
    assert "configmap/a replaced" in said
    assert await kubectl.run("get", "cm", "a", "-o", "jsonpath={.metadata.uid}") != before
    assert "deleted" in await kubectl.run("delete", "cm", "-l", "x=y", "--wait=false")
    await kubectl.run("create", "-f", path)
    assert "(dry run)" in await kubectl.run("delete", "-f", path, "--dry-run=client")
    assert "(server dry run)" in await kubectl.run("delete", "-f", path, "--dry-run=server")
    assert "deleted" in await kubectl.run("delete", "-f", path, "--now")
    assert "NotFound" in await kubectl.run("delete", "-f", path, code=1)
    assert await kubectl.run("delete", "-f", path, "--ignore-not-found") == ""


async def test_get_in_every_form(kubectl: Kubectl) -> None:
    for name in "abcde":
        await kubectl.run("create", "configmap", name, f"--from-literal=n={name}")
    names = "custom-columns=N:.metadata.name,V:.data.n"
    rows = (await kubectl.run("get", "cm", "-o", names, "--chunk-size=2", "--sort-by=.metadata.name")).splitlines()
    assert [row.split() for row in rows if len(row.split()) == 2 and row.split()[1] in "abcde"] == [
        [each, each] for each in "abcde"
    ]
    assert await kubectl.run("get", "cm", "a", "-o", "name") == "configmap/a\n"
    assert await kubectl.run("get", "cm", "a", "-o", "go-template={{.data.n}}") == "a"
    assert "ok" in await kubectl.run("get", "--raw", "/readyz?verbose")
    async with kubectl.running("get", "cm", "a", "--watch", "--output-watch-events", "--no-headers") as seen:
        assert (await seen.readline()).split()[:2] == [b"ADDED", b"a"]
        await kubectl.run("label", "cm", "a", "l=1")
        assert (await seen.readline()).split()[:2] == [b"MODIFIED", b"a"]
    assert "already has a value" in await kubectl.run("label", "cm", "a", "l=2", code=1)
    assert "a" in await kubectl.run("get", "cm", "-L", "l", "--show-labels", "--show-kind")


async def test_who_one_is_and_what_one_may(kubectl: Kubectl) -> None:
    assert "system:masters" in await kubectl.run("auth", "whoami")
    everything = (await kubectl.run("auth", "can-i", "--list")).splitlines()
    assert [line.split() for line in everything].count(["[*]", "[]", "[*]"]) == 1
    await kubectl.run("auth", "can-i", "get", "pods", "--as=ann", code=1)  # no, says its exit code
    shown = ("--dry-run=client", "-o", "json", "--namespace=default")
    role = await kubectl.run("create", "role", "r", "--verb=get", "--resource=pods", *shown)
    binding = ("rolebinding", "b", "--role=r", "--user=ann", *shown)
    items = [json.loads(role), json.loads(await kubectl.run("create", *binding))]
    both = kubectl.manifest("rbac.json", {"apiVersion": "v1", "kind": "List", "items": items})
    assert "reconciled" in await kubectl.run("auth", "reconcile", "-f", both)
    assert await kubectl.run("auth", "can-i", "get", "pods", "--as=ann") == "yes\n"
    assert "pods" in await kubectl.run("auth", "can-i", "--list", "--as=ann")
