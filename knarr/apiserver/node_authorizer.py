"""What a node may do: what its own pods need, and nothing that belongs to another node (upstream's Node authorizer).

A node is a user system:node:<name> in the group system:nodes. Objects that pods refer to are its to read when a pod of
its own does (`node_graph.py`); everything else is as the role system:node says. What a node may *write into* its
objects is for the admission plugin NodeRestriction.
"""

from __future__ import annotations

from collections.abc import Callable

from knarr.api.coordination import data_planes
from knarr.api.selectors import parse_field_selector
from knarr.apiserver.action import Action
from knarr.apiserver.default_roles import CLUSTER_ROLES
from knarr.apiserver.node_graph import NodeGraph
from knarr.apiserver.rules import allows_resource, allows_url
from knarr.client.transport import User
from knarr.store.contract import Store

NODES = "system:nodes"
PREFIX = "system:node:"
LEASES_NAMESPACE = "kube-node-lease"
READS = ("get", "list", "watch")
OWNED_VERBS = ("get", "create", "update", "patch", "delete")
ROLE = CLUSTER_ROLES["system:node"]


def node_of(user: User) -> str:
    """The name of the node that a user is; empty when it is none."""
    if user.name.startswith(PREFIX) and NODES in user.groups:
        return user.name[len(PREFIX) :]
    return ""


class NodeAuthorizer:
    """Has an opinion on nodes only."""

    def __init__(self, store: Store) -> None:
        self.graph = NodeGraph(store)
        self.follower = self.graph.follower
        self._rules: dict[tuple[str, str], Callable[[str, Action], str]] = {
            ("", "secrets"): self._read,
            ("", "configmaps"): self._read,
            ("", "persistentvolumeclaims"): self._claim,
            ("", "persistentvolumes"): self._get,
            ("resource.k8s.io", "resourceclaims"): self._get,
            ("storage.k8s.io", "volumeattachments"): self._get,
            ("", "serviceaccounts"): self._account,
            ("coordination.k8s.io", "leases"): self._lease,
            ("storage.k8s.io", "csinodes"): self._csi_node,
            ("resource.k8s.io", "resourceslices"): self._slice,
            ("", "nodes"): self._node,
            ("", "pods"): self._pod,
        }

    def concerns(self, user: User) -> bool:
        return bool(node_of(user))

    def allows(self, user: User, action: Action) -> bool:
        return self.explain(user, action)[0]

    def explain(self, user: User, action: Action) -> tuple[bool, str]:
        node = node_of(user)
        rule = None if action.path else self._rules.get((action.group, action.resource))
        if rule is not None:
            reason = rule(node, action)
            return (False, "" if reason == NO else reason) if reason else (True, "")
        if action.path:
            return any(allows_url(each, action.verb, action.path) for each in ROLE), ""
        return any(allows_resource(each, action.verb, action.group, action.full_resource) for each in ROLE), ""

    # Each answers why not; an empty text allows.

    def _read(self, node: str, action: Action) -> str:
        if action.verb not in READS:
            return "can only read resources of this type"
        if action.subresource:
            return "cannot read subresource"
        if not action.namespace:
            return "can only read namespaced object of this type"
        return self._related(node, action)

    def _get(self, node: str, action: Action) -> str:
        if action.verb != "get":
            return "can only get individual resources of this type"
        if action.subresource:
            return "cannot get subresource"
        return self._related(node, action)

    def _claim(self, node: str, action: Action) -> str:
        if action.subresource != "status":
            return self._get(node, action)
        if action.verb not in ("get", "update", "patch"):
            return "can only get/update/patch this type"
        return self._related(node, action)

    def _account(self, node: str, action: Action) -> str:
        if action.verb == "get" and not action.subresource:
            return self._related(node, action)
        if action.verb != "create" or not action.name:
            return "can only create tokens for individual service accounts"
        if action.subresource != "token":
            return "can only create token subresource of serviceaccount"
        return self._related(node, action)

    def _lease(self, node: str, action: Action) -> str:
        if action.namespace == data_planes.NAMESPACE and not action.subresource and _is_of_data_plane(node, action):
            return ""
        if action.verb not in OWNED_VERBS:
            return "can only get, create, update, patch, or delete a node lease"
        if action.namespace != LEASES_NAMESPACE:
            return f'can only access leases in the "{LEASES_NAMESPACE}" system namespace'
        if action.verb != "create" and action.name != node:
            return "can only access node lease with the same name as the requesting node"
        return ""

    def _csi_node(self, node: str, action: Action) -> str:
        if action.verb not in OWNED_VERBS:
            return "can only get, create, update, patch, or delete a CSINode"
        if action.subresource:
            return "cannot authorize CSINode subresources"
        if action.verb != "create" and action.name != node:
            return "can only access CSINode with the same name as the requesting node"
        return ""

    def _slice(self, node: str, action: Action) -> str:
        if action.subresource:
            return "cannot authorize ResourceSlice subresources"
        match action.verb:
            case "create":
                return ""  # NodeRestriction looks at whose it will be.
            case "get" | "update" | "patch" | "delete":
                return self._related(node, action)
            case "list" | "watch" | "deletecollection" if _selects(action, "spec.nodeName", node):
                return ""
            case "list" | "watch" | "deletecollection":
                return "can only list/watch/deletecollection resourceslices with nodeName field selector"
        return (
            "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete"
        )

    def _node(self, node: str, action: Action) -> str:
        match action.subresource, action.verb:
            case ("", "create" | "update" | "patch") | ("status", "update" | "patch"):
                return ""  # NodeRestriction looks at which one.
            case "", "get" | "list" | "watch":
                if action.name == node:
                    return ""
                if not action.name:
                    return f"node '{node}' cannot read all nodes, only its own Node object"
                return f"node '{node}' cannot read '{action.name}', only its own Node object"
        return NO

    def _pod(self, node: str, action: Action) -> str:
        match action.subresource, action.verb:
            case ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create"):
                return ""  # NodeRestriction looks at which one.
            case "", "get":
                return self._related(node, action)
            case "", "list" | "watch":
                if _selects(action, "spec.nodeName", node):
                    return ""
                if action.name:
                    return self._related(node, action)
                return "can only list/watch pods with spec.nodeName field selector"
        return NO

    def _related(self, node: str, action: Action) -> str:
        if not action.name:
            return "No Object name found"
        if self.graph.needs(node, action.resource, action.namespace, action.name):
            return ""
        return f"no relationship found between node '{node}' and this object"


def _is_of_data_plane(node: str, action: Action) -> bool:
    """Ours beyond upstream's: a node reads how far the data planes are, and writes it of its own."""
    if action.verb in ("list", "watch") and not action.name:
        return True
    # NodeRestriction looks at which one is created.
    return action.verb == "create" or (action.verb in OWNED_VERBS and action.name in data_planes.leases_of(node))


NO = "no"
"""Not allowed, and nothing to be said about it."""


def _selects(action: Action, field: str, value: str) -> bool:
    """Whether a field selector leaves only objects whose field has the value."""
    if not action.field_selector:
        return False
    try:
        return parse_field_selector(action.field_selector).exact(field) == value
    except ValueError:
        return False
