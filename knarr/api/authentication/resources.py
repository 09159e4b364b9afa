"""The kinds of the group authentication.k8s.io, as they are served: questions, answered and never kept."""

from __future__ import annotations

from knarr.api.authentication import v1
from knarr.api.resources import served

RESOURCES = (
    served(v1.SelfSubjectReview, "selfsubjectreviews", namespaced=False, verbs=("create",)),
    served(v1.TokenReview, "tokenreviews", namespaced=False, verbs=("create",)),
)
