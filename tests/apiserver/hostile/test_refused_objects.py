"""Rows 14 to 21, 30 and 31: objects that may not be, changes that may not happen."""

from __future__ import annotations

from typing import Any

from knarr.client.client import JSON_PATCH, MERGE_PATCH
from tests.apiserver.hostile.cases import Case, refuse, table
from tests.apiserver.pipeline.door import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    PODS,
    SERVICES,
    Door,
    config_map,
    deployment,
    pod,
    service,
)

ONE = f"{CONFIG_MAPS}/a"
THERE = ((CONFIG_MAPS, config_map("a", x="1")),)
ROLES = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles"
BINDINGS = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings"
SECRETS = "/api/v1/namespaces/default/secrets"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
MEBIBYTE = 1 << 20
BAD, NEEDED, LONG = "FieldValueInvalid", "FieldValueRequired", "FieldValueTooLong"
NO, TWICE = "FieldValueForbidden", "FieldValueDuplicate"
SUBDOMAIN = "a lowercase RFC 1123 subdomain must consist of .*"


def with_metadata(**metadata: Any) -> dict[str, Any]:
    body = config_map("a")
    body["metadata"] |= metadata
    return body


def owner(name: str, uid: str, **more: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "A", "name": name, "uid": uid, **more}


def role(name: str) -> dict[str, Any]:
    return {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": name}, "rules": []}


@table(
    *(
        Case(14, f"{name[:20]!r}", "POST", CONFIG_MAPS, config_map(name), 422,
             rf'ConfigMap ".*" is invalid: metadata.name: Invalid value: ".*": {fault}', [(BAD, "metadata.name")])
        for name, fault in (
            ("Foo_Bar", SUBDOMAIN),
            ("a" * 254, "must be no more than 253 bytes"),
            ("..", SUBDOMAIN),
            ("a/b", SUBDOMAIN),
            ("foo\n", SUBDOMAIN),
            ("-a", SUBDOMAIN),
            ("a-", SUBDOMAIN),
            ("é", SUBDOMAIN),
            ("a..b", SUBDOMAIN),
        )
    ),
    *(
        Case(14, f"{name!r} of a role", "POST", ROLES, role(name), 422,
             rf'Role.rbac.authorization.k8s.io "{name}" is invalid: metadata.name: Invalid value: "{name}": {fault}',
             [(BAD, "metadata.name")])
        for name, fault in ((".", r"may not be '\.'"), ("..", r"may not be '\.\.'"), ("a/b", "may not contain '/'"),
                            ("a%2fb", "may not contain '%'"))
    ),
    Case(14, "a generated name", "POST", CONFIG_MAPS,
         {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "Foo_"}}, 422,
         causes=[(BAD, "metadata.generateName"), (BAD, "metadata.name")]),
    Case(15, "no name", "POST", CONFIG_MAPS, {"apiVersion": "v1", "kind": "ConfigMap"}, 422,
         r'ConfigMap "" is invalid: metadata.name: Required value: name or generateName is required',
         [(NEEDED, "metadata.name")]),
    Case(16, "a label value of 64", "POST", CONFIG_MAPS, with_metadata(labels={"a": "x" * 64}), 422,
         r'ConfigMap "a" is invalid: metadata.labels: Invalid value: "x+": must be no more than 63 bytes',
         [(BAD, "metadata.labels")]),
    Case(16, "a label key of 64", "POST", CONFIG_MAPS, with_metadata(labels={"x" * 64: "a"}), 422,
         causes=[(BAD, "metadata.labels")]),
    Case(16, "a label with a space", "POST", CONFIG_MAPS, with_metadata(labels={"a b": "x"}), 422,
         causes=[(BAD, "metadata.labels")]),
    Case(16, "257 KiB of annotations", "POST", CONFIG_MAPS, with_metadata(annotations={"a": "x" * (257 << 10)}), 422,
         r'ConfigMap "a" is invalid: metadata.annotations: Too long: may not be more than 262144 bytes',
         [(LONG, "metadata.annotations")]),
    Case(16, "an annotation and a byte too much", "POST", CONFIG_MAPS,
         with_metadata(annotations={"a": "x" * (128 << 10), "b": "é" * (64 << 10)}), 422,
         causes=[(LONG, "metadata.annotations")]),
    Case(16, "a ConfigMap over a MiB", "POST", CONFIG_MAPS, config_map("a", x="x" * (MEBIBYTE + 1)), 422,
         r'ConfigMap "a" is invalid: .*Too long: may not be more than 1048576 bytes', [(LONG, "[]")]),
    Case(16, "a Secret over a MiB", "POST", SECRETS,
         {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "stringData": {"x": "x" * (MEBIBYTE + 1)}},
         422, r'Secret "a" is invalid: data: Too long: may not be more than 1048576 bytes', [(LONG, "data")]),
    Case(16, "a finalizer without a domain", "POST", CONFIG_MAPS, with_metadata(finalizers=["plain"]), 422,
         causes=[(BAD, "metadata.finalizers[0]")]),
    Case(17, "two controllers", "POST", CONFIG_MAPS,
         with_metadata(ownerReferences=[owner(name, name, controller=True) for name in "ab"]), 422,
         r'.*Only one reference can have Controller set to true. Found "true" in references for A/a and A/b',
         [(BAD, "metadata.ownerReferences")]),
    Case(17, "an owner without uid", "POST", CONFIG_MAPS, with_metadata(ownerReferences=[owner("a", "")]), 422,
         r'ConfigMap "a" is invalid: metadata.ownerReferences.uid: Invalid value: "": uid must not be empty',
         [(BAD, "metadata.ownerReferences.uid")]),
    Case(17, "an owner that is nothing", "POST", CONFIG_MAPS, with_metadata(ownerReferences=[{}]), 422,
         causes=[(BAD, f"metadata.ownerReferences.{field}") for field in ("apiVersion", "kind", "name", "uid")]),
    Case(19, "what exists", "POST", CONFIG_MAPS, config_map("a"), 409, r'configmaps "a" already exists',
         reason="AlreadyExists", there=THERE),
    Case(22, "a version at creation", "POST", CONFIG_MAPS, with_metadata(resourceVersion="1"), 400,
         "resourceVersion should not be set on objects to be created"),
    Case(20, "an update of an old version", "PUT", ONE, with_metadata(resourceVersion="1"), 409,
         r'Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes to '
         "the latest version and try again", there=THERE),
    Case(20, "a patch of an old version", "PATCH", ONE, {"metadata": {"resourceVersion": "1"}, "data": {"x": "2"}}, 409,
         media=MERGE_PATCH, there=THERE),
    Case(20, "an update of another uid", "PUT", ONE, with_metadata(uid="other"), 409,
         r'Operation cannot be fulfilled on configmaps "a": Precondition failed: UID in precondition: other, '
         "UID in object meta: .*", there=THERE),
    Case(20, "a delete of another uid", "DELETE", ONE, {"preconditions": {"uid": "other"}}, 409,
         r'Operation cannot be fulfilled on ConfigMap "a": the UID in the precondition \(other\) does not match '
         r"the UID in record \(.*\). The object might have been deleted and then recreated", there=THERE),
    Case(20, "a delete of an old version", "DELETE", ONE, {"preconditions": {"resourceVersion": "1"}}, 409,
         r'Operation cannot be fulfilled on ConfigMap "a": the ResourceVersion in the precondition \(1\) does not '
         r"match the ResourceVersion in record \([0-9]+\). The object might have been modified", there=THERE),
    *(
        Case(21, f"a {kind} without a version", "PUT", f"{path}/a", body, 422,
             rf'{kind}\S* "a" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update',
             [(BAD, "metadata.resourceVersion")], there=((path, body),))
        for kind, path, body in (
            ("Lease", LEASES, {"metadata": {"name": "a"}, "spec": {}}),
            ("PodDisruptionBudget", "/apis/policy/v1/namespaces/default/poddisruptionbudgets",
             {"metadata": {"name": "a"}, "spec": {"minAvailable": 1, "selector": {}}}),
            ("RuntimeClass", "/apis/node.k8s.io/v1/runtimeclasses", {"metadata": {"name": "a"}, "handler": "h"}),
        )
    ),
)  # fmt: skip
async def test_objects_that_may_not_be(door: Door, case: Case) -> None:
    await refuse(door, case)


