"""The kinds of the group rbac.authorization.k8s.io, as they are served."""

from __future__ import annotations

from knarr.api.rbac import roles, v1
from knarr.api.resources import served

RESOURCES = (
    served(
        v1.ClusterRoleBinding,
        "clusterrolebindings",
        namespaced=False,
        strategy=roles.BindingStrategy(namespaced=False),
        columns=roles.BINDING_COLUMNS,
    ),
    served(
        v1.ClusterRole,
        "clusterroles",
        namespaced=False,
        strategy=roles.ClusterRoleStrategy(),
        columns=roles.ROLE_COLUMNS,
    ),
    served(
        v1.RoleBinding,
        "rolebindings",
        strategy=roles.BindingStrategy(namespaced=True),
        columns=roles.BINDING_COLUMNS,
    ),
    served(v1.Role, "roles", strategy=roles.RoleStrategy(), columns=roles.ROLE_COLUMNS),
)
