"""sig-auth: what a review says of someone's access is what happens to their requests."""

from __future__ import annotations

from typing import Any

import pytest

from knarr.client.transport import Request
from tests.apiserver.access import binding, path_of, role, rule
from tests.apiserver.pipeline.door import ADMINISTRATOR, CONFIG_MAPS, Door, account

PATH = "/apis/authorization.k8s.io/v1"


@pytest.mark.parametrize("granted", [False, True])
async def test_reviews_agree_with_requests_of_who_is_impersonated(door: Door, granted: bool) -> None:
    """[sig-auth] SubjectReview should support SubjectReview API operations"""
    made = await door.done("POST", "/api/v1/namespaces/default/serviceaccounts", account("e2e"))
    if granted:
        reader = role("reader", rule("list", "configmaps"))
        await door.done("POST", path_of(reader), reader)
        give = binding("reader", "ClusterRole/reader", "ServiceAccount:default/e2e", namespace="default")
        await door.done("POST", path_of(give), give)
    name = "system:serviceaccount:default:e2e"
    groups = ["system:authenticated", "system:serviceaccounts", "system:serviceaccounts:default"]
    who = {"user": name, "groups": groups, "uid": made["metadata"]["uid"]}
    attributes = {"verb": "list", "resource": "configmaps", "namespace": "default", "version": "v1"}

    def review(kind: str, **metadata: Any) -> dict[str, Any]:
        spec = {"resourceAttributes": attributes, **who}
        return {"apiVersion": "authorization.k8s.io/v1", "kind": kind, "metadata": metadata, "spec": spec}

    reviewed = await door.done("POST", f"{PATH}/subjectaccessreviews", review("SubjectAccessReview"))
    headers = {
        "accept": "application/json",
        "impersonate-user": name,
        "impersonate-uid": who["uid"],
        "impersonate-group": "\n".join(groups),
    }
    answer = await door.server.handle(Request("GET", CONFIG_MAPS, {}, headers, b"", ADMINISTRATOR))
    assert answer.status == (200 if granted else 403)
    local = review("LocalSubjectAccessReview", namespace="default")
    locally = await door.done("POST", f"{PATH}/namespaces/default/localsubjectaccessreviews", local)
    assert reviewed["status"]["allowed"] is locally["status"]["allowed"] is granted