async def test_row18_a_new_finalizer_on_what_is_being_deleted(door: Door) -> None:
    await door.done("POST", CONFIG_MAPS, with_metadata(finalizers=["example.com/a"]))
    await door.done("DELETE", ONE)
    more = {"metadata": {"finalizers": ["example.com/a", "example.com/b"]}}
    message = (
        r'ConfigMap "a" is invalid: metadata.finalizers: Forbidden: no new finalizers can be added if the object is '
        r'being deleted, found new finalizers \[\]string\{"example.com/b"\}'
    )
    await refuse(
        door,
        Case(18, "", "PATCH", ONE, more, 422, message, [(NO, "metadata.finalizers")], media=MERGE_PATCH),
    )


def changed(what: str, path: str, body: Any, change: Any, causes: Any, message: str = "", media: str = "") -> Case:
    place = f"{path}/{body['metadata']['name']}"
    return Case(30, what, "PATCH", place, change, 422, message, causes, media or MERGE_PATCH, there=((path, body),))


ROLE = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role"}
BINDING = {"metadata": {"name": "a"}, "roleRef": ROLE | {"name": "one"}, "subjects": []}


@table(
    changed("the selector of a Deployment", DEPLOYMENTS, deployment("a"),
            {"spec": {"selector": {"matchLabels": {"app": "b"}}, "template": {"metadata": {"labels": {"app": "b"}}}}},
            [(BAD, "spec.selector")],
            r'Deployment.apps "a" is invalid: spec.selector: Invalid value: \{"matchLabels":\{"app":"b"\}\}: '
            "field is immutable"),
    changed("the address of a Service", SERVICES, service("a", clusterIP="10.96.0.77"),
            {"spec": {"clusterIP": "10.96.0.78", "clusterIPs": ["10.96.0.78"]}}, [(BAD, "spec.clusterIPs[0]")],
            r'Service "a" is invalid: spec.clusterIPs\[0\]: Invalid value: .*: may not change once set'),
    changed("the network of a pod", PODS, pod("a"), [{"op": "add", "path": "/spec/hostNetwork", "value": True}],
            [(NO, "spec")], r'Pod "a" is invalid: spec: Forbidden: pod updates may not change fields other than .*',
            JSON_PATCH),
    changed("the containers of a pod", PODS, pod("a"),
            [{"op": "add", "path": "/spec/containers/-", "value": {"name": "b", "image": "b"}}],
            [(NO, "spec.containers")],
            r'Pod "a" is invalid: spec.containers: Forbidden: pod updates may not add or remove containers',
            JSON_PATCH),
    changed("an immutable ConfigMap", CONFIG_MAPS, config_map("a", x="1") | {"immutable": True}, {"data": {"x": "2"}},
            [(NO, "data")],
            r'ConfigMap "a" is invalid: data: Forbidden: field is immutable when `immutable` is set'),
    changed("immutable, taken back", CONFIG_MAPS, config_map("a") | {"immutable": True}, {"immutable": None},
            [(NO, "immutable")],
            r'ConfigMap "a" is invalid: immutable: Forbidden: field is immutable when `immutable` is set'),
    changed("the type of a Secret", SECRETS, {"metadata": {"name": "a"}}, {"type": "other"}, [(BAD, "type")],
            r'Secret "a" is invalid: type: Invalid value: "other": field is immutable'),
    changed("the role of a binding", BINDINGS, BINDING, {"roleRef": {"name": "two"}}, [(BAD, "roleRef")],
            r'RoleBinding.rbac.authorization.k8s.io "a" is invalid: roleRef: Invalid value: .*: cannot change roleRef'),
)  # fmt: skip
async def test_changes_that_may_not_be(door: Door, case: Case) -> None:
    await refuse(door, case)


