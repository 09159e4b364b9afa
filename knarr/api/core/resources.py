"""The kinds of the core group, as they are served."""

from __future__ import annotations

from knarr.api.core import limit_ranges, pod_columns, pods, quotas, services, simple, v1
from knarr.api.resources import served

RESOURCES = (
    served(
        v1.ConfigMap,
        "configmaps",
        short_names=("cm",),
        strategy=simple.ConfigMapStrategy(),
        columns=simple.CONFIG_MAP_COLUMNS,
    ),
    served(
        v1.Endpoints,
        "endpoints",
        short_names=("ep",),
        strategy=services.EndpointsStrategy(),
        columns=services.ENDPOINTS_COLUMNS,
    ),
    served(v1.Event, "events", short_names=("ev",), strategy=simple.EventStrategy(), columns=simple.EVENT_COLUMNS),
    served(
        v1.LimitRange,
        "limitranges",
        short_names=("limits",),
        strategy=limit_ranges.LimitRangeStrategy(),
        columns=limit_ranges.COLUMNS,
    ),
    served(
        v1.Namespace,
        "namespaces",
        namespaced=False,
        short_names=("ns",),
        subresources=("finalize", "status"),
        verbs=("create", "delete", "get", "list", "patch", "update", "watch"),
        strategy=simple.NamespaceStrategy(),
        columns=simple.NAMESPACE_COLUMNS,
    ),
    served(
        v1.Node,
        "nodes",
        namespaced=False,
        short_names=("no",),
        subresources=("proxy", "status"),
        strategy=simple.NodeStrategy(),
        columns=simple.NODE_COLUMNS,
    ),
    served(
        v1.Pod,
        "pods",
        short_names=("po",),
        categories=("all",),
        subresources=("attach", "binding", "exec", "log", "portforward", "proxy", "status"),
        strategy=pods.PodStrategy(),
        columns=pod_columns.COLUMNS,
    ),
    served(
        v1.ResourceQuota,
        "resourcequotas",
        short_names=("quota",),
        subresources=("status",),
        strategy=quotas.ResourceQuotaStrategy(),
        columns=quotas.COLUMNS,
    ),
    served(v1.Secret, "secrets", strategy=simple.SecretStrategy(), columns=simple.SECRET_COLUMNS),
    served(
        v1.Service,
        "services",
        short_names=("svc",),
        categories=("all",),
        subresources=("proxy", "status"),
        strategy=services.ServiceStrategy(),
        columns=services.COLUMNS,
    ),
    served(
        v1.ServiceAccount,
        "serviceaccounts",
        short_names=("sa",),
        subresources=("token",),
        columns=simple.SERVICE_ACCOUNT_COLUMNS,
    ),
)
