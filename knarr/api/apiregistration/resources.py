"""The kinds of the group apiregistration.k8s.io, as they are served."""

from __future__ import annotations

from knarr.api.apiregistration import services, v1
from knarr.api.resources import served

RESOURCES = (
    served(
        v1.APIService,
        "apiservices",
        namespaced=False,
        categories=("api-extensions",),
        subresources=("status",),
        strategy=services.APIServiceRules(),
        columns=services.COLUMNS,
    ),
)
