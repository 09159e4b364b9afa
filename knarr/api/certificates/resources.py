"""The kinds of the group certificates.k8s.io, as they are served."""

from __future__ import annotations

from knarr.api.certificates import requests, v1
from knarr.api.resources import served

RESOURCES = (
    served(
        v1.CertificateSigningRequest,
        "certificatesigningrequests",
        namespaced=False,
        short_names=("csr",),
        subresources=("approval", "status"),
        strategy=requests.CertificateSigningRequestStrategy(),
        columns=requests.COLUMNS,
    ),
)
