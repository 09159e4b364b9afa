"""Certificate requests go when they have served: an hour after they were decided on, a day after nobody did."""

from __future__ import annotations

from datetime import datetime

from knarr.api.certificates.v1 import CertificateSigningRequest, CertificateSigningRequestStatus
from knarr.api.errors import NotFound
from knarr.client.controller import Controller
from knarr.client.informer import key_of

DECIDED_KEPT_S = 3600
PENDING_KEPT_S = 24 * 3600


class CertificateCleaner(Controller):
    """Deletes old v1 CertificateSigningRequests."""

    name = "certificatesigningrequest-cleaner-controller"

    def watch(self) -> None:
        self.requests = self.informer(CertificateSigningRequest)
        self.on(self.requests, key_of)

    async def reconcile(self, key: str) -> float | None:
        request = self.requests.get(key)
        if request is None:
            return None
        ends_s = end_of(request)
        left_s = ends_s - self.clock.time_s()
        if left_s > 0:
            return left_s
        try:
            await self.client.delete(CertificateSigningRequest, key, uid=request.metadata.uid)
        except NotFound:
            pass
        return None


def end_of(request: CertificateSigningRequest) -> float:
    """When it is to go (seconds since the epoch)."""
    status = request.status or CertificateSigningRequestStatus()
    created_s = _seconds(request.metadata.creation_timestamp)
    ends = []
    for condition in status.conditions:
        since_s = _seconds(condition.last_update_time) or created_s
        issued = condition.type == "Approved" and status.certificate
        if issued or condition.type in ("Denied", "Failed"):
            ends.append(since_s + DECIDED_KEPT_S)
    if status.certificate and (expires_s := _expiry(status.certificate)):
        ends.append(expires_s)
    return min(ends, default=created_s + PENDING_KEPT_S)


def _seconds(moment: datetime | None) -> float:
    return moment.timestamp() if moment else 0.0


def _expiry(certificate: bytes) -> float:
    """When a certificate (PEM) ends; 0 when it can't be read."""
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(certificate).not_valid_after_utc.timestamp()
    except ValueError:
        return 0.0
