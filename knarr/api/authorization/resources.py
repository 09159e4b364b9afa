"""The kinds of the group authorization.k8s.io, as they are served: questions, answered and never kept."""

from __future__ import annotations

from knarr.api.authorization import v1
from knarr.api.resources import served

RESOURCES = (
    served(v1.LocalSubjectAccessReview, "localsubjectaccessreviews", verbs=("create",)),
    served(v1.SelfSubjectAccessReview, "selfsubjectaccessreviews", namespaced=False, verbs=("create",)),
    served(v1.SelfSubjectRulesReview, "selfsubjectrulesreviews", namespaced=False, verbs=("create",)),
    served(v1.SubjectAccessReview, "subjectaccessreviews", namespaced=False, verbs=("create",)),
)
