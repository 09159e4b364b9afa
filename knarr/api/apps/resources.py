"""The kinds of the group apps, as they are served."""

from __future__ import annotations

from knarr.api.apps import daemonsets, revisions, statefulsets, v1, workloads
from knarr.api.resources import served

RESOURCES = (
    served(
        v1.ControllerRevision,
        "controllerrevisions",
        strategy=revisions.ControllerRevisionRules(),
        columns=revisions.CONTROLLER_REVISION_COLUMNS,
    ),
    served(
        v1.DaemonSet,
        "daemonsets",
        short_names=("ds",),
        categories=("all",),
        subresources=("status",),
        strategy=daemonsets.DaemonSetRules(),
        columns=daemonsets.DAEMON_SET_COLUMNS,
    ),
    served(
        v1.Deployment,
        "deployments",
        short_names=("deploy",),
        categories=("all",),
        subresources=("scale", "status"),
        strategy=workloads.DeploymentRules(),
        columns=workloads.DEPLOYMENT_COLUMNS,
    ),
    served(
        v1.ReplicaSet,
        "replicasets",
        short_names=("rs",),
        categories=("all",),
        subresources=("scale", "status"),
        strategy=workloads.ReplicaSetRules(),
        columns=workloads.REPLICA_SET_COLUMNS,
    ),
    served(
        v1.StatefulSet,
        "statefulsets",
        short_names=("sts",),
        categories=("all",),
        subresources=("scale", "status"),
        strategy=statefulsets.StatefulSetRules(),
        columns=statefulsets.STATEFUL_SET_COLUMNS,
    ),
)
