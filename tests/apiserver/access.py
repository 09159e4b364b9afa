"""Objects and users for tests of access control."""

from __future__ import annotations

from typing import Any

from knarr.apiserver.action import Action
from knarr.client.transport import User
from knarr.clock import SystemClock
from knarr.store.contract import Write
from knarr.store.memory import MemoryStore

CLOCK = SystemClock(seed=1)


def user(name: str, *groups: str) -> User:
    return User(name, (*groups, "system:authenticated"))


def node(name: str) -> User:
    return User(f"system:node:{name}", ("system:nodes", "system:authenticated"))


def account(namespace: str, name: str) -> User:
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
    return User(f"system:serviceaccount:{namespace}:{name}", groups)


def does(verb: str, resource: str = "", namespace: str = "default", name: str = "", group: str = "") -> Action:
    """`resource` may have a subresource; one that begins with a slash is a URL."""
    if resource.startswith("/"):
        return Action(verb, path=resource)
    plural, _, subresource = resource.partition("/")
    return Action(verb, group, "v1", plural, subresource, namespace, name)


def rule(verbs: str, resources: str = "", groups: str = "", names: str = "", urls: str = "") -> dict[str, Any]:
    made: dict[str, Any] = {"verbs": verbs.split()}
    if urls:
        return made | {"nonResourceURLs": urls.split()}
    made |= {"apiGroups": [*groups.split()] or [""], "resources": resources.split()}
    return made | ({"resourceNames": names.split()} if names else {})


def role(name: str, *rules: dict[str, Any], namespace: str = "", **metadata: Any) -> dict[str, Any]:
    kind = "Role" if namespace else "ClusterRole"
    data = {"name": name, **({"namespace": namespace} if namespace else {}), **metadata}
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind,
        "metadata": data,
        "rules": list(rules),
    }


def subject(text: str) -> dict[str, str]:
    """User:ann, Group:devs, ServiceAccount:namespace/name."""
    kind, _, name = text.partition(":")
    if kind == "ServiceAccount":
        namespace, _, name = name.rpartition("/")
        return {"kind": kind, "name": name, **({"namespace": namespace} if namespace else {})}
    return {"kind": kind, "name": name, "apiGroup": "rbac.authorization.k8s.io"}


def binding(name: str, to: str, *subjects: str, namespace: str = "") -> dict[str, Any]:
    """`to` is ClusterRole/name or Role/name."""
    kind, _, target = to.partition("/")
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding" if namespace else "ClusterRoleBinding",
        "metadata": {"name": name, **({"namespace": namespace} if namespace else {})},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": target},
        "subjects": [subject(each) for each in subjects],
    }


def path_of(obj: dict[str, Any], *, one: bool = False) -> str:
    """The URL path of a role or binding (or of its collection)."""
    namespace = obj["metadata"].get("namespace")
    within = f"namespaces/{namespace}/" if namespace else ""
    path = f"/apis/rbac.authorization.k8s.io/v1/{within}{obj['kind'].lower()}s"
    return f"{path}/{obj['metadata']['name']}" if one else path


async def put(store: MemoryStore, plural: str, obj: dict[str, Any]) -> None:
    """Straight into the store."""
    import msgspec

    metadata = obj["metadata"]
    key = f"{plural}/{metadata.get('namespace', '')}/{metadata['name']}"
    await store.commit(Write(key, msgspec.json.encode(obj)))


async def put_access(store: MemoryStore, *objects: dict[str, Any]) -> None:
    for obj in objects:
        await put(store, f"{obj['kind'].lower()}s.rbac.authorization.k8s.io", obj)


async def remove(store: MemoryStore, key: str) -> None:
    await store.commit(Write(key, None))
