"""Certificate requests: who asked is written down, and who may approve and sign is asked of the authorizer.

CertificateApproval and CertificateSigning: the verbs approve and sign on the resource signers, by the signer's name
or by `<its domain>/*`. CertificateSubjectRestriction: nobody gets a certificate of the group system:masters by the
signer for API clients.
"""

from __future__ import annotations

from knarr.api.certificates.requests import KUBE_APISERVER_CLIENT, organizations
from knarr.api.certificates.v1 import CertificateSigningRequest, CertificateSigningRequestStatus
from knarr.apiserver.action import Action
from knarr.apiserver.admission import Attributes
from knarr.apiserver.admission.refusal import refusal
from knarr.apiserver.authorize import MASTERS, Authorizer
from knarr.clock import Clock, utc


class CertificateRequests:
    """Looks at CertificateSigningRequests."""

    def __init__(self, authorizer: Authorizer, clock: Clock) -> None:
        self._authorizer = authorizer
        self._clock = clock

    async def mutate(self, attributes: Attributes) -> None:
        """The requester, and when conditions came, are the server's to say."""
        obj: CertificateSigningRequest = attributes.obj
        if attributes.operation == "CREATE":
            user = attributes.user
            obj.spec.username, obj.spec.uid = user.name, user.uid or None
            obj.spec.groups = list(user.groups)
            obj.spec.extra = {key: list(values) for key, values in user.extra.items()}
        elif attributes.operation == "UPDATE" and attributes.subresource and obj.status:
            self._stamp(obj.status, attributes.old.status)

    def _stamp(self, status: CertificateSigningRequestStatus, old: CertificateSigningRequestStatus | None) -> None:
        now = utc(self._clock.time_s())
        before = {condition.type: condition for condition in (old.conditions if old else ())}
        for condition in status.conditions:
            condition.last_update_time = condition.last_update_time or now
            if condition.last_transition_time is None:
                same = before.get(condition.type)
                kept = same.last_transition_time if same and same.status == condition.status else None
                condition.last_transition_time = kept or now

    async def validate(self, attributes: Attributes) -> None:
        """Raises Forbidden."""
        obj: CertificateSigningRequest = attributes.obj
        match attributes.operation, attributes.subresource:
            case "CREATE", "":
                if obj.spec.signer_name == KUBE_APISERVER_CLIENT and MASTERS in organizations(obj.spec.request):
                    whom = f"use of {KUBE_APISERVER_CLIENT} signer with {MASTERS} group is not allowed"
                    raise refusal(attributes, whom)
            case "UPDATE", "approval":
                if not await self._may("approve", attributes):
                    name = attributes.old.spec.signer_name
                    raise refusal(attributes, f'user not permitted to approve requests with signerName "{name}"')
            case "UPDATE", "status" if _certificate(obj) != _certificate(attributes.old):
                if not await self._may("sign", attributes):
                    name = attributes.old.spec.signer_name
                    raise refusal(attributes, f'user not permitted to sign requests with signerName "{name}"')

    async def _may(self, verb: str, attributes: Attributes) -> bool:
        signer = attributes.old.spec.signer_name
        for name in (signer, f"{signer.partition('/')[0]}/*"):
            action = Action(verb, "certificates.k8s.io", "*", "signers", name=name)
            if await self._authorizer.allows(attributes.user, action):
                return True
        return False


def _certificate(request: CertificateSigningRequest) -> bytes | None:
    return request.status.certificate if request.status else None
