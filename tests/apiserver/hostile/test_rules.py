"""Rows 29, 32 to 34, 37 and 41: what others own, what a namespace, a quota, a role or a budget forbids."""

from __future__ import annotations

from typing import Any

from knarr.client.client import APPLY_PATCH
from knarr.client.transport import User
from tests.apiserver.access import node, user
from tests.apiserver.hostile.cases import Case, refuse, table
from tests.apiserver.pipeline.door import CONFIG_MAPS, DEPLOYMENTS, PODS, Door, config_map, deployment, namespace, pod

ONE = f"{CONFIG_MAPS}/a"
NAMESPACES = "/api/v1/namespaces"
QUOTAS = "/api/v1/namespaces/default/resourcequotas"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
ROLES = f"{RBAC}/namespaces/default/roles"
BINDINGS = f"{RBAC}/namespaces/default/rolebindings"
TOKENS = "/api/v1/namespaces/default/serviceaccounts/default/token"


def applied(**data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data}


async def test_row29_an_apply_that_conflicts_names_each_field_and_its_manager(door: Door) -> None:
    for manager, data in (("one", {"x": "1"}), ("two", {"y": "1"})):
        await door.done("PATCH", ONE, applied(**data), content_type=APPLY_PATCH, fieldManager=manager)
    refused = await refuse(
        door,
        Case(29, "", "PATCH", ONE, applied(x="2", y="2"), 409,
             'Apply failed with 2 conflicts: conflicts with "one":\n- .data.x\nconflicts with "two":\n- .data.y',
             [("FieldManagerConflict", ".data.x"), ("FieldManagerConflict", ".data.y")], APPLY_PATCH,
             {"fieldManager": "three"}),
    )  # fmt: skip
    assert [cause["message"] for cause in refused["details"]["causes"]] == [
        'conflict with "one"',
        'conflict with "two"',
    ]


async def test_row32_nothing_is_made_where_there_is_no_namespace(door: Door) -> None:
    await refuse(
        door, Case(32, "", "POST", f"{NAMESPACES}/none/configmaps", config_map("a"), 404, 'namespaces "none" not found')
    )


async def test_row32_nothing_is_made_in_a_namespace_that_is_ending(door: Door) -> None:
    await door.done("POST", NAMESPACES, namespace("ending"))
    await door.done("DELETE", f"{NAMESPACES}/ending")
    message = 'configmaps "a" is forbidden: unable to create new content in namespace ending because it is being .*'
    causes = [("NamespaceTerminating", "metadata.namespace")]
    await refuse(door, Case(32, "", "POST", f"{NAMESPACES}/ending/configmaps", config_map("a"), 403, message, causes))


@table(
    *(
        Case(33, name, "DELETE", f"{NAMESPACES}/{name}", None, 403,
             f'namespaces "{name}" is forbidden: this namespace may not be deleted')
        for name in ("default", "kube-system", "kube-public")
    )
)  # fmt: skip
async def test_the_first_namespaces_stay(door: Door, case: Case) -> None:
    await refuse(door, case)


QUOTA = {"metadata": {"name": "q"}, "spec": {"hard": {"configmaps": "1"}}}


async def test_row34_over_quota(door: Door) -> None:
    await door.done("POST", QUOTAS, QUOTA)
    patch = {"status": {"hard": {"configmaps": "1"}, "used": {"configmaps": "1"}}}
    await door.done("PATCH", f"{QUOTAS}/q/status", patch, content_type="application/merge-patch+json")
    message = (
        'configmaps "a" is forbidden: exceeded quota: q, requested: configmaps=1, used: configmaps=1, '
        "limited: configmaps=1"
    )
    await refuse(door, Case(34, "", "POST", CONFIG_MAPS, config_map("a"), 403, message))


async def test_row34_against_pod_security(door: Door) -> None:
    label = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}}
    await door.done("PATCH", f"{NAMESPACES}/default", label, content_type="application/merge-patch+json")
    message = 'pods "a" is forbidden: violates PodSecurity "baseline:latest": host namespaces \\(hostNetwork=true\\)'
    await refuse(door, Case(34, "", "POST", PODS, pod("a", hostNetwork=True), 403, message))


