"""Nodes that may have a client certificate get theirs approved: no person has to look at it (kubeadm join, rotation).

A request for the signer kubernetes.io/kube-apiserver-client-kubelet that is well formed is approved when its
requester may create certificatesigningrequests/nodeclient (for a first certificate), or .../selfnodeclient for a
node's own next one.
"""

from __future__ import annotations

from knarr.api.authorization.v1 import ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec
from knarr.api.certificates.kubelet import client_fault, node_name_of
from knarr.api.certificates.requests import KUBELET_CLIENT, RequestFault, parsed
from knarr.api.certificates.v1 import (
    CertificateSigningRequest,
    CertificateSigningRequestCondition,
    CertificateSigningRequestStatus,
)
from knarr.api.types import replace
from knarr.client.controller import Controller
from knarr.client.informer import key_of
from knarr.clock import utc

ASK_AGAIN_S = 30.0
"""Rights may be given after the request was made."""
SELF = ("selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview.")
OTHER = ("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview.")


class CertificateApproval(Controller):
    """Sets the condition Approved on nodes' own v1 CertificateSigningRequests."""

    name = "certificatesigningrequest-approving-controller"

    def watch(self) -> None:
        self.requests = self.informer(CertificateSigningRequest)
        self.on(self.requests, key_of)

    async def reconcile(self, key: str) -> float | None:
        request = self.requests.get(key)
        if request is None or request.spec.signer_name != KUBELET_CLIENT or _decided(request):
            return None
        ways = ways_of(request)
        for subresource, message in ways:
            if await self._may(request, subresource):
                await self._approve(request, message)
                return None
        return ASK_AGAIN_S if ways else None

    async def _may(self, request: CertificateSigningRequest, subresource: str) -> bool:
        spec = request.spec
        wanted = ResourceAttributes(
            verb="create",
            group="certificates.k8s.io",
            version="*",
            resource="certificatesigningrequests",
            subresource=subresource,
        )
        asked = SubjectAccessReviewSpec(
            user=spec.username, uid=spec.uid, groups=spec.groups, extra=spec.extra, resource_attributes=wanted
        )
        answer = await self.client.create(SubjectAccessReview(spec=asked))
        return bool(answer.status and answer.status.allowed)

    async def _approve(self, request: CertificateSigningRequest, message: str) -> None:
        now = utc(self.clock.time_s())
        approved = CertificateSigningRequestCondition(
            type="Approved", status="True", reason="AutoApproved", message=message, last_update_time=now
        )
        status = request.status or CertificateSigningRequestStatus()
        changed = replace(request, status=replace(status, conditions=[*status.conditions, approved]))
        await self.client.update(changed, subresource="approval")


def ways_of(request: CertificateSigningRequest) -> list[tuple[str, str]]:
    """The rights by which a request can be approved, with what is then said; none when it is no node's."""
    try:
        found = parsed(request.spec.request)
    except RequestFault:
        return []
    if client_fault(found, request.spec.usages):
        return []
    own = node_name_of(found) == request.spec.username
    return [SELF, OTHER] if own else [OTHER]


def _decided(request: CertificateSigningRequest) -> bool:
    status = request.status or CertificateSigningRequestStatus()
    return bool(status.certificate) or any(each.type in ("Approved", "Denied") for each in status.conditions)
