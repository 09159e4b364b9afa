"""The kinds of the core group, as they are served."""

from __future__ import annotations

from knarr.api.core import v1
from knarr.api.resources import Resource

RESOURCES = (
    Resource(v1.ConfigMap, "", "v1", "ConfigMap", "configmaps", "configmap", True, short_names=("cm",)),
    Resource(v1.Endpoints, "", "v1", "Endpoints", "endpoints", "endpoints", True, short_names=("ep",)),
    Resource(v1.Event, "", "v1", "Event", "events", "event", True, short_names=("ev",)),
    Resource(
        v1.Namespace,
        "",
        "v1",
        "Namespace",
        "namespaces",
        "namespace",
        False,
        short_names=("ns",),
        subresources=("finalize", "status"),
        verbs=("create", "delete", "get", "list", "patch", "update", "watch"),
    ),
    Resource(
        v1.Node,
        "",
        "v1",
        "Node",
        "nodes",
        "node",
        False,
        short_names=("no",),
        subresources=("status",),
    ),
    Resource(
        v1.Pod,
        "",
        "v1",
        "Pod",
        "pods",
        "pod",
        True,
        short_names=("po",),
        categories=("all",),
        subresources=("attach", "binding", "exec", "log", "status"),
    ),
    Resource(v1.Secret, "", "v1", "Secret", "secrets", "secret", True),
    Resource(
        v1.Service,
        "",
        "v1",
        "Service",
        "services",
        "service",
        True,
        short_names=("svc",),
        categories=("all",),
        subresources=("status",),
    ),
    Resource(
        v1.ServiceAccount,
        "",
        "v1",
        "ServiceAccount",
        "serviceaccounts",
        "serviceaccount",
        True,
        short_names=("sa",),
        subresources=("token",),
    ),
)