def role(name: str, *verbs: str, resource: str = "configmaps", group: str = "") -> dict[str, Any]:
    rules = [{"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}]
    return {"metadata": {"name": name}, "rules": rules}


async def allow(door: Door, who: User, *roles: dict[str, Any]) -> None:
    """Make roles, and bind a user to them."""
    for made in roles:
        name = made["metadata"]["name"]
        await door.done("POST", ROLES, made)
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
        subjects = [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": who.name}]
        await door.done("POST", BINDINGS, {"metadata": {"name": name}, "roleRef": reference, "subjects": subjects})


async def test_row34_nobody_gives_away_more_than_he_has(door: Door) -> None:
    jane = user("jane")
    await allow(door, jane, role("makes-roles", "create", resource="roles", group="rbac.authorization.k8s.io"))
    message = (
        r'roles.rbac.authorization.k8s.io "more" is forbidden: user "jane" \(groups=\["system:authenticated"\]\) is '
        r'attempting to grant RBAC permissions not currently held:\n\{APIGroups:\[""\], Resources:\["secrets"\], '
        r'Verbs:\["get"\]\}'
    )
    more = role("more", "get", resource="secrets")
    await refuse(door, Case(34, "", "POST", ROLES, more, 403, message, more={"user": jane}))


async def test_row34_who_may_not_is_told_what(door: Door) -> None:
    jane = user("jane")
    for method, verb in (("POST", "create"), ("PUT", "update"), ("DELETE", "delete")):
        path = CONFIG_MAPS if method == "POST" else ONE
        name = "" if method == "POST" else ' "a"'
        message = (
            f'configmaps{name} is forbidden: User "jane" cannot {verb} resource "configmaps" in API group "" in the '
            'namespace "default"'
        )
        await refuse(door, Case(34, "", method, path, config_map("a"), 403, message, more={"user": jane}))


async def test_row34_a_node_writes_only_what_is_its_own(door: Door) -> None:
    for name in ("n1", "n2"):
        await door.done("POST", "/api/v1/nodes", {"metadata": {"name": name}})
    patch: dict[str, Any] = {"metadata": {"labels": {"a": "b"}}}
    case = Case(34, "", "PATCH", "/api/v1/nodes/n2", patch, 403, 'nodes "n2" is forbidden: .*n2.*',
                media="application/merge-patch+json", more={"user": node("n1")})  # fmt: skip
    await refuse(door, case)


async def test_row37_an_eviction_against_a_budget(door: Door) -> None:
    made = pod("a")
    made["metadata"]["labels"] = {"app": "a"}
    await door.done("POST", PODS, made)
    media = "application/merge-patch+json"
    conditions = [{"type": "Ready", "status": "True"}]
    running = {"status": {"phase": "Running", "conditions": conditions}}
    await door.done("PATCH", f"{PODS}/a/status", running, content_type=media)
    budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}}
    budget = await door.done("POST", budgets, {"metadata": {"name": "b"}, "spec": spec})
    counted = {
        "observedGeneration": budget["metadata"]["generation"],
        "disruptionsAllowed": 0,
        "currentHealthy": 1,
        "desiredHealthy": 1,
        "expectedPods": 1,
    }
    await door.done("PATCH", f"{budgets}/b/status", {"status": counted}, content_type=media)
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a"}}
    message = "Cannot evict pod as it would violate the pod's disruption budget."
    refused = await refuse(
        door, Case(37, "", "POST", f"{PODS}/a/eviction", body, 429, message, [("DisruptionBudget", "")])
    )
    (cause,) = refused["details"]["causes"]
    assert cause["message"] == "The disruption budget b needs 1 healthy pods and has 1 currently"


def token_request(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}


@table(
    Case(41, "599 seconds", "POST", TOKENS, token_request(expirationSeconds=599), 422,
         r'TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: Invalid value: 599: may not '
         "specify a duration less than 10 minutes", [("FieldValueInvalid", "spec.expirationSeconds")]),
    Case(41, "2^32 seconds and one", "POST", TOKENS, token_request(expirationSeconds=2**32 + 1), 422,
         causes=[("FieldValueInvalid", "spec.expirationSeconds")]),
    Case(41, "a wrong uid", "POST", TOKENS,
         token_request(boundObjectRef={"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "other"}), 409,
         r'Operation cannot be fulfilled on Pod "a": the UID in the bound object reference \(other\) does not match '
         r"the UID in record. The object might have been deleted and then recreated", there=((PODS, pod("a")),)),
    Case(41, "a kind that tokens are not bound to", "POST", TOKENS,
         token_request(boundObjectRef={"apiVersion": "apps/v1", "kind": "Deployment", "name": "a"}), 400,
         "cannot bind token to object of type apps/v1, Kind=Deployment", there=((DEPLOYMENTS, deployment("a")),)),
    Case(41, "what is not there", "POST", TOKENS,
         token_request(boundObjectRef={"apiVersion": "v1", "kind": "Pod", "name": "a"}), 404, 'pods "a" not found'),
)  # fmt: skip
async def test_tokens_that_are_not_given(door: Door, case: Case) -> None:
    await refuse(door, case)