def node_port(name: str, number: int) -> dict[str, Any]:
    body = service(name, type="NodePort")
    body["spec"]["ports"][0]["nodePort"] = number
    return body


TAKEN = ((SERVICES, service("other", clusterIP="10.96.0.77")), (SERVICES, node_port("ports", 30080)))


@table(
    *(
        Case(31, what, "POST", SERVICES, body, 422, rf'Service "a" is invalid: {message}', [(BAD, field)], there=TAKEN)
        for what, body, field, message in (
            ("an address that is taken", service("a", clusterIP="10.96.0.77"), "spec.clusterIPs",
             r'spec.clusterIPs: Invalid value: \["10.96.0.77"\]: failed to allocate IP 10.96.0.77: provided IP is '
             "already allocated"),
            ("an address of elsewhere", service("a", clusterIP="10.1.2.3"), "spec.clusterIPs",
             r'spec.clusterIPs: Invalid value: \["10.1.2.3"\]: failed to allocate IP 10.1.2.3: the provided '
             "network does not match the current range"),
            ("a port that is taken", node_port("a", 30080), "spec.ports[0].nodePort",
             r"spec.ports\[0\].nodePort: Invalid value: 30080: provided port is already allocated"),
            ("a port out of range", node_port("a", 29999), "spec.ports[0].nodePort",
             r"spec.ports\[0\].nodePort: Invalid value: 29999: provided port is not in the valid range. The range of "
             "valid ports is 30000-32767"),
        )
    ),
    Case(31, "no address", "POST", SERVICES, service("a", clusterIP="x"), 422, causes=[(BAD, "spec.clusterIPs[0]")]),
    Case(31, "two volumes of one name", "POST", PODS, pod("a", volumes=[{"name": "v"}, {"name": "v"}]), 422,
         r'Pod "a" is invalid: spec.volumes\[1\].name: Duplicate value: "v"', [(TWICE, "spec.volumes[1].name")]),
)  # fmt: skip
async def test_what_is_taken_or_out_of_range(door: Door, case: Case) -> None:
    await refuse(door, case)
