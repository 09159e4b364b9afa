"""The kinds of the group flowcontrol.apiserver.k8s.io, as they are served."""

from __future__ import annotations

from knarr.api.flowcontrol import levels, schemas, v1
from knarr.api.resources import served

RESOURCES = (
    served(
        v1.FlowSchema,
        "flowschemas",
        namespaced=False,
        subresources=("status",),
        strategy=schemas.FlowSchemaRules(),
        columns=schemas.COLUMNS,
    ),
    served(
        v1.PriorityLevelConfiguration,
        "prioritylevelconfigurations",
        namespaced=False,
        subresources=("status",),
        strategy=levels.PriorityLevelConfigurationRules(),
        columns=levels.COLUMNS,
    ),
)
