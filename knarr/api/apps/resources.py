"""The kinds of the group apps, as they are served."""

from __future__ import annotations

from knarr.api.apps import v1, workloads
from knarr.api.resources import served

RESOURCES = (
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
)
