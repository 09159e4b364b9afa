"""The kinds of the group apiextensions.k8s.io, as they are served.

CustomResourceDefinitions can be read, and there are none: kubectl looks for one whenever it creates an object of a kind
that takes no patches (a TokenReview), and gives up where it may not ask.
"""

from __future__ import annotations

from knarr.api.apiextensions import v1
from knarr.api.printing import created_at
from knarr.api.resources import Column, served

RESOURCES = (
    served(
        v1.CustomResourceDefinition,
        "customresourcedefinitions",
        namespaced=False,
        short_names=("crd", "crds"),
        categories=("api-extensions",),
        verbs=("get", "list", "watch"),
        columns=(Column("Created At", created_at, type="date"),),
    ),
)
