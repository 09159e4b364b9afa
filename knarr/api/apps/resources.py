"""The kinds of the group apps, as they are served."""

from __future__ import annotations

from knarr.api.apps import v1, workloads
from knarr.api.resources import Resource

RESOURCES = (
    Resource(
        v1.Deployment,
        "apps",
        "v1",
        "Deployment",
        "deployments",
        "deployment",
        True,
        short_names=("deploy",),
        categories=("all",),
        subresources=("scale", "status"),
        strategy=workloads.DeploymentRules(),
        columns=workloads.DEPLOYMENT_COLUMNS,
    ),
    Resource(
        v1.ReplicaSet,
        "apps",
        "v1",
        "ReplicaSet",
        "replicasets",
        "replicaset",
        True,
        short_names=("rs",),
        categories=("all",),
        subresources=("scale", "status"),
        strategy=workloads.ReplicaSetRules(),
        columns=workloads.REPLICA_SET_COLUMNS,
    ),
)
